"""Keywords and names that items share: a graph whose entities are words (pipeline/data/keywords.py)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.histories import Catalogue
from pipeline.models.graph import Graph, as_list

PREFIX = "keywords_"  # of its columns
HOW = {tables.KEYWORDS: "about", tables.ENTITIES: "naming"}


class Keywords(Graph):
    prefix = PREFIX
    links = False  # an item whose id is a word is not what the word says

    @classmethod
    def of(cls, catalogue: Catalogue) -> Keywords | None:
        """None where no item has a word that another one shares."""
        edges = [_edges(catalogue, name) for name in tables.WORDS if name in catalogue.items]
        return cls.joined(catalogue, pd.concat(edges, ignore_index=True)) if edges else None

    def shared(self, history: np.ndarray, item: int) -> tuple[str, int] | None:
        """(about what, like which item of the history): the rarest word that both have."""
        found = self.rarest(history, item)
        if found is None:
            return None
        place, near = found
        word = self.names[self.neighbours.indices[place]]
        return f"{self.words[self.relation[place]]} {word}, like", near


def _edges(catalogue: Catalogue, name: str) -> pd.DataFrame:
    cells = [as_list(cell) for cell in catalogue.items[name]]
    return pd.DataFrame(
        {
            "item": np.repeat(np.arange(len(cells)), [len(cell) for cell in cells]),
            "relation": HOW[name],
            "entity": pd.Series([str(word) for cell in cells for word in cell], dtype=object),
        }
    )
