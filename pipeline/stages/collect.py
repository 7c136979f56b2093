"""The source's rows, checked and sorted: the only stage that touches the outside world.

In: params.yaml (section collect), the source it names, and data/forgotten.json. Out, under data/raw/:
- interactions/month=YYYY-MM/part-0.parquet: user_id, item_id, timestamp, event ("interaction" where the
  source has none), value, text and further columns; in order of time, ties in fixed-salt hash order;
- items.parquet (by item_id: the contract's columns and further ones; `graph_relations`, `graph_entities` if
  there is a knowledge graph), users.parquet (at least user_id);
- impressions.parquet: what the service of collect.feedback showed until as_of, and what came of it;
- rejected.parquet: table, reason, place (file:row) and the cells as they came, of every row not kept;
- manifest.json: source, fingerprint, as_of, counts, joined share, first and last timestamp, content hash.

Bad rows: no id, no readable timestamp, a value that is no number, a row that cannot be parsed. More than
max_rejected_share of them fail the stage before anything is replaced. Rows later than as_of, whatever else
they hold, are listed with reason after_as_of but not charged: a replay with an earlier as_of leaves out most
of the data, and that is no fault of it. Duplicates (same user, item, timestamp and event) are counted apart;
the first row read stays. Items and users are kept whole: as_of cuts neither their rows nor their texts.

No clock: as_of null means the last kept timestamp, so the same source gives the same bytes.

Rows of people whom data/forgotten.json or the service's event store say to forget are left out before all
else, and counted in the manifest.

    python -m pipeline.stages.collect data/raw data/forgotten.json
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from tqdm import tqdm

from pipeline import sources
from pipeline.check.scales import Scales
from pipeline.data import joining, tables
from pipeline.data.catalogue import describe_items, empty, items_table, no, optional, users_table
from pipeline.data.forgotten import LIST, Forgotten
from pipeline.data.ids import as_ids, id_faults
from pipeline.data.moments import LATEST, Days, TimeColumn
from pipeline.data.partitions import Partitions, Written
from pipeline.data.rejected import AFTER_AS_OF, Rejected, rejected_file
from pipeline.data.relations import joined, relations_table, with_graph
from pipeline.data.values import as_numbers, as_prose
from pipeline.documents.data import Manifest, Rows
from pipeline.documents.finding import Finding
from pipeline.errors import ConfigError, DataError
from pipeline.params import Collect, Params
from pipeline.run import run
from pipeline.sources import OF_ITEM, PLACE, RAW, REASON

log = logging.getLogger(__name__)

# In this order they are taken away; put in place in the opposite one, so that a manifest means all are there.
OUTPUTS = (
    "manifest.json",
    "interactions",
    "items.parquet",
    "users.parquet",
    "impressions.parquet",
    "rejected.parquet",
)
DEFAULT_EVENT = "interaction"
SHOW_PROGRESS_FROM = 1_000_000  # rows, where stderr is no terminal


def collect(
    read: Callable[[], sources.Tables], settings: Collect, folder: Path, latest: pd.Timestamp = LATEST
) -> Manifest:
    """Write the tables into the empty `folder`; return the manifest without its fingerprint.

    `latest`: from when on a row's time is implausible. Where a few rows lie far after all others, the source
    is read once more without them. Raises DataError if too many rows are bad or none is left, ConfigError
    where as_of is long after the data.
    """
    source = read()
    kept, rejected = _checked(source, settings, folder, latest)
    if latest == LATEST and (end := kept.days.end()) is not None:
        log.warning(
            f"a few rows lie more than a year after all others, which end before {end:%Y-%m-%d}: set apart "
            "as implausible_timestamp: correct their times"
        )
        shutil.rmtree(folder / "spill", ignore_errors=True)
        return collect(read, settings, folder, end)
    for table in rejected.read:
        rejected.enforce(table, settings.max_rejected_share)
    if not kept.users:
        raise DataError(_nothing_kept(rejected, settings))
    written = kept.partitions.write(folder / "interactions")
    shutil.rmtree(folder / "spill", ignore_errors=True)
    first, last = (pd.Timestamp(edge, tz="UTC") for edge in (written.first, written.last))
    _check_as_of(settings.as_of, first, last)
    joined = None
    if source.items is not None:
        rows_of = joining.rows_of_items(folder / "interactions")
        joined = joining.enforce(rows_of, kept.item_table, settings.min_joined_share)
    kept.join_graph()
    for name, table in (("items", kept.item_table), ("users", kept.user_table)):
        tables.write_parquet(tables.check(table, name, settings.source), folder / f"{name}.parquet")
    shown = sources.impressions(settings)
    known = shown[tables.TIME] <= pd.Timestamp(settings.as_of or last)
    tables.write_parquet(shown[known], folder / "impressions.parquet")
    return _manifest(settings, kept, rejected, written).but(
        joined_share=joined, content_hash=_content_hash(folder)
    )


def _checked(
    source: sources.Tables, settings: Collect, folder: Path, latest: pd.Timestamp
) -> tuple[_Kept, Rejected]:
    """Every row is kept, or written to rejected.parquet with its reason."""
    kept = _Kept(Partitions(folder / "spill"))
    times = TimeColumn(tables.TIME, source.times.get(tables.TIME), latest, source.decimal)
    with rejected_file(folder / "rejected.parquet") as rejected:
        for chunk in _progress(source.interactions):
            rows, reasons = check_interactions(chunk, times, settings.as_of, source.decimal)
            rejected.add("interactions", chunk, reasons)
            kept.add(rows[reasons.isna()], settings.source)
            kept.scales.add(rows[reasons.isna()], chunk.get(PLACE))
        for chunk in source.feedback:  # kept at a known time each, whatever that of the source's rows
            rows, reasons = check_interactions(chunk, TimeColumn(tables.TIME), settings.as_of)
            rejected.add("interactions", chunk, reasons)
            kept.add(rows[reasons.isna()], settings.source, dated=False)
        items, kept.item_rows = items_table(
            source.items, kept.described, rejected, source.times, source.decimal
        )
        kept.item_table = sources.with_put(items, settings)
        kept.user_table, kept.user_rows = users_table(source.users, rejected)
        if source.relations is not None:
            kept.triples, kept.relation_rows = relations_table(source.relations, rejected)
    return kept, rejected


def _manifest(settings: Collect, kept: _Kept, rejected: Rejected, written: Written) -> Manifest:
    first, last = (pd.Timestamp(edge, tz="UTC") for edge in (written.first, written.last))
    return Manifest(
        source=settings.source,
        credit=sources.credit(settings),
        as_of=settings.as_of or last,
        first_timestamp=first,
        last_timestamp=last,
        rows=Rows(
            read=rejected.read["interactions"],
            kept=written.rows,
            rejected=rejected.bad("interactions"),
            duplicates=written.duplicates,
            after_as_of=rejected.later("interactions"),
        ),
        rejected={table: dict(sorted(counts.items())) for table, counts in sorted(rejected.counts.items())},
        tidied=rejected.tidied,
        findings=kept.scales.findings() + kept.findings,
        users=len(kept.users),
        items=len(kept.items),
        item_rows=kept.item_rows,
        user_rows=kept.user_rows,
        relation_rows=kept.relation_rows,
    )


@dataclass
class _Kept:
    """What the kept rows add up to, chunk by chunk."""

    partitions: Partitions
    days: Days = field(default_factory=Days)
    scales: Scales = field(default_factory=Scales)
    described: dict[str, pd.DataFrame] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)
    items: set[str] = field(default_factory=set)
    item_table: pd.DataFrame = field(default_factory=pd.DataFrame)
    item_rows: dict[str, int] = field(default_factory=dict)  # kept, duplicates, ...
    user_table: pd.DataFrame = field(default_factory=pd.DataFrame)
    user_rows: dict[str, int] = field(default_factory=dict)
    triples: pd.DataFrame | None = None
    relation_rows: dict[str, int] | None = None
    findings: list[Finding] = field(default_factory=list)  # of the relations

    def add(self, rows: pd.DataFrame, source: str, dated: bool = True) -> None:
        """`dated`: their times tell where the data end."""
        describe_items(self.described, rows)
        own = [name for name in rows if not name.startswith(OF_ITEM)]
        self.partitions.add(tables.check(rows[own], "interactions", source))
        if dated:
            self.days.add(rows[tables.TIME])
        self.users.update(rows[tables.USER].unique())
        self.items.update(rows[tables.ITEM].unique())

    def join_graph(self) -> None:
        """The relations go with the items that they are of."""
        if self.triples is not None and self.relation_rows is not None:
            self.item_table = with_graph(self.item_table, self.triples, self.items)
            self.relation_rows["without_item"], self.findings = joined(
                self.triples, self.item_table, self.items
            )


def check_interactions(
    chunk: pd.DataFrame, times: TimeColumn, as_of: datetime | None, decimal: str | None = None
) -> tuple[pd.DataFrame, pd.Series]:
    """(the chunk in the contract's types, the reason why a row is not kept or None).

    Raises DataError if the source forgot a column.
    """
    for name in (tables.USER, tables.ITEM, tables.TIME):
        if name not in chunk:
            raise DataError(f"the source gives no column {name}: see docs/sources.md")
    user, item = as_ids(chunk[tables.USER]), as_ids(chunk[tables.ITEM])
    time, no_time = times.read(chunk[tables.TIME])
    value, no_number = optional(chunk, tables.VALUE, partial(as_numbers, decimal=decimal)) or (
        empty(chunk, "float64"),
        no(chunk),
    )
    event = optional(chunk, tables.EVENT, as_ids)
    event = pd.Series(DEFAULT_EVENT, chunk.index) if event is None else event.fillna(DEFAULT_EVENT)
    text = optional(chunk, tables.TEXT, as_prose)
    unread = chunk[REASON] if REASON in chunk else empty(chunk, "str")
    later = no(chunk) if as_of is None else time > pd.Timestamp(as_of)
    reasons = pd.Series(None, chunk.index, dtype=object)
    for reason, where in (  # the last one that applies stands
        ("value_not_a_number", no_number),
        ("no_timestamp", time.isna()),
        ("unreadable_timestamp", no_time),
        ("implausible_timestamp", times.outliers(time)),
        (id_faults(chunk[tables.ITEM], tables.ITEM, item), item.isna()),
        (id_faults(chunk[tables.USER], tables.USER, user), user.isna()),
        (AFTER_AS_OF, later),
        (unread, unread.notna()),
    ):
        reasons = reasons.mask(where, reason)
    rows = {
        tables.USER: user,
        tables.ITEM: item,
        tables.TIME: time,
        tables.EVENT: event.astype("str"),
        tables.VALUE: value,
    }
    rows[tables.TEXT] = empty(chunk, "str") if text is None else text
    further = chunk.columns.difference([*tables.INTERACTIONS, PLACE, REASON, RAW], sort=False)
    return pd.DataFrame({**rows, **chunk[further]}), reasons


def sentence(manifest: Manifest) -> str:
    rows, first, last = manifest.rows, manifest.first_timestamp, manifest.last_timestamp
    later = f", {rows.after_as_of:,} after {manifest.as_of.isoformat()}" if rows.after_as_of else ""
    span = f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
    people = f"{manifest.users:,} users and {manifest.items:,} items"
    left_out = f"{rows.rejected:,} rejected{_reasons(manifest)}, {rows.duplicates:,} duplicates{later}"
    share = manifest.joined_share
    joined = "" if share is None else f"; {share:.1%} are of items in the table of items"
    cells = sum(manifest.tidied.values())
    tidied = f"; {cells:,} ids or events held characters that nobody sees, taken out" if cells else ""
    if undated := (manifest.item_rows or {}).get("unreadable_dates"):
        tidied += f"; {undated:,} items' availability is no time, left empty"
    gone = manifest.forgotten
    forgotten = f"; {gone.rows:,} rows of {gone.people:,} forgotten people left out" if gone else ""
    return f"collected {rows.kept:,} interactions of {people}, {span}; {left_out}{joined}{tidied}{forgotten}"


def _reasons(manifest: Manifest) -> str:
    bad = {why: rows for why, rows in manifest.rejected.get("interactions", {}).items() if why != AFTER_AS_OF}
    listed = ", ".join(f"{why.replace('_', ' ')} {rows:,}" for why, rows in bad.items())
    return f" ({listed})" if listed else ""


def _check_as_of(as_of: datetime | None, first: pd.Timestamp, last: pd.Timestamp) -> None:
    """Raises ConfigError where all data would be old by then: a champion's age is counted from it."""
    longest = max(last - first, pd.Timedelta(days=365))
    if as_of is not None and as_of - last > longest:
        raise ConfigError(
            f"collect.as_of: {as_of:%Y-%m-%d} is {(as_of - last).days:,} days after the last row, of "
            f"{last:%Y-%m-%d}, and all rows lie within {(last - first).days:,} days: name a time of these "
            "data, or null for that of the last row"
        )


def _nothing_kept(rejected: Rejected, settings: Collect) -> str:
    read, later = rejected.read.get("interactions", 0), rejected.later("interactions")
    if not read:
        return f"{settings.source}: no interactions: bring a file with rows"
    nothing = f"{settings.source}: none of {read:,} interactions can be kept"
    if not rejected.bad("interactions"):
        return f"{nothing}: all are later than collect.as_of: correct that, or the file"
    also = f"{later:,} are later than as_of, and " if later else ""
    return f"{nothing}: {also}{rejected.faults('interactions')}"


def _content_hash(folder: Path) -> str:
    """sha256 (hex) over the sorted names and contents of the tables; rejected rows are none of it."""
    total = hashlib.sha256()
    for path in sorted(
        [*folder.glob("interactions/*/*.parquet"), folder / "items.parquet", folder / "users.parquet"]
    ):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()}\0{digest}\n".encode())
    return total.hexdigest()


def _progress(chunks: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The chunks, with a bar on a terminal, or on any stderr once there are many rows."""
    read, bar = 0, None
    try:
        for chunk in chunks:
            yield chunk
            read += len(chunk)
            if bar is None and (sys.stderr.isatty() or read >= SHOW_PROGRESS_FROM):
                bar = tqdm(
                    initial=read - len(chunk), unit=" rows", unit_scale=True, desc="reading", mininterval=1
                )
            if bar is not None:
                bar.update(len(chunk))
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def replacing(raw: Path) -> Iterator[Path]:
    """An empty folder beside the outputs; what it holds when the block ends takes their place.

    After an error (or Ctrl-C) the old outputs stand as before.
    """
    partial = raw / ".partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    (partial / "new").mkdir(parents=True)
    (partial / "old").mkdir()
    try:
        yield partial / "new"
        _swap(raw, partial / "new", partial / "old")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _swap(raw: Path, new: Path, old: Path) -> None:
    """Renames only, so a full disk cannot stop it half way; if anything else does, back to the old ones."""
    moved: list[tuple[Path, Path]] = []
    pairs = [(raw / name, old / name) for name in OUTPUTS if (raw / name).exists()]
    pairs += [(new / name, raw / name) for name in reversed(OUTPUTS)]
    try:
        for source, target in pairs:
            source.rename(target)
            moved.append((source, target))
    except BaseException:
        for source, target in reversed(moved):
            with suppress(OSError):
                target.rename(source)
        raise


def main(
    raw: Path,
    params: Path = Path("params.yaml"),
    forgotten: Annotated[Path, typer.Argument()] = LIST,
) -> None:
    everything = Params.load(params)
    settings = everything.collect
    people = Forgotten.of_project(forgotten.absolute().parents[1])
    with replacing(raw) as folder:
        fingerprint = sources.fingerprint(settings)
        manifest = collect(lambda: sources.read(settings, people), settings, folder)
        manifest = manifest.but(fingerprint=fingerprint, forgotten=people.left_out if people.marks else None)
        manifest.write(folder / "manifest.json")
    log.info(sentence(manifest))
    if people.unlisted:
        log.warning(
            f"{people.unlisted:,} people whom the service forgot are still in older data: `evergreen forget`"
        )
    say_findings(raw, everything, manifest.findings)


def say_findings(raw: Path, params: Params, told: Sequence[Finding]) -> None:
    """What a training would suffer from, first of all; `evergreen check` shows it whole."""
    from pipeline.check.glance import glance

    findings = glance(raw, params, told)
    for finding in findings:
        log.warning(f"{finding.severity}: {finding.line}")
    if findings:
        log.info("`evergreen check` shows figures, examples and pictures")


if __name__ == "__main__":
    run(main)
