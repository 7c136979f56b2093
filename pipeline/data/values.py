"""Columns of foreign files in our types: numbers, texts, lists of texts (ids: pipeline/data/ids.py).

Each function takes a pandas column of any type and never raises: what cannot be read becomes missing, and
the caller sees which cells those are. An empty cell is always missing.
"""

from __future__ import annotations

import ast
import csv
import json
import math
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

# How writers, spreadsheets and their errors spell a missing value, in any case. A user of one of these names
# would be a crowd of strangers.
_WORDS = (
    *("nan", "null", "none", "nil", "undefined", "na", "n/a", "n.a.", "#n/a", "nat", "\\n", "-", "--", "?"),
    *("(null)", "(none)", "(blank)", "(not set)", "<na>", "<null>", "<none>"),
    *("#value!", "#ref!", "#name?", "#div/0!", "#null!", "#num!"),
)
MISSING = ["", "NaN", "NaT", *_WORDS, *map(str.upper, _WORDS), *map(str.capitalize, _WORDS), "(Not Set)"]
NO_CATEGORY = {*MISSING, "set()", "frozenset()", "(no genres listed)", "no genres listed"}

# Text that spells a list: [..], {..}, array([..]), ('a', 'b'), a JSON text of a list.
_SPELLED = re.compile(
    r"""\s*(?:\w+\((?=[\[{(])(.*?)(?:,\s*dtype=.*)?\)|\[.*\]|\{.*\}|\(\s*["'].*["'],?\s*\)|"\[.*\]")\s*""",
    re.DOTALL,
)
_QUOTED = re.compile(r""""((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'""")
# WrappedArray(a, b), List(a), c("a"): as Scala, Spark and R write lists.
_CALLED = re.compile(
    r"\s*(?:c|list|array|set|Array|ArrayBuffer|ArraySeq|List|Seq|Set|Vector|WrappedArray)\((?![\[{(])(.*)\)\s*",
    re.DOTALL,
)
_IN_BRACKETS = re.compile(r"\s*(?:\(([^()]*)\)|<([^<>]*)>)\s*")  # (kitchen, mugs), <kitchen, mugs>
# <python><pandas>, as forums write a question's tags.
_BRACKETED, _BRACKETED_ALONE = re.compile(r"<([^<>/\s]+)>"), re.compile(r"\s*(?:<[^<>/\s]+>\s*)+")
_TAG = re.compile(r"</?(?:ul|ol|li|br|p|div|span|b|i|a|em|strong)\b[^<>]*>", re.IGNORECASE)

UNCOMPUTED = "=formula()"  # in a cell of a workbook whose result nobody computed: no text, and no number
_NUMBERS = (int, float, Decimal, np.number)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # no text has these

FEWEST_PARTED = 10
_TRUTH = {
    word: str(value)
    for value, words in ((1, "true True TRUE"), (0, "false False FALSE"))
    for word in words.split()
}


def as_text(column: pd.Series) -> pd.Series:
    """The cells as `str`, missing where empty. Text stays; bytes that are no text become hexadecimal."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if pd.api.types.is_float_dtype(column.dtype):
        column = _float_text(column)
    elif column.dtype == object:
        column = column.map(_bytes_text(column)).map(_cell_text)
    elif pd.api.types.is_datetime64_any_dtype(column.dtype):
        column = column.map(lambda moment: moment.isoformat(), na_action="ignore")
    text = column.astype("str")
    return text.mask((text == "") | (text == UNCOMPUTED))


def as_prose(column: pd.Series) -> pd.Series:
    """as_text, but a list is its texts in one line (descriptions that come as lists of paragraphs)."""
    if column.dtype == object:
        column = column.map(
            lambda cell: " ".join(_flat(cell)) if isinstance(cell, list | np.ndarray) else cell
        )
    return as_text(column)


def as_numbers(column: pd.Series, decimal: str | None = None) -> tuple[pd.Series, pd.Series]:
    """(float64, which cells hold something that is no finite number). `decimal` as in `pointed`."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        numbers = column.astype("float64")
        bad = np.isinf(numbers)
        return numbers.mask(bad), bad
    text = as_text(column).str.strip().str.replace("\u2212", "-")  # the sign minus
    text = text.mask(text.isin(MISSING)).replace(_TRUTH)
    known = text if decimal or not (parted := _parted(text)).any() else text.mask(parted)
    numbers = pd.to_numeric(pointed(known, decimal), errors="coerce").astype("float64")
    numbers = numbers.mask(np.isinf(numbers))
    uncomputed = (column == UNCOMPUTED).fillna(False).astype(bool)
    return numbers, (text.notna() & numbers.isna()) | uncomputed


def _parted(text: pd.Series) -> pd.Series:
    """Which cells look like thousands parted by points, in a column where they all may be.

    634, 951, 1.268: fractions that all have three digits, none below 1, beside whole numbers below 1000.
    Fewer than FEWEST_PARTED are no sign of it.
    """
    dotted = text.str.contains(".", regex=False).fillna(False).astype(bool)
    parted = dotted & text.str.fullmatch(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+").fillna(False).astype(bool)
    whole = text[~dotted].dropna()
    alike = parted.sum() >= FEWEST_PARTED and (parted == dotted).all()
    return parted & bool(alike and len(whole) and whole.str.fullmatch(r"[+-]?\d{1,3}").all())


def pointed(text: pd.Series, decimal: str | None) -> pd.Series:
    """Numbers whose decimals follow the sign `decimal`, with a point; what is no such number is missing.

    Thousands may be parted by the other sign, a blank or an apostrophe ("1.234,5", "1 234,5"). None: a point
    and no thousands, and the text comes as it is: "1,234" alone may be either.
    """
    if decimal is None:
        return text
    other, sign = (re.escape(mark) for mark in ({".": ",", ",": "."}[decimal], decimal))
    between = f"[{other}'’ \u00a0\u202f]"  # the last two are blanks that do not break a line
    whole = rf"(?:\d{{1,3}}(?:{between}\d{{3}})+|\d+)"
    fits = text.str.fullmatch(rf"[+-]?(?:{whole}(?:{sign}\d*)?|{sign}\d+)(?:[eE][+-]?\d+)?")
    bare = text.where(fits.fillna(False).astype(bool)).str.replace(between, "", regex=True)
    return bare.str.replace(decimal, ".", regex=False).str.replace(r"^([+-]?)\.", r"\g<1>0.", regex=True)


def as_lists(column: pd.Series) -> pd.Series:
    """Lists of distinct texts: of lists, of text that spells one, of text with separators; [] if empty.

    A column has one separator: the first of `|`, `;`, line breaks and `,` that it holds. Tags of HTML part,
    too. Of objects the name counts.
    """
    column = _bare(column)
    filled = [cell for cell in column if isinstance(cell, str) and cell.strip()]
    tags = _BRACKETED if filled and all(map(_BRACKETED_ALONE.fullmatch, filled)) else _TAG
    cells = [tags.sub(_parted_by_bars, cell).strip("|") if isinstance(cell, str) else cell for cell in column]
    texts = [cell.strip() for cell in cells if isinstance(cell, str) and not _SPELLED.fullmatch(cell)]
    separator = next((mark for mark in "|;\n,｜；、，" if any(mark in text for text in texts)), "|")
    return pd.Series([_list(cell, separator) for cell in cells], index=column.index, dtype=object)


def _bare(column: pd.Series) -> pd.Series:
    """Without the round brackets around lists; those around one text only where all cells stand in them."""
    filled = [cell for cell in column if isinstance(cell, str) and cell not in NO_CATEGORY]
    found = [_IN_BRACKETS.fullmatch(cell) for cell in filled]
    lists = any(match and re.search("[,;|]", match[0]) for match in found)

    def bare(cell: Any) -> Any:
        if not isinstance(cell, str) or cell in NO_CATEGORY or not cell.rstrip().endswith((")", ">")):
            return cell
        if match := _CALLED.fullmatch(cell):
            return f"[{match[1]}]" if _QUOTED.search(match[1]) else match[1]
        match = None if _SPELLED.fullmatch(cell) else _IN_BRACKETS.fullmatch(cell)
        return match[1] or match[2] if match and lists and (all(found) or "," in cell) else cell

    return pd.Series([bare(cell) for cell in column], column.index, dtype=object) if filled else column


def _parted_by_bars(tag: re.Match[str]) -> str:
    """What stands in brackets stays, a tag of HTML goes."""
    return f"|{tag[1] if tag.re is _BRACKETED else ''}|"


def as_typed(column: pd.Series, decimal: str | None = None) -> pd.Series:
    """A further column of a text file: Int64 or float64 if every filled cell is such a number, else text.

    Leading zeros make text of a column ("0114709" is an id). `decimal` as in `pointed`.
    """
    text = as_text(column)
    numbers = pointed(text.str.strip(), decimal)
    filled = numbers.dropna()
    if len(filled) == 0 or len(filled) < text.notna().sum():
        return text
    if filled.str.fullmatch(r"-?(?:0|[1-9]\d{0,14})").all():
        return pd.to_numeric(numbers).astype("Int64")
    if filled.str.fullmatch(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?").all():
        return pd.to_numeric(numbers).astype("float64")
    return text


def _float_text(column: pd.Series) -> pd.Series:
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    whole = np.isfinite(numbers) & (np.abs(numbers) < 2**63)
    whole[whole] = numbers[whole] == np.floor(numbers[whole])
    text = np.full(len(numbers), None, dtype=object)
    text[whole] = numbers[whole].astype(np.int64).astype(str)
    other = ~whole & ~np.isnan(numbers)
    text[other] = numbers[other].astype(str)
    return pd.Series(text, column.index)


def _bytes_text(column: pd.Series) -> Callable[[Any], Any]:
    """How bytes of the column become text: all alike, for a few of the UUIDs in a column look like text."""
    try:
        legible = not any(_CONTROL.search(cell.decode()) for cell in column if isinstance(cell, bytes))
    except UnicodeDecodeError:
        legible = False
    return lambda cell: (cell.decode() if legible else cell.hex()) if isinstance(cell, bytes) else cell


def _cell_text(cell: Any) -> str | None:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, list | tuple | dict | np.ndarray):
        return json.dumps(cell, ensure_ascii=False, default=_plain)
    if pd.isna(cell):
        return None
    if hasattr(cell, "isoformat"):
        return str(cell.isoformat())
    if isinstance(cell, float | np.floating | Decimal) and math.isfinite(cell) and cell == int(cell):
        return str(int(cell))
    return str(cell)


def _plain(part: Any) -> Any:
    return part.tolist() if hasattr(part, "tolist") else str(part)


def _list(cell: Any, separator: str) -> list[str]:
    if isinstance(cell, str):
        return _distinct(_spelled(cell.strip(), separator))
    if isinstance(cell, list | tuple | set | dict | np.ndarray):
        return _distinct(_flat([cell]))
    return [] if cell is None or cell is pd.NA or cell != cell else _distinct([str(cell)])


def _spelled(text: str, separator: str) -> Iterable[str]:
    """`A|B`, or a list as JSON, Python, numpy (without commas) or PostgreSQL ({A,B}) write it."""
    found = _SPELLED.fullmatch(text)
    if found is None:
        return text.split(separator)
    inner = re.sub(r"(?<=[\[,])\s*nan(?=\s*[,\]])", "None", found[1] or text)
    if not re.search(r"""["']\s+["']""", inner):  # 'a' 'b': Python would read one text
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(inner)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            return list(_flat([json.loads(value) if isinstance(value, str) else value]))
    if re.search(r"[^\s,\[\](){}]", _QUOTED.sub("", inner)) and inner[1:2] in ("'", '"'):
        # Joined by hand, or escaped twice: ['Children's', 'Toys'], [""Toys"", ""Home""].
        return re.split(r"""["']+\s*,\s*["']+""", inner[1:-1].strip(" '\""))
    quoted = [re.sub(r"\\(.)", r"\1", one or other) for one, other in _QUOTED.findall(inner)]
    if re.fullmatch(r"\[[\d.\s]+\]", inner):
        return inner[1:-1].split()
    if inner[:1] == "{" or ("," in inner and not quoted):
        return next(csv.reader([inner[1:-1]], skipinitialspace=True))
    return quoted or [text]


def _flat(cells: Iterable[Any]) -> Iterable[str]:
    """The texts in nested lists; of an object its name, or else its first text, or what `_weighed` says."""
    for cell in cells:
        if isinstance(cell, list | tuple | set | np.ndarray):
            parts = list(cell)
            pairs = all(_is_weighed(part) for part in parts)  # [("Fiction", 5)], as maps of Parquet come
            yield from (str(part[0]) for part in parts) if pairs else _flat(parts)
        elif isinstance(cell, dict):
            names = {str(key).casefold(): value for key, value in cell.items()}
            texts = [value for value in cell.values() if isinstance(value, str)]
            named = [names[key] for key in ("name", "title", "label", "category", "genre") if key in names]
            yield from _flat(named[:1] or texts[:1] or _weighed(cell))
        elif cell is not None and cell == cell:
            yield str(cell)


def _is_weighed(part: Any) -> bool:
    """A text and its number."""
    return (
        isinstance(part, list | tuple | np.ndarray)
        and len(part) == 2
        and isinstance(part[0], str)
        and isinstance(part[1], _NUMBERS)
    )


def _weighed(cell: dict[Any, Any]) -> list[Any]:
    """The lists in an object ({"genres": [..]}), else the keys of numbers above 0: {"Fiction": 5}."""
    lists = [value for value in cell.values() if isinstance(value, list | tuple | set | np.ndarray)]
    weighed = [key for key, value in cell.items() if isinstance(value, _NUMBERS) and value > 0]
    return lists or [
        key for key in weighed if not re.fullmatch(r"(?:.*_)?(?i:id)|\w*[a-z]Id|(?i:rank|count)", str(key))
    ]


def _distinct(texts: Iterable[str]) -> list[str]:
    stripped = (text.strip() for text in texts)
    return list(dict.fromkeys(text for text in stripped if text not in NO_CATEGORY))
