"""What users' own words say: learned from rows with values, told of rows without, kept where it pays."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import toy_log

from pipeline.data.histories import Prepared, make_log
from pipeline.models.baselines import liking
from pipeline.models.collaborative import Settings
from pipeline.models.sentiment import Sentiment
from pipeline.training.recipe import Base, Serving
from pipeline.training.split import split

USERS, ITEMS, ROWS = 120, 40, 24
START = pd.Timestamp("2024-01-01", tz="UTC")


def encode(texts: list[str]) -> np.ndarray:
    """In the place of a language model: its first two places say good and bad, the others nothing."""
    noise = np.array([[sum(map(ord, text)) * k % 7 for k in range(3, 9)] for text in texts]) / 7
    return np.c_[[["good" in text, "bad" in text] for text in texts], noise].astype(np.float32)


def world(honest: bool = True) -> Prepared:
    """Each user likes the items of one of two tastes, and writes of both kinds, mostly without a value.

    Items are taken again, so `repeats` is on: else some points would ask for what may not be listed.

    Not `honest`: what is written has nothing to do with what is liked.
    """
    generator = np.random.default_rng(2)
    rows = []
    for user in range(USERS):
        for hour in range(ROWS):
            liked = hour % 2 == 0
            item = 2 * generator.integers(ITEMS // 2) + (user % 2 if liked else 1 - user % 2)
            good = liked if honest else generator.random() < 0.5
            text = f"{'good' if good else 'bad'} {generator.integers(1000)}"
            value = np.nan if generator.random() < 0.8 else (5.0 if good else 1.0)
            rows.append((f"u{user:02}", f"i{item:02}", hour * USERS + user, value, text, liked))
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "hour", "value", "text", "liked"])
    table = table.sort_values("hour", ignore_index=True)
    table["timestamp"] = (START + pd.to_timedelta(table["hour"], unit="h")).astype("datetime64[us, UTC]")
    table = table.assign(event="review", fit=True, positive=~(table["value"] < 4))
    table[["user_id", "item_id", "text"]] = table[["user_id", "item_id", "text"]].astype("str")
    cut = int(len(table) * 0.8)
    catalogue = toy_log.catalogue([f"i{n:02}" for n in range(ITEMS)])
    users = np.unique(table["user_id"].to_numpy(dtype=object))
    log = make_log([table[:cut], table[cut:]], catalogue, users, repeats=True)
    late = table[cut:][table["liked"][cut:]]
    points = log.points(
        pd.Index(users).get_indexer(late["user_id"]).astype(np.int32),
        catalogue.index(late["item_id"]),
        late["timestamp"].astype("int64").to_numpy(),
    )
    return Prepared(catalogue, users, log, points, points[:0], np.zeros(0, object))


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return world()


def test_a_row_without_a_value_is_liked_as_it_reads(prepared: Prepared) -> None:
    log = prepared.log
    found = Sentiment.fit(log, log.window == 0, encode)
    assert found is not None
    assert found.spearman > 0.85  # values are two, so .866 is the most
    felt = found.felt(log).log
    bare = np.isnan(log.value)
    good = np.array(["good" in text for text in log.text])
    assert (felt.liked[bare] == good[bare]).all()
    assert (felt.liked[~bare] == log.positive[~bare]).all()
    assert liking(felt, 0.3)[bare & ~good].max() == np.float32(0.3)
    assert (liking(replace(log, liked=None), 0.3) == np.where(log.positive, 1, np.float32(0.3))).all()
    again = Sentiment.of(found.arrays())
    assert again is not None
    assert (again.felt(log).log.liked == felt.liked).all()
    # Of another log nothing is known before its texts are read.
    new = replace(log, text=np.array([f"{text}!" for text in log.text], dtype=object))
    assert (again.felt(new).log.liked == log.positive).all()
    assert (again.knowing(new, lambda texts: None).felt(new).log.liked == log.positive).all()
    assert (again.knowing(new, encode).felt(new).log.liked[bare] == good[bare]).all()


def test_an_event_that_is_no_success_stays_none_whatever_its_words_say(prepared: Prepared) -> None:
    log = prepared.log
    bare = np.isnan(log.value)
    returned = bare & (np.arange(len(log)) % 3 == 0)
    of_events = replace(log, positive=log.positive & ~returned)
    good = np.array(["good" in text for text in log.text])
    found = Sentiment.fit(of_events, log.window == 0, encode)
    assert found is not None
    liked = found.felt(of_events).log.liked
    assert liked is not None
    assert (returned & good).any()
    assert not liked[returned].any()
    assert (liked[bare & ~returned] == good[bare & ~returned]).all()
    # Nothing is left to be read where no row without a value is a success.
    assert Sentiment.fit(replace(log, positive=log.positive & ~bare), log.window == 0, encode) is None


def test_values_of_events_that_are_no_success_do_not_part_likes_from_dislikes(prepared: Prepared) -> None:
    """A third of the fives come back: they were priced, not disliked."""
    log, rows = prepared.log, prepared.log.window == 0
    back = (log.value == 5) & (np.arange(len(log)) % 3 == 0)
    of_events = replace(log, positive=log.positive & ~back)
    plain, found = Sentiment.fit(log, rows, encode), Sentiment.fit(of_events, rows, encode)
    assert plain is not None
    assert found is not None
    read = np.isnan(log.value)
    assert (found.felt(of_events).log.liked[read] == plain.felt(log).log.liked[read]).all()  # type: ignore[index]
    only = replace(log, positive=log.positive & ~back, value=np.where(log.value < 4, np.nan, log.value))
    assert Sentiment.fit(only, rows, encode) is None  # likes and returns alone: no value tells them apart


def test_of_rows_that_are_gone_no_hash_is_kept(prepared: Prepared) -> None:
    log = prepared.log
    found = Sentiment.fit(log, log.window == 0, encode)
    assert found is not None
    assert found.of_texts(log).known.tolist() == found.known.tolist()
    rest = replace(log, text=np.where(log.user < 60, log.text, "").astype(object))
    left = found.of_texts(rest)
    assert 0 < len(left.known) < len(found.known)
    assert (left.felt(rest).log.liked == found.felt(rest).log.liked).all()
    gone = sorted({*log.text[log.user >= 60]} - {*rest.text})
    assert not left.liked(np.array(gone, dtype=object))[0].any()
    assert not len(found.of_texts(replace(log, text=None)).known)


def test_points_of_another_log_stay_as_they_are(prepared: Prepared) -> None:
    found = Sentiment.fit(prepared.log, prepared.log.window == 0, encode)
    assert found is not None
    felt = found.felt(prepared.log)
    assert felt.points(prepared.validation).log is felt.log
    elsewhere = replace(prepared.validation, log=replace(prepared.log))
    assert felt.points(elsewhere) is elsewhere


def test_without_texts_or_where_every_row_has_a_value_there_is_no_such_signal(prepared: Prepared) -> None:
    log, rows = prepared.log, prepared.log.window == 0
    assert Sentiment.fit(replace(log, text=None), rows, encode) is None
    assert Sentiment.fit(replace(log, value=np.full(len(log), 5, np.float32)), rows, encode) is None
    assert Sentiment.fit(log, rows, lambda texts: None) is None
    assert Sentiment.of({}) is None


@pytest.mark.slow
@pytest.mark.parametrize("honest", [True, False])
def test_it_is_kept_where_validation_gains_by_it(honest: bool) -> None:
    prepared = world(honest)
    base = Base.fit(prepared, split(prepared, 1), Settings(False, 100.0), 1, Serving())
    other, sentiment, told = base.reading(SimpleNamespace(vectors=encode), None, 1)  # type: ignore[arg-type]
    assert told["sentiment"]["kept"] == honest
    assert (sentiment is not None) == honest
    if not honest:
        assert other is base
