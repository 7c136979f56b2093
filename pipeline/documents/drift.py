"""reports/drift.json: have the data changed since the champion was trained? Evidence, no decision."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.documents.base import Count, Document, Moment, Number, Part

Outcome = Literal["ok", "no_champion", "not_enough_data", "bad_input"]


class Span(Part):
    """Rows from a first to a last moment."""

    start: Moment | None = Field(None, validation_alias="from", serialization_alias="from")
    end: Moment | None = Field(None, validation_alias="to", serialization_alias="to")
    rows: Count | None = None
    users: Count | None = None


class WindowSignal(Part):
    value: Number = None
    p_value: Number = None
    flag: bool


class Signal(WindowSignal):
    """Of the newest window. A hard flag counts at once, a soft one where the window before confirms it."""

    floor: Number = None
    kind: Literal["hard", "soft"] | None = None
    previous: bool | None = None
    confirmed: bool | None = None
    text: str = ""


class DriftWindow(Span):
    signals: dict[str, WindowSignal] = Field(default_factory=dict)


class Drift(Document):
    remedy: ClassVar[str] = "run `dvc repro --force detect_drift`"

    outcome: Outcome
    text: str = ""
    as_of: Moment | None = None
    champion: str | None = None
    reference: Span | None = None
    current: Span | None = None
    drift: bool
    signals: dict[str, Signal] = Field(default_factory=dict)
    windows: list[DriftWindow] = Field(default_factory=list)  # closed ones, oldest first
    rows_fitted: Count | None = None
    rows_since_fit_end: Count | None = None
    alpha: Number = None
