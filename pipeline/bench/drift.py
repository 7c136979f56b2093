"""How often the drift check cries wolf, and which planted shifts it finds; Evidently's defaults beside it.

In: a folder like data/raw. Out: shares of cases called drift, with 95 % intervals (Wilson 1927).
Rule: cases as in pipeline/bench/_cases.py; the check is the real one with the settings of params.yaml (only
`window_days` is the length of a case's stretch), with a champion in the cases without a shift. A case is
called drift for a hard flag in its second window, or a soft one in both. Evidently compares the second window
with the reference: once by its own rule (half of the columns), once by any column.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.bench._cases import Case, Shift, World
from pipeline.bench._shifts import SHIFTS
from pipeline.drift.check import check
from pipeline.drift.verdicts import Verdict, verdict
from pipeline.errors import DataError
from pipeline.evaluation.metrics import share_interval
from pipeline.params import Params

OWN = Path("data/raw")
SPLITS, REPEATS = 200, 20
SAME = "same_distribution"


@dataclass(frozen=True)
class Judged:
    """One case: what the check says, by which signals; what Evidently says; CPU seconds of the check."""

    drift: bool
    signals: tuple[str, ...]
    evidently: bool
    evidently_any: bool
    seconds: float


def run(data: Path | None = None, splits: int = SPLITS, repeats: int = REPEATS) -> dict[str, Any]:
    """Raises DataError if the folder holds no tables, or too few rows and users for a single case."""
    begin = time.perf_counter()
    folder = data or OWN
    world = World.load(folder, Params.load(Path("params.yaml")))
    shifts = [shift for shift in SHIFTS if possible(world, shift)]
    found: dict[str, list[Judged]] = {}
    with tqdm(total=splits + repeats * len(shifts), desc="drift", unit="case", disable=None) as bar:
        for name, shift, count in [(SAME, None, splits), *((each.name, each, repeats) for each in shifts)]:
            found[name] = []
            for number in range(count):
                found[name].append(judge(world.case(number, shift)))
                bar.update()
    return as_result(found, conditions(world, found, time.perf_counter() - begin))


def possible(world: World, shift: Shift) -> bool:
    """Whether the data have the column that it changes, and users enough."""
    table = world.items if shift.needs == "title" else world.rows
    if shift.needs and not table[shift.needs].notna().any():
        return False
    try:
        for number in range(4):
            world.case(number, shift)
    except DataError:
        return False
    return True


def judge(case: Case) -> Judged:
    """Raises DataError if the check could not judge the case, which is no case then."""
    from pipeline.drift.defaults import evidently_defaults

    begin = time.process_time()
    seed = 1
    result = check(case.reference, case.current, case.items, case.settings, seed, case.champion)
    seconds = time.process_time() - begin
    if result.outcome != "ok" or len(result.windows) != 2:
        raise DataError(f"a case of the bench could not be judged: {result.text}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tests that Evidently chooses for columns with empty bins
        told = evidently_defaults(case.reference.rows, case.windows[-1])
    names = [name for name, one in result.signals.items() if verdict(one.to_dict()) is Verdict.DRIFT]
    return Judged(result.drift, tuple(names), told.drift, told.drifted > 0, seconds)


def as_result(found: dict[str, list[Judged]], conditions: dict[str, Any]) -> dict[str, Any]:
    """The bench's result: a row of figures a kind of case."""
    planted = [one for name, cases in found.items() if name != SAME for one in cases]
    return {
        "name": "drift",
        "conditions": conditions,
        "figures": {name: summary(cases) for name, cases in found.items()},
        "ratios": {
            "false_alarms": share([one.drift for one in found[SAME]]),
            "shifts_found": share([one.drift for one in planted]),
            "least_found_shift": min(
                (share([one.drift for one in cases]) or 0 for name, cases in found.items() if name != SAME),
                default=None,
            ),
            "evidently_false_alarms": share([one.evidently for one in found[SAME]]),
            "evidently_shifts_found": share([one.evidently for one in planted]),
            "evidently_any_column_false_alarms": share([one.evidently_any for one in found[SAME]]),
            "evidently_any_column_shifts_found": share([one.evidently_any for one in planted]),
        },
        "findings": [sentence(name, cases) for name, cases in found.items()],
    }


def conditions(world: World, found: dict[str, list[Judged]], seconds: float) -> dict[str, Any]:
    rows, settings = world.rows, world.params.detect_drift
    cpu = [one.seconds for cases in found.values() for one in cases]
    return {
        "rows": len(rows),
        "users": len(world.users),
        "items": len(world.items),
        "from": rows["timestamp"].iloc[0].isoformat(),
        "to": rows["timestamp"].iloc[-1].isoformat(),
        "not_possible_with_these_data": [shift.name for shift in SHIFTS if shift.name not in found],
        "alpha": settings.alpha,
        "least_window": f"{settings.min_rows} rows of {settings.min_users} users",
        "cpu_seconds_a_check": sum(cpu) / max(1, len(cpu)),
        "seconds": seconds,
        "seed": world.params.seed,
    }


def summary(cases: Sequence[Judged]) -> dict[str, Any]:
    called = [one.drift for one in cases]
    low, high = share_interval(sum(called), len(called))
    return {
        "cases": len(cases),
        "drift": share(called),
        "low": low,
        "high": high,
        "evidently": share([one.evidently for one in cases]),
        "evidently_any_column": share([one.evidently_any for one in cases]),
        "by": {name: count for name, count in blamed(cases).most_common(4)},
    }


def blamed(cases: Sequence[Judged]) -> Counter[str]:
    return Counter(name for one in cases for name in one.signals)


def sentence(name: str, cases: Sequence[Judged]) -> str:
    count = sum(one.drift for one in cases)
    what = "called drift" if name == SAME else "found"
    return (
        f"{name.replace('_', ' ')}: {count} of {len(cases)} cases {what}; "
        f"Evidently's defaults {sum(one.evidently for one in cases)}"
    )


def share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
