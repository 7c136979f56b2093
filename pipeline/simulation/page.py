"""A simulation as one self-contained HTML page: the curves of both loops side by side.

In: the content of reports/simulation.json. Out: the page as text (pipeline/pages.py keeps it harmless).
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from pipeline.charts import Series, line_chart
from pipeline.documents.simulation import Calibration, Explored, Lost, Simulation
from pipeline.evaluation.long_term_verdict import ALPHA, TOLD, USUAL, verdict
from pipeline.pages import number, page, words

LOOPS = {
    "without_lists": "baseline",
    "champion": "champion",
    "challenger": "challenger",
}  # drawn in this order
LEGEND = {
    "challenger": "challenger in its own loop",
    "champion": "champion in its own loop",
    "baseline": "the same people, shown no list",
}
PANELS = {
    "diversity": ("Diversity within lists", "mean distance (1 − cosine) of two items of a list"),
    "distance": ("Distance between users", "share of a list that another user's does not have"),
    "concentration": ("Concentration of what is shown", "Gini: 0 all items alike, 1 one has everything"),
    "coverage": ("Coverage", "share of the items on offer that stand on at least one list"),
    "new_items": ("Coverage of new items", "of those that entered since the start"),
    "list_popularity": ("Popularity of lists", "mean popularity percentile, as of the start"),
    "taken_diversity": ("Individual diversity", "mean distance of two choices of a user in a round"),
    "taken_novelty": ("Novelty of choices", "share of the choices that the user had not met before"),
    "taken_concentration": ("Concentration of choices", "share that the most taken tenth of the items has"),
    "satisfaction": ("Satisfaction", "running mean, in deviations of utility; 0 is as expected at the start"),
    "retention": ("Retention", "share of the users who are still there"),
}
ASSUMED = {
    "adoption": "share of the choices made from the list",
    "examination": "a place is looked at in proportion to rank to the power of minus this",
    "drift": "share of the way that a taste moves in a round towards what was taken",
    "memory": "weight of a round in satisfaction",
    "churn": "hazard of leaving in a round, at satisfaction 0",
    "sensitivity": "power by which satisfaction lowers that hazard",
    "round_share": "rows and time of a round, of the data's",
    "new_share": "of the items: kept back, they enter over the first half",
}


def render(found: Simulation) -> str:
    same = found.challenger == found.champion
    return page(
        "simulation.html",
        title="Long-term effects",
        lead=_lead(found),
        answer=_answer(found, same),
        legend_text={kind: text for kind, text in LEGEND.items() if not (same and kind == "challenger")},
        panels=[_panel(found, name, same) for name in PANELS],
        explored=_explored(found),
        rows=[_row(row) for row in found.measures],
        calibration=[_held(row) for row in found.calibration],
        in_bounds=sum(row.within for row in found.calibration),
        assumed=[(words(name), value, ASSUMED.get(name, "")) for name, value in found.behaviour.items()],
        fitted=[(words(name), value) for name, value in found.choice.items() if value is not None],
        facts=_facts(found),
    )


def sentence(found: Simulation) -> str:
    """What the loops differ in, in one line."""
    if found.challenger == found.champion:
        return "the challenger is the champion itself: one loop was simulated"
    return verdict(found.measures, USUAL)[2] if found.measures else "nothing could be compared"


def _lead(found: Simulation) -> str:
    return (
        f"{found.users:,} users fitted to the data, in {found.replications} replications: each model makes "
        f"its lists, learns from what was taken, and is trained anew {found.rounds} times."
    )


def _facts(found: Simulation) -> list[tuple[str, str]]:
    told = {
        "Retrainings": str(found.rounds),
        "Replications": str(found.replications),
        "Users": f"{found.users:,}",
        "Choices a user and round": number(found.choices, 1),
        "Items": f"{found.items:,}",
        "of them new": f"{found.new_items:,}",
        "List": f"{found.k} items",
        "Seconds": number(found.seconds, 0),
    }
    return list(told.items())


def _answer(found: Simulation, same: bool) -> dict[str, str]:
    text = f"{sentence(found)[0].upper()}{sentence(found)[1:]}."
    if same or not found.measures:
        return {"kind": "missing", "label": "Not compared", "text": text}
    passed = verdict(found.measures, USUAL)[0]
    label = "No worse in the long term" if passed else "Worse in the long term"
    return {"kind": "yes" if passed else "no", "label": label, "text": text}


def _panel(found: Simulation, name: str, same: bool) -> dict[str, Any]:
    series = []
    for loop, kind in LOOPS.items():
        curve = found.curves.get(loop, {}).get(name)
        if curve is None or (same and loop == "challenger"):
            continue
        x = range(len(curve.mean))
        series.append(Series(words(loop), curve.mean, x, curve.low, curve.high, kind))
    title, text = PANELS[name]
    chart: Markup = line_chart(series, label=title, x_label="retrainings", height=190)
    return {"title": title, "text": text, "chart": chart}


def _explored(found: Simulation) -> dict[str, Any] | None:
    """The challenger's loops whose last places are drawn: by learned weights, and plainly."""
    if found.exploration is None:
        return None
    series = []
    for loop, kind in (("plain_draws", "baseline"), ("learned_draws", "challenger")):
        curve = found.curves.get(loop, {}).get("taken_a_place")
        if curve is not None:
            x = range(len(curve.mean))
            series.append(Series(words(loop), curve.mean, x, curve.low, curve.high, kind))
    chart: Markup = line_chart(series, label="Taken of a place", x_label="retrainings", height=190)
    return {"text": f"{explored_sentence(found.exploration)}.", "chart": chart}


def explored_sentence(one: Explored) -> str:
    """What the learned draws bring, in one line."""
    weights = ", ".join(f"{words(name)} {number(value, sign=True)}" for name, value in one.weights.items())
    lost = verdict(one.measures, USUAL)[2] if one.measures else "nothing else could be compared"
    ends = f"[{number(one.low, sign=True)}, {number(one.high, sign=True)}]"
    return (
        f"Places drawn by {weights}: {number(one.learned)} items taken a place, {number(one.plain)} with "
        f"plain draws, {number(one.difference, sign=True)} {ends}; {lost}: {one.answer}"
    )


def _row(row: Lost) -> dict[str, Any]:
    sure = row.p is not None and row.p < ALPHA
    lost = "surely lost" if sure else "gained" if _above(row) else ""
    return {"name": TOLD.get(row.name, row.name), "row": row, "said": lost}


def _above(row: Lost) -> bool:
    """Whether the unadjusted interval lies on the good side."""
    return row.high is not None and row.high < 0


def _held(row: Calibration) -> dict[str, Any]:
    return {"name": words(row.name), "row": row}
