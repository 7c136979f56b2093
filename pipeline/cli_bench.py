"""The commands of `evergreen bench`: one for each module of pipeline/bench."""

from __future__ import annotations

import importlib
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import JSON, PLAIN, command, print_json
from pipeline.errors import ConfigError
from pipeline.locks import reading
from pipeline.run import guarded, project

group = typer.Typer(help="Benchmarks of the project: ratios, each measured in one run.", **PLAIN)

Data = Annotated[
    Path | None,
    typer.Option(help="Another folder than data/raw, with interactions/ and items.parquet as there."),
]


def add_to(app: typer.Typer) -> None:
    """The first line of a module's docstring is its help.

    A bench is `run(data: Path | None) -> dict`: "name", "conditions", "figures", "ratios" (see show_bench).
    One that asks the project's data unless another folder is named has `OWN`, where they are: like any that
    is given a folder it may copy rows, so that nobody is forgotten meanwhile.
    """
    files = sorted((Path(__file__).parent / "bench").glob("[!_]*.py"))
    for file in files:
        _add(file.stem, file.read_text(encoding="utf-8").split('"""')[1].splitlines()[0])
    if files:
        app.add_typer(group, name="bench")
    else:
        anything = {"allow_extra_args": True, "ignore_unknown_options": True}
        app.command("bench", short_help="Only in a clone of the project.", context_settings=anything)(_none)


def _none() -> None:
    """Benchmarks are not part of the installed package."""
    guarded(_refuse)


def _refuse() -> None:
    raise ConfigError(
        "evergreen bench: not in the installed package: run `make setup` in a clone of the project"
    )


def _add(name: str, summary: str) -> None:
    def measure(data: Data = None, as_json: JSON = False) -> None:
        folder = data.absolute() if data else None
        root, bench = project(), importlib.import_module(f"pipeline.bench.{name}")
        with reading(root) if folder or hasattr(bench, "OWN") else nullcontext():
            result = bench.run(folder)
        if as_json:
            print_json(result)
        else:
            from pipeline.show import show_bench

            show_bench(result)

    measure.__doc__ = summary
    command(group, name, summary)(measure)
