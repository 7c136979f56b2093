"""The command `evergreen`. Each command imports what it needs when it runs, so that `--help` is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli_bench import Data, add_to
from pipeline.commands import JSON, PLAIN, command, print_json
from pipeline.errors import ArtifactError, DataError
from pipeline.locks import reading
from pipeline.registry.commands import group as registry
from pipeline.run import project
from pipeline.runs import scheduling

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, **PLAIN)
app.add_typer(registry, name="registry")
workspace = typer.Typer(help="The loop's steps, for schedulers.", **PLAIN)
app.add_typer(workspace, name="workspace", hidden=True)


def main() -> None:
    """Entry point: a user error is one line on standard error and exit code 1."""
    try:
        code = app(prog_name="evergreen", standalone_mode=False)
    except Exception as error:
        # Wrong usage, whichever click typer brings along.
        text = getattr(error, "format_message", None)
        if text is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            print(text())
            raise SystemExit(0) from None
        context = getattr(error, "ctx", None)
        helpful = f"{context.command_path if context else 'evergreen'} --help"
        print(f"error: {' '.join(text().split()).rstrip('.')}: see `{helpful}`", file=sys.stderr)
        raise SystemExit(1) from None
    raise SystemExit(code if isinstance(code, int) else 0)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"evergreen {version('evergreen-recommender')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Evergreen: a recommender that knows when it has gone stale."""


@command(app, "check", "Look at the source, before any training.")
def check(as_json: JSON = False) -> None:
    """A look at the source as params.yaml reads it: findings, each with the key that mends it.

    Writes reports/check.html and check.json; nothing else changes.
    """
    from pipeline.check import command as checking
    from pipeline.check.page import figure, lead, verdict
    from pipeline.params import Params
    from pipeline.show import show_check

    root = project()
    report = checking.check(Params.load(root / "params.yaml"))
    checking.write(report, root / "reports")
    if as_json:
        print_json(report.to_dict())
    else:
        show_check(
            lead(report), [(finding, figure(finding)) for finding in report.findings], verdict(report)[2]
        )
    if report.errors:
        raise DataError(report.errors[0].line)


@command(app, "cycle", "Collect, check for drift, train if due, promote.")
def cycle(
    as_of: Annotated[
        str | None,
        typer.Option(help='Read the data as if it were this moment, e.g. "1998-03-01"; in this run only.'),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "-S", metavar="KEY=VALUE", help="Write it into params.yaml first, e.g. collect.source=ifdb."
        ),
    ] = None,
) -> None:
    """The loop once: look for new data and drift, train if it is time, promote if allowed, recommend.

    With nothing new it says so and runs no stage.
    """
    from pipeline.loop.cycle import cycle as run_cycle
    from pipeline.show import show_commit, show_results

    root = project()
    run_cycle(root, as_of, settings or ())
    show_results(root)
    show_commit(root)


@command(app, "recommend", "Items for a user, a history or a text.")
def recommend(
    user: Annotated[str | None, typer.Option(help="A user_id of the data.")] = None,
    items: Annotated[
        str | None, typer.Option(help="A history given in place: item_ids, oldest first.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="What is sought, in words.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many items.")] = 10,
    as_json: JSON = False,
) -> None:
    """The champion's best items for a user, a history (--items ID,ID,...) or a text, with reasons."""
    from pipeline.lists import credit, listed
    from pipeline.show import show_list

    root = project()
    history = None if items is None else [item.strip() for item in items.split(",") if item.strip()]
    rows = listed(root, user=user, items=history, text=text, k=k)
    if as_json:
        print_json(rows)
    else:
        show_list(rows, credit(root))


@command(app, "drift", "Compare two interaction tables.")
def drift(
    reference: Annotated[Path, typer.Option(help="The table to compare with: Parquet, CSV, JSON lines.")],
    current: Annotated[Path, typer.Option(help="The table that may have drifted.")],
    items: Annotated[Path | None, typer.Option(help="Titles, texts and categories of the items.")] = None,
    as_json: JSON = False,
) -> None:
    """Has one interaction table drifted from another? Each signal with a sentence; settings: detect_drift."""
    from pipeline.drift.compare import compare
    from pipeline.params import Params
    from pipeline.show import show_drift

    one, other = reference.absolute(), current.absolute()
    catalogue = items and items.absolute()
    params = Params.load(project() / "params.yaml")
    result = compare(one, other, catalogue, params.detect_drift, params.seed, params.collect.files)
    if as_json:
        print_json(result.to_dict())
    else:
        show_drift(result)
    if result.outcome == "bad_input":
        raise DataError(result.text)


@command(app, "backtest", "Which retraining policy would have paid on these data?")
def backtest(
    policies: Annotated[
        Path | None, typer.Option(help="YAML: name -> {every: N} or keys of decide_retraining.")
    ] = None,
    windows: Annotated[int, typer.Option(help="Windows after the first part.")] = 16,
    start: Annotated[float, typer.Option(help="Share of the rows that the first champion knows.")] = 0.3,
    choose: Annotated[
        bool, typer.Option("--choose", help="Also choose thresholds, on the first half of the windows.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Fine-tune at each training: hours instead of minutes.")
    ] = False,
    data: Data = None,
    as_json: JSON = False,
) -> None:
    """Replays the data's own history under several retraining policies: reports/backtest.html and .json."""
    from pipeline.backtest import command
    from pipeline.params import Params
    from pipeline.show import show_backtest

    file, raw = policies and policies.absolute(), data and data.absolute()
    root = project()
    options = command.Options(windows=windows, start_share=start, policies=file, choose=choose, full=full)
    with reading(root):
        report = command.backtest(raw or root / "data" / "raw", Params.load(root / "params.yaml"), options)
        command.write(report, root / "reports")
    if as_json:
        print_json(report)
    else:
        show_backtest(report)


@command(app, "simulate", "Where does feedback lead, in ten retrainings?")
def simulate(
    rounds: Annotated[int, typer.Option(help="Retrainings of each model.")] = 10,
    as_json: JSON = False,
) -> None:
    """Champion and challenger in feedback loops of their own: reports/simulation.html, docs/simulation.md."""
    from pipeline.show import show_simulation
    from pipeline.simulation import command

    root = project()
    with reading(root):
        report = command.simulate(root, rounds)
    if as_json:
        print_json(report.to_dict())
    else:
        show_simulation(report)


@command(app, "tune", "Search for settings on the validation window.")
def tune(
    trials: Annotated[int, typer.Option(min=1, help="In all; the same command goes on where it ended.")] = 20,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="After so many no trial begins.")
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY[=VALUES]", help="e.g. finetune.epochs=0..4; again for more keys."),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Optuna searches params.yaml; each trial is an experiment of `dvc exp show`: docs/tuning.md.

    Writes reports/tune.html and tune.json; params.yaml stays as it is.
    """
    from pipeline.show import show_tune
    from pipeline.tune.command import tune as search_for

    root = project()
    report = search_for(
        root, trials, timeout, search or (), lambda line: print(line, file=sys.stderr, flush=True)
    )
    if as_json:
        print_json(report)
    else:
        show_tune(report)


@command(app, "why", "What changed between two versions.")
def why(
    first: Annotated[str, typer.Argument(help="The older one, e.g. v1.0.0.")],
    second: Annotated[str, typer.Argument(help="The newer one, e.g. `champion`.")],
    as_json: JSON = False,
) -> None:
    """The change of nDCG@10 between two versions, split into data, params and code.

    Trains what lies between them, in worktrees of their commits, but for what DVC's run-cache holds.
    """
    from pipeline.runs.why import why as explain
    from pipeline.show import show_why

    def say(what: str, text: str) -> None:
        print(f"{what}: {text}", file=sys.stderr, flush=True)

    root = project()
    with reading(root):
        explained = explain(root, first, second, say, show=not as_json)
    if as_json:
        print_json(explained.to_dict())
    else:
        show_why(explained)


@command(app, "replay", "The data's own history, lived again.")
def replay(
    start: Annotated[
        str, typer.Option(help="Share of the interactions that the first champion knows.")
    ] = "60%",
    every: Annotated[str, typer.Option(help="Time between two looks, e.g. 30d, 2w.")] = "30d",
    without_airflow: Annotated[
        bool, typer.Option("--without-airflow", help="Run `evergreen cycle` in a clone instead of DAG runs.")
    ] = False,
) -> None:
    """Plays the data's history with a simulated clock: drift, decisions, trainings, promotions, by period.

    Through the DAGs of the Airflow that `make airflow` started. Interrupted, the same command goes on.
    """
    from pipeline.runs.periods import line
    from pipeline.runs.replay import replay as play
    from pipeline.show import show_periods

    periods, where = play(
        project(), start, every, without_airflow, lambda period: print(line(period), flush=True)
    )
    show_periods(periods)
    print(where)


@command(app, "serve", "Lists, feedback and a page over HTTP.")
def serve(
    host: Annotated[
        str, typer.Option(help="Beyond this machine EVERGREEN_API_KEYS is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option()] = 8000,
    workers: Annotated[int, typer.Option(help="Processes; each holds the champion.")] = 1,
    new_key: Annotated[
        str | None, typer.Option(metavar="NAME", help="Add a key to the file of keys, print it, and end.")
    ] = None,
) -> None:
    """The champion's lists over HTTP, fresh after every event: docs/serving.md. The page is at /."""
    from pipeline.serve import command as serving

    root = project()
    if new_key is not None:
        key, path = serving.add_key(root, new_key)
        print(key)
        print(f"its hash is in {path}: EVERGREEN_API_KEYS={path}", file=sys.stderr)
        return
    serving.serve(root, host, port, workers)


@command(app, "feedback", "What people made of the lists they were shown.")
def feedback(
    days: Annotated[
        int, typer.Option(min=1, max=36_500, help="The newest so many days of the event store.")
    ] = 30,
    as_json: JSON = False,
) -> None:
    """Click-through, likes, returns, coverage and diversity of the service's lists, also by version."""
    from pipeline.serve.feedback import command
    from pipeline.show import show_feedback

    told = command(project(), days)
    if as_json:
        print_json(told)
    else:
        show_feedback(told)


@command(app, "forget", "Erase a person everywhere, with a certificate.")
def forget(
    user: Annotated[
        str | None,
        typer.Argument(help="A user_id. Without one: whoever the service forgot (DELETE /users/ID)."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Erases a person: event store, data, lists, reports, caches, DVC's cache and remotes, models' samples.

    Their rows in a later export stay out. Writes a certificate into data/history/forgotten: docs/privacy.md.
    """
    from pipeline.forget.command import forget as erase
    from pipeline.show import show_forgotten

    told = erase(project(), user, dry_run)
    if told is None:
        print("everybody who was forgotten is erased here; to look again, name them: `evergreen forget USER`")
    elif as_json:
        print_json(told.to_dict())
    else:
        show_forgotten(told)


@command(app, "champion", "Put the champion's folder in place.")
def champion(
    to: Annotated[Path | None, typer.Option(help="Another folder than models/champion.")] = None,
) -> None:
    """Put the champion's folder into models/champion (or elsewhere), verified by hash, never half."""
    from pipeline.loop.steps import note_encoder
    from pipeline.models.artifacts import CHAMPION
    from pipeline.registry.actions import put_champion

    target = to.absolute() if to else None
    if target is None:
        note_encoder(project())
    version, changed = put_champion(project(), target)
    if version is None:
        said = "no champion yet: `evergreen cycle` trains and promotes the first one"
        if to:
            raise ArtifactError(said)
        print(said)
    else:
        print(
            f"{to or CHAMPION}: {version.name}, {'put there' if changed else 'already there'}, hash verified"
        )


add_to(app)
for _name, _step in scheduling.COMMANDS.items():
    command(workspace, _name, (_step.__doc__ or "").splitlines()[0], scheduling.PERMANENT)(_step)
