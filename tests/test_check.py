"""`evergreen check`: what is wrong with data is found, named with its key, and nothing else is touched."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import toy
import yaml

from pipeline import sources
from pipeline.check import events, ids, success, times
from pipeline.check import items as of_items
from pipeline.check.command import check, write
from pipeline.check.facts import Facts, gather, percent
from pipeline.check.page import render
from pipeline.check.scales import Scales
from pipeline.data.engine import duckdb_connection
from pipeline.documents.check import Check, EventCounts
from pipeline.documents.finding import Finding
from pipeline.params import Params
from pipeline.stages.collect import collect, main

USERS, ITEMS, ROWS = 60, 40, 3000
START = pd.Timestamp("2024-01-01", tz="UTC")


def orders() -> pd.DataFrame:
    """A healthy shop: no user and item meet twice, a row every hour or so, quantities from 1 to 3."""
    generator = np.random.default_rng(3)
    pairs = generator.permutation(USERS * ITEMS)[:ROWS]
    hours = np.sort(generator.random(len(pairs)) * 24 * 200)
    return pd.DataFrame(
        {
            "user_id": [f"u{pair // ITEMS:03}" for pair in pairs],
            "item_id": [f"{pair % ITEMS:05}" for pair in pairs],
            "timestamp": (START + pd.to_timedelta(hours, unit="h")).floor("s"),
            "value": generator.integers(1, 4, len(pairs)),
        }
    )


def products() -> pd.DataFrame:
    ids = [f"{item:05}" for item in range(ITEMS)]
    return pd.DataFrame({"item_id": ids, "title": [f"A blue mug of {n} ml" for n in range(ITEMS)]})


def params_of(folder: Path, rows: pd.DataFrame, items: pd.DataFrame | None, **preprocess: Any) -> Params:
    rows.to_csv(folder / "orders.csv", index=False)
    content = yaml.safe_load(Path("params.yaml").read_text())
    files = {"interactions": str(folder / "orders.csv"), "items": None, "users": None, "columns": {}}
    if items is not None:
        items.to_csv(folder / "products.csv", index=False)
        files["items"] = str(folder / "products.csv")
    content["collect"] |= {"source": "files", "files": files}
    positive = {"events": None, "min_value": None}
    content["preprocess"] |= {"positive": positive, "test_share": 0.2} | preprocess
    return Params.model_validate(content)


Look = Callable[..., Check]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    def run(rows: pd.DataFrame, items: pd.DataFrame | None = None, **preprocess: Any) -> Check:
        given = products() if items is None else items
        return check(params_of(tmp_path, rows, given if len(given) else None, **preprocess))

    return run


def one(found: Check, kind: str) -> Finding:
    matching = [finding for finding in found.findings if finding.kind == kind]
    assert len(matching) == 1, found.findings
    return matching[0]


def test_a_healthy_shop_has_no_finding_and_says_what_will_be(look: Look) -> None:
    found = look(orders())
    assert found.findings == []
    assert list(found.windows) == ["train", "validation", "test"]
    assert found.windows["test"].rows == pytest.approx(0.2 * found.rows.kept, rel=0.05)
    assert found.points["test"].points > 100
    assert (found.joined_share, found.repeat_share) == (1, 0)
    assert found.users.count == USERS
    assert sum(period.rows for period in found.periods) == found.rows.kept
    assert found.texts.unknown_tokens == 0


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """Of the healthy shop, for rules that need no more than a changed figure."""
    raw = tmp_path_factory.mktemp("raw")
    params = params_of(raw, orders(), products())
    collect(lambda: sources.read(params.collect), params.collect, raw)
    with duckdb_connection(raw / "spill") as connection:
        return gather(connection, raw, params)


@pytest.mark.parametrize(
    ("ours", "theirs", "cause"),
    [
        ("{:05}", "{}", "without leading zeros"),
        ("{}", "{}.0", "without a final .0"),
        ("sku-{}", "SKU-{}", "in one case"),
        ("sku-{}", "Sku {}", "without blanks, signs and case"),
        ("mug%20{}", "mug {}", "%20"),
        ("A&amp;B{}", "A&B{}", "&amp;"),
        ("gid://shop/Product/{}", "{}", "what follows their last sign"),
        ('="{}"', "{}", "without the quotes"),
        ("café{}", "cafÃ©{}", "UTF-8"),
        ("７{}", "7{}", "width"),
        ("{};{}", "{}", "';' between: write a row for each"),
    ],
)
def test_items_in_another_notation_are_named_with_their_cause(
    healthy: Facts, ours: str, theirs: str, cause: str
) -> None:
    items = healthy.items.rename(lambda name: ours.format(int(name), 1))
    table = healthy.table.assign(item_id=[theirs.format(n) for n in range(1, ITEMS + 1)])
    [finding] = ids.not_joined(replace(healthy, items=items, table=table))
    assert finding.severity == "error"
    assert cause in str(finding.remedy)
    assert finding.key == "collect.files.columns.items.item_id"
    assert any("in the rows" in example for example in finding.examples)
    assert any("in the table" in example for example in finding.examples)


def test_a_table_of_other_items_has_no_cause(healthy: Facts) -> None:
    table = healthy.table.assign(item_id=[f"x{number}y" for number in range(len(healthy.table))])
    [finding] = ids.not_joined(replace(healthy, table=table))
    assert finding.figure == 0
    assert "it would be" not in str(finding.remedy)


def test_the_column_of_the_table_that_holds_the_ids_is_named(healthy: Facts) -> None:
    table = healthy.table.assign(sku=healthy.table["item_id"], item_id=[f"x{n}y" for n in range(ITEMS)])
    [finding] = ids.not_joined(replace(healthy, table=table))
    assert "item_id: sku" in str(finding.remedy)


def test_lists_of_items_in_a_cell_are_no_items(healthy: Facts) -> None:
    first, second, *_ = healthy.items.index
    lists = pd.Series([500], [f"{first}|{second}"])
    [finding] = ids.lists_of_ids(replace(healthy, items=pd.concat([healthy.items, lists])))
    assert (finding.severity, finding.examples) == ("warning", [repr(f"{first}|{second}")])
    assert not list(ids.lists_of_ids(healthy))


@pytest.mark.parametrize("other", ["ann%20{}", "ａnn {}"])
def test_one_user_in_two_notations(healthy: Facts, other: str) -> None:
    names = [(f"ann {n}", other.format(n))[n % 2] for n in range(USERS)]
    twice = pd.concat([healthy.users.set_axis(names), pd.Series([99], ["ann 1"])])
    [finding] = ids.spellings(replace(healthy, users=twice))
    assert finding.kind == "users_spelt_twice"


def test_no_table_of_items(look: Look) -> None:
    assert one(look(orders(), pd.DataFrame()), "no_items").key == "collect.files.items"


@pytest.mark.slow
def test_returns_that_count_as_success(look: Look) -> None:
    rows = orders()
    rows.loc[rows.index % 10 == 0, "value"] *= -1
    finding = one(look(rows), "negative_successes")
    assert finding.figure == len(rows) // 10
    assert finding.key == "preprocess.positive.min_value"
    assert not look(rows, positive={"events": None, "min_value": 1}).findings


def test_values_of_zero_that_count_as_success(healthy: Facts) -> None:
    [event] = healthy.events
    [finding] = success.zeros(replace(healthy, events=[event.but(zero_successes=240)]))
    assert (finding.severity, finding.figure, finding.key) == (
        "warning",
        0.1,
        "preprocess.positive.min_value",
    )
    zero = event.but(zero_successes=event.rows, largest=0.0)  # a column that says nothing
    assert not list(success.zeros(healthy)) + list(success.zeros(replace(healthy, events=[zero])))


def of_values(values: Any, **split: Any) -> list[Finding]:
    """What the healthy shop's rows say of other values; `split`: file -> which rows it has."""
    rows, counted = orders().assign(value=values, event="purchase"), Scales()
    for name, where in (split or {"orders": np.full(len(rows), True)}).items():
        chunk = rows[where]
        counted.add(chunk, pd.Series(f"{name}.csv:1", chunk.index))
    return counted.findings()


EVEN = np.arange(2400) % 2 == 0


@pytest.mark.parametrize("factor", [0.01, 60])
def test_values_in_two_units_in_two_files(factor: float) -> None:
    values = np.random.default_rng(1).lognormal(3, 1, 2400).round(2)
    [finding] = of_values(np.where(EVEN, values, factor * values), a=EVEN, b=~EVEN)
    assert finding.figure == pytest.approx(max(factor, 1 / factor), rel=0.3)
    assert ("in a.csv as in b.csv" if factor < 1 else "in b.csv as in a.csv") in finding.text
    assert finding.key == "collect.files.columns.value"
    assert not of_values(3 * values - EVEN, a=EVEN, b=~EVEN)


@pytest.mark.parametrize(("first", "then"), [(5, 10), (1, 5), (10, 5)])
def test_stars_of_two_scales_in_two_stretches_of_time(first: int, then: int) -> None:
    generator = np.random.default_rng(1)
    stars = [generator.integers(1, most, 2400, endpoint=True) for most in (first, then)]
    values = np.where(np.arange(2400) < 700, *stars)
    [finding] = of_values(values)
    assert f"end at {first} before 2024-02-2" in finding.text
    assert f"and at {then} from 2024-02-2" in finding.text


def test_values_of_one_unit_are_no_finding() -> None:
    assert not of_values(orders()["value"])


def test_values_in_two_units_by_file_are_told_by_collect_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.random.default_rng(1).lognormal(3, 1, 2400).round(2)
    rows = orders().assign(value=np.where(EVEN, values, 100 * values))
    params = params_of(tmp_path, rows[EVEN], None)
    rows[~EVEN].to_csv(tmp_path / "orders-b.csv", index=False)
    content = params.model_dump(mode="json")
    content["collect"]["files"]["interactions"] = str(tmp_path / "orders*.csv")
    toy.write_params(tmp_path / "params.yaml", content)
    with caplog.at_level("INFO"):
        main(tmp_path / "raw", tmp_path / "params.yaml", tmp_path / "data" / "forgotten.json")
    [finding] = json.loads((tmp_path / "raw" / "manifest.json").read_text())["findings"]
    assert (finding["kind"], finding["figure"]) == ("two_scales", pytest.approx(100, rel=0.3))
    assert finding["text"] in caplog.text


def test_a_value_far_from_all_others(healthy: Facts) -> None:
    [event] = healthy.events
    [finding] = success.far_values(replace(healthy, events=[event.but(largest=80_995.0)]))
    assert (finding.figure, finding.key) == (80_995, "collect.files.columns.value")
    assert not list(success.far_values(healthy))


@pytest.mark.slow
def test_a_shop_of_regulars_is_told_to_include_repeats(look: Look) -> None:
    rows = orders()
    rows["item_id"] = [f"{int(item) % 5:05}" for item in rows["item_id"]]
    finding = one(look(rows), "repeats_left_out")
    assert finding.key == "preprocess.repeats"
    found = look(rows, repeats="include")
    assert "repeats_left_out" not in {finding.kind for finding in found.findings}
    assert found.repeat_share == finding.figure > 0.5
    assert one(look(orders(), repeats="include"), "no_repeats").figure == 0


def test_most_rows_at_one_moment(healthy: Facts) -> None:
    by_time = healthy.by_time.copy()
    by_time.iloc[-1] = 19 * by_time.iloc[:-1].sum()
    [finding] = times.one_moment(replace(healthy, by_time=by_time))
    assert finding.severity == "error"
    assert finding.figure == pytest.approx(0.95)
    assert finding.key == "collect.files.columns.timestamp"


def test_all_rows_at_one_moment_cannot_be_split(look: Look) -> None:
    found = look(orders().assign(timestamp=START))
    assert one(found, "no_windows").severity == "error"
    assert found.windows == {}
    assert found.users.count == USERS


def test_nearly_all_rows_at_one_moment_are_an_error_that_names_the_column(look: Look) -> None:
    rows = orders()
    rows.loc[rows.index[: int(0.97 * len(rows))], "timestamp"] = START
    finding = one(look(rows), "no_windows")
    assert (finding.severity, finding.key) == ("error", "collect.files.columns.timestamp")


def test_a_user_for_all_unknown_users(healthy: Facts) -> None:
    users = pd.concat([pd.Series({"guest": 1000}), healthy.users])
    [finding] = ids.one_for_many(replace(healthy, users=users))
    assert "'guest'" in finding.text
    assert finding.figure == pytest.approx(1000 / healthy.rows)


@pytest.mark.parametrize(
    ("one_way", "other"),
    [("{:03}", "{}"), ("{}.0", "{}"), ("Ann{}", "ann{}"), ("'{}'", "{}"), ("ABC{}", "abc{}")],
)
def test_one_user_under_two_ids(healthy: Facts, one_way: str, other: str) -> None:
    names = [one_way.format(n) for n in range(1, 31)] + [other.format(n) for n in range(1, 31)]
    [finding] = ids.spellings(replace(healthy, users=healthy.users.set_axis(names)))
    assert finding.kind == "users_spelt_twice"
    assert finding.figure == pytest.approx(0.5, abs=0.05)
    assert f"{other.format(1)!r}" in finding.examples[0] or len(finding.examples) == 3
    assert not list(ids.spellings(healthy))


def test_one_pair_of_spellings_among_thousands_of_rows_is_a_note(healthy: Facts) -> None:
    users = pd.concat([healthy.users, pd.Series({"Ann": 9, "ann": 1})])
    [finding] = ids.spellings(replace(healthy, users=users))
    assert (finding.kind, finding.severity, finding.examples) == (
        "users_spelt_twice",
        "note",
        ["'Ann' and 'ann'"],
    )
    table = healthy.table.replace({"item_id": {"00000": "I001", "00001": "i001"}})  # and in no row
    [finding] = ids.spellings(replace(healthy, table=table))
    assert (finding.kind, finding.figure, finding.examples) == ("items_spelt_twice", 0, ["'I001' and 'i001'"])
    assert finding.key == "collect.files.columns.item_id"


@pytest.mark.parametrize(
    "name", ["unknown", "(Anonymous)", "-1", "-999", "00000000-0000-0000-0000-000000000000"]
)
def test_ids_that_stand_for_nobody(healthy: Facts, name: str) -> None:
    users = pd.concat([healthy.users, pd.Series({name: 9, "10": 9, "Unknown Pleasures": 9})])
    [finding] = ids.stand_ins(replace(healthy, users=users))
    assert (finding.kind, finding.figure) == ("stand_in_users", 9)
    assert not list(ids.stand_ins(healthy))


@pytest.mark.parametrize("quote", ["'", '"', "`"])
def test_ids_in_quotes(healthy: Facts, quote: str) -> None:
    names = [f"{quote}{n}{quote}" for n in range(ITEMS)]
    [finding] = ids.quoted_ids(replace(healthy, items=healthy.items.set_axis(names)))
    assert (finding.kind, finding.figure) == ("quoted_item_ids", ITEMS)
    inches = [f"{n}{quote}" for n in range(ITEMS)]
    assert not list(ids.quoted_ids(replace(healthy, items=healthy.items.set_axis(inches))))


def test_ids_that_a_spreadsheet_changed(healthy: Facts) -> None:
    long = [f"12345678901234{n:02}000" for n in range(ITEMS)]
    [finding] = ids.spreadsheet_ids(replace(healthy, items=healthy.items.set_axis(long)))
    assert (finding.kind, finding.figure) == ("changed_item_ids", ITEMS)
    exact = [f"12345678901234{n:02}{n:03}" for n in range(ITEMS)]
    assert not list(ids.spreadsheet_ids(replace(healthy, items=healthy.items.set_axis(exact))))
    dates = ["2-Jan", "Mar-02", *exact[2:]]
    moments = [f"2024-{1 + n % 12:02}-01T00:00:00+{n:02}" for n in range(ITEMS)]
    assert list(ids.spreadsheet_ids(replace(healthy, items=healthy.items.set_axis(moments))))
    [finding] = ids.spreadsheet_ids(replace(healthy, items=healthy.items.set_axis(dates)))
    assert finding.examples == ["'2-Jan'", "'Mar-02'"]


@pytest.mark.slow
def test_events_that_params_list_and_the_data_spell_otherwise(look: Look) -> None:
    words = ["purchase", "Purchase", "view"]
    rows = orders()
    rows["event"] = [words[n % 3] for n in range(len(rows))]
    finding = one(look(rows, positive={"events": ["purchase"], "min_value": None}), "events_not_there")
    assert finding.figure == pytest.approx(1 / 3, abs=0.01)
    assert finding.examples == ["'Purchase': 800 rows"]
    found = look(rows, positive={"events": ["purchase", "Purchase", "views"], "min_value": None})
    misspelt = [finding for finding in found.findings if finding.kind == "events_not_there"][-1]
    assert (misspelt.key, misspelt.examples[0]) == ("preprocess.positive.events", "'view': 800 rows")


def counted(event: str) -> EventCounts:
    names = ("values", "nines", "below", "negative_successes", "zero_successes")
    none: dict[str, Any] = dict.fromkeys(names, 0)
    return EventCounts(event=event, rows=10, successes=10, least=None, largest=None, usual=None, **none)


@pytest.mark.parametrize(
    ("other", "found"), [("purchas", True), ("Purchase ", True), ("dislike", False), ("review", False)]
)
def test_a_listed_event_may_be_misspelt_in_some_rows(healthy: Facts, other: str, found: bool) -> None:
    wanted = ["purchase", "like", "view"]
    positive = healthy.params.preprocess.positive.model_copy(update={"events": wanted})
    preprocess = healthy.params.preprocess.model_copy(update={"positive": positive})
    counts = [counted(name) for name in [*wanted, other]]
    params = healthy.params.model_copy(update={"preprocess": preprocess})
    findings = list(events.listed(replace(healthy, params=params, events=counts)))
    assert [finding.examples for finding in findings] == ([[f"{other!r}: 10 rows"]] if found else [])


def test_what_was_only_shown_hardly_is_a_success(healthy: Facts) -> None:
    counts = [counted(name) for name in ("impression", "click")]
    [finding] = events.doubtful(replace(healthy, events=counts, kinds={}))
    assert finding.examples == ["'impression': 10 rows"]


@pytest.mark.slow
def test_cancelled_rows_that_count_as_success(look: Look) -> None:
    words = ["paid", "paid", "refunded", "returning visitor"]
    rows = orders().assign(event="order")
    rows["status"] = [words[n % 4] for n in range(len(rows))]
    finding = one(look(rows), "doubtful_successes")
    assert finding.figure == pytest.approx(0.25, abs=0.01)
    assert "column status" in finding.text
    renamed = rows.rename(columns={"event": "kind", "status": "event"})
    assert one(look(renamed), "doubtful_successes").key == "preprocess.positive.events"
    good = look(renamed, positive={"events": ["paid"], "min_value": None})
    assert "doubtful_successes" not in {finding.kind for finding in good.findings}


def test_gaps_and_outliers_of_time(healthy: Facts) -> None:
    late = healthy.by_time.index > START + pd.Timedelta(days=100)
    moved = healthy.by_time.index.where(~late, healthy.by_time.index + pd.Timedelta(days=60))
    [finding] = times.gap(replace(healthy, by_time=healthy.by_time.set_axis(moved)))
    assert finding.figure == 60
    first = pd.Series({pd.Timestamp("2001-01-01", tz="UTC"): 1})
    [finding] = times.far_times(replace(healthy, by_time=pd.concat([first, healthy.by_time])))
    assert finding.examples == ["2001-01-01T00:00:00+00:00"]
    assert not list(times.gap(replace(healthy, by_time=pd.concat([first, healthy.by_time]))))  # said already
    assert not list(times.gap(healthy)) + list(times.far_times(healthy))


@pytest.mark.parametrize(("rows", "days", "found"), [(9, 180, True), (9, 20, False), (200, 180, False)])
def test_a_few_rows_after_a_gap_like_no_other_are_far_times(
    healthy: Facts, rows: int, days: int, found: bool
) -> None:
    end = healthy.by_time.index[-1].floor("D")
    late = pd.Series(1, end + pd.to_timedelta(days + 9 * np.arange(rows), unit="D"))
    by_time = pd.concat([healthy.by_time, late])
    findings = list(times.far_times(replace(healthy, by_time=by_time)))
    assert [finding.figure for finding in findings] == ([rows] if found else [])
    mirrored = by_time.set_axis(by_time.index[0] + (by_time.index[-1] - by_time.index)).sort_index()
    before = list(times.far_times(replace(healthy, by_time=mirrored)))
    assert [finding.figure for finding in before] == ([rows] if found else [])
    keys = [finding.key for finding in findings + before]
    assert keys == (["collect.as_of", "collect.files.columns.timestamp"] if found else [])


def test_rows_in_the_future_are_told_however_near_they_are(healthy: Facts) -> None:
    now = pd.Timestamp.now("UTC")
    rows = healthy.by_time.set_axis(now - (healthy.by_time.index[-1] - healthy.by_time.index))
    late = pd.Series([2, 1], [now + pd.Timedelta(days=3), now + pd.Timedelta(days=900)])
    facts = replace(healthy, by_time=pd.concat([rows, late]))
    [finding] = times.future(facts)
    assert (finding.figure, finding.key) == (3, "collect.as_of")
    assert not list(times.far_times(facts))  # once is enough
    assert not list(times.future(replace(healthy, by_time=rows)))


def test_a_bound_that_leaves_nothing(look: Look) -> None:
    found = look(orders(), positive={"events": None, "min_value": 4})
    assert one(found, "few_successes").severity == "error"
    assert one(found, "no_windows").key == "preprocess.positive"


def test_ratings_that_all_succeed(look: Look) -> None:
    rows = orders()
    rows["value"] = 1 + rows.index % 5
    assert "such as 4" in str(one(look(rows), "every_rating_succeeds").remedy)


def test_bad_rows_are_an_error_above_the_limit_and_all_else_is_looked_at(look: Look) -> None:
    rows = orders()
    rows.loc[rows.index % 4 == 0, "user_id"] = None
    found = look(rows)
    assert one(found, "bad_rows").figure == pytest.approx(0.25)
    assert one(found, "bad_rows").severity == "error"
    assert found.windows


def test_too_few_points_to_ever_promote(look: Look) -> None:
    found = look(orders(), test_share=0.01)
    assert one(found, "few_test_points").key == "preprocess.test_share"


@pytest.mark.slow
def test_texts_of_another_language(look: Look) -> None:
    words = "Küchenmaschinenzubehör Geschirrspülmaschinenreiniger Wäschetrocknerflusensieb"
    finding = one(look(orders(), products().assign(title=words)), "foreign_words")
    assert finding.key == "finetune.encoder"
    unknown = look(orders(), products().assign(title="ጤና ይስጥልኝ ጤና ይስጥልኝ"))
    assert one(unknown, "unknown_tokens").figure > 0.5


def test_collect_says_the_gravest_findings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = orders()
    rows.loc[rows.index % 10 == 0, "value"] *= -1
    things = products()
    third = things.index % 3 == 0  # enough for collect.min_joined_share
    things["item_id"] = things["item_id"].where(third, "x" + things["item_id"])
    params = params_of(tmp_path, rows, things)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    with caplog.at_level("INFO"):
        main(tmp_path / "raw", tmp_path / "params.yaml")
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in said[1:3]] == ["error", "warning"]
    assert "collect.files.columns.items.item_id" in said[1]
    assert "preprocess.positive.min_value" in said[2]
    assert "evergreen check" in said[3]


def test_texts_that_many_items_share(look: Look) -> None:
    things = products()
    things.loc[things.index % 2 == 0, "title"] = "Mug"
    finding = one(look(orders(), things), "equal_texts")
    assert (finding.severity, finding.key, finding.figure) == ("warning", "preprocess.item_text", 0.5)
    assert "21 different texts" in finding.text
    assert finding.examples == [f"'Mug.': {ITEMS // 2} items"]
    things["title"] = "Mug"
    finding = one(look(orders(), things), "equal_texts")
    assert finding.figure == 1
    assert finding.text.startswith("100%")


def test_one_description_of_many_items_whose_titles_differ(look: Look) -> None:
    things = products().assign(text="No description yet")
    things.loc[things.index % 2 == 0, "text"] = None
    finding = one(look(orders(), things), "equal_texts")
    assert "description" in finding.text
    assert finding.figure == 1  # of those that have one
    things["text"] = [f"A mug of {n} ml that is {n % 3}" for n in range(ITEMS)]
    things.loc[things.index < ITEMS // 4, "text"] = "No description yet"
    assert not look(orders(), things).findings
    # What the template leaves out makes no text alike.
    assert not look(orders(), products().assign(text="No description yet"), item_text="{title}").findings


def vectors(healthy: Facts, *cells: Any) -> Facts:
    """`cells` go round the items."""
    listed = [cells[place % len(cells)] for place in range(len(healthy.table))]
    return replace(healthy, table=healthy.table.assign(image_vector=pd.Series(listed, dtype=object)))


A, B, C, D = (np.array(cell, np.float32) for cell in ([1, 2], [2, 1], [-1, 0.5], [0.5, 3]))


@pytest.mark.parametrize(
    ("cells", "figure", "told"),
    [
        ([A], 1, "training leaves it out"),
        ([A, A * (1 + 1e-7)], 1, "training leaves it out"),
        ([A, None, None], 1, "training leaves it out"),
        ([None], 0, "0 of 40 items"),
        ([A, A, B, C, D], 0.4, "for each other"),
        ([A, A, None, B, None], 2 / 3, "for each other"),
    ],
)
def test_vectors_that_tell_no_item_from_another(
    healthy: Facts, cells: list[Any], figure: float, told: str
) -> None:
    [finding] = of_items.equal_vectors(vectors(healthy, *cells))
    assert (finding.severity, finding.figure) == ("warning", pytest.approx(figure))
    assert finding.key == "collect.files.columns.items.image_vector"
    assert told in finding.text


def test_vectors_that_differ_or_that_no_model_sees_are_no_finding(healthy: Facts) -> None:
    assert not list(of_items.equal_vectors(vectors(healthy, A, B, C, D)))
    params = healthy.params
    never = params.preprocess.model_copy(update={"never_features": ["image_vector"]})
    facts = replace(vectors(healthy, A), params=params.model_copy(update={"preprocess": never}))
    assert not list(of_items.equal_vectors(facts))


@pytest.mark.parametrize(
    ("triples", "severity", "told"),
    [
        ([("{:05}", 30), ("x{}", 10)], "note", "nothing is lost"),
        ([("{:05}", 10), ("x{}", 30)], "warning", "nothing is lost"),
        ([("{:05}", 30), ("{}", 10)], "warning", "without leading zeros"),
    ],
)
def test_relations_of_which_a_part_joins(
    tmp_path: Path, triples: list[tuple[str, int]], severity: str, told: str
) -> None:
    params = params_of(tmp_path, orders(), products())
    ids_of = [name.format(n) for name, count in triples for n in range(1, count + 1)]
    graph = pd.DataFrame({"head": ids_of, "relation": "made of", "tail": "clay"})
    graph.to_csv(tmp_path / "graph.csv", index=False)
    content = params.model_dump(mode="json")
    content["collect"]["files"]["relations"] = str(tmp_path / "graph.csv")
    finding = one(check(Params.model_validate(content)), "relations_not_joined")
    count = triples[0][1]
    assert (finding.severity, finding.figure) == (severity, count / 40)
    assert f"{count} of 40 triples" in finding.text
    assert f"{count} of {ITEMS} items have any" in finding.text
    assert told in str(finding.remedy)


def test_items_that_stop_collect_are_a_finding_among_others(tmp_path: Path) -> None:
    things = products().assign(item_id=lambda table: "x" + table["item_id"])
    found = check(params_of(tmp_path, orders(), things))
    assert found.joined_share == 0
    assert "items_not_joined" in [finding.kind for finding in found.findings]


def test_what_cannot_be_read_is_a_finding_with_its_key(tmp_path: Path) -> None:
    rows = orders().rename(columns={"user_id": "customer"})
    found = check(params_of(tmp_path, rows, None))
    assert [finding.kind for finding in found.findings] == ["unreadable"]
    assert found.findings[0].key.startswith("collect.files.columns")
    assert found.errors


def test_report_and_page(look: Look, tmp_path: Path) -> None:
    items = products()
    items.loc[0, "title"] = "<script>alert(1)</script>"
    rows = orders()
    rows.loc[rows.index % 3 == 0, "user_id"] = "<b>guest</b>"
    found = look(rows, items)
    write(found, tmp_path / "reports")
    content = json.loads((tmp_path / "reports" / "check.json").read_text())
    finding = content["findings"][0]
    assert {"kind", "severity", "text", "figure", "examples", "key", "remedy"} <= set(finding)
    assert Check.read(tmp_path / "reports" / "check.json") == found
    page = (tmp_path / "reports" / "check.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;b&gt;guest" in page
    assert page.count("<svg") >= 3
    assert render(found) == page


def test_the_page_of_what_could_not_be_read(tmp_path: Path) -> None:
    found = check(params_of(tmp_path, orders().drop(columns="timestamp"), None))
    assert found.findings[0].text in html.unescape(render(found))


def test_percent_never_rounds_to_all_or_nothing() -> None:
    shown = [percent(share) for share in (0, 1e-9, 0.0004, 0.034, 0.12, 0.9999999, 1)]
    assert shown == ["0%", "0.001%", "0.040%", "3.4%", "12%", "99.99%", "100%"]


def test_the_source_of_the_items_is_credited_in_the_footer() -> None:
    assert "<p>Works: A.</p></footer>" in render(Check(source="x", credit="Works: A", findings=[]))


def test_titles_that_were_read_in_another_encoding_are_named(look: Look) -> None:
    things = products()
    things.loc[:9, "title"] = "Café crème".encode().decode("cp1252")
    finding = one(look(orders(), things), "misread_titles")
    assert (finding.figure, finding.key) == (0.25, "collect.files.encoding")
    assert "Café crème" in finding.text


@pytest.mark.slow
def test_a_number_for_none_is_no_success(look: Look) -> None:
    rows = orders()
    rows.loc[rows.index % 10 == 0, "value"] = 99
    finding = one(look(rows), "stand_in_values")
    assert (finding.figure, finding.key) == ((rows["value"] == 99).sum(), "collect.files.columns.value")
    rows.loc[rows.index % 10 == 1, "value"] = 60  # then 99 may be one of them
    assert "stand_in_values" not in {finding.kind for finding in look(rows).findings}
