"""Rules on users and items: do rows find their items, does one id stand for many, is there enough.

Each gives a finding or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd

from pipeline.check.facts import COLUMNS, Facts, percent
from pipeline.data import tables as t
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
    known = facts.items.index.isin(facts.table[t.ITEM])
    share = float(facts.items[known].sum()) / facts.rows
    if share > 0.98:
        return
    strangers = facts.items[~known].index[:3].tolist()
    unused = facts.table.loc[~facts.table[t.ITEM].isin(facts.items.index), t.ITEM].head(3).tolist()
    cause, joined = likely_cause(facts)
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


NOTATIONS: dict[str, Callable[[pd.Series], pd.Series]] = {
    "without leading zeros": lambda ids: ids.str.lstrip("0"),
    "without a final .0": lambda ids: ids.str.replace(r"\.0+$", "", regex=True),
    "in one case": lambda ids: ids.str.casefold(),
    "without blanks, signs and case": lambda ids: ids.str.casefold().str.replace(r"\W", "", regex=True),
}


def likely_cause(facts: Facts) -> tuple[str | None, float]:
    """(the notation in which most rows would find their item, their share) if it helps much, else None."""
    ours, theirs = facts.items.index.to_series().astype("str"), facts.table[t.ITEM].astype("str")
    plain = float(facts.items[ours.isin(theirs).to_numpy()].sum()) / facts.rows
    best: tuple[str | None, float] = (None, plain)
    for name, notation in NOTATIONS.items():
        joined = float(facts.items[notation(ours).isin(notation(theirs)).to_numpy()].sum()) / facts.rows
        if joined > best[1] + 0.1:
            best = (name, joined)
    return best


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
