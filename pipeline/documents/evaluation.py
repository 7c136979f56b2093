"""reports/evaluation.json: every figure of an evaluation; nDCG@10 is the headline."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from pipeline.documents.base import IF_KNOWN, Document, Moment, Number, Part
from pipeline.documents.fairness import Fairness, Lost

Figures = dict[str, Number]
"""users, points, and each metric with its ends (`_low`, `_high`)."""


class Interval(Part):
    """one - other in nDCG@10 at the same points, with its paired 95 % interval."""

    ndcg: Number = Field(None, validation_alias="ndcg@10", serialization_alias="ndcg@10")
    low: Number = None
    high: Number = None


class Difference(Interval):
    """challenger - model; every user counts alike."""

    item_low: Number = IF_KNOWN
    """Ends where target items are redrawn instead of users; cold items alone have them."""
    item_high: Number = IF_KNOWN


class Weighted(Interval):
    """A user counts as the square root of its points; the means of the two stand beside it, by name."""

    users: Number = None
    points: Number = None
    error: Number = None
    challenger: Number = IF_KNOWN
    champion: Number = IF_KNOWN
    popularity: Number = IF_KNOWN
    recent_popularity: Number = IF_KNOWN


Answer = Literal["better", "not better", "investigate"]


class Policy(Part):
    """For places left to chance, learned of them: how much more would be taken than of plain draws."""

    answer: Answer
    difference: Number = None  # items taken a place
    low: Number = None
    high: Number = None
    lists: Number = None
    users: Number = None
    effective: Number = None  # sample size
    unbalanced: Number = None  # standard errors by which the weights miss their mean
    weights: Figures = Field(default_factory=dict)  # of pipeline.evaluation.exploration.COLUMNS


class OffPolicy(Part):
    """challenger - champion in items taken a place, on places that the service left to chance."""

    answer: Answer
    difference: Number = None
    low: Number = None
    high: Number = None
    taken: Number = None  # share of these places whose item was taken
    places: Number = None
    users: Number = None
    effective: Number = None  # sample size
    unbalanced: Number = None  # standard errors by which the weights miss their mean
    reproduced: Number = None  # share of what the champion drew whose chance the evaluation finds again
    policy: Policy | None = IF_KNOWN  # for the challenger's own draws


class Interleaved(Part):
    """Of lists that two models drew in turns, whose items were taken: challenger - champion a list."""

    champion: str
    challenger: str
    lists: Number = None
    users: Number = None
    taken: dict[str, Number] = Field(default_factory=dict)
    difference: Number = None
    low: Number = None
    high: Number = None
    answer: Answer


class Shown(Part):
    """What people made of lists (pipeline/evaluation/satisfaction.py)."""

    lists: Number = None
    items_shown: Number = None
    click_through: Number = None
    likes: Number = None
    returns_7_days: Number = None
    coverage: Number = None
    diversity: Number = None


class Satisfaction(Shown):
    days: Number = None  # the newest so many
    by_version: dict[str, Shown] = Field(default_factory=dict)
    interleaved: Interleaved | None = None


class Faithfulness(Part):
    """By how much a listed item's score falls without the history item that its reason names, and without
    another (pipeline/evaluation/faithful.py)."""

    named: Number = None
    other: Number = None
    difference: Number = None
    low: Number = None
    high: Number = None
    items: Number = None  # listed, whose reason names a history item
    users: Number = None


class Comparison(Part):
    """Challenger against champion at points that are new to both."""

    users: Number = None
    points: Number = None
    points_left_out: Number = None
    challenger: Figures = Field(default_factory=dict)
    champion: Figures = Field(default_factory=dict)
    slices: dict[str, Weighted] = Field(default_factory=dict)
    champion_over: dict[str, Weighted] = Field(default_factory=dict)
    fairness: list[Lost] | None = IF_KNOWN
    off_policy: OffPolicy | None = IF_KNOWN


class Candidates(Document):
    """What the challenger's retrievers bring to its scorer, at the test points."""

    remedy: ClassVar[str] = "run `dvc repro --force evaluate`"

    mean: Number  # items of a point
    recall: Figures  # retriever -> share of the targets that it brings
    all: Number  # share of the targets that any of them brings


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
    live: dict[str, Number] = Field(default_factory=dict)  # delay_seconds: after which a row is counted
    candidates: Candidates | None = None
    signals: dict[str, Interval] = Field(default_factory=dict)  # kind of signal -> what it adds
    faithfulness: Faithfulness | None = IF_KNOWN  # of the challenger's reasons
    fairness: Fairness = Field(default_factory=Fairness)
    diversity_of: str | None = None
    seconds: Figures = Field(default_factory=dict)
    ms_per_list: Figures = Field(default_factory=dict)
    comparison: Comparison | None = IF_KNOWN
    satisfaction: Satisfaction | None = IF_KNOWN  # with collect.feedback


class Metrics(Document):
    """reports/metrics.json: ten flat figures of the challenger, DVC's metrics file."""

    model_config = ConfigDict(extra="allow")
    remedy: ClassVar[str] = "run `dvc repro --force evaluate`"

    __pydantic_extra__: Figures
