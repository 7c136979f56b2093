"""An evaluation written by hand that passes every check of the gate, to be spoilt one thing at a time."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline.documents.base import Part
from pipeline.documents.evaluation import Evaluation
from pipeline.documents.promotion import Model, Promotion
from pipeline.documents.simulation import LongTerm
from pipeline.params import DecidePromotion
from pipeline.stages.decide_promotion import decide_promotion

P = TypeVar("P", bound=Part)

NAMES = [
    "evaluation",
    "is_champion",
    "fit_end",
    "comparable",
    "users",
    "points",
    "beats_champion",
    "min_gain",
    "headline",
    "slices",
    "coverage",
    "popularity",
    "fairness",
    "features",
    "off_policy",
    "long_term",
    "interleaved",
    "latency",
    "size",
    "faithfulness",
    "beats_popularity",
    "beats_recent_popularity",
    "champion_beats_recent_popularity",
    "leads_baselines",
]
SETTINGS = DecidePromotion(
    approval="auto",
    tolerance=0.25,
    min_gain=0.02,
    min_users=30,
    min_points=100,
    slice_guard=0.1,
    coverage_guard=0.25,
    popularity_guard=0.5,
    fairness_guard=0.1,
    max_ms_per_list=100,
    max_model_mib=64,
    accept_new_features=False,
    replace_unread=None,
)


def pair(gain: Any, low: Any, high: Any) -> dict[str, Any]:
    return {"ndcg@10": gain, "low": low, "high": high}


def slice_of(base: Any, gain: Any, error: Any, users: Any = 200) -> dict[str, Any]:
    """A slice on which the champion has `base` and the challenger `gain` more, +- `error`."""
    found = {"users": users, "points": users, "champion": base, "error": error}
    return found | {"ndcg@10": gain}


def whole(gain: Any, low: Any, high: Any, base: Any = 0.2) -> dict[str, Any]:
    """The comparison over all points, the champion at `base`."""
    return slice_of(base, gain, 0.004, 250) | pair(gain, low, high)


def against_champion(gain: Any, low: Any, high: Any, base: Any = 0.2) -> dict[str, Any]:
    """An evaluation in which this is all the challenger gains."""
    return spoilt(evaluation(), "comparison", "slices", "all", to=whole(gain, low, high, base))


def evaluation(**paired: dict[str, Any]) -> dict[str, Any]:
    """The champion has nDCG@10 .2, the challenger .21."""
    found = {
        "champion": pair(0.01, 0.002, 0.018),
        "popularity": pair(0.05, 0.03, 0.07),
        "recent_popularity": pair(0.03, 0.01, 0.05),
    }
    comparison = {
        "users": 250,
        "points": 1000,
        "challenger": {"coverage@10": 0.4, "popularity_percentile@10": 0.9},
        "champion": {"coverage@10": 0.4, "popularity_percentile@10": 0.9},
        "slices": {
            "all": whole(0.01, 0.002, 0.018),
            "cold_items": slice_of(0.02, 0.0, 0.002),
            "cold_users": slice_of(0.2, 0.0, 0.01),
        },
        "champion_over": {"recent_popularity": pair(0.02, 0.01, 0.03)},
        "fairness": [],
    }
    return {
        "fit_end": "1998-03-01T00:00:00+00:00",
        "points_after": "1998-03-01T00:00:00+00:00",
        "not_comparable": None,
        "artifact_hash": {"challenger": "c" * 64, "champion": "a" * 64},
        "paired": found | paired,
        "comparison": comparison,
        "ms_per_list": {"challenger": 5.0},
        "faithfulness": {"difference": 0.3, "low": 0.2, "high": 0.4, "items": 900, "users": 100},
    }


def challenger(**changes: object) -> dict[str, Any]:
    model = {"version": None, "fit_end": "1998-03-01T00:00:00Z", "artifact_hash": "c" * 64}
    return model | {"features": ["ease", "ials"], "mib": 55.0} | changes


def champion(**changes: object) -> dict[str, Any]:
    model = {"version": "v1.0.0", "fit_end": "1998-02-01T00:00:00Z", "artifact_hash": "a" * 64}
    return model | {"features": ["ease", "ials"], "mib": 55.0} | changes


def decide(
    evaluated: Any,
    new: Any,
    old: Any,
    settings: DecidePromotion = SETTINGS,
    simulation: LongTerm | None = None,
) -> Promotion:
    """The verdict on what these would be as files; None: there is no champion."""
    one, other = (None if model is None else found(Model, model) or Model() for model in (new, old))
    verdict = decide_promotion(found(Evaluation, evaluated), one, other, settings, simulation)
    assert verdict.promote == (not verdict.failed)
    assert Promotion.parse(verdict.to_json()) == verdict
    return verdict


def found(kind: type[P], content: Any) -> P | None:
    """As a reader finds it in a file: None where it is malformed."""
    try:
        return kind.model_validate_json(json.dumps(content), extra="ignore")
    except ValidationError:
        return None


def failed(verdict: Promotion) -> list[str]:
    return [check.name for check in verdict.failed]


def without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def spoilt(found: dict[str, Any], *keys: str, to: Any) -> dict[str, Any]:
    """The same with `found[key][key]...` set to `to`; the given one stays as it is."""
    if not keys:
        return to
    return found | {keys[0]: spoilt(found.get(keys[0], {}), *keys[1:], to=to)}
