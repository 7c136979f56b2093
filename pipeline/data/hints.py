"""What mends cells that cannot be read: the notation that they are in, and the setting or the step.

In: the first cells that a reason blames. Two notations may fit one file, so none is taken for granted: out
comes a line of advice, where X is the file's column.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import partial

import numpy as np
import pandas as pd

from pipeline.data.units import fits, shown

KEY = "collect.files.columns.timestamp"
# 1.70E+12: six digits at most of nine or more, as spreadsheets show and save them; months are lost.
# So are minutes with the six digits that %e writes.
ZONE_NAME = r"(?!AM|PM)(?:[A-Z]{2,5}|[A-Z][A-Za-z]+(?:/[A-Z][A-Za-z_]+)+)"  # CEST, America/New_York
ROUNDED = r"[+-]?\d(?:(?:[.,]\d{0,5})?[eE]\+?(?:0?[89]|[1-9]\d)|\.\d{6}[eE]\+(?:0[89]|[1-9]\d))"
_DATES = (
    *("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y"),
    *("%y-%m-%d", "%y/%m/%d", "%y.%m.%d", "%d-%m-%y", "%d-%b-%Y", "%d-%b-%y", "%d/%b/%Y", "%d%b%Y"),
    *("%Y.%m.%d", "%Y/%m/%d", "%Y-%m-%d", "%Y. %m. %d.", "%Y年%m月%d日", "%Y%m%d", "%Y-%b-%d"),
    *("%d %b %Y", "%d %B %Y", "%d. %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y"),
    *("%Y-%d-%m", "%Y/%d/%m", "%Y.%d.%m"),  # whose cells below the 13th are read as other days
    *("%G-W%V-%u", "%GW%V%u", "%Y-%j", "%a %Y-%m-%d", "%a %b %d %Y"),
)
_CLOCKS = (
    *("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", ":%H:%M:%S %z", ", %H:%M", ", %H:%M:%S"),
    *("T%H:%M:%S", "T%H:%M:%S%z", " %H:%M:%S.%f", " %H:%M:%S GMT%z", " %H:%M:%S %z", ":%H:%M:%S", " %I:%M%p"),
    *(" %I.%M.%S.%f %p", " %H.%M", "-%H-%M", "-%H-%M-%S", "_%H%M%S"),
    *(" %I %p", " %I%p", " at %I:%M %p", " at %H:%M", " at %I:%M:%S %p"),
)
PATTERNS = [date + clock for date in _DATES for clock in _CLOCKS]
PATTERNS += ["%b-%y", "%b-%Y", "%b %Y", "%B %Y", "%m/%Y"]  # months
PATTERNS += ["%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z"]
# Dates as digits, which other numbers might be: said, never guessed.
DIGITS = (
    "%y%m%d",
    "%d%m%Y",
    "%m%d%Y",
    "%d%m%y",
    "%m%d%y",
    "%y%m%d%H%M",
    "%y%m%d%H%M%S",
    "%d%m%Y%H%M%S",
    "%Y%j",
)


_FOREIGN = r".*[\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\uff10-\uff19].*"  # Arabic, Persian, Hindi, wide
_DIGITS_0_TO_9 = (_FOREIGN, "their digits are of another script: write 0 to 9")
# Other words for AM and PM, which a pattern would take for a mere ending: 3 p.m. would be 3 in the morning.
_HALF = r"(?is).*(?:\d\s?[ap]\. ?m\b|[صم]\s*$|午前|午後|上午|下午|오전|오후).*"
# (notation of the cells, what to do)
_TIMES = (
    (r"'.*'", "they stand in single quotes, which are part of them: write double ones, or none"),
    (ROUNDED, "a spreadsheet rounded them, or %e: export the column as text, or with all of its digits"),
    _DIGITS_0_TO_9,
    ("#+", "a spreadsheet showed them so, in a narrow column: widen it, and export again"),
    (r"\D*\d{9,19}\D*", "write the number alone: its unit shows from the column"),
    (r"[0-9a-f-]{16,}", "they are ids, no times: name another column"),
    (r"\d{4}[ -]?Q[1-4]|Q[1-4][ /-]?\d{4}", "they are quarters, each one moment: name a column of dates"),
    (
        r"\d{4}[-/.](?:00[-/.]\d\d|\d\d[-/.]00)(?:\D.*)?",
        "their month or day is 0, so they are no dates: write the whole date, or empty these cells",
    ),
    (
        r"\d{4}-?W\d\d",
        "they are weeks without a day: write their Mondays, like 2024-W05-1, and "
        f'{KEY}: {{column: X, format: "%G-W%V-%u"}}',
    ),
    (
        r"\d{1,2}:\d\d(?::\d\d)?[\d.]*(?: ?[AaPp][Mm])?",
        f"they are times of the day: write {KEY}: {{date: D, time: X}}, where D is the column of dates",
    ),
    (
        r"-?\d+ days?\b.*|.*\b(?:ago|yesterday|today)\b.*",
        "they count from another moment: export dates",
    ),
    (
        r"\d{1,3}(?:[,.]\d{3})+(?:[,.]\d+)?",
        'their thousands are parted: set collect.files.decimal to "." if by commas, to "," if by points',
    ),
    (r"\d+,\d+", 'set collect.files.decimal to ","'),
    (r".*(?:UTC|GMT) ?[+-]\d{1,2}", "write their offset like +02:00"),
    (
        r".*\d ?(?!AM|PM)[A-Z]{2,5}",
        "they name zones by letters, which mean several: write offsets like -05:00, or times in UTC",
    ),
    (
        r"\D*",
        "they hold no digits: take them out if they are a header, or name another column",
    ),
    (
        r".*[^\W\d_]{3,}.*|.*[^\x00-\x7f].*",
        "if these are names of months, only English ones are known: write dates like 2024-01-31",
    ),
)
ALSO_OTHERS = re.compile("were misread|may have swapped")
"""In advice on rows whose fault the rows that could be read may have, too: leaving them out mends nothing."""
_LIKE = '{column: X, format: "%d/%m/%Y %H:%M"}'
_OF_ROWS = {
    "wrong_number_of_fields": "its rows have not as many fields as its header: correct the file or "
    "collect.files.delimiter",
    "header_again": "take out all headers but the first; if it is the first line, set collect.files.header "
    "to null",
    "misplaced_quote": 'write a quote within a quoted field twice, "" for \\", and none beside its ends',
    "field_twice": "an object names one field twice, with two values: write it once",
    "unclosed_quote": 'close the quote, or write one that is part of a field as ""',
}
_ZEROS = "a day of 0, like 0000-00-00, is no time: name another column, or leave such rows out"
_YES = ("yes", "y", "t", "like", "liked", "good", "positive", "up")
_YEARS = (
    (
        r"1[34]\d\d\D.*",
        "these are years of the Persian or Islamic calendar: write those of the Gregorian one",
    ),
    (r"2[4-6]\d\d\D.*", "these are years of the Buddhist calendar: write those of the Gregorian one"),
)
_NO_WORDS = ((r"(?i)[+-]?inf(?:inity)?", "they are infinite: empty these cells"),)
_NUMBERS = (
    _DIGITS_0_TO_9,
    (r"\[.*\]", "they are lists: write one number a row"),
    (r"[+-]?[\d.' ]*\d,\d+", 'set collect.files.decimal to ","'),
    (r"[+-]?[\d,' ]*\d(?:\.\d+)?", 'set collect.files.decimal to "."'),
    (r"[+-]?[\d.,]+ ?%", "write them without the sign, 12 for 12%: sed -E 's/([0-9]) ?%/\\1/g' FILE > NEW"),
    (r"\d+(?:[.,]\d+)? ?/ ?\d+", "write 4 for 4/5"),
    (r"\d+(?::\d\d){1,2}|\d+ days?\b.*|P?T?(?:\d+[hmsHMS] ?)+", "they are durations: write seconds"),
    (r"\(.*\d.*\)|[\d.,]+-", "they are negative, as accountants write it: write -3.50 for (3.50) or 3.50-"),
    (
        r"\D*\d[\d.,' ]*\D*",
        "write the number alone, and of different units in one: 3.50 for $3.50, 4 for 4 stars, 5000 for 5k",
    ),
)


def of(reason: str, cells: list[str], column: str, partly: bool = False) -> str | None:
    """What mends most rows that are bad for this reason, as far as the cells of `column` tell.

    `partly`: other rows of the table could be read.
    """
    if reason in _OF_ROWS:
        return _OF_ROWS[reason]
    if reason == "no_timestamp":
        return _ZEROS if any(isinstance(cell, str) and "0" in cell for cell in cells) else None
    if reason == "unreadable_timestamp":
        return _unread_time(cells, partly)
    if reason == "implausible_timestamp":
        return _first(_YEARS, cells) or _another_unit(cells)
    if reason == "value_not_a_number":
        return _unread_number(cells)
    if reason.startswith("not_") and reason not in ("not_json", "not_read"):
        return "name the encoding of its text in collect.files.encoding, like cp1252"
    return _no_id(reason, cells, column)


def _no_id(reason: str, cells: list[str], column: str) -> str | None:
    if reason.endswith("_is_a_list_or_object"):
        path = _path_inside(cells)
        if cells and not path:
            return "it holds several: write a row for each of them"
        return f"name the field inside in collect.files.columns, like {column}: COLUMN.{path or 'id'}"
    if reason.endswith("_rounded_by_a_spreadsheet"):
        return "export the ids as text: the digits are gone from this file"
    if reason.endswith("_rounded_as_a_float"):
        return "write such ids as text, or as integers of 64 bits"
    return None


def _another_unit(cells: list[str]) -> str | None:
    """Where most cells that make no sense beside others would be times in a unit of their own."""
    if not cells or not all(re.fullmatch(r"[+-]?\d+(?:\.\d*)?", cell) for cell in cells):
        return None
    numbers = np.array([float(cell) for cell in cells])
    fitting = fits(numbers)
    unit = max(fitting, key=lambda name: fitting[name].sum())
    if 2 * fitting[unit].sum() <= len(cells):
        return None
    one = shown(numbers[fitting[unit]][0], unit)
    return f"in {unit!r} they would be times ({one}): bring all to one unit in the source, such as dates"


def suggestions(cells: list[str]) -> list[str]:
    """The patterns that read most of these texts: all, if any does."""
    if not cells:
        return []
    first, text = (pd.Series(some, dtype="str") for some in (cells[:9], cells))
    signs = Counter(re.sub(r"[\w\s]", "", cell).replace("+", "") for cell in cells).most_common(1)[0][0]
    like = [pattern for pattern in PATTERNS if signs.startswith(re.sub(r"%.|[\w\s]", "", pattern))]
    shares = {pattern: _share(pattern, text) for pattern in like if _share(pattern, first)}
    best = max(shares.values(), default=0)
    return [pattern for pattern, share in shares.items() if share == best > 0.5]


def of_digits(cells: list[str]) -> list[str]:
    """The patterns that make likely dates of all these digits."""
    text = pd.Series(cells, dtype="str")
    read = partial(pd.to_datetime, text, errors="coerce")
    written = {pattern: len(pd.Timestamp("2001-11-11").strftime(pattern)) for pattern in DIGITS}
    fits = [pattern for pattern, length in written.items() if cells and (text.str.len() == length).all()]
    return [pattern for pattern in fits if read(format=pattern).between("1991-01-01", "2032-01-01").all()]


def _unread_time(cells: list[str], partly: bool) -> str:
    if path := _path_inside(cells):
        return f"they are objects: of JSON lines and Parquet name the field inside, like {KEY}: X.{path}"
    patterns, zone = suggestions(cells), ""
    if half := _first(((_HALF, f"write AM and PM, and in {KEY} a format with %I and %p"),), cells):
        return half
    if not patterns and cells and not all(re.fullmatch("'.*'", cell) for cell in cells):
        patterns, zone = _between_literals(cells)
    kind = None if patterns else _first(_TIMES, cells)
    if kind:
        return kind
    if not patterns:
        return f"write dates like 2024-01-31, or say how they are written in {KEY}, like {_LIKE}"
    which = " or ".join(f'"{pattern}"' for pattern in patterns[:3])
    if partly and re.match("%Y.%d", patterns[0]):
        return (
            f"write {KEY}: {{column: X, format: {which}}}: days stand before months, also in the others, "
            "which were misread"
        )
    if partly:
        return (
            f"they are written like {which}, the others otherwise: bring all to one notation (a spreadsheet "
            "that made dates of some alone may have swapped their day and month)"
        )
    place = " and Z like America/New_York" if zone else ""
    return f"write {KEY}: {{column: X, format: F{zone}}}, where F is {which}{place}"


def _path_inside(cells: list[str]) -> str:
    """`$date.$numberLong`: where in the first cell, an object of JSON, its first plain value is; or empty."""
    path: list[str] = []
    try:
        value = json.loads(cells[0]) if cells else None
    except ValueError:
        return ""
    while isinstance(value, dict) and value:
        path.append(next(iter(value)))
        value = value[path[-1]]
    return ".".join(path)


def _between_literals(cells: list[str]) -> tuple[list[str], str]:
    """(patterns with what stands before and after all times, `zone` where names of zones need one)."""
    before = {re.match(r"[^\d]*", cell)[0] for cell in cells}  # type: ignore[index]
    after = [re.search(r"[^\d]*$", cell)[0] for cell in cells]  # type: ignore[index]
    head, end, zone = before.pop() if len(before) == 1 else "", after[0], ""
    named = [re.fullmatch(rf"( ?\(?)({ZONE_NAME})(\)?)", one) for one in after]
    if len({(one[1], one[3]) if one else None for one in named}) == 1 and named[0]:
        end = f"{named[0][1]}%Z{named[0][3]}"
        clear = all("/" in one[2] or one[2] in ("UTC", "GMT") for one in named if one)
        zone = "" if clear else ", zone: Z"
    elif len(set(after)) > 1 or "%" in end:
        end, after = "", [""] * len(cells)
    for start in (head, ""):
        if start + end and "%" not in start:
            inner = [cell[len(start) : len(cell) - len(own)] for cell, own in zip(cells, after, strict=True)]
            if patterns := [f"{start}{pattern}{end}" for pattern in suggestions(inner)]:
                return patterns, "" if "%z" in patterns[0] else zone
    return [], ""


def _unread_number(cells: list[str]) -> str | None:
    if path := _path_inside(cells):
        return f"they are objects: name the field inside, like collect.files.columns.value: X.{path}"
    for sign, other in (",.", ".,"):
        if cells and all(
            re.fullmatch(rf"[+-]?\d{{1,3}}(?:{re.escape(sign)}\d{{3}})+", cell) for cell in cells
        ):
            whole = f"{cells[0]} is {cells[0].replace(sign, '')}"
            return f'set collect.files.decimal to "{other}" if {whole}, to "{sign}" if it is a fraction'
    if kind := _first(_NO_WORDS, cells):
        return kind
    if cells and not any(character.isdigit() for cell in cells for character in cell):
        word = next((cell for cell in cells if cell.casefold() in _YES), max(cells, key=_stars))
        return (
            "words are no numbers: write collect.files.columns.event: X, and in preprocess.positive.events "
            f'those that mean success, like ["{word}"]; or 1 and 0 for them in the file'
        )
    return _first(_NUMBERS, cells)


def _stars(cell: str) -> int:
    return cell.count("★")


def _first(kinds: tuple[tuple[str, str], ...], cells: list[str]) -> str | None:
    """The advice of the first notation that most of the cells are in."""
    for pattern, advice in kinds:
        if cells and 2 * sum(bool(re.fullmatch(pattern, cell, re.DOTALL)) for cell in cells) > len(cells):
            return advice
    return None


def _share(pattern: str, text: pd.Series) -> float:
    return float(pd.to_datetime(text, errors="coerce", format=pattern, utc=True).notna().mean())
