"""Rules on users and items: do rows find their items, does one id stand for many, is there enough.

Each gives a finding or none.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.check.facts import COLUMNS, Facts, percent
from pipeline.data import tables
from pipeline.data.joining import joined_share, likely_cause
from pipeline.documents.check import Finding


def not_joined(facts: Facts) -> Iterator[Finding]:
    if not len(facts.table):
        yield Finding(
            kind="no_items",
            severity="warning",
            text="there is no table of items: no titles, no texts, and new items cannot be told apart",
            key="collect.files.items",
            remedy="name a table of items, or columns of the interactions that describe them (title: ...)",
        )
        return
    known = facts.items.index.isin(facts.table[tables.ITEM])
    share = joined_share(facts.items, facts.table[tables.ITEM])
    if share > 0.98:
        return
    strangers = facts.items[~known].index[:3].tolist()
    unused = facts.table.loc[~facts.table[tables.ITEM].isin(facts.items.index), tables.ITEM].head(3).tolist()
    cause, joined = likely_cause(facts.items, facts.table[tables.ITEM])
    yield Finding(
        kind="items_not_joined",
        severity="error" if share < 0.5 else "warning",
        text=f"{percent(share)} of the rows are of items that the table of items has"
        + (f"; {cause} it would be {percent(joined)}" if cause else ""),
        figure=share,
        unit="share",
        examples=[f"in the rows: {name!r}" for name in strangers]
        + [f"in the table: {name!r}" for name in unused],
        key=f"{COLUMNS}.items.item_id",
        remedy="bring both to one notation" if cause else "name the column that holds the same ids in both",
    )


def one_for_many(facts: Facts) -> Iterator[Finding]:
    """A user or an item with an implausible share of the rows: a stand-in for 'unknown', a robot, a till."""
    for what, rows_of, bound, key in (
        ("user", facts.users, 0.05, f"{COLUMNS}.user_id"),
        ("item", facts.items, 0.2, f"{COLUMNS}.item_id"),
    ):
        share = float(rows_of.iloc[0]) / facts.rows
        if share > bound and len(rows_of) > 20 and rows_of.iloc[0] > 5 * rows_of.iloc[1:].median():
            name = rows_of.index[0]
            yield Finding(
                kind=f"one_{what}_for_many",
                severity="warning",
                text=f"{what} {name!r} has {percent(share)} of the rows: a stand-in for an unknown {what}?",
                figure=share,
                unit="share",
                examples=[f"{other!r}: {int(rows):,} rows" for other, rows in rows_of.head(3).items()],
                key=key,
                remedy=f"leave its rows out of the source, if it is no real {what}",
            )


def little_data(facts: Facts) -> Iterator[Finding]:
    if facts.rows < 1000 or len(facts.users) < 50 or len(facts.items) < 20:
        yield Finding(
            kind="little_data",
            severity="warning",
            text=f"{facts.rows:,} rows of {len(facts.users):,} users and {len(facts.items):,} items: "
            "popularity may be all that can be learned",
            figure=facts.rows,
            unit="rows",
            key="collect.files.interactions",
            remedy="bring a longer span",
        )
