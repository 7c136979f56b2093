import gzip
import json
from datetime import datetime, time
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collecting import interactions, items, of_files, rejected, run, written
from openpyxl.utils.datetime import CALENDAR_MAC_1904

from pipeline import sources
from pipeline.errors import ConfigError, DataError
from pipeline.sources.files import fingerprint, read

HEADER = "user_id,item_id,timestamp"
ROW = "007,a,1580472000"


def first(path: Path | str, **changes: Any) -> pd.DataFrame:
    return next(iter(read(of_files(path, **changes)).interactions))


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows)


ROWS = [
    {"user_id": "007", "item_id": "a", "timestamp": "2020-01-31T12:00:00Z", "value": 1.5},
    {"user_id": "8", "item_id": "b", "timestamp": "2020-01-31T12:00:01Z", "value": None},
]


def as_csv(path: Path, delimiter: str = ",") -> bytes:
    lines = [
        delimiter.join(ROWS[0]),
        *(delimiter.join(str(cell or "") for cell in row.values()) for row in ROWS),
    ]
    return "".join(f"{line}\r\n" for line in lines).encode()


def as_json(path: Path) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def as_parquet(path: Path) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table(ROWS), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("x.csv", as_csv),
        ("x.tsv", lambda path: as_csv(path, "\t")),
        ("x.jsonl", as_json),
        ("x.ndjson", as_json),
        ("x.parquet", as_parquet),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_format_plain_and_gzipped_gives_the_same(
    tmp_path: Path, name: str, make: Any, zipped: bool
) -> None:
    data = make(tmp_path)
    path = tmp_path / (name + ".gz" if zipped else name)
    path.write_bytes(gzip.compress(data) if zipped else data)
    frame = interactions(run(tmp_path, of_files(path)))
    assert frame["user_id"].tolist() == ["007", "8"]
    assert frame["item_id"].tolist() == ["a", "b"]
    assert frame["timestamp"].astype("int64").tolist() == [1_580_472_000_000_000, 1_580_472_001_000_000]
    assert frame["event"].tolist() == ["interaction"] * 2
    assert frame["value"].tolist()[0] == 1.5
    assert frame["value"].isna().tolist() == [False, True]


def test_a_glob_reads_its_files_in_order_of_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        written(tmp_path / f"{name}.csv", HEADER, f"{name},x,1")
    chunks = list(read(of_files(tmp_path / "*.csv")).interactions)
    assert [chunk["user_id"].tolist() for chunk in chunks] == [["a"], ["b"]]


@pytest.mark.parametrize(
    "columns",
    [
        {"user_id": "who", "item_id": "what", "timestamp": "when"},
        {"who": "user_id", "what": "item_id", "when": "timestamp"},
        {"interactions.user_id": "who", "item_id": "what", "when": "interactions.timestamp"},
    ],
)
def test_columns_are_mapped_either_way(tmp_path: Path, columns: dict[str, str]) -> None:
    frame = first(written(tmp_path / "x.csv", "who,what,when,shop", "1,2,3,4"), columns=columns)
    assert frame.drop(columns="_place").to_dict("records") == [
        {"user_id": "1", "item_id": "2", "timestamp": "3", "shop": "4"}
    ]


@pytest.mark.parametrize("constant", [{"constant": "purchase"}, "=purchase", "purchase"])
def test_event_may_be_a_constant(tmp_path: Path, constant: Any) -> None:
    path = written(tmp_path / "x.csv", HEADER, ROW)
    frame = first(path, columns={"event": constant, "value": 2})
    assert frame["event"].tolist() == ["purchase"]
    assert frame["value"].tolist() == [2]


def test_event_names_a_column_if_there_is_one(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", f"{HEADER},type", f"{ROW},click")
    assert first(path, columns={"event": "type"})["event"].tolist() == ["click"]


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("event_typ", "event_type"),
        ("EventType", "event_type"),
        ("event_types", "event_type"),
        ("user", "user_id"),
        ("activity_kind", None),
        ("action", None),
        ("add to cart", None),
    ],
)
def test_a_misspelt_column_is_not_taken_for_the_event_of_every_row(
    tmp_path: Path, word: str, near: str | None
) -> None:
    path = written(tmp_path / "x.csv", f"{HEADER},event_type", f"{ROW},click")
    with pytest.raises(ConfigError, match=rf"columns\.event: .*{word}.*{near or ''}.*constant: {word}"):
        first(path, columns={"event": word})
    assert first(path, columns={"event": {"constant": word}})["event"].tolist() == [word]


@pytest.mark.parametrize(
    ("theirs", "other", "columns"),
    [
        ("value", "stars", {}),
        ("event", "type", {}),
        ("stars", "rating", {"value": "stars"}),
        ("stars", "Stars", {"stars": "value"}),
        ("review", "review_text", {"text": "review"}),
        ("name", "title_long", {"title": "name"}),
    ],
)
def test_a_column_that_one_of_several_files_calls_otherwise_is_refused(
    tmp_path: Path, theirs: str, other: str, columns: dict[str, Any]
) -> None:
    written(tmp_path / "a.csv", f"{HEADER},{theirs}", f"{ROW},5")
    written(tmp_path / "b.csv", f"{HEADER},{other}", f"{ROW},4")
    with pytest.raises(DataError, match=rf"[ab]\.csv: no column '{theirs}' for .*columns there: .*{other}"):
        first(tmp_path / "*.csv", columns=columns)


def test_files_may_call_a_column_differently_if_both_names_are_told(tmp_path: Path) -> None:
    written(tmp_path / "a.csv", f"{HEADER},stars", f"{ROW},5")
    written(tmp_path / "b.csv", f"{HEADER},rating", f"{ROW},4")
    section = of_files(tmp_path / "*.csv", columns={"stars": "value", "rating": "value"})
    assert [chunk["value"].tolist() for chunk in read(section).interactions] == [["5"], ["4"]]


def test_a_column_may_be_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", f"{HEADER},text", f"{ROW},secret")
    assert "text" in first(path)
    assert "text" not in first(path, columns={"text": None})


def test_further_columns_that_look_like_ours_get_another_name(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", f"{HEADER},Timestamp,month,value,stars", f"{ROW},t,m,v,5")
    frame = first(path, columns={"value": "stars"})
    assert frame.columns.tolist() == [
        "value", "user_id", "item_id", "timestamp", "file_Timestamp", "file_month", "file_value", "_place",
    ]  # fmt: skip


def test_items_come_from_the_first_filled_cell_in_time(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.csv",
        f"{HEADER},title,description,categories,year,text",
        "1,a,2020-01-02,Later,,x|y,,nice",
        "1,a,2020-01-01,,about a,,,bad",
        "2,b,2020-01-01,Second,,,1999,",
        "3,b,2020-01-01,First,,z,2001,",
    )
    for named in (None, path):
        raw = run(tmp_path, of_files(path, items=named))
        found = items(raw)
        assert found["title"].to_dict() == {"a": "Later", "b": "First"}  # of a tie the first by the alphabet
        assert found.loc["a", "text"] == "about a"
        assert found["categories"].to_dict() == {"a": ["x", "y"], "b": ["z"]}
        assert found["year"].fillna(0).to_dict() == {"a": 0, "b": 1999}
        frame = interactions(raw)
        assert sorted(frame["text"].dropna()) == ["bad", "nice"]
        assert frame.columns.tolist() == ["user_id", "item_id", "timestamp", "event", "value", "text"]


def test_rows_of_the_future_describe_no_item(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", f"{HEADER},title", "1,a,2020-01-01,", "1,a,2020-01-03,Spoiler")
    assert items(run(tmp_path, of_files(path, as_of="2020-01-02")))["title"].isna().all()


def test_items_and_users_have_files_of_their_own(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "user,item,time,text", "007,01,1580472000,a review")
    things = written(
        tmp_path / "items.csv",
        "item,name,description,categories,price,zip",
        "01,A,long,x|y,2.5,001",
        "02,B,,,1,7",
        "01,,,z,,",
        ",no id,,,,",
    )
    people = written(tmp_path / "users.csv", "user,age", "007,30", "8,", "8,41")
    columns = {"user_id": "user", "item_id": "item", "timestamp": "time", "title": "name"}
    raw = run(tmp_path, of_files(path, items=things, users=people, columns=columns, max_rejected_share=0.5))
    found = items(raw)
    assert found["title"].to_dict() == {"01": "A", "02": "B"}
    assert found["text"].fillna("").to_dict() == {"01": "long", "02": ""}
    assert found["categories"].to_dict() == {"01": ["z"], "02": []}  # the newest row
    assert found["price"].tolist() == [2.5, 1.0]
    assert found["zip"].tolist() == ["001", "7"]
    assert pd.read_parquet(raw / "users.parquet").to_dict("list") == {
        "user_id": ["007", "8"],
        "age": [30, 41],
    }
    assert interactions(raw)["text"].tolist() == ["a review"]
    manifest = json.loads((raw / "manifest.json").read_text())
    assert manifest["item_rows"] == {"kept": 2, "duplicates": 1, "unreadable_dates": 0}
    assert manifest["user_rows"] == {"kept": 2, "duplicates": 1}
    assert manifest["rejected"] == {"items": {"no_item_id": 1}}


def test_one_mapping_may_differ_by_table(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", f"{HEADER},body,summary", f"{ROW},review,s")
    things = written(tmp_path / "items.csv", "item_id,body,summary", "a,kept,about a")
    raw = run(tmp_path, of_files(path, items=things, columns={"text": "body", "items.text": "summary"}))
    assert interactions(raw)["text"].tolist() == ["review"]
    assert items(raw).loc["a", ["text", "body"]].tolist() == ["about a", "kept"]


def test_an_item_column_of_the_interactions_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", f"{HEADER},maker,price", f"{ROW},Acme,3.5")
    raw = run(tmp_path, of_files(path, columns={"items.brand": "maker", "items.text": "price"}))
    assert items(raw).loc["a", ["brand", "text"]].tolist() == ["Acme", "3.5"]
    assert "maker" not in interactions(raw)


def test_parquet_keeps_types_long_ids_and_lists(tmp_path: Path) -> None:
    rows = [
        {"user_id": 9007199254740993, "item_id": 1.0, "timestamp": 1580472000, "paid": True},
        {"user_id": None, "item_id": 2.0, "timestamp": 1580472000, "paid": None},
    ]
    pq.write_table(table(rows), tmp_path / "x.parquet")
    things = pa.table({"item_id": pa.array(["1", "2"]).dictionary_encode(), "categories": [["a", "b"], None]})
    pq.write_table(things, tmp_path / "items.parquet")
    section = of_files(tmp_path / "x.parquet", items=tmp_path / "items.parquet", max_rejected_share=0.5)
    raw = run(tmp_path, section)
    frame = interactions(raw)
    assert frame[["user_id", "item_id", "paid"]].values.tolist() == [["9007199254740993", "1", True]]
    assert items(raw)["categories"].tolist() == [["a", "b"], []]
    assert rejected(raw)[["reason", "place"]].to_numpy().tolist() == [["no_user_id", "x.parquet:2"]]


def test_uuids_are_hexadecimal_even_where_their_bytes_are_text(tmp_path: Path) -> None:
    users = [b"sixteen letters!", bytes(range(240, 256)), None]
    rows = {"user_id": pa.array(users, pa.binary(16)), "item_id": ["a"] * 3, "timestamp": [1580472000] * 3}
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    raw = run(tmp_path, of_files(tmp_path / "x.parquet", max_rejected_share=0.5))
    assert sorted(interactions(raw)["user_id"]) == sorted(cell.hex() for cell in users[:2])


def test_json_lines_of_all_shapes(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.jsonl",
        '{"user_id": 7, "item_id": "007", "timestamp": 1580472000.5, "more": {"a": [1]}}',
        "",
        '{"user_id": "7", "item_id": 7, "timestamp": "2020-01-31", "value": true, "new": "\\ud83d"}',
        '{"user_id": 7, "item_id": ',
        "[1, 2]",
    )
    raw = run(tmp_path, of_files(path, max_rejected_share=0.5))
    frame = interactions(raw)
    assert frame[["user_id", "item_id", "value"]].fillna(-1).values.tolist() == [
        ["7", "7", 1.0],
        ["7", "007", -1.0],
    ]
    assert frame["more"].tolist()[1] == '{"a": [1]}'
    assert frame["new"].tolist()[0] == "?"
    assert rejected(raw)[["reason", "place"]].to_numpy().tolist() == [
        ["not_json", "x.jsonl:4"],
        ["not_json", "x.jsonl:5"],
    ]


def test_an_object_that_names_a_field_twice_is_set_apart_unless_both_say_the_same(tmp_path: Path) -> None:
    head = '{"user_id": 1, "timestamp": 1580472000, "item_id": '
    rows = [head + '"a", "user_id": 1}', head + '"b", "user_id": 2}']
    inner = head + '"c", "more": {"x": 1, "x": 2}}'
    raw = run(tmp_path, of_files(written(tmp_path / "x.jsonl", *rows, inner), max_rejected_share=0.9))
    assert interactions(raw)["item_id"].tolist() == ["a"]
    assert rejected(raw)["reason"].tolist() == ["field_twice"] * 2
    with pytest.raises(DataError, match="names one field twice, with two values: write it once"):
        run(tmp_path, of_files(tmp_path / "x.jsonl"))


def test_a_field_with_a_point_in_its_name_may_stand_beside_one_in_an_object(tmp_path: Path) -> None:
    users: list[dict[str, Any]] = [
        {"user.id": "1"},
        {"user": {"id": "2"}},
        {"user.id": "3", "user": {"id": 3}},
    ]
    users.append({"user.id": None, "user": {"id": "4"}})
    rows = [json.dumps(user | {"item_id": "a", "timestamp": 1580472000}) for user in users]
    path, columns = tmp_path / "x.jsonl", {"user_id": "user.id"}
    raw = run(tmp_path, of_files(written(path, *rows), columns=columns))
    assert sorted(interactions(raw)["user_id"]) == ["1", "2", "3", "4"]
    both = json.dumps({"user.id": "5", "user": {"id": "6"}, "item_id": "a", "timestamp": 1580472000})
    with pytest.raises(DataError, match=r"x\.jsonl:5: a field 'user\.id' and another in an object"):
        run(tmp_path, of_files(written(path, *rows, both), columns=columns))


@pytest.mark.parametrize(("name", "shown"), [("time\u200dstamp", "200d"), ("t\u0456mestamp", "0456")])
def test_a_name_that_looks_like_another_is_shown_by_its_signs(tmp_path: Path, name: str, shown: str) -> None:
    path = written(tmp_path / "x.csv", f"user_id,item_id,{name}", "1,a,2020-01-31")
    with pytest.raises(DataError, match=rf"columns there: .*\\u{shown}.* like timestamp: \".*\\u{shown}"):
        first(path)


@pytest.mark.parametrize(("ours", "theirs"), [("Customer\u00a0ID", "Customer ID"), ("né", "ne\u0301\u200b")])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "xlsx"])
def test_a_column_is_found_whatever_nobody_sees_in_its_name(
    tmp_path: Path, ours: str, theirs: str, kind: str
) -> None:
    frame = pd.DataFrame({theirs: ["u"], "item_id\ufeff": ["a"], "\u200btimestamp ": ["2020-01-31"]})
    path = tmp_path / f"x.{kind}"
    if kind == "jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        {"csv": frame.to_csv, "parquet": frame.to_parquet, "xlsx": frame.to_excel}[kind](path, index=False)
    for name in (ours, theirs):
        assert first(path, columns={"user_id": name})["user_id"].tolist() == ["u"]


def test_reviews_and_products_of_a_shop_in_json_lines(tmp_path: Path) -> None:
    review = {"rating": 5.0, "title": "Great", "text": "Works", "images": [], "asin": "B1", "parent": "B0"}
    review |= {"user_id": "AG", "timestamp": 1588687728923, "verified": True}
    product = {"parent": "B0", "title": "Lamp", "description": ["Bright.", "Small."], "price": None}
    product |= {"categories": [["Home", "Light"]], "features": ["a", "b"]}
    product |= {"details": {"Brand": "X"}, "videos": [{"url": "u"}]}
    path = written(tmp_path / "reviews.jsonl", json.dumps(review))
    things = written(tmp_path / "products.jsonl", json.dumps(product))
    raw = run(tmp_path, of_files(path, items=things, columns={"item_id": "parent", "value": "rating"}))
    row = interactions(raw).iloc[0]
    assert row[["user_id", "item_id", "value", "text", "file_title"]].tolist() == [
        "AG",
        "B0",
        5.0,
        "Works",
        "Great",
    ]
    assert row["timestamp"] == pd.Timestamp(1588687728923, unit="ms", tz="UTC")
    found = items(raw).loc["B0"]
    assert found[["title", "text", "categories"]].tolist() == ["Lamp", "Bright. Small.", ["Home", "Light"]]
    assert found["features"] == ["a", "b"]
    assert found[["details", "videos"]].tolist() == ['{"Brand": "X"}', '[{"url": "u"}]']


def test_a_column_named_like_ours_may_be_something_else(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "0,1,timestamp,text", "u,i,1580472000,about i")
    raw = run(tmp_path, of_files(path, columns={"user_id": 0, "item_id": 1, "text": "description"}))
    assert items(raw).loc["i", "text"] == "about i"
    assert interactions(raw)["text"].isna().all()


def test_the_fingerprint_follows_the_contents(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", HEADER, ROW)
    section = of_files(path)
    before = fingerprint(section)
    path.rename(tmp_path / "y.csv")
    assert fingerprint(of_files(tmp_path / "y.csv")) == before
    written(path, HEADER, ROW, "8,b,1580472001")
    assert fingerprint(section) != before
    assert sources.fingerprint(section) == sources.fingerprint(section)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"item_id": "sku"},
            r"x\.csv: no column 'sku' for item_id; columns there: user_id, thing, timestamp, c1, c2, c3, c4, "
            r"c5, c6, c7, \.\.\. \(12 in all\); name it in collect\.files\.columns, like item_id: thing",
        ),
        ({"item_id": "thing", "title": "name"}, "no column 'name' for title; .*; correct .*columns.title"),
        ({"item_id": "thing", "thing": "item_id"}, "item_id is named twice"),
        ({"item_id": {"column": "thing"}}, "item_id: write the file's column or {constant: value}"),
        ({"item_id": "thing", "users.age": "c1"}, "no column 'c1' for age; .*correct .*users.age"),
        ({"item_id": "thing", "item.title": "c1"}, r"item\.title: did you mean items\.title\?"),
        ({"item_id": "thing", "titlle": "c1"}, r"titlle: did you mean title\?"),
        (
            {"item_id": "thing", "who": "user_id"},
            r"column 'user_id' became who by .*columns\.who.* user_id: user_id, too",
        ),
    ],
)
def test_a_mapping_that_fits_nothing_is_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    header = "user_id,thing,timestamp," + ",".join(f"c{number}" for number in range(1, 10))
    path = written(tmp_path / "x.csv", header, "1,2,3" + ",0" * 9)
    with pytest.raises((DataError, ConfigError), match=message):
        read(of_files(path, columns=columns))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, r"none\.csv: no such file: correct collect\.files\.interactions"),
        ("none*.csv", None, r"none\*\.csv: no file matches: correct collect\.files\.interactions"),
        ("", None, r"a folder: name its files, like .*/\*\.csv"),
        ("x.xls", b"", r"x\.xls: an unknown kind of workbook: save it as \.xlsx"),
        ("x.xlsx", b"PK no", r"x\.xlsx: no readable workbook: save it anew as \.xlsx, without a password"),
        ("x.log", b"", r"x\.log: unknown kind of file: bring \.csv.* else convert it"),
        ("x.zip", b"", r"x\.zip: an archive: unpack it"),
        ("x.csv", gzip.compress(b"a,b\n", mtime=0), r"x\.csv: gzip, not text: .*\.gz"),
        ("x.csv", b"PK\x03\x04...", r"x\.csv: a workbook .*\.xlsx"),
        ("x.csv", "user_id,item_id\n".encode("utf-16-le"), r"files\.encoding to utf-16-le"),
        ("x.csv", b'{"user_id": 1, "item_id": 2}\n', r"x\.csv: JSON, .*\.jsonl"),
        ("x.csv", b"<!DOCTYPE html><p>Log in,please\n", r"x\.csv: a page or XML"),
        ("x.csv", b"USER_ID,item,when\n1,2,3\n", "like user_id: USER_ID"),
        ("x.csv", b"#user_id,item_id,timestamp\n1,2,3\n", 'like user_id: "#user_id"'),
        ("x.csv", b"# of May, all\nuser_id,item_id,timestamp\n", "lines stand above the header"),
        (
            "x.csv",
            "é,item_id\n1,2\n".encode("cp1252"),
            r"header is not UTF-8 text: .*files\.encoding.*cp1252",
        ),
        ("x.csv", b"196,242,881250949\n1,2,3\n", r"no column 'user_id' .* no header, .*files\.header"),
        ("x.csv", b"", r"x\.csv: empty"),
        ("x.jsonl", b"\n", r"x\.jsonl: empty"),
        ("x.json", b'[{"user_id": 1}]', r"x\.json: a JSON array: write one object a line"),
        ("x.parquet", b"PAR1 not", r"x\.parquet: not a Parquet file"),
        ("x.csv.gz", b"not gzip", r"x\.csv\.gz: damaged gzip"),
        ("x.csv.gz", gzip.compress(b"a" * 9999, mtime=0)[:30], r"x\.csv\.gz: damaged gzip"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: Any, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((DataError, ConfigError), match=message):
        list(read(of_files(tmp_path / name)).interactions)


@pytest.mark.parametrize("told", ["sep=;", '"sep=;"', "\ufeffsep=;\r"])
def test_a_line_that_tells_spreadsheets_the_delimiter_is_followed(tmp_path: Path, told: str) -> None:
    frame = first(written(tmp_path / "x.csv", told, HEADER.replace(",", ";"), "7;a,b;1580472000"))
    assert frame.iloc[0].tolist() == ["7", "a,b", "1580472000", "x.csv:3"]


def test_no_file_named_at_all() -> None:
    with pytest.raises(ConfigError, match=r"collect\.files\.interactions: null; name a file"):
        read(
            of_files("x").model_copy(
                update={"files": of_files("x").files.model_copy(update={"interactions": None})}
            )
        )


def test_params_say_how_a_column_writes_times(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "user_id,item_id,when", "1,a,31/01/2020 13:00", "1,b,2020-01-31")
    when = {"column": "when", "format": "%d/%m/%Y %H:%M", "zone": "Europe/Berlin"}
    raw = run(tmp_path, of_files(path, columns={"timestamp": when}, max_rejected_share=0.5))
    assert interactions(raw)["timestamp"].tolist() == [pd.Timestamp("2020-01-31 12:00", tz="UTC")]
    assert rejected(raw)["reason"].tolist() == ["unreadable_timestamp"]


def test_date_and_time_may_be_two_columns(tmp_path: Path) -> None:
    rows = ["1,a,2020-01-31,13:00", "2,b,2020-01-31,9:05:30", "3,c,2020-01-31,"]
    path = written(tmp_path / "x.csv", "user_id,item_id,day,hour", *rows)
    when = {"date": "day", "time": "hour", "zone": "Europe/Berlin"}
    raw = run(tmp_path, of_files(path, columns={"timestamp": when}, max_rejected_share=0.5))
    found = interactions(raw)
    assert found["timestamp"].dt.strftime("%H:%M:%S").tolist() == ["08:05:30", "12:00:00"]
    assert not {"day", "hour"} & set(found.columns)
    assert rejected(raw)["reason"].tolist() == ["no_timestamp"]


def test_date_and_time_of_two_columns_have_one_format(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "user_id,item_id,day,hour", "1,a,31.01.2020,1:05 PM")
    when = {"date": "day", "time": "hour", "format": "%d.%m.%Y %I:%M %p"}
    found = interactions(run(tmp_path, of_files(path, columns={"timestamp": when})))
    assert found["timestamp"].tolist() == [pd.Timestamp("2020-01-31 13:05", tz="UTC")]


@pytest.mark.parametrize("typed", [True, False])
def test_workbooks_and_parquet_hold_dates_and_times_apart(tmp_path: Path, typed: bool) -> None:
    day, hour = datetime(2020, 1, 31), time(13, 5)
    frame = pd.DataFrame({"user_id": ["1"], "item_id": ["a"], "day": [day], "hour": [hour]})
    path = tmp_path / ("x.parquet" if typed else "x.xlsx")
    (frame.to_parquet if typed else frame.to_excel)(path, index=False)
    when = {"date": "day", "time": "hour"}
    found = interactions(run(tmp_path, of_files(path, columns={"timestamp": when})))
    assert found["timestamp"].tolist() == [pd.Timestamp("2020-01-31 13:05", tz="UTC")]


@pytest.mark.parametrize(
    ("when", "error", "message"),
    [
        ({"date": "day", "time": "our"}, DataError, "x.csv: no column 'our' for timestamp"),
        ({"date": "day"}, ConfigError, r"columns\.timestamp: .*\{date: X, time: Y\}"),
        ({"date": "day", "time": "hour", "column": "day"}, ConfigError, r"columns\.timestamp: "),
    ],
)
def test_half_of_a_moment_is_refused(
    tmp_path: Path, when: dict[str, str], error: type[Exception], message: str
) -> None:
    path = written(tmp_path / "x.csv", "user_id,item_id,day,hour", "1,a,2020-01-31,13:00")
    with pytest.raises(error, match=message):
        run(tmp_path, of_files(path, columns={"timestamp": when}))


def test_a_later_row_of_an_item_wins_and_categories_of_one_row_each_are_united(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", HEADER, ROW)
    things = written(
        tmp_path / "items.csv", "item_id,title,price,categories,updated_at",
        "a,new,2,x,2020-02-01", "a,old,1,y,2020-01-01", "b,B,1,x,2020-01-01", "b,B,1,y,2020-01-01",
    )  # fmt: skip
    found = items(run(tmp_path, of_files(path, items=things)))
    assert found["title"].to_dict() == {"a": "new", "b": "B"}
    assert found["categories"].to_dict() == {"a": ["x"], "b": ["x", "y"]}


def test_times_that_cannot_be_are_set_apart_and_do_not_move_as_of(tmp_path: Path) -> None:
    times = ["1580472000", "1580472001", "0", "4070908800", "9999-12-31", "0001-01-01"]
    path = written(tmp_path / "x.csv", HEADER, *(f"u,{n},{time}" for n, time in enumerate(times)))
    raw = run(tmp_path, of_files(path, max_rejected_share=0.9))
    manifest = json.loads((raw / "manifest.json").read_text())
    assert manifest["as_of"] == "2020-01-31T12:00:01+00:00"
    assert manifest["rejected"] == {"interactions": {"implausible_timestamp": 4}}


def test_headers_in_the_midst_are_told_apart_from_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", HEADER, ROW, HEADER, ROW.replace("7", "8", 1))
    bad = rejected(run(tmp_path, of_files(path, max_rejected_share=0.5)))
    assert bad[["reason", "place"]].to_numpy().tolist() == [["header_again", "x.csv:3"]]
    with pytest.raises(DataError, match=r"header again 2.*collect\.files\.header to null"):
        run(tmp_path, of_files(path, header=HEADER.split(","), max_rejected_share=0.1))


def test_one_column_may_be_two_of_ours_where_both_are_said(tmp_path: Path) -> None:
    columns = {"title": "item_id", "item_id": "item_id"}
    raw = run(tmp_path, of_files(written(tmp_path / "x.csv", HEADER, ROW), columns=columns))
    assert items(raw)["title"].to_dict() == {"a": "a"}


def test_points_that_part_thousands_are_asked_about(tmp_path: Path) -> None:
    """634, 951, 1.268: read as fractions, the largest purchases would be the smallest."""
    values = [f"{n // 1000}.{n % 1000:03d}" if n > 999 else str(n) for n in range(317, 8000, 317)]
    rows = [f"{n},a,2020-01-{n % 28 + 1:02d},{value}" for n, value in enumerate(values)]
    path = written(tmp_path / "x.csv", "user_id,item_id,timestamp,value", *rows)
    with pytest.raises(DataError, match=r'collect\.files\.decimal to "," if 1\.268 is 1268'):
        run(tmp_path, of_files(path))
    found = interactions(run(tmp_path, of_files(path, decimal=",")))
    assert sorted(found["value"]) == list(range(317, 8000, 317))
    found = interactions(run(tmp_path, of_files(path, decimal=".")))
    assert found["value"].min() == 1.268


def test_fractions_of_any_length_are_fractions(tmp_path: Path) -> None:
    rows = [f"{n},a,2020-01-31,{n + 1}.{n:03d}" for n in range(20)]
    path = written(tmp_path / "x.csv", "user_id,item_id,timestamp,value", *rows, "20,a,2020-01-31,0.5")
    assert interactions(run(tmp_path, of_files(path)))["value"].max() == 20.019


@pytest.mark.parametrize("column", ["value", "user_id"])
def test_formulas_that_nobody_computed_are_no_empty_cells(tmp_path: Path, column: str) -> None:
    frame = pd.DataFrame(
        {"user_id": ["1"] * 3, "item_id": list("abc"), "timestamp": ["2020-01-31"] * 3, "value": [1, 2, 3]}
    ).astype({column: object})
    frame[column] = "=IF(5>3,5,1)"
    path = tmp_path / "x.xlsx"
    frame.to_excel(path, index=False)
    with pytest.raises(DataError, match="formulas that were never computed"):
        run(tmp_path, of_files(path))


@pytest.mark.parametrize("typed", [True, False])
def test_a_workbook_that_counts_days_since_1904(tmp_path: Path, typed: bool) -> None:
    """As Excel of old Macs did; a bare number is 2020-01-31 12:00 there, and four years earlier elsewhere."""
    book = openpyxl.Workbook()
    book.epoch = CALENDAR_MAC_1904
    book.active.append(["user_id", "item_id", "timestamp", "value"])
    book.active.append(["1", "a", datetime(2020, 1, 31, 12) if typed else 42_399.5, 42_399.5])
    book.save(tmp_path / "x.xlsx")
    found = interactions(run(tmp_path, of_files(tmp_path / "x.xlsx")))
    assert found["timestamp"].tolist() == [pd.Timestamp("2020-01-31 12:00", tz="UTC")]
    assert found["value"].tolist() == [42_399.5]


def test_an_id_that_a_workbook_rounded_is_no_empty_cell(tmp_path: Path) -> None:
    path, when = tmp_path / "x.xlsx", datetime(2020, 1, 31)
    frame = pd.DataFrame({"user_id": ["u"], "item_id": [1.2345678901234567e19], "timestamp": [when]})
    frame.to_excel(path, index=False)
    with pytest.raises(DataError, match=r"item id rounded as a float 1.*as text"):
        run(tmp_path, of_files(path))


def test_places_tell_files_of_one_name_apart(tmp_path: Path) -> None:
    for folder in ("2023", "2024", "shop=1", "shop=2"):
        written(tmp_path / folder / "x.csv", HEADER, ROW, "1,a,soon")
    raw = run(tmp_path / "a", of_files(tmp_path / "20*" / "x.csv", max_rejected_share=0.5))
    assert rejected(raw)["place"].tolist() == ["2023/x.csv:3", "2024/x.csv:3"]
    raw = run(tmp_path / "b", of_files(tmp_path / "shop=*" / "x.csv", max_rejected_share=0.5))
    assert rejected(raw)["place"].tolist() == ["shop=1/x.csv:3", "shop=2/x.csv:3"]


def test_two_columns_of_one_name_are_refused_where_it_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "user_id,item_id,timestamp,value,value", "1,a,2020-01-31,0,5")
    with pytest.raises(DataError, match=r"x\.csv: two columns are called 'value'"):
        run(tmp_path, of_files(path))
    path = written(tmp_path / "y.csv", "user_id,item_id,timestamp,page,page", "1,a,2020-01-31,0,5")
    assert len(interactions(run(tmp_path, of_files(path)))) == 1


@pytest.mark.parametrize(
    ("times", "clock"),
    [
        (["12", "930", "1412"], ["00:12", "09:30", "14:12"]),
        (["93005", "141259"], ["09:30:05", "14:12:59"]),
        (["9", "14"], ["09:00", "14:00"]),
    ],
)
def test_times_of_day_get_back_the_zeros_they_lost(
    tmp_path: Path, times: list[str], clock: list[str]
) -> None:
    rows = [f"1,{n},2020-01-31,{time}" for n, time in enumerate(times)]
    path = written(tmp_path / "x.csv", "user_id,item_id,day,hour", *rows)
    found = interactions(
        run(tmp_path, of_files(path, columns={"timestamp": {"date": "day", "time": "hour"}}))
    )
    assert found["timestamp"].tolist() == [pd.Timestamp(f"2020-01-31 {time}", tz="UTC") for time in clock]
