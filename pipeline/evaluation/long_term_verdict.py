"""Two answers on whether a challenger's feedback loop ends worse than the champion's, from `Lost` rows.

It fails where something is surely lost (its adjusted p is below ALPHA), and more of it than the guard: equal
models lose a little of something by luck of a training. Without a guard it is told, and nothing fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.documents.simulation import Lost

ALPHA = 0.05  # of all measures together
USUAL = 0.1  # guard where the report, which knows of none, has to say something
TOLD = {
    "diversity": "diversity within lists",
    "distance": "distance between users' lists",
    "concentration": "concentration of what is shown",
    "new_items": "coverage of new items",
    "satisfaction": "satisfaction",
    "retention": "retention",
}


def verdict(rows: Sequence[Lost], guard: float | None) -> tuple[bool, float | None, str]:
    """(whether it passes, largest share that is surely lost, sentence) of one row or more."""
    if broken := [row.name for row in rows if None in (row.lost, row.low, row.high, row.p, row.share)]:
        return False, None, f"no usable figures of {', '.join(broken)}"
    sure = sorted((row for row in rows if _known(row.p) < ALPHA), key=lambda row: -_known(row.share))
    over = [row for row in sure if _known(row.share) > (guard or 0.0)]
    value = _known(sure[0].share) if sure else 0.0
    more = "" if guard is None else f" by more than {guard:.0%}"
    if over:
        told = "; ".join(map(_told, over))
        return guard is None, value, f"{len(over)} of {len(rows)} measures surely worse{more}: {told}"
    most = f"; at most, {_told(sure[0])}" if sure else ""
    return True, value, f"none of {len(rows)} measures is surely worse{more}{most}"


def _told(row: Lost) -> str:
    ends = f"[{_known(row.low):.3f}, {_known(row.high):.3f}]"
    return f"{TOLD.get(row.name, row.name)} by {_known(row.lost):.3f} {ends} ({_known(row.share):.0%})"


def _known(value: float | int | None) -> float:
    return math.nan if value is None else float(value)
