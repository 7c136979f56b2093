"""How a model's card says that its data were prepared, applied to raw tables: a model is asked about new rows
as it was trained on old ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.data import items as catalogue
from pipeline.data import tables
from pipeline.data.histories import Catalogue, Log, make_log
from pipeline.documents.model import Card
from pipeline.params import Positive


@dataclass(frozen=True)
class Preparation:
    positive: Positive
    template: str  # of the text that the language model reads of an item
    max_text_characters: int
    keywords: int
    train_end: pd.Timestamp
    repeats: bool  # whether what a user took may be listed again
    never: tuple[str, ...] = ()  # columns that no model may see

    @classmethod
    def of(cls, card: Card) -> Preparation | None:
        """None where the card does not say it."""
        settings = card.preprocess
        if not settings or card.train_end is None:
            return None
        return cls(
            Positive.model_validate(settings["positive"]),
            settings["item_text"],
            settings["max_text_characters"],
            settings.get("keywords", 0),
            pd.Timestamp(card.train_end),
            settings.get("repeats") == "include",
            tuple(settings.get("never_features") or ()),
        )

    def is_success(self, event: str, value: float | None) -> bool:
        """Of one row, as `successes` says it of many."""
        events, least = self.positive.events, self.positive.min_value
        if events is not None and event not in events:
            return False
        return value is None or least is None or not value < least

    def described(self, items: pd.DataFrame, seen: pd.DataFrame | None = None) -> pd.DataFrame:
        """`items` with item_text; `seen`: item_id, first_seen of those that have rows."""
        if seen is None:
            seen = pd.DataFrame({tables.ITEM: pd.Series(dtype="str"), catalogue.FIRST_SEEN: []})
        table = catalogue.complete(items, seen, self.never)
        template = catalogue.parse_template(self.template, table.columns)
        return catalogue.with_text(table, template, self.max_text_characters, self.train_end, self.keywords)

    def apply(self, rows: pd.DataFrame, items: pd.DataFrame) -> tuple[pd.DataFrame, Log, np.ndarray]:
        """(items with item_text, log of all rows over them, user ids)."""
        rows = rows.sort_values(tables.TIME, kind="stable", ignore_index=True)
        rows = rows.assign(positive=successes(rows, self.positive), fit=True)
        first = rows.drop_duplicates(tables.ITEM)[[tables.ITEM, tables.TIME]]
        table = self.described(items, first.rename(columns={tables.TIME: catalogue.FIRST_SEEN}))
        users = np.sort(rows[tables.USER].unique().astype(object))
        return table, make_log([rows], Catalogue.of(table), users, self.repeats), users


def successes(rows: pd.DataFrame, positive: Positive) -> np.ndarray:
    """(rows,) bool as preprocess.positive says: the event, and of rows that have a value, enough of it."""
    chosen = np.ones(len(rows), bool)
    if positive.events is not None:
        chosen &= rows[tables.EVENT].isin(positive.events).to_numpy(dtype=bool)
    if positive.min_value is not None:
        value = rows[tables.VALUE].to_numpy(dtype=float, na_value=np.nan)
        chosen &= ~(value < positive.min_value)
    return chosen
