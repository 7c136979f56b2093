import json
import math
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.params import DecidePromotion
from pipeline.stages.decide_promotion import decide_promotion, main, sentence

AUTO = DecidePromotion(approval="auto")
NAMES = [
    "evaluation",
    "is_champion",
    "fit_end",
    "beats_champion",
    "beats_popularity",
    "beats_recent_popularity",
]


def pair(gain: float, low: float, high: float) -> dict:
    return {"ndcg@10": gain, "low": low, "high": high}


def evaluation(**paired: dict) -> dict:
    better = {"popularity": pair(0.05, 0.03, 0.07), "recent_popularity": pair(0.03, 0.01, 0.05)}
    return {"fit_end": "1998-03-01T00:00:00+00:00", "paired": better | paired}


def challenger(**changes: object) -> dict:
    return {"version": None, "fit_end": "1998-03-01T00:00:00Z", "artifact_hash": "c" * 64} | changes


def champion(**changes: object) -> dict:
    return {"version": "v1.0.0", "fit_end": "1998-02-01T00:00:00Z", "artifact_hash": "a" * 64} | changes


def failed(verdict: dict) -> list[str]:
    return [check["name"] for check in verdict["checks"] if not check["passed"]]


def test_first_champion_beats_both_popularities():
    verdict = decide_promotion(evaluation(), challenger(), None, AUTO)
    assert verdict["promote"] is True
    assert [check["name"] for check in verdict["checks"]] == NAMES
    assert verdict["champion"] is None
    assert verdict["challenger"] == {
        "version": None,
        "fit_end": "1998-03-01T00:00:00+00:00",
        "artifact_hash": "c" * 64,
    }
    assert sentence(verdict).startswith("promote: all 6 checks passed: ")


@pytest.mark.parametrize("name", ["popularity", "recent_popularity"])
def test_lower_bound_at_zero_is_not_enough(name):
    verdict = decide_promotion(evaluation(**{name: pair(0.01, 0.0, 0.02)}), challenger(), None, AUTO)
    assert verdict["promote"] is False
    assert failed(verdict) == [f"beats_{name}"]
    assert sentence(verdict) == (
        f"do not promote: nDCG@10 +0.0100 [+0.0000, +0.0200] against {name.replace('_', ' ')},"
        " not surely above 0"
    )


def test_better_than_the_champion():
    verdict = decide_promotion(evaluation(champion=pair(0.01, 0.002, 0.02)), challenger(), champion(), AUTO)
    assert verdict["promote"] is True
    assert verdict["champion"]["version"] == "v1.0.0"
    beats = verdict["checks"][3]
    assert (beats["value"], beats["limit"]) == (0.002, 0.0)


@pytest.mark.parametrize(
    ("evaluated", "new", "old", "names"),
    [
        (evaluation(champion=pair(0.01, -0.001, 0.02)), challenger(), champion(), ["beats_champion"]),
        (evaluation(), challenger(), champion(), ["beats_champion"]),
        (
            evaluation(champion=pair(0.1, 0.1, 0.1)),
            challenger(),
            champion(artifact_hash="c" * 64),
            ["is_champion"],
        ),
        (
            evaluation(champion=pair(0.1, 0.1, 0.1)),
            challenger(),
            champion(fit_end="1998-03-01T00:00:00.000001Z"),
            ["fit_end"],
        ),
        (evaluation(champion=pair(0.1, 0.1, 0.1)), challenger(), {}, ["is_champion", "fit_end"]),
        (evaluation(), challenger(fit_end="1998-03-02"), None, ["evaluation"]),
        (evaluation(), None, None, ["evaluation"]),
    ],
    ids=[
        "not surely better",
        "not compared",
        "same model",
        "older data",
        "unreadable",
        "other model",
        "none",
    ],
)
def test_reasons_not_to_promote(evaluated, new, old, names):
    verdict = decide_promotion(evaluated, new, old, AUTO)
    assert verdict["promote"] is False
    assert failed(verdict) == names


MALFORMED = [
    None,
    [],
    "text",
    3,
    {},
    {"paired": None},
    {"paired": []},
    evaluation(popularity={}),
    evaluation(popularity=pair(math.nan, math.nan, math.nan)),
    evaluation(popularity=pair(0.1, math.nan, 0.2)),
    evaluation(popularity=pair(0.1, math.inf, math.inf)),
    evaluation(popularity=pair(True, True, True)),
    evaluation(popularity=pair("0.1", "0.1", "0.1")),
    evaluation(popularity=pair(10**400, 10**400, 10**400)),
    evaluation(popularity=pair(0.1, 0.2, 0.3)),
    evaluation() | {"fit_end": math.nan},
    evaluation() | {"fit_end": 17},
]


@pytest.mark.parametrize("evaluated", MALFORMED)
def test_malformed_evaluation_never_promotes(evaluated):
    verdict = decide_promotion(evaluated, challenger(), None, AUTO)
    assert verdict["promote"] is False
    assert [check["name"] for check in verdict["checks"]] == NAMES
    json.dumps(verdict, allow_nan=False)


@pytest.mark.parametrize(
    "card", [[], "x", {"artifact_hash": math.nan}, {"fit_end": math.nan}, {"version": math.nan}]
)
def test_malformed_models_never_promote(card):
    for new, old in [(card, None), (challenger(), card), (card, card)]:
        verdict = decide_promotion(evaluation(champion=pair(0.1, 0.1, 0.1)), new, old, AUTO)
        assert verdict["promote"] is False
        json.dumps(verdict, allow_nan=False)


def params(folder: Path) -> Path:
    path = folder / "params.yaml"
    path.write_text(Path("params.yaml").read_text(encoding="utf-8"))
    return path


def write_model(folder: Path, fit_end: str = "1998-03-01", version: str | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"fit_end": fit_end}))
    if version:
        (folder / "version.json").write_text(json.dumps({"version": version}))


def decide(folder: Path) -> dict:
    main(
        folder / "evaluation.json",
        folder / "challenger",
        folder / "champion",
        folder / "promotion.json",
        params(folder),
    )
    return json.loads((folder / "promotion.json").read_text())


def test_stage_writes_the_verdict(tmp_path, caplog):
    write_model(tmp_path / "challenger")
    (tmp_path / "champion").mkdir()
    (tmp_path / "champion" / "README.md").write_text("none yet")
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation()))
    with caplog.at_level("INFO"):
        verdict = decide(tmp_path)
    assert verdict["promote"] is True
    assert len(verdict["challenger"]["artifact_hash"]) == 64
    assert "promote: all 6 checks passed" in caplog.text


def test_stage_reads_the_champions_version_and_refuses_its_twin(tmp_path):
    write_model(tmp_path / "challenger")
    write_model(tmp_path / "champion", version="v4.0.0")
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation(champion=pair(0.1, 0.1, 0.1))))
    verdict = decide(tmp_path)
    assert failed(verdict) == ["is_champion"]
    assert verdict["champion"]["version"] == "v4.0.0"


def test_stage_fails_closed_on_damaged_files(tmp_path):
    write_model(tmp_path / "challenger")
    write_model(tmp_path / "champion")
    (tmp_path / "champion" / "model.json").write_text("{")
    (tmp_path / "evaluation.json").write_text("[" * 100_000)
    verdict = decide(tmp_path)
    assert verdict["promote"] is False
    assert len(failed(verdict)) == 6


def test_stage_without_evaluation_or_challenger(tmp_path):
    assert decide(tmp_path)["promote"] is False


def test_params_errors_are_named(tmp_path):
    path = params(tmp_path)
    path.write_text(path.read_text().replace("approval: auto", "approval: maybe"))
    with pytest.raises(ConfigError, match=r"decide_promotion.approval"):
        main(tmp_path / "e", tmp_path / "c", tmp_path / "d", tmp_path / "p", path)
