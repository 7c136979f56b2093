"""Rules on events: those that params.yaml lists and the data lack, and those that hardly are a success.

Each gives a finding or none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches

from pipeline.check.facts import COLUMNS, Facts, percent
from pipeline.data.text import bare
from pipeline.documents.finding import Finding

KEY = "preprocess.positive.events"
_DOUBTFUL = re.compile(
    r"cancel|refund|\breturn(?:s|ed)?\b|storno|void|charge.?back|dislike|unlike|downvote|thumbs?.?down|skip|hide"
    r"|fail|declin|reject|abandon|remove|unsubscribe|block|deleted?|impression|exposure|\bshown\b",
    re.IGNORECASE,
)


def listed(facts: Facts) -> Iterator[Finding]:
    """A misspelt event, or one in another case, silently makes no success of its rows."""
    there = {event.event: event.rows for event in facts.events}
    wanted = facts.params.preprocess.positive.events or []
    for name in wanted:
        others = [other for other in there if other not in wanted]
        alike = [other for other in others if bare(other) == bare(name)]
        if name in there:  # 'purchas' beside it, but neither 'like' and 'dislike' nor 'view' and 'review'
            alike = alike or get_close_matches(name, others, 3, 0.85)
        if name in there and not alike:
            continue
        near = alike or get_close_matches(name, there, 3)
        rows = sum(there[other] for other in alike)
        yield Finding(
            kind="events_not_there",
            severity="warning",
            text=f"no row is of the event {name!r}"
            if name not in there
            else f"{rows:,} rows write {name!r} otherwise",
            figure=rows / facts.rows,
            unit="share",
            examples=[f"{other!r}: {there[other]:,} rows" for other in near or list(there)[:3]],
            key=KEY,
            remedy="list every spelling that the data have, or bring them to one",
        )


def doubtful(facts: Facts) -> Iterator[Finding]:
    """Returns, dislikes and what was only shown that count as success, by event or by a further column."""
    events = {event.event: event.successes for event in facts.events if event.successes}
    for column, counts in {"event": events, **facts.kinds}.items():
        rows = {name: count for name, count in counts.items() if _DOUBTFUL.search(name.replace("_", " "))}
        if rows:
            share = sum(rows.values()) / facts.rows
            yield Finding(
                kind="doubtful_successes",
                severity="warning",
                text=f"{percent(share)} of the rows count as success, though column {column} says otherwise",
                figure=share,
                unit="share",
                examples=[f"{name!r}: {count:,} rows" for name, count in list(rows.items())[:3]],
                key=KEY if column == "event" else f"{COLUMNS}.event",
                remedy="list the events that are a success"
                if column == "event"
                else f"name {column} there and list in {KEY} what succeeds, or leave such rows out",
            )
