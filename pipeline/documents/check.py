"""reports/check.json: what `evergreen check` found in the source, before any training."""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import Field

from pipeline.documents.base import IF_KNOWN, Count, Document, Moment, Number, Part
from pipeline.documents.data import PointCounts, Rows, Window
from pipeline.documents.finding import Finding


def key_in(text: str, default: str) -> str:
    """The first key of params.yaml that a sentence names."""
    named = re.search(r"\b(?:collect|preprocess|finetune)(?:\.\w+)+", text)
    return named[0] if named else default


class EventCounts(Part):
    event: str
    rows: Count
    values: Count  # rows that have a value
    least: Number
    largest: Number
    usual: Number  # 99 % of the values are at most as far from 0
    successes: Count  # as preprocess.positive says
    negative_successes: Count  # of these, with a value below 0
    zero_successes: Count  # of these, with a value of 0
    nines: Count  # of these, with one of 99, 999, ..., which some write for 'none'
    below: Number  # the largest value but those


class Activity(Part):
    """How many rows users (or items) have."""

    count: Count
    biggest: dict[str, Count]  # id -> rows, the five with most
    by_rows: dict[str, Count]  # "1", "2-4", ... -> how many have so many rows


class Period(Part):
    start: Moment
    rows: Count


class TextFigures(Part):
    """Of the items' texts as the encoder reads them; None where there was no tokenizer.json to ask."""

    items: Count
    without_text: Count
    median_characters: Number = None
    unknown_tokens: Number = None  # share
    tokens_a_word: Number = None
    cut: Number = None  # share of texts longer than finetune.max_length


class Check(Document):
    remedy: ClassVar[str] = "run `evergreen check`"

    source: str
    credit: str | None = IF_KNOWN  # to be said where items are shown
    as_of: Moment | None = None
    rows: Rows = Rows()
    rejected: dict[str, dict[str, Count]] = Field(default_factory=dict)
    first_timestamp: Moment | None = None
    last_timestamp: Moment | None = None
    findings: list[Finding]  # the most important first
    events: list[EventCounts] = Field(default_factory=list)
    users: Activity | None = None
    items: Activity | None = None
    joined_share: Number = None  # of the rows, whose item the table of items has
    repeat_share: Number = None  # of the successes, whose user had the item before
    empty: dict[str, Number] = Field(default_factory=dict)  # column of interactions -> share of empty cells
    periods: list[Period] = Field(default_factory=list)  # equally long
    windows: dict[str, Window] = Field(default_factory=dict)
    points: dict[str, PointCounts] = Field(default_factory=dict)
    texts: TextFigures | None = None

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]
