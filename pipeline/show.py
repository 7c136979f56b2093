"""Tables for the terminal: results of the evaluation, recommendations, versions and their lineage.

Titles and reasons come from the data: they are shown as they are, without markup or control characters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from pipeline import terminal
from pipeline.errors import ArtifactError
from pipeline.models.artifacts import has_model
from pipeline.registry.git import Git

if TYPE_CHECKING:
    from pipeline.documents.drift import Drift
    from pipeline.documents.finding import Finding
    from pipeline.documents.forgetting import Certificate
    from pipeline.documents.registry import Lineage, ListedVersion, Why
    from pipeline.documents.simulation import Simulation
    from pipeline.runs.periods import Period

LISTS = "recommendations/top_k.parquet"
REPORTS = {
    "reports/drift.html": "what changed since the champion was trained",
    "reports/retraining.json": "whether it was time to train again, and why",
    "reports/evaluation.html": "figures, curves and examples, to be read",
    "reports/evaluation.json": "every figure",
    "reports/promotion.json": "the verdict, check by check",
    LISTS: "the champion's lists for every user",
    "data/history/index.html": "every run, on one page",
}
_FIRST = ("challenger", "champion")


def show_results(root: Path) -> None:
    """Models by nDCG@10, challenger and champion first, and where the reports are."""
    console = terminal.console()
    if (root / "reports" / "evaluation.json").exists():
        evaluation = _read(root / "reports" / "evaluation.json")
        console.print(terminal.plain(_verdict(evaluation)), soft_wrap=True)
        console.print(_results(evaluation))
    else:
        console.print("nothing was trained here yet, so there are no figures")
    for path, content in REPORTS.items():
        if (root / path).exists() and (path != LISTS or has_model(root / "models" / "champion")):
            console.print(Text(f"{path:<32}{content}"))


def show_forgotten(told: Certificate) -> None:
    """Place by place; `told` without a mark is of a dry run."""
    console = terminal.console()
    head = f"forgotten: {', '.join(told.marks)}" if told.marks else "a look: nothing was changed"
    table = terminal.table(("place", "rows of theirs", "done" if told.marks else "would be done"), title=head)
    for place in told.places:
        rows = "?" if place.rows is None else f"{place.rows:,}"
        table.add_row(place.place, rows, place.done)
    console.print(table)
    for sentence in told.models:
        console.print(Text(sentence), soft_wrap=True)
    if not any(place.rows for place in told.places):
        console.print(
            Text("no row of theirs is anywhere here: if there should be, see how the data spell the id"),
            soft_wrap=True,
        )
    if told.marks:
        console.print(Text(f"data/history/forgotten/{told.marks[0]}.json keeps this"), soft_wrap=True)
        further = "commit dvc.lock if it changed, `git push --tags`, then `evergreen cycle`"
        console.print(Text(further), soft_wrap=True)


def show_periods(periods: Sequence[Period]) -> None:
    """A replay's periods, oldest first."""
    table = terminal.table(("as of", "drift", "decision", "training", "promotion", "champion"), title="")
    for period in periods:
        decision = period.decision.partition(":")[0]
        cells = (period.drift, decision, period.training, period.promotion, period.champion or "none")
        table.add_row(f"{period.as_of:%Y-%m-%d}", *(terminal.plain(text) for text in cells))
    terminal.console().print(table)


def show_backtest(report: dict[str, Any]) -> None:
    """Policies, best first, and where the reports are."""
    from pipeline.backtest.page import verdict

    console = terminal.console()
    columns = ("policy", "nDCG@10", "kept gain", "2nd half", "trainings", "promoted", "seconds", "regret")
    table = terminal.table(columns, title=f"{len(report['windows'])} windows, {report.get('model')} scorer")
    policies = report["policies"]
    for name in sorted(policies, key=lambda name: -(policies[name]["mean"] or 0)):
        row = policies[name]
        half = row["parts"]["second_half"]["kept_gain"]
        table.add_row(
            name,
            terminal.number(row["mean"]),
            *("–" if kept is None else f"{kept:.0%}" for kept in (row["kept_gain"], half)),
            str(row["trainings"]),
            str(row["promotions"]),
            f"{row['seconds']:.1f}",
            terminal.number(row["regret"]),
        )
    console.print(table)
    console.print(Text(f"{verdict(report)}."))
    console.print(Text("reports/backtest.html           curves, decisions and reasons"))


def _verdict(evaluation: dict[str, Any]) -> str:
    """Against the best baseline, in a sentence: a table alone is not read."""
    from pipeline.evaluation.findings import best_baseline, verdict

    if not evaluation.get("models"):
        return "no model was evaluated"
    return verdict(evaluation, best_baseline(evaluation))["text"]


def show_commit(root: Path) -> None:
    """What git does not have yet of a cycle, if anything."""
    changed = Git(root).run("status", "--porcelain", "--", "dvc.lock", "params.yaml")
    if names := " ".join(line[3:] for line in changed.splitlines()):
        said = (
            f"`git add {names}` and `git commit` keep what was run on what; `git push --tags` shares versions"
        )
        terminal.console().print(terminal.plain(f"{'to commit:':<16}{said}"), soft_wrap=True)


def _results(evaluation: dict[str, Any]) -> Table:
    models, paired = evaluation.get("models") or {}, evaluation.get("paired") or {}
    one = (models.get("challenger") or {}).get("all") or {}
    counts = f"{one.get('users', '?')} users, {one.get('points', '?')} test points"
    table = terminal.table(
        ("model", "nDCG@10", "95 % interval", "recall@10", "MRR@10", "coverage@10", "challenger − model"),
        title=f"{counts}, fitted to {evaluation.get('fit_end')}, as of {evaluation.get('as_of')}",
    )
    for name in sorted(models, key=lambda name: _place(name, models)):
        row = models[name].get("all") or {}
        table.add_row(
            name,
            terminal.number(row.get("ndcg@10")),
            terminal.interval(row.get("ndcg@10_low"), row.get("ndcg@10_high")),
            *(terminal.number(row.get(key)) for key in ("recall@10", "mrr@10", "coverage@10")),
            _pair(paired.get(name)),
            style="bold" if name in _FIRST else None,
        )
    return table


def show_check(lead: str, findings: Sequence[tuple[Finding, str]], verdict: str) -> None:
    """What `evergreen check` found: each finding with its figure, examples and the key that mends it."""
    console = terminal.console()
    console.print(terminal.plain(lead), soft_wrap=True)
    if findings:
        table = terminal.table(("", "what", "figure", "params.yaml"), right=("figure",))
        for finding, figure in findings:
            examples = "".join(f"\n  {terminal.plain(example)}" for example in finding.examples)
            remedy = "\n".join(str(terminal.plain(text)) for text in (finding.key, finding.remedy) if text)
            style = {"error": "bold red", "warning": "yellow"}.get(finding.severity)
            cells = (f"{terminal.plain(finding.text)}{examples}", figure, remedy)
            table.add_row(Text(finding.severity, style=style or ""), *map(Text, cells))
            table.add_section()
        console.print(table)
    console.print(terminal.plain(verdict))
    console.print(Text("reports/check.html              figures and pictures"))


def show_tune(report: dict[str, Any]) -> None:
    """What `evergreen tune` found: trials, best first, the verdict, how the best is taken."""
    from pipeline.tune.page import take, verdict

    keys = list(report["searched"])
    table = terminal.table(("trial", *keys, "nDCG@10", "first look", "seconds", "ended"))
    for row in sorted(report["trials"], key=lambda row: -(row["validation_ndcg@10"] or 0)):
        values = (terminal.cell(row["params"].get(key)) for key in keys)
        figures = (terminal.number(row["validation_ndcg@10"]), terminal.number(row["first_look_ndcg@10"]))
        name = "params.yaml as it is" if row["params"] == report["as_is"] else row["experiment"]
        cells = (name or str(row["trial"]), *values, *figures, terminal.cell(row["seconds"]), row["state"])
        table.add_row(*map(terminal.plain, cells))
    console = terminal.console()
    console.print(table)
    console.print(terminal.plain(verdict(report)[2]), soft_wrap=True)
    if report["importance"]:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in report["importance"].items())
        console.print(terminal.plain(f"what mattered: {shares}"), soft_wrap=True)
    for line in take(report):
        console.print(terminal.plain(f"to take it:     {line}"), soft_wrap=True)
    console.print(Text("reports/tune.html               trials, and what mattered"))


def show_list(rows: list[dict[str, Any]], credit: str | None = None) -> None:
    """What `evergreen recommend` found, and whose the titles are."""
    table = terminal.table(("", "item", "title", "score", "why"), right=("", "score"))
    for row in rows:
        score = "by popularity" if row["score"] is None else f"{row['score']:.3f}"
        cells = (str(row["rank"]), row["item_id"], row["title"] or "", score, "; ".join(row["reasons"]))
        table.add_row(*map(terminal.plain, cells))
    console = terminal.console()
    console.print(table)
    if credit:
        console.print(terminal.plain(credit), soft_wrap=True)


def show_feedback(told: dict[str, Any]) -> None:
    """What people made of the lists that they were shown: in all, then by version."""
    parts = {"all": told} | told["by_version"]
    table = terminal.table(("", *parts), right=tuple(parts))
    for name in ("lists", "items_shown", "click_through", "likes", "returns_7_days", "coverage", "diversity"):
        cells = ("" if part[name] is None else f"{part[name]:,.6g}" for part in parts.values())
        table.add_row(name.replace("_", " "), *map(terminal.plain, cells))
    terminal.console().print(table)
    if pair := told["interleaved"]:
        taken = pair["taken"]
        text = (
            f"{pair['lists']:,} interleaved lists of {pair['users']:,} users: {taken['challenger']:,} items "
            f"of challenger {pair['challenger']} taken, {taken['champion']:,} of champion {pair['champion']}"
            f": {pair['difference']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}] a list: {pair['answer']}"
        )
        terminal.console().print(terminal.plain(text), soft_wrap=True)


def show_drift(result: Drift) -> None:
    """What a drift check found: the verdict, then a sentence a signal."""
    console = terminal.console()
    console.print(terminal.plain(f"{result.outcome}: {result.text}"), soft_wrap=True)
    for side, span in (("reference", result.reference), ("current", result.current)):
        if span:
            fields = span.to_dict()
            text = f"{fields['from']} to {fields['to']}, {fields['rows']:,} rows of {fields['users']:,} users"
            console.print(terminal.plain(f"{side:<10}{text}"), soft_wrap=True)
    if not result.signals:
        return
    table = terminal.table(("signal", "value", "p", "floor", "what it says"), right=("value", "p", "floor"))
    for name, signal in result.signals.items():
        numbers = (signal.value, signal.p_value, signal.floor)
        cells = (name, *("" if one is None else f"{one:.3f}" for one in numbers), signal.text)
        table.add_row(*map(terminal.plain, cells), style="bold" if signal.flag else None)
    console.print(table)


def show_versions(rows: list[ListedVersion]) -> None:
    """What `evergreen registry list` found."""
    if not rows:
        terminal.console().print("no version yet: `evergreen cycle` trains and promotes the first one")
        return
    columns = ("version", "", "made", "measured on", "nDCG@10", "over best baseline", "commit", "model in")
    table = terminal.table(columns, right=("nDCG@10", "over best baseline"))
    for row in rows:
        cells = (
            row.version,
            row.status or "",
            "" if row.when is None else f"{row.when:%Y-%m-%d %H:%M}",
            f"{_day(row.fit_end)} to {_day(row.as_of)}",
            terminal.number((row.metrics or {}).get("ndcg@10")),
            terminal.number((row.metrics or {}).get("gain_over_best_baseline"), "+"),
            (row.commit or "")[:10],
            row.objects,
        )
        style = "bold" if row.status == "champion" else "red" if row.objects == "missing" else None
        table.add_row(*map(terminal.plain, cells), style=style)
    console = terminal.console()
    console.print(table)
    console.print(
        Text("nDCG@10 of different spans cannot be compared; what is over the best baseline there can.")
    )


def _day(moment: datetime | None) -> str:
    return "?" if moment is None else f"{moment:%Y-%m-%d}"


def show_lineage(origin: Lineage) -> None:
    """What `evergreen registry lineage` found, from the version down to the source."""
    fields = origin.to_dict()
    record, manifest = fields["record"], fields["manifest"] or {}
    rows = json.dumps(manifest.get("rows"))
    terms = [f"{one['when']} ({one['action']}: {one['reason']})" for one in fields["appointments"]]
    lines = {
        "version": f"{origin.version}: {record['reason']}",
        "made": f"{record['when']} by {record['who']}",
        "champion": "; ".join(terms) or "never",
        "model": f"hash {record['artifact_hash']}, fitted to {record['fit_end']}",
        "metrics": json.dumps(record["metrics"]),
        "commit": f"{origin.commit}, on top of {origin.based_on}",
        "params": f"git show {origin.commit[:10]}:params.yaml",
        "card": f"git show {origin.commit[:10]}:registry/MODEL_CARD.md, DATA_SHEET.md",
        "data": f"as of {manifest.get('as_of')}, hash {manifest.get('content_hash')}, rows {rows}",
        "source": f"{manifest.get('source')}, fingerprint {manifest.get('fingerprint')}",
    }
    console = terminal.console()
    for key, value in lines.items():
        console.print(terminal.plain(f"{key:<10}{value}"), soft_wrap=True)
    for path, md5 in origin.outputs.items():
        console.print(terminal.plain(f"{'output':<10}{path}  {md5}"), soft_wrap=True)


def show_why(explained: Why) -> None:
    """The change between two versions, step by step."""
    right = ("nDCG@10", "interval")
    table = terminal.table(("what is exchanged", *right, "what differs"), title="", right=right)
    for step in explained.steps:
        interval = step.unknown or terminal.interval(step.low, step.high, "+")
        differs = Text("\n").join(terminal.plain(change) for change in step.changes[:8])
        table.add_row(step.what, terminal.number(step.gain, "+"), terminal.plain(interval), differs)
    table.add_row("other test points", terminal.number(explained.rest, "+"), "", "what no exchange explains")
    console = terminal.console()
    if explained.steps:
        console.print(table)
    versions = f"{explained.first} to {explained.second}: nDCG@10 {terminal.number(explained.before)} to"
    change = terminal.number(explained.change, "+")
    nothing = "" if explained.steps else ": data, params and code are the same"
    console.print(f"{versions} {terminal.number(explained.after)}, {change}{nothing}")


def show_simulation(report: Simulation) -> None:
    """How both feedback loops ended."""
    from pipeline.evaluation.long_term_verdict import TOLD
    from pipeline.simulation.page import explored_sentence, sentence

    console, number = terminal.console(), terminal.number
    head = f"{report.rounds} retrainings, {report.replications} times, {report.users:,} users"
    columns = ("late rounds", "challenger", "champion", "lost", "95 %", "share", "p")
    table = terminal.table(columns, title=head)
    for row in report.measures:
        cells = (number(value) for value in (row.challenger, row.champion, row.lost))
        share = "–" if row.share is None else f"{row.share:+.0%}"
        table.add_row(TOLD[row.name], *cells, terminal.interval(row.low, row.high), share, number(row.p))
    console.print(table)
    console.print(Text(f"{sentence(report)}."), soft_wrap=True)
    if report.exploration is not None:
        console.print(Text(f"{explored_sentence(report.exploration)}."), soft_wrap=True)
    console.print(Text("reports/simulation.html         the curves, and how like the data people are"))


def show_bench(result: dict[str, Any]) -> None:
    """What a bench measured: `conditions` and `ratios` as lines, `figures` as lines or as one table.

    A table where every figure is an object: {ROW: {COLUMN: value}}. `findings`, if any, are sentences.
    """
    console, figures = terminal.console(), result.get("figures") or {}
    for key, value in (result.get("conditions") or {}).items():
        console.print(terminal.plain(f"{terminal.words(key):<28}{terminal.cell(value)}"), soft_wrap=True)
    if figures and all(isinstance(row, dict) for row in figures.values()):
        columns = list(dict.fromkeys(column for row in figures.values() for column in row))
        table = terminal.table(("", *map(terminal.words, columns)), title=f"\nbench {result['name']}")
        for name, row in figures.items():
            table.add_row(
                terminal.plain(terminal.words(name)),
                *(terminal.plain(terminal.cell(row.get(column))) for column in columns),
            )
        console.print(table)
    else:
        console.print()
        for key, value in figures.items():
            console.print(terminal.plain(f"{terminal.words(key):<28}{terminal.cell(value)}"), soft_wrap=True)
    for key, value in (result.get("ratios") or {}).items():
        name = terminal.plain(f"{terminal.words(key):<40}").plain
        console.print(Text.assemble((name, "bold"), terminal.cell(value)), soft_wrap=True)
    for sentence in result.get("findings") or ():
        console.print(terminal.plain(sentence), soft_wrap=True)


def _place(name: str, models: dict[str, Any]) -> tuple[bool, bool, float]:
    gain = (models[name].get("all") or {}).get("ndcg@10")
    return name != "challenger", name not in _FIRST, -gain if isinstance(gain, int | float) else 1.0


def _pair(pair: dict[str, Any] | None) -> str:
    if not pair:
        return ""
    ends = terminal.interval(pair.get("low"), pair.get("high"), "+")
    return f"{terminal.number(pair.get('ndcg@10'), '+')}  [{ends}]"


def _read(path: Path) -> dict[str, Any]:
    try:
        evaluation = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file: run `dvc repro evaluate`") from None
    except ValueError as error:
        raise ArtifactError(f"{path}: damaged ({error}): run `dvc repro --force evaluate`") from None
    if not isinstance(evaluation, dict):
        raise ArtifactError(f"{path}: not a JSON object: run `dvc repro --force evaluate`")
    return evaluation
