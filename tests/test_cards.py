"""Model card and data sheet: Hugging Face reads them, figures stand there, what is missing stops nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from gate_by_hand import challenger, champion, decide
from gate_by_hand import evaluation as judged

from pipeline.documents.data import Manifest
from pipeline.documents.evaluation import Evaluation
from pipeline.documents.model import Card
from pipeline.models.artifacts import DATA_SHEET, MODEL_CARD
from pipeline.models.private import Budget
from pipeline.registry.cards import Known, cards, cell
from pipeline.training.private import described

END = datetime(1998, 3, 31, 22, tzinfo=UTC)
SCORES = {"users": 40, "points": 90, "ndcg@10": 0.1619, "ndcg@10_low": 0.138, "ndcg@10_high": 0.186}


def evaluation(**changes: Any) -> Evaluation:
    group = {
        "group": "gender=F",
        "users": 30,
        "ndcg@10": 0.15,
        "gap": -0.02,
        "low": -0.05,
        "high": 0.01,
        "p": 1.0,
    }
    shown = {"group": "lower half", "items": 0.5, "relevance": 0.1, "exposure": {"challenger": 0.025}}
    found = {
        "models": {
            "challenger": {"all": SCORES | {"recall@10": 0.3}, "warm": SCORES, "group:gender=F": SCORES},
            "ease": {"all": SCORES},
        },
        "best_baseline": "ease",
        "paired": {"ease": {"ndcg@10": 0.04, "low": 0.02, "high": 0.06}},
        "fairness": {
            "users": [group],
            "exposure": {"popularity": {"awrf": {"challenger": {"value": 0.9}}, "groups": [shown]}},
            "guessed": [{"group": "gender=F", "auc": 0.58, "low": 0.46, "high": 0.69}],
        },
    }
    return Evaluation.of(found | changes)


def known(**changes: Any) -> Known:
    settings = {"positive": {"events": ["buy"], "min_value": 4.0}, "never_features": ["gender"]}
    card = Card.of({"fit_end": END, "seed": 17, "finetune": {"epochs": 2}, "preprocess": settings})
    manifest = Manifest.of(
        {"source": "files", "as_of": END, "rows": {"read": 2000, "kept": 1900}, "users": 40}
    )
    verdict = decide(judged(), challenger(), champion())
    return Known(
        **({"version": "v2.0.0", "card": card, "manifest": manifest} | {"verdict": verdict} | changes)
    )


def test_hugging_face_reads_both() -> None:
    from huggingface_hub import DatasetCard, ModelCard

    told = cards(known(evaluation=evaluation()))
    model, data = ModelCard(told[MODEL_CARD]).data.to_dict(), DatasetCard(told[DATA_SHEET]).data.to_dict()
    assert model["library_name"] == "evergreen"
    (index,) = model["model-index"]
    assert index["name"] == "Evergreen recommender v2.0.0"
    assert {metric["name"]: metric["value"] for metric in index["results"][0]["metrics"]} == {
        "ndcg@10": 0.1619,
        "recall@10": 0.3,
    }
    assert data["size_categories"] == ["1K<n<10K"]
    assert told[MODEL_CARD].startswith("---\n")


def test_the_card_holds_figures_fairness_params_and_limits() -> None:
    told = cards(known(evaluation=evaluation()))
    for text in (
        "| this model | 0.162 [0.138, 0.186] |",
        "| ease | +0.0400 [+0.0200, +0.0600] |",
        "| gender=F | 30 | 0.162 [0.138, 0.186] | −0.020 [−0.050, +0.010] | 0.58 [0.46, 0.69] |",
        "lower half: 10.0 % of what is taken, 2.5 % of the attention",
        "Withheld from it (preprocess.never_features): gender.",
        "| epochs | 2 |",
        "fitted to data until 1998-03-31 22:00 UTC",
        "## Intended use",
        "## Limits",
    ):
        assert text in told[MODEL_CARD], text
    assert "A success: the events buy, with a value of at least 4." in told[DATA_SHEET]
    assert "1,900 kept of 2,000 read" in told[DATA_SHEET]


def test_the_budget_of_privacy_is_told_with_what_it_leaves_out() -> None:
    assert "No budget bounds what the weights tell of one user." in cards(known())[MODEL_CARD]
    private = known()
    private = replace(private, card=private.card.but(privacy=described(Budget(2.0, 1e-6))))
    told = cards(private)[MODEL_CARD]
    for text in (
        "(2, 1e-06)-differentially private, of a user",
        "| epsilon, delta | 2.0, 1e-06 |",
        "sequence tower",
    ):
        assert text in told, text
    assert "a sample of interactions" not in told


def test_what_is_missing_is_said_and_stops_nothing() -> None:
    told = cards(Known("v1.0.0", Card()))
    assert "No evaluation of this model was found." in told[MODEL_CARD]
    assert "No group of users had 20 test users" in told[MODEL_CARD]
    assert "unknown source" in told[DATA_SHEET]
    assert " nan" not in "".join(told.values())
    assert "None" not in "".join(told.values())


@pytest.mark.parametrize("text", ["a|b", "<script>", "# x", "[x](y)", "`x`", "x\ny"])
def test_names_of_the_data_are_no_markup(text: str) -> None:
    shown = cell(text)
    assert "\n" not in shown
    assert not {character for character in "|<#[`" if f"\\{character}" not in shown and character in shown}
