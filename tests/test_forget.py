"""`evergreen forget`: nothing of the person is left, all else goes on, killed or not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import erasing
import pandas as pd
import pytest

pytest.importorskip("sqlalchemy")

import toy
from conftest import made_once
from dvc_data.hashfile.hash_info import HashInfo

from pipeline.data.forgotten import Forgotten
from pipeline.data.pseudonyms import KEY, Pseudonyms
from pipeline.documents.forgetting import Certificate
from pipeline.documents.registry import Person, VersionRecord
from pipeline.drift import reference
from pipeline.errors import ConfigError, PipelineError
from pipeline.forget.command import CERTIFICATES, forget
from pipeline.forget.contents import Contents
from pipeline.forget.storage import Storage, opened
from pipeline.locks import no_readers, reading
from pipeline.models.artifacts import folder_hash
from pipeline.registry.actions import put_champion, rollback
from pipeline.registry.git import Git
from pipeline.registry.objects import Objects, locked, locked_md5
from pipeline.registry.versions import State, Version, read_state
from pipeline.runs.worktrees import LATEST
from pipeline.serve.events import Store

SECRET = "of no use beyond these tests, and long enough"


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as erasing.py has it; its remote lies beside it."""
    for name, value in toy.environment().items():
        monkeypatch.setenv(name, value)
    once = made_once(tmp_path_factory, "erasing", lambda folder: erasing.project(folder / "project"))
    shutil.copytree(once, tmp_path / "all", symlinks=True)
    config = tmp_path / "all/project/.dvc/config"
    config.write_text(config.read_text().replace(str(once), str(tmp_path / "all")))
    return tmp_path / "all/project"


def forgotten(root: Path, user: str | None, dry_run: bool = False) -> Certificate:
    told = forget(root, user, dry_run)
    assert told is not None
    return told


def found(root: Path, name: str) -> bool:
    return name in erasing.everything(root.parent)


def sound(root: Path) -> None:
    """What is left is whole: the champion, dvc.lock, both versions."""
    state = read_state(Git(root))
    assert folder_hash(root / "models/champion") == state.champion.artifact_hash  # type: ignore[union-attr]
    for version in state.versions:
        Objects(root).require(version.md5, version.artifact_hash)
    sample = reference.read(root / "models/champion/reference")
    assert set(sample.rows["user_id"]) == {"bert-8", "cleo-9"}
    for text in ((root / "dvc.lock").read_text(), Git(root).show(LATEST, "dvc.lock")):
        for out in locked(text, "outs"):
            path = Objects(root).cache / "files/md5" / out["md5"][:2] / out["md5"][2:]
            assert path.is_file(), out
            assert erasing.kept(root, root / out["path"]).split()[1] == out["md5"], out


def test_nothing_of_them_is_left_and_all_else_goes_on(root: Path) -> None:
    assert found(root, "anna-7")
    told = forgotten(root, "anna-7")
    assert not found(root, "anna-7")
    sound(root)
    rows = {place.place: place.rows for place in told.places}
    assert (rows["event store"], rows["data/raw"], rows["reports"]) == (2, 22, 2)
    assert rows["DVC's cache"] - 1 == rows["DVC remote 'store'"] > 0  # DVC's own unfinished file
    [sentence] = [text for text in told.models if "champion" in text]
    assert "2026-02-19" in sentence  # 30 days of data behind 20 January
    assert Certificate.read(root / CERTIFICATES / f"{told.marks[0]}.json") == told
    # Nobody else lost anything, neither here nor in the remote.
    assert set(pd.read_parquet(root / "data/prepared/train.parquet")["user_id"]) == {"bert-8", "cleo-9"}
    assert len(pd.read_parquet(root / "data/raw/rejected.parquet")) == 2
    page = (root / "reports/evaluation.html").read_text()
    assert page.count("bert-8") == 2
    assert page.endswith("<p>the end</p>\n")
    store = Store(f"sqlite:///{root}/.evergreen/events.db")
    assert store.people() == ["bert-8"]
    # `dvc gc --all-tags` reads the locks of tags: they name every version's model as it is now.
    locks = [Git(root).show(tag, "dvc.lock") for tag in toy.tags(root) if tag.startswith("rewritten/")]
    assert {locked_md5(lock) for lock in locks} == {version.md5 for version in read_state(Git(root)).versions}
    shutil.rmtree(root / ".dvc/cache")
    assert rollback(root, to="v1").name == "v1.0.0"  # from the remote
    put_champion(root)
    assert set(reference.read(root / "models/champion/reference").rows["user_id"]) == {"bert-8"}
    # The verdict is still of the challenger that lies there.
    verdict = json.loads((root / "reports/promotion.json").read_text())
    assert verdict["challenger"]["artifact_hash"] == folder_hash(root / "models/challenger")


def test_a_look_changes_nothing(root: Path) -> None:
    before, tags = erasing.snapshot(root.parent), toy.tags(root)
    told = forgotten(root, " anna-7", dry_run=True)
    assert (erasing.snapshot(root.parent), toy.tags(root)) == (before, tags)
    rows = {place.place: place.rows for place in told.places}
    assert (rows["data/raw"], rows["models/champion"]) == (23, 12)  # one is a killed stage's
    assert rows["event store"] == 2


def test_what_is_no_id_marks_nobody(root: Path) -> None:
    for name in ("", "null", "[1, 2]"):
        with pytest.raises(PipelineError, match="no id"):
            forget(root, name)
    assert not (root / "data/forgotten.json").exists()


def test_a_stage_that_dvc_runs_is_waited_for(root: Path) -> None:
    held = {"pid": os.getppid(), "cmd": "dvc repro"}
    (root / ".dvc/tmp").mkdir(exist_ok=True)
    lock = root / ".dvc/tmp/rwlock"
    lock.write_text(json.dumps({"write": {"/out": held}, "read": {"/in": [held]}}))
    with pytest.raises(PipelineError, match="under way"):
        forget(root, "anna-7")
    assert found(root, "anna-7")
    lock.write_text(json.dumps({"read": {"/in": [held | {"pid": 4194305}]}}))  # of a killed one
    assert forgotten(root, "anna-7", dry_run=True)


@pytest.mark.slow
def test_with_pseudonyms_neither_id_nor_pseudonym_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in toy.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(KEY, SECRET)
    hidden = Pseudonyms.from_environment()
    name, other = hidden.of("anna-7"), hidden.of("bert-8")
    root = erasing.project(tmp_path / "all/project", name, other)
    forget(root, "anna-7")
    text = erasing.everything(root.parent)
    assert not [secret for secret in (name, "anna-7", SECRET) if secret in text]
    assert other in text


@pytest.mark.slow
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_killed_in_the_middle_it_goes_on(part: float, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = Path(shutil.copytree(root.parent, root.parent.parent / "twin", symlinks=True)) / "project"
    config = twin / ".dvc/config"
    config.write_text(config.read_text().replace(str(root.parent), str(twin.parent)))
    steps: list[str] = []
    with monkeypatch.context() as patched:
        counted(patched, steps, None)
        whole = forgotten(twin, "anna-7")
    code = "import test_forget, sys; test_forget.forget_until(sys.argv[1], int(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(root), str(round(part * len(steps)))]
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    killed = subprocess.run(command, env=toy.environment() | {"PYTHONPATH": path}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert folder_hash(root / "models/champion")  # nothing half-written where someone reads
    json.loads((root / "reports/promotion.json").read_text())
    told = forgotten(root, "anna-7")
    assert not found(root, "anna-7")
    sound(root)
    assert [place.place for place in told.places] == [place.place for place in whole.places]


def forget_until(root: str, last: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        counted(patched, [], last)
        forget(Path(root), "anna-7")


def counted(monkeypatch: pytest.MonkeyPatch, steps: list[str], last: int | None) -> None:
    """Note each file that gets its name, each git, and each object that goes; killed before the `last`."""

    def before(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def step(*arguments: Any, **options: Any) -> Any:
            steps.append(name)
            if len(steps) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, step)

    before(os, "replace")
    before(Git, "run")
    before(Storage, "delete")


@pytest.mark.slow
def test_a_remote_in_s3_is_encrypted_by_its_server_and_erased(root: Path, s3: str) -> None:
    import boto3

    toy.dvc(root, "remote", "modify", "store", "url", "s3://evergreen/objects")
    toy.dvc(root, "remote", "modify", "store", "endpointurl", s3)
    toy.dvc(root, "remote", "modify", "store", "sse", "AES256")  # as docs/privacy.md says
    with opened(root, Contents(Forgotten(root))) as stored:
        names = list(stored.cache.odb.all())
        stored.repo.cloud.push([HashInfo("md5", name) for name in names])
    bucket = boto3.resource("s3", endpoint_url=s3).Bucket("evergreen")

    def objects() -> str:
        folder = root.parent / "fetched"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for number, one in enumerate(bucket.objects.all()):
            told = one.get()
            assert told["ServerSideEncryption"] == "AES256"
            (folder / str(number)).write_bytes(told["Body"].read())
        return erasing.everything(folder)

    assert "anna-7" in objects()
    forget(root, "anna-7")
    left = objects()
    assert "anna-7" not in left
    assert "bert-8" in left
    shutil.rmtree(root / ".dvc/cache")
    assert rollback(root, to="v1").name == "v1.0.0"


def test_whom_the_service_forgot_is_erased_without_being_named(root: Path) -> None:
    with pytest.raises(ConfigError, match="nobody is forgotten"):
        forget(root, None)
    store = Store(f"sqlite:///{root}/.evergreen/events.db")
    store.forget("anna-7", Forgotten(root).mark("anna-7"), 5)
    told = forgotten(root, None)
    assert not found(root, "anna-7")
    assert [person.rows for person in read_state(Git(root)).forgotten] == [20]
    assert told.finished
    assert forget(root, None) is None  # a line for cron


def test_a_run_under_way_is_waited_for(root: Path) -> None:
    folder = root / "data/history/training-one"
    folder.mkdir(parents=True)
    run = {"run_id": "one", "dag": "training", "state": "running"}
    (folder / "run.json").write_text(json.dumps(run))
    (root / ".evergreen/runs/training-one").mkdir(parents=True)
    with pytest.raises(PipelineError, match="under way"):
        forget(root, "anna-7")
    assert found(root, "anna-7")
    assert not (root / "data/forgotten.json").exists()


def test_a_refresh_has_learned_what_its_encoder_has() -> None:
    people = [Person(mark=f"abcd-{number}", number=number, rows=5) for number in (1, 2)]

    def version(number: int, known: int | None, refresh_of: str | None = None) -> Version:
        record = VersionRecord(
            forgotten=known, refresh_of=refresh_of, mode="refresh" if refresh_of else "full"
        )
        return Version(f"v{number}.0.0", number, str(number), record)

    versions = [
        version(1, None),
        version(2, 2, "v1.0.0"),
        version(3, 1),
        version(4, 2, "v3.0.0"),
        version(5, 2),
    ]
    state = State(versions, [], [], 1, 0, forgotten=people)
    learned = [[person.number for person in state.learned_from(each)] for each in versions]
    assert learned == [[1, 2], [1, 2], [2], [2], []]


def test_what_keeps_rows_of_its_own_is_waited_for(root: Path) -> None:
    with reading(root), reading(root):  # of several
        with pytest.raises(PipelineError, match="backtest"):
            forget(root, "anna-7")
        assert found(root, "anna-7")
    with no_readers(root), pytest.raises(PipelineError, match="forget"), reading(root):
        pass
    assert forgotten(root, "anna-7", dry_run=True)
