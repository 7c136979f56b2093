"""A backtest as one self-contained HTML page.

In: the content of reports/backtest.json. Out: the page as text (pipeline/pages.py keeps it harmless).
Rule: whatever is missing or not a finite number shows as a dash; nothing is computed here but differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.backtest.policies import CALENDAR, DEFAULT, EVERY_WINDOW, NEVER
from pipeline.charts import Dot, Interval, Series, interval_chart, line_chart, scatter_chart
from pipeline.pages import finite, moment, number, page, words

KINDS = {DEFAULT: "challenger", EVERY_WINDOW: "champion", CALENDAR: "ablation"}
LEGEND = {
    "challenger": "Evergreen's default",
    "champion": "before every window",
    "ablation": "calendar: as often as the default, evenly",
    "baseline": "other",
}
PARTS = {"all": "all windows", "first_half": "first half", "second_half": "second half"}
PROMOTED, REFUSED, NOTHING = "●", "○", "·"

Json = Mapping[str, Any]


def render(found: Json) -> str:
    """The page. Raises KeyError only if `found` has no `policies` or no `windows`."""
    policies, windows = found["policies"], found["windows"]
    return page(
        "backtest.html",
        title="Backtest of retraining policies",
        lead=_lead(found),
        facts=_facts(found),
        answer=_answer(found),
        sentence=verdict(found),
        kinds={name: KINDS.get(name, "baseline") for name in policies},
        legend_text=LEGEND,
        curves=_curves(policies, windows),
        cost=_cost(found),
        rows=_rows(policies),
        paired=_paired(found),
        strips=_strips(policies),
        log=_log(policies),
        windows=windows,
        default=DEFAULT,
        chosen=_chosen(found.get("chosen")),
    )


def verdict(found: Json) -> str:
    """One sentence: what the default keeps of what retraining gains, at which cost."""
    policies = found["policies"]
    never, always, default = (policies.get(name) for name in (NEVER, EVERY_WINDOW, DEFAULT))
    if not (never and always and default):
        return "the default, never and every_window were not all replayed"
    gain = f"nDCG@10 {number(never['mean'])} without retraining, {number(always['mean'])} before every window"
    kept = finite(default["kept_gain"])
    if kept is None:
        return f"{gain}: on these data retraining gains nothing"
    return (
        f"{gain} ({always['trainings']} trainings); the default keeps {kept:.0%} of that gain "
        f"with {default['trainings']}"
    )


def _lead(found: Json) -> str:
    windows = found["windows"]
    return (
        f"{number(found.get('rows'), 0)} interactions of {number(found.get('users'), 0)} users, replayed "
        f"over {len(windows)} windows from {moment(windows[0]['from'])} to {moment(windows[-1]['to'])} UTC."
    )


def _facts(found: Json) -> list[tuple[str, str]]:
    settings = found.get("decide_retraining") or {}
    told = {
        "Model": f"{found.get('model', '?')} scorer",
        "Held back for the gate": f"newest {number(100 * (finite(found.get('held_back')) or 0), 0)} %",
        "Retrain at new rows": _share(settings.get("max_new_share")),
        "Oldest champion, days": number(settings.get("max_age_days"), 0),
        "Drift calls for": str(settings.get("drift", "–")),
        "Lost quality calls for": str(settings.get("quality_drop", "–")),
        "Seed": number(found.get("seed"), 0),
    }
    return list(told.items())


def _share(value: Any) -> str:
    known = finite(value)
    return "–" if known is None else f"{known:.0%}"


def _answer(found: Json) -> dict[str, str]:
    """Is the default worth its trainings against a calendar with as many? By the second half."""
    pair = (found.get("paired") or {}).get(f"{DEFAULT} - {CALENDAR}", {}).get("all") or {}
    value, low, high = (finite(pair.get(key)) for key in ("ndcg@10", "low", "high"))
    if value is None or low is None or high is None:
        return {"kind": "missing", "label": "Not compared", "text": "The default was not replayed."}
    span = (
        f"{number(value, 4, sign=True)} [{number(low, 4, sign=True)}, {number(high, 4, sign=True)}] nDCG@10"
    )
    if low > 0:
        kind, label = "yes", "Better than a calendar"
    elif high < 0:
        kind, label = "no", "Worse than a calendar"
    else:
        kind, label = "unsure", "Not distinguishable from a calendar"
    text = f"The default against a calendar with as many trainings at even distances: {span}, all windows."
    return {"kind": kind, "label": label, "text": text}


def _curves(policies: Json, windows: Sequence[Json]) -> Markup:
    shown = [name for name in (NEVER, CALENDAR, EVERY_WINDOW, DEFAULT) if name in policies]
    series = [
        Series(words(name), policies[name]["ndcg@10"], kind=KINDS.get(name, "baseline")) for name in shown
    ]
    names = [str(place + 1) for place in range(len(windows))]
    return line_chart(series, label="nDCG@10 by window", groups=names, height=260, x_label="window")


def _cost(found: Json) -> Markup:
    """Mean nDCG@10 against seconds of training; the line is the best in hindsight."""
    dots = [
        Dot(words(name), each["seconds"], each["mean"], KINDS.get(name, "baseline"))
        for name, each in found["policies"].items()
    ]
    best = found.get("best_in_hindsight") or []
    line = Series("best in hindsight", [row["mean"] for row in best], [row["seconds"] for row in best])
    return scatter_chart(
        dots, line, label="nDCG@10 against seconds of training", x_label="seconds of training"
    )


def _rows(policies: Json) -> list[dict[str, Any]]:
    ordered = sorted(policies, key=lambda name: -(finite(policies[name]["mean"]) or 0))
    return [
        {
            "name": name,
            **{key: policies[name].get(key) for key in ("text", "mean", "trainings", "promotions", "regret")},
            "seconds": policies[name].get("seconds"),
            "kept": [
                _share(policies[name].get("parts", {}).get(part, {}).get("kept_gain")) for part in PARTS
            ],
        }
        for name in ordered
    ]


def _paired(found: Json) -> dict[str, Markup]:
    pairs = found.get("paired") or {}
    charts = {}
    for part, title in PARTS.items():
        rows = [
            Interval(words(name.removeprefix(f"{DEFAULT} - ")), each[part]["ndcg@10"], each[part]["low"],
                     each[part]["high"], KINDS.get(name.removeprefix(f"{DEFAULT} - "), "baseline"))
            for name, each in pairs.items()
        ]  # fmt: skip
        charts[title] = interval_chart(rows, label=f"default minus policy, {title}", reference=0)
    return charts


def _strips(policies: Json) -> dict[str, list[dict[str, str]]]:
    """Per policy one cell a decision."""
    return {name: [_cell(entry) for entry in each["decisions"]] for name, each in policies.items()}


def _cell(entry: Json) -> dict[str, str]:
    if entry["mode"] == "none":
        return {"mark": NOTHING, "kind": "muted", "title": _why(entry)}
    promoted = bool(entry["promoted"])
    text = f"{_why(entry)}. {entry.get('gate', '')}"
    return {
        "mark": PROMOTED if promoted else REFUSED,
        "kind": "yes" if promoted else "no",
        "title": text,
    }


def _why(entry: Json) -> str:
    return "; ".join(str(reason["text"]) for reason in entry["reasons"])


def _log(policies: Json) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [
            {
                "window": entry["window"] + 1,
                "as_of": entry["as_of"],
                "mode": entry["mode"],
                "reasons": [reason["text"] for reason in entry["reasons"]],
                "gate": entry.get("gate") or "",
                "promoted": entry["promoted"],
            }
            for entry in each["decisions"]
        ]
        for name, each in policies.items()
        if each["decisions"]
    }


def _chosen(chosen: Json | None) -> dict[str, Any] | None:
    """What --choose found, as a sentence and a table."""
    if not chosen:
        return None
    rows = [
        (
            _share(row["max_new_share"]),
            row["drift"],
            row["quality_drop"],
            *(cell for part in ("first_half", "second_half") for cell in _half(row[part])),
        )
        for row in chosen["tried"]
    ]
    return {"text": _chosen_text(chosen["settings"]), "rows": rows}


def _chosen_text(best: Json | None) -> str:
    if best is None:
        return (
            "Nothing can be chosen: on the first half not even a training before every window gained "
            "anything. Take a later --start, or keep the default."
        )
    first, second = best["first_half"], best["second_half"]
    return (
        f"max_new_share {_share(best['max_new_share'])}, drift {best['drift']}, quality_drop "
        f"{best['quality_drop']}: keeps {_share(first['kept_gain'])} of the gain with {first['trainings']} "
        f"trainings on the first half, by which it was chosen, and {_share(second['kept_gain'])} with "
        f"{second['trainings']} on the second, which had no say."
    )


def _half(part: Json) -> tuple[str, str]:
    return _share(part["kept_gain"]), str(part["trainings"])
