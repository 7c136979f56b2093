from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.data.ids import as_id, as_ids, changed, id_faults
from pipeline.data.values import as_lists, as_numbers, as_text, as_typed


def cells(column: pd.Series) -> list[Any]:
    return [None if pd.isna(cell) else cell for cell in column]


@pytest.mark.parametrize(
    "cell",
    [
        "u1",
        " u1 ",
        "u\u200b1",
        "\ufeffu1",
        "zoe\u0301",
        "a\u00a0b",
        "007",
        "nan",
        "N/A",
        "[1, 2]",
        "9.78E+12",
        "",
    ],
)
def test_one_id_is_read_as_in_a_column(cell: str) -> None:
    (expected,) = cells(as_ids(pd.Series([cell], dtype="str")))
    if expected is None:
        with pytest.raises(ValueError, match="id"):
            as_id(cell)
    else:
        assert as_id(cell) == expected


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (
            pd.Series(["007", " 7 ", "1.0", "", None, "nan", "NULL"]),
            ["007", "7", "1.0", None, None, None, None],
        ),
        (pd.Series([12345.0, 0.5, None]), ["12345", "0.5", None]),
        (pd.Series([7, 9007199254740993], dtype="int64"), ["7", "9007199254740993"]),
        (pd.Series([9007199254740993, None], dtype="Int64"), ["9007199254740993", None]),
        (pd.Series([7, "007", 7.0, Decimal(7), True, b"x", None], dtype=object), None),
        (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
        (pd.Series([], dtype=object), []),
    ],
)
def test_ids_are_text_as_they_stand(column: pd.Series, expected: list[Any] | None) -> None:
    ids = as_ids(column)
    assert ids.dtype == "str"
    assert cells(ids) == (["7", "007", "7", "7", "True", "x", None] if expected is None else expected)


@pytest.mark.parametrize(
    "cell",
    [
        "NA",
        "N/A",
        "#N/A",
        "#REF!",
        "N.A.",
        "(null)",
        "(not set)",
        "n/a",
        "null",
        "None",
        "NAN",
        "undefined",
        "-",
        "\\N",
        "",
        None,
        float("nan"),
    ],
)
def test_words_for_missing_are_no_ids(cell: Any) -> None:
    column = pd.Series([cell, "7"], dtype=object)
    assert cells(as_ids(column)) == [None, "7"]
    assert cells(id_faults(column, "user_id")) == ["no_user_id", None]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ([54, 55], "user_id_is_a_list_or_object"),
        ({"$oid": "5f"}, "user_id_is_a_list_or_object"),
        ("[54, 55]", "user_id_is_a_list_or_object"),
        ('{"$oid": "5f"}', "user_id_is_a_list_or_object"),
        ("9.78E+12", "user_id_rounded_by_a_spreadsheet"),
        ("9,78E+12", "user_id_rounded_by_a_spreadsheet"),
        ("4E+15", "user_id_rounded_by_a_spreadsheet"),
        ("9.78e+12", "user_id_rounded_by_a_spreadsheet"),
        ("-9.78E12", "user_id_rounded_by_a_spreadsheet"),
        ("(54, 55)", "user_id_is_a_list_or_object"),
        (2.0**60, "user_id_rounded_as_a_float"),
        (2**60, None),
        (2.0**40, None),
        ("4E15", None),
        ("1e10", None),
        ("(a)", None),
        ("[x", None),
        ("nano", None),
    ],
)
def test_what_is_no_id_says_why(cell: Any, reason: str | None) -> None:
    column = pd.Series([cell, "7"], dtype=object)
    assert cells(id_faults(column, "user_id")) == [reason, None]
    assert as_ids(column).isna().tolist() == [reason is not None, False]


def test_bytes_that_are_no_text_are_hexadecimal() -> None:
    assert as_ids(pd.Series([b"\xff\x00\x10", b"abc", "x"], dtype=object)).tolist() == [
        "ff0010",
        "616263",
        "x",
    ]
    assert as_ids(pd.Series([b"\x01\x02", None], dtype=object)).tolist()[0] == "0102"
    assert as_text(pd.Series([b"two\nlines", "ü".encode()], dtype=object)).tolist() == ["two\nlines", "ü"]


def test_text_is_not_touched_and_empty_is_missing() -> None:
    assert cells(as_text(pd.Series([" a\x00b ", "", None, "nan"]))) == [" a\x00b ", None, None, "nan"]
    assert cells(as_text(pd.Series([["a", 1], {"b": 2}], dtype=object))) == ['["a", 1]', '{"b": 2}']


def test_numbers_are_finite_or_bad_or_missing() -> None:
    numbers, bad = as_numbers(pd.Series(["4.5", " -1e3 ", "", "NA", None, "x", "inf", "1,5"]))
    assert cells(numbers) == [4.5, -1000.0, None, None, None, None, None, None]
    assert bad.tolist() == [False] * 5 + [True] * 3
    for truth in ([True, False], ["true", "False"]):
        numbers, bad = as_numbers(pd.Series(truth))
        assert numbers.tolist() == [1.0, 0.0]
        assert not bad.any()
    assert as_numbers(pd.Series([np.inf, np.nan]))[1].tolist() == [True, False]
    assert as_numbers(pd.Series(["\u22121"]))[0].tolist() == [-1]  # the sign minus


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("Comedy|Drama", ["Comedy", "Drama"]),
        (" Comedy | | Comedy ", ["Comedy"]),
        ("", []),
        (None, []),
        (["a", ["b", None], "a"], ["a", "b"]),
        (np.array(["a", "b"], dtype=object), ["a", "b"]),
        ('["a|b", "c"]', ["a|b", "c"]),
        ("['a', 'b']", ["a", "b"]),
        ("[not a list]", ["[not a list]"]),
        ("['a' 'b']", ["a", "b"]),  # numpy
        ("['it\\'s'\n \"b\"]", ["it's", "b"]),
        ("[1 2]", ["1", "2"]),
        ("array(['a', 'b'], dtype=object)", ["a", "b"]),
        ("('a', 'b')", ["a", "b"]),
        ("frozenset({'a'})", ["a"]),
        ('{a,b,"c, d"}', ["a", "b", "c, d"]),  # PostgreSQL
        ("[a, b]", ["a", "b"]),
        ('"[\\"a\\", \\"b\\"]"', ["a", "b"]),
        ("<ul><li>a</li><li>b</li></ul>", ["a", "b"]),
        ("a<br>b", ["a", "b"]),
        ("a\nb, c", ["a", "b, c"]),
        ("I <3 b", ["I <3 b"]),
        ("[{'id': 16, 'name': 'Animation'}, {'id': 35, 'name': 'Comedy'}]", ["Animation", "Comedy"]),
        ('[{"category_id": "7", "Label": "Toys"}]', ["Toys"]),
        ([{"id": 1, "name": "a"}], ["a"]),
        ('{"name": "a"}', ["a"]),
        ("Action, Comedy", ["Action", "Comedy"]),
        ("Action; Comedy, black", ["Action", "Comedy, black"]),
        ("a|b, c", ["a", "b, c"]),
        ("nan", []),
        ("(no genres listed)", []),
        ("N/A|Drama", ["Drama"]),
        ("[]", []),
        ({"name": "a"}, ["a"]),
        ("{'Fiction': 5, 'War': 0, 'Madrid': 1}", ["Fiction", "Madrid"]),
        ('{"genres": ["a", "b"]}', ["a", "b"]),
        ("[{'id': 16}]", []),
        ("[('a', 3), ('b', 2)]", ["a", "b"]),
        ([("a", 3.0)], ["a"]),  # a map of Parquet
        ("['Children's', 'Toys']", ["Children's", "Toys"]),  # joined by hand
        ('[""Toys"", ""Home""]', ["Toys", "Home"]),  # escaped twice
        ("<python><c++>", ["python", "c++"]),
        ("['a', nan, 'nan, b']", ["a", "nan, b"]),
        ("厨房、杯子", ["厨房", "杯子"]),
        ("(kitchen, mugs)", ["kitchen", "mugs"]),
        ("(kitchen; mugs, blue)", ["kitchen", "mugs, blue"]),
        ("('kitchen', 'mugs')", ["kitchen", "mugs"]),
        ("(Re)public", ["(Re)public"]),
        ("(untitled)", ["(untitled)"]),
        ("<kitchen, mugs>", ["kitchen", "mugs"]),
        ("WrappedArray(kitchen, mugs)", ["kitchen", "mugs"]),
        ("List(kitchen)", ["kitchen"]),
        ('c("kitchen", "mugs, blue")', ["kitchen", "mugs, blue"]),
        ("Set()", []),
        ("set()", []),
        (7, ["7"]),
    ],
)
def test_lists(cell: Any, expected: list[str]) -> None:
    column = pd.Series([None, None], dtype=object)
    column[0] = cell
    assert as_lists(column).tolist() == [expected, []]


def test_round_brackets_of_one_are_a_lists_where_all_stand_in_them() -> None:
    assert as_lists(pd.Series(["(a, b)", "(c)", "()", None])).tolist() == [["a", "b"], ["c"], [], []]
    assert as_lists(pd.Series(["(a, b)", "(c)", "d"])).tolist() == [["a", "b"], ["(c)"], ["d"]]
    assert as_lists(pd.Series(["(no genres listed)", "(c)"])).tolist() == [[], ["(c)"]]


@pytest.mark.parametrize(
    ("cell", "seen", "counted"),
    [
        ("u1\u200b", "u1", 1),
        ("\ufeffu1", "u1", 1),
        ("u\u00ad1", "u1", 1),
        ("u\x001", "u1", 1),
        ("u\u00a01", "u 1", 1),
        ("u\n1", "u 1", 1),
        ("e\u0301", "\u00e9", 1),
        ("\u200b", None, 1),
        ("\u00a0u1\u00a0", "u1", 0),  # white space at the ends goes anyhow
        ("a\u200cb", "a\u200cb", 0),  # parts a word of Persian
        ("u\uff11", "u\uff11", 0),
    ],
)
def test_what_nobody_sees_is_no_part_of_an_id(cell: str, seen: str | None, counted: int) -> None:
    column = pd.Series([cell, " plain ", None])
    assert cells(as_ids(column)) == [seen, "plain", None]
    assert changed(column) == counted


def test_floats_that_cannot_tell_ids_apart_are_no_ids() -> None:
    for kind, most in (("float32", 2**24), ("float64", 2**53), ("Float64", 2**53)):
        column = pd.Series([most, 2 * most, None], dtype=kind)
        assert cells(as_ids(column)) == [str(most), None, None]
        assert id_faults(column, "item_id")[1] == "item_id_rounded_as_a_float"
    assert cells(as_ids(pd.Series([2**60, None], dtype="Int64"))) == [str(2**60), None]


def test_typed_columns_are_numbers_only_if_every_cell_is_one() -> None:
    assert as_typed(pd.Series(["1", "", "-2"])).dtype == "Int64"
    assert as_typed(pd.Series(["1", "2.5"])).tolist() == [1.0, 2.5]
    assert as_typed(pd.Series(["0114709", "1"])).tolist() == ["0114709", "1"]
    assert as_typed(pd.Series(["1", "x"])).dtype == "str"
    assert as_typed(pd.Series(["", ""])).isna().all()


def test_columns_of_decimal_commas_have_numbers_only_if_all_are_such() -> None:
    assert as_typed(pd.Series(["1.299,50", ",5", ""]), ",").tolist()[:2] == [1299.5, 0.5]
    assert as_typed(pd.Series(["007,5", "1,5"]), ",").tolist() == ["007,5", "1,5"]
    assert as_typed(pd.Series(["1,5", "1.5"]), ",").tolist() == ["1,5", "1.5"]
    assert as_typed(pd.Series(["1,299.50", "3"]), ".").tolist() == [1299.5, 3.0]


def test_a_guid_in_braces_is_an_id() -> None:
    name = "{6F9619FF-8B86-D011-B42D-00C04FC964FF}"
    assert as_ids(pd.Series([name, "{54, 55}", "{a}"])).tolist()[0] == name
    assert as_ids(pd.Series([name, "{54, 55}", "{a}"])).isna().tolist() == [False, True, True]
