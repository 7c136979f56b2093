import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "dags"))

import dvc_graph  # noqa: E402

UPSTREAM = {
    "collect": (),
    "detect_drift": ("collect",),
    "decide_retraining": ("collect", "detect_drift"),
    "preprocess": ("collect",),
    "finetune": ("preprocess",),
    "evaluate": ("collect", "preprocess", "finetune"),
    "decide_promotion": ("finetune", "evaluate"),
    "recommend": ("preprocess",),
}


def written(folder: Path, text: str) -> Path:
    (folder / "dvc.yaml").write_text(text)
    return folder / "dvc.yaml"


def test_the_graph_is_this() -> None:
    found = dvc_graph.read(ROOT / "dvc.yaml").stages
    assert {name: stage.upstream for name, stage in found.items()} == UPSTREAM


def test_the_graph_is_dvcs_own() -> None:
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        index = repo.index.graph
        theirs = {stage.name: {other.name for other in index.successors(stage)} for stage in index}
    assert {name: set(upstream) for name, upstream in UPSTREAM.items()} == theirs


def test_every_stage_says_how_long_it_may_take() -> None:
    for name, stage in dvc_graph.read(ROOT / "dvc.yaml").stages.items():
        assert stage.hints["timeout_minutes"] > 0, name
        assert stage.hints["retries"] > 0, name


def test_paths_that_contain_one_another_are_edges(tmp_path: Path) -> None:
    text = (
        "stages: {a: {cmd: x, outs: [out/]}, b: {cmd: x, deps: [out/file], outs: [{in/x: {cache: false}}]},"
    )
    text += " c: {cmd: x, deps: [in], metrics: [m]}, d: {cmd: x, deps: [m, outer]}}"
    found = dvc_graph.read(written(tmp_path, text)).stages
    upstream = {name: stage.upstream for name, stage in found.items()}
    assert upstream == {"a": (), "b": ("a",), "c": ("b",), "d": ("c",)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: {a: {foreach: [1], do: {cmd: x}}}", r"stages\.a\.do: cannot be compiled"),
        ("stages: {a: {matrix: {k: [1]}, cmd: x}}", r"stages\.a\.matrix: cannot be compiled"),
        ("vars: [{x: 1}]\nstages: {a: {cmd: x}}", "vars: cannot be compiled"),
        ("stages: {a: {cmd: 'x ${y}'}}", r"stages\.a: a template"),
        ("stages: {a: {cmd: x, meta: {airflow: {retry: 1}}}}", r"meta\.airflow\.retry: unknown"),
        ("stages: {a: {cmd: x, meta: {airflow: {retries: true}}}}", r"retries: True is of the wrong type"),
        ("stages: {a: {cmd: x, meta: {airflow: [1]}}}", "not a mapping"),
        ("stages: [a]", "stages: missing or malformed"),
        ("stages: {a: {", "not YAML"),
        ("", "stages: missing or malformed"),
    ],
)
def test_what_cannot_be_read_by_eye_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(dvc_graph.GraphError, match=said):
        dvc_graph.read(written(tmp_path, text))
