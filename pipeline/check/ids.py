"""Rules on users and items: do rows find their items, does one id stand for many, is there enough.

Each gives a finding or none.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from pipeline.check.facts import COLUMNS, Facts, percent
from pipeline.data import tables
from pipeline.data.joining import NOTATIONS, QUOTED, joined_share, listing, remedy
from pipeline.documents.finding import Finding

SPELLINGS = (
    "without the quotes around them",
    "with signs instead of %20 or &amp;",
    "in one width of letters",
    "without leading zeros",
    "without a final .0",
    "in one case",
)  # signs alone tell some ids apart
NOBODY = (
    r"(?i)\W*(?:unknown|anonymous|anon|guest|nobody|missing|empty|void|dummy|not available|unbekannt|gast"
    r"|true|false)\W*"
    r"|-1|-9{2,}|(?:0{8}-)?(?:0{4}-){3}0{12}|0{32}"
)
_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
DATE = rf"\d{{1,2}}-{_MONTH}(?:-\d\d(?:\d\d)?)?|{_MONTH}-\d\d|\d{{4}}-\d\d-\d\d[T ]\d\d:\d\d.*"


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
    yield Finding(
        kind="items_not_joined",
        severity="error" if share < 0.5 else "warning",
        text=f"{percent(share)} of the rows are of items that the table of items has",
        figure=share,
        unit="share",
        examples=[f"in the rows: {name!r}" for name in strangers]
        + [f"in the table: {name!r}" for name in unused],
        key=f"{COLUMNS}.items.item_id",
        remedy=remedy(facts.items, facts.table),
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


def spellings(facts: Facts) -> Iterator[Finding]:
    """One user, or item, under several ids: 7 and 007, Ann and ann; of items also in their table alone."""
    table = pd.Series(0, pd.Index(facts.table[tables.ITEM]))
    for what, counts in (("user", [facts.users]), ("item", [facts.items, table])):
        found = [finding for rows_of in counts for finding in _spelt_twice(what, rows_of, facts.rows)]
        yield from sorted(found, key=lambda finding: finding.severity == "note")[:1]


def _spelt_twice(what: str, rows_of: pd.Series, rows: int) -> Iterator[Finding]:
    """By the spelling with most rows; a note where they are few, for two ids may be meant."""
    ids = rows_of.index.to_series().astype("str")
    twice = {name: alike for name in SPELLINGS if (alike := NOTATIONS[name](ids)).duplicated().any()}
    shares = {  # the spelling with most rows stands first
        name: float(rows_of[alike.duplicated().to_numpy()].sum()) / rows for name, alike in twice.items()
    }
    if not twice:
        return
    name = max(shares, key=lambda name: shares[name])
    alike, share = twice[name], shares[name]
    again = alike[alike.duplicated()]
    pairs = [ids[(alike == one).to_numpy()].tolist() for one in again.drop_duplicates().head(3)]
    yield Finding(
        kind=f"{what}s_spelt_twice",
        severity="warning" if share > 0.01 else "note",
        text=f"{len(again):,} {what} ids, with {percent(share)} of the rows, are those of others {name}",
        figure=share,
        unit="share",
        examples=[" and ".join(map(repr, pair)) for pair in pairs],
        key=f"{COLUMNS}.{what}_id",
        remedy="bring the ids to one notation in the source, if these are the same",
    )


def stand_ins(facts: Facts) -> Iterator[Finding]:
    """Words for nobody, below the share at which `one_for_many` speaks."""
    for what, rows_of in (("user", facts.users), ("item", facts.items)):
        nobody = rows_of[rows_of.index.to_series().astype("str").str.fullmatch(NOBODY).to_numpy()]
        if nobody.sum() > 0.001 * facts.rows:
            yield Finding(
                kind=f"stand_in_{what}s",
                severity="warning",
                text=f"{int(nobody.sum()):,} rows are of {what}s whose id is a word for none",
                figure=int(nobody.sum()),
                unit="rows",
                examples=[f"{name!r}: {int(rows):,} rows" for name, rows in nobody.head(3).items()],
                key=f"{COLUMNS}.{what}_id",
                remedy="empty these cells in the source: rows without an id are left out",
            )


def quoted_ids(facts: Facts) -> Iterator[Finding]:
    """'123', where a table of items or a service has 123."""
    for what, rows_of in (("user", facts.users), ("item", facts.items)):
        ids = rows_of.index.to_series().astype("str")
        quoted = ids[ids.map(QUOTED.fullmatch).notna()]
        if len(quoted) > 0.01 * len(ids):
            yield Finding(
                kind=f"quoted_{what}_ids",
                severity="warning",
                text=f"{len(quoted):,} of {len(ids):,} {what} ids stand in quotes, which are part of them",
                figure=len(quoted),
                unit="ids",
                examples=[repr(name) for name in quoted.head(3)],
                key=f"{COLUMNS}.{what}_id",
                remedy="export the ids without quotes, unless all that ask for lists write them so",
            )


def spreadsheet_ids(facts: Facts) -> Iterator[Finding]:
    """Ids that a spreadsheet has changed: digits after the fifteenth are 0, 1-2 is a date."""
    for what, rows_of in (("user", facts.users), ("item", facts.items)):
        ids = rows_of.index.to_series().astype("str")
        long, dates = ids[ids.str.fullmatch(r"\d{16,20}")], ids[ids.str.fullmatch(DATE)]
        if len(long) >= 20 and long.str.endswith("0").mean() > 0.9:
            changed, why = long, "end in 0 beyond their fifteenth digit, as spreadsheets and JavaScript round"
        elif len(dates):
            changed, why = dates, "are dates, as spreadsheets make of ids like 1-2"
        else:
            continue
        yield Finding(
            kind=f"changed_{what}_ids",
            severity="warning",
            text=f"{len(changed):,} of {len(ids):,} {what} ids {why}: different {what}s may share one",
            figure=len(changed),
            unit="ids",
            examples=[repr(name) for name in changed.head(3)],
            key=f"{COLUMNS}.{what}_id",
            remedy="export the ids as text, from where they come",
        )


def lists_of_ids(facts: Facts) -> Iterator[Finding]:
    """a;b, where a and b are items of their own."""
    sign, share, examples = listing(facts.items, facts.items.index)
    if share > 0.01:
        yield Finding(
            kind="lists_of_items",
            severity="warning",  # "punk rock" may be an item beside punk and rock
            text=f"{percent(share)} of the rows have a list of items in one cell, with {sign!r} between",
            figure=share,
            unit="share",
            examples=[repr(name) for name in examples],
            key=f"{COLUMNS}.item_id",
            remedy="write a row for each of them, if they are lists",
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
