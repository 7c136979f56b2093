"""Patterns of times as other programs write them -> ours, of strptime: dd/MM/yyyy HH:mm -> %d/%m/%Y %H:%M.

Letters of Java, .NET, Oracle, DB2, PostgreSQL, moment.js and spreadsheets; signs of MySQL, C and chrono; Go's
example. What is ours is only proposed: one letter may mean two things (Oracle's HH are 12 hours, Java's 24).
"""

from __future__ import annotations

import re

_NAMES = {  # what people write for the names of units
    **dict.fromkeys(("seconds", "unix", "epoch", "epoch_second", "unixtime", "timestamp"), "s"),
    **dict.fromkeys(("milliseconds", "millis", "epoch_millis", "unix_ms"), "ms"),
    **dict.fromkeys(("microseconds", "micros"), "us"),
    **dict.fromkeys(("nanoseconds", "nanos"), "ns"),
}
_GO = {
    **{"2006": "%Y", "January": "%B", "Jan": "%b", "Monday": "%A", "Mon": "%a", "MST": "%Z", "Z07:00": "%z"},
    **{"-07:00": "%z", "-0700": "%z", "PM": "%p", "15": "%H", "01": "%m", "02": "%d", "03": "%I"},
    **{"04": "%M", "05": "%S", "06": "%y"},
}
# Signs with a % that Python has not, or that mean something else beside MySQL's %i.
_SIGNS = {
    **{"e": "%d", "k": "%H", "l": "%I", "P": "%p", "s": "%S", "i": "%M", "N": "%f", "L": "%f", "h": "%b"},
    **{"F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M", "D": "%m/%d/%y", "r": "%I:%M:%S %p"},
}
_MYSQL = {"M": "%B", "h": "%I", "s": "%S", "W": "%A", "c": "%m", "v": "%V", "x": "%G"}
# Parts of other programs' patterns, which would be mere text in one of ours.
ALIEN = re.compile(r"(?<![A-Za-z])(?:yyyy|YYYY|yy|YY|MM|mm|dd|DD|HH(?:24)?|hh|MI|mi|ss|SS)(?![A-Za-z])")
# Spreadsheets of other languages: TT.MM.JJJJ, jj/mm/aaaa, gg/mm/aaaa.
_ABROAD = (("JJJJ", str.maketrans("JT", "YD")), ("AAAA", str.maketrans("AJG", "YDD")))
_LETTERS = {
    **dict.fromkeys(("YYYY", "RRRR", "UUUU", "Y", "U"), "%Y"),
    **dict.fromkeys(("YY", "RR"), "%y"),
    **dict.fromkeys(("MONTH", "MMMM"), "%B"),
    **dict.fromkeys(("MON", "MMM"), "%b"),
    **dict.fromkeys(("DAY", "DDDD", "EEEE"), "%A"),
    **dict.fromkeys(("DY", "DDD", "EEE", "EE", "E"), "%a"),
    **dict.fromkeys(("DD", "D"), "%d"),
    **dict.fromkeys(("HH24", "KK", "K"), "%H"),
    **dict.fromkeys(("HH12",), "%I"),
    **dict.fromkeys(("MI", "NN"), "%M"),
    **dict.fromkeys(("SS", "S"), "%S"),
    **dict.fromkeys(("AM/PM", "AM", "PM", "A.M.", "P.M.", "A", "TT"), "%p"),
    **dict.fromkeys(("TZH:TZM", "TZHTZM", "XXX", "XX", "X"), "%z"),
    **dict.fromkeys(("TZR", "TZD", "VV"), "%Z"),
}
_WORDS = sorted((name for name in _LETTERS if len(set(name)) > 1), key=len, reverse=True)
_TOKEN = re.compile(
    r"%[-_0#^]?:*[.\d]*[A-Za-z]|'[^']*'|\"[^\"]*\"|\[[^\]]*\]|"
    + "|".join(map(re.escape, _WORDS))
    + r"|F+\d?|([A-Za-z])\1*|.",
    re.IGNORECASE | re.DOTALL,
)


def ours(pattern: str) -> str | None:
    """The pattern in ours, or the name of a unit; None where a part of it has none."""
    if pattern == "%s" or pattern.casefold() in _NAMES:
        return _NAMES.get(pattern.casefold(), "s")  # date's %s
    if "2006" in pattern:
        return re.sub("|".join(map(re.escape, _GO)), lambda part: _GO[part[0]], pattern)
    for years, letters in _ABROAD:
        if years in pattern.upper():
            pattern = pattern.upper().translate(letters)
    tokens = [found[0] for found in _TOKEN.finditer(pattern)]
    half, mysql = _has_half(tokens), "%i" in tokens or {"%M", "%e"} <= {*tokens} or {"%c", "%Y"} <= {*tokens}
    result: list[str] = []
    for place, token in enumerate(tokens):
        if token[0] == "%" and len(token) > 1:
            part = _of_sign(token, mysql)
        elif token[0] in "'\"[" and len(token) > 1:
            part = token[1:-1] or "'"
        elif token[0].isalpha() and ("%" not in pattern or ALIEN.fullmatch(token)):
            part = _of_letters(token, result, tokens[place + 1 :], half)
        else:
            part = token
        if part is None:
            return None
        result.append(part)
    return "".join(result)


def _has_half(tokens: list[str]) -> bool:
    """Whether a part of the pattern is AM or PM: HH are 12 hours then."""
    return any(_LETTERS.get(token.upper()) == "%p" or token in ("%p", "%P") for token in tokens)


def _of_sign(token: str, mysql: bool) -> str | None:
    dot, sign = "." if token[1] == "." else "", token[-1]
    if sign in "fz":
        return f"{dot}%{sign}"
    return _MYSQL.get(sign, _SIGNS.get(sign, f"%{sign}")) if mysql else _SIGNS.get(sign, f"%{sign}")


def _of_letters(token: str, before: list[str], after: list[str], half: bool) -> str | None:
    """One run of letters; months and minutes are told apart by what stands beside them."""
    upper, read = token.upper(), [part for part in before if part.startswith("%")]
    if token == "T":
        return token
    if upper in ("MM", "M"):
        following = next((one for one in after if one[0].isalpha() or one[0] == "%"), "")
        minutes = read[-1:] in (["%H"], ["%I"]) or following in ("ss", "SS", "s")
        return "%M" if minutes else "%m"
    if upper in ("HH", "H"):
        return "%I" if half else "%H"
    if re.fullmatch("F+|FF\\d|S+|MS|US", upper) and ("%S" in read or len(token) > 2):
        return "%f"
    if re.fullmatch("Z+", upper):
        return "%Z" if token[0] == "z" and "%f" not in read else "%z"
    if token == "DDD":
        return "%j"  # Oracle's and moment's day of the year; .NET's ddd is a day's name
    return _LETTERS.get(upper)
