"""Rules on what counts as success, on repeats, and on the points that follow from both.

Each gives a finding or none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.check.facts import COLUMNS, NINES, Facts, percent
from pipeline.documents.finding import Finding

RATED = 0.9  # of the rows have a value: then it may be a rating
FAR, LEAST_VALUES = 100, 1000  # times the usual value; fewer values have no usual one
SCALES = (5, 10, 100)  # at which ratings end


def negative(facts: Facts) -> Iterator[Finding]:
    count = sum(event.negative_successes for event in facts.events)
    if count:
        least = min(event.least for event in facts.events if event.least is not None)
        yield Finding(
            kind="negative_successes",
            severity="warning",
            text=f"{count:,} rows with a value below 0 count as success: returns, refunds?",
            figure=count,
            unit="rows",
            examples=[f"least value {least:g}"],
            key="preprocess.positive.min_value",
            remedy="set it to the least value that means success, such as 1 for a quantity",
        )


def zeros(facts: Facts) -> Iterator[Finding]:
    """0 for 'not clicked', 'not rated', a call that nobody took: with min_value null it is a success."""
    count = sum(event.zero_successes for event in facts.events)
    share, others = count / facts.rows, any(event.largest for event in facts.events)  # not 0 alone
    if facts.params.preprocess.positive.min_value is None and share > 0.001 and others:
        yield Finding(
            kind="zero_successes",
            severity="warning" if share > 0.01 else "note",
            text=f"{count:,} rows with a value of 0 count as success ({percent(share)})",
            figure=share,
            unit="share",
            examples=[f"{e.event}: {e.zero_successes:,} of {e.rows:,} rows" for e in facts.events[:3]],
            key="preprocess.positive.min_value",
            remedy="set it to the least value that means success, such as 1, unless 0 does, as a price may",
        )


def far_values(facts: Facts) -> Iterator[Finding]:
    for event in facts.events:
        if event.usual is None or event.least is None or event.largest is None:
            continue
        farthest = max(event.largest, -event.least)
        if event.values >= LEAST_VALUES and farthest > FAR * event.usual > 0:
            yield Finding(
                kind="far_values",
                severity="note",
                text=f"a value of {event.event!r} is as far from 0 as {farthest:,g}, 99% are within "
                f"{event.usual:,g}: typing errors, bulk orders?",
                figure=farthest,
                unit="largest value",
                examples=[f"least {event.least:,g}", f"largest {event.largest:,g}"],
                key=f"{COLUMNS}.value",
                remedy="correct them in the source: features and averages of values follow them",
            )


def stand_in_values(facts: Facts) -> Iterator[Finding]:
    """99 among ratings to 10: not rated, and yet a success."""
    for event in facts.events:
        if event.below is None or event.largest not in NINES or event.nines <= 0.01 * event.values:
            continue
        if event.largest > 2 * event.below:
            yield Finding(
                kind="stand_in_values",
                severity="warning",
                text=f"{event.nines:,} rows of {event.event!r} succeed by the value {event.largest:g}"
                f", though no other is above {event.below:g}: does it mean that there is none?",
                figure=event.nines,
                unit="rows",
                examples=[f"largest {event.largest:g}", f"next {event.below:g}"],
                key=f"{COLUMNS}.value",
                remedy="leave such rows out of the source, if it does",
            )


def success(facts: Facts) -> Iterator[Finding]:
    """Whether `preprocess.positive` fits the values at hand."""
    rows, successes = facts.rows, sum(event.successes for event in facts.events)
    values = sum(event.values for event in facts.events)
    bound = facts.params.preprocess.positive.min_value
    largest = max((event.largest for event in facts.events if event.largest is not None), default=None)
    finding: dict[str, Any] = {"figure": successes / rows, "unit": "share", "key": "preprocess.positive"}
    seen = [f"{e.event}: {e.rows:,} rows, values {_span(e)}" for e in facts.events[:5]]
    if successes < 0.1 * rows:
        yield Finding(
            kind="few_successes",
            severity="warning" if successes else "error",
            text=f"only {successes:,} of {rows:,} rows count as success ({percent(successes / rows)})",
            examples=seen,
            remedy="set events and min_value to what means success in these data",
            **finding,
        )
    elif (
        (bound is None or (largest and bound < 0.5 * largest))
        and values > RATED * rows
        and largest in SCALES
        and successes > (0.95 if bound else 0.999) * rows
    ):
        yield Finding(
            kind="every_rating_succeeds",
            severity="note",
            text=f"{percent(successes / rows)} of the rows count as success, though the values end at "
            f"{largest:g}, as ratings do",
            examples=seen,
            remedy=f"if they are ratings, set min_value, such as {0.8 * largest:g}",
            **finding,
        )
    if bound is not None and 0 < values < rows and (rows - values) > 0.01 * rows:
        yield Finding(
            kind="successes_without_value",
            severity="note",
            text=f"{rows - values:,} rows have no value and count as success whatever min_value says",
            figure=(rows - values) / rows,
            unit="share",
            key="preprocess.positive.events",
            remedy="if some events are no success, list those that are",
        )


def many_events(facts: Facts) -> Iterator[Finding]:
    if len(facts.events) > 30:
        yield Finding(
            kind="many_events",
            severity="warning",
            text=f"column event has {len(facts.events):,} different values: is it the kind of event?",
            figure=len(facts.events),
            unit="values",
            examples=[repr(event.event) for event in facts.events[:3]],
            key=f"{COLUMNS}.event",
            remedy="name the column that says view, click, purchase, ..., or a constant",
        )


def repeats(facts: Facts) -> Iterator[Finding]:
    share = facts.repeats / max(facts.successes, 1)
    excluded = facts.params.preprocess.repeats == "exclude"
    if excluded and share > 0.15:
        yield Finding(
            kind="repeats_left_out",
            severity="warning",
            text=f"{percent(share)} of the successes are of items that the user had before: they are neither "
            "asked for nor listed",
            figure=share,
            unit="share",
            key="preprocess.repeats",
            remedy="set it to include, if people come for the same again (food, songs, supplies)",
        )
    elif not excluded and share < 0.05:
        yield Finding(
            kind="no_repeats",
            severity="note",
            text=f"only {percent(share)} of the successes repeat an item, yet lists may show what a user has",
            figure=share,
            unit="share",
            key="preprocess.repeats",
            remedy="set it to exclude",
        )


def few_points(facts: Facts) -> Iterator[Finding]:
    """Too few to tell models apart: promotions are refused, the curves of validation are noise."""
    gate = facts.params.decide_promotion
    for window in ("validation", "test"):
        counts = facts.windows.of("points", window) if facts.windows else {}
        if not counts:
            continue
        points, users = counts["points"], counts["users"]
        if points < gate.min_points or users < gate.min_users:
            effect = "no later model can be promoted" if window == "test" else "settings are chosen by chance"
            yield Finding(
                kind=f"few_{window}_points",
                severity="warning",
                text=f"the {window} window has {points:,} points of {users:,} users: {effect}",
                figure=points,
                unit="points",
                key=f"preprocess.{window}_share",
                remedy="make it larger, or bring more data "
                f"(decide_promotion wants {gate.min_points} points of {gate.min_users} users)",
            )


def few_fitted(facts: Facts) -> Iterator[Finding]:
    train = facts.windows.of("windows", "train") if facts.windows else {}
    if train and train["rows_not_fit"] > 0.2 * train["rows"]:
        share = train["rows_not_fit"] / train["rows"]
        yield Finding(
            kind="users_left_out",
            severity="warning",
            text=f"{train['users_not_fit']:,} of {train['users']:,} users in train have fewer than "
            f"{facts.params.preprocess.min_user_interactions} rows: {percent(share)} of its rows are "
            "not learned from",
            figure=share,
            unit="share",
            key="preprocess.min_user_interactions",
            remedy="lower it",
        )


def cold(facts: Facts) -> Iterator[Finding]:
    test = facts.windows.of("points", "test") if facts.windows else {}
    for name, what, bound in (("cold_items", "items", 0.3), ("empty_history", "users", 0.5)):
        share = test.get(f"{name}_share")
        if share is not None and share > bound:
            text = {
                "cold_items": f"{percent(share)} of the test points are of items that train has never seen: "
                "texts and what is popular right now have to find them",
                "empty_history": f"{percent(share)} of the test points are of users of whom nothing is known",
            }[name]
            yield Finding(
                kind=f"many_{name}",
                severity="note",
                text=text,
                figure=share,
                unit="share",
                key="collect.files.items" if what == "items" else f"{COLUMNS}.user_id",
                remedy="bring titles, descriptions and categories of the items"
                if what == "items"
                else "look whether the id changes with every visit",
            )


def _span(event: Any) -> str:
    return "none" if event.least is None else f"{event.least:g} to {event.largest:g}"
