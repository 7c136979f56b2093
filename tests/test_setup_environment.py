"""The stamp of the environment: what it is believed for, and when it is gone. Nothing is installed here."""

import hashlib
import json
from pathlib import Path

import pytest

import setup_environment
from setup_environment import SetupError, check_files, read_stamp, set_up

PROJECT = """
[project]
name = "sample"
dependencies = ["one"]
optional-dependencies = { dev = ["two"], drift = ["three"] }
[tool.ruff]
line-length = 110
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "constraints.txt").write_text("one==1\n")
    return tmp_path


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What set_up did: `venv`, or `install` with the extras."""
    steps: list[str] = []

    def call(doing: str, *command: str) -> None:
        assert command[1:4] == ("-m", "venv", "--clear")
        steps.append("venv")
        python = Path(command[-1]) / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()

    def install(root: Path, venv: Path, extras: list[str]) -> None:
        assert not (venv / "environment.json").exists()
        steps.append(" ".join(["install", *extras]))

    monkeypatch.setattr(setup_environment, "call", call)
    monkeypatch.setattr(setup_environment, "install", install)
    return steps


def test_first_time_builds_and_second_time_does_nothing(root: Path, done: list[str]) -> None:
    set_up(root, set())
    set_up(root, set())
    assert done == ["venv", "install"]


def test_an_extra_is_added_in_place_and_stays(root: Path, done: list[str]) -> None:
    set_up(root, {"drift"})
    set_up(root, {"dev"})
    set_up(root, set())
    assert done == ["venv", "install drift", "install dev drift"]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [("pyproject.toml", '"one"', '"one>2"'), ("constraints.txt", "one==1", "one==2")],
)
def test_other_requirements_are_installed_in_place(
    root: Path, done: list[str], file: str, old: str, new: str
) -> None:
    set_up(root, {"dev"})
    (root / file).write_text((root / file).read_text().replace(old, new))
    set_up(root, set())
    assert done == ["venv", "install dev", "install dev"]


def test_settings_of_the_tools_are_no_requirement(root: Path, done: list[str]) -> None:
    set_up(root, set())
    (root / "pyproject.toml").write_text(PROJECT.replace("110", "100"))
    set_up(root, set())
    assert done == ["venv", "install"]


def test_an_extra_that_the_project_dropped_is_dropped(root: Path, done: list[str]) -> None:
    set_up(root, {"dev", "drift"})
    (root / "pyproject.toml").write_text(PROJECT.replace(', drift = ["three"]', ""))
    set_up(root, set())
    assert done == ["venv", "install dev drift", "install dev"]


def test_a_failed_install_leaves_nothing_that_is_believed(
    root: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(root, set())
    with monkeypatch.context() as context:
        context.setattr(
            setup_environment, "install", lambda *_: (_ for _ in ()).throw(SetupError("no network"))
        )
        with pytest.raises(SetupError, match="no network"):
            set_up(root, {"dev"})
    assert read_stamp(root / ".venv" / "environment.json") == {}
    set_up(root, {"dev"})
    assert done == ["venv", "install", "venv", "install dev"]


@pytest.mark.parametrize(("key", "value"), [("folder", "/elsewhere"), ("python", "3.11.0")])
def test_a_moved_checkout_or_another_python_builds_anew(
    root: Path, done: list[str], key: str, value: str
) -> None:
    set_up(root, set())
    stamp = root / ".venv" / "environment.json"
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {key: value}))
    set_up(root, set())
    assert done == ["venv", "install", "venv", "install"]


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"'])
def test_a_broken_stamp_is_not_believed(root: Path, done: list[str], content: str) -> None:
    set_up(root, set())
    (root / ".venv" / "environment.json").write_text(content)
    set_up(root, set())
    assert done == ["venv", "install", "venv", "install"]


def test_a_stamp_without_its_interpreter_is_not_believed(root: Path, done: list[str]) -> None:
    set_up(root, set())
    (root / ".venv" / "bin" / "python").unlink()
    set_up(root, set())
    assert done == ["venv", "install", "venv", "install"]


def test_an_unknown_extra_is_refused_by_name(root: Path, done: list[str]) -> None:
    with pytest.raises(SetupError, match="no extra devv"):
        set_up(root, {"devv"})
    assert done == []


def test_files_are_compared_with_their_checksums(tmp_path: Path) -> None:
    for name in ("good", "changed"):
        (tmp_path / name).write_text(name)
    files = {hashlib.sha256(text.encode()).hexdigest(): text for text in ("good", "missing")}
    check_files(tmp_path, {hashlib.sha256(b"good").hexdigest(): "good"})
    with pytest.raises(SetupError, match=r"missing is missing; changed is not the file .*`make setup` again"):
        check_files(tmp_path, files | {"0" * 64: "changed"})
