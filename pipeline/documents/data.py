"""What `collect` and `preprocess` say of the data: data/raw/manifest.json and data/prepared/summary.json."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from pipeline.documents.base import IF_KNOWN, Count, Document, Moment, Number, Part
from pipeline.documents.finding import Finding


class Rows(Part):
    """Of interactions; bad rows are `rejected`, those later than as_of are not charged to them."""

    read: Count | None = None
    kept: Count | None = None
    rejected: Count | None = None
    duplicates: Count | None = None
    after_as_of: Count | None = None


class LeftOut(Part):
    """Of people whom the project has forgotten (pipeline/data/forgotten.py)."""

    known: Count  # of those in data/forgotten.json the newest's number
    people: Count  # of them in the source
    rows: Count  # of theirs, in all its tables


class Manifest(Document):
    """data/raw/manifest.json. `as_of` is what every later stage calls now."""

    remedy: ClassVar[str] = "run `dvc repro --force collect`"

    source: str | None = None
    credit: str | None = IF_KNOWN  # to be said where items are shown
    fingerprint: str | None = None
    as_of: Moment
    first_timestamp: Moment | None = None
    last_timestamp: Moment | None = None
    rows: Rows = Rows()
    rejected: dict[str, dict[str, Count]] = Field(default_factory=dict)  # table -> reason -> rows
    tidied: dict[str, Count] = Field(default_factory=dict)  # table -> ids that held what nobody sees
    findings: list[Finding] = Field(default_factory=list)  # e.g. values in two units, relations of other ids
    users: Count | None = None
    items: Count | None = None
    item_rows: dict[str, Count] | None = None
    joined_share: Number = None  # of the rows kept, whose item the table of items has; None without a table
    user_rows: dict[str, Count] | None = None
    relation_rows: dict[str, Count] | None = IF_KNOWN  # of a knowledge graph, if there is one
    forgotten: LeftOut | None = IF_KNOWN  # if anybody is
    content_hash: str | None = None


class Window(Part):
    """One of train, validation and test; `share` is of all interactions."""

    rows: Count
    users: Count
    users_with_history: Count  # who have any row before the window begins
    positive: Count
    positive_fit: Count
    rows_not_fit: Count
    users_not_fit: Count
    share: Number
    positive_share: Number
    items: Count
    first: Moment
    last: Moment


class PointCounts(Part):
    """positive = points + capped + unavailable + same_moment (further rows of one moment), and repeats too
    where they are no points: they are counted either way."""

    positive: Count
    points: Count
    capped: Count
    repeats: Count
    unavailable: Count
    same_moment: Count
    users: Count
    users_with_history_at_start: Count
    cold_items_share: Number
    cold_users_share: Number
    empty_history_share: Number


class Summary(Document):
    """data/prepared/summary.json."""

    remedy: ClassVar[str] = "run `dvc repro --force preprocess`"

    as_of: Moment | None = None
    credit: str | None = IF_KNOWN  # as in the manifest
    data_hash: str | None = None
    collected: Rows | None = None
    rejected: dict[str, dict[str, Count]] | None = None
    settings: dict[str, Any] = Field(default_factory=dict)  # of preprocess, what a model must know of it
    train_end: Moment
    fit_end: Moment
    rows: dict[str, Count] = Field(default_factory=dict)
    windows: dict[str, Window] = Field(default_factory=dict)
    points: dict[str, PointCounts] = Field(default_factory=dict)  # of validation and test
    repeats: Count | None = None
    points_capped: Count | None = None
    points_unavailable: Count | None = None
    items: dict[str, Any] = Field(default_factory=dict)
    events: dict[str, Count] = Field(default_factory=dict)
