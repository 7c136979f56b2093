"""What a person is asked before a promotion, as Markdown: figures, and every check, the failed ones first."""

from __future__ import annotations

import re

from pipeline.dashboard.runs import Run
from pipeline.dashboard.views import checks_of, minute
from pipeline.pages import number, plain, words

SHOWN = ("challenger", "champion", "recent_popularity", "popularity")
SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~])")


def question(run: Run) -> str:
    """ "" where there is no verdict to ask about."""
    if run.promotion is None:
        return ""
    champion = run.promotion.champion and (run.promotion.champion.version or run.record.champion)
    before = f"It would replace {_text(champion)}" if champion else "It would be the first"
    lines = [
        f"A {run.mode or 'new'} training on data as of {minute(run.as_of)}. {before}.",
        "",
        *_figures(run),
        "",
    ]
    lines += [f"**Warning**: {_text(warning)}" for warning in run.promotion.warnings]
    checks, idle = checks_of(run.promotion)
    lines += ["", "| check | | value | |", "|---|---|---|---|"]
    for check in checks:
        cells = (check["name"], "passed" if check["passed"] else "FAILED", check["measured"], check["text"])
        lines.append("| " + " | ".join(map(_text, cells)) + " |")
    lines += ["", *(f"Nothing to check, {_text(row['why'])}: {_text(row['names'])}" for row in idle)]
    return "\n".join(lines)


def _figures(run: Run) -> list[str]:
    """nDCG@10 of the challenger and of what it is held against, with the paired differences."""
    rows = ["| nDCG@10 | | 95 % interval | challenger − it |", "|---|---|---|---|"]
    for name in SHOWN:
        figures = run.figures(name)
        if figures.get("ndcg@10") is None:
            continue
        value, low, high = (number(figures.get(f"ndcg@10{end}")) for end in ("", "_low", "_high"))
        pair = run.evaluation.paired.get(name) if run.evaluation else None
        gap, down, up = (
            (number(end, sign=True) for end in (pair.ndcg, pair.low, pair.high)) if pair else ("",) * 3
        )
        between = f"{gap} [{down}, {up}]" if pair else ""
        rows.append("| " + " | ".join(map(_text, (words(name), value, f"[{low}, {high}]", between))) + " |")
    users, points = (number(run.figures("challenger").get(key), 0) for key in ("users", "points"))
    return (
        [*rows, "", f"{users} users, {points} test points, every model at the same ones."]
        if len(rows) > 2
        else []
    )


def _text(value: object) -> str:
    """One line in which nothing is markup."""
    return SPECIAL.sub(r"\\\1", plain(value, 400))
