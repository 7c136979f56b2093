"""Rounded vectors kept from one start of a service to the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.models import nearest


@pytest.fixture
def vectors(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setattr(nearest, "EXACT", 500)
    return np.random.default_rng(0).normal(size=(1000, 7)).astype(np.float32)


def searched(vectors: np.ndarray) -> nearest.Nearest:
    return nearest.Nearest(vectors, np.arange(len(vectors)) % 5 > 0)


def unmade(*_: object) -> None:
    raise AssertionError("made anew")


def test_what_was_kept_is_read_and_finds_the_same(
    vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = nearest.Nearest(vectors[:50], np.ones(50, bool))
    nearest.kept_in(tmp_path / "kept", [made := searched(vectors), small])
    assert len(list((tmp_path / "kept").iterdir())) == 1
    monkeypatch.setattr(nearest.Rounded, "made", unmade)
    nearest.kept_in(tmp_path / "kept", [again := searched(vectors.copy())])
    for points in (1, 20):
        users = np.random.default_rng(1).normal(size=(points, 7)).astype(np.float32)
        np.testing.assert_array_equal(again.best(users, 9), made.best(users, 9))


@pytest.mark.parametrize("file", [nearest.INDEX, nearest.TOLD])
def test_what_cannot_be_read_is_made_anew(vectors: np.ndarray, tmp_path: Path, file: str) -> None:
    nearest.kept_in(tmp_path, [made := searched(vectors)])
    (kept,) = tmp_path.iterdir()
    whole = (kept / file).read_bytes()
    (kept / file).write_bytes(whole[: len(whole) // 2])
    nearest.kept_in(tmp_path, [again := searched(vectors)])
    users = vectors[:3]
    np.testing.assert_array_equal(again.best(users, 9), made.best(users, 9))
    assert (kept / file).read_bytes() == whole
    assert list(tmp_path.iterdir()) == [kept]


def test_other_vectors_are_rounded_anew_and_the_old_ones_go(vectors: np.ndarray, tmp_path: Path) -> None:
    nearest.kept_in(tmp_path, [searched(vectors)])
    (before,) = tmp_path.iterdir()
    nearest.kept_in(tmp_path, [searched(vectors + 1)])
    (after,) = tmp_path.iterdir()
    assert after != before


def test_where_nothing_can_be_written_lists_are_made_all_the_same(
    vectors: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("a file, no folder")
    nearest.kept_in(tmp_path / "kept", [search := searched(vectors)])
    assert (search.best(vectors[:3], 9) >= 0).all()
