"""The verdict: what has to hold before a model may replace another. The rules one by one: test_gate.py."""

import json
import math
from pathlib import Path

import pytest
from gate_by_hand import NAMES, challenger, champion, evaluation, failed, pair, without
from gate_by_hand import decide as verdict_of

from pipeline.documents.promotion import Identity, Promotion
from pipeline.documents.simulation import LongTerm
from pipeline.errors import ConfigError
from pipeline.models.artifacts import folder_hash
from pipeline.models.private import Budget
from pipeline.stages.decide_promotion import main, sentence
from pipeline.training.private import described

NEVER_BLOCK = {"champion_beats_recent_popularity", "leads_baselines"}
FIRST = [name for name in NAMES if name != "champion_beats_recent_popularity"]


def first(**paired: dict) -> dict:
    """An evaluation while there is no champion."""
    found = without(evaluation(**paired), "comparison")
    return found | {"paired": without(found["paired"], "champion")}


def test_first_champion_beats_both_popularities():
    verdict = verdict_of(first(), challenger(), None)
    assert verdict.promote is True
    assert [check.name for check in verdict.checks] == FIRST
    assert verdict.champion is None
    assert verdict.warnings == []
    assert verdict.to_dict()["challenger"] == {
        "version": None,
        "fit_end": "1998-03-01T00:00:00+00:00",
        "artifact_hash": "c" * 64,
    }
    assert sentence(verdict).startswith(f"promote: all {len(FIRST)} checks passed: ")


@pytest.mark.parametrize("name", ["popularity", "recent_popularity"])
def test_lower_bound_at_zero_is_not_enough(name):
    verdict = verdict_of(first(**{name: pair(0.01, 0.0, 0.02)}), challenger(), None)
    assert verdict.promote is False
    assert failed(verdict) == [f"beats_{name}"]
    assert sentence(verdict) == (
        f"do not promote: nDCG@10 +0.0100 [+0.0000, +0.0200] against {name.replace('_', ' ')},"
        " not surely above 0"
    )


def test_a_baseline_that_leads_is_said_first_and_blocks_nothing():
    found = first(ials=pair(-0.009, -0.03, 0.01)) | {"best_baseline": "ials"}
    verdict = verdict_of(found, challenger(), None)
    assert verdict.promote is True
    assert sentence(verdict).startswith("WARNING: the baseline ials leads the challenger: nDCG@10 -0.0090")
    ahead = first(ials=pair(0.009, -0.01, 0.03)) | {"best_baseline": "ials"}
    assert verdict_of(ahead, challenger(), None).warnings == []


def test_a_weaker_budget_of_privacy_is_said_first_and_blocks_nothing():
    strict, loose = (described(Budget(epsilon, 1e-5)).to_dict() for epsilon in (1.0, 4.0))
    stated = verdict_of(evaluation(), challenger(privacy=strict), champion(privacy=loose))
    (check,) = [check for check in stated.checks if check.name == "privacy"]
    assert (check.passed, check.value, check.limit) == (True, 1.0, 4.0)
    assert stated.warnings == []
    for own in (loose, None):
        verdict = verdict_of(evaluation(), challenger(privacy=own), champion(privacy=strict))
        assert verdict.promote is True
        assert sentence(verdict).startswith("WARNING: ")
        assert "(1, 1e-05)-differentially private" in sentence(verdict)
    assert "privacy" not in [
        check.name for check in verdict_of(evaluation(), challenger(), champion()).checks
    ]


def test_better_than_the_champion():
    verdict = verdict_of(evaluation(), challenger(), champion())
    assert verdict.promote is True
    assert [check.name for check in verdict.checks] == NAMES
    assert verdict.champion == Identity.of(without(without(champion(), "features"), "mib"))
    for check in verdict.to_dict()["checks"]:
        assert set(check) == {"name", "passed", "value", "limit", "text"}
        assert check["text"]


@pytest.mark.parametrize(
    ("evaluated", "new", "old", "names"),
    [
        (
            evaluation() | {"artifact_hash": {"challenger": "c" * 64, "champion": "c" * 64}},
            challenger(),
            champion(artifact_hash="c" * 64),
            ["is_champion"],
        ),
        (
            evaluation(),
            challenger(),
            champion(fit_end="1998-03-01T00:00:00.000001Z"),
            ["fit_end", "comparable"],
        ),
        (evaluation(), challenger(), {}, ["is_champion", "fit_end", "comparable", "features"]),
        (first(), challenger(fit_end="1998-03-02"), None, ["evaluation"]),
        (first(), None, None, ["evaluation", "size"]),
    ],
    ids=["same model", "older data", "unreadable", "other model", "none"],
)
def test_reasons_not_to_promote(evaluated, new, old, names):
    verdict = verdict_of(evaluated, new, old)
    assert verdict.promote is False
    assert failed(verdict) == names


MALFORMED = [
    None,
    [],
    "text",
    3,
    {},
    {"paired": None},
    {"paired": []},
    first(popularity={}),
    first(popularity=pair(math.nan, math.nan, math.nan)),
    first(popularity=pair(0.1, math.nan, 0.2)),
    first(popularity=pair(0.1, math.inf, math.inf)),
    first(popularity=pair(True, True, True)),
    first(popularity=pair("0.1", "0.1", "0.1")),
    first(popularity=pair(10**400, 10**400, 10**400)),
    first(popularity=pair(0.1, 0.2, 0.3)),
    first() | {"fit_end": math.nan},
    first() | {"fit_end": 17},
    first() | {"ms_per_list": {"challenger": None}},
    first() | {"ms_per_list": 3},
]


@pytest.mark.parametrize("evaluated", MALFORMED)
def test_malformed_evaluation_never_promotes(evaluated):
    verdict = verdict_of(evaluated, challenger(), None)
    assert verdict.promote is False
    assert [check.name for check in verdict.checks] == FIRST


@pytest.mark.parametrize(
    "card", [[], "x", {"artifact_hash": math.nan}, {"fit_end": math.nan}, {"version": math.nan}]
)
def test_malformed_models_never_promote(card):
    for new, old in [(card, None), (challenger(), card), (card, card)]:
        verdict = verdict_of(evaluation(), new, old)
        assert verdict.promote is False


def params(folder: Path) -> Path:
    path = folder / "params.yaml"
    if not path.exists():
        path.write_text(Path("params.yaml").read_text(encoding="utf-8"))
    return path


def write_model(folder: Path, fit_end: str = "1998-03-01", version: str | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"fit_end": fit_end, "features": ["ease"]}))
    (folder / "weights").write_bytes(b"0" * 2**20)
    if version:
        (folder / "version.json").write_text(json.dumps({"version": version}))


def write_evaluation(folder: Path, figures: dict) -> None:
    """`figures` of the models that lie in the folder."""
    held = [name for name in ("challenger", "champion") if (folder / name / "model.json").exists()]
    hashes = {name: folder_hash(folder / name) for name in held}
    (folder / "evaluation.json").write_text(json.dumps(figures | {"artifact_hash": hashes}))


def decide(folder: Path) -> Promotion:
    main(
        folder / "evaluation.json",
        folder / "simulation.json",
        folder / "challenger",
        folder / "champion",
        folder / "promotion.json",
        params(folder),
    )
    return Promotion.read(folder / "promotion.json")


def test_stage_writes_the_verdict(tmp_path, caplog):
    write_model(tmp_path / "challenger")
    (tmp_path / "champion").mkdir()
    (tmp_path / "champion" / "README.md").write_text("none yet")
    write_evaluation(tmp_path, first())
    with caplog.at_level("INFO"):
        verdict = decide(tmp_path)
    assert verdict.promote is True
    assert len(verdict.challenger.artifact_hash or "") == 64
    assert f"promote: all {len(FIRST)} checks passed" in caplog.text
    size = next(check for check in verdict.checks if check.name == "size")
    assert size.value == pytest.approx(1, abs=0.01)  # MiB


def test_stage_compares_with_the_champion(tmp_path):
    write_model(tmp_path / "challenger")
    write_model(tmp_path / "champion", fit_end="1998-02-01", version="v4.0.0")
    write_evaluation(tmp_path, evaluation())
    verdict = decide(tmp_path)
    assert failed(verdict) == []
    assert verdict.champion.version == "v4.0.0"


def test_stage_refuses_the_champions_twin(tmp_path):
    write_model(tmp_path / "challenger")
    write_model(tmp_path / "champion", version="v4.0.0")
    write_evaluation(tmp_path, evaluation())
    assert failed(decide(tmp_path)) == ["is_champion"]


def test_stage_fails_closed_on_damaged_files(tmp_path):
    write_model(tmp_path / "challenger")
    write_model(tmp_path / "champion")
    (tmp_path / "champion" / "model.json").write_text("{")
    (tmp_path / "evaluation.json").write_text("[" * 100_000)
    verdict = decide(tmp_path)
    assert verdict.promote is False
    # Only the size of the challenger needs neither, and a simulation was not asked for.
    assert set(NAMES) - set(failed(verdict)) == {"size", "long_term", *NEVER_BLOCK}


def test_stage_reads_the_simulation_of_these_two_models(tmp_path):
    write_model(tmp_path / "challenger")
    write_model(tmp_path / "champion", fit_end="1998-02-01", version="v4.0.0")
    write_evaluation(tmp_path, evaluation())
    path = params(tmp_path)
    path.write_text(path.read_text().replace("long_term_guard: null", "long_term_guard: 0.1"))
    assert failed(decide(tmp_path)) == ["long_term"]
    hashes = {name: folder_hash(tmp_path / name) for name in ("challenger", "champion")}
    for lost, refused in ((0.05, []), (0.3, ["long_term"])):
        row = {"name": "distance", "lost": lost, "low": 0.01, "high": 0.4, "share": lost, "p": 0.01}
        LongTerm.of({**hashes, "rounds": 10, "measures": [row]}).write(tmp_path / "simulation.json")
        assert failed(decide(tmp_path)) == refused
    (tmp_path / "simulation.json").write_text("{")
    assert failed(decide(tmp_path)) == ["long_term"]


def test_stage_without_evaluation_or_challenger(tmp_path):
    assert decide(tmp_path).promote is False


def test_params_errors_are_named(tmp_path):
    path = params(tmp_path)
    path.write_text(path.read_text().replace("approval: auto", "approval: maybe"))
    with pytest.raises(ConfigError, match=r"decide_promotion.approval"):
        main(tmp_path / "e", tmp_path / "s", tmp_path / "c", tmp_path / "d", tmp_path / "p", path)
