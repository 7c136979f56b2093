"""Each rule against the champion, by hand-made tables; each malformed input fails its own check."""

import math
from pathlib import Path

import pytest
from gate_by_hand import (
    SETTINGS,
    against_champion,
    challenger,
    champion,
    decide,
    evaluation,
    failed,
    pair,
    slice_of,
    spoilt,
    without,
)

from pipeline.params import Params
from pipeline.stages.decide_promotion import sentence


def verdict_on(evaluated=None, new=None, old=None, **settings):
    evaluated = evaluation() if evaluated is None else evaluated
    return decide(evaluated, new or challenger(), old or champion(), SETTINGS.model_copy(update=settings))


def check(verdict, name):
    return next(one for one in verdict.checks if one.name == name)


# The difference. The champion has .2, so the tolerance of .25 is .05 and the least gain of .02 is .004.


def test_a_lower_end_within_the_tolerance_passes_if_the_mean_is_a_gain():
    verdict = verdict_on(against_champion(0.005, -0.0499, 0.06))
    assert failed(verdict) == []
    assert check(verdict, "beats_champion").limit == -0.05
    assert check(verdict, "min_gain").limit == pytest.approx(0.004)
    assert check(verdict, "min_gain").text.startswith("nDCG@10 +0.0050 (+2.5% of the champion's), more")


def test_a_lower_end_at_the_tolerance_fails():
    verdict = verdict_on(against_champion(0.01, -0.05, 0.07))
    assert failed(verdict) == ["beats_champion"]
    assert "not surely above -0.05" in sentence(verdict)


def test_a_sure_but_small_gain_fails():
    assert failed(verdict_on(against_champion(0.004, 0.003, 0.005))) == ["min_gain"]


def test_without_tolerance_the_lower_end_must_be_above_zero():
    equal = against_champion(0.01, 0.0, 0.02)
    assert failed(verdict_on(equal, tolerance=0.0)) == ["beats_champion"]


def test_a_champion_at_zero_asks_for_a_gain_above_zero():
    assert failed(verdict_on(against_champion(0.01, 0.002, 0.018, base=0.0))) == []
    none = against_champion(0.0, 0.0, 0.0, base=0.0)
    assert failed(verdict_on(none)) == ["beats_champion", "min_gain"]


def test_what_is_reported_must_not_be_surely_a_loss():
    verdict = verdict_on(evaluation(champion=pair(-0.01, -0.02, -0.0001)))
    assert failed(verdict) == ["headline"]
    assert check(verdict, "headline").text.endswith("surely below 0")
    assert failed(verdict_on(evaluation(champion=pair(-0.01, -0.02, 0.0)))) == []


# Comparable


def test_points_must_be_later_than_both_models():
    early = evaluation() | {"points_after": "1998-02-15T00:00:00Z"}
    verdict = verdict_on(early)
    assert failed(verdict) == ["comparable"]
    assert check(verdict, "comparable").limit == "1998-03-01T00:00:00+00:00"


def test_an_evaluation_is_bound_to_the_models_that_it_names():
    hashes = {"challenger": "c" * 64, "champion": "a" * 64}
    assert failed(verdict_on(evaluation() | {"artifact_hash": hashes})) == []
    nobody = verdict_on(evaluation() | {"artifact_hash": {}})
    assert failed(nobody) == ["evaluation", "comparable"]
    for unnamed in (None, "c" * 64, {"challenger": None, "champion": math.nan}):
        assert not verdict_on(evaluation() | {"artifact_hash": unnamed}).promote
    other = evaluation() | {"artifact_hash": hashes | {"challenger": "d" * 64}}
    assert failed(verdict_on(other)) == ["evaluation"]
    other = evaluation() | {"artifact_hash": hashes | {"champion": "d" * 64}}
    assert failed(verdict_on(other)) == ["comparable"]
    assert "another champion was evaluated" in sentence(verdict_on(other))


def test_too_few_users_or_points_are_not_comparable():
    few = spoilt(evaluation(), "comparison", "users", to=29)
    few = spoilt(few, "comparison", "points", to=99)
    verdict = verdict_on(few)
    assert failed(verdict) == ["users", "points"]
    assert check(verdict, "users").text == "not comparable: 29 users compared, at least 30 are needed"
    enough = spoilt(spoilt(few, "comparison", "users", to=30), "comparison", "points", to=100)
    assert failed(verdict_on(enough)) == []


def unread():
    left_out = without(evaluation(), "comparison") | {"not_comparable": "its format is 1, this code reads 2"}
    return left_out | {"paired": without(left_out["paired"], "champion")}


def test_a_champion_of_another_format_is_not_comparable():
    verdict = verdict_on(unread())
    assert "comparable" in failed(verdict)
    assert "beats_champion" in failed(verdict)
    text = check(verdict, "comparable").text
    assert text == "not comparable with the champion: its format is 1, this code reads 2"


def test_an_unread_champion_gives_way_where_the_params_name_it():
    verdict = verdict_on(unread(), replace_unread="v1.0.0")
    assert failed(verdict) == []
    assert "replace_unread names v1.0.0" in check(verdict, "beats_champion").text
    assert "comparable" in failed(verdict_on(unread(), replace_unread="v0.9.0"))


def test_replace_unread_is_no_pardon_for_a_champion_that_was_compared():
    worse = against_champion(-0.05, -0.06, -0.04)
    assert failed(verdict_on(worse, replace_unread="v1.0.0")) == ["beats_champion", "min_gain"]


def test_replace_unread_does_not_let_an_older_model_in():
    verdict = verdict_on(unread(), old=champion(fit_end="1998-03-02"), replace_unread="v1.0.0")
    assert failed(verdict) == ["fit_end"]


# Places left to chance.


def left_to_chance(low, high, answer):
    gain = None if low is None else (low + high) / 2
    found = {"answer": answer, "difference": gain, "low": low, "high": high, "places": 900, "users": 80}
    return spoilt(evaluation(), "comparison", "off_policy", to=found)


@pytest.mark.parametrize(
    ("low", "high", "answer", "stops"),
    [
        (0.01, 0.03, "better", False),
        (-0.01, 0.03, "investigate", False),
        (-0.03, -0.01, "not better", True),
        (-0.03, -0.01, "investigate", False),  # too few, or the log cannot tell
        (None, None, "better", True),
        (0.03, 0.01, "better", True),
    ],
)
def test_people_who_would_surely_take_less_stop_a_promotion(low, high, answer, stops):
    verdict = verdict_on(left_to_chance(low, high, answer))
    assert failed(verdict) == (["off_policy"] if stops else [])
    if low is not None and low < high:
        assert check(verdict, "off_policy").text.startswith(f"{answer}: ")
        assert check(verdict, "off_policy").text in sentence(verdict)


def test_without_places_left_to_chance_nothing_is_asked_of_them():
    told = check(verdict_on(evaluation()), "off_policy")
    assert (told.passed, told.value) == (True, None)
    assert "exploration" in told.text


# Lists drawn in turns


def in_turns(low, high, answer, **models):
    names = {"champion": "v1.0.0", "challenger": f"sha256:{'c' * 12}"} | models
    found = {"answer": answer, "low": low, "high": high, "lists": 900, "users": 80, **names}
    gain = None if low is None else (low + high) / 2
    return evaluation() | {"satisfaction": {"interleaved": found | {"difference": gain}}}


@pytest.mark.parametrize(
    ("low", "high", "answer", "stops"),
    [
        (0.01, 0.03, "better", False),
        (-0.01, 0.03, "investigate", False),
        (-0.03, -0.01, "not better", True),
        (-0.03, -0.01, "investigate", False),  # of too few people
        (None, None, "better", True),
        (0.03, 0.01, "better", True),
    ],
)
def test_people_who_surely_took_less_of_its_items_stop_a_promotion(low, high, answer, stops):
    verdict = verdict_on(in_turns(low, high, answer))
    assert failed(verdict) == (["interleaved"] if stops else [])
    if low is not None and low < high:
        assert check(verdict, "interleaved").text.startswith(f"{answer}: ")
        assert check(verdict, "interleaved").text in sentence(verdict)


@pytest.mark.parametrize("models", [{"challenger": "sha256:dddddddddddd"}, {"champion": "v2.0.0"}])
def test_lists_of_other_models_say_nothing_of_these(models):
    told = check(verdict_on(in_turns(-0.03, -0.01, "not better", **models)), "interleaved")
    assert (told.passed, told.value) == (True, None)
    assert next(iter(models.values())) in told.text


def test_without_lists_in_turns_nothing_is_asked_of_them():
    told = check(verdict_on(evaluation()), "interleaved")
    assert (told.passed, told.value) == (True, None)
    assert "challenger_share" in told.text


# Reasons


@pytest.mark.parametrize(
    ("low", "high", "stops"),
    [(0.01, 0.03, False), (-0.01, 0.03, False), (-0.03, -0.01, True), (-0.01, 0.0, True), (0.03, 0.01, True)],
)
def test_reasons_that_are_surely_not_why_stop_a_promotion(low, high, stops):
    found = {"difference": (low + high) / 2, "low": low, "high": high, "items": 100, "users": 20}
    verdict = verdict_on(evaluation() | {"faithfulness": found})
    assert failed(verdict) == (["faithfulness"] if stops else [])
    unsure = low < 0 < high
    assert check(verdict, "faithfulness").text.startswith("investigate") == unsure
    assert (check(verdict, "faithfulness").text in sentence(verdict)) == (unsure or stops)


def test_reasons_that_were_not_measured_stop_a_promotion_and_none_do_not():
    assert failed(verdict_on(without(evaluation(), "faithfulness"))) == ["faithfulness"]
    assert failed(verdict_on(evaluation() | {"faithfulness": {"items": 3}})) == ["faithfulness"]
    assert failed(verdict_on(evaluation() | {"faithfulness": {"items": 0}})) == []


# Fairness


def with_lost(share, p, kind="users", **figures):
    row = {
        "kind": kind,
        "name": "gender=F",
        "lost": 0.1,
        "low": 0.0,
        "high": 0.2,
        "share": share,
        "p": p,
    }
    row |= {"challenger": 0.1, "champion": 0.2} | figures
    return spoilt(evaluation(), "comparison", "fairness", to=[row])


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        (with_lost(0.3, 0.01), "fails"),
        (with_lost(0.3, 0.01, kind="exposure"), "fails"),
        (with_lost(0.3, 0.2), "passes"),  # may be chance
        (with_lost(0.05, 0.01), "passes"),  # below the guard
        (with_lost(0.3, 0.01, kind="calibration"), "investigate"),
        (with_lost(0.3, 0.01, challenger=0.25), "investigate"),  # the others gain more
        (with_lost(None, 0.01), "fails"),  # the champion has nothing there
    ],
)
def test_a_group_that_surely_loses_ground_stops_a_promotion(found, answer):
    verdict = verdict_on(found)
    assert failed(verdict) == (["fairness"] if answer == "fails" else [])
    assert check(verdict, "fairness").text.startswith(f"{answer}: ")
    assert (check(verdict, "fairness").text in sentence(verdict)) == (answer != "passes")


def test_without_a_guard_fairness_is_told_and_stops_nothing():
    free_of_it = SETTINGS.model_copy(update={"fairness_guard": None})
    verdict = decide(with_lost(0.3, 0.01), challenger(), champion(), free_of_it)
    assert check(verdict, "fairness").text.startswith("investigate: ")
    assert failed(verdict) == []


def test_fairness_that_was_not_measured_fails_and_nobody_to_compare_passes():
    assert failed(verdict_on(spoilt(evaluation(), "comparison", "fairness", to=None))) == ["fairness"]
    assert failed(verdict_on(with_lost(0.3, None))) == ["fairness"]
    assert failed(verdict_on(evaluation())) == []


# Slices. Guard: a tenth of the champion's figure there. Interval: z(.025 / slices) errors to each side.


def with_slices(**slices):
    found = evaluation()
    return spoilt(found, "comparison", "slices", to={"all": found["comparison"]["slices"]["all"], **slices})


QUIET = {"cold_items": slice_of(0.02, 0.0, 0.002), "cold_users": slice_of(0.2, 0.0, 0.01)}


def test_a_sure_loss_above_the_guard_blocks():
    verdict = verdict_on(with_slices(**QUIET | {"cold_items": slice_of(0.02, -0.01, 0.002)}))
    assert failed(verdict) == ["slices"]
    found = check(verdict, "slices")
    assert (found.value, found.limit) == (pytest.approx(-0.5), -0.1)
    # Two slices: z(.025 / 2) = 2.2414
    assert "cold_items -0.0100 [-0.0145, -0.0055] (-50%, 200 users)" in found.text


def test_a_sure_loss_below_the_guard_passes():
    assert failed(verdict_on(with_slices(**QUIET | {"cold_users": slice_of(0.2, -0.019, 0.001)}))) == []


def test_a_large_loss_that_may_be_chance_passes():
    assert failed(verdict_on(with_slices(**QUIET | {"cold_items": slice_of(0.02, -0.01, 0.005)}))) == []


def test_many_slices_widen_the_interval_of_each():
    """A loss of 2.5 errors: sure among two slices (z 2.24), chance among twelve (z 2.87)."""
    losing = {"group:sex=F": slice_of(0.2, -0.025, 0.01)}
    assert failed(verdict_on(with_slices(**QUIET, **losing))) == ["slices"]
    others = {f"group:colour={n}": slice_of(0.2, 0.0, 0.01) for n in range(9)}
    assert failed(verdict_on(with_slices(**QUIET, **losing, **others))) == []


def test_slices_of_few_users_are_not_guarded_and_do_not_widen_the_others():
    small = {f"group:colour={n}": slice_of(0.2, -0.2, 0.01, users=29) for n in range(9)}
    verdict = verdict_on(with_slices(**QUIET, **small))
    assert failed(verdict) == []
    assert "9 too small to guard" in check(verdict, "slices").text
    losing = {"group:sex=F": slice_of(0.2, -0.025, 0.01)}
    assert failed(verdict_on(with_slices(**QUIET, **small, **losing))) == ["slices"]


def test_no_slice_is_large_enough():
    small = {name: slice_of(0.2, -0.2, 0.0, users=3) for name in QUIET}
    assert check(verdict_on(with_slices(**small)), "slices").text.startswith("no slice has 30 users")


def test_nothing_to_lose_where_the_champion_has_nothing():
    verdict = verdict_on(with_slices(**QUIET | {"cold_items": slice_of(0.0, 0.01, 0.001)}))
    assert failed(verdict) == []


# What is listed, the budget, the features


def test_coverage_may_shrink_by_its_guard_and_no_more():
    at_limit = spoilt(evaluation(), "comparison", "challenger", "coverage@10", to=0.301)
    assert failed(verdict_on(at_limit)) == []
    below = spoilt(evaluation(), "comparison", "challenger", "coverage@10", to=0.29)
    assert failed(verdict_on(below)) == ["coverage"]
    assert check(verdict_on(below), "coverage").text == (
        "lists 29.0% of what is on offer, the champion 40.0%: less than 30.0%"
    )


def test_popularity_may_rise_by_its_guard_and_no_more():
    key = ("comparison", "challenger", "popularity_percentile@10")
    assert failed(verdict_on(spoilt(evaluation(), *key, to=0.94))) == []
    assert failed(verdict_on(spoilt(evaluation(), *key, to=0.96))) == ["popularity"]


@pytest.mark.parametrize(
    ("before", "after", "stopped"),
    [
        ((0.2284, 0.916), (0.0471, 0.992), ["coverage", "popularity"]),  # ranked by popularity instead
        ((0.1022, 0.907), (0.0375, 0.962), []),  # newer by two thirds of a timeline, and twice as good
    ],
)
def test_the_delivered_guards_stop_a_collapse_to_popular_items_alone(before, after, stopped):
    delivered = Params.load(Path("params.yaml")).decide_promotion
    guards = delivered.model_dump(include={"coverage_guard", "popularity_guard"})
    found = evaluation()
    for name, figures in (("champion", before), ("challenger", after)):
        listed = dict(zip(("coverage@10", "popularity_percentile@10"), figures, strict=True))
        found = spoilt(found, "comparison", name, to=listed)
    assert failed(verdict_on(found, **guards)) == stopped


def test_latency_and_size_have_limits_or_none():
    slow = spoilt(evaluation(), "ms_per_list", "challenger", to=100.1)
    assert failed(verdict_on(slow, challenger(mib=64.1))) == ["latency", "size"]
    assert failed(verdict_on(slow, challenger(mib=None), max_ms_per_list=None, max_model_mib=None)) == []


def test_features_must_be_the_same_or_declared():
    told = challenger(features=["ease", "text"])
    verdict = verdict_on(new=told)
    assert failed(verdict) == ["features"]
    assert check(verdict, "features").text.startswith("features new: text; gone: ials: if that is meant")
    assert failed(verdict_on(new=told, accept_new_features=True)) == []
    assert failed(verdict_on(new=challenger(features=["ials", "ease"]))) == []  # the order is the model's own


# The champion's own standing


@pytest.mark.parametrize("over", [pair(0.01, 0.0, 0.02), pair(-0.03, -0.05, -0.01)])
def test_a_stale_champion_is_said_so_loudly_but_does_not_block(over):
    stale = spoilt(evaluation(), "comparison", "champion_over", "recent_popularity", to=over)
    verdict = verdict_on(stale)
    assert failed(verdict) == []
    assert "THE CHAMPION IN SERVICE NO LONGER SURELY BEATS RECENT POPULARITY" in verdict.warnings[0]
    assert "WARNING: THE CHAMPION" in sentence(verdict)


def test_a_sound_champion_gives_no_warning():
    assert verdict_on().warnings == []


def test_unknown_standing_of_the_champion_is_said():
    unknown = spoilt(evaluation(), "comparison", "champion_over", to={})
    assert verdict_on(unknown).warnings == [
        "whether the champion in service still beats recent popularity is not known"
    ]


# Malformed input


NO_NUMBERS = [None, math.nan, math.inf, -math.inf, 10**400]
BY_CHECK = {
    ("comparison", "users"): ["users"],
    ("comparison", "points"): ["points"],
    ("comparison", "challenger", "coverage@10"): ["coverage"],
    ("comparison", "champion", "coverage@10"): ["coverage"],
    ("comparison", "challenger", "popularity_percentile@10"): ["popularity"],
    ("comparison", "champion", "popularity_percentile@10"): ["popularity"],
    ("comparison", "slices", "all", "champion"): ["beats_champion", "min_gain"],
    ("comparison", "slices", "cold_items", "users"): ["slices"],
    ("comparison", "slices", "cold_items", "error"): ["slices"],
    ("comparison", "slices", "cold_users", "champion"): ["slices"],
    ("comparison", "slices", "cold_users", "ndcg@10"): ["slices"],
    ("comparison", "slices", "all", "ndcg@10"): ["beats_champion", "min_gain"],
    ("comparison", "slices", "all", "low"): ["beats_champion", "min_gain"],
    ("comparison", "slices", "all", "high"): ["beats_champion", "min_gain"],
    ("paired", "champion", "ndcg@10"): ["headline"],
    ("paired", "champion", "low"): ["headline"],
    ("paired", "champion", "high"): ["headline"],
    ("ms_per_list", "challenger"): ["latency"],
}


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("keys", BY_CHECK, ids=".".join)
def test_what_is_not_known_fails_its_check(keys, value):
    assert failed(verdict_on(spoilt(evaluation(), *keys, to=value))) == BY_CHECK[keys]


@pytest.mark.parametrize("value", ["0.1", True, [], {}])
@pytest.mark.parametrize("keys", BY_CHECK, ids=".".join)
def test_what_is_no_number_never_promotes(keys, value):
    assert verdict_on(spoilt(evaluation(), *keys, to=value)).failed


@pytest.mark.parametrize("value", [None, [], "x", 3, math.nan])
@pytest.mark.parametrize(
    "keys",
    [
        ("comparison",),
        ("comparison", "slices"),
        ("comparison", "slices", "cold_items"),
        ("comparison", "challenger"),
        ("paired",),
        ("paired", "champion"),
        ("points_after",),
    ],
    ids=".".join,
)
def test_what_is_no_table_never_promotes(keys, value):
    assert verdict_on(spoilt(evaluation(), *keys, to=value)).promote is False


@pytest.mark.parametrize("name", ["cold_items", "cold_users"])
def test_a_slice_that_was_not_compared_never_promotes(name):
    slices = without(evaluation()["comparison"]["slices"], name)
    verdict = verdict_on(spoilt(evaluation(), "comparison", "slices", to=slices))
    assert failed(verdict) == ["slices"]


@pytest.mark.parametrize("features", [None, []])
def test_unknown_features_never_promote(features):
    assert failed(verdict_on(new=challenger(features=features))) == ["features"]
    assert failed(verdict_on(old=champion(features=features), accept_new_features=True)) == ["features"]


@pytest.mark.parametrize("features", ["ease", [1, 2], {"ease": 1}])
def test_features_that_cannot_be_read_never_promote(features):
    assert verdict_on(new=challenger(features=features)).failed
    assert verdict_on(old=champion(features=features), accept_new_features=True).failed


@pytest.mark.parametrize("mib", [None, math.nan, -1.0])
def test_unknown_size_never_promotes(mib):
    assert failed(verdict_on(new=challenger(mib=mib))) == ["size"]


def test_points_after_that_is_not_known_is_not_comparable():
    verdict = verdict_on(evaluation() | {"points_after": None})
    assert failed(verdict) == ["comparable"]
    assert "it is not said after which moment" in check(verdict, "comparable").text
