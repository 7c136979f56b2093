"""What decisions read and write: JSON that may be missing or malformed, and then is evidence of nothing.

Every reader here returns None instead of raising, so that a decision can name what is missing and say no.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.files import write_text


def get(mapping: Any, *keys: str) -> Any:
    """mapping[key][key]...; None where any of it is missing or no dictionary."""
    for key in keys:
        mapping = mapping.get(key) if isinstance(mapping, dict) else None
    return mapping


def string(mapping: Any, key: str) -> str | None:
    """A text that is not empty."""
    value = get(mapping, key)
    return value if isinstance(value, str) and value else None


def number(value: Any) -> float | None:
    """A finite number; neither true nor false."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def moment(value: Any) -> datetime | None:
    """An ISO 8601 text as UTC; without a zone it means UTC."""
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def iso(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def read_json(path: Path) -> Any:
    """The content; None if missing or malformed: the decision then says no."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def write_json(path: Path, content: Any) -> None:
    """Written beside, then renamed. Raises ValueError for a NaN: null is what says so in JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
