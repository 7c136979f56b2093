import io
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.sources import PLACE, RAW, REASON, _delimited, _text
from pipeline.sources._delimited import Dialect, read


def frame(text: str | bytes, dialect: Dialect | None = None) -> pd.DataFrame:
    data = text.encode() if isinstance(text, str) else text
    return pd.concat(list(read(io.BytesIO(data), "x.csv", dialect or Dialect())), ignore_index=True)


def good(table: pd.DataFrame) -> list[list[str]]:
    rows = table[table[REASON].isna()] if REASON in table else table
    return rows.drop(columns=[PLACE, REASON, RAW], errors="ignore").to_numpy().tolist()


def bad(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    rows = table[table[REASON].notna()]
    return list(zip(rows[PLACE], rows[REASON], rows[RAW], strict=True))


@pytest.mark.parametrize("quoted", ["1,2,3", '1,2,"3"'])  # a quote sends the block through the careful path
def test_rows_with_a_wrong_number_of_fields_cost_only_themselves(quoted: str) -> None:
    table = frame(f"a,b,c\n{quoted}\n4,5,6\n7,8\n1,2,3,4\n007,,9\n")
    assert good(table) == [["1", "2", "3"], ["4", "5", "6"], ["007", "", "9"]]
    assert bad(table) == [
        ("x.csv:4", "wrong_number_of_fields", "7,8"),
        ("x.csv:5", "wrong_number_of_fields", "1,2,3,4"),
    ]
    assert table[PLACE].tolist()[:3] == ["x.csv:2", "x.csv:3", "x.csv:6"]


def test_an_unclosed_quote_does_not_swallow_the_rest() -> None:
    table = frame('a,b\n1,"x\n2,y\n3,z\n')
    assert good(table) == [["2", "y"], ["3", "z"]]
    assert bad(table) == [("x.csv:2", "unclosed_quote", '1,"x')]


def test_two_unclosed_quotes_do_not_make_one_row_of_what_lies_between() -> None:
    table = frame('a,b\n1,"x\n2,y\n3,"z\n4,w\n')
    assert good(table) == [["2", "y"], ["4", "w"]]
    assert [reason for _, reason, _ in bad(table)] == ["unclosed_quote"] * 2


def test_a_quoted_field_may_hold_line_breaks_quotes_and_commas() -> None:
    table = frame('a,b\r\n1,"two\r\nlines, ""so"" to say"\r\n2,5" nail\r\n3,"x"\r\n')
    assert good(table) == [["1", 'two\r\nlines, "so" to say'], ["2", '5" nail'], ["3", "x"]]
    assert table[PLACE].tolist() == ["x.csv:2", "x.csv:4", "x.csv:5"]


def test_text_after_a_closing_quote_is_a_broken_row() -> None:
    assert bad(frame('a,b\n1,"x"y\n2,z\n')) == [("x.csv:2", "misplaced_quote", '1,"x"y')]


def test_bytes_that_are_no_utf8_cost_their_row() -> None:
    table = frame("a,b\n1,é\n".encode() + "2,é\n".encode("latin-1") + b"3,x\n")
    assert good(table) == [["1", "é"], ["3", "x"]]
    assert bad(table) == [("x.csv:3", "not_utf8", "2,\\xe9")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufeffa,b\n1,2\n", [["1", "2"]]),
        ("\n\na,b\n\n1,2\n\n", [["1", "2"]]),
        ('\ufeff\ufeff"a","b"\n1,2\n', [["1", "2"]]),
        ("\u200ba,b\u00a0\u200e\n1,2\n", [["1", "2"]]),
        ("'a','b'\n'1','2, or ''3'''\n", [["1", "2, or '3'"]]),
        ("'a';'b'\n'1; x';2\n", [["1; x", "2"]]),
        ("a,b\n'1','2\\'3'\n'4',NULL\n5,'6\n7'\n" + "8,'9'\n" * 30, None),
        ("a,b\n'tis,'2'\n'3','4'\n", [["'tis", "'2'"], ["'3'", "'4'"]]),
        ("a,b\n1,it's\n2,'x'\n", [["1", "it's"], ["2", "'x'"]]),
        ('"a", "b"\n"1", "2, 3"\n', [["1", "2, 3"]]),
        ("'a', 'b'\n'1', '2, 3'\n", [["1", "2, 3"]]),
        ('a,b\n1, "x" y\n', [["1", ' "x" y']]),
        ("a,b\n1,2", [["1", "2"]]),
        ("a;b\n1;2,5\n", [["1", "2,5"]]),
        ('"a","\nb\n"\n1,2\n', [["1", "2"]]),
        ("a\tb\n1\t2\n", [["1", "2"]]),
        ('"a","b"\n"1","2"\n', [["1", "2"]]),
        ("a,b\n", []),
    ],
)
def test_shapes_of_files(text: str, expected: list[list[str]] | None) -> None:
    table = frame(text)
    assert table.columns.tolist() == ["a", "b", PLACE]
    if expected is None:
        expected = [["1", "2'3"], ["4", "NULL"], ["5", "6\n7"], *[["8", "9"]] * 30]
    assert good(table) == expected


def test_columns_get_names_of_their_own() -> None:
    assert frame(",a,a\n1,2,3\n").columns.tolist() == ["column_1", "a", "a (2)", PLACE]


def test_line_breaks_in_names_are_blanks_and_lines_are_counted_on() -> None:
    table = frame('a,"Order\nDate"\n1,2\n3,"4\n5"\n6,7\n')
    assert table.columns.tolist() == ["a", "Order Date", PLACE]
    assert table[PLACE].tolist() == ["x.csv:3", "x.csv:4", "x.csv:6"]
    assert frame('a,b"\n1,"2"\n').columns.tolist() == ["a", 'b"', PLACE]


def test_typographic_quotes_are_refused() -> None:
    with pytest.raises(DataError, match="typographic quotes: write straight ones"):
        frame("“a”,“b”\n“1”,“2”\n")


@pytest.mark.parametrize("again", ["\ufeffa,b", " a , b"])
def test_a_further_header_is_told_from_rows_whatever_nobody_sees_in_it(again: str) -> None:
    table = frame(f"a,b\n1,2\n{again}\n3,4\n")
    assert good(table) == [["1", "2"], ["3", "4"]]
    assert [reason for _, reason, _ in bad(table)] == ["header_again"]


def test_quotes_of_tab_separated_text_may_mean_nothing() -> None:
    table = frame('a\tb\n1\t"Why" she said\n2\t"open\n3\t"x\ty"\n', Dialect("\t", literal_quotes=True))
    assert good(table) == [["1", '"Why" she said'], ["2", '"open'], ["3", "x\ty"]]


def test_a_delimiter_of_two_characters_and_another_encoding() -> None:
    dialect = Dialect("::", names=("a", "b"), quoting=False, encoding="latin-1")
    table = frame('1::Misérables "Les": x\n2::y::z\n'.encode("latin-1"), dialect)
    assert good(table) == [["1", 'Misérables "Les": x']]
    assert bad(table) == [("x.csv:2", "wrong_number_of_fields", "2::y::z")]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_named(data: bytes) -> None:
    with pytest.raises(DataError, match=r"x\.csv: empty"):
        frame(data)


@pytest.mark.parametrize("data", [b"a,\xff\n1,2\n", b"\x00\x01\x02"])
def test_a_header_that_is_no_text_is_named(data: bytes) -> None:
    with pytest.raises(DataError, match=r"x\.csv: the header is not UTF-8 text: .*collect\.files\.encoding"):
        frame(data)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Café,naïve\n“Zoë”,1 €\n"),
        ("iso-8859-2", "Łódź,ż\nDvořák,ę\n"),
        ("cp1251", "Имя,б\nЖ,я\n"),
        ("shift_jis", "表,b\n能\u3000ソ,ポ|\n"),
        ("gb18030", "名,b\n中文,𠀀\n"),
        ("utf-16-le", "ü,b\nĊ,\u0a0d\n"),  # their bytes hold those of line breaks
        ("utf-16", "ü,b\n😀,\u0d0a\n"),
        ("utf-32", "ü,b\n😀,x\n"),
    ],
)
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends_give_the_same(encoding: str, text: str, ends: str) -> None:
    expected = [line.split(",") for line in text.splitlines()]
    table = frame(text.replace("\n", ends).encode(encoding), Dialect(encoding=encoding))
    assert [table.columns.tolist()[:2], *good(table)] == expected


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_utf_16_is_seen_by_its_mark(encoding: str) -> None:
    assert good(frame("a,b\n1,é\n".encode(encoding))) == [["1", "é"]]


def test_half_a_sign_of_utf_16_is_named() -> None:
    with pytest.raises(DataError, match=r"x\.csv: no utf-16 text .*collect\.files\.encoding"):
        frame("a,b\n1,2\n".encode("utf-16")[:-1])


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1251", "shift_jis"])
def test_utf8_is_not_read_as_something_else(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"a,b\n" + b"1,x\n" * 100 + "2,Café\n".encode()
    monkeypatch.setattr(_text, "_HEAD", 16)
    with pytest.raises(DataError, match=rf"x\.csv: its characters are UTF-8, not {encoding}: .*encoding"):
        frame(data, Dialect(encoding=encoding))
    assert len(frame(b"a,b\n1,x\n", Dialect(encoding=encoding))) == 1


def test_bytes_outside_an_encoding_cost_their_row() -> None:
    table = frame(b"a,b\n1,\xe9\n2,\x81\n", Dialect(encoding="cp1252"))
    assert good(table) == [["1", "é"]]
    assert bad(table) == [("x.csv:3", "not_cp1252", "2,\\x81")]


@pytest.mark.parametrize("ends", ["\r", "\n", "\r\n"])
def test_breaks_in_quotes_end_no_line(ends: str) -> None:
    inner = "\n" if ends == "\r" else "\r"
    table = frame(f'"a","b"{ends}1,"two{inner}lines"{ends}2,x{ends}')
    assert good(table) == [["1", f"two{inner}lines"], ["2", "x"]]


@pytest.mark.parametrize(
    ("text", "dialect", "expected"),
    [
        ("1,2\n3,4\n", Dialect(), [["1", "2"], ["3", "4"]]),
        ("1;2,5\n3;4\n", Dialect(";"), [["1", "2,5"], ["3", "4"]]),
        ("1\t2\n", Dialect(), [["1", "2"]]),
        ('"1"|"a|b"\n', Dialect("|"), [["1", "a|b"]]),
        ('1::a "b"\n2::c:d\n', Dialect("::"), [["1", 'a "b"'], ["2", "c:d"]]),
        ("sep=;\n1;2\n", Dialect(), [["1", "2"]]),
        ("1^2\n", Dialect("^"), [["1", "2"]]),
        ("1 2\n", Dialect(" "), [["1", "2"]]),
    ],
)
def test_a_file_without_a_header(text: str, dialect: Dialect, expected: list[list[str]]) -> None:
    table = frame(text, replace(dialect, names=("u", "i")))
    assert table.columns.tolist()[:2] == ["u", "i"]
    assert good(table) == expected


def test_a_header_of_another_width_than_the_rows_is_named() -> None:
    message = r"x\.csv: its first line has 3 fields .*collect\.files\.header names 2"
    with pytest.raises(DataError, match=message):
        frame("1,2,3\n", Dialect(names=("a", "b")))


def test_a_delimiter_that_may_be_one_of_two_is_asked_for() -> None:
    with pytest.raises(DataError, match=r"x\.csv: ',' or ';' may part its fields: .*files\.delimiter"):
        frame("1;2,5\n", Dialect(names=("a", "b")))


def test_the_delimiter_is_what_parts_the_header_into_most() -> None:
    table = frame('user;item;"price, net";when\n1;2;3;4\n')
    assert table.columns.tolist() == ["user", "item", "price, net", "when", PLACE]
    assert good(frame("a;b,c\n1;2,3\n", Dialect(","))) == [["1;2", "3"]]


def test_a_line_without_end_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_delimited, "LONGEST_LINE", 100)
    with pytest.raises(DataError, match="is it a text file"):
        frame(b"x" * 1000)


rows = st.lists(
    st.sampled_from(
        ["1,2", "1", "1,2,3", '1,"2"', '1,"2\n3"', '"', '1,"2', 'x",y', "é,ü", "1,\udcff", '"a""b",c']
    ),
    max_size=12,
)


@given(rows, st.integers(1, 12))
@settings(max_examples=60)
def test_blocks_and_paths_do_not_change_the_result(lines: list[str], size: int) -> None:
    data = b"a,b\n" + "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    whole = frame(data)
    block, simple = _delimited.BLOCK, _delimited._simple
    try:
        _delimited.BLOCK = size
        in_pieces = frame(data)
        _delimited.BLOCK = block
        _delimited._simple = lambda data, dialect: None  # type: ignore[assignment]
        carefully = frame(data)
    finally:
        _delimited.BLOCK, _delimited._simple = block, simple
    for other in (in_pieces, carefully):
        assert summary(other) == summary(whole)


def summary(table: pd.DataFrame) -> list[Any]:
    return sorted(table.astype("str").fillna("").to_dict("records"), key=lambda row: int(row[PLACE][6:]))


def test_texts_of_100_kb_go_through_both_paths() -> None:
    long = "ü" * 100_000
    assert good(frame(f"a,b\n1,{long}\n")) == [["1", long]]
    assert good(frame(f'a,b\n1,"{long}"\n')) == [["1", long]]
