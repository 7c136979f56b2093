"""collect.files: how the files are written, where they do not show it themselves."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from collecting import ROOT, interactions, items, of_files, params_file, rejected, run, written

from pipeline.check.command import check
from pipeline.errors import ConfigError, DataError
from pipeline.params import Params
from pipeline.sources.files import fingerprint, read

HEADER = "user_id,item_id,timestamp"
ROW = "007,a,1580472000"


def workbook(path: Path, **sheets: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_a_shop_of_another_country_is_read_as_it_writes(tmp_path: Path) -> None:
    orders = tmp_path / "orders.csv"
    orders.write_bytes("Käufer;Artikel;Zeit;Menge\r1;007;44927,5;1.234,5\r2;Ü8;44928;-2\r".encode("cp1252"))
    things = written(tmp_path / "items.csv", "item_id;name;price", "007;Größe;1.299,00", "Ü8;x;,5")
    columns = {"user_id": "Käufer", "item_id": "Artikel", "items.item_id": "item_id", "title": "name"}
    columns |= {"timestamp": {"column": "Zeit", "zone": "Europe/Berlin"}, "value": "Menge"}
    section = of_files(
        orders, items=things, columns=columns, encoding={"interactions": "cp1252"}, decimal=","
    )
    raw = run(tmp_path, section)
    rows = interactions(raw)
    assert rows["value"].tolist() == [1234.5, -2.0]
    assert rows["item_id"].tolist() == ["007", "Ü8"]
    assert rows["timestamp"].tolist()[0] == pd.Timestamp("2023-01-01 11:00", tz="UTC")
    assert items(raw)["title"].tolist() == ["Größe", "x"]
    assert items(raw)["price"].tolist() == [1299.0, 0.5]


@pytest.mark.parametrize(
    ("decimal", "cell", "expected"),
    [
        (None, "1.5", 1.5), (None, "1,5", None), (None, "1,234.5", None),
        (".", "1,234.5", 1234.5), (".", "1.5", 1.5), (".", "1,5", None), (".", "1e3", 1000.0),
        (",", "1,5", 1.5), (",", "1.234", 1234.0), (",", "1.5", None), (",", "1 234,5", 1234.5),
        (",", "-1'234", -1234.0), (",", "12.34.567", None), (",", "1,5e-1", 0.15), (",", "x", None),
        (",", "1\u202f234,5", 1234.5), (",", "-,5", -0.5), (",", ",", None), (".", ".", None),
    ],
)  # fmt: skip
def test_decimals_are_read_as_said_or_set_apart(
    tmp_path: Path, decimal: str | None, cell: str, expected: float | None
) -> None:
    path = written(tmp_path / "x.tsv", "user_id\titem_id\ttimestamp\tvalue", f"1\ta\t1580472000\t{cell}")
    written(tmp_path / "y.tsv", "user_id\titem_id\ttimestamp\tvalue", "1\tb\t1580472000\t2")
    raw = run(tmp_path, of_files(path.parent / "*.tsv", decimal=decimal, max_rejected_share=0.5))
    assert interactions(raw)["value"].tolist() == ([2.0] if expected is None else [expected, 2.0])
    assert rejected(raw)["reason"].tolist() == ["value_not_a_number"] * (expected is None)


@pytest.mark.parametrize(
    ("lines", "columns", "changes", "message"),
    [
        ([f"{HEADER},value", f"{ROW},1,5"], {}, {}, r"or collect\.files\.delimiter"),
        ([f"{HEADER},value", f'{ROW},"1,5"'], {}, {}, r'set collect\.files\.decimal to ","'),
        (["user_id;item_id;timestamp;value", "1;a;1580472000;1.5"], {}, {"decimal": ","}, r'decimal to "\."'),
        ([HEADER, "Zoë,a,1580472000"], {}, {}, r"not utf8 1.*collect\.files\.encoding, like cp1252"),
        (['{"user": {"id": 7}, "item_id": 1, "timestamp": 1580472000}'], {"user_id": "user"}, {},
         r"name the field inside .*like user_id: COLUMN\.id"),
    ],
)  # fmt: skip
def test_bad_rows_name_the_setting_that_mends_them(
    tmp_path: Path, lines: list[str], columns: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / ("x.jsonl" if lines[0].startswith("{") else "x.csv")
    path.write_bytes("\n".join([*lines, ""]).encode("cp1252"))
    with pytest.raises(DataError, match=message):
        run(tmp_path, of_files(path, columns=columns, **changes))


def test_check_names_the_setting_that_mends_bad_rows(tmp_path: Path) -> None:
    rows = [f'{user},i{user % 7},{1580472000 + user},"{user},5"' for user in range(40)]
    path = written(tmp_path / "x.csv", f"{HEADER},value", *rows, "u,i,1580472000,2")
    finding = next(
        finding
        for finding in check(Params.load(params_file(tmp_path, of_files(path)))).findings
        if finding.kind == "bad_rows"
    )
    assert (finding.severity, finding.key) == ("error", "collect.files.decimal")
    assert 'decimal to ","' in finding.line


def test_check_names_what_mends_a_source_of_which_nothing_can_be_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", HEADER, *(f"u{n},i,{n:02d}/01/2020" for n in range(1, 29)))
    [finding] = check(Params.load(params_file(tmp_path, of_files(path)))).findings
    assert (finding.kind, finding.key) == ("unreadable", "collect.files.columns.timestamp")
    assert '"%d/%m/%Y"' in finding.line
    book = workbook(tmp_path / "x.xlsx", A=ORDERS, B=ORDERS)
    [finding] = check(Params.load(params_file(tmp_path, of_files(book)))).findings
    assert finding.key == "collect.files.sheet"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoding": "cp125"}, r"collect\.files\.encoding: name an encoding"),
        ({"encoding": "rot13"}, r"collect\.files\.encoding: name an encoding"),
        ({"encoding": {"items": "hex"}}, r"collect\.files\.encoding: name an encoding"),
        ({"encoding": {"orders": "utf-8"}}, r"collect\.files\.encoding\.orders"),
        ({"delimiter": ""}, r"collect\.files\.delimiter: name the signs"),
        ({"delimiter": "a"}, r"collect\.files\.delimiter: name the signs"),
        ({"delimiter": '"'}, r"collect\.files\.delimiter: name the signs"),
        ({"decimal": ";"}, r"collect\.files\.decimal"),
        ({"header": "user_id"}, r"collect\.files\.header: list the columns' names"),
        ({"header": ["a", "a"]}, r"collect\.files\.header: list the columns' names"),
        ({"header": []}, r"collect\.files\.header: list the columns' names"),
        ({"sheet": ""}, r"collect\.files\.sheet: write the name"),
        ({"quote": "'"}, r"collect\.files\.quote: unknown key"),
    ],
)
def test_nonsense_is_refused_by_its_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["collect"]["files"] |= changes
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message):
        Params.load(path)


@pytest.mark.parametrize("delimiter", ["\\t", "\t", "tab"])
def test_a_tab_may_be_written_as_shells_pass_it_on(delimiter: str) -> None:
    assert of_files("x", delimiter=delimiter).files.delimiter["interactions"] == "\t"


def test_files_without_headers_are_named_by_table(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "7,a,1580472000", "8,b,1580472001")
    things = written(tmp_path / "items.csv", "a|A thing", "b|Other")
    header = {"interactions": ["user_id", "item_id", "timestamp"], "items": ["item_id", "title"]}
    raw = run(tmp_path, of_files(path, items=things, header=header))
    assert interactions(raw)["user_id"].tolist() == ["7", "8"]
    assert items(raw)["title"].tolist() == ["A thing", "Other"]


def test_one_list_names_the_columns_of_the_interactions(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "7;a;1580472000")
    things = written(tmp_path / "items.csv", "item_id;title", "a;A thing")
    section = of_files(path, items=things, header=["who", "what", "timestamp"], columns={"who": "user_id"})
    section = section.model_copy(
        update={"files": section.files.model_copy(update={"columns": {"user_id": "who", "item_id": "what",
                                                                      "items.item_id": "item_id"}})}
    )  # fmt: skip
    raw = run(tmp_path, section)
    assert interactions(raw)[["user_id", "item_id"]].to_numpy().tolist() == [["7", "a"]]
    assert items(raw)["title"].tolist() == ["A thing"]


def test_json_lines_may_be_in_another_encoding(tmp_path: Path) -> None:
    row = {"user_id": "Zoë", "item_id": "a", "timestamp": 1580472000}
    path = tmp_path / "x.jsonl"
    for encoding, changes in (("cp1252", {"encoding": "cp1252"}), ("utf-16", {})):
        path.write_bytes((json.dumps(row, ensure_ascii=False) + "\n").encode(encoding))
        assert interactions(run(tmp_path, of_files(path, **changes)))["user_id"].tolist() == ["Zoë"]


WHEN = datetime(2020, 1, 31, 12, 0, 1)
ORDERS = [
    [None, None, None, None],
    ["user_id", "item_id", "timestamp", "value", None],
    [7, "007", WHEN, 1.5],
    [],
    ["8", 12345678, datetime(2020, 2, 1), None, None],
    ["9", "1", WHEN, 1, "note"],
]


def test_a_workbook_is_read_by_its_one_filled_sheet(tmp_path: Path) -> None:
    path = workbook(tmp_path / "shop.xlsx", Start=[[]], Orders=ORDERS)
    raw = run(tmp_path, of_files(path, max_rejected_share=0.5))
    rows = interactions(raw)
    assert rows[["user_id", "item_id"]].to_numpy().tolist() == [["7", "007"], ["8", "12345678"]]
    assert rows["timestamp"].tolist()[0] == pd.Timestamp(WHEN, tz="UTC")
    assert rows["value"].fillna(-1).tolist() == [1.5, -1]
    assert rejected(raw)[["reason", "place"]].to_numpy().tolist() == [
        ["wrong_number_of_fields", "shop.xlsx:6"]
    ]


def test_one_workbook_may_hold_all_tables(tmp_path: Path) -> None:
    things = [["item_id", "title", "price"], ["007", "A mug", 2.5], [12345678, "A lamp", 3]]
    path = workbook(tmp_path / "shop.xlsx", Orders=ORDERS[:-1], Products=things)
    sheets = {"interactions": "Orders", "items": "Products"}
    raw = run(tmp_path, of_files(path, items=path, sheet=sheets))
    assert items(raw)[["title", "price"]].to_numpy().tolist() == [["A mug", 2.5], ["A lamp", 3.0]]
    with pytest.raises(DataError, match=r"several sheets with rows: .*files\.sheet; there are Orders, Produ"):
        read(of_files(path))
    with pytest.raises(DataError, match=r"no sheet 'Order': .*files\.sheet; there are Orders, Products"):
        read(of_files(path, sheet="Order"))
    with pytest.raises(DataError, match=r"shop\.xlsx: no sheet with rows"):
        read(of_files(workbook(path, Empty=[])))


def test_fields_of_objects_may_be_columns(tmp_path: Path) -> None:
    rows = [
        {"user": {"id": 7}, "_id": {"$oid": "5f"}, "product": {"name": "A mug"}, "timestamp": 1580472000},
        {"user": {"id": None}, "_id": {"$oid": "60"}, "timestamp": 1580472000},
        {"user": 8, "_id": {"$oid": "61"}, "timestamp": 1580472000},
    ]  # fmt: skip
    columns = {"user.id": "user_id", "item_id": "_id.$oid", "title": "product.name"}
    path = written(tmp_path / "x.jsonl", *map(json.dumps, rows))
    raw = run(tmp_path, of_files(path, columns=columns, max_rejected_share=0.9))
    assert interactions(raw)[["user_id", "item_id"]].to_numpy().tolist() == [["7", "5f"]]
    assert items(raw).loc["5f", "title"] == "A mug"
    assert rejected(raw)["reason"].tolist() == ["no_user_id"] * 2
    pq.write_table(pa.Table.from_pylist(rows[:2]), tmp_path / "x.parquet")
    raw = run(tmp_path, of_files(tmp_path / "x.parquet", columns=columns, max_rejected_share=0.9))
    assert interactions(raw)["user_id"].tolist() == ["7"]
    with pytest.raises(DataError, match=r"no column 'user\.uid' for user_id"):
        read(of_files(path, columns={**columns, "user.id": "x", "user_id": "user.uid"}))


def test_folders_of_hive_are_columns(tmp_path: Path) -> None:
    things = written(tmp_path / "things" / "shelf=07" / "year=1999" / "i.csv", "item_id,year", "a,2001")
    for year, user in (("2020", "7"), ("2021", "8")):
        written(tmp_path / "log" / f"year={year}" / "shop=A%20B" / "x.csv", HEADER, f"{user},a,1580472000")
    written(tmp_path / "log" / "year=2022" / "shop=__HIVE_DEFAULT_PARTITION__" / "x.csv", HEADER, ROW)
    section = of_files(tmp_path / "log" / "*" / "*" / "*.csv", items=things, columns={"event": "year"})
    raw = run(tmp_path, section)
    rows = interactions(raw).sort_values("event")
    assert rows["event"].tolist() == ["2020", "2021", "2022"]
    assert rows["shop"].fillna("").tolist() == ["A B", "A B", ""]
    assert items(raw)[["year", "shelf"]].to_numpy().tolist() == [[2001, "07"]]  # the file's own cell stays
    before = fingerprint(section)
    (tmp_path / "log" / "year=2020").rename(tmp_path / "log" / "year=2019")
    assert fingerprint(section) != before


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"a": 1}, "x", ['{"a": 1}', "x"]),
        ({"a": 1}, {"b": [2]}, ['{"a": 1}', '{"b": [2]}']),
        (["p", "q"], "x", ['["p", "q"]', "x"]),
        ([{"a": 1}], ["q"], ['[{"a": 1}]', '["q"]']),
        ({"a": 1}, 2.5, ['{"a": 1}', "2.5"]),
        ({"a": 1}, None, ['{"a": 1}', None]),
    ],
)
def test_a_column_of_objects_in_one_file_and_something_else_in_another(
    tmp_path: Path, one: Any, other: Any, expected: list[Any]
) -> None:
    for name, cell in (("a", one), ("b", other)):
        row = {"user_id": name, "item_id": "i", "timestamp": 1580472000, "more": cell}
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"{name}.parquet")
        thing = {"item_id": name, "more": cell}
        pq.write_table(pa.Table.from_pylist([thing]), tmp_path / f"{name}.items.parquet")
    section = of_files(tmp_path / "[ab].parquet", items=tmp_path / "*.items.parquet", min_joined_share=0)
    raw = run(tmp_path, section)
    rows = interactions(raw).sort_values("user_id")["more"]
    assert [None if cell is None or cell != cell else cell for cell in rows] == expected
    assert items(raw)["more"].dropna().tolist() == [cell for cell in expected if cell is not None]


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        ("x.jsonl", ['{"user_id": "u", "item_id": "a", "timestamp": 1704067200},'] * 3, "without commas"),
        ("x.jsonl", ["{", '"user_id": "u",', '"item_id": "a"', "}"], "one object a line"),
        ("x.csv", ["Report of 2024", "user_id,item_id,timestamp", "u,a,2024-01-01"], "above the header"),
        ("x.csv", ["user_id item_id timestamp", "u a 2024-01-01"], "collect.files.delimiter"),
    ],
)
def test_files_in_another_form_than_they_seem_are_told_what_to_mend(
    tmp_path: Path, name: str, lines: list[str], said: str
) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        run(tmp_path, of_files(written(tmp_path / name, *lines)))


def test_words_become_events_as_the_advice_for_values_says(tmp_path: Path) -> None:
    lines = ["user_id,item_id,timestamp,value", "u,a,2024-01-01,yes", "u,b,2024-01-02,no"]
    path = written(tmp_path / "x.csv", *lines)
    with pytest.raises(DataError, match=r'collect\.files\.columns\.event: X.*\["yes"\]'):
        run(tmp_path, of_files(path))
    frame = interactions(run(tmp_path, of_files(path, columns={"event": "value"})))
    assert (frame["event"].tolist(), frame["value"].isna().all()) == (["yes", "no"], True)


def test_formulas_that_no_spreadsheet_computed_are_explained(tmp_path: Path) -> None:
    rows = [["user_id", "item_id", "timestamp"], ["u", '=CONCATENATE("i", 1)', "2024-01-31"]]
    with pytest.raises(DataError, match="formulas"):
        run(tmp_path, of_files(workbook(tmp_path / "x.xlsx", Orders=rows)))
