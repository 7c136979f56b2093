"""Hand-made tables whose split, points and features are worked out by hand."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline import tables as t
from pipeline.errors import ConfigError, DataError
from pipeline.items import complete, count_items, parse_template, with_text
from pipeline.splitting import find_cuts
from pipeline.stages.preprocess import main

START = datetime(2020, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DEFAULT = "{title} ({year}). {categories}. {description} {tags}"
FILES = ("train", "validation", "test_interactions")


def rows(*cells: tuple[Any, ...]) -> pd.DataFrame:
    """(user, item, day[, event[, value]]) -> interactions."""
    filled = [(*cell, *("rating", 5.0)[len(cell) - 3 :]) for cell in cells]
    frame = pd.DataFrame(filled, columns=["user_id", "item_id", "timestamp", "event", "value"])
    frame["timestamp"] = pd.to_datetime([START + day * DAY for day in frame["timestamp"]]).astype(t.MOMENT)
    return frame.assign(text=pd.Series([None] * len(frame), dtype="str"))


def catalogue(ids: list[str], **columns: Any) -> pd.DataFrame:
    never = pd.Series([pd.NaT] * len(ids), dtype=t.MOMENT)
    empty = pd.Series([None] * len(ids), dtype="str")
    frame = pd.DataFrame({"item_id": ids, "title": [f"Item {name}" for name in ids], "text": empty})
    frame = frame.assign(categories=[[] for _ in ids], available_from=never, available_until=never)
    return frame.assign(**columns)


def write_raw(folder: Path, interactions: pd.DataFrame, items: pd.DataFrame | None = None) -> Path:
    if items is None:
        items = catalogue(sorted(set(interactions["item_id"])))
    shutil.rmtree(folder, ignore_errors=True)
    for month, part in interactions.groupby(interactions["timestamp"].dt.strftime("%Y-%m")):
        t.write_parquet(
            part.reset_index(drop=True), folder / "interactions" / f"month={month}" / "part-0.parquet"
        )
    t.write_parquet(items, folder / "items.parquet")
    manifest = {"as_of": "2020-12-31T00:00:00+00:00", "content_hash": "0123"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write_params(path: Path, seed: int = 17, **preprocess: Any) -> Path:
    content = yaml.safe_load(Path("params.yaml").read_text())
    small = {"min_user_interactions": 1, "validation_share": 0.2, "test_share": 0.2}
    content["seed"], content["preprocess"] = seed, content["preprocess"] | small | preprocess
    path.write_text(yaml.safe_dump(content))
    return path


class Prepared:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.summary = json.loads((folder / "summary.json").read_text())

    def __getitem__(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.folder / f"{name}.parquet")

    def pairs(self, name: str) -> list[tuple[str, str]]:
        return list(self[name][["user_id", "item_id"]].itertuples(index=False, name=None))


@pytest.fixture
def prepare(tmp_path: Path) -> Any:
    """prepare(interactions, items=None, **settings) runs the stage on a folder of its own."""

    def run(interactions: pd.DataFrame, items: pd.DataFrame | None = None, **settings: Any) -> Prepared:
        raw = write_raw(tmp_path / "raw", interactions, items)
        main(raw, tmp_path / "prepared", write_params(tmp_path / "params.yaml", **settings))
        return Prepared(tmp_path / "prepared")

    return run


def ten_days(**changes: Any) -> pd.DataFrame:
    """One user, items 0 to 9 on days 0 to 9: train 0-5, validation 6-7, test 8-9 (shares .6, .2, .2)."""
    frame = rows(*(("u", str(day), day) for day in range(10)))
    return frame.assign(**changes)


def test_shares_count_interactions(prepare: Any) -> None:
    prepared = prepare(ten_days())
    assert [prepared[name]["item_id"].tolist() for name in FILES] == [list("012345"), list("67"), list("89")]
    assert prepared.pairs("validation_points") == [("u", "6"), ("u", "7")]
    assert prepared.pairs("test") == [("u", "8"), ("u", "9")]


def cut(days: list[float], validation: float = 0.2, test: float = 0.2) -> tuple[int, int, int]:
    """Rows of the three windows."""
    moments = pd.Series([START + day * DAY for day in days], dtype=t.MOMENT)
    by_time = moments.value_counts().rename_axis("timestamp").reset_index(name="rows")
    cuts = find_cuts(by_time, validation, test)
    assert {cuts.validation, cuts.test} <= set(moments)
    train, later = int((moments < cuts.validation).sum()), int((moments >= cuts.test).sum())
    return train, len(days) - train - later, later


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ([0, 1, 2, 3, 4, 6, 6, 7, 8, 9], (5, 3, 2)),  # 6 wanted: 5 and 7 are as near, the earlier wins
        ([0, 1, 2, 5, 5, 5, 5, 7, 8, 9], (7, 1, 2)),  # 6 wanted: 7 is nearer than 3
        ([0, 1, 6, 6, 6, 6, 6, 6, 6, 9], (2, 7, 1)),  # the tie covers both cuts: no window is empty
        ([0, 6, 6, 6, 6, 6, 6, 6, 6, 9], (1, 8, 1)),
        ([0, 0, 0, 0, 0, 0, 0, 0, 1, 2], (8, 1, 1)),
        ([0, 1, 2, 2, 2, 2, 2, 2, 2, 2], (1, 1, 8)),
        ([n / 86_400_000_000 for n in range(10)], (6, 2, 2)),  # a microsecond is enough
    ],
)
def test_equal_timestamps_never_straddle_a_cut(days: list[float], expected: tuple[int, ...]) -> None:
    assert cut(days) == expected


@given(st.lists(st.integers(0, 30), min_size=3), st.floats(0.01, 0.49), st.floats(0.01, 0.49))
@settings(max_examples=50, deadline=None)
def test_no_window_is_ever_empty(days: list[int], validation: float, test: float) -> None:
    assume(len(set(days)) > 2)
    assert min(cut(days, validation, test)) > 0


@pytest.mark.parametrize(
    ("days", "found"), [([3] * 9, "all timestamps are equal"), ([1, 2] * 5, "only 2 different")]
)
def test_too_few_timestamps(days: list[int], found: str) -> None:
    with pytest.raises(DataError, match=f"column timestamp: {found}.*at least 3 are needed: check that"):
        cut(days)


def test_ties_are_in_an_order_that_tells_nothing(prepare: Any) -> None:
    ids = [f"{n:03d}" for n in range(60)]
    tied = rows(*(("u", name, 0) for name in ids), *(("u", f"v{n}", 1 + n) for n in range(40)))
    order = prepare(tied)["train"]["item_id"].tolist()
    assert sorted(order) == ids
    assert order != ids
    assert abs(np.corrcoef([int(name) for name in order], range(60))[0, 1]) < 0.3  # decided by the salt


def test_the_order_of_the_source_does_not_matter(prepare: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    cells = [
        (f"u{n % 9}", str(n % 40), int(n // 5), ["view", "buy"][n % 2], float(random.normal(20, 9)))
        for n in range(400)
    ]
    frame = rows(*cells)
    first = prepare(frame).folder.rename(tmp_path / "first")
    second = prepare(frame.sample(frac=1, random_state=3)).folder
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    assert len(names) == 9
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_raw_columns_are_kept(prepare: Any) -> None:
    frame = ten_days(price=[float(n) for n in range(10)], fit="their own", text="said so", user_id="007")
    train = prepare(frame)["train"]
    assert train["user_id"].unique().tolist() == ["007"]
    assert train["price"].tolist() == [0, 1, 2, 3, 4, 5]
    assert train["fit_raw"].unique().tolist() == ["their own"]
    assert train["fit"].dtype == bool
    assert set(train.columns) == {*t.INTERACTIONS, "price", "fit_raw", "fit", "positive"}
    assert train["timestamp"].dtype == t.MOMENT


def test_fit_counts_the_rows_in_train_alone(prepare: Any) -> None:
    frame = rows(
        *(("often", str(n), n) for n in range(4)),
        *(("seldom", str(n), n) for n in range(2)),
        ("seldom", "7", 7), ("new", "7", 7), ("often", "9", 8), ("seldom", "9", 9),
    )  # fmt: skip
    prepared = prepare(frame, min_user_interactions=3)
    fit = pd.concat([prepared[name] for name in FILES]).groupby("user_id")["fit"].unique().map(list).to_dict()
    assert fit == {"often": [True], "seldom": [False], "new": [False]}
    train = prepared.summary["windows"]["train"]
    assert (train["users"], train["users_not_fit"], train["rows_not_fit"]) == (2, 1, 2)


def test_positive_by_event_and_value(prepare: Any) -> None:
    cells = [("view", None), ("buy", 3.0), ("buy", 5.0), ("buy", None), ("view", 5.0), ("buy", float("nan"))]
    frame = rows(
        *(("u", str(n), n, *cell) for n, cell in enumerate(cells)),
        ("u", "6", 6, "buy", 4.0), ("u", "7", 7, "view", 4.0),
        ("u", "8", 8, "buy", 9.0), ("u", "9", 9, "buy", 1.0),
    )  # fmt: skip
    prepared = prepare(frame, positive={"events": ["buy"], "min_value": 4})
    assert prepared["train"]["positive"].tolist() == [False, False, True, True, False, True]
    assert prepared["test_interactions"]["positive"].tolist() == [True, False]
    assert prepared.pairs("validation_points") == [("u", "6")]
    assert prepared.summary["windows"]["train"]["positive"] == 3


POINT_ROWS = rows(
    *(("u", str(n), n) for n in range(6)),
    *(("w", str(n), n) for n in range(6)),
    ("u", "10", 6, "rating", 1.0),  # no success, but it enters the history
    ("u", "11", 6), ("u", "11", 6, "view"),  # one moment, two events
    ("w", "0", 7),  # repeat: since train
    ("u", "10", 8),  # repeat: since validation, though that was no success
    ("u", "12", 8), ("u", "12", 9),  # the second is a repeat within the window
    ("w", "13", 9), ("w", "14", 9, "rating", 2.0),
)  # fmt: skip


def test_points_are_new_successes(prepare: Any) -> None:
    prepared = prepare(POINT_ROWS)
    assert [len(prepared[name]) for name in FILES] == [12, 4, 5]
    assert prepared.pairs("validation_points") == [("u", "11")]
    assert sorted(prepared.pairs("test")) == [("u", "12"), ("w", "13")]
    validation, test = (prepared.summary["points"][name] for name in ("validation", "test"))
    assert {key: validation[key] for key in ("positive", "points", "repeats", "same_moment")} == {
        "positive": 3, "points": 1, "repeats": 1, "same_moment": 1,
    }  # fmt: skip
    assert {key: test[key] for key in ("positive", "points", "repeats", "same_moment")} == {
        "positive": 4, "points": 2, "repeats": 2, "same_moment": 0,
    }  # fmt: skip


def test_points_follow_from_the_windows(prepare: Any) -> None:
    """The rule of the contract once more, in another way."""
    random = np.random.default_rng(4)
    cells = [
        (
            f"u{random.integers(12)}",
            str(random.integers(30)),
            int(random.integers(50)),
            "rating",
            float(value),
        )
        for value in random.integers(1, 6, 500)
    ]
    prepared = prepare(
        rows(*cells).drop_duplicates(["user_id", "item_id", "timestamp"]), max_points_per_user=500
    )
    everything = pd.concat([prepared[name] for name in FILES])
    train, validation, test = (prepared[name]["timestamp"] for name in FILES)
    assert train.max() < validation.min() <= validation.max() < test.min()
    assert everything["timestamp"].is_monotonic_increasing
    for window, name in (("validation", "validation_points"), ("test_interactions", "test")):
        expected = set()
        for row in prepared[window].itertuples():
            history = everything[
                (everything["user_id"] == row.user_id) & (everything["timestamp"] < row.timestamp)
            ]
            if row.value >= 4 and row.item_id not in set(history["item_id"]):
                expected.add((row.user_id, row.item_id, row.timestamp))
        points = prepared[name]
        assert set(points[["user_id", "item_id", "timestamp"]].itertuples(index=False, name=None)) == expected
        assert len(points) == len(expected) > 5
        assert points["point_id"].is_unique
        assert points["point_id"].str.fullmatch("[0-9a-f]{16}").all()
        assert points.equals(points.sort_values(["timestamp", "point_id"], ignore_index=True))


def test_points_per_user_are_capped_by_a_draw(prepare: Any) -> None:
    late = [("u", f"n{n}", 8 + n / 100) for n in range(30)] + [("w", "x", 9)]
    frame = rows(
        *(("u", str(n), n / 100) for n in range(60)), *(("u", f"v{n}", 5 + n) for n in (0, 1)), *late
    )
    shares = {"validation_share": 0.02, "test_share": 31 / 93}
    free = prepare(frame, **shares, max_points_per_user=50, seed=18)["test"]
    prepared = prepare(frame, **shares, max_points_per_user=10)
    points = prepared["test"]
    assert points["user_id"].value_counts().to_dict() == {"u": 10, "w": 1}
    assert prepared.summary["points"]["test"]["capped"] == prepared.summary["points_capped"] == 20
    assert points.merge(free).shape == points.shape  # the same, whatever cap and seed
    assert points["item_id"].iloc[:10].tolist() != [f"n{n}" for n in range(10)]  # a draw, not the first ten


def test_unavailable_items_make_no_point(prepare: Any) -> None:
    moments = pd.Series([START + day * DAY for day in range(11)], dtype=t.MOMENT)
    never = pd.Series([pd.NaT] * 10, dtype=t.MOMENT)
    available_from, available_until = never.copy(), never.copy()
    available_from[6], available_until[7] = moments[6], moments[8]  # both offered when taken
    available_from[8], available_until[9] = moments[9], moments[9]  # not yet; no more (the end is exclusive)
    items = catalogue(
        [str(n) for n in range(10)], available_from=available_from, available_until=available_until
    )
    frame = pd.concat([ten_days(), rows(("w", "5", 9))])
    prepared = prepare(frame, items, validation_share=2 / 11, test_share=3 / 11)
    assert prepared.pairs("validation_points") == [("u", "6"), ("u", "7")]
    assert prepared.pairs("test") == [("w", "5")]
    assert prepared.summary["points"]["test"]["unavailable"] == prepared.summary["points_unavailable"] == 2


def test_cold_shares(prepare: Any) -> None:
    frame = rows(
        *(("old", str(n), n) for n in range(6)), ("old", "20", 6), ("old", "21", 7),
        ("old", "22", 8), ("late", "0", 9),
    )  # fmt: skip
    test = prepare(frame).summary["points"]["test"]
    assert (test["points"], test["users"], test["users_with_history_at_start"]) == (2, 2, 1)
    assert (test["cold_items_share"], test["cold_users_share"], test["empty_history_share"]) == (
        0.5,
        0.5,
        0.5,
    )


def described(template: str = DEFAULT, max_characters: int = 200, **columns: Any) -> pd.DataFrame:
    """Two items, a and b; train ends on day 5."""
    items, seen = catalogue(["b", "a"]), pd.DataFrame({"item_id": ["a"], "first_seen": [pd.Timestamp(START)]})
    for name, values in columns.items():
        items[name] = pd.Series(values, dtype="str" if name in ("title", "text") else None)
    parsed = parse_template(template, items.columns)
    return with_text(complete(items, seen), parsed, max_characters, pd.Timestamp(START + 5 * DAY))


def texts(template: str = DEFAULT, max_characters: int = 200, **columns: Any) -> list[str]:
    """Of b and a, as given."""
    return described(template, max_characters, **columns)["item_text"].tolist()[::-1]


def test_texts_from_the_template() -> None:
    categories = [["Animation", "Comedy", "Animation"], []]
    assert texts(title=["Toy Story (1995)", "<b>Heat</b> &amp; Dust"], categories=categories) == [
        "Toy Story (1995). Animation, Comedy.",
        "Heat & Dust.",
    ]
    assert texts(title=["Toy Story (1995)", None], template="{title}") == ["Toy Story (1995)", ""]


def test_year_from_the_title_or_the_column() -> None:
    table = described(title=["Heat (1995) ", "1984"])
    assert str(table["year"].dtype) == "Int64"
    assert table["year"].tolist() == [pd.NA, 1995]
    assert table["title"].tolist() == ["1984", "Heat (1995) "]  # kept as it was
    assert described(title=["Heat (1995)", "Dune (1984)"], year=["1996", "?"])["year"].tolist() == [
        1984,
        1996,
    ]


def test_further_columns_enter_the_text() -> None:
    template = "{title} ({year}) by {brand}, {weight} kg, {sold}: {description}"
    assert texts(
        template,
        year=[1990.0, None],
        brand=["Acme"] * 2,
        weight=[2.0, 2.0],
        sold=[pd.Timestamp(START)] * 2,
        text=["Nice.", None],
    ) == ["Item b (1990) by Acme, 2 kg, 2020-01-01: Nice.", "Item a by Acme, 2 kg, 2020-01-01"]


def test_tags_after_train_do_not_enter_the_text() -> None:
    day = [START + n * DAY for n in range(7)]
    tags = {"tags": [["Fun", "fun", "toys", "at end", "later"], []]}
    assert texts(**tags, tag_times=[[day[1], day[2], day[1], day[5], day[6]], []]) == [
        "Item b. Fun, toys",
        "Item a.",
    ]
    counts = count_items(described(**tags, tag_times=[[*day[1:6]], []]), 2, pd.Timestamp(START + 5 * DAY))
    assert (counts["tags"], counts["tags_not_before_train_end"]) == (5, 1)


def test_tags_are_the_ten_most_frequent() -> None:
    tags = [[f"t{n:02d}" for n in range(12)] + ["t11", "t11", "t05"], []]
    assert texts("{tags}", tags=tags) == ["t11, t05, t00, t01, t02, t03, t04, t06, t07, t08", ""]


def test_tags_and_times_that_do_not_pair() -> None:
    with pytest.raises(DataError, match="column tag_times: item 'b' has 2 tags and 1 times"):
        texts(tags=[["x", "y"], []], tag_times=[[START], []])


def test_an_item_with_two_rows() -> None:
    with pytest.raises(DataError, match="column item_id: 'a' has two rows"):
        complete(catalogue(["a", "b", "a"]), pd.DataFrame({"item_id": [], "first_seen": []}))


def test_unicode_and_100_kilobyte_titles() -> None:
    assert texts(title=["汉字" * 50_000, "🎬 Film"], max_characters=50) == ["汉字" * 25, "🎬 Film."]
    assert texts(title=["a" * 100_000, "<script>" + "x" * 100_000], max_characters=50) == ["a" * 50, ""]


def test_unknown_field_of_the_template() -> None:
    with pytest.raises(
        ConfigError, match=r"item_text: unknown field \{genre\}: .*available_until, categories"
    ):
        texts("{title} {genre}")


def test_items_without_a_row_or_text(prepare: Any) -> None:
    items = catalogue(["0", "unused"])
    items["title"] = pd.Series([None, None], dtype="str")
    prepared = prepare(ten_days(), items)
    table = prepared["items"].set_index("item_id")
    assert table.index.tolist() == [*map(str, range(10)), "unused"]
    assert (table["item_text"] == "").all()
    assert table["title"].isna().all()
    assert list(table.loc["1", "categories"]) == []
    assert table.loc["3", "first_seen"] == pd.Timestamp(START + 3 * DAY)
    assert pd.isna(table.loc["8", "first_seen"])  # in test only
    counts = prepared.summary["items"]
    assert (counts["items"], counts["without_row_in_table"], counts["without_text"]) == (11, 9, 11)
    assert counts["text_characters"]["0.5"] is None


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


def test_summary(prepare: Any) -> None:
    summary = prepare(POINT_ROWS).summary
    assert (summary["as_of"], summary["data_hash"]) == ("2020-12-31T00:00:00+00:00", "0123")
    assert summary["train_end"] == "2020-01-06T00:00:00+00:00"
    assert summary["fit_end"] == "2020-01-08T00:00:00+00:00"
    assert summary["rows"] == {"read": 21, "kept": 21, "dropped": 0}
    test = summary["windows"]["test"]
    assert (test["rows"], test["users"], test["items"], test["positive"]) == (5, 2, 4, 4)
    assert (test["first"], test["last"]) == ("2020-01-09T00:00:00+00:00", "2020-01-10T00:00:00+00:00")
    assert summary["repeats"] == 2
    assert summary["events"] == {"rating": 20, "view": 1}


def test_one_user_and_one_item_work_or_say_why(prepare: Any) -> None:
    with pytest.raises(DataError, match="validation window has 2 successes but no point: 2 repeat an item"):
        prepare(rows(*(("u", "only", day) for day in range(10))))
    one_item = prepare(rows(*((f"u{day}", "only", day) for day in range(10))))
    assert len(one_item["test"]) == 2


def test_no_success_names_the_key_and_what_the_data_have(prepare: Any) -> None:
    with pytest.raises(
        DataError,
        match=r"preprocess.positive: none of the 6 rows of the train .*events rating; values 5 to 5: set",
    ):
        prepare(ten_days(), positive={"events": None, "min_value": 50})
    with pytest.raises(DataError, match=r"events \['buy'\], min_value None\); the data have events rating"):
        prepare(ten_days(), positive={"events": ["buy"], "min_value": None})


def test_mostly_excluding_min_value_warns(prepare: Any, caplog: pytest.LogCaptureFixture) -> None:
    frame = rows(*(("u", str(n), n, "rating", 5.0 if n % 15 == 0 else 1.0) for n in range(150)))
    prepare(frame)
    assert "min_value 4 leaves out 93% of the rows with a value; the data have events rating" in caplog.text


def test_nobody_to_fit_on(prepare: Any) -> None:
    with pytest.raises(
        DataError, match="min_user_interactions: of 1 users in train, none with at least 7 rows"
    ):
        prepare(ten_days(), min_user_interactions=7)


def test_shares_must_leave_a_train_window(prepare: Any) -> None:
    with pytest.raises(ConfigError, match="leave nothing for train"):
        prepare(ten_days(), validation_share=0.5, test_share=0.5)


def test_missing_raw_files(tmp_path: Path) -> None:
    raw, params = write_raw(tmp_path / "raw", ten_days()), write_params(tmp_path / "params.yaml")
    (raw / "manifest.json").rename(raw / "away")
    with pytest.raises(DataError, match=r"manifest.json: no such file: run `dvc repro -f collect`"):
        main(raw, tmp_path / "prepared", params)
    (raw / "away").rename(raw / "manifest.json")
    shutil.rmtree(raw / "interactions")
    with pytest.raises(DataError, match="interactions: no Parquet file"):
        main(raw, tmp_path / "prepared", params)


def test_damaged_and_incomplete_interactions(tmp_path: Path) -> None:
    raw, params = (
        write_raw(tmp_path / "raw", ten_days().drop(columns="value")),
        write_params(tmp_path / "p.yaml"),
    )
    with pytest.raises(DataError, match="interactions: no column value"):
        main(raw, tmp_path / "prepared", params)
    next((raw / "interactions").rglob("*.parquet")).write_bytes(b"not Parquet")
    with pytest.raises(DataError, match="not readable as Parquet"):
        main(raw, tmp_path / "prepared", params)


def test_a_failure_leaves_the_last_good_output(prepare: Any, tmp_path: Path) -> None:
    before = (prepare(ten_days()).folder / "summary.json").read_bytes()
    with pytest.raises(DataError):
        prepare(rows(*(("u", str(n), 1) for n in range(9))))
    assert (tmp_path / "prepared" / "summary.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml", "prepared", "raw"]
