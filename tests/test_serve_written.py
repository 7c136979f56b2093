"""A model that reads what users write: the service weighs rows as the batch stages do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import served
from safetensors.numpy import load_file, save_file

pytest.importorskip("sqlalchemy")

from pipeline.data import tables
from pipeline.documents.model import Card
from pipeline.models.artifacts import PARTS, folder_hash
from pipeline.models.encoder import TextEncoder
from pipeline.models.preparation import Preparation
from pipeline.models.recommender import Recommender
from pipeline.models.ridge import Ridge
from pipeline.models.sentiment import Sentiment
from pipeline.serve import world as worlds
from pipeline.serve.engine import Engine
from pipeline.serve.events import Happened, Row, Store
from pipeline.serve.prepared import FOLDER, Prepared, prepared, raw_tables
from pipeline.serve.single import One
from pipeline.serve.world import as_rows
from pipeline.serve.written import Reader

WORDS = ("red thing", "blue thing", "thing number one", "number red red", "blue blue", "one thing blue")


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """Rows of users with an even number have a text and no value, and the champion reads them."""
    root = Path(shutil.copytree(served.once(tmp_path_factory), tmp_path / "project"))
    file = next((root / "data/raw/interactions").rglob("*.parquet"))
    rows = pd.read_parquet(file)
    texts = [WORDS[n % len(WORDS)] if user[-1] in "02468" else None for n, user in enumerate(rows["user_id"])]
    rows.assign(**{tables.TEXT: pd.Series(texts, dtype="str")}).to_parquet(file, index=False)
    folder = root / "models/champion"
    card = json.loads((folder / "model.json").read_text())
    width = TextEncoder.load(str(folder / "encoder"), card["max_length"]).model.config.hidden_size
    weights = np.random.default_rng(2).normal(size=(width, 1))
    ridge = Ridge(weights, np.zeros(width), np.zeros(1))
    nothing = np.zeros(0, np.uint64), np.zeros(0, np.float32)
    model = Recommender.load(folder, pd.read_parquet(root / "data/prepared/items.parquet"), _log(root).log)
    told = Sentiment(ridge, 0.0, *nothing, 0.5).with_texts(np.array(WORDS[:4], dtype=object), _encode(model))
    told = Sentiment(ridge, float(np.median(told.value)), *nothing, 0.5)
    arrays = load_file(folder / PARTS)
    save_file(arrays | {f"sentiment.{name}": each for name, each in told.arrays().items()}, folder / PARTS)
    claim = {"version": "v1.0.0", "artifact_hash": folder_hash(folder)}
    (folder / "version.json").write_text(json.dumps(claim))
    return root


def _encode(model: Recommender):  # type: ignore[no-untyped-def]

    encoder = model.encoder()
    assert encoder is not None
    return encoder.vectors


def _log(root: Path, store: Store | None = None) -> Prepared:
    """All rows with their texts, as the batch stages have them."""
    how = Preparation.of(Card.read(root / "models/champion/model.json"))
    assert how is not None
    rows, items = raw_tables(root / "data/raw", [], texts=True)
    if store is not None:
        rows = pd.concat([rows, as_rows(store.after(0))], ignore_index=True)
    return Prepared.of(rows, items, how)


def events(now: int) -> list[Row]:
    return [
        Row("a", "u02", "i01", "review", None, WORDS[4], now, None),
        Row("b", "u02", "i05", "review", None, WORDS[0], now + 1, None),
        Row("c", "u03", "i02", "review", None, WORDS[1], now + 2, None),
        Row("d", "u03", "i06", "review", 5.0, WORDS[4], now + 3, None),  # its value says it
        Row("e", "new", "i07", "review", None, "", now + 4, None),
        Row("f", "new", "i09", "review", None, WORDS[5], now + 5, None),
    ]


@pytest.mark.parametrize("when", ["live", "too many at the start"])
def test_rows_are_liked_as_in_the_batch_stages(
    project: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worlds, "ONE_BY_ONE", 3 if when.startswith("too") else 100)
    store = Store(f"sqlite:///{project}/events.db")
    engine = Engine(project, store)
    engine.load()
    store.append([events(engine.moment())])
    if when == "live":
        engine.follow()
    else:
        engine.load()
    world, batch = engine.world, _log(project, store)
    then = Recommender.load(project / "models/champion", world.model.catalogue.items, batch.log)
    assert then.parts.felt is not None
    felt, now, liked = then.parts.felt.log, engine.moment(), []
    assert felt.liked is not None
    for user in ("u02", "u03", "u04", "new"):
        number = int(np.flatnonzero(batch.user_ids == user)[0])
        rows = world.present.rows(world.present.user(user))
        span = slice(*felt.indptr[number : number + 2])
        np.testing.assert_array_equal(rows.item, felt.item[span])
        np.testing.assert_array_equal(rows.liked, felt.liked[span])
        liked += rows.liked.tolist()
        points = batch.log.points(np.array([number], np.int32), np.full(1, -1, np.int32), np.array([now]))
        asked = next(iter(then.parts.ask(points)))
        items = then.parts.candidates(asked)
        mine = One(rows.points(world.present.user(user), now, False), len(then.catalogue))
        columns, its_columns = world.model.parts.columns(mine, items), then.parts.columns(asked, items)
        for name, column in its_columns.items():
            np.testing.assert_allclose(columns[name], column, rtol=1e-3, atol=1e-4, err_msg=name)
    assert 0 < sum(liked) < len(liked)
    assert world.log.text is None  # what was read is kept no longer
    store.close()


def test_texts_are_kept_for_the_next_start(project: Path) -> None:
    how = Preparation.of(Card.read(project / "models/champion/model.json"))
    assert how is not None
    made, read = (prepared(project, how, [], texts=True).log.text for _ in range(2))
    assert len(list((project / FOLDER).glob("*/texts.parquet"))) == 1
    assert made is not None
    assert set(made) == {"", *WORDS}
    np.testing.assert_array_equal(made, read)
    assert prepared(project, how, []).log.text is None


def test_without_an_encoder_only_known_words_say_something() -> None:
    known = np.sort(pd.util.hash_array(np.array(["bad"], dtype=object), categorize=True))
    nothing = Ridge(np.zeros((1, 1)), np.zeros(1), np.zeros(1))
    asked = []

    def encoder() -> None:
        asked.append(1)

    reader = Reader(Sentiment(nothing, 0.0, known, np.array([-1.0], np.float32), 0.5), encoder)
    event = Happened(1, "u", "i", "review", None, 0, "bad")
    assert reader.liked(event, True) is False
    assert reader.liked(event._replace(value=5.0), True) is True
    for success in (True, False):
        assert reader.liked(event._replace(text="never read"), success) is success
    assert len(asked) == 1


def test_kind_words_make_no_success_of_a_return() -> None:
    known = np.sort(pd.util.hash_array(np.array(["good"], dtype=object), categorize=True))
    nothing = Ridge(np.zeros((1, 1)), np.zeros(1), np.zeros(1))
    reader = Reader(Sentiment(nothing, 0.0, known, np.array([1.0], np.float32), 0.5), lambda: None)
    event = Happened(1, "u", "i", "return", None, 0, "good")
    assert reader.liked(event, False) is False
    assert reader.liked(event, True) is True
