"""What a model folder says of itself: model.json, its card; version.json, where a version was put there."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from pipeline.documents.base import IF_KNOWN, Count, Document, Moment, Number, Part
from pipeline.documents.drift import Span


class Cost(Document):
    """reports/training/summary.json: what training took, beside figures that only reports show."""

    model_config = ConfigDict(extra="allow")
    remedy: ClassVar[str] = "run `dvc repro --force finetune`"

    seconds: Number = None
    cpu_seconds: Number = None
    energy_wh_estimate: Number = None
    peak_gib: Number = None


class Encoder(Document):
    """data/encoder.json: which weights finetune.encoder names, so that other ones make finetune stale."""

    remedy: ClassVar[str] = "run `evergreen champion`"

    spec: str
    sha256: str | None = None  # over the folder's files; None: a hub id, whose content is not looked at


class Privacy(Part):
    """The budget of a model's weights, and what it does not cover."""

    epsilon: float
    delta: float
    mu: float  # the same as one number, of Gaussian differential privacy
    unit: str
    mechanism: str
    noise: dict[str, float]  # standard deviations; a user moves each sum by a length of 1 at most
    covered: list[str]
    left_out: list[str]
    public: list[str]  # of the model folder: what is taken as known to everybody

    @property
    def sentence(self) -> str:
        unit = self.unit.partition(":")[0]
        return f"({self.epsilon:g}, {self.delta:g})-differentially private, of a {unit}"


class Card(Document):
    """model.json. Models add what they need to load themselves (`model_extra`)."""

    model_config = ConfigDict(extra="allow")
    remedy: ClassVar[str] = "run `evergreen champion`, or `dvc repro finetune` for the challenger"

    name: str | None = None
    format: int | None = None
    as_of: Moment | None = None
    train_end: Moment | None = None
    fit_end: Moment | None = None
    data_hash: str | None = None
    features: list[str] | None = None
    preprocess: dict[str, Any] | None = None
    seed: int | None = None
    max_length: int | None = None
    finetune: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    privacy: Privacy | None = IF_KNOWN

    @property
    def refresh_of(self) -> str | None:
        """The version whose encoder the model keeps; None after a full training."""
        version = self.finetune.get("refresh_of")
        return version if isinstance(version, str) else None


class ReferenceSummary(Document):
    """reference/summary.json of a model folder: what is known of all rows that its sample was drawn from.

    The daily counts are of 24 hours each, counted back from fit_end, the oldest day first.
    """

    remedy: ClassVar[str] = "run `evergreen champion`, or train anew"

    format: Literal[2]
    fit_end: Moment
    rows_fitted: Count
    users_fitted: Count
    items_fitted: Count
    rows: Count
    users: Count
    rows_kept: Count
    windows: list[Span]
    rule: dict[str, Number]
    daily: list[list[Count]]  # (days, 4): rows, active users, arrivals, new users
    daily_variation: list[Number]


class Claim(Document):
    """version.json: which version lies in a model folder."""

    remedy: ClassVar[str] = "run `evergreen champion`"

    version: str
    commit: str | None = None
    artifact_hash: str | None = None
    exploration: str | None = IF_KNOWN
    """sha256 of exploration.json beside it; None: there shall be none."""


class Exploration(Document):
    """exploration.json: by which weights a service draws the places that it leaves to chance."""

    remedy: ClassVar[str] = "run `evergreen champion`"

    artifact_hash: str
    weights: dict[str, float]  # of pipeline.evaluation.exploration.COLUMNS
