"""The whole stage: files in, files out; what ends it, and what then is left."""

import errno
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_data import DAY, FILES, POINT_ROWS, START, catalogue, rows, ten_days, write_params, write_raw

from pipeline.data import tables
from pipeline.data.histories import load_prepared
from pipeline.documents.model import Card
from pipeline.errors import ArtifactError, ConfigError, DataError
from pipeline.models.preparation import Preparation
from pipeline.params import Params
from pipeline.stages import preprocess as stage
from pipeline.stages.preprocess import main


def test_shares_count_interactions(prepare: Any) -> None:
    prepared = prepare(ten_days())
    assert [prepared[name]["item_id"].tolist() for name in FILES] == [list("012345"), list("67"), list("89")]
    assert prepared.pairs("validation_points") == [("u", "6"), ("u", "7")]
    assert prepared.pairs("test") == [("u", "8"), ("u", "9")]


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
    assert len(names) == 7
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_raw_columns_are_kept(prepare: Any) -> None:
    frame = ten_days(price=[float(n) for n in range(10)], fit="their own", text="said so", user_id="007")
    train = prepare(frame)["train"]
    assert train["user_id"].unique().tolist() == ["007"]
    assert train["price"].tolist() == [0, 1, 2, 3, 4, 5]
    assert train["fit_raw"].unique().tolist() == ["their own"]
    assert train["fit"].dtype == bool
    assert set(train.columns) == {*tables.INTERACTIONS, "price", "fit_raw", "fit", "positive"}
    assert train["timestamp"].dtype == tables.MOMENT


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
    with pytest.raises(DataError, match=r"no point: 2 repeat an item.*set preprocess\.repeats to include"):
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


@pytest.mark.parametrize("days", [[0, *[5] * 97, 6, 7], [*[0] * 97, 1, 2, 3]])
def test_nearly_all_rows_at_one_moment_stop_it(prepare: Any, days: list[int]) -> None:
    frame = rows(*((f"u{number % 20}", f"i{number}", day) for number, day in enumerate(days)))
    with pytest.raises(
        DataError, match=r"timestamp: 97\.0% of the rows .* window would hold .*columns\.times"
    ):
        prepare(frame)


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
    with pytest.raises(ArtifactError, match=r"manifest.json: no such file: run `dvc repro --force collect`"):
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


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_disk_full_and_interruption_leave_the_last_good_output(
    prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    before = (prepare(ten_days()).folder / "summary.json").read_bytes()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(stage, "write_parquet", fail)
    with pytest.raises(type(error)):
        prepare(ten_days(value=4.0))
    assert (tmp_path / "prepared" / "summary.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml", "prepared", "raw"]


def test_users_are_handed_on(prepare: Any, tmp_path: Path) -> None:
    assert not (prepare(ten_days()).folder / "users.parquet").exists()
    people = pd.DataFrame({"user_id": ["u", "unseen"], "sex": ["f", None]})
    tables.write_parquet(people, tmp_path / "raw" / "users.parquet")
    main(tmp_path / "raw", tmp_path / "prepared", tmp_path / "params.yaml")
    found = tables.read_parquet(tmp_path / "prepared" / "users.parquet", "users")
    assert found["user_id"].tolist() == ["u", "unseen"]
    assert found["sex"].iloc[0] == "f"
    prepared = load_prepared(tmp_path / "prepared")
    assert prepared.users is not None
    assert list(prepared.users.columns) == ["user_id", "sex"]


def test_a_damaged_table_of_users_is_named(prepare: Any, tmp_path: Path) -> None:
    prepare(ten_days())
    tables.write_parquet(pd.DataFrame({"user_id": ["u", "u"]}), tmp_path / "raw" / "users.parquet")
    with pytest.raises(DataError, match=r"users.parquet: column user_id: 'u' occurs more than once"):
        main(tmp_path / "raw", tmp_path / "prepared", tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("name", "column", "told"),
    [
        ("age_group", "colour", None),  # as delivered: most data have no such column
        ("age", "page", None),  # and a like word is another one
        ("gender", "Gender", "gender (Gender is)"),  # but in another spelling it would be let in
        ("ownr", "owner", "ownr (owner is)"),
        ("owner", "colour", "owner"),
        ("title ", "colour", "title "),  # what cannot be withheld is not proposed
    ],
)
def test_a_name_to_withhold_that_is_not_there_is_told_but_not_what_is_delivered(
    prepare: Any, caplog: Any, name: str, column: str, told: str | None
) -> None:
    items = catalogue([*map(str, range(10))]).assign(**{column: ["x", "y"] * 5})
    items[tables.GRAPH_RELATIONS] = [["director"], []] * 5
    items[tables.GRAPH_ENTITIES] = [["Mann"], []] * 5
    prepare(ten_days(), items, never_features=[name])
    lines = [record.message for record in caplog.records if "never_features" in record.message]
    assert len(lines) == (told is not None)
    if told:
        assert f"is named {told}:" in lines[0]


def test_the_delivered_names_are_those_of_params_yaml() -> None:
    delivered = Params.load(Path("params.yaml")).preprocess.never_features
    assert set(delivered) == stage.DELIVERED


def test_withheld_columns_reach_the_evaluation_and_no_model(prepare: Any, caplog: Any) -> None:
    items = catalogue([*map(str, range(10))]).assign(owner=["she", "he"] * 5)
    with caplog.at_level("INFO"):
        prepared = prepare(ten_days(), items, never_features=["owner", "ownr"])
    assert "owner" not in prepared["items"]
    assert prepared.summary["settings"]["never_features"] == ["owner", "ownr"]
    assert load_prepared(prepared.folder).withheld["owner"].tolist() == ["she", "he"] * 5
    assert "no column or relation is named ownr:" in caplog.text  # owner is withheld already
    how = Preparation.of(Card(preprocess=prepared.summary["settings"], train_end=START))
    assert how is not None
    assert "owner" not in how.described(items)  # the service's way to the same table
