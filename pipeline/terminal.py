"""How tables, numbers and texts look in the terminal (pipeline/show.py shows them).

Texts that come from the data are shown as they are, without markup or control characters.
"""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 120  # where the output is no terminal


def words(name: str) -> str:
    return name.replace("_", " ")


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    if isinstance(value, dict):
        return ", ".join(f"{words(key)} {cell(one)}" for key, one in value.items())
    return "-" if value is None else str(value)


def console() -> Console:
    found = Console(highlight=False)
    return found if found.is_terminal else Console(width=WIDTH, highlight=False)


def table(columns: tuple[str, ...], title: str | None = None, right: tuple[str, ...] | None = None) -> Table:
    """`right`: columns aligned to the right; by default all but the first."""
    found = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for place, column in enumerate(columns):
        to_right = place > 0 if right is None else column in right
        found.add_column(column, justify="right" if to_right else "left")
    return found


def plain(text: str) -> Text:
    return Text("".join(character if character.isprintable() else " " for character in text))


def number(value: Any, sign: str = "") -> str:
    return f"{value:{sign}.4f}" if isinstance(value, int | float) else "-"


def interval(low: Any, high: Any, sign: str = "") -> str:
    return f"{number(low, sign)} .. {number(high, sign)}"
