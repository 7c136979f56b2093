import errno
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from collecting import DATA, interactions, items, of_files, params_file, rejected, run, written
from pandas.testing import assert_frame_equal

from pipeline import sources
from pipeline.data.partitions import Partitions
from pipeline.errors import ConfigError, DataError
from pipeline.run import guarded
from pipeline.stages import collect

HEADER = "user_id,item_id,timestamp,value,title"
GOOD = ["007,a,2020-01-31T12:00:00Z,4,A", "8,b,2020-02-01,,B", "8,007,1580601600,2.5,C"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return written(tmp_path / "log.csv", HEADER, *GOOD)


def manifest(raw: Path) -> dict[str, Any]:
    return json.loads((raw / "manifest.json").read_text())


def snapshot(raw: Path) -> dict[str, bytes]:
    return {str(path.relative_to(raw)): path.read_bytes() for path in raw.rglob("*") if path.is_file()}


def test_what_nobody_sees_in_ids_is_taken_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    rows = ["u1,a,2020-01-01,view", "u1\u200b,b,2020-01-02,view\ufeff", " u1\u00a0,c,2020-01-03,view"]
    items = written(tmp_path / "items.csv", "item_id,title", "a\u00ad,A", "b,B", "c,C")
    log = written(tmp_path / "log.csv", "user_id,item_id,timestamp,event", *rows)
    raw = run(tmp_path, of_files(log, items=items))
    kept = interactions(raw)
    assert (kept["user_id"].unique().tolist(), kept["event"].unique().tolist()) == (["u1"], ["view"])
    found = manifest(raw)
    assert (found["tidied"], found["joined_share"]) == ({"interactions": 2, "items": 1}, 1.0)
    assert "3 ids or events held characters that nobody sees" in caplog.text


def test_the_reasons_of_a_few_bad_rows_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    rows = [f"u{day},a,2020-01-{day:02},{day}" for day in range(1, 30)]
    log = written(tmp_path / "log.csv", "user_id,item_id,timestamp,value", *rows, "u,a,2020-01-30,many")
    run(tmp_path, of_files(log))
    assert "1 rejected (value not a number 1)" in caplog.text


def test_the_outputs(tmp_path: Path, log: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    raw = run(tmp_path, of_files(log))
    assert sorted(snapshot(raw)) == [
        "impressions.parquet",
        "interactions/month=2020-01/part-0.parquet",
        "interactions/month=2020-02/part-0.parquet",
        "items.parquet",
        "manifest.json",
        "rejected.parquet",
        "users.parquet",
    ]
    assert (
        "collected 3 interactions of 2 users and 3 items, 2020-01-31 to 2020-02-02; 0 rejected, 0 duplicates"
        in (caplog.text)
    )
    found = manifest(raw)
    assert found == {
        "source": "files",
        "fingerprint": sources.fingerprint(of_files(log)),
        "as_of": "2020-02-02T00:00:00+00:00",
        "first_timestamp": "2020-01-31T12:00:00+00:00",
        "last_timestamp": "2020-02-02T00:00:00+00:00",
        "rows": {"read": 3, "kept": 3, "rejected": 0, "duplicates": 0, "after_as_of": 0},
        "rejected": {},
        "tidied": {},
        "findings": [],
        "users": 2,
        "items": 3,
        "item_rows": {"kept": 3, "duplicates": 0, "unreadable_dates": 0},
        "joined_share": None,
        "user_rows": {"kept": 0, "duplicates": 0},
        "content_hash": found["content_hash"],
    }
    assert items(raw).index.tolist() == ["007", "a", "b"]
    assert rejected(raw).columns.tolist() == [
        "table", "reason", "place", "user_id", "item_id", "timestamp", "event", "value", "text", "raw",
    ]  # fmt: skip


def test_again_gives_the_same_bytes(tmp_path: Path, log: Path) -> None:
    before = snapshot(run(tmp_path, of_files(log)))
    assert snapshot(run(tmp_path, of_files(log))) == before


def test_a_shrunken_source_leaves_no_old_month(tmp_path: Path, log: Path) -> None:
    run(tmp_path, of_files(log))
    written(log, HEADER, GOOD[0])
    assert [path.name for path in (run(tmp_path, of_files(log)) / "interactions").iterdir()] == [
        "month=2020-01"
    ]


def test_every_bad_row_has_its_reason_and_place(tmp_path: Path) -> None:
    path = written(
        tmp_path / "log.csv",
        HEADER,
        *GOOD,
        ",a,2020-01-01,1,",
        "1,nan,2020-01-01,1,",
        "1,a,,1,",
        "1,a,soon,1,",
        "1,a,2020-01-01,much,",
        "1,a,2020-01-01",
        '1,a,2020-01-01,1,"open',
        "1,a,2030-01-01,much,",
        ",,,,",
    )
    raw = run(tmp_path, of_files(path, as_of="2020-03-01", max_rejected_share=0.8))
    table = rejected(raw)
    assert table[["place", "reason"]].sort_values("place").to_numpy().tolist() == [
        ["log.csv:10", "wrong_number_of_fields"],
        ["log.csv:11", "unclosed_quote"],
        ["log.csv:12", "after_as_of"],
        ["log.csv:13", "no_user_id"],
        ["log.csv:5", "no_user_id"],
        ["log.csv:6", "no_item_id"],
        ["log.csv:7", "no_timestamp"],
        ["log.csv:8", "unreadable_timestamp"],
        ["log.csv:9", "value_not_a_number"],
    ]
    assert set(table["table"]) == {"interactions"}
    row = table[table["reason"] == "unreadable_timestamp"].iloc[0]
    assert row[["user_id", "item_id", "timestamp", "value"]].tolist() == ["1", "a", "soon", "1"]
    assert table[table["reason"] == "unclosed_quote"]["raw"].tolist() == ['1,a,2020-01-01,1,"open']
    assert manifest(raw)["rows"] == {"read": 12, "kept": 3, "rejected": 8, "duplicates": 0, "after_as_of": 1}
    assert manifest(raw)["rejected"]["interactions"]["no_user_id"] == 2
    assert len(interactions(raw)) == 3


def test_where_other_rows_may_be_misread_no_limit_is_to_be_raised(tmp_path: Path, log: Path) -> None:
    written(log, HEADER, *GOOD, "1,c,13/3/2024,1,", "1,c,14/3/2024,1,")
    with pytest.raises(DataError, match=r"2 of 5 rows are bad.*swapped their day and month\)$"):
        run(tmp_path, of_files(log))


def test_too_many_bad_rows_fail_and_replace_nothing(tmp_path: Path, log: Path) -> None:
    before = snapshot(run(tmp_path, of_files(log)))
    written(log, HEADER, *GOOD, ",a,2020-01-01,1,", ",b,2020-01-01,1,", "1,c,soon,1,")
    message = (
        r"^interactions: 3 of 6 rows are bad \(50\.0%; collect\.max_rejected_share is 0\.4\): no user id 2, "
        r"unreadable timestamp 1; for example log\.csv:5 \(item_id='a', timestamp='2020-01-01', value='1'\); "
        r"correct the file or collect\.files\.columns, or raise the limit$"
    )
    with pytest.raises(DataError, match=message):
        run(tmp_path, of_files(log, max_rejected_share=0.4))
    assert snapshot(tmp_path / "raw") == before
    assert len(interactions(run(tmp_path, of_files(log, max_rejected_share=0.5)))) == 3


def test_rows_after_as_of_are_set_apart_and_not_charged(
    tmp_path: Path, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    raw = run(tmp_path, of_files(log, as_of="2020-01-31T12:00:00", max_rejected_share=0))
    assert interactions(raw)["user_id"].tolist() == ["007"]
    assert rejected(raw)["reason"].tolist() == ["after_as_of"] * 2
    assert manifest(raw)["as_of"] == "2020-01-31T12:00:00+00:00"
    assert manifest(raw)["rows"] == {"read": 3, "kept": 1, "rejected": 0, "duplicates": 0, "after_as_of": 2}
    assert "0 rejected, 0 duplicates, 2 after 2020-01-31" in caplog.text


def test_the_past_of_an_as_of_does_not_depend_on_the_future(tmp_path: Path, log: Path) -> None:
    january = written(tmp_path / "january.csv", HEADER, GOOD[0])
    one = run(tmp_path / "one", of_files(log, as_of="2020-02-01T00:00:00-01:00"))
    written(log, HEADER, *GOOD[:2], "9,z,2020-03-01,,")
    two = run(tmp_path / "two", of_files(log, as_of="2020-02-01T01:00:00"))
    assert manifest(one)["content_hash"] == manifest(two)["content_hash"]
    three = run(tmp_path / "three", of_files(january))
    name = "interactions/month=2020-01/part-0.parquet"
    assert snapshot(one)[name] == snapshot(three)[name]


def test_a_stray_row_in_the_future_is_set_apart_and_moves_no_as_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [f"{day % 7},a{day},2024-01-{day:02d},," for day in range(1, 31)]
    log = written(tmp_path / "log.csv", HEADER, "8,b,2031-05-01,,", *rows)
    raw = run(tmp_path, of_files(log, max_rejected_share=0.05))
    assert manifest(raw)["as_of"] == manifest(raw)["last_timestamp"] == "2024-01-30T00:00:00+00:00"
    assert manifest(raw)["rejected"] == {"interactions": {"implausible_timestamp": 1}}
    assert rejected(raw)["place"].tolist() == ["log.csv:2"]
    assert "which end before 2024-01-31: set apart as implausible_timestamp" in caplog.text
    clean = run(tmp_path / "clean", of_files(written(tmp_path / "clean.csv", HEADER, *rows)))
    assert manifest(clean)["content_hash"] == manifest(raw)["content_hash"]


def test_an_as_of_long_after_the_data_is_refused_and_replaces_nothing(tmp_path: Path, log: Path) -> None:
    raw = run(tmp_path, of_files(log, as_of="2021-01-31"))  # within a year of the last row
    before = snapshot(raw)
    said = r"collect\.as_of: 2026-11-01 is 2,464 days after the last row, of 2020-02-02, .*or null for"
    with pytest.raises(ConfigError, match=said):
        run(tmp_path, of_files(log, as_of="2026-11-01"))
    assert snapshot(raw) == before


def test_duplicates_are_counted_apart(tmp_path: Path, log: Path) -> None:
    written(log, HEADER, *GOOD, "007,a,1580472000,1,other", "007,a,2020-01-31 12:00,2,")
    raw = run(tmp_path, of_files(log, max_rejected_share=0))
    assert manifest(raw)["rows"] == {"read": 5, "kept": 3, "rejected": 0, "duplicates": 2, "after_as_of": 0}
    assert interactions(raw)["value"].tolist()[0] == 4.0


def test_ids_that_look_like_numbers_stay_as_they_are(tmp_path: Path) -> None:
    ids = ["7", "07", "007", "7.0", "1e3", "٧", "-7", "+7", "0x7", "7 7"]
    path = written(
        tmp_path / "log.csv", HEADER, *(f"{one},{one},{1580472000 + day},1," for day, one in enumerate(ids))
    )
    raw = run(tmp_path, of_files(path))
    assert interactions(raw)["user_id"].tolist() == ids
    assert sorted(items(raw).index) == []  # no title: nothing says more of the items


def test_one_row_is_enough(tmp_path: Path) -> None:
    raw = run(tmp_path, of_files(written(tmp_path / "log.csv", HEADER, GOOD[0])))
    assert manifest(raw)["users"] == manifest(raw)["items"] == 1


def test_one_user_one_item_and_one_moment(tmp_path: Path) -> None:
    one_user = written(tmp_path / "1.csv", HEADER, *(f"u,{n},{1580472000 + n},1," for n in range(50)))
    one_item = written(tmp_path / "2.csv", HEADER, *(f"{n},i,{1580472000 + n},1," for n in range(50)))
    one_time = written(tmp_path / "3.csv", HEADER, *(f"{n},{n % 5},2020-01-01,1," for n in range(50)))
    for path, users, things in ((one_user, 1, 50), (one_item, 50, 1), (one_time, 50, 5)):
        found = manifest(run(tmp_path, of_files(path)))
        assert (found["rows"]["kept"], found["users"], found["items"]) == (50, users, things)
    assert found["first_timestamp"] == found["last_timestamp"] == found["as_of"]


def test_titles_of_any_kind_come_through_unchanged(tmp_path: Path) -> None:
    titles = [
        "日本語 – ünï ‮ 🎬",
        "x" * 100_000,
        "<script>alert(1)</script><b>unclosed",
        "a\x00b\x1b[31m",
        "=1+1",
    ]
    rows = [
        json.dumps({"user_id": 1, "item_id": n, "timestamp": 1580472000, "title": one})
        for n, one in enumerate(titles)
    ]
    raw = run(tmp_path, of_files(written(tmp_path / "log.jsonl", *rows)))
    assert items(raw)["title"].tolist() == titles


def test_availability_is_read_and_kept_even_if_later(tmp_path: Path, log: Path) -> None:
    things = written(
        tmp_path / "items.csv",
        "item_id,available_from,available_until",
        "a,2031-01-01,9999-12-31",
        "b,soon,",
    )
    raw = run(tmp_path, of_files(log, items=things, as_of="2020-03-01"))
    assert [moment.year for moment in items(raw).loc["a", ["available_from", "available_until"]]] == [
        2031,
        9999,
    ]
    assert items(raw).loc["b", ["available_from", "available_until"]].isna().all()
    assert manifest(raw)["item_rows"]["unreadable_dates"] == 1


@pytest.mark.parametrize(
    ("lines", "changes", "message"),
    [
        ([], {}, r"log\.csv: empty: bring a file with a header and rows"),
        ([HEADER], {}, "files: no interactions: bring a file with rows"),
        (
            ["user_id,timestamp", "1,2"],
            {},
            r"no column 'item_id' for item_id; columns there: user_id, timestamp;",
        ),
        (
            [HEADER, *GOOD],
            {"as_of": "1999-01-01"},
            r"none of 3 interactions can be kept: all are later than collect\.as_of",
        ),
        (
            [HEADER, ",,,,"],
            {"max_rejected_share": 1},
            r"none of 1 interactions can be kept: .* 1; for example .*log\.csv:2",
        ),
    ],
)
def test_nothing_to_keep_is_said(tmp_path: Path, lines: list[str], changes: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(tmp_path, of_files(written(tmp_path / "log.csv", *lines), **changes))
    assert not snapshot(tmp_path / "raw")


@pytest.mark.parametrize("table", ["items", "users"])
def test_a_bad_file_of_items_or_users_fails_too(tmp_path: Path, log: Path, table: str) -> None:
    other = written(tmp_path / "other.csv", f"{table[:-1]}_id,x", "a,1", "b", "c,1,2")
    with pytest.raises(
        DataError, match=rf"^{table}: 2 of 3 rows are bad .*: wrong number of fields 2; for example "
    ):
        run(tmp_path, of_files(log, **{table: other}))


def test_a_file_in_another_encoding_is_refused_with_an_example(tmp_path: Path, log: Path) -> None:
    log.write_bytes(
        "".join(f"{line}é\n" for line in [HEADER.replace("title", "title,x"), *GOOD]).encode("latin-1")
    )
    with pytest.raises(
        DataError, match=r"the header is not UTF-8 text: name the encoding in collect\.files\.encoding"
    ):
        run(tmp_path, of_files(log))
    log.write_bytes(f"{HEADER}\n{GOOD[0]}é\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"not utf8 1; for example log\.csv:2 \('007,a,.*\\\\xe9'\)"):
        run(tmp_path, of_files(log))


@pytest.mark.parametrize("writer", ["write_table", "ParquetWriter"])
def test_a_full_disk_leaves_the_old_outputs_and_one_line(
    tmp_path: Path,
    log: Path,
    writer: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = snapshot(run(tmp_path, of_files(log)))

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "raw"))

    monkeypatch.setattr(f"pyarrow.parquet.{writer}", full)
    with pytest.raises(SystemExit) as end:
        guarded(lambda: run(tmp_path, of_files(log)))
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no space left on the disk: free some and run again" in error
    assert snapshot(tmp_path / "raw") == before


def test_an_interrupt_leaves_the_old_outputs(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(run(tmp_path, of_files(log)))

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    rename = Path.rename
    moves = []

    def fourth_fails(path: Path, target: Path) -> Path:
        moves.append(path)
        if len(moves) == 4:
            raise KeyboardInterrupt
        return rename(path, target)

    for target, replacement in ((collect, ("_content_hash", interrupted)), (Path, ("rename", fourth_fails))):
        with monkeypatch.context() as patch:
            patch.setattr(target, *replacement)
            with pytest.raises(SystemExit) as end:
                guarded(lambda: run(tmp_path, of_files(log)))
        assert end.value.code == 130
        assert capsys.readouterr().err.startswith("error: interrupted")
        assert snapshot(tmp_path / "raw") == before


def test_what_a_killed_run_left_is_cleared(tmp_path: Path, log: Path) -> None:
    left = tmp_path / "raw" / ".partial" / "new" / "interactions" / "month=1999-01"
    left.mkdir(parents=True)
    (left / "part-0.parquet").write_text("half")
    assert "month=1999-01" not in str(sorted(snapshot(run(tmp_path, of_files(log)))))


def test_rows_wait_on_disk_when_memory_is_short(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(run(tmp_path / "one", of_files(log)))
    monkeypatch.setattr(collect, "Partitions", partial(Partitions, budget=1))
    monkeypatch.setattr("pipeline.sources._delimited.BLOCK", 60)
    assert snapshot(run(tmp_path / "two", of_files(log))) == before


def test_further_columns_stay_with_their_interactions(tmp_path: Path) -> None:
    path = written(tmp_path / "log.csv", f"{HEADER},shop,month", f"{GOOD[0]},007,x", f"{GOOD[1]},,")
    frame = interactions(run(tmp_path, of_files(path)))
    expected = pd.DataFrame({"shop": ["007", None], "file_month": ["x", None]})
    assert_frame_equal(frame[["shop", "file_month"]], expected, check_dtype=False)


def test_wrong_params_are_named(tmp_path: Path, log: Path) -> None:
    params = yaml.safe_load(params_file(tmp_path, of_files(log)).read_text())
    params["collect"] |= {"sauce": 1, "max_rejected_share": "many"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ConfigError, match=r"collect\.max_rejected_share: .*collect\.sauce: unknown key"):
        collect.main(tmp_path / "raw", tmp_path / "params.yaml")


def test_params_that_are_no_yaml_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 17\ncollect: {half-saved\n")
    with pytest.raises(ConfigError, match=r"\A\S+params.yaml: not YAML: line 3: did not find .*\Z"):
        collect.main(tmp_path / "raw", tmp_path / "params.yaml")


def test_a_source_that_forgets_a_column_is_told(tmp_path: Path, log: Path) -> None:
    found = sources.Tables([pd.DataFrame({"user_id": ["1"]})])
    with pytest.raises(DataError, match=r"the source gives no column item_id: see docs/sources\.md"):
        collect.collect(lambda: found, of_files(log), tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "uci-online-retail").is_dir(), reason="no uci-online-retail")
def test_uci_online_retail(tmp_path: Path) -> None:
    columns = {
        "user_id": "CustomerID",
        "item_id": "StockCode",
        "timestamp": "InvoiceDate",
        "value": "Quantity",
        "title": "Description",
        "event": {"constant": "purchase"},
    }
    path = DATA / "uci-online-retail" / "online_retail.parquet"
    raw = run(tmp_path, of_files(path, columns=columns, max_rejected_share=0.3))
    found = manifest(raw)
    assert found["rows"] == {
        "read": 541_909, "kept": 396_589, "rejected": 135_080, "duplicates": 10_240, "after_as_of": 0
    }  # fmt: skip
    assert found["rejected"] == {"interactions": {"no_user_id": 135_080}}
    assert (found["users"], found["items"]) == (4_372, 3_684)
    frame = interactions(raw)
    assert frame["user_id"].str.fullmatch(r"\d{5}").all()
    assert frame.columns.tolist()[6:] == ["InvoiceNo", "UnitPrice", "Country"]
    assert items(raw).loc["85123A", "title"] == "WHITE HANGING HEART T-LIGHT HOLDER"
    assert len(list((raw / "interactions").iterdir())) == 13


def objects(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # dvc's own
def test_a_week_more_pushes_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo

    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    remote, log = tmp_path / "remote", tmp_path / "log.csv"
    rows = [f"{n},{n % 7},2020-0{1 + n % 3}-05T00:00:{n % 60:02d},1,t" for n in range(210)]
    (tmp_path / "project").mkdir()
    with Repo.init(str(tmp_path / "project"), no_scm=True) as repo:
        with repo.config.edit("local") as config:
            config["remote"] = {"local": {"url": str(remote)}}
            config["core"] = {"remote": "local"}

        def push_collected(lines: list[str]) -> int:
            before = objects(remote)
            raw = run(tmp_path / "project", of_files(written(log, HEADER, *lines)))
            repo.add([str(raw / name) for name in collect.OUTPUTS])
            repo.push()
            return len(objects(remote) - before)

        # Three months and their listing, items, users, impressions, rejected, manifest.
        assert push_collected(rows) == 9
        # The new month, the listing, the manifest.
        assert push_collected([*rows, "1,1,2020-04-02,1,t"]) == 3
        assert push_collected([*rows, "1,1,2020-04-02,1,t"]) == 0


@pytest.mark.parametrize("what", ["user", "item"])
def test_one_user_or_item_with_an_implausible_share_is_named(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    crowd = "guest,b{0}" if what == "user" else "v{0},guest"
    rows = [f"u{n % 30},i{n % 25},2024-01-{1 + n % 28:02d},," for n in range(60)]
    rows += [f"{crowd.format(n)},2024-01-{1 + n % 28:02d},," for n in range(40)]
    run(tmp_path, of_files(written(tmp_path / "log.csv", HEADER, *rows)))
    assert re.search(
        rf"{what} 'guest' has 40 ?% of the rows: .*collect\.files\.columns\.{what}_id", caplog.text
    )


def test_the_joined_share_is_always_told(tmp_path: Path, log: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    raw = run(tmp_path, of_files(log, items=written(tmp_path / "items.csv", "item_id,x", "a,1", "b,2")))
    found = json.loads((raw / "manifest.json").read_text())["joined_share"]
    assert found == pytest.approx(2 / 3)
    assert f"{found:.1%} are of items in the table of items" in caplog.text


@pytest.mark.parametrize(
    ("ours", "theirs", "cause"),
    [
        ("6.0", "6", "without a final .0 it would be 100.0%"),
        ("6", "00006", "without leading zeros it would be 100.0%"),
        ("'6'", "6", "without the quotes around them it would be 100.0%"),
        ("`6`", "6", "without the quotes around them it would be 100.0%"),
        ("sku-6", "SKU-6", "in one case it would be 100.0%"),
        ("SKU 6", "sku6", "without blanks, signs and case it would be 100.0%"),
        ("lamp", "chair", "collect.files.columns.items.item_id"),
    ],
)
def test_items_that_join_nothing_stop_the_stage(tmp_path: Path, ours: str, theirs: str, cause: str) -> None:
    path = written(tmp_path / "log.csv", "user_id,item_id,timestamp", f"1,{ours},2020-01-31")
    things = written(tmp_path / "items.csv", "item_id,title", f"{theirs},X")
    with pytest.raises(
        DataError, match=rf"0\.0% of the interactions .*{re.escape(ours)}.*{re.escape(cause)}"
    ):
        run(tmp_path, of_files(path, items=things))
    assert not snapshot(tmp_path / "raw")
    assert len(interactions(run(tmp_path, of_files(path, items=things, min_joined_share=0)))) == 1


@pytest.mark.parametrize(
    ("rows", "advice"),
    [
        (
            ["1,a,31/01/2020,1", "2,a,15/02/2020,1"],
            r'\{column: X, format: F\}, where F is "%d/%m/%Y"$',
        ),
        (["1,a,1/31/2020 1:05 PM,1"], 'F is "%m/%d/%Y %I:%M %p"$'),
        (["1,a,1/2/2020,1"], 'F is "%d/%m/%Y" or "%m/%d/%Y"$'),
        (['1,a,2020-01-31,"1,5"', '1,a,2020-01-31,"1.000,5"'], r'set collect\.files\.decimal to ","$'),
        (['1,a,2020-01-31,"1,200"'], r'decimal to "\." if 1,200 is 1200'),
        (["1,a,1.70E+12,5", "2,b,1.71e12,5"], r"a spreadsheet rounded them, or %e"),
        (["1,a,13:05,5", "2,b,9:00,5"], r"\{date: D, time: X\}, where D is the column of dates"),
        (["1,a", "2,b"], r"not as many fields as its header: .*collect\.files\.delimiter$"),
        ([",a,2020-01-31,1"], r"correct the file or collect\.files\.columns$"),
    ],
)
def test_where_most_rows_are_bad_the_advice_is_no_higher_limit(
    tmp_path: Path, rows: list[str], advice: str
) -> None:
    path = written(tmp_path / "log.csv", "user_id,item_id,timestamp,value", *rows)
    with pytest.raises(DataError, match=advice):
        run(tmp_path, of_files(path))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a,13/02/2020", "b,14/02/2020", "c,"], 'columns.available_from: .*"%d/%m/%Y"'),
        (["a,soon", "b,later", "c,2020-01-01"], "column available_from: most cells are no time, like 'soon'"),
    ],
)
def test_availability_that_cannot_be_read_stops(
    tmp_path: Path, log: Path, lines: list[str], said: str
) -> None:
    things = written(tmp_path / "items.csv", "item_id,available_from", *lines)
    with pytest.raises(DataError, match=said):
        run(tmp_path, of_files(log, items=things))


def test_the_newest_row_of_a_catalogue_is_told_by_readable_times_alone(tmp_path: Path, log: Path) -> None:
    rows = ["a,new,2020-05-01", "b,other,", "a,old,2019-01-01"]
    things = written(tmp_path / "items.csv", "item_id,title,last_updated", *rows)
    assert items(run(tmp_path, of_files(log, items=things))).loc["a", "title"] == "new"
    written(things, "item_id,title,last_updated", *rows, "a,newest,01/06/2020")
    with pytest.raises(DataError, match=r"column last_updated: '01/06/2020' is no time"):
        run(tmp_path, of_files(log, items=things))


def test_words_for_none_are_no_titles_unless_one_item_is_called_so(tmp_path: Path, log: Path) -> None:
    things = written(tmp_path / "items.csv", "item_id,title", "a,nan", "b,nan", "c,None")
    titles = items(run(tmp_path, of_files(log, items=things)))["title"]
    assert titles[["a", "b"]].isna().all()
    assert titles["c"] == "None"


@pytest.mark.parametrize("described", [True, False])
def test_lists_of_items_besides_their_categories_are_read_as_those_are(
    tmp_path: Path, described: bool
) -> None:
    """`tags` of a CSV ended in a traceback, and `keywords` said nothing."""
    header = "tags,keywords,entities"
    cells = ("sea|ship,ice|rose,Nemo", "ship,rose,", "2020,,Bo")
    rows = [f"u,{item},158047200{n}" for n, item in enumerate("abc")]
    if described:
        things = written(
            tmp_path / "items.csv", f"item_id,{header}", *map(",".join, zip("abc", cells, strict=True))
        )
        raw = run(
            tmp_path, of_files(written(tmp_path / "x.csv", "user_id,item_id,timestamp", *rows), items=things)
        )
    else:
        rows = list(map(",".join, zip(rows, cells, strict=True)))
        columns = {f"items.{name}": name for name in header.split(",")}
        path = written(tmp_path / "x.csv", f"user_id,item_id,timestamp,{header}", *rows)
        raw = run(tmp_path, of_files(path, columns=columns))
    found = items(raw)
    assert found["tags"].tolist() == [["sea", "ship"], ["ship"], ["2020"]]
    assert found.loc["a", ["keywords", "entities"]].tolist() == [["ice", "rose"], ["Nemo"]]
    assert found["keywords"].isna().tolist() == [False, False, True]


def test_tags_of_users_and_of_rows_stay_what_they_are(tmp_path: Path) -> None:
    rows = written(tmp_path / "x.csv", "user_id,item_id,timestamp,tags", "u,a,1580472000,sea|ship")
    users = written(tmp_path / "users.csv", "user_id,tags", "u,new|vip")
    raw = run(tmp_path, of_files(rows, users=users))
    assert pd.read_parquet(raw / "users.parquet")["tags"].tolist() == ["new|vip"]
    assert interactions(raw)["tags"].tolist() == ["sea|ship"]


@pytest.mark.parametrize("name", ["graph_entities", "graph_relations", "tag_times"])
def test_text_where_two_lists_make_pairs_is_refused(tmp_path: Path, name: str) -> None:
    rows = written(tmp_path / "x.csv", "user_id,item_id,timestamp", "u,a,1580472000")
    things = written(tmp_path / "items.csv", f"item_id,{name}", "a,x|y")
    with pytest.raises(DataError, match=rf"items, column {name}: 'x|y' is no list"):
        run(tmp_path, of_files(rows, items=things))
