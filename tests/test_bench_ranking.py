"""`evergreen bench ranking`: what a peer is given, how its lists are completed and scored, what is kept."""

import json
import math
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy_log

from pipeline.bench import _bpr, _peers, ranking
from pipeline.bench._fits import makers
from pipeline.bench._rectools_peer import cut, ndcg, unmet
from pipeline.data.histories import Prepared
from pipeline.errors import DataError
from pipeline.evaluation.tuning import frozen_order
from pipeline.params import Params

# A peer that lists a, then what follows the newest item of the history in the alphabet; never for point 2.
PEER = """
import json, sys
from pathlib import Path
import pandas as pd
folder = Path(sys.argv[1])
task = json.loads((folder / "task.json").read_text())
if task["settings"]["broken"]:
    sys.exit("no such model")
for window in ("validation", "test"):
    newest = pd.read_parquet(folder / f"{window}_histories.parquet").groupby("point")["item"].last()
    lists = [(point, rank, item, -rank) for point, last in newest.items() if point != 2
             for rank, item in ((1, 0), (2, int(last) + 1)) if item < 5]
    frame = pd.DataFrame(lists, columns=["point", "rank", "item", "score"])
    frame.sample(frac=1, random_state=0).to_parquet(folder / f"{window}_lists.parquet")
(folder / "told.json").write_text(json.dumps({"epochs": 3, "cpu_seconds": 1.5}))
"""


def world() -> Prepared:
    """Items a..e; most popular in train: b (3), then c (2), a (1), the others none but d's dislike."""
    train = [
        ("u", "b", 1),
        ("u", "a", 2),
        ("v", "b", 3),
        ("v", "c", 4),
        ("w", "b", 5),
        ("w", "c", 6),
        ("w", "d", 7),
        ("x", "b", 8),
    ]
    test = [("v", "d", 20), ("v", "e", 21), ("new", "c", 22), ("new", "d", 23)]
    return toy_log.prepared(
        list("abcde"), train, [("u", "c", 10)], test, disliked=[("w", "d", 7)], unfit=["u"]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what a peer is given of the toy world, and the peer."""
    folder = tmp_path_factory.mktemp("peer")
    (folder / "peer.py").write_text(PEER)
    _peers.write_points(folder, world(), world().validation)
    return folder


def ask(folder: Path, broken: bool = False) -> _peers.Answer:
    data, task = world(), {"model": "fake", "settings": {"broken": broken}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_peers, "SCRIPT", folder / "peer.py")
        return _peers.ask(Path(sys.executable), folder, task, data, data.validation, frozen_order(data))


def test_a_peer_gets_live_histories_and_no_target_of_test(folder: Path) -> None:
    rows = pd.read_parquet(folder / "rows.parquet")
    # Rows of u, who is left out of fitting, are not there; the dislike of w is told as one.
    assert rows["item"].tolist() == [1, 2, 1, 2, 3, 1]
    assert rows["liked"].tolist() == [True] * 4 + [False, True]
    histories = pd.read_parquet(folder / "test_histories.parquet")
    told = histories.groupby("point")["item"].apply(list).to_dict()
    assert told == {0: [1, 2], 1: [1, 2, 3], 3: [2]}  # strictly earlier rows of any window; point 2 has none
    assert [set(pd.read_parquet(path)) for path in folder.glob("test_h*")] == [{"point", "item", "liked"}]
    assert pd.read_parquet(folder / "validation.parquet")["target"].tolist() == [2]


def test_lists_are_completed_and_cut_by_the_rules_for_all(folder: Path) -> None:
    answer = ask(folder)
    letters = [["abcde"[item] for item in row if item >= 0] for row in answer.test]
    assert letters[0] == ["a", "d", "e"]  # met b, c; a and d as listed, e follows
    assert letters[1] == ["a", "e"]
    assert letters[2][:3] == ["b", "c", "a"]  # nothing listed: by popularity in train
    assert letters[3][:3] == ["a", "d", "b"]
    assert answer.told == {"epochs": 3, "cpu_seconds": 1.5}


def test_a_peer_that_fails_is_one_line(folder: Path) -> None:
    with pytest.raises(DataError, match="fake failed \\(no such model\\)"):
        ask(folder, broken=True)


def test_figures_by_hand(tmp_path: Path) -> None:
    """v: targets at ranks 2 and 2 of the peer; new: 2 and 2. The challenger always has them first."""
    data, params = world(), Params.load(Path("params.yaml"))
    bench = ranking.Bench(data, np.zeros((5, 2), np.float32), params, tmp_path)
    first = np.array([[3, 0], [4, 0], [2, 0], [3, 0]], np.int32)
    peer = first[:, ::-1]
    missed = np.array([[0, 1], [0, 1], [0, 1], [0, 1]], np.int32)
    found = {
        "ease": [ranking.Ranked(peer, 0.5, {"half_life": 1}, 7, 3.0)],
        "sasrec": [ranking.Ranked(lists, 0.5, {}, 4, 2.0) for lists in (peer, missed)],  # two seeds
        "challenger": [ranking.Ranked(first, 0.9, {}, 1, 10.0)],
    }
    result = ranking.summary([bench], found)
    second = 1 / math.log2(3)
    figures = result["figures"]
    assert list(figures) == ["challenger", "ease", "sasrec"]
    assert figures["ease"]["ndcg@10"] == pytest.approx(second)
    assert figures["sasrec"]["ndcg@10"] == pytest.approx(second / 2)  # the mean over seeds
    assert figures["sasrec"]["cpu_s"] == 4
    assert figures["sasrec"]["challenger_minus"] == pytest.approx(1 - second / 2)
    assert figures["ease"]["tried"] == 7
    assert result["ratios"]["challenger_over_best_peer"] == pytest.approx(1 / second)
    assert result["by_seed"]["sasrec"] == pytest.approx([second, 0])
    json.dumps(result, allow_nan=False)


def test_a_fit_is_kept_for_its_circumstances_alone(tmp_path: Path) -> None:
    bench = ranking.Bench(world(), np.zeros((5, 2), np.float32), Params.load(Path("params.yaml")), tmp_path)
    made = ranking.Ranked(np.zeros((4, 10), np.int32), 0.25, {"half_life": np.inf}, 3, 2.0)
    fits: list[int] = []

    def fit() -> ranking.Ranked:
        fits.append(1)
        return made

    for what in ("old", "old", "new"):
        again = bench.kept("ease", 1, what, fit)
        assert replace(again, listed=made.listed) == made
        np.testing.assert_array_equal(again.listed, made.listed)
    assert len(fits) == 2


def test_other_code_of_a_training_is_another_circumstance() -> None:
    sources = {"/".join(path.parts[-2:]) for path in makers()}
    assert {"training/recipe.py", "models/recommender.py", "data/histories.py"} <= sources


def test_baselines_are_refitted_with_other_seeds_only_where_they_have_seeds(tmp_path: Path) -> None:
    bench = ranking.Bench(world(), np.eye(5, 3, dtype=np.float32), Params.load(Path("params.yaml")), tmp_path)
    assert len(ranking.baseline(bench, "ease")) == 1
    ials = ranking.baseline(bench, "ials")
    assert [one.settings for one in ials] == [ials[0].settings] * 3
    assert ials[0].listed.shape == (4, 10)


def test_other_data_have_another_fingerprint() -> None:
    data = world()
    assert ranking.fingerprint(data) == ranking.fingerprint(world())
    assert ranking.fingerprint(data) != ranking.fingerprint(replace(data, test=data.test[:1]))


def test_bpr_finds_who_belongs_together() -> None:
    """Two groups of users and items; a new user's single item tells the group."""
    train = [
        (f"u{u}", item, u + 0.1 * n) for u in range(40) for n, item in enumerate("abc" if u % 2 else "def")
    ]
    data = toy_log.prepared(list("abcdefg"), train, [("x", "a", 50)], [("y", "a", 60), ("y", "b", 61)])
    settings = {name: values[0] for name, values in _bpr.GRID.items()}
    scorer = _bpr.bpr(data, 1)[0](settings)
    empty, one = scorer.score(data.test)
    assert np.isnan(empty).all()
    assert np.isnan(one[6])  # never in train
    assert one[1:3].min() > one[3:6].max()
    np.testing.assert_array_equal(_bpr.bpr(data, 1)[0](settings).score(data.test)[1], one)


def test_long_histories_are_cut_into_several_users() -> None:
    rows = pd.DataFrame({"user": [7, 7, 7, 9, 7, 7], "item": range(6)})
    whole = cut(rows, 2)
    assert whole.groupby("user")["item"].apply(list).tolist() == [[0, 1], [2, 4], [5], [3]]


def test_the_peers_own_ndcg_by_hand() -> None:
    points = pd.DataFrame({"point": [0, 1, 2], "user": [5, 5, 6], "target": [10, 11, 12]})
    listed = pd.DataFrame({"point": [0, 0, 1], "rank": [1, 2, 1], "item": [9, 10, 9]})
    assert ndcg(listed, points) == pytest.approx((1 / math.log2(3) / 2 + 0) / 2)


def test_a_list_skips_what_the_history_holds() -> None:
    top = pd.DataFrame({"point": 4, "rank": [1, 2, 3, 4], "item": [7, 8, 9, 10], "score": [4.0, 3, 2, 1]})
    met = pd.DataFrame({"point": [4, 5, 4], "item": [8, 7, 1]})
    assert unmet(top, met, 2)[["rank", "item"]].values.tolist() == [[1, 7], [2, 9]]


def test_an_environment_is_made_once_for_its_versions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []
    answer = types.SimpleNamespace(returncode=1, stderr="Looking\nERROR: No matching distribution found\n")

    def run(command: list[str], **_: object) -> types.SimpleNamespace:
        commands.append(command)
        return answer

    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[dependency-groups]\npeers = ["one==1"]\n')
    monkeypatch.setattr(_peers.venv, "create", lambda folder, **_: folder.mkdir(parents=True, exist_ok=True))
    monkeypatch.setattr(_peers.subprocess, "run", run)
    with pytest.raises(DataError, match=r"peers: the peers could not be installed \(ERROR: No matching"):
        _peers.environment()
    answer.returncode = 0
    assert _peers.environment() == _peers.environment()
    assert [command[-1] for command in commands] == ["one==1", "one==1"]  # the failure and the success
    (tmp_path / "pyproject.toml").write_text('[dependency-groups]\npeers = ["one==2"]\n')
    _peers.environment()
    assert commands[-1][-1] == "one==2"
