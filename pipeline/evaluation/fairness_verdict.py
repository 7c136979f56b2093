"""Three answers on whether a challenger is less fair than the champion, from `Lost` rows.

fails       - something surely loses (its adjusted p is below ALPHA), and more than the guard
investigate - the same, but it is a group of users that is itself served better than before (the others gain
              more), or lists leave users' own mixes, which a better model may do with reason
passes      - nothing surely loses more than the guard: another seed of the same training may lose some
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.documents.base import Number
from pipeline.documents.fairness import Lost

ALPHA = 0.05  # of all rows together
USUAL = 0.1  # guard as delivered, for the report, which knows of no other


def verdict(rows: Sequence[Lost], guard: float | None) -> tuple[bool, float | None, str]:
    """(whether it passes, largest share lost, sentence) of one row or more. Without a guard nothing fails,
    and all that surely loses is to be looked at."""
    if broken := [row.name for row in rows if None in (row.lost, row.low, row.high, row.p)]:
        return False, None, f"no usable figures of {', '.join(broken)}"
    sure = [row for row in rows if _known(row.p) < ALPHA]
    over = [row for row in sure if share(row) > (guard or 0.0)]
    harmed = [row for row in over if guard is not None and _harms(row)]
    answer = "fails" if harmed else "investigate" if over else "passes"
    worst = sorted(harmed or over or sure or rows, key=share, reverse=True)
    more = "" if guard is None else f" more than {guard:.0%}"
    if over:
        told = f"{len(over)} of {len(rows)} comparisons surely lose{more}: {'; '.join(map(_told, worst))}"
    else:
        most = f"; at most, {_told(worst[0])}" if _known(worst[0].lost) > 0 else ""
        told = f"none of {len(rows)} comparisons surely loses{more}{most}"
    return not harmed, _finite(share(worst[0])), f"{answer}: {told}"


def share(row: Lost) -> float:
    """Infinite where the champion's figure is 0."""
    return row.share if row.share is not None else math.inf if _known(row.lost) > 0 else 0.0


def _told(row: Lost) -> str:
    what = {
        "users": f"users {row.name} fall behind all others",
        "exposure": f"attention to items by {row.name} moves away from what is taken",
        "calibration": "lists move away from users' own mixes",
    }[row.kind]
    ends = f"[{_known(row.low):+.4f}, {_known(row.high):+.4f}]"
    also = ", though they gain themselves" if _gains(row) else ""
    return f"{what} by {_known(row.lost):+.4f} {ends} ({share(row):+.0%}){also}"


def _harms(row: Lost) -> bool:
    return row.kind != "calibration" and not _gains(row)


def _gains(row: Lost) -> bool:
    return row.kind == "users" and _known(row.challenger) > _known(row.champion)


def _known(value: Number) -> float:
    return 0.0 if value is None else float(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
