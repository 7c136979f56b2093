"""A model folder holds the whole model, also for a catalogue that has changed since."""

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from pipeline.data.histories import Prepared, load_prepared
from pipeline.errors import ArtifactError, DataError
from pipeline.models import questions, recommender
from pipeline.models.baselines import train_rows
from pipeline.models.content import VectorScorer
from pipeline.models.encoder import TextEncoder, texts_to_vectors
from pipeline.models.features import Matrix, fit_inputs
from pipeline.models.networks import FusionScorer, SequenceTower
from pipeline.models.recommender import Recommender
from pipeline.stages import preprocess


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recommender")
    settings = tiny.params(folder / "params.yaml", tiny.encoder(folder / "encoder"))
    preprocess.main(tiny.raw(folder / "raw"), folder / "prepared", settings)
    return folder


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Prepared:
    return load_prepared(folder / "prepared")


@pytest.fixture(scope="module")
def model(folder: Path, prepared: Prepared) -> Recommender:
    """Fitted inputs under random networks, saved in folder/model."""
    encoder = TextEncoder.load(str(folder / "encoder"), 16)
    vectors, _ = texts_to_vectors(encoder, prepared.catalogue.items["item_text"].tolist())
    text, rows = VectorScorer.of(vectors).vectors, train_rows(prepared.log)
    torch.manual_seed(1)
    known = np.bincount(prepared.log.item[rows], minlength=len(prepared.catalogue)) > 0
    tower = SequenceTower(known, text).eval()
    inputs = fit_inputs(prepared.log, rows, prepared.catalogue, Matrix(False, 10.0), 1)
    inputs = inputs.with_text(text, tower)
    features = list(inputs.columns(prepared.test[:1]))
    scorer = FusionScorer(len(features))
    with torch.no_grad():
        scorer.linear.weight.normal_()
    card = {"features": features, "fit_end": "2020-01-05", "max_length": 16}
    cold = copy.deepcopy(scorer)
    with torch.no_grad():
        cold.linear.weight.normal_()
    centre = vectors.mean(axis=0)
    made = Recommender("challenger", card, prepared.catalogue, inputs, scorer, centre, cold, 0.5)
    recommender.save(folder / "model", card, made, encoder)
    return made


def test_saved_and_loaded_model_scores_the_same(folder: Path, prepared: Prepared, model: Recommender) -> None:
    again = Recommender.load(folder / "model", prepared.catalogue.items)
    np.testing.assert_allclose(again.score(prepared.test), model.score(prepared.test), atol=1e-4)
    assert again.fit_end == "2020-01-05"


def test_model_of_before_towers_were_chosen_is_still_read(
    folder: Path, prepared: Prepared, model: Recommender, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(folder / "model", old)
    card = json.loads((old / "model.json").read_text())
    del card["user_tower"]
    (old / "model.json").write_text(json.dumps(card | {"format": 3}))
    networks = load_file(old / "networks.safetensors")
    save_file(
        {key.replace(".reader.", "."): value for key, value in networks.items()}, old / "networks.safetensors"
    )
    read = Recommender.load(old, prepared.catalogue.items)
    np.testing.assert_allclose(read.score(prepared.test), model.score(prepared.test), rtol=1e-4, atol=1e-4)


def test_every_score_is_a_number(prepared: Prepared, model: Recommender) -> None:
    assert np.isfinite(model.score(prepared.test)).all()


def test_scores_do_not_depend_on_other_points(prepared: Prepared, model: Recommender) -> None:
    together = model.score(prepared.test[:5])
    alone = np.concatenate([model.score(prepared.test[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_reasons_name_the_categories_of_the_ten_newest_rows(prepared: Prepared, model: Recommender) -> None:
    ids, now = prepared.catalogue.ids, 1_000_000_000
    items = prepared.catalogue.items.assign(categories=[[f"c{place}"] for place in range(len(ids))])
    told = dataclasses.replace(model, catalogue=dataclasses.replace(prepared.catalogue, items=items))
    history = questions._history_in_place(prepared, [ids[3], *[ids[2]] * 10], now)
    point = history.points(np.zeros(1, np.int32), np.full(1, -1, np.int32), np.full(1, now))
    [[newest, oldest]] = told.reasons(point, np.array([[2, 3, -1]]))
    assert "in c2" in newest
    assert not [text for text in oldest if text.startswith("in ")]


def test_new_item_is_encoded_and_the_others_keep_their_scores(
    folder: Path, prepared: Prepared, model: Recommender
) -> None:
    items = prepared.catalogue.items
    new = items.iloc[[1]].assign(item_id="i000-new")  # sorts between i00 and i01
    again = Recommender.load(folder / "model", pd.concat([items, new], ignore_index=True))
    place = again.catalogue.index(items["item_id"])
    assert again.inputs.statistics.count[again.catalogue.index(np.array(["i000-new"]))] == 0
    moved = again.inputs.ease.score(_weights(again, place))
    np.testing.assert_allclose(moved[0, place[2:4]], model.inputs.ease.score(_weights(model))[0, 2:4])
    encoded = again.inputs.text[again.catalogue.index(np.array(["i000-new"]))][0]
    np.testing.assert_allclose(encoded, model.inputs.text[1], atol=2e-2)  # the same text, half precision


def _weights(model: Recommender, place: np.ndarray | None = None):
    import scipy.sparse as sp

    item = 0 if place is None else int(place[0])
    return sp.csr_matrix(([1.0], ([0], [item])), shape=(1, len(model.catalogue)))


def test_item_that_is_gone_is_left_out(folder: Path, prepared: Prepared, model: Recommender) -> None:
    items = prepared.catalogue.items.iloc[1:]
    again = Recommender.load(folder / "model", items)
    assert len(again.inputs.ease.kept) == len(model.inputs.ease.kept) - 1
    assert again.inputs.items == len(items)


def test_now_is_just_after_the_summarys_as_of(folder: Path, prepared: Prepared) -> None:
    told = json.loads((folder / "prepared" / "summary.json").read_text())["as_of"]
    assert prepared.now == int(pd.Timestamp(told).timestamp() * 1_000_000) + 1


def test_history_given_in_place(folder: Path, model: Recommender) -> None:
    found = questions.recommend(folder / "model", folder / "prepared", items=["i00", "i02"], k=5)
    assert [row["rank"] for row in found] == [1, 2, 3, 4, 5]
    assert not {"i00", "i02"} & {row["item_id"] for row in found}
    assert all(row["reasons"] for row in found)


def test_free_text_finds_its_items(folder: Path, model: Recommender) -> None:
    text = "blue thing number 4. blue."
    found = questions.recommend(folder / "model", folder / "prepared", text=text, k=3)
    assert found[0]["title"] == "blue thing number 4"


def test_free_text_lists_only_items_on_offer_that_have_a_text(
    folder: Path, prepared: Prepared, model: Recommender, tmp_path: Path
) -> None:
    shutil.copytree(folder / "prepared", tmp_path / "prepared")
    items = pd.read_parquet(tmp_path / "prepared" / "items.parquet")
    gone, wordless = items["item_id"] == "i04", items["item_id"] == "i06"
    items.loc[gone, "available_until"] = pd.Timestamp("2020-01-01", tz="UTC")
    items.loc[wordless, "item_text"] = ""
    items.to_parquet(tmp_path / "prepared" / "items.parquet", index=False)
    found = questions.recommend(folder / "model", tmp_path / "prepared", text="blue thing number 4", k=99)
    assert {row["item_id"] for row in found} == set(items["item_id"]) - {"i04", "i06"}
    assert all(np.isfinite(row["score"]) for row in found)


def test_unknown_user_gets_a_list(folder: Path, model: Recommender) -> None:
    assert len(questions.recommend(folder / "model", folder / "prepared", user="nobody", k=4)) == 4


def test_unknown_item_is_named(folder: Path, model: Recommender) -> None:
    with pytest.raises(DataError, match="zzz: no such item_id"):
        questions.recommend(folder / "model", folder / "prepared", items=["i00", "zzz"])


def test_folder_without_model_is_named(tmp_path: Path, prepared: Prepared) -> None:
    with pytest.raises(ArtifactError, match=r"model\.json"):
        Recommender.load(tmp_path, prepared.catalogue.items)


def test_damaged_folder_is_named(
    folder: Path, prepared: Prepared, model: Recommender, tmp_path: Path
) -> None:
    import shutil

    damaged = Path(shutil.copytree(folder / "model", tmp_path / "model"))
    (damaged / "networks.safetensors").write_bytes(b"half")
    with pytest.raises(ArtifactError, match="damaged"):
        Recommender.load(damaged, prepared.catalogue.items)
