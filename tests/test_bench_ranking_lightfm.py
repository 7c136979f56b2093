"""The LightFM of `evergreen bench ranking`: features, cold items, and what happens without a compiler."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import toy_log

from pipeline.bench import _lightfm, _lightfm_peer, _peers, ranking
from pipeline.bench._factors import FactorModel
from pipeline.data.histories import Catalogue, Prepared
from pipeline.params import Params

KNOWN = np.array([True, True, True, False, False])


def catalogue() -> Catalogue:
    """a, b and c are in train; d shares a category and a word with them, e nothing."""
    return toy_log.catalogue(
        list("abcde"),
        categories=[["x", "y"], ["x"], [], ["x", "z"], ["z"]],
        title=["Red Fox, red", "red car", None, "RED ant", ""],
    )


class FakeLightFM:
    """Its embeddings are the numbers of the features (and epochs for biases); it notes what it was given."""

    made: list["FakeLightFM"] = []  # noqa: RUF012

    def __init__(self, **settings: Any) -> None:
        self.settings, self.epochs = settings, 0
        self.fitted: list[tuple[int, ...]] = []
        FakeLightFM.made.append(self)

    def fit_partial(self, matrix: sp.csr_matrix, item_features: sp.csr_matrix, epochs: int, **_: int) -> None:
        self.fitted.append((*matrix.shape, *item_features.shape))
        self.users, self.width = matrix.shape[0], item_features.shape[1]
        self.epochs += epochs

    def get_item_representations(self, features: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        return np.full(features.shape[0], self.epochs), features.toarray()

    def get_user_representations(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(self.users), np.ones((self.users, self.width))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[FakeLightFM]:
    """The peer's own script in this process, with a LightFM that needs no compiler."""
    FakeLightFM.made = []
    monkeypatch.setitem(sys.modules, "lightfm", types.SimpleNamespace(LightFM=FakeLightFM))
    monkeypatch.setattr(_peers, "run", lambda python, script, folder, name: _lightfm_peer.main(folder))
    return FakeLightFM.made


def data() -> Prepared:
    train = [("u", "a", 1), ("v", "b", 2), ("v", "c", 3)]
    return toy_log.prepared(catalogue(), train, [("u", "b", 5)], [("new", "a", 9), ("new", "d", 10)])


def test_features_by_hand() -> None:
    ids = np.eye(5, 3)
    none = _lightfm.feature_matrix(catalogue(), KNOWN, "none").toarray()
    np.testing.assert_array_equal(none, ids)
    # x is what two of train's items have; y and z say nothing that the item itself does not say
    categories = _lightfm.feature_matrix(catalogue(), KNOWN, "categories").toarray()
    np.testing.assert_array_equal(categories, np.hstack([ids, [[1], [1], [0], [1], [0]]]))
    words = _lightfm.feature_matrix(catalogue(), KNOWN, "words").toarray()
    np.testing.assert_array_equal(words[:, 3:], [[1, 1], [1, 1], [0, 0], [1, 1], [0, 0]])


def test_without_columns_there_are_items_alone() -> None:
    bare = toy_log.catalogue(list("abcde"))
    np.testing.assert_array_equal(_lightfm.feature_matrix(bare, KNOWN, "words").toarray(), np.eye(5, 3))


def test_cold_items_are_no_negatives_but_are_scored_by_what_they_share(fake: list[FakeLightFM]) -> None:
    build, grid = _lightfm.lightfm(data(), 7)
    settings = {name: values[0] for name, values in grid.items()} | {"features": "categories"}
    empty, told = build(settings).score(data().test)
    assert np.isnan(empty).all()  # no history
    assert np.isfinite(told[:4]).all()
    assert np.isnan(told[4])  # neither in train nor with anything that train's items have
    (model,) = fake
    assert model.settings["random_state"] == 7
    assert model.settings["loss"] == "warp"
    assert set(model.fitted) == {(2, 3, 3, 4)}  # users without rows and items without any are not there


def test_one_fit_gives_all_numbers_of_epochs(fake: list[FakeLightFM]) -> None:
    build, grid = _lightfm.lightfm(data(), 7)
    settings = {name: values[0] for name, values in grid.items()}
    scores = {
        epochs: build(settings | {"epochs": epochs}).score(data().test)[1, 0] for epochs in grid["epochs"]
    }
    assert len(fake) == 1
    for epochs in grid["epochs"]:  # the fake's biases are the epochs that it was fitted
        assert scores[epochs] - scores[10] == pytest.approx(epochs - 10, abs=1e-4)


def test_a_new_user_gets_the_vector_of_those_with_such_a_history() -> None:
    matrix = sp.csr_matrix(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32))
    users = np.array([[2.0, 0], [0, -3], [99, 99]])  # the last has no row: unread
    known = np.array([True, True, False])
    model = FactorModel.of(matrix, users, np.eye(3, 2), np.array([0, 0.5, 9]), known)
    scores = model.score(matrix)
    np.testing.assert_allclose(scores[:2, :2], [[2, 0.5], [0, -2.5]], atol=0.02)
    assert np.isnan(scores[:, 2]).all()
    assert np.isnan(scores[2]).all()


@pytest.mark.parametrize(
    "cause",
    [
        "error: [Errno 2] No such file or directory: 'gcc'",
        "error: command 'gcc' failed: No such file or directory",
        "lightfm.c:30:10: fatal error: Python.h: No such file or directory",
    ],
)
def test_without_a_compiler_the_others_rank(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cause: str
) -> None:
    complaint = f"""
        error: subprocess-exited-with-error
              creating build/temp
              {cause}
        ERROR: Failed building wheel for rectools-lightfm"""
    answer = types.SimpleNamespace(returncode=1, stderr=complaint)
    monkeypatch.chdir(tmp_path)
    (tmp_path / _peers.FOLDER).mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[dependency-groups]\npeers-compiled = ["one==1"]\n')
    monkeypatch.setattr(_peers.subprocess, "run", lambda command, **_: answer)
    reason = _peers.compiled()
    assert reason is not None
    assert reason.startswith(f"one==1 could not be built ({cause}): install a C compiler")
    assert "\n" not in reason
    answer.returncode = 0  # with a compiler the next run builds it
    assert _peers.compiled() is None
    answer.returncode = 1  # and those after it do not ask
    assert _peers.compiled() is None


def test_what_is_missing_is_said_and_nothing_is_made_of_it(tmp_path: Path) -> None:
    bench = ranking.Bench(data(), np.zeros((5, 2), np.float32), Params.load(Path("params.yaml")), tmp_path)
    with_, without = (
        {name for name, *_ in ranking.everything([bench], Path(), gone)}
        for gone in ({}, {"lightfm": "no gcc"})
    )
    assert with_ - without == {"lightfm"}
    lists = np.array([[0, 3], [3, 0]], np.int32)
    found = {name: [ranking.Ranked(lists, 0.5, {}, 1, 1.0)] for name in ("ease", "challenger")}
    assert ranking.summary([bench], found, {"lightfm": "no gcc"})["findings"][1:] == [
        "without lightfm: no gcc"
    ]
