"""The rules in their order, and a first look with them at what `collect` wrote: seconds, and no windows.

A rule says nothing where all is well.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.check import events, ids, items, success, times
from pipeline.check.facts import Facts, gather
from pipeline.data.engine import duckdb_connection
from pipeline.documents.finding import Finding
from pipeline.params import Params

RULES: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    times.no_windows,
    times.one_moment,
    times.future,
    times.far_times,
    ids.not_joined,
    ids.lists_of_ids,
    ids.one_for_many,
    ids.stand_ins,
    ids.spellings,
    ids.quoted_ids,
    ids.spreadsheet_ids,
    success.negative,
    success.zeros,
    success.stand_in_values,
    success.success,
    events.listed,
    events.doubtful,
    success.many_events,
    success.far_values,
    success.repeats,
    items.equal_texts,
    items.equal_vectors,
    success.few_points,
    times.uneven_windows,
    ids.little_data,
    times.gap,
    success.few_fitted,
    times.dates_alone,
    success.cold,
)
MOST = 3


def glance(raw: Path, params: Params, told: Sequence[Finding]) -> list[Finding]:
    """The first few that would spoil a training, as the tables in `raw` and the manifest (`told`) tell."""
    with tempfile.TemporaryDirectory(prefix="evergreen-") as spill, duckdb_connection(Path(spill)) as opened:
        facts = gather(opened, raw, params)
    findings = [*told, *(finding for rule in RULES for finding in rule(facts))]
    findings = [finding for finding in findings if finding.severity != "note"]
    return sorted(findings, key=lambda finding: finding.severity != "error")[:MOST]
