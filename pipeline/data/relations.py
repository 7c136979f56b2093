"""The optional table of relations: a knowledge graph whose heads or tails may be items.

In: triples (head, relation, tail) as a source gives them. Out, in the table of items: two lists of one length
a cell, `graph_entities` (what an item is joined to, in either direction) and `graph_relations` (by what), in
order of relation and entity. Triples without an item say nothing of one: they are counted, and told if many.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.data import tables
from pipeline.data.ids import as_ids, id_faults
from pipeline.data.joining import likely_cause
from pipeline.data.values import as_text
from pipeline.documents.finding import Finding
from pipeline.errors import DataError
from pipeline.sources import RAW, REASON

if TYPE_CHECKING:
    from pipeline.data.rejected import Rejected

Counts = dict[str, int]
NEARLY_ALL = 0.98  # of the triples: nothing is said of the rest


def relations_table(frame: pd.DataFrame, rejected: Rejected) -> tuple[pd.DataFrame, Counts]:
    """(distinct triples of ids, counts); rows that lack a cell go to `rejected`."""
    for name in tables.RELATIONS:
        if name not in frame:
            raise DataError(f"relations: the source gives no column {name}: see docs/sources.md")
    frame = frame.reset_index(drop=True)
    reasons = frame[REASON].astype(object) if REASON in frame else pd.Series(None, frame.index, dtype=object)
    for name in reversed(tables.RELATIONS):  # the first that is wrong is named
        faults = id_faults(frame[name], name)
        reasons = reasons.mask(faults.notna() & (frame[REASON].isna() if REASON in frame else True), faults)
    if reasons.notna().any() and RAW not in frame:
        cells = [as_text(frame[name]).fillna("") for name in tables.RELATIONS]
        frame = frame.assign(**{RAW: cells[0] + ", " + cells[1] + ", " + cells[2]})
    rejected.add("relations", frame, reasons)
    kept = frame[reasons.isna()]
    triples = pd.DataFrame({name: as_ids(kept[name]) for name in tables.RELATIONS})
    distinct = triples.drop_duplicates(ignore_index=True)
    return distinct, {"kept": len(distinct), "duplicates": len(triples) - len(distinct)}


def with_graph(items: pd.DataFrame, triples: pd.DataFrame, known: Collection[str]) -> pd.DataFrame:
    """`items` with both lists; an item of the interactions alone (`known`) gets a row if it has any."""
    from pipeline.data.catalogue import empty

    ours = {*items[tables.ITEM], *known}
    sides = [
        triples.rename(columns={one: tables.ITEM, other: tables.GRAPH_ENTITIES})
        for one, other in ((tables.HEAD, tables.TAIL), (tables.TAIL, tables.HEAD))
    ]
    pairs = pd.concat([side[side[tables.ITEM].isin(ours)] for side in sides])
    pairs = pairs.rename(columns={tables.RELATION: tables.GRAPH_RELATIONS}).drop_duplicates()
    pairs = pairs[pairs[tables.ITEM] != pairs[tables.GRAPH_ENTITIES]]
    lists = pairs.sort_values([tables.ITEM, *tables.GRAPH]).groupby(tables.ITEM)[tables.GRAPH].agg(list)
    lacking = sorted(set(lists.index) - set(items[tables.ITEM]))
    if lacking:
        never = empty(pd.DataFrame(index=range(len(lacking))), tables.MOMENT)
        further = pd.DataFrame({tables.ITEM: pd.Series(lacking, dtype="str")})
        further[tables.CATEGORIES] = pd.Series([[] for _ in lacking], dtype=object)
        further = further.assign(**{tables.AVAILABLE_FROM: never, tables.AVAILABLE_UNTIL: never})
        items = pd.concat([items, further]).sort_values(tables.ITEM, ignore_index=True)
        items[[tables.TITLE, tables.TEXT]] = items[[tables.TITLE, tables.TEXT]].astype("str")
    taken = {name: f"{name}_raw" for name in tables.GRAPH if name in items}
    found = lists.reindex(items[tables.ITEM])
    columns = {
        name: pd.Series([cell if isinstance(cell, list) else [] for cell in found[name]], dtype=object)
        for name in tables.GRAPH
    }
    return items.rename(columns=taken).assign(**columns)


def joined(triples: pd.DataFrame, items: pd.DataFrame, known: Collection[str]) -> tuple[int, list[Finding]]:
    """(triples of which neither end is an item, what to say of them). Raises DataError if these are all.

    `items`: with both lists; `known`: items of the interactions.
    """
    ours = pd.Series(sorted({*items[tables.ITEM], *known}), dtype="str")
    strangers = triples[~triples[tables.HEAD].isin(ours) & ~triples[tables.TAIL].isin(ours)]
    if len(strangers) and len(strangers) == len(triples):
        raise DataError(_none_joined(triples, ours))
    if len(strangers) <= (1 - NEARLY_ALL) * len(triples):
        return len(strangers), []
    count, share = len(triples) - len(strangers), 1 - len(strangers) / len(triples)
    having = int((items[tables.GRAPH_ENTITIES].str.len() > 0).sum())
    cause, mended = _cause(strangers, ours)
    finding = Finding(
        kind="relations_not_joined",
        severity="warning" if cause or share < 0.5 else "note",
        text=f"{count:,} of {len(triples):,} triples have an item as head or tail ({share:.1%}), and "
        f"{having:,} of {len(items):,} items have any: the other triples say nothing of an item",
        figure=share,
        unit="share",
        examples=[" ".join(map(repr, triple)) for triple in strangers.head(3).to_numpy().tolist()]
        + [f"an item: {name!r}" for name in ours.head(1)],
        key="collect.files.relations",
        remedy=f"{cause} {mended:.1%} of them would: bring both to one notation"
        if cause
        else "if they should, write the ids of these items; if they are of other things, nothing is lost",
    )
    return len(strangers), [finding]


def _none_joined(triples: pd.DataFrame, ours: pd.Series) -> str:
    """Ids in two notations, mostly: nothing else would tell that the graph says nothing."""
    found = f"relations: none of {len(triples):,} triples has an item_id as its head or tail"
    head, tail = triples[[tables.HEAD, tables.TAIL]].iloc[0]
    example = f"for example {head!r} and {tail!r}, where items are called {ours.iloc[0]!r}"
    cause, share = _cause(triples, ours)
    remedy = f"{cause} {share:.1%} would" if cause else "name the columns of ids in collect.files.columns"
    return f"{found}, {example}; {remedy}{': bring both to one notation' if cause else ''}"


def _cause(triples: pd.DataFrame, ours: pd.Series) -> tuple[str | None, float]:
    """(the notation by which most of these triples would have an item at one of their ends, their share)."""
    ends = [triples[name].value_counts() for name in (tables.HEAD, tables.TAIL)]
    return max((likely_cause(rows_of, ours) for rows_of in ends), key=lambda told: told[1])
