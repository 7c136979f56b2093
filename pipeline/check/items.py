"""Rules on what items say of themselves: texts that many share, vectors that are one and the same.

Each gives a finding or none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd

from pipeline.check.facts import COLUMNS, Facts, percent
from pipeline.data import tables
from pipeline.data.items import DESCRIPTION, ITEM_TEXT
from pipeline.documents.finding import Finding

MANY = 0.3  # of the items that have any
FEWEST = 10  # items that have any
ROUNDING = 1e-5  # of a vector's length: what is left below it says nothing (models/content.py)
MOST_SHOWN = 60  # characters of a text


def equal_texts(facts: Facts) -> Iterator[Finding]:
    """Of whole texts those that another item has, too; else one and the same title or description of many."""
    if facts.windows is not None and facts.windows.items is not None:
        texts = facts.windows.items[ITEM_TEXT].fillna("")
        texts = texts[texts != ""]
        shared = texts[texts.duplicated(keep=False)]
        if len(texts) >= FEWEST and len(shared) > MANY * len(texts):
            share = len(shared) / len(texts)
            yield _shared(
                share,
                f"{percent(share)} of the items with a text have that of another item ({texts.nunique():,} "
                "different texts): texts cannot tell these apart",
                shared,
                "name the columns that tell the items apart, in collect.files.columns and in this template",
            )
            return
    for field in _fields(facts.params.preprocess.item_text):
        cells = facts.table.get(tables.TEXT if field == DESCRIPTION else field, pd.Series(dtype="str"))
        cells = cells.dropna().astype("str").str.strip()
        counts = cells[cells != ""].value_counts()
        if (filled := int(counts.sum())) >= FEWEST and counts.iloc[0] > MANY * filled:
            share = float(counts.iloc[0]) / filled
            yield _shared(
                share,
                f"{percent(share)} of the items with a {field} have the same one: it says nothing of "
                "them, and makes their texts alike",
                cells[cells == counts.index[0]],
                f"empty it where it stands for none, or take {{{field}}} out of this template",
            )


def _shared(share: float, text: str, texts: pd.Series, remedy: str) -> Finding:
    counts = texts.value_counts().head(3)
    return Finding(
        kind="equal_texts",
        severity="warning",
        text=text,
        figure=share,
        unit="share",
        examples=[f"{str(name)[:MOST_SHOWN]!r}: {count:,} items" for name, count in counts.items()],
        key="preprocess.item_text",
        remedy=remedy,
    )


def _fields(template: str) -> list[str]:
    """Of title and description those that the template has."""
    return [field for field in (tables.TITLE, DESCRIPTION) if f"{{{field}}}" in template]


def equal_vectors(facts: Facts) -> Iterator[Finding]:
    """Columns `*_vector` of which a training makes nothing, or of which many cells stand for none."""
    never = facts.params.preprocess.never_features
    for name in (name for name in facts.table if name.endswith(tables.VECTOR) and name not in never):
        cells = [cell for cell in facts.table[name] if isinstance(cell, list | np.ndarray)]
        unused = "it tells no item from another, and a training leaves it out"
        share, same = _most_equal(cells) if len(cells) > 1 else (0.0, False)
        if len(cells) < 2:
            share = len(cells) / max(len(facts.table), 1)
            text = f"column {name} has a vector for {len(cells)} of {len(facts.table):,} items: {unused}"
            remedy = "fill it, or leave it out"
        elif same:
            text = f"all {len(cells):,} vectors of column {name} are one and the same: {unused}"
            remedy = "make it anew from what it shows, or leave it out"
        elif len(cells) >= FEWEST and share > MANY:
            text = f"{percent(share)} of the vectors of column {name} are one and the same: "
            text += "it takes these items for each other"
            remedy = "if it is that of a picture for none, empty these cells"
        else:
            continue
        yield Finding(
            kind="equal_vectors",
            severity="warning",
            text=text,
            figure=share,
            unit="share",
            key=f"{COLUMNS}.items.{name}",
            remedy=remedy,
        )


def _most_equal(cells: list[list[float] | np.ndarray]) -> tuple[float, bool]:
    """(share of the commonest vector, whether all are it but for rounding)."""
    first = np.asarray(cells[0], np.float32)
    near = ROUNDING * np.linalg.norm(first)
    if all(np.linalg.norm(np.asarray(cell, np.float32) - first) <= near for cell in cells):
        return 1.0, True
    counts = Counter(hash(np.asarray(cell, np.float32).tobytes()) for cell in cells)
    return max(counts.values()) / len(cells), False
