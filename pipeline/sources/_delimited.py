"""Delimited text in chunks, in which a broken row costs that row and no other.

A row with a wrong number of fields, an unclosed quote or bytes that are not of the encoding becomes a row
with a `_reason` and its `_raw` text. A quoted field may hold line breaks, so an unclosed quote seems to open
one; it is believed only if the lines up to the closing quote make one row of the right width. Blocks without
quotes go through pyarrow (an order of magnitude faster), others line by line through the csv module.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipeline.data.unseen import tidy
from pipeline.errors import DataError
from pipeline.sources import PLACE, RAW, REASON
from pipeline.sources._text import KEY, UTF_8, readable

BLOCK = 16 << 20  # bytes parsed at a time
LONGEST_LINE = 64 << 20  # bytes
LINES_A_ROW = 1_000  # a quoted field with more line breaks counts as an unclosed quote
_HEAD, _SAMPLE = 1 << 16, 100  # bytes and lines that show how fields are quoted
_HEADER_LINES = 20  # of a first row
RAW_CHARACTERS = 500  # of a broken row, to recognise it

WRONG_FIELDS, UNCLOSED, BAD_QUOTES = "wrong_number_of_fields", "unclosed_quote", "misplaced_quote"
FIELD_TWICE = "field_twice"  # in one object of JSON
HEADER_AGAIN = "header_again"  # of files put one behind the other
_SEPARATOR = "\x1f"  # stands for a delimiter of several characters
csv.field_size_limit(LONGEST_LINE)


@dataclass(frozen=True)
class Dialect:
    delimiter: str = ""
    """Empty: as the first line shows."""
    names: tuple[str, ...] | None = None
    """The columns of a file without a header."""
    quoting: bool = True
    quote: str = '"'
    """Around fields; \' where all fields that are no numbers stand in it."""
    spaced: bool = False
    """A blank between delimiter and quote is no part of a field."""
    literal_quotes: bool = False
    """A row whose quotes make no sense is split as it stands (tab-separated files often do not quote)."""
    encoding: str = UTF_8
    """UTF-16 is seen by its mark."""


@dataclass
class _Rows:
    """What a block gave: whole rows, broken rows, and the number of lines that these took."""

    good: list[list[str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    broken: list[tuple[int, str, str]] = field(default_factory=list)  # line, reason, raw
    used: int = 0


def read(stream: IO[bytes], file: str, dialect: Dialect) -> Iterator[pd.DataFrame]:
    """Frames of `str` columns (empty cells are ""), at least one, which may have no rows.

    `_place` is `file:line`. Raises DataError if the file is empty or its header is no text.
    """
    stream, encoding = readable(stream, file, dialect.encoding)
    blocks = _blocks(stream, file)
    first, line, dialect = _header(next(blocks, b""), file, replace(dialect, encoding=encoding))
    pending, data = b"", first or next(blocks, b"")
    seen = False
    while data or pending:
        following = next(blocks, b"")
        frame, rest, count = _parse(pending + data, line, file, dialect, final=not following)
        if len(frame):
            seen = True
            yield frame
        pending, data, line = rest, following, line + count
    if not seen:
        assert dialect.names is not None
        yield _frame(
            pa.table({name: pa.array([], pa.large_string()) for name in dialect.names}), [], [], file
        )


def _blocks(stream: IO[bytes], file: str) -> Iterator[bytes]:
    """Pieces of about BLOCK bytes that end at a line's end."""
    rest = b""
    while piece := stream.read(BLOCK):
        piece = rest + piece
        end = piece.rfind(b"\n") + 1
        if not end and len(piece) > LONGEST_LINE:
            raise DataError(f"{file}: a line of more than {LONGEST_LINE >> 20} MB: is it a text file?")
        rest = piece[end:]
        if end:
            yield piece[:end]
    if rest:
        yield rest


def _header(block: bytes, file: str, dialect: Dialect) -> tuple[bytes, int, Dialect]:
    """(the block from its first row on, that row's line number, the dialect with names and delimiter)."""
    body = unmarked(block).lstrip(b"\r\n")
    if not body.strip():
        raise DataError(
            f"{file}: empty: bring a file with {'rows' if dialect.names else 'a header and rows'}"
        )
    line = 1 + block[: len(block) - len(body)].count(b"\n")
    raw, rest = _first_row(body)
    text = _first_line(raw, file, dialect)
    if (sign := re.fullmatch(r'"?sep=(.)"?', text)) and dialect.delimiter in ("", sign[1]):
        rest, more, dialect = _header(rest, file, replace(dialect, delimiter=sign[1]))  # for spreadsheets
        return rest, line + more, dialect
    dialect = replace(dialect, delimiter=dialect.delimiter or _delimiter(text, file, dialect.names))
    _refuse_others(text, file)
    sample = [line.decode(dialect.encoding, "replace") for line in rest[:_HEAD].split(b"\n")[:_SAMPLE]]
    dialect = _quoted(dialect, text, [line.rstrip("\r") for line in sample])
    fields, _ = _row(raw.rstrip(b"\r"), None, dialect)
    fields = fields or [cell.strip().strip('"') for cell in text.split(dialect.delimiter)]
    if dialect.names is None:
        return rest, line + 1 + raw.count(b"\n"), replace(dialect, names=distinct(fields))
    if len(fields) != len(dialect.names):
        raise DataError(
            f"{file}: its first line has {len(fields)} fields ({text[: RAW_CHARACTERS // 5]!r}), and "
            f"collect.files.header names {len(dialect.names)}: correct that or collect.files.delimiter"
        )
    return body, line, dialect


def _first_row(body: bytes) -> tuple[bytes, bytes]:
    """(the first row, what follows): a name in quotes may hold line breaks, as spreadsheets' do."""
    lines = body.split(b"\n", _HEADER_LINES)
    odd = [number for number, line in enumerate(lines[:_HEADER_LINES]) if line.count(b'"') % 2]
    last = odd[1] if odd[:1] == [0] and len(odd) > 1 else 0
    return b"\n".join(lines[: last + 1]), b"\n".join(lines[last + 1 :])


def unmarked(data: bytes) -> bytes:
    """Without marks of UTF-8 at its beginning: some programs put a second one there."""
    while data.startswith(codecs.BOM_UTF8):
        data = data.removeprefix(codecs.BOM_UTF8)
    return data


def _first_line(raw: bytes, file: str, dialect: Dialect) -> str:
    """Raises DataError where it is no text of the encoding."""
    try:
        text = raw.decode(dialect.encoding).rstrip("\r")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        what = "first line" if dialect.names else "header"
        raise DataError(
            f"{file}: the {what} is not {dialect.encoding.upper()} text: "
            f"name the encoding in {KEY}, like cp1252"
        )
    return text


def _refuse_others(first: str, file: str) -> None:
    """Raises DataError where the first line is no row of delimited text."""
    if re.match(r'\s*[{\[]+\s*"', first):
        raise DataError(f"{file}: JSON, not delimited text: rename it to end in .jsonl")
    if re.match(r"\s*[“”„‘’«»]", first):
        raise DataError(
            f'{file}: its fields stand in typographic quotes: write straight ones, like "user_id"'
        )
    if re.match(r"\s*<(?:!doctype|html|\?xml)\b", first, re.IGNORECASE):
        raise DataError(
            f"{file}: a page or XML, not delimited text: did a download bring an error? Bring the file"
        )


def _quoted(dialect: Dialect, first: str, sample: list[str]) -> Dialect:
    """The dialect with the quotes that the first lines show: '…' if all that is no number stands in them."""
    if len(dialect.delimiter) > 1:  # csv knows quotes around one sign alone
        return replace(dialect, quoting=False)
    sign = re.escape(dialect.delimiter)
    if dialect.quoting:
        cell = r" *(?:'(?:[^'\\]|''|\\.)*'|[+-]?[\d.]*|NULL|\\N) *"
        row = re.compile(rf"(?=[^']*'){cell}(?:{sign}{cell})*")
        rows = [line for line in sample if line.strip()]
        fits = [line for line in rows[:-1] or rows if row.fullmatch(line)]  # the last may be cut off
        if row.fullmatch(first) or (rows and len(fits) >= 0.9 * len(rows[:-1] or rows)):
            dialect = replace(dialect, quote="'")
    spaced = re.compile(rf"{dialect.quote}{sign} +{dialect.quote}")
    return replace(dialect, spaced=any(map(spaced.search, [first, *sample[:1]])))


def _delimiter(text: str, file: str, names: tuple[str, ...] | None) -> str:
    """What parts the first line, outside quotes: into as many fields as there are names, else into most."""
    bare = re.sub(r'"[^"]*"', "", text)
    bare = re.sub(r"(?<![^\W_])'[^']*'(?![^\W_])", "", bare)
    counts = {sign: bare.count(sign) for sign in (",", ";", "\t", "|")}
    fits = [sign for sign, count in counts.items() if names and count + 1 == len(names)]
    if len(fits) > 1:
        signs = " or ".join(map(repr, fits))
        raise DataError(f"{file}: {signs} may part its fields: say which in collect.files.delimiter")
    return (fits or [max(counts, key=lambda sign: counts[sign])])[0]


def again(name: str, times: int = 2) -> str:
    """What a column is called whose name another one before it has."""
    return f"{name} ({times})"


def distinct(names: list[str]) -> tuple[str, ...]:
    """Every column has a name of its own: an empty one becomes `column_3`, a repeated one `name (2)`.

    What nobody sees is no part of it.
    """
    result: list[str] = []
    for number, name in enumerate(names, 1):
        wanted, times = tidy(name) or f"column_{number}", 1
        unique = wanted
        while unique in result:
            times += 1
            unique = again(wanted, times)
        result.append(unique)
    return tuple(result)


def _parse(
    data: bytes, line: int, file: str, dialect: Dialect, final: bool
) -> tuple[pd.DataFrame, bytes, int]:
    """(frame, bytes left for the next block, lines used)."""
    assert dialect.names is not None
    simple = _simple(data, dialect)
    if simple is not None:
        table, lines, broken = _fast(simple, line, dialect)
        return _frame(table, lines, broken, file), b"", data.count(b"\n")
    split = re.findall(rb"[^\n]*\n|[^\n]+", data)
    rows = _slow(split, line, dialect, final)
    columns = zip(*rows.good, strict=True) if rows.good else ([] for _ in dialect.names)
    table = pa.table(
        {name: pa.array(cells, pa.large_string()) for name, cells in zip(dialect.names, columns, strict=True)}
    )
    return _frame(table, rows.lines, rows.broken, file), b"".join(split[rows.used :]), rows.used


def _simple(data: bytes, dialect: Dialect) -> bytes | None:
    """The block in UTF-8 with a one-byte delimiter if a line is a row in it; None if it needs care."""
    if (dialect.quoting and dialect.quote.encode() in data) or data.startswith((b"\n", b"\r\n")):
        return None
    if b"\n\n" in data or b"\n\r" in data or data.count(b"\r") != data.count(b"\r\n"):
        return None
    try:
        text = data.decode(dialect.encoding)
    except UnicodeDecodeError:
        return None
    if len(dialect.delimiter) > 1:
        if _SEPARATOR in text:
            return None
        text = text.replace(dialect.delimiter, _SEPARATOR)
    return text.encode()


def _fast(
    data: bytes, line: int, dialect: Dialect
) -> tuple[pa.Table, np.ndarray, list[tuple[int, str, str]]]:
    assert dialect.names is not None
    delimiter = dialect.delimiter if len(dialect.delimiter) == 1 else _SEPARATOR
    broken: list[tuple[int, str, str]] = []

    def wrong(row: pyarrow.csv.InvalidRow) -> str:
        raw = row.text.replace(_SEPARATOR, dialect.delimiter)
        broken.append((line + row.number - 1, WRONG_FIELDS, raw[:RAW_CHARACTERS]))
        return "skip"

    table = pyarrow.csv.read_csv(
        pa.BufferReader(data),
        # One piece: only then are rows numbered from the start of the data.
        pyarrow.csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=dialect.names),
        pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=False, invalid_row_handler=wrong),
        pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(dialect.names, pa.large_string()), strings_can_be_null=False
        ),
    )
    lines = np.arange(line, line + len(table) + len(broken))
    return table, np.setdiff1d(lines, [number for number, _, _ in broken], assume_unique=True), broken


def _slow(lines: list[bytes], start: int, dialect: Dialect, final: bool) -> _Rows:
    rows = _Rows()
    assert dialect.names is not None
    width = len(dialect.names)
    while rows.used < len(lines):
        number, at = start + rows.used, rows.used
        raw = lines[at].rstrip(b"\r\n")
        rows.used += 1
        if not raw:
            continue
        fields, reason = _row(raw, width, dialect)
        if reason == UNCLOSED:
            if not final and len(lines) - at < LINES_A_ROW:
                rows.used = at  # the closing quote may be in the next block
                return rows
            joined, count = _joined(lines, at, width, dialect)
            if joined:
                fields, rows.used = joined, at + count
        if not fields and reason in (UNCLOSED, BAD_QUOTES) and dialect.literal_quotes:
            literal = raw.decode(dialect.encoding).split(dialect.delimiter)
            fields = literal if len(literal) == width else []
        if fields:
            rows.good.append(fields)
            rows.lines.append(number)
        else:
            text = raw.decode(dialect.encoding, "backslashreplace")[:RAW_CHARACTERS]
            rows.broken.append((number, reason, text))
    return rows


def _row(raw: bytes, width: int | None, dialect: Dialect) -> tuple[list[str], str]:
    """(fields, reason): fields are empty if the line alone is no row. `width` None: any number of fields."""
    try:
        text = raw.decode(dialect.encoding)
    except UnicodeDecodeError:
        return [], not_of(dialect.encoding)
    if not dialect.quoting or dialect.quote not in text:
        fields = text.split(dialect.delimiter)
    else:
        try:
            fields = _parted(text, dialect)
        except csv.Error as error:
            return [], UNCLOSED if "unexpected end of data" in str(error) else BAD_QUOTES
    return (fields, "") if width in (None, len(fields)) else ([], WRONG_FIELDS)


def _parted(text: str, dialect: Dialect) -> list[str]:
    def parted(text: str) -> list[str]:
        given = {"delimiter": dialect.delimiter, "quotechar": dialect.quote, "strict": True}
        return next(csv.reader([text], skipinitialspace=dialect.spaced, **given))  # type: ignore[arg-type]

    try:
        return parted(text)
    except csv.Error:
        if dialect.quote == '"' or "\\'" not in text:
            raise
        return parted(text.replace("\\'", "''"))  # as MySQL writes a quote within quotes


def not_of(encoding: str) -> str:
    """The reason of a row whose bytes are not of the encoding: not_utf8."""
    return f"not_{encoding.lower().replace('-', '')}"


def _joined(lines: list[bytes], at: int, width: int, dialect: Dialect) -> tuple[list[str], int]:
    """The row of several lines that starts at `at`, and its number of lines; ([], 0) if it is none.

    Inside a quoted field quotes come in pairs, so the first later line with an odd number closes it.
    """
    for end in range(at + 1, min(at + LINES_A_ROW, len(lines))):
        if lines[end].count(dialect.quote.encode()) % 2:
            fields, _ = _row(b"".join(lines[at : end + 1]).rstrip(b"\r\n"), width, dialect)
            return fields, end + 1 - at if fields else 0
    return [], 0


def _frame(
    table: pa.Table, lines: list[int] | np.ndarray, broken: list[tuple[int, str, str]], file: str
) -> pd.DataFrame:
    names = table.column_names
    frame = table.to_pandas().astype("str")
    frame[PLACE] = f"{file}:" + pd.Series(np.asarray(lines, dtype=np.int64)).astype("str")
    first = pc.utf8_trim(table.column(0), " \t\ufeff")  # files put one behind the other keep their marks
    again = np.flatnonzero(pc.equal(first, names[0]).to_numpy(zero_copy_only=False))
    found = {row: distinct(frame.loc[row, names].tolist()) for row in again if len(names) > 1}
    headers = [row for row, fields in found.items() if fields == tuple(names)]
    if headers:
        broken = [*broken, *((int(lines[row]), HEADER_AGAIN, ", ".join(names)) for row in headers)]
        frame = frame.drop(index=headers)
    if not broken:
        return frame
    reasons = pd.DataFrame(broken, columns=["line", REASON, RAW]).astype({REASON: "str", RAW: "str"})
    reasons[PLACE] = f"{file}:" + reasons.pop("line").astype("str")
    return pd.concat([frame, reasons], ignore_index=True)
