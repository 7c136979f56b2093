"""How both loops ended, in the terminal."""

from __future__ import annotations

from rich.text import Text

from pipeline.documents.simulation import Simulation
from pipeline.evaluation.long_term_verdict import TOLD
from pipeline.show import _console, _interval, _number, _table
from pipeline.simulation.page import sentence


def show(report: Simulation) -> None:
    console = _console()
    head = f"{report.rounds} retrainings, {report.replications} times, {report.users:,} users"
    table = _table(("late rounds", "challenger", "champion", "lost", "95 %", "share", "p"), title=head)
    for row in report.measures:
        cells = (_number(value) for value in (row.challenger, row.champion, row.lost))
        share = "–" if row.share is None else f"{row.share:+.0%}"
        table.add_row(TOLD[row.name], *cells, _interval(row.low, row.high), share, _number(row.p))
    console.print(table)
    console.print(Text(f"{sentence(report)}."), soft_wrap=True)
    console.print(Text("reports/simulation.html         the curves, and how like the data people are"))
