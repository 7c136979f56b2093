"""The frame of every HTML page of the project, and how untrusted text and numbers look on it.

In: a template of pipeline/templates and its values. Out: one self-contained page without any script, whose
own policy forbids scripts and every request. Same values, same bytes: no clock.
Rule: every text is untrusted: cleaned by `plain`, then escaped by Jinja's autoescape.
"""

import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

MISSING = "–"
# Controls, lone surrogates, invisible line ends, and everything that turns the direction of reading around.
UNSAFE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)


def page(template: str, **values: Any) -> str:
    """Fill a template that extends base.html. Raises jinja2.UndefinedError for a value that it lacks."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, words=words, moment=moment, show=show)
    return environment


def _finalize(value: Any) -> Any:
    """The last gate before escaping: every text that a template prints."""
    return plain(value, 2000) if isinstance(value, str) and not hasattr(value, "__html__") else value


def finite(value: Any) -> float | None:
    """The value as a float; None for whatever is not a finite number."""
    if isinstance(value, bool | str) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def number(value: Any, digits: int = 3, sign: bool = False) -> str:
    """Fixed decimals, a true minus; a dash for whatever is not a finite number."""
    known = finite(value)
    if known is None:
        return MISSING
    text = f"{known:+,.{digits}f}" if sign else f"{known:,.{digits}f}"
    if not text.strip("+-0.,"):
        text = text.lstrip("+-")  # no signed zero
    return text.replace("-", "−")


def plain(value: Any, limit: int = 300) -> str:
    """Untrusted text as one harmless line of at most `limit` characters (an ellipsis where it was cut)."""
    text = str(value)[: 4 * limit]  # a 100 kB title costs no more than a short one
    text = " ".join(UNSAFE.sub("", text).split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def words(name: Any) -> str:
    """frozen_text -> frozen text"""
    return plain(name, 80).replace("_", " ")


def moment(value: Any) -> str:
    """A time in ISO notation to the minute; the zone is UTC throughout."""
    text = "" if value is None else plain(value, 40)
    return text[:16].replace("T", " ") if re.match(r"\d{4}-\d\d-\d\d", text) else text or MISSING


def show(value: Any) -> str:
    """Whatever a settings file may hold, as one short text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{words(key)} {show(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(show(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    known = finite(value)
    if known is not None:
        return number(known, 0) if known == int(known) else f"{known:.4g}"
    return plain(value, 120) if isinstance(value, str) and value else MISSING
