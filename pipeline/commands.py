"""What every group of commands is made of; light, so that `--help` is instant."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from pipeline.run import guarded

# Plain help: rich would double the time until it shows.
PLAIN: dict[str, Any] = {"rich_markup_mode": None, "no_args_is_help": True}
JSON = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def command(
    group: typer.Typer, name: str, summary: str, permanent: int = 1
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command that runs in the project's folder, whose errors and interruption become one line.

    `permanent`: see `guarded`.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def guard(*arguments: Any, **options: Any) -> None:
            guarded(lambda: function(*arguments, **options), permanent)

        group.command(name, short_help=summary)(guard)
        return function

    return register


def print_json(content: object) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False))
