"""Whoever is forgotten stays out of whatever is read later, by a keyed mark and nothing else."""

import json
import os
import shutil
from pathlib import Path

import collecting
import pytest

from pipeline.data.forgotten import LIST, OWN_KEY, Forgotten
from pipeline.data.pseudonyms import FORM, KEY, KEY_FILE, Pseudonyms
from pipeline.errors import ConfigError
from pipeline.stages import collect

SECRET = "of no use beyond these tests, and long enough"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (KEY, KEY_FILE):
        monkeypatch.delenv(name, raising=False)


def forget(root: Path, *users: str) -> list[str]:
    """As the registry's export does."""
    people = Forgotten.of_project(root)
    marks = [people.mark(user) for user in users]
    listed = [{"mark": mark, "number": number} for number, mark in enumerate(marks, 1)]
    (root / LIST).parent.mkdir(parents=True, exist_ok=True)
    (root / LIST).write_text(json.dumps({"people": listed}))
    return marks


def collected(root: Path, **changes: object) -> Path:
    rows = [f"{user},i{n % 4},2026-01-{n + 1:02d}" for n in range(20) for user in ("007", "anna", "bert")]
    file = collecting.written(root / "rows.csv", "user_id,item_id,timestamp", *rows)
    users = collecting.written(root / "users.csv", "user_id,age", "007,31", "anna,40")
    params = collecting.params_file(root, collecting.of_files(file, users=users, **changes))
    collect.main(root / "data/raw", params, root / LIST)
    return root / "data/raw"


def test_their_rows_stay_out_of_a_later_export_and_are_counted(tmp_path: Path) -> None:
    assert "forgotten" not in json.loads((collected(tmp_path) / "manifest.json").read_text())
    forget(tmp_path, "007", "nobody")
    raw = collected(tmp_path)
    assert set(collecting.interactions(raw)["user_id"]) == {"anna", "bert"}
    told = json.loads((raw / "manifest.json").read_text())
    assert told["forgotten"] == {"known": 2, "people": 1, "rows": 21}
    assert (told["rows"]["read"], told["rows"]["rejected"]) == (40, 0)
    listed = (tmp_path / LIST).read_text()
    assert "nobody" not in listed
    assert '"007"' not in listed  # three digits of a mark may be these


@pytest.mark.parametrize("pseudonyms", [True, False])
def test_an_id_and_its_pseudonym_have_one_mark(
    pseudonyms: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, SECRET)
    name = Pseudonyms.from_environment().of("anna")
    assert Forgotten(tmp_path).mark("anna") == Forgotten(tmp_path).mark(name)
    [mark] = forget(tmp_path, name)
    assert not FORM.search(f"~{mark}")
    assert name[6:] not in mark
    raw = collected(tmp_path, pseudonyms=pseudonyms)
    assert len(collecting.interactions(raw)["user_id"].unique()) == 2
    assert not (tmp_path / OWN_KEY).exists()


def test_who_was_forgotten_before_there_were_pseudonyms_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(tmp_path, "anna")
    monkeypatch.setenv(KEY, SECRET)
    raw = collected(tmp_path, pseudonyms=True)
    hidden = Pseudonyms.from_environment()
    assert set(collecting.interactions(raw)["user_id"]) == {hidden.of("007"), hidden.of("bert")}


def test_marks_of_a_key_that_was_changed_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)
    forget(tmp_path, "anna")
    collecting.written(tmp_path / OWN_KEY, SECRET)
    monkeypatch.setenv(KEY, SECRET.upper())
    assert Forgotten.of_project(tmp_path).has("anna")
    assert Forgotten(tmp_path).mark("anna")[:4] != SECRET[:4]


def test_whom_the_service_forgot_stays_out_and_the_rest_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("sqlalchemy")
    from pipeline.serve.events import Store

    url = f"sqlite:///{tmp_path}/events.db"
    store = Store(url)
    store.forget("anna", Forgotten(tmp_path).mark("anna"), 5)
    store.close()
    raw = collected(tmp_path, feedback=url)
    assert set(collecting.interactions(raw)["user_id"]) == {"007", "bert"}
    # Not counted as known: a training that left her out knows nobody of the list.
    assert json.loads((raw / "manifest.json").read_text())["forgotten"]["known"] == 0
    assert "`evergreen forget`" in caplog.text


def test_where_several_machines_serve_none_makes_a_key_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="several machines"):
        Forgotten(tmp_path).mark("anna", make=False)
    assert not (tmp_path / OWN_KEY).exists()


def test_without_the_key_nothing_is_read(tmp_path: Path) -> None:
    forget(tmp_path, "anna")
    assert oct((tmp_path / OWN_KEY).stat().st_mode)[-3:] == "600"
    inner = tmp_path / ".evergreen/runs/one"  # a run's worktree asks above
    inner.mkdir(parents=True)
    shutil.copytree(tmp_path / "data", inner / "data")
    assert Forgotten.of_project(inner).has("anna")
    os.rename(tmp_path / OWN_KEY, tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"forgotten\.key"):
        collected(tmp_path)
    assert not (tmp_path / "data/raw/interactions").exists()
