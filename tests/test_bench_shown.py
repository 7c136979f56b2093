"""`evergreen bench shown`: what lists showed in vain counts as it is weighted, and everybody is compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_log

from pipeline.bench import shown as bench
from pipeline.data.histories import Prepared

PEOPLE, FILMS = 60, 48
SIZES = {"FILMS": FILMS, "FOUNDERS": 30, "MEMBERS": 30, "LISTED": 5, "LISTS": 2, "PLACES": 8, "REDRAWN": 200}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SIZES.items():
        monkeypatch.setattr(bench, name, value)


def world() -> Prepared:
    """People of two tastes: each likes most films of its own, and knows few others, without liking them."""
    generator = np.random.default_rng(2)
    rows, disliked = [], []
    for user in range(PEOPLE):
        for film in range(FILMS):
            own = user % 2 == film % 2
            if generator.random() < (0.8 if own else 0.2):
                rows.append((f"u{user:02}", f"i{film:02}", float(generator.uniform(0, 90))))
                disliked += [] if own else [rows[-1]]
    nothing: list[object] = [None] * FILMS
    columns = {"title": nothing, "text": nothing, "year": nothing, "categories": [[]] * FILMS}
    items = toy_log.catalogue([f"i{film:02}" for film in range(FILMS)], **columns)
    found = toy_log.prepared(items, sorted(rows, key=lambda row: row[2]), disliked=disliked)
    return replace(found, log=replace(found.log, value=np.where(found.log.positive, 5.0, 2.0)))


def club() -> bench.Club:
    found = bench.Club.of(world().log, world().catalogue, 3)
    found.live(bench.LISTS)
    return found


def test_members_rate_what_they_know_of_a_list_and_the_rest_was_in_vain() -> None:
    found = club()
    user, film, _ = (np.concatenate(column) for column in zip(*found.rows[1:], strict=True))
    rated = set(zip(user.tolist(), film.tolist(), strict=True))
    vain = {(member, film) for member, _, film in found.shown}
    assert vain
    assert not vain & rated
    assert all(np.isfinite(found.stars[row]) for row in rated)
    assert all(np.isnan(found.stars[row]) for row in vain)
    assert all(found.seen[row] for row in vain | rated)
    seen = found.seen.copy()
    taken = found.afterwards(found.model)
    assert taken.shape == (SIZES["MEMBERS"],)
    assert 0 <= taken.min() <= taken.max() <= SIZES["LISTED"]
    assert (found.seen == seen).all()


@pytest.mark.slow
def test_the_more_it_weighs_the_lower_ranks_what_was_shown_in_vain() -> None:
    found = club()
    models = found.models((0.0, 1.0, 30.0))
    now, member = int(found.log.time.max()) + 1, found.members
    points = found.log.points(member, np.full(len(member), -1, np.int32), np.full(len(member), now))
    vain = found._in_vain(points)
    means = []
    for model in models.values():
        [(items, scores)] = model.over(found.log).candidates(points)
        scores = np.where(items >= 0, scores, np.nan)
        mean, spread = (each(scores, axis=1, keepdims=True) for each in (np.nanmean, np.nanstd))
        worth = (scores - mean) / spread
        among = (items[:, :, None] == vain[:, None, :]).any(axis=2) & (items >= 0)
        means.append(float(worth[among].mean()))
    assert means[0] > means[1] > means[2]


@pytest.mark.slow
def test_every_weight_is_compared_with_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "embedded", lambda source, params: (world(), None))
    monkeypatch.setattr(bench, "WEIGHTS", (1.0,))
    monkeypatch.setenv("EVERGREEN_BENCH_CLUBS", "2")
    result = bench.run(Path())
    assert (result["name"], result["conditions"]["clubs"]) == ("shown", 2)
    assert result["conditions"]["people"] == 2 * SIZES["MEMBERS"]
    plain, weighted = result["figures"]["weight_0"], result["figures"]["weight_1"]
    assert (plain["gain"], plain["low"], plain["high"]) == (0, 0, 0)
    assert weighted["low"] <= weighted["gain"] <= weighted["high"]
    assert weighted["gain"] == pytest.approx(weighted["taken_of_a_list"] - plain["taken_of_a_list"])
    assert 0 < plain["taken_of_a_list"] <= SIZES["LISTED"]
    assert result["ratios"]["weight_0"] == 1
