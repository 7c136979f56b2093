"""reports/evaluation.json: every figure of an evaluation; nDCG@10 is the headline."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from pipeline.documents.base import Count, Document, Moment, Number, Part

Figures = dict[str, Number]
"""users, points, and each metric with its ends (`_low`, `_high`)."""


class Difference(Part):
    """challenger - model in nDCG@10 at the same points, with its paired 95 % interval."""

    ndcg: Number = Field(None, validation_alias="ndcg@10", serialization_alias="ndcg@10")
    low: Number = None
    high: Number = None
    item_low: Number = None
    """Ends where target items are redrawn instead of users; cold items alone have them."""
    item_high: Number = None


class Weighted(Part):
    """one - other where a user counts as the square root of its points; the means beside it, by name."""

    users: Count
    points: Count
    ndcg: Number = Field(None, validation_alias="ndcg@10", serialization_alias="ndcg@10")
    low: Number = None
    high: Number = None
    error: Number = None
    challenger: Number = None
    champion: Number = None
    popularity: Number = None
    recent_popularity: Number = None


class Comparison(Part):
    """Challenger against champion at points that are new to both."""

    users: Count | None = None
    points: Count | None = None
    points_left_out: Count | None = None
    challenger: Figures = Field(default_factory=dict)
    champion: Figures = Field(default_factory=dict)
    slices: dict[str, Weighted] = Field(default_factory=dict)
    champion_over: dict[str, Weighted] = Field(default_factory=dict)


class Evaluation(Document):
    remedy: ClassVar[str] = "run `dvc repro --force evaluate`"

    as_of: Moment | None = None
    train_end: Moment | None = None
    fit_end: Moment | None = None
    points_after: Moment | None = None
    data_hash: str | None = None
    artifact_hash: dict[str, str] = Field(default_factory=dict)  # of challenger and champion
    not_comparable: str | None = None  # why the champion was left out
    seed: int | None = None
    k: int | None = None
    split: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    settings_chosen_on: str | None = None
    tuned: dict[str, dict[str, Any]] = Field(default_factory=dict)
    validation: dict[str, Figures] = Field(default_factory=dict)
    models: dict[str, dict[str, Figures]] = Field(default_factory=dict)  # model -> slice -> figures
    paired: dict[str, Difference] = Field(default_factory=dict)
    paired_slices: dict[str, dict[str, Difference]] = Field(default_factory=dict)
    best_baseline: str | None = None
    by_history_length: dict[str, list[dict[str, str | Number]]] = Field(default_factory=dict)
    by_popularity_decile: dict[str, list[dict[str, str | Number]]] = Field(default_factory=dict)
    diversity_of: str | None = None
    seconds: Figures = Field(default_factory=dict)
    ms_per_list: Figures = Field(default_factory=dict)
    comparison: Comparison | None = None
