"""Features worked out by hand; they see train alone."""

from typing import Any

import numpy as np
import pytest
from small_data import Prepared, rows, ten_days, write_params, write_raw

from pipeline.stages.preprocess import main

FEATURE_ROWS = rows(
    ("u", "a", 0, "view", 1.0), ("u", "b", 1, "view", None), ("u", "a", 10, "buy", 3.0),
    ("w", "a", 10, "view", 4.0), ("w", "b", 100, "view", 4.0), ("w", "c", 99, "view", 4.0),
    *(("u", str(n), n) for n in range(101, 105)),
)  # fmt: skip


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("features")
    main(write_raw(folder / "raw", FEATURE_ROWS), folder / "prepared", write_params(folder / "params.yaml"))
    return Prepared(folder / "prepared")


def test_item_features(features: Prepared) -> None:
    table = features["item_features"].set_index("item_id")
    assert table.index.tolist() == ["a", "b", "c"]
    assert (table.dtypes == np.float64).all()
    item = table.loc["a"]
    assert (item["interactions"], item["users"], item["event_view"], item["event_buy"]) == (3, 2, 2, 1)
    assert item["log_interactions"] == pytest.approx(np.log(4))
    assert item["value_mean"] == pytest.approx(8 / 3)
    assert item["positive_share"] == pytest.approx(1 / 3)  # min_value 4: 4 of 1, 3, 4
    assert (item["recency_days"], item["age_days"]) == (90, 100)
    last = [f"interactions_last_{percent}_percent" for percent in (1, 5, 20)]
    assert table[last].to_numpy().tolist() == [[0, 0, 0], [1, 1, 1], [0, 1, 1]]
    squeezed = np.log1p([1, 4, 4, 4])  # the views of train that have a value
    z = (squeezed - squeezed.mean()) / squeezed.std()
    assert item["value_z_view"] == pytest.approx(z[:2].mean())
    assert item["value_z_buy"] == 0  # one value only
    assert item["value_z"] == pytest.approx((z[0] + z[1] + 0) / 3)


def test_user_features(features: Prepared) -> None:
    table = features["user_features"].set_index("user_id")
    assert (table.dtypes == np.float64).all()
    user = table.loc["u"]
    assert (user["interactions"], user["active_days"]) == (3, 3)
    assert (user["event_view"], user["event_buy"]) == (2, 1)
    assert user["value_mean"] == pytest.approx(2)
    assert user["value_std"] == pytest.approx(np.sqrt(2))
    assert (user["recency_days"], user["age_days"]) == (90, 100)
    assert table.loc["w", "value_std"] == 0


def test_features_do_not_see_later_rows(features: Prepared, prepare: Any) -> None:
    changed = FEATURE_ROWS.copy()
    changed.loc[6:, ["user_id", "event", "value"]] = ["z", "buy", 1000.0]
    prepared = prepare(changed)
    assert len(prepared["train"]) == 6
    for name in ("item_features.parquet", "user_features.parquet"):
        assert (prepared.folder / name).read_bytes() == (features.folder / name).read_bytes()


def test_extreme_values_and_odd_events_do_not_break_features(prepare: Any) -> None:
    events = ["Add to cart", "add-to-cart", "!", "加入", "Add to cart", "", *["!"] * 4]
    values = [0.0, -5.0, 1e300, float("inf"), 7.0, None, 5.0, 5.0, 5.0, 5.0]
    user = (
        prepare(ten_days(event=events, value=values))["user_features"].iloc[0].drop("user_id").astype(float)
    )
    assert np.isfinite(user.dropna()).all()
    assert user.index[user.isna()].tolist() == ["value_z_other", "value_z_other_2", "value_z_加入"]
    assert [name for name in user.index if name.startswith("event_")] == [
        "event_add_to_cart", "event_other", "event_other_2", "event_add_to_cart_2", "event_加入",
    ]  # fmt: skip
