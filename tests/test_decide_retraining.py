import copy
import json
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.documents.base import Document
from pipeline.documents.data import Manifest
from pipeline.documents.drift import Drift
from pipeline.documents.registry import Registry
from pipeline.documents.retraining import Reason, Retraining
from pipeline.params import DecideRetraining, Params
from pipeline.stages.decide_retraining import MODES, decide_retraining, main, sentence

D = TypeVar("D", bound=Document)
AS_DELIVERED = Params.load(Path("params.yaml")).decide_retraining
# Nothing calls for a training and nothing holds it back but what a test sets.
OPEN = DecideRetraining(
    max_age_days=None,
    max_new_share=None,
    drift="ignore",
    quality_drop="ignore",
    min_new_rows=0,
    min_gap_days=0,
    label_delay_days=0,
    max_trainings_per_month=None,
    max_seconds_per_month=None,
    max_forgotten_share=None,
    max_forgotten_days=None,
    full_every=None,
)


def settings(**changes: Any) -> DecideRetraining:
    return DecideRetraining.model_validate(OPEN.model_dump() | changes)


def signal(flag: bool, confirmed: bool | None = None, **more: Any) -> dict[str, Any]:
    """As in drift.json; a flag counts if it is confirmed."""
    confirmed = flag if confirmed is None else confirmed
    row = {"value": 0.31, "p_value": 0.001, "floor": 0.1, "flag": flag, "confirmed": confirmed}
    return row | {"text": "share of new items 31 %"} | more


def drift(*flagged: str, **more: Any) -> dict[str, Any]:
    """Of champion v1.0.0, fitted to 2024-01-01 on 9,000 rows, checked on 2024-04-01 with 3,000 rows since."""
    names = ("volume", "new_items", "quality")
    return {
        "outcome": "ok",
        "as_of": "2024-04-01T00:00:00+00:00",
        "drift": bool(flagged),
        "signals": {name: signal(name in flagged) for name in names},
        "current": {"from": "2024-01-01", "to": "2024-03-31", "rows": 3000, "users": 200},
        "windows": [{"from": "2024-01-01", "to": "2024-02-15"}, {"from": "2024-02-15", "to": "2024-03-25"}],
        "champion": "v1.0.0",
        "rows_since_fit_end": 3000,
        "rows_fitted": 9000,
    } | more


def training(
    as_of: str | None = "2024-02-01", mode: str = "full", rows: int | None = 10_000, seconds: float = 480
):
    """The champion's own by default: 1,000 of its rows were held out for its test."""
    cost = {"seconds": seconds, "peak_gib": 1.5}
    return {"as_of": as_of, "mode": mode, "rows": rows, "training": cost, "version": None, "promoted": False}


def registry(*trainings: dict[str, Any], champion: str | None = "v1.0.0") -> dict[str, Any]:
    versions = [{"version": "v1.0.0", "as_of": "2024-02-01", "fit_end": "2024-01-01"}]
    return {"champion": champion, "versions": versions, "trainings": list(trainings or [training()])}


MANIFEST = {"as_of": "2024-04-01T00:00:00+00:00", "rows": {"kept": 12_000}}


def read(kind: type[D], content: Any) -> D | None:
    """As a reader finds it in a file: None where it is malformed."""
    try:
        return kind.parse(json.dumps(content))
    except ValidationError:
        return None


def judged(told: Any, known: Any, manifest: Any, policy: DecideRetraining) -> Retraining:
    inputs = read(Drift, told), read(Registry, known), read(Manifest, manifest)
    return decide_retraining(*inputs, policy)


def decide(
    policy: DecideRetraining, told: Any = None, known: Any = None, manifest: Any = MANIFEST
) -> Retraining:
    told = drift() if told is None else told
    return judged(told, registry() if known is None else known, manifest, policy)


def reason(decision: Retraining, name: str) -> Reason:
    (found,) = [reason for reason in decision.reasons if reason.signal == name]
    return found


# Calls


def forgotten(number: int, as_of: str = "2024-03-10", rows: int = 60) -> dict[str, Any]:
    return {"mark": f"abcd-{number}", "number": number, "as_of": as_of, "rows": rows}


def test_rows_of_forgotten_people_call_for_a_full_training_and_nothing_holds_it_back() -> None:
    known = registry() | {"forgotten": [forgotten(1), forgotten(2)]}
    strict = settings(max_forgotten_share=0.012, min_new_rows=10**9, max_trainings_per_month=1)
    decision = decide(strict, known=known)
    assert (decision.mode, reason(decision, "max_forgotten_share").value) == ("full", 0.012)
    assert decide(settings(max_forgotten_share=0.0121), known=known).mode == "none"
    assert decide(strict).mode == "none"  # nobody
    # A full training left out the first one: it was refused, and is not tried again for the same share.
    since = known | {"trainings": [training() | {"forgotten": 1}]}
    assert reason(decide(strict, known=since), "max_forgotten_share").value == 0.006


@pytest.mark.parametrize(("days", "expected"), [(22, "full"), (23, "none")])
def test_days_since_somebody_was_forgotten_call_for_a_full_training(days: float, expected: str) -> None:
    known = registry() | {
        "forgotten": [forgotten(1), forgotten(2, "2024-03-20"), forgotten(3, "2024-01-01", 0)]
    }
    decision = decide(settings(max_forgotten_days=days, min_new_rows=10**9), known=known)
    assert decision.mode == expected
    assert reason(decision, "max_forgotten_days").value == 22


def test_a_refused_training_without_them_is_tried_again_as_many_days_later() -> None:
    tried = training("2024-03-25") | {"forgotten": 1}
    known = registry(training(), tried) | {"forgotten": [forgotten(1)]}
    assert decide(settings(max_forgotten_days=8), known=known).mode == "none"
    assert decide(settings(max_forgotten_days=7), known=known).mode == "full"


def test_no_champion_calls_for_a_full_training_whatever_the_policy():
    told = {"outcome": "no_champion", "as_of": "2024-04-01", "drift": False, "signals": {}, "champion": None}
    strict = settings(min_new_rows=10**9, min_gap_days=1000, max_trainings_per_month=1)
    decision = decide(strict, told, registry(champion=None))
    assert (decision.retrain, decision.mode, decision.champion) == (True, "full", None)
    assert sentence(decision) == "full: there is no champion yet"
    assert decide(strict, told | {"as_of": None}, registry(champion=None)).retrain is True


def test_nothing_new_calls_for_nothing():
    decision = decide(settings(max_age_days=61, max_new_share=0.25))
    assert (decision.retrain, decision.mode) == (False, "none")
    assert decision.champion == "v1.0.0"
    assert decision.to_dict()["as_of"] == "2024-04-01T00:00:00+00:00"
    assert decision.policy["max_new_share"] == 0.25
    assert sentence(decision) == (
        "none: no drift; 60.0 days of data since the last training; due after 61;"
        " 2,000 rows came since the last training, 20.0% of the 10,000 that it had; due at 25%"
    )


def test_the_calendar_counts_days_of_data_since_the_last_training():
    assert decide(settings(max_age_days=60)).mode == "refresh"  # February has 29 days
    assert decide(settings(max_age_days=60.5)).mode == "none"
    since = registry(training(), training("2024-03-31", "refresh"))
    assert decide(settings(max_age_days=60), known=since).mode == "none"
    found = reason(decide(settings(max_age_days=60)), "max_age_days")
    assert (found.value, found.threshold, found.p_value, found.calls) == (60, 60, None, "refresh")


def test_the_calendar_counts_rows_as_a_share_of_those_that_the_last_training_had():
    # 3,000 since fit_end, of which 1,000 were its own test: 2,000 of 10,000 are new.
    assert decide(settings(max_new_share=0.2)).mode == "refresh"
    assert decide(settings(max_new_share=0.21)).mode == "none"
    assert reason(decide(settings(max_new_share=0.2)), "max_new_share").value == 0.2
    # A refused training on 11,500 rows is the one to count from.
    since = registry(training(), training("2024-03-20", "refresh", rows=11_500))
    assert reason(decide(settings(max_new_share=0.2), known=since), "max_new_share").value == round(
        500 / 11_500, 6
    )


def test_rows_of_a_source_that_forgets_old_ones_are_new_all_the_same():
    manifest = MANIFEST | {"rows": {"kept": 10_000}}  # as many as at the training
    assert decide(settings(max_new_share=0.2), manifest=manifest).mode == "refresh"


def test_rows_that_drift_does_not_tell_are_taken_from_the_manifest():
    told = drift(rows_since_fit_end=None)
    assert reason(decide(settings(max_new_share=0.2), told), "max_new_share").value == 0.2
    unknown = decide(settings(max_new_share=0.2), told, registry(training(rows=None)))
    assert unknown.retrain is False
    assert reason(unknown, "max_new_share").text == "the rows since the last training are not known"


def test_rows_of_a_training_that_nobody_recorded_count_from_the_fit():
    assert reason(
        decide(settings(max_new_share=0.3), known=registry(training(rows=None))), "max_new_share"
    ).value == round(3000 / 9000, 6)


@pytest.mark.parametrize("mode", ["refresh", "full"])
def test_confirmed_drift_calls_for_what_the_policy_says(mode):
    decision = decide(settings(drift=mode), drift("new_items"))
    assert decision.mode == mode
    assert reason(decision, "new_items").to_dict() == {
        "signal": "new_items",
        "value": 0.31,
        "threshold": 0.1,
        "p_value": 0.001,
        "text": "share of new items 31 %",
        "calls": mode,
    }
    assert sentence(decision) == f"{mode}: share of new items 31 %"


def test_quality_has_its_own_mode_and_the_more_thorough_one_wins():
    policy = settings(drift="refresh", quality_drop="full")
    assert decide(policy, drift("quality")).mode == "full"
    assert decide(policy, drift("new_items", "quality")).mode == "full"
    assert decide(policy, drift("new_items")).mode == "refresh"
    assert decide(settings(drift="full", quality_drop="refresh"), drift("quality")).mode == "refresh"


def test_ignored_drift_is_told_but_calls_for_nothing():
    decision = decide(settings(), drift("new_items", "quality"))
    assert decision.retrain is False
    assert "(the policy ignores it)" in reason(decision, "new_items").text


def test_unconfirmed_flags_are_no_drift():
    told = drift() | {"signals": {"new_items": signal(True, confirmed=False)}}
    assert decide(settings(drift="full"), told).retrain is False
    told = drift("volume") | {"signals": {"volume": signal(True), "new_items": signal(True, confirmed=False)}}
    signals = [reason.signal for reason in decide(settings(drift="full"), told).reasons]
    assert signals == ["volume"]


def test_verdict_without_drift_is_not_overruled_by_a_flag():
    told = drift("quality") | {"drift": False}
    assert decide(settings(quality_drop="full"), told).retrain is False


def test_drift_without_a_signal_still_counts():
    decision = decide(settings(drift="refresh"), drift() | {"drift": True})
    assert decision.mode == "refresh"
    assert "without a signal" in decision.reasons[0].text


def test_drift_that_the_last_training_had_seen_is_no_new_evidence():
    policy = settings(drift="refresh", quality_drop="full")
    since = registry(training(), training("2024-03-25", "refresh"))  # as of the newest window's end
    decision = decide(policy, drift("new_items", "quality"), since)
    assert decision.retrain is False
    assert "had seen it" in reason(decision, "quality").text
    since = registry(training(), training("2024-03-24", "refresh"))
    assert decide(policy, drift("new_items", "quality"), since).mode == "full"


def test_too_little_data_for_a_drift_check_leaves_the_calendar():
    told = drift(outcome="not_enough_data", text="812 rows: too few", signals={}, windows=[])
    assert decide(settings(max_age_days=60, drift="full"), told).mode == "refresh"
    decision = decide(settings(drift="full"), told | {"drift": True})
    assert decision.retrain is False
    assert decision.reasons[0].text == "812 rows: too few"


# Full at least every so often


@pytest.mark.parametrize(
    ("modes", "every", "expected"),
    [
        (["full"], 3, "refresh"),
        (["full", "refresh"], 3, "refresh"),
        (["full", "refresh", "refresh"], 3, "full"),
        (["full", "refresh", "refresh", "full"], 3, "refresh"),
        (["refresh", "refresh"], 3, "full"),
        (["full"], 1, "full"),
        (["full", *["refresh"] * 20], None, "refresh"),
    ],
)
def test_one_in_so_many_trainings_is_full(modes, every, expected):
    known = registry(*(training("2024-02-01", mode) for mode in modes))
    decision = decide(settings(max_age_days=60, full_every=every), known=known)
    assert decision.mode == expected
    assert any(reason.signal == "full_every" for reason in decision.reasons) == (expected == "full")


# What holds back


def held(policy: dict[str, Any], known: Any = None, told: Any = None) -> list[str]:
    """Signals that hold back a training that age calls for."""
    decision = decide(settings(max_age_days=60, **policy), told, known)
    names = [reason.signal for reason in decision.reasons if reason.calls == "none"]
    assert decision.retrain is not bool(names)
    return names


def test_too_few_new_rows():
    assert held({"min_new_rows": 2000}) == []
    assert held({"min_new_rows": 2001}) == ["min_new_rows"]
    decision = decide(settings(max_age_days=60, min_new_rows=2001))
    assert sentence(decision) == (
        "none: held back: 2,000 new rows since the last training, fewer than 2,001;"
        " else due: 60.0 days of data since the last training; due after 60"
    )
    unknown = registry(training(rows=None))
    assert held({"min_new_rows": 1}, unknown, drift(rows_fitted=None)) == ["min_new_rows"]


def test_too_soon_after_the_last_training():
    assert held({"min_gap_days": 60}) == []
    assert held({"min_gap_days": 60.1}) == ["min_gap_days"]


def test_labels_that_are_not_in():
    assert held({"label_delay_days": 60.1}) == ["label_delay_days"]
    # The newest window ended on 03-25, seven days before: its quality counts with a delay of seven.
    for days, mode in ((7, "full"), (7.5, "none")):
        policy = settings(quality_drop="full", label_delay_days=days)
        assert decide(policy, drift("quality")).mode == mode
    assert "so not yet" in reason(decide(policy, drift("quality")), "quality").text


def test_budget_of_trainings_within_thirty_days():
    recent = [training("2024-03-02"), training("2024-03-05"), training("2024-02-01")]
    known = registry(*recent)  # 03-02 is thirty days back: no longer counted
    assert held({"max_trainings_per_month": 2}, known) == []
    assert held({"max_trainings_per_month": 1}, known) == ["max_trainings_per_month"]


def test_budget_of_seconds_within_thirty_days():
    known = registry(training("2024-03-05", seconds=100), training("2024-03-06", "refresh", seconds=20))
    known["trainings"].append(training("2024-02-01"))
    assert held({"max_seconds_per_month": 121}, known) == []
    assert held({"max_seconds_per_month": 120}, known) == ["max_seconds_per_month"]


def test_all_that_holds_back_is_told():
    policy = {"min_new_rows": 10**6, "min_gap_days": 99, "max_trainings_per_month": 1}
    known = registry(training("2024-03-05"), training("2024-02-01"))
    assert held(policy, known) == ["min_new_rows", "min_gap_days", "max_trainings_per_month"]


def test_unknown_age_neither_calls_nor_passes_the_gap():
    known = registry(training(as_of=None)) | {"versions": []}
    assert decide(settings(max_age_days=1), known=known).retrain is False
    decision = decide(settings(max_new_share=0.1, min_gap_days=1), known=known)
    assert decision.retrain is False
    assert reason(decision, "min_gap_days").value is None


def test_age_of_a_version_whose_training_nobody_recorded():
    known = {**registry(), "trainings": []}
    assert decide(settings(max_age_days=60), known=known).mode == "refresh"


def test_backfill_of_older_data_calls_for_nothing():
    manifest = {"as_of": "2024-01-15", "rows": {"kept": 9_500}}
    told = drift(as_of="2024-01-15", rows_since_fit_end=500, current={"to": "2024-01-15"}, windows=[])
    assert decide(AS_DELIVERED, told, manifest=manifest).retrain is False


# What cannot be decided on


@pytest.mark.parametrize(
    ("told", "known", "manifest", "text"),
    [
        (None, "ok", MANIFEST, "reports/drift.json cannot be read: run `dvc repro --force detect_drift`"),
        ([], "ok", MANIFEST, "reports/drift.json cannot be read"),
        ({"outcome": "fine"}, "ok", MANIFEST, "reports/drift.json cannot be read"),
        ({"outcome": ["ok"]}, "ok", MANIFEST, "reports/drift.json cannot be read"),
        (drift(drift=None), "ok", MANIFEST, "reports/drift.json cannot be read"),
        (drift(drift="true"), "ok", MANIFEST, "reports/drift.json cannot be read"),
        (drift(signals={}), "ok", MANIFEST, "reports/drift.json has no signals"),
        (drift(signals=[1]), "ok", MANIFEST, "reports/drift.json cannot be read"),
        (drift(), None, MANIFEST, "data/registry.json cannot be read: run `evergreen champion`"),
        (drift(), [], MANIFEST, "data/registry.json cannot be read"),
        (drift(), {"champion": "v1.0.0"}, MANIFEST, "data/registry.json cannot be read"),
        (drift(), {"champion": "v1.0.0", "trainings": [1]}, MANIFEST, "data/registry.json cannot be read"),
        (drift(), {"trainings": []}, MANIFEST, "data/registry.json cannot be read"),
        (drift(), {"champion": 1, "trainings": []}, MANIFEST, "data/registry.json cannot be read"),
        (drift(), "ok", None, "data/raw/manifest.json cannot be read"),
        (drift(), "ok", {"as_of": 5}, "data/raw/manifest.json cannot be read"),
        (drift(), "ok", {"as_of": "2024-04-02"}, "the data as of 2024-04-02T00:00:00+00:00"),
        (drift(as_of=None), "ok", MANIFEST, "is as of None"),
        (drift(champion="v2.0.0"), "ok", MANIFEST, "is about v2.0.0, but v1.0.0 is the champion"),
        (drift(champion=None), "ok", MANIFEST, "is about no champion, but v1.0.0 is the champion"),
        (drift(outcome="no_champion", champion=None), "ok", MANIFEST, "about no champion, but v1.0.0"),
        (drift(), "none", MANIFEST, "is about v1.0.0, but there is no champion"),
        (
            drift("volume", outcome="bad_input", as_of=None, text="current: no column value"),
            "ok",
            MANIFEST,
            "the data cannot be checked for drift, mend them first: current: no column value",
        ),
        (drift("volume", outcome="bad_input"), "ok", MANIFEST, "mend them first: share of new items 31 %"),
    ],
)  # fmt: skip
def test_unusable_input_trains_nothing_and_says_so(told, known, manifest, text):
    known = {"ok": registry(), "none": registry(champion=None)}[known] if isinstance(known, str) else known
    eager = settings(max_age_days=1, max_new_share=0.001, drift="full", quality_drop="full")
    decision = judged(told, known, manifest, eager)
    assert (decision.retrain, decision.mode) == (False, "none")
    (only,) = decision.reasons
    assert text in only.text
    assert sentence(decision) == f"none: {only.text}"
    assert Retraining.parse(decision.to_json()) == decision


@pytest.mark.slow
@given(st.data())
def test_it_never_raises_and_is_always_whole(data):
    """Any part of any input may be anything that JSON holds, NaN included."""
    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    )
    inputs = copy.deepcopy([drift("new_items", "quality"), registry(training(), training()), dict(MANIFEST)])
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = inputs
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
                place[key] = data.draw(junk)
                break
            place = place[key]
    policy = settings(
        max_age_days=1, max_new_share=0.1, drift="full", quality_drop="full", min_gap_days=1,
        max_seconds_per_month=1000, full_every=2, label_delay_days=1,
    )  # fmt: skip
    decision = judged(*inputs, policy)
    assert decision.mode in MODES
    assert decision.retrain is (decision.mode != "none")
    assert decision.reasons
    assert all(reason.text for reason in decision.reasons)
    assert sentence(decision)
    assert Retraining.parse(decision.to_json()) == decision


# The stage


def test_stage_writes_the_decision(tmp_path):
    for name, content in (("drift", drift("new_items")), ("registry", registry()), ("manifest", MANIFEST)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    paths = [tmp_path / f"{name}.json" for name in ("drift", "registry", "manifest")]
    main(*paths, tmp_path / "reports" / "retraining.json")
    decision = json.loads((tmp_path / "reports" / "retraining.json").read_text())
    assert decision == judged(drift("new_items"), registry(), MANIFEST, AS_DELIVERED).to_dict()
    assert list(decision) == ["retrain", "mode", "reasons", "champion", "as_of", "policy"]


@pytest.mark.parametrize("text", ["", "{", "null", "[" * 100_000])
def test_stage_with_a_damaged_file(tmp_path, text):
    for name, content in (("drift", text), ("registry", json.dumps(registry())), ("manifest", text)):
        (tmp_path / f"{name}.json").write_text(content)
    paths = [tmp_path / f"{name}.json" for name in ("drift", "registry", "manifest")]
    main(*paths, tmp_path / "retraining.json")
    assert json.loads((tmp_path / "retraining.json").read_text())["retrain"] is False
    main(*[tmp_path / "nothing"] * 3, tmp_path / "retraining.json")
    assert json.loads((tmp_path / "retraining.json").read_text())["retrain"] is False
