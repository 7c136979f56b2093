"""The sentences of an evaluation follow from the paired intervals."""

from typing import Any

import pytest

from pipeline.evaluation.findings import (
    best_baseline,
    cost,
    difference,
    living,
    payoff,
    ranked,
    retrievers,
    training_seconds,
    verdict,
)

ABOVE, AROUND, BELOW = (0.010, 0.004, 0.016), (0.002, -0.003, 0.007), (-0.010, -0.016, -0.004)


def pair(figures: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("ndcg@10", "low", "high"), figures, strict=True))


def evaluation(**figures: tuple[float, float, float]) -> dict[str, Any]:
    """challenger at 0.08; every other model where its difference puts it."""
    models = {"challenger": 0.08} | {name: 0.08 - gap[0] for name, gap in figures.items()}
    return {
        "models": {name: {"all": {"ndcg@10": value}} for name, value in models.items()},
        "paired": {name: pair(gap) for name, gap in figures.items()},
    }


@pytest.mark.parametrize(
    ("frozen", "none", "answer"),
    [
        (ABOVE, ABOVE, "yes"),
        (ABOVE, AROUND, "unsure"),
        (AROUND, ABOVE, "unsure"),
        (BELOW, ABOVE, "no"),
        (AROUND, BELOW, "no"),
    ],
)
def test_finetuning_pays_only_over_frozen_text_and_over_no_text(frozen: Any, none: Any, answer: str) -> None:
    assert payoff(evaluation(frozen_text=frozen, without_text=none))["answer"] == answer


def test_payoff_says_both_differences() -> None:
    found = payoff(evaluation(frozen_text=ABOVE, without_text=AROUND))
    assert found["text"] == (
        "Whether fine-tuning paid cannot be told from chance on this data: "
        "fine-tuned − frozen text is +0.010 nDCG@10 (95% interval +0.004 to +0.016); "
        "fine-tuned − no text is +0.002 nDCG@10 (95% interval −0.003 to +0.007)."
    )
    assert found["cold"] == ""


def test_payoff_adds_the_cold_items() -> None:
    found = evaluation(frozen_text=ABOVE)
    found["paired_slices"] = {"frozen_text": {"cold_items": pair(BELOW)}}
    assert payoff(found)["cold"].startswith("On cold items, fine-tuned − frozen text is −0.010 nDCG@10")


def test_seconds_of_training_are_dealt_to_the_models_that_need_them() -> None:
    phases = {"text": 40, "sequence (challenger)": 7, "scorer (challenger)": 3, "scorer (without_text)": 2.5}
    training = {"seconds": 90.0, "peak_gib": 1.53, "seconds_by_phase": phases}
    assert training_seconds(training) == {
        "fine_tuned_encoder": 40,
        "without_text": 2.5,
        "challenger": 50,
    }
    assert cost(training) == (
        "Training, with what all of these share, took 90 s and 1.5 GiB of memory at most; "
        "fine-tuning the text took 40 s of it."
    )
    used = {"cpu_seconds": 150.4, "energy_wh_estimate": 0.4321, "energy_estimated_by": "codecarbon"}
    assert cost(training | used).endswith(
        "took 40 s of it. That is 150 CPU seconds and an estimated 0.43 Wh (by codecarbon)."
    )
    assert cost({"seconds": 90.0}) == "Training, with what all of these share, took 90 s."
    assert (cost({}), training_seconds({})) == ("", {})


def test_payoff_says_why_nothing_was_fine_tuned() -> None:
    found = evaluation(frozen_text=ABOVE) | {"training": {"not_fine_tuned": "no item has a text"}}
    assert payoff(found)["answer"] == "missing"
    assert payoff(found)["text"] == "Nothing was fine-tuned: no item has a text."


def test_payoff_without_ablations_is_missing() -> None:
    assert payoff(evaluation(ease=ABOVE))["answer"] == "missing"


@pytest.mark.parametrize(
    ("gap", "answer", "text"),
    [
        (ABOVE, "yes", "The challenger beats the best baseline, ease: +0.010 nDCG@10"),
        (
            AROUND,
            "unsure",
            "The challenger leads, but not surely: challenger − ease is +0.002 nDCG@10",
        ),
        (BELOW, "no", "A baseline wins, ease: challenger − ease is −0.010 nDCG@10"),
    ],
)
def test_verdict_follows_the_paired_interval(gap: Any, answer: str, text: str) -> None:
    found = verdict(evaluation(ease=gap), "ease")
    assert (found["answer"], found["text"][: len(text)]) == (answer, text)


def test_verdict_gives_the_relative_gain() -> None:
    assert verdict(evaluation(ease=ABOVE), "ease")["text"].endswith("+14%.")  # .08 / .07


def test_verdict_says_first_that_a_baseline_leads() -> None:
    found = evaluation(ease=(-0.002, -0.007, 0.003))
    assert verdict(found, "ease")["text"].startswith("The baseline ease leads")


def test_a_slice_of_few_users_has_no_interval() -> None:
    found = evaluation(frozen_text=ABOVE)
    pair = {"ndcg@10": 0.0, "low": 0.0, "high": 0.0}
    found["paired_slices"] = {"frozen_text": {"cold_items": pair}}
    for users, answer in ((2, "missing"), (40, "unsure")):
        found["models"]["challenger"]["cold_items"] = {"users": users, "ndcg@10": 0.0}
        assert difference(found, "frozen_text", "cold_items").answer == answer


def test_a_refresh_is_not_asked_whether_fine_tuning_paid() -> None:
    found = payoff(evaluation(ease=ABOVE) | {"training": {"refresh_of": "v1.0.0"}})
    assert found["answer"] == "missing"
    assert "v1.0.0" in found["text"]


def test_verdict_compares_with_the_champion() -> None:
    found = verdict(evaluation(ease=ABOVE, champion=BELOW), "ease")
    assert found["champion"].startswith("It is worse than the champion in service: −0.010")


def test_verdict_says_that_the_champion_was_left_out_or_points_of_it() -> None:
    found = evaluation(ease=ABOVE) | {"not_comparable": "its format is 1, this code reads 2"}
    left_out = "The champion in service was left out: its format is 1, this code reads 2."
    assert verdict(found, "ease")["champion"] == left_out
    partly = evaluation(ease=ABOVE, champion=BELOW) | {"comparison": {"points_left_out": 1200}}
    assert verdict(partly, "ease")["champion"].endswith(
        " 1,200 points that one of the two knew already do not count."
    )


def test_verdict_without_pair_gives_means_only() -> None:
    found = evaluation(ease=ABOVE) | {"paired": {}}
    assert verdict(found, "ease")["text"] == "Only means are known: challenger 0.080, ease 0.070."


def test_verdict_without_baseline_or_challenger_is_missing() -> None:
    assert verdict(evaluation(), None)["answer"] == "missing"
    assert verdict({"models": {"ease": {}}}, "ease")["answer"] == "missing"


def test_best_baseline_is_the_named_one_or_the_highest() -> None:
    found = evaluation(ease=ABOVE, item_knn=AROUND, frozen_text=BELOW, champion=BELOW)
    assert best_baseline(found) == "item_knn"
    assert best_baseline(found | {"best_baseline": "ease"}) == "ease"
    assert best_baseline(found | {"best_baseline": "gone"}) == "item_knn"
    assert best_baseline(evaluation(champion=ABOVE)) is None


def test_models_without_a_figure_stand_last() -> None:
    found = evaluation(ease=ABOVE)["models"] | {"ials": {"all": {"ndcg@10": None}}, "content": {}}
    assert list(ranked(found)) == ["challenger", "ease", "ials", "content"]


def test_difference_of_a_slice_is_its_own() -> None:
    found = evaluation(ease=ABOVE) | {"paired_slices": {"ease": {"warm": pair(BELOW), "all": pair(AROUND)}}}
    assert difference(found, "ease", "warm").answer == "no"
    assert difference(found, "ease").answer == "yes"
    assert difference(found, "ease", "cold_users").answer == "missing"


@pytest.mark.parametrize(("low", "answer"), [(0.01, "yes"), (-0.01, "unsure"), (-0.05, "no")])
def test_what_living_pays_is_told_by_the_paired_interval(low: float, answer: str) -> None:
    pair = {"ndcg@10": low + 0.01, "low": low, "high": low + 0.02}
    found = living({"models": {"challenger": {}}, "paired": {"frozen_state": pair}})
    assert found["answer"] == answer
    assert living({"models": {"challenger": {}}})["answer"] == "missing"


def test_retrievers_stand_by_what_they_bring_and_all_together_last() -> None:
    candidates = {"mean": 210.0, "recall": {"text": 0.2, "ease": 0.4}, "all": 0.5}
    found = retrievers({"models": {}, "candidates": candidates})
    assert found == [("ease", 0.4), ("text", 0.2), ("all together", 0.5)]
    assert retrievers({"models": {}}) == []
