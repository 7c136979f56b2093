"""The report's section on fairness, for the template; `evaluation` as in evaluation.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from pydantic import ValidationError

from pipeline.charts import Interval, interval_chart
from pipeline.documents.fairness import Lost
from pipeline.evaluation.fairness_verdict import USUAL, verdict
from pipeline.evaluation.findings import HEADLINE, figure, kind, mapping
from pipeline.pages import finite, number, plain, words

GROUP = "group:"


def fairness(evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    """None where nothing was measured."""
    found = mapping(evaluation.get("fairness"))
    users, exposure = found.get("users") or (), mapping(found.get("exposure"))
    if not users and not exposure:
        return None
    lost = _lost(evaluation)
    groups = [_user_group(evaluation, mapping(row), lost) for row in users]
    return {
        "told": _told(lost),
        "champion": bool(lost),
        "groups": groups,
        "chart": _chart(groups),
        "exposure": [_exposure(name, mapping(one), lost) for name, one in exposure.items()],
        "floors": [_floor(mapping(row)) for row in found.get("floors") or ()],
        "guessed": [_guessed(mapping(row)) for row in found.get("guessed") or ()],
        "calibration": [
            {"name": words(name), "kind": kind(name), **_ends(mapping(one))}
            for name, one in mapping(found.get("calibration")).items()
        ],
    }


def _lost(evaluation: Mapping[str, Any]) -> dict[tuple[str, str], Lost]:
    """(kind, name) -> what the challenger loses against the champion."""
    rows = mapping(evaluation.get("comparison")).get("fairness") or ()
    try:
        parsed = [Lost.model_validate(row, strict=False) for row in rows]
    except ValidationError:
        return {}
    return {(row.kind, row.name): row for row in parsed}


def _told(lost: Mapping[tuple[str, str], Lost]) -> dict[str, str]:
    """Whether somebody surely loses against the champion; how much of it stops a promotion, the gate says."""
    if not lost:
        return {"answer": "missing", "label": "Not compared", "text": "There is no champion to compare with."}
    answer, _, text = verdict(list(lost.values()), USUAL)[2].partition(": ")
    labels = {"passes": "Nobody surely loses", "investigate": "Look closer", "fails": "Somebody surely loses"}
    look = {"passes": "yes", "investigate": "unsure", "fails": "no"}.get(answer, "missing")
    label = labels.get(answer, "Not measured")
    return {"answer": look, "label": label, "text": f"Against the champion, {text or answer}."}


def _user_group(
    evaluation: Mapping[str, Any], row: dict[str, Any], lost: Mapping[tuple[str, str], Lost]
) -> dict[str, Any]:
    name = str(row.get("group"))
    slices = mapping(mapping(evaluation.get("models")).get("challenger"))
    against = lost.get(("users", name))
    return {
        "name": plain(name, 60),
        "scores": mapping(slices.get(GROUP + name)),
        "value": row.get(HEADLINE),
        "ends": [figure(slices, GROUP + name, HEADLINE + end) for end in ("_low", "_high")],
        **{key: row.get(key) for key in ("users", "points", "gap", "low", "high", "calibration")},
        "surely": (finite(row.get("p")) or 0) < 0.05,
        "behind": None if against is None else _turned(against),
    }


def _turned(lost: Lost) -> dict[str, Any]:
    """Above 0 where the group comes closer to the others."""
    low, high = (None if end is None else -end for end in (lost.high, lost.low))
    value = None if lost.lost is None else -lost.lost
    return {"value": value, "low": low, "high": high, "surely": (finite(lost.p) or 0) < 0.05}


def _chart(groups: list[dict[str, Any]]) -> Markup:
    rows = []
    for row in groups:
        low, high = row["ends"]
        rows.append(Interval(row["name"], finite(row["value"]), low, high, "challenger"))
    return interval_chart(rows, label="The challenger's nDCG@10 by group of users, worst first")


def _ends(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: finite(found.get(key)) for key in ("value", "low", "high")}


def _exposure(name: str, found: dict[str, Any], lost: Mapping[tuple[str, str], Lost]) -> dict[str, Any]:
    awrf = mapping(found.get("awrf"))
    groups = [mapping(row) for row in found.get("groups") or ()]
    against = lost.get(("exposure", name))
    return {
        "name": words(name),
        "models": [(one, words(one), kind(one), _ends(mapping(figures))) for one, figures in awrf.items()],
        "rows": [
            {
                "name": plain(row.get("group"), 60),
                "offered": _percent(row.get("items")),
                "taken": _percent(row.get("relevance")),
                "shown": [_percent(mapping(row.get("exposure")).get(one)) for one in awrf],
            }
            for row in groups
        ],
        "behind": None if against is None else _turned(against),
    }


def _floor(row: dict[str, Any]) -> dict[str, Any]:
    shares = {key: _percent(row.get(key)) for key in ("least", "before", "after")}
    return {"name": plain(row.get("floor"), 80), **shares} | {
        "price": {"value": row.get(HEADLINE), "low": finite(row.get("low")), "high": row.get("high")}
    }


def _guessed(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": plain(row.get("group"), 60),
        "rate": _percent(row.get("base_rate")),
        "surely": finite(row.get("p")) is not None and row["p"] < 0.05,
        "histories": row.get("histories"),
        **{"value": row.get("auc"), "low": finite(row.get("low")), "high": row.get("high")},
    }


def _percent(value: Any) -> str:
    known = finite(value)
    return number(None if known is None else 100 * known, 1)
