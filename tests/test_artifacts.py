import errno
import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from pipeline import files
from pipeline.errors import ArtifactError
from pipeline.files import replace_folder, temporary_beside
from pipeline.models.artifacts import folder_hash, has_model, pinned, read_card


def model(folder: Path, card: object = None, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps(card if card is not None else {"format": 1}))
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def test_hash_is_sha256_over_paths_and_digests(tmp_path):
    folder = tmp_path / "m"
    (folder / "encoder").mkdir(parents=True)
    (folder / "model.json").write_bytes(b"{}")
    (folder / "encoder" / "weights").write_bytes(b"abc")
    by_hand = hashlib.sha256()
    for name, content in [("encoder/weights", b"abc"), ("model.json", b"{}")]:
        by_hand.update(name.encode() + b"\0" + hashlib.sha256(content).digest() + b"\n")
    assert folder_hash(folder) == by_hand.hexdigest()


def test_hash_ignores_place_readme_and_version(tmp_path):
    one, two = model(tmp_path / "a", w="1"), model(tmp_path / "b", w="1")
    (two / "README.md").write_text("hello")
    (two / "version.json").write_text("{}")
    assert folder_hash(one) == folder_hash(two)


@pytest.mark.parametrize("change", ["content", "name", "new", "moved text"])
def test_hash_sees_every_change(tmp_path, change):
    folder = model(tmp_path / "a", w="1", x="23")
    before = folder_hash(folder)
    if change == "content":
        (folder / "w").write_text("2")
    elif change == "name":
        (folder / "w").rename(folder / "v")
    elif change == "new":
        (folder / "y").write_text("")
    else:
        (folder / "w").write_text("12")
        (folder / "x").write_text("3")
    assert folder_hash(folder) != before


def test_folder_without_card_is_no_model(tmp_path):
    (tmp_path / "champion").mkdir()
    (tmp_path / "champion" / "README.md").write_text("none yet")
    assert not has_model(tmp_path / "champion")
    with pytest.raises(ArtifactError, match=r"champion/model.json: no such file.*run `evergreen champion`"):
        folder_hash(tmp_path / "champion")
    with pytest.raises(ArtifactError, match=r"challenger/model.json.*run `dvc repro finetune`"):
        read_card(tmp_path / "challenger")


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_damaged_card_is_named(tmp_path, text):
    folder = model(tmp_path / "challenger")
    (folder / "model.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"challenger/model.json: .*run `dvc repro finetune`"):
        read_card(folder)


@pytest.mark.parametrize("exchange", [True, False])
def test_replace_keeps_readme_and_drops_old_files(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    final = model(tmp_path / "champion", {"v": 1}, old="1")
    (final / "README.md").write_text("kept")
    temporary = model(temporary_beside(final), {"v": 2}, new="2")
    replace_folder(temporary, final)
    assert sorted(p.name for p in final.iterdir()) == ["README.md", "model.json", "new"]
    assert read_card(final) == {"v": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["champion"]


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EBUSY])
def test_mount_point_is_refilled_with_the_card_last(tmp_path, monkeypatch, code):
    final = model(tmp_path / "champion", {"v": 1}, old="1")
    (final / "README.md").write_text("kept")
    (final / "encoder").mkdir()
    temporary = model(temporary_beside(final), {"v": 2}, new="2")
    (temporary / "encoder").mkdir()
    (temporary / "encoder" / "weights").write_text("w")

    def refuse(one: Path, other: Path) -> bool:
        raise OSError(code, "cannot be renamed")

    monkeypatch.setattr(files, "_exchange", refuse)
    inode, expected = final.stat().st_ino, folder_hash(temporary)
    replace_folder(temporary, final)
    assert final.stat().st_ino == inode
    assert folder_hash(final) == expected
    assert (final / "README.md").read_text() == "kept"
    assert [p.name for p in tmp_path.iterdir()] == ["champion"]


def test_replace_where_nothing_was(tmp_path):
    final = tmp_path / "deep" / "champion"
    replace_folder(model(temporary_beside(final)), final)
    assert has_model(final)


def test_leftovers_of_dead_processes_go_and_others_stay(tmp_path):
    dead, alive = tmp_path / ".champion.999999999.partial", tmp_path / f".champion.{os.getppid()}.partial"
    dead.mkdir()
    alive.mkdir()
    temporary_beside(tmp_path / "champion")
    assert not dead.exists()
    assert alive.exists()


def test_errors_about_a_pinned_folder_name_the_folder(tmp_path):
    (tmp_path / "champion").mkdir()
    with pytest.raises(ArtifactError) as raised, pinned(tmp_path / "champion") as folder:
        read_card(folder)
    assert str(raised.value).startswith(f"{tmp_path / 'champion' / 'model.json'}: no such file")


def test_reader_of_a_pinned_folder_never_sees_a_mixture(tmp_path):
    final = model(tmp_path / "champion", {"v": 0}, weights="0")
    stop = threading.Event()

    def writer() -> None:
        version = 0
        while not stop.is_set():
            version += 1
            temporary = model(temporary_beside(final), {"v": version}, weights=str(version))
            replace_folder(temporary, final)

    thread = threading.Thread(target=writer)
    thread.start()
    read = 0
    try:
        while read < 200:
            with pinned(final) as folder:
                try:
                    seen = read_card(folder)["v"], int((folder / "weights").read_text())
                except (FileNotFoundError, ArtifactError):
                    continue  # deleted under us: allowed; a mixture is not
            assert seen[0] == seen[1]
            read += 1
    finally:
        stop.set()
        thread.join()


def test_a_damaged_champion_is_mended_by_its_command_also_while_it_is_pinned(tmp_path: Path) -> None:
    folder = tmp_path / "champion"
    folder.mkdir()
    (folder / "model.json").write_text("{")
    with pytest.raises(ArtifactError, match="run `evergreen champion`"), pinned(folder) as link:
        read_card(link)
