"""`evergreen bench ranking` where test users are few: several windows, none of which knows a later one."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import toy_log

from pipeline.bench import _peers, _windows, ranking
from pipeline.bench._fits import Bench, Ranked, fingerprint
from pipeline.data import tables
from pipeline.data.histories import TEST, Prepared
from pipeline.params import Params

pytestmark = pytest.mark.slow

WINDOWS = 3  # instead of five: each is prepared


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw data set of 30 users: some items have tags, one is on offer early, but nobody takes it."""
    folder = tmp_path_factory.mktemp("world")
    tiny.raw(folder / "raw")
    tiny.params(folder / "params.yaml", tiny.encoder(folder / "encoder"))
    items = tables.read_parquet(folder / "raw" / "items.parquet")
    early, late = (pd.Timestamp(f"2020-01-0{day}", tz="UTC") for day in (1, 9))
    items["tags"] = [["early", "late"] if place < 5 else [] for place in range(len(items))]
    items["tag_times"] = [[early, late] if place < 5 else [] for place in range(len(items))]
    unasked = items.iloc[:2].assign(item_id=["offered", "unknown"], available_from=[early, pd.NaT])
    tables.write_parquet(pd.concat([items, unasked], ignore_index=True), folder / "raw" / "items.parquet")
    return folder


def load(world: Path, raw: Path) -> list[Prepared]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        patch.setattr(_windows, "WINDOWS", WINDOWS)
        loaded = _windows.load_windows(raw, Params.load(Path("params.yaml")))
    for window, vectors in loaded:
        assert vectors.shape[0] == len(window.catalogue)
        assert vectors.any(axis=1).all()
        assert vectors.shape[1] == loaded[-1][1].shape[1]
    return [window for window, _ in loaded]


@pytest.fixture(scope="module")
def windows(world: Path) -> list[Prepared]:
    return load(world, world / "raw")


def test_windows_follow_each_other_up_to_the_newest_row(world: Path, windows: list[Prepared]) -> None:
    times = np.sort(windows[-1].log.time)
    assert len(times) == len(tables.read_parquet(world / "raw" / "interactions"))
    tests = [np.sort(window.log.time[window.log.window == TEST]) for window in windows]
    covered = np.concatenate(tests)
    assert len(tests) == WINDOWS
    np.testing.assert_array_equal(covered, times[-len(covered) :])  # without a gap, none of them twice
    for older, newer in pairwise(windows):
        assert len(older.log) == (newer.log.window != TEST).sum()
    told = _windows.conditions(windows)
    assert told["windows"] == WINDOWS
    assert [pd.Timestamp(one["from"]).value // 1000 for one in told["test_windows"]] == [x[0] for x in tests]
    assert [one["points"] for one in told["test_windows"]] == [len(window.test) for window in windows]
    assert _windows.conditions(windows[-1:]) == {}


def test_nothing_of_a_later_window_reaches_an_earlier_one(
    world: Path, windows: list[Prepared], tmp_path: Path
) -> None:
    """All that the newest test window tells is changed: users, items (one of them new), values, tags."""
    raw, beside = tmp_path / "data" / "raw", tmp_path / "models" / "ablations"
    shutil.copytree(world / "raw", raw)
    beside.mkdir(parents=True)
    np.save(beside / "frozen_vectors.npy", np.ones((tiny.ITEMS + 3, 3)))  # another encoder's: not mixed
    newest = windows[-1].log
    start = newest.time[newest.window == TEST].min()
    file = raw / "interactions" / "month=2020-01" / "part-0.parquet"
    rows = pd.read_parquet(file)
    later = rows[tables.TIME].astype("int64") >= start
    rows.loc[later, tables.USER] = "x" + rows.loc[later, tables.USER]
    rows.loc[later, tables.ITEM] = ["i00", "brand new"] * (later.sum() // 2) + ["i01"] * (later.sum() % 2)
    rows.loc[later, tables.VALUE] = 1.0
    tables.write_parquet(rows, file)
    items = tables.read_parquet(raw / "items.parquet")
    moment = pd.Timestamp(start, unit="us", tz="UTC")
    items["tags"] = [[*tags, "told later"] for tags in items["tags"]]
    items["tag_times"] = [[*times, moment] for times in items["tag_times"]]
    new = items.iloc[:1].assign(item_id="brand new", title="Brand new")
    tables.write_parquet(pd.concat([items, new], ignore_index=True), raw / "items.parquet")
    changed = load(world, raw)
    assert fingerprint(changed[-1]) != fingerprint(windows[-1])
    for before, after in zip(windows[:-1], changed[:-1], strict=True):
        assert fingerprint(before) == fingerprint(after)
        assert before.user_ids.tolist() == after.user_ids.tolist()
        without_tags = [
            window.catalogue.items.drop(columns=["tags", "tag_times"]) for window in (before, after)
        ]
        pd.testing.assert_frame_equal(*without_tags)  # item_text among them


def test_an_item_is_there_once_it_was_taken_or_on_offer(windows: list[Prepared]) -> None:
    for window in windows:
        taken = set(window.catalogue.ids[np.unique(window.log.item)])
        unasked = {"offered", "unknown"} if window is windows[-1] else {"offered"}
        assert set(window.catalogue.ids) - taken - {f"i{n:02}" for n in range(tiny.ITEMS)} == unasked


def test_points_of_all_windows_keep_user_item_and_history(windows: list[Prepared]) -> None:
    whole, points = windows[-1], _windows.points(windows)
    user = np.concatenate([window.user_ids[window.test.user] for window in windows])
    item = np.concatenate([window.catalogue.ids[window.test.target] for window in windows])
    assert whole.user_ids[points.user].tolist() == user.tolist()
    assert whole.catalogue.ids[points.target].tolist() == item.tolist()
    assert points.lengths.tolist() == np.concatenate([window.test.lengths for window in windows]).tolist()
    assert len(np.unique(user)) < sum(len(np.unique(window.test.user)) for window in windows)
    alone = _windows.points(windows[-1:])
    for name in ("user", "target", "time", "start", "stop"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(whole.test, name))


def two_windows() -> list[Prepared]:
    """Of the older u takes b and v d; of the newer u takes a and d, and a new user, first of all by name, d.

    Items and users of the older have other places in the newer.
    """
    train = [("u", "c", 1), ("v", "b", 2), ("x", "b", 3)]
    older = toy_log.prepared(list("bcd"), train, [("x", "c", 5)], [("u", "b", 10), ("v", "d", 11)])
    train += [("x", "c", 5), ("u", "b", 10), ("v", "d", 11)]
    test = [("u", "a", 20), ("u", "d", 21), ("new", "d", 22)]
    return [older, toy_log.prepared(list("abcd"), train, [("x", "d", 15)], test)]


def test_figures_over_windows_by_hand(tmp_path: Path) -> None:
    windows, params = two_windows(), Params.load(Path("params.yaml"))
    benches = [Bench(window, np.zeros((5, 2), np.float32), params, tmp_path) for window in windows]
    first = [window.test.target[:, None] for window in windows]
    # The peer has b of u in the older window, and d of the new one in the newer; -1 ends a list.
    peer = [np.array([[0], [-1]], np.int32), np.array([[1], [-1], [3]], np.int32)]
    missed = [np.full_like(lists, -1) for lists in peer]

    def fits(of: list[list[np.ndarray]], settings: list[dict[str, Any]]) -> list[Ranked]:
        """`of`: one entry a seed, of the lists in each window."""
        by_window = [
            [Ranked(seed[number], 0.1 * (number + 1), settings[number], 2 + number, 1.5) for seed in of]
            for number in range(2)
        ]
        return _windows.pooled(windows, by_window)

    found = {
        "ease": fits([peer], [{"half_life": 1}, {"half_life": 2}]),
        "bpr": fits([peer, missed], [{}, {}]),
        "challenger": fits([first], [{}, {}]),
    }
    told = ranking.summary(benches, found)
    json.dumps(told, allow_nan=False)
    # u has one of three points, v none of one, the new one one of one: each is one user.
    assert told["figures"]["ease"]["ndcg@10"] == pytest.approx((1 / 3 + 0 + 1) / 3)
    assert told["figures"]["ease"]["challenger_minus"] == pytest.approx(1 - 4 / 9)
    assert told["figures"]["challenger"]["ndcg@10"] == 1
    assert told["by_seed"]["bpr"] == pytest.approx([4 / 9, 0])
    assert told["figures"]["ease"]["validation"] == pytest.approx(0.15)  # the mean over windows
    assert (told["figures"]["ease"]["tried"], told["figures"]["ease"]["cpu_s"]) == (5, 3)
    conditions = told["conditions"]
    assert (conditions["users"], conditions["test_points"], conditions["windows"]) == (3, 5, 2)
    assert [(one["users"], one["points"]) for one in conditions["test_windows"]] == [(2, 2), (2, 3)]
    assert conditions["settings"] == {"ease": {"window_1": {"half_life": 1}, "window_2": {"half_life": 2}}}
    # d is cold for v in the older window, and known in the newer; a is cold there: u and v, none found.
    assert _windows.slices(windows)["cold_items"].tolist() == [False, True, True, False, False]
    assert told["slices"]["cold_items"]["ease"]["ndcg@10"] == 0


@pytest.fixture
def asked(world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, int]]:
    """(model, rows of the window) of every fit, none of which is one."""
    calls: list[tuple[str, int]] = []

    def fit(bench: Bench, name: str = "challenger", python: Path | None = None) -> list[Ranked]:
        calls.append((name, len(bench.prepared.log)))
        assert bench.folder.is_dir()
        return [Ranked(np.full((len(bench.prepared.test), 10), -1, np.int32), float("nan"), {}, 1, 1.0)]

    for name in ("baseline", "sequence", "challenger"):
        monkeypatch.setattr(ranking, name, fit)
    monkeypatch.setattr(_peers, "environment", Path)
    monkeypatch.setattr(_peers, "compiled", lambda: "no gcc")
    shutil.copy(world / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return calls


def test_cheap_models_of_all_windows_come_first(
    windows: list[Prepared], asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = [(window, np.ones((len(window.catalogue), 2))) for window in windows]
    monkeypatch.setattr(_windows, "load_windows", lambda data, params: loaded)
    told = ranking.run()
    json.dumps(told, allow_nan=False)
    slowest = [name for name in ("challenger", "sasrec", "bert4rec") for _ in windows]
    assert [name for name, _ in asked][-len(slowest) :] == slowest
    assert {"ease", "bpr"} < {name for name, _ in asked}
    sizes = [len(window.log) for window in windows]
    assert [rows for _, rows in asked] == sizes * (len(asked) // len(windows))
    assert told["conditions"]["test_points"] == sum(len(window.test) for window in windows)
    assert told["findings"][1:] == ["without lightfm: no gcc"]
    folders = {fingerprint(window) for window in windows}
    assert {folder.name for folder in ranking.FOLDER.iterdir()} == folders


def test_prepared_data_are_one_window_and_say_so(
    windows: list[Prepared], asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_windows, "load", lambda folder: (windows[-1], np.ones((26, 2))))
    (tmp_path / "train.parquet").touch()
    told = ranking.run(tmp_path)
    assert len(asked) == len({name for name, _ in asked})
    assert "windows" not in told["conditions"]
    users = told["conditions"]["users"]
    assert told["findings"][-1].startswith(
        f"only {users} test users: of raw data (--data data/raw) the last 5"
    )


def test_with_enough_users_raw_data_are_one_window(
    windows: list[Prepared], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = (windows[-1], np.ones((26, 2)))
    monkeypatch.setattr(_windows, "load", lambda folder: whole)
    monkeypatch.setattr(_windows, "FEWEST_USERS", len(np.unique(windows[-1].test.user)))
    assert _windows.load_windows(tmp_path, Params.load(Path("params.yaml"))) == [whole]
    assert _windows.advice(tmp_path, windows[-1:]) == []


def test_so_many_windows_as_the_rows_make(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of four rows the newest is a window; of the three before it nothing is left to train on."""
    shutil.copytree(world / "raw", tmp_path / "raw")
    file = tmp_path / "raw" / "interactions" / "month=2020-01" / "part-0.parquet"
    tables.write_parquet(pd.read_parquet(file).iloc[:4], file)
    (window,) = load(world, tmp_path / "raw")
    assert len(window.log) == 4
    assert "windows: 1 instead of 3; before them preprocess.min_user_interactions" in caplog.text


def test_a_sequence_model_finds_what_it_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    window = two_windows()[0]
    bench = Bench(window, np.zeros((3, 2), np.float32), Params.load(Path("params.yaml")), tmp_path)

    def ask(python: Path, folder: Path, task: Any, prepared: Prepared, validation: Any, order: Any) -> Any:
        assert (folder / "test_histories.parquet").exists()
        right = validation.target[:, None] if task["settings"]["n_factors"] == 128 else np.array([[-1]])
        return _peers.Answer(right, window.test.target[:, None], {"epochs": 3, "cpu_seconds": 1.0})

    monkeypatch.setattr(_peers, "ask", ask)
    found = ranking.sequence(bench, "sasrec", Path("python"))
    assert [one.settings["n_factors"] for one in found] == [128] * ranking.SEEDS
    assert [one.validation for one in found] == [1.0] * ranking.SEEDS
