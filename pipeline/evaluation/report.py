"""The evaluation as one self-contained HTML page.

In: `evaluation` as in reports/evaluation.json, `examples`, `curves` (columns phase, step, metric, value).
Out: the page as text (pipeline/pages.py says what keeps it harmless).
Rule: nothing but `models` is required: a section whose input is absent says so, and whatever is not a finite
number shows as a dash.

An example: {"user_id", "timestamp", "slice", "history_length", "history": [ITEM, ...] newest first,
"list": [ITEM + {"hit": bool, "reasons": [str]}, ...], "targets": [ITEM, ...]} with ITEM {"item_id", "title"};
without `hit`, an item of the list is a hit when its id is among the targets.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from pipeline.charts import Interval, Series, bar_chart, interval_chart, line_chart
from pipeline.evaluation.fairness_page import fairness
from pipeline.evaluation.findings import (
    HEADLINE,
    LABELS,
    LEAST_USERS,
    OURS,
    best_baseline,
    cost,
    difference,
    figure,
    kind,
    living,
    mapping,
    payoff,
    ranked,
    reasons,
    retrievers,
    too_few,
    training_seconds,
    verdict,
)
from pipeline.evaluation.people import people
from pipeline.pages import finite, moment, number, page, plain, show, words

LEGEND = {
    "challenger": "challenger",
    "champion": "champion, in service",
    "ablation": "challenger without a part",
    "baseline": "baseline",
}
SLICES = {
    "all": "every point",
    "warm": "user and item seen in train",
    "cold_items": "item never in train",
    "cold_users": "user never in train",
    "empty_history": "nothing known of the user",
    "repeats": "the user had the item before",
    "first_time": "the user had not",
}
FEW_USERS = 30  # below this a user bootstrap says little
BEYOND = {
    "coverage": "Coverage",
    "novelty": "Novelty",
    "diversity": "Diversity",
    "popularity_bias": "Popularity bias",
}
TRAINING = {
    "train_rows": "Rows that were learned from",
    "scorer_points": "Successes that the scorer learned from",
    "refresh_of": "Text encoder kept from",
    "not_fine_tuned": "Why nothing was fine-tuned",
    "layers": "Layers of the encoder",
    "unknown_token_share": "Share of words' pieces that the encoder does not know",
    "text_epochs": "Epochs of fine-tuning",
    "item_reuse": "Uses of a text for each time that it was encoded",
    "ease_regularisation": "EASE: regularisation",
    "ials_regularisation": "iALS: regularisation",
    "positives_only": "EASE and iALS: learn from successes alone",
    "signals": "Further signals: what each gained on validation",
    "challenger_validation_ndcg@10": "nDCG@10 on validation",
    "peak_gib": "Memory at most, GiB",
    "cpu_seconds": "CPU seconds",
    "energy_wh_estimate": "Energy, Wh (an estimate)",
}
"""Names for people of what training tells of itself."""
WINDOWS = ("train", "validation", "test")
# The names under which `split` may hold a window's dates and counts.
FIRST, LAST = ("first", "start", "from"), ("last", "end", "to", "until")
COUNTS = (("rows", "interactions"), ("users",), ("items",), ("points",))


def render(
    evaluation: Mapping[str, Any],
    examples: Sequence[Mapping[str, Any]] = (),
    curves: pd.DataFrame | None = None,
    items: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> str:
    """The page; `items`: `cold_items` and `moved` of pipeline/evaluation/examples.py.

    Raises KeyError only if `evaluation` has no `models`.
    """
    models, best = ranked(evaluation["models"]), best_baseline(evaluation)
    split = mapping(evaluation.get("split"))
    return page(
        "evaluation.html",
        title="Evaluation report",
        lead=_lead(evaluation),
        credit=split.get("credit"),
        facts=_facts(evaluation),
        of_training=_of_training(mapping(evaluation.get("training"))),
        windows=_windows(split),
        extras=[(key, show(value)) for key, value in split.items() if key not in WINDOWS],
        payoff=payoff(evaluation),
        payoff_rows={name: _honest(models[name]) for name in LABELS if name in models},
        living=living(evaluation),
        people=people(evaluation),
        reasons=reasons(evaluation),
        retrievers=retrievers(evaluation),
        candidates=finite(mapping(evaluation.get("candidates")).get("mean")),
        signals=_signals(evaluation),
        training_seconds=training_seconds(mapping(evaluation.get("training"))),
        cost=cost(mapping(evaluation.get("training"))),
        labels=LABELS,
        verdict=verdict(evaluation, best),
        best=best,
        models=models,
        kinds={name: kind(name) for name in models},
        legend_text={key: text for key, text in LEGEND.items() if key in map(kind, models)},
        chart=_headline_chart(models),
        columns=_columns(models),
        top=_top(models),
        seconds=mapping(evaluation.get("seconds")),
        tuned=mapping(evaluation.get("tuned")),
        differences=[pair for name in models if (pair := difference(evaluation, name)).value is not None],
        slices=_slices(evaluation, best),
        slice_text=SLICES,
        fair=fairness(evaluation),
        few=FEW_USERS,
        least=LEAST_USERS,
        curves=_curves(curves),
        by_history=_buckets(evaluation, "by_history_length", "bucket", best),
        by_popularity=_buckets(evaluation, "by_popularity_decile", "decile", best),
        pair_legend={kind(name): words(name) for name in ("challenger", best) if name in models},
        examples=[_example(one) for one in examples],
        cold_items=[_cold_item(one) for one in mapping(items).get("cold_items") or ()],
        moved=[_moved(one) for one in mapping(items).get("moved") or ()],
    )


def _signals(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Kinds of signals by what they add, and whether it is surely something."""
    rows = []
    for name, found in mapping(evaluation.get("signals")).items():
        value, low, high = (finite(mapping(found).get(key)) for key in (HEADLINE, "low", "high"))
        surely = low is not None and high is not None and (low > 0 or high < 0)
        if value is not None:
            rows.append({"name": name, "value": value, "low": low, "high": high, "surely": surely})
    return rows


def _first(found: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((found[name] for name in names if found.get(name) is not None), None)


def _lead(evaluation: Mapping[str, Any]) -> str:
    measured = mapping(mapping(next(iter(evaluation["models"].values()), None)).get("all"))
    counts = [(finite(measured.get(name)), name) for name in ("points", "users")]
    tested = " of ".join(f"{number(count, 0)} {name}" for count, name in counts if count is not None)
    return (
        f"{len(evaluation['models'])} models rank every available item at {tested or 'the same test points'}."
    )


def _facts(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader needs to know the run again by; whatever else `training` says follows."""
    training = mapping(evaluation.get("training"))
    merged = {**mapping(evaluation.get("split")), **training, **evaluation}
    seconds = finite(training.get("seconds"))
    data_hash = _first(merged, ("data_hash", "content_hash"))
    facts = {
        "Encoder": show(training.get("encoder")),
        "Trained layers": show(training.get("trainable_layers")),
        "Training": f"{number(seconds, 0)} s" if seconds is not None else show(None),
        "Data as of": moment(evaluation.get("as_of")),
        "Fitted until": moment(evaluation.get("fit_end")),
        "Seed": show(merged.get("seed")),
        "Data hash": plain(data_hash, 300).removeprefix("sha256:")[:12] if data_hash else show(None),
        "List length": show(evaluation.get("k")),
    }
    return list(facts.items())


def _of_training(training: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What else `training` says, by the names of TRAINING where it has one."""
    used = {"encoder", "trainable_layers", "seconds", "seconds_by_phase", "seed", "data_hash", "content_hash"}
    return [
        (TRAINING.get(key, words(key).capitalize()), show(value))
        for key, value in training.items()
        if key not in used
    ]


def _honest(slices: Mapping[str, Any]) -> dict[str, Any]:
    """Without the intervals of slices whose users are too few for one."""
    return {
        name: {key: value for key, value in mapping(figures).items() if not _is_end(key)}
        if name != "all" and too_few(slices, name)
        else figures
        for name, figures in slices.items()
    }


def _is_end(key: str) -> bool:
    return key.endswith(("_low", "_high"))


def _windows(split: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = {name: mapping(split.get(name)) for name in WINDOWS}
    return [
        {
            "name": name,
            "first": _first(window, FIRST),
            "last": _first(window, LAST),
            "counts": [_first(window, names) for names in COUNTS],
        }
        for name, window in found.items()
        if window
    ]


def _columns(models: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Columns beyond accuracy that some model has: title -> key of the scores."""
    keys = {key for slices in models.values() for key in mapping(slices.get("all"))}
    found = {title: [key for key in (f"{name}@10", name) if key in keys] for name, title in BEYOND.items()}
    return {title: names[0] for title, names in found.items() if names}


def _top(models: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Metric key -> the model that has its highest value on all points."""
    top = {}
    for key in (f"{metric}@{k}" for metric in ("ndcg", "precision", "recall", "mrr") for k in (5, 10, 20)):
        values = {name: figure(slices, key=key) for name, slices in models.items()}
        known = {name: value for name, value in values.items() if value is not None}
        if known:
            top[key] = max(known, key=lambda name: known[name])
    return top


def _headline_chart(models: Mapping[str, dict[str, Any]]) -> Markup:
    rows = []
    for name, slices in models.items():
        value, low, high = (figure(slices, key=HEADLINE + end) for end in ("", "_low", "_high"))
        rows.append(Interval(words(name), value, low, high, kind(name)))
    return interval_chart(rows, label="nDCG@10 of every model with its 95% interval, best first")


def _slices(evaluation: Mapping[str, Any], best: str | None) -> dict[str, Any]:
    models = {
        n: _honest(mapping(evaluation["models"][n])) for n in (*OURS, best) if n in evaluation["models"]
    }
    present = {name for slices in models.values() for name in slices}
    rows = []
    for name in [*(one for one in SLICES if one in present), *sorted(present - set(SLICES))]:
        scores = {model: mapping(slices.get(name)) for model, slices in models.items()}
        users, points = (_first(mapping(next(iter(scores.values()))), (key,)) for key in ("users", "points"))
        few = (finite(users) or 0) < FEW_USERS
        row = {"name": name, "users": users, "points": points, "few": few, "scores": scores}
        row["pair"] = difference(evaluation, best or "", name)
        row["champion"] = difference(evaluation, "champion", name)
        rows.append(row)
    return {"models": list(models), "rows": rows}


def _curves(curves: pd.DataFrame | None) -> dict[str, list[dict[str, Any]]]:
    """Phase -> one small chart a metric, both in the order of the frame."""
    if curves is None or not {"phase", "step", "metric", "value"} <= set(curves.columns):
        return {}
    numbers = {column: pd.to_numeric(curves[column], errors="coerce") for column in ("step", "value")}
    frame = curves.assign(**numbers)
    charts: dict[str, list[dict[str, Any]]] = {}
    for (phase, metric), part in frame.groupby(["phase", "metric"], sort=False):
        part = part[part["value"].map(finite).notna() & part["step"].notna()].sort_values(
            "step", kind="stable"
        )
        if part.empty:
            continue
        x, y = part["step"].tolist(), part["value"].tolist()
        label = f"{words(phase)}, {words(metric)} by step: from {show(y[0])} to {show(y[-1])}"
        chart = line_chart([Series(words(metric), y, x)], label=label, x_label="step")
        charts.setdefault(str(phase), []).append(
            {"metric": str(metric), "first": y[0], "last": y[-1], "chart": chart}
        )
    return charts


def _buckets(evaluation: Mapping[str, Any], key: str, place: str, best: str | None) -> Markup:
    """Grouped bars of nDCG@10, challenger against the best baseline; the points of each group below it."""
    found = mapping(evaluation.get(key))
    tables = {
        name: {show(row.get(place)): row for row in found[name]}
        for name in ("challenger", best)
        if name and found.get(name)
    }
    groups = list(dict.fromkeys(group for table in tables.values() for group in table))
    series = []
    for name, table in tables.items():
        rows = [mapping(table.get(group)) for group in groups]
        y, low, high = ([finite(row.get(HEADLINE + end)) for row in rows] for end in ("", "_low", "_high"))
        series.append(Series(words(name), y, low=low, high=high, kind=kind(name)))
    first = next(iter(tables.values()), {})
    notes = [number(mapping(first.get(group)).get("points"), 0) for group in groups]
    label = f"nDCG@10 by {words(key).removeprefix('by ')}: {' and '.join(map(words, tables))}"
    return bar_chart(groups, series, label=label, notes=notes)


def _example(example: Mapping[str, Any]) -> dict[str, Any]:
    targets, history, shown = (
        [_item(i) for i in example.get(key) or ()] for key in ("targets", "history", "list")
    )
    wanted = {item["item_id"] for item in targets}
    for item in shown:
        item["hit"] = item["item_id"] in wanted if item["hit"] is None else bool(item["hit"])
    length = finite(example.get("history_length"))
    return {
        **{key: example.get(key) for key in ("user_id", "timestamp", "slice")},
        "length": len(history) if length is None else length,
        "history": history[:10],
        "targets": targets[:5],
        "list": shown[:10],
        "hits": sum(item["hit"] for item in shown[:10]),
    }


def _cold_item(found: Mapping[str, Any]) -> dict[str, Any]:
    users = [
        {"user_id": user.get("user_id"), "history": [_item(one) for one in user.get("history") or ()]}
        for user in map(mapping, found.get("users") or ())
    ]
    return {"item": _item(found.get("item")), "points": finite(found.get("points")), "users": users}


def _moved(found: Mapping[str, Any]) -> dict[str, Any]:
    sides = {key: [_item(one) for one in found.get(key) or ()] for key in ("before", "after")}
    return {"item": _item(found.get("item")), **sides}


def _item(item: Any) -> dict[str, Any]:
    """A bare text is a title; where there is no title, the id has to do."""
    found = dict(item) if isinstance(item, Mapping) else {"item_id": item, "title": item}
    item_id, title = plain(found.get("item_id"), 60), found.get("title")
    reasons = found.get("reasons")
    return {
        "item_id": item_id,
        "title": (plain(title, 90) if isinstance(title, str) else "") or f"{item_id} (no title)",
        "hit": found.get("hit"),
        "reasons": [plain(one, 120) for one in reasons] if isinstance(reasons, list | tuple) else [],
    }
