"""reports/retraining.json: whether to train again, how thoroughly, and why."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from pipeline.documents.base import Document, Moment, Number, Part

Mode = Literal["none", "refresh", "full"]


class Reason(Part):
    """`calls`: the mode that it calls for; "none": it holds a training back; null: it does neither."""

    signal: str
    value: Number = None
    threshold: Number = None
    p_value: Number = None
    text: str
    calls: Mode | None = None


class Retraining(Document):
    remedy: ClassVar[str] = "run `dvc repro --force decide_retraining`"

    retrain: bool
    mode: Mode
    reasons: list[Reason] = Field(default_factory=list)
    champion: str | None = None
    as_of: Moment | None = None
    policy: dict[str, Any] = Field(default_factory=dict)


class Pending(Document):
    """.evergreen/training.json: a training that was begun, and is taken up until it has ended."""

    remedy: ClassVar[str] = "remove it: the decision counts again"

    mode: Mode
    reasons: list[str] = Field(default_factory=list)
