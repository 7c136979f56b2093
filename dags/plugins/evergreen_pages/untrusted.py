"""Content that others wrote: JSON of whatever shape read without surprises, texts and numbers made harmless.

In: values of any type. Out: what templates and charts may show. Every text is cleaned by `plain` before Jinja
escapes it; a number that is none is a dash.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic_core import from_json

MISSING = "–"
LARGEST = 20_000_000  # bytes; a larger JSON file is not read
# Controls, lone surrogates, invisible line ends, and everything that turns the direction of reading around.
UNSAFE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)


def read_json(path: Path) -> Any:
    """What the file holds; None where there is none or it cannot be read."""
    try:
        content = path.read_bytes() if path.stat().st_size <= LARGEST else b"null"
        return from_json(content)  # a third of the time of Python's own reader
    except (OSError, ValueError):
        return None


def get(content: Any, *keys: str) -> Any:
    """content[key][key]...; None where a level is missing or no mapping."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def mapping(content: Any, *keys: str) -> dict[str, Any]:
    found = get(content, *keys)
    return found if isinstance(found, dict) else {}


def rows(content: Any, *keys: str) -> list[dict[str, Any]]:
    """The mappings of a list; what else stands in it is left out."""
    found = get(content, *keys)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def string(content: Any, *keys: str) -> str | None:
    found = get(content, *keys)
    return found if isinstance(found, str) and found else None


def finite(value: Any) -> float | None:
    """The value as a float; None for whatever is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def moment(value: Any) -> datetime | None:
    """An ISO date or time; without a zone it is UTC."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        if found is None:
            return None
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


# For people ------------------------------------------------------------------------------------------------


def plain(value: Any, limit: int = 300) -> str:
    """Untrusted text as one harmless line of at most `limit` characters (an ellipsis where it was cut)."""
    text = str(value)[: 4 * limit]  # a 100 kB title costs no more than a short one
    text = " ".join(UNSAFE.sub("", text).split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def number(value: Any, digits: int = 3, sign: bool = False) -> str:
    """Fixed decimals, a true minus; a dash for whatever is not a finite number."""
    known = finite(value)
    if known is None:
        return MISSING
    text = f"{known:+,.{digits}f}" if sign else f"{known:,.{digits}f}"
    if not text.strip("+-0.,"):
        text = text.lstrip("+-")  # no signed zero
    return text.replace("-", "−")


def words(name: Any) -> str:
    """recent_popularity -> recent popularity"""
    return plain(name, 80).replace("_", " ")


def day(value: datetime | None) -> str:
    return MISSING if value is None else f"{value:%Y-%m-%d}"


def minute(value: datetime | None) -> str:
    return MISSING if value is None else f"{value:%Y-%m-%d %H:%M}"


def days(begin: datetime | None, end: datetime | None) -> str:
    """The time between two moments, in days."""
    if begin is None or end is None:
        return MISSING
    found = round((end - begin).total_seconds() / 86_400)
    return f"{number(found, 0)} day{'' if abs(found) == 1 else 's'}"


def show(value: Any) -> str:
    """Whatever a check or a setting may hold, as one short text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    known = finite(value)
    if known is not None:
        return number(known, 0) if known == int(known) else f"{known:.4g}".replace("-", "−")
    if isinstance(value, dict):
        return plain(", ".join(f"{words(key)} {show(one)}" for key, one in list(value.items())[:8]), 120)
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return f"{value[:8]}…"  # of a model folder: enough to tell two apart
    return plain(value, 120) if isinstance(value, str) and value else MISSING
