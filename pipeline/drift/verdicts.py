"""What the drift check says of a signal, in one word, and what its signals are called.

In: one signal of drift.json. Out: `Verdict`. Reports alone use it: drift.json itself decides.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pipeline.pages import finite


class Verdict(StrEnum):
    """The gravest first."""

    DRIFT = "drift"
    ONCE = "once"
    NONE = "none"
    UNMEASURED = "unmeasured"


WORDS = {
    Verdict.DRIFT: "drift",
    Verdict.ONCE: "not confirmed yet",
    Verdict.NONE: "no drift",
    Verdict.UNMEASURED: "not measured",
}
LABELS = {
    "schema": "Schema",
    "missing": "Missing values",
    "quality": "Champion's quality",
    "volume": "Volume",
    "events": "Kinds of event",
    "values": "Values",
    "user_activity": "Activity of users",
    "new_users": "New users",
    "new_items": "New items",
    "item_popularity": "Popularity of items",
    "categories": "Categories",
    "text": "Texts of items",
    "embedding": "Centre of the texts' vectors",
    "scores": "Champion's scores",
    "coverage": "Coverage of the lists",
    "list_popularity": "Popularity of what is listed",
}
MEANINGS = {
    "schema": "columns and their types are what they were",
    "missing": "share of empty cells, column by column",
    "quality": "nDCG@10 of the champion on the newest successes, minus its own figure when it was promoted",
    "volume": "interactions a day",
    "events": "which kinds of event, in what shares",
    "values": "ratings, seconds, amounts: how they are spread",
    "user_activity": "how much one user does",
    "new_users": "share of rows of users who had not been met before",
    "new_items": "share of rows with items that had not been met before",
    "item_popularity": "how the rows are spread over popular and rare items",
    "categories": "which categories people take",
    "text": "whether a classifier can tell the two sides apart by the items' texts",
    "embedding": "how far the mean of the items' text vectors has moved",
    "scores": "how sure the champion is of its best item",
    "coverage": "share of the catalogue that the champion's lists show",
    "list_popularity": "how popular the items are that the champion lists",
}


def verdict(signal: Mapping[str, Any]) -> Verdict:
    """A hard flag counts at once, a soft one once the window before confirms it."""
    if signal.get("flag"):
        at_once = signal.get("kind") == "hard" or signal.get("confirmed")
        return Verdict.DRIFT if at_once else Verdict.ONCE
    return Verdict.UNMEASURED if finite(signal.get("value")) is None else Verdict.NONE


def shown(verdict: str) -> str:
    """The verdict in words."""
    return WORDS[Verdict(verdict)]
