import json
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import toy
from waiting import PATIENCE_SECONDS

from pipeline.documents.data import Manifest
from pipeline.documents.model import Exploration
from pipeline.documents.promotion import Promotion
from pipeline.errors import ArtifactError, ConfigError
from pipeline.evaluation.exploration import COLUMNS
from pipeline.models.artifacts import (
    DATA_SHEET,
    EXPLORATION,
    MODEL_CARD,
    VERSION,
    exploration_in,
    folder_hash,
)
from pipeline.registry.actions import (
    CHAMPION,
    Refused,
    promote,
    push_models,
    put_champion,
    record_training,
    rollback,
)
from pipeline.registry.git import Git
from pipeline.registry.versions import exported, lineage, read_state, versions_table

WEIGHTS = dict.fromkeys(COLUMNS, 0.125)


def champion_of(project: Path) -> str | None:
    champion = read_state(Git(project)).champion
    return champion.name if champion else None


def promoted(project: Path, *seeds: int) -> list[str]:
    """Promote the challengers of these seeds one after another; their hashes."""
    hashes: list[str] = []
    for seed in seeds:
        hashes.append(toy.use_challenger(project, seed, champion=hashes[-1] if hashes else None))
        promote(project)
    return hashes


def test_first_promotion_makes_version_and_champion(trained):
    artifact_hash = toy.use_challenger(trained, 1)
    version = promote(trained, reason="it is\nthe\x01\x1b first")
    assert toy.tags(trained) == ["recommender#champion#1", "recommender@v1.0.0"]
    assert (version.name, version.artifact_hash) == ("v1.0.0", artifact_hash)
    record = version.record.to_dict()
    assert record["reason"] == "it is the first"
    assert record["metrics"] == {"ndcg@10": 0.125, "recall@10": None}
    assert record["fit_end"] == "1998-03-02T00:00:00+00:00"
    assert record["training"] == {"seconds": 3}
    assert record["verdict"]["promote"] is True
    assert record["who"] == "Evergreen <evergreen@localhost>"
    assert champion_of(trained) == "v1.0.0"


def test_a_version_comes_with_its_model_card_and_data_sheet(trained):
    toy.use_challenger(trained, 1)
    version = promote(trained)
    for name in (MODEL_CARD, DATA_SHEET):
        committed = toy.git(trained, "show", f"{version.commit}:registry/{name}")
        assert committed.startswith("---\n")
        assert "v1.0.0" in committed
    put_champion(trained)
    folder = trained / "models" / "champion"
    assert (folder / MODEL_CARD).read_text() == toy.git(
        trained, "show", f"{version.commit}:registry/{MODEL_CARD}"
    )
    assert folder_hash(folder) == version.artifact_hash
    assert put_champion(trained) == (version, False)


def test_promotion_leaves_branch_index_and_working_tree(trained):
    toy.use_challenger(trained, 1)
    (trained / "helper.py").write_text("changed = 1\n")
    (trained / "staged.txt").write_text("staged")
    toy.git(trained, "add", "staged.txt")
    (trained / "mine.txt").write_text("not tracked")
    before = toy.git(trained, "status", "--porcelain"), toy.git(trained, "log", "--all", "--format=%H %D")
    index = toy.git(trained, "ls-files", "--stage")
    promote(trained)
    assert toy.git(trained, "status", "--porcelain") == before[0]
    assert toy.git(trained, "log", "--branches", "--format=%H").split() == before[1].split()[:1]
    assert toy.git(trained, "ls-files", "--stage") == index
    files = toy.git(trained, "ls-tree", "-r", "--name-only", "recommender@v1.0.0").split()
    assert {"dvc.lock", "helper.py", "registry/promotion.json", "registry/metrics.json"} <= set(files)
    assert not {"mine.txt", "staged.txt"} & set(files)
    assert toy.git(trained, "show", "recommender@v1.0.0:helper.py") == "changed = 1\n"
    assert toy.git(trained, "show", "recommender@v1.0.0:dvc.lock") == (trained / "dvc.lock").read_text()


def test_untracked_dependency_of_a_stage_is_in_the_snapshot(trained):
    toy.use_challenger(trained, 1)
    toy.git(trained, "rm", "-q", "--cached", "helper.py")
    toy.git(trained, "commit", "-q", "-m", "Forget the helper")
    promote(trained)
    assert "helper.py" in toy.git(trained, "ls-tree", "--name-only", "recommender@v1.0.0").split()


def test_promotion_works_on_a_detached_head_and_from_a_subfolder(trained):
    toy.git(trained, "checkout", "-q", "--detach")
    toy.use_challenger(trained, 1)
    promote(trained)
    assert champion_of(trained / "models") == "v1.0.0"


def test_project_in_a_subfolder_of_the_repository(trained):
    (trained / "sub").mkdir()
    for path in list(trained.iterdir()):
        if path.name not in (".git", "sub"):
            path.rename(trained / "sub" / path.name)
    toy.git(trained, "add", "-A")
    toy.git(trained, "commit", "-q", "-m", "Move down")
    project = trained / "sub"
    toy.use_challenger(project, 1)
    promote(project)
    assert lineage(project, "v1").outputs["models/challenger"].endswith(".dir")
    assert "sub/registry/promotion.json" in toy.git(
        trained, "ls-tree", "-r", "--name-only", "recommender@v1.0.0"
    )
    assert put_champion(project)[1]


def test_identity_of_the_user_is_kept_when_there_is_one(trained):
    toy.git(trained, "config", "user.name", "Ada")
    toy.git(trained, "config", "user.email", "ada@example.org")
    toy.use_challenger(trained, 1)
    assert promote(trained).record.who == "Ada <ada@example.org>"


def test_gto_lists_the_version_and_its_stage(trained):
    promoted(trained, 1, 2)
    rollback(trained)
    shown = json.loads(toy.shell(trained, "gto", "show", "--json"))
    assert shown["recommender"]["version"] == "v2.0.0"
    assert shown["recommender"]["stage"]["champion"] == "v1.0.0"


def test_refusals_leave_no_tag(trained):
    toy.use_challenger(trained, 1, promote=False)
    with pytest.raises(Refused, match=r"not promoted: nDCG@10 \+0.0500 against popularity"):
        promote(trained)
    toy.write_verdict(trained)
    (trained / "models" / "challenger" / "encoder" / "weights").write_text("other")
    with pytest.raises(Refused, match="not the model that was evaluated"):
        promote(trained)
    toy.use_challenger(trained, 1)
    toy.set_param(trained, "approval: auto", "approval: human")
    with pytest.raises(Refused, match="--approve"):
        promote(trained)
    assert toy.tags(trained) == []
    assert promote(trained, approved_by="Vera <vera@example.org>").name == "v1.0.0"
    [appointment] = read_state(Git(trained)).appointments
    assert appointment.record.approved_by == "Vera <vera@example.org>"


def test_verdict_about_another_champion_is_refused(trained):
    promoted(trained, 1)
    toy.use_challenger(trained, 2, champion=None)
    with pytest.raises(Refused, match=r"another champion than the present one \(v1.0.0\)"):
        promote(trained)


def test_promoting_the_champion_again_does_nothing(trained):
    promoted(trained, 1)
    assert promote(trained).name == "v1.0.0"
    assert len(toy.tags(trained)) == 2


def test_rolled_back_model_is_not_promoted_again(trained):
    hashes = promoted(trained, 1, 2)
    rollback(trained)
    toy.use_challenger(trained, 2, champion=hashes[0])
    with pytest.raises(Refused, match=r"this model is v2.0.0, which was replaced.*rollback --to v2.0.0"):
        promote(trained)


CHALLENGER = '"challenger": {"artifact_hash": "0"}'
MALFORMED = [
    *(None, "{", "[]", '{"promote": true}', '{"promote": true, "checks": []}'),
    *(f'{{"promote": true, "checks": {checks}, {CHALLENGER}}}' for checks in ("null", "3", '["a"]', "{}")),
]


@pytest.mark.parametrize("text", MALFORMED)
def test_missing_or_malformed_verdict(trained, text):
    toy.use_challenger(trained, 1)
    path = trained / "reports" / "promotion.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ArtifactError, match=r"promotion.json: .*: run `dvc repro --force decide_promotion`"):
        promote(trained)


@pytest.mark.parametrize(
    ("checks", "why"),
    [
        ([], "lists no check"),
        ([{"name": "beats_popularity", "passed": False, "text": "too little"}], "not promoted: too little"),
    ],
)
def test_verdict_that_its_checks_do_not_bear_out(trained, checks, why):
    toy.use_challenger(trained, 1)
    path = trained / "reports" / "promotion.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"checks": checks}))
    with pytest.raises(Refused, match=why):
        promote(trained)
    assert toy.tags(trained) == []


def test_truthy_is_not_true(trained):
    toy.use_challenger(trained, 1)
    path = trained / "reports" / "promotion.json"
    path.write_text(path.read_text().replace('"promote": true', '"promote": "true"'))
    with pytest.raises(ArtifactError, match="promote: input should be a valid boolean"):
        promote(trained)


def test_model_that_dvc_does_not_have(trained):
    toy.use_challenger(trained, 1)
    shutil.rmtree(trained / ".dvc" / "cache")
    with pytest.raises(ArtifactError, match="not in the DVC cache: run `dvc commit --force finetune`"):
        promote(trained)
    assert toy.tags(trained) == []


def test_lock_of_another_training(trained):
    toy.use_challenger(trained, 1)
    shutil.copy(trained / ".evergreen" / "seed-2" / "dvc.lock", trained / "dvc.lock")
    with pytest.raises(ArtifactError, match="not the model with hash"):
        promote(trained)


def test_no_git_repository_and_no_commit(tmp_path, trained):
    with pytest.raises(ArtifactError, match="no git repository"):
        Git(tmp_path)
    toy.use_challenger(trained, 1)
    shutil.rmtree(trained / ".git")
    toy.git(trained, "init", "-q")
    with pytest.raises(ArtifactError, match="no commit yet"):
        promote(trained)


def test_rollback_goes_back_step_by_step(trained):
    promoted(trained, 1, 2, 3)
    assert [rollback(trained).name, rollback(trained).name] == ["v2.0.0", "v1.0.0"]
    with pytest.raises(Refused, match="no earlier champion"):
        rollback(trained)
    assert rollback(trained, to="3", reason="better after all").name == "v3.0.0"
    newest = read_state(Git(trained)).appointments[-1]
    assert (newest.number, newest.record.replaces) == (6, "v1.0.0")
    assert newest.record.reason == "better after all"
    assert rollback(trained, to="v3").name == "v3.0.0"
    assert len(read_state(Git(trained)).appointments) == 6


def admit(project: Path, weights: dict[str, float]) -> None:
    """Into the verdict on what lies in models/challenger."""
    path = project / "reports" / "promotion.json"
    found = {"admitted": True, "weights": weights, "text": "admitted"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"exploration": found}))
    Promotion.read(path)


def test_each_version_brings_its_own_weights_and_a_broken_file_is_put_right(trained):
    first = toy.use_challenger(trained, 1)
    admit(trained, WEIGHTS)
    promote(trained)
    put_champion(trained)
    folder = trained / CHAMPION
    assert folder_hash(folder) == first  # it is no part of the model
    assert exploration_in(folder) == Exploration(artifact_hash=first, weights=WEIGHTS)

    (folder / EXPLORATION).write_text((folder / EXPLORATION).read_text().replace("0.125", "0.25"))
    with pytest.raises(ArtifactError, match=r"exploration\.json"):
        exploration_in(folder)
    assert put_champion(trained)[1]
    assert exploration_in(folder) == Exploration(artifact_hash=first, weights=WEIGHTS)

    toy.use_challenger(trained, 2, champion=first)
    promote(trained)
    put_champion(trained)
    assert exploration_in(folder) is None
    assert not (folder / EXPLORATION).exists()
    assert "exploration" not in json.loads((folder / VERSION).read_text())
    rollback(trained)
    put_champion(trained)
    assert exploration_in(folder) == Exploration(artifact_hash=first, weights=WEIGHTS)


def test_rollback_to_what_is_not_there(trained):
    with pytest.raises(Refused, match="no earlier champion"):
        rollback(trained)
    promoted(trained, 1, 2)
    with pytest.raises(ArtifactError, match=r"v9: no such version; name one of: v1.0.0, v2.0.0"):
        rollback(trained, to="v9")
    shutil.rmtree(trained / ".dvc" / "cache")
    with pytest.raises(ArtifactError, match="not whole in DVC's cache, and there is no remote"):
        rollback(trained)
    assert champion_of(trained) == "v2.0.0"


def test_champion_withdrawn_by_gto(trained):
    promoted(trained, 1)
    toy.git(trained, "tag", "-a", "-m", "withdraw", "recommender#champion!#2", "recommender@v1.0.0^{}")
    assert champion_of(trained) is None
    put_champion(trained)
    assert [path.name for path in (trained / CHAMPION).iterdir()] == ["README.md"]


def test_champion_folder_is_filled_verified_and_left_alone(trained):
    assert put_champion(trained) == (None, False)
    (artifact_hash,) = promoted(trained, 1)
    folder = trained / CHAMPION
    version, changed = put_champion(trained)
    assert changed
    assert sorted(path.name for path in folder.iterdir()) == [
        "DATA_SHEET.md",
        "MODEL_CARD.md",
        "README.md",
        "encoder",
        "model.json",
        "version.json",
    ]
    assert folder_hash(folder) == artifact_hash
    written = json.loads((folder / "version.json").read_text())
    assert written == {"version": "v1.0.0", "commit": version.commit, "artifact_hash": artifact_hash}
    before = folder.stat().st_ino
    assert put_champion(trained) == (version, False)
    assert folder.stat().st_ino == before
    assert toy.git(trained, "status", "--porcelain", "models") == ""


@pytest.mark.parametrize("damage", ["changed", "missing", "extra", "version", "no readme"])
def test_damaged_champion_folder_is_mended(trained, damage):
    promoted(trained, 1)
    put_champion(trained)
    folder = trained / CHAMPION
    if damage == "changed":
        (folder / "encoder" / "weights").write_text("x")
    elif damage == "missing":
        (folder / "model.json").unlink()
    elif damage == "extra":
        (folder / "junk").write_text("x")
    elif damage == "version":
        (folder / "version.json").write_text("{")
    else:
        shutil.rmtree(folder)
    assert put_champion(trained)[1]
    assert folder_hash(folder) == read_state(Git(trained)).champion.artifact_hash
    assert not (folder / "junk").exists()


def test_champion_to_another_folder(trained, tmp_path):
    assert put_champion(trained, tmp_path / "served") == (None, False)
    assert not (tmp_path / "served").exists()
    (artifact_hash,) = promoted(trained, 1)
    put_champion(trained, tmp_path / "served")
    assert folder_hash(tmp_path / "served") == artifact_hash
    assert not (trained / CHAMPION / "model.json").exists()


def test_foreign_folder_is_not_replaced(trained, tmp_path):
    promoted(trained, 1)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(ConfigError, match=r"holds cat.jpg and no model"):
        put_champion(trained, tmp_path / "photos")
    with pytest.raises(ConfigError, match="not a folder"):
        put_champion(trained, tmp_path / "photos" / "cat.jpg")
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "cat"
    with pytest.raises(ArtifactError, match="name a folder that can be written"):
        put_champion(trained, tmp_path / "photos" / "cat.jpg" / "served")
    with pytest.raises(ConfigError, match="what `finetune` writes"):
        put_champion(trained, trained / "models" / "challenger")


def test_damaged_cache_is_named_and_the_old_champion_stays(trained):
    hashes = promoted(trained, 1)
    put_champion(trained)
    toy.use_challenger(trained, 2, champion=hashes[0])
    promote(trained)
    for path in (trained / ".dvc" / "cache" / "files").rglob("*"):
        if path.is_file() and path.read_text().startswith("2222"):
            path.chmod(0o644)
            path.write_text("rotten")
    with pytest.raises(ArtifactError, match="damaged: remove it and run again"):
        put_champion(trained)
    assert folder_hash(trained / CHAMPION) == hashes[0]


def add_remote(project: Path, url: Path) -> None:
    config = project / ".dvc" / "config"
    config.write_text(f"{config.read_text()}    remote = shelf\n['remote \"shelf\"']\n    url = {url}\n")
    toy.git(project, "commit", "-q", "-a", "-m", "Add a remote")


def test_remote_that_came_later_gets_the_models_of_all_versions(trained, tmp_path):
    promoted(trained, 1, 2)
    with pytest.raises(ArtifactError, match="no default remote"):
        push_models(trained)
    add_remote(trained, tmp_path / "shelf")
    toy.shell(tmp_path, "git", "clone", "-q", str(trained), "clone")
    clone = tmp_path / "clone"
    ended = toy.evergreen(clone, "champion")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr
    assert ended.stderr.endswith(": run `evergreen registry push` where it was made\n")
    assert push_models(clone) == ([], ["v1.0.0", "v2.0.0"])
    assert push_models(trained) == (["v1.0.0", "v2.0.0"], [])
    assert push_models(trained) == push_models(clone) == ([], [])
    assert put_champion(clone)[0].name == "v2.0.0"
    assert rollback(clone).name == "v1.0.0"


def test_a_clone_without_a_remote_is_told_how_to_start(trained, tmp_path):
    promoted(trained, 1)
    toy.shell(tmp_path, "git", "clone", "-q", str(trained), "clone")
    clone = tmp_path / "clone"
    with pytest.raises(ArtifactError, match=r"there is no remote.*dvc remote add.*or start anew") as error:
        put_champion(clone)
    toy.shell(clone, "bash", "-c", str(error.value).rpartition("`")[0].rpartition("`")[2])
    assert put_champion(clone)[0] is None
    assert put_champion(trained)[0].name == "v1.0.0"


def test_second_clone_gets_the_champion_from_git_and_remote_alone(trained, tmp_path):
    add_remote(trained, tmp_path / "shelf")
    promoted(trained, 1, 2)
    assert [row.objects for row in versions_table(trained)] == ["cache", "cache"]
    toy.shell(tmp_path, "git", "clone", "-q", str(trained), "clone")
    clone = tmp_path / "clone"
    assert [row.objects for row in versions_table(clone)] == ["remote", "remote"]
    version, _ = put_champion(clone)
    assert version.name == "v2.0.0"
    assert folder_hash(clone / CHAMPION) == version.artifact_hash
    rollback(clone)
    shutil.rmtree(tmp_path / "shelf")
    assert put_champion(clone)[0].name == "v1.0.0"
    assert [row.objects for row in versions_table(clone)] == ["cache", "cache"]


def test_unreachable_remote_promotes_nothing(trained, tmp_path):
    (tmp_path / "file").write_text("")
    add_remote(trained, tmp_path / "file")
    toy.use_challenger(trained, 1)
    with pytest.raises(ArtifactError, match="dvc push: remote 'shelf': "):
        promote(trained)
    assert toy.tags(trained) == []


def test_version_can_be_reproduced_from_its_tag_in_a_worktree_that_promotes_too(trained):
    hashes = promoted(trained, 1, 2)
    toy.git(trained, "worktree", "add", "-q", "--detach", "../again", "recommender@v1.0.0")
    again = trained.parent / "again"
    assert champion_of(again) == "v2.0.0"
    toy.dvc(again, "config", "--local", "cache.dir", str(trained / ".dvc" / "cache"))
    toy.dvc(again, "checkout", "-q")
    assert folder_hash(again / "models" / "challenger") == hashes[0]
    put_champion(again)
    assert folder_hash(again / CHAMPION) == hashes[1]
    shutil.copytree(trained / ".evergreen", again / ".evergreen")
    toy.use_challenger(again, 3, champion=hashes[1])
    assert promote(again).name == "v3.0.0"
    assert champion_of(trained) == "v3.0.0"


def test_lineage_leads_from_version_to_source(trained):
    (trained / "data" / "raw").mkdir(parents=True)
    manifest = Manifest(source="files", fingerprint="f00", as_of=datetime(1998, 3, 30, tzinfo=UTC))
    manifest.write(trained / "data" / "raw" / "manifest.json")
    promoted(trained, 1)
    found = lineage(trained, "champion")
    assert found.version == "v1.0.0"
    assert found.based_on == toy.git(trained, "rev-parse", "HEAD").strip()
    assert "seed: 3" in found.params
    assert found.manifest == manifest
    assert found.record.data.fingerprint == "f00"
    assert set(found.outputs) == {"models/challenger"}
    assert [appointment.action for appointment in found.appointments] == ["promote"]


def test_export_is_stable_and_complete(trained):
    promoted(trained, 1, 2)
    path = trained / "data" / "registry.json"
    before = path.read_bytes(), path.stat().st_mtime_ns
    put_champion(trained)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    found = json.loads(before[0])
    assert found["champion"] == "v2.0.0"
    assert [row["status"] for row in found["versions"]] == ["retired", "champion"]
    assert [row["parent"] for row in found["versions"]] == [None, "v1.0.0"]
    trainings = found["trainings"]
    assert [row["training"] for row in trainings] == [{"seconds": 3, "peak_gib": None}] * 2
    assert [(row["version"], row["mode"], row["promoted"]) for row in trainings] == [
        ("v1.0.0", "full", True),
        ("v2.0.0", "full", True),
    ]


def test_first_export_is_committed_and_later_ones_do_not_show(trained):
    """So that a stage can depend on it in a fresh clone, and nobody commits what is only a copy."""
    first = subprocess.run(
        ["git", "show", "HEAD:data/registry.json"], capture_output=True, text=True, check=True
    ).stdout
    state = read_state(Git(trained))
    assert json.loads(first) == exported(state).to_dict() == json.loads(toy.NO_REGISTRY)
    promoted(trained, 1)
    assert json.loads((trained / "data" / "registry.json").read_text())["champion"] == "v1.0.0"
    assert toy.git(trained, "status", "--porcelain", "data") == ""
    assert toy.git(trained, "show", "recommender@v1.0.0:data/registry.json") == toy.NO_REGISTRY
    toy.git(trained, "checkout", "-q", "-f", "--detach", "recommender@v1.0.0")
    put_champion(trained)
    assert json.loads((trained / "data" / "registry.json").read_text())["champion"] == "v1.0.0"
    assert toy.git(trained, "status", "--porcelain", "data") == ""


# Trainings


def write_reports(project: Path, as_of: str = "1998-03-30", promote: bool = True, **card: object) -> None:
    """What a training leaves beside the toy's model, whose card gets as_of and `card`."""
    path = project / "models" / "challenger" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"as_of": as_of} | card))
    (project / "reports" / "training").mkdir(parents=True, exist_ok=True)
    cost = {"seconds": 12.5, "peak_gib": 1.5, "text_epochs": 1}
    (project / "reports" / "training" / "summary.json").write_text(json.dumps(cost))
    (project / "data" / "raw").mkdir(exist_ok=True)
    manifest = {"as_of": "1998-03-30", "rows": {"kept": 4000}}
    (project / "data" / "raw" / "manifest.json").write_text(json.dumps(manifest))
    reasons = [{"signal": "champion", "text": "there is no champion yet"}]
    decision = {"as_of": "1998-03-30", "retrain": True, "mode": "full", "reasons": reasons}
    (project / "reports" / "retraining.json").write_text(json.dumps(decision))
    toy.write_verdict(project, promote)


def test_training_is_recorded_once_with_its_cost_whether_promoted_or_not(trained):
    toy.use_challenger(trained, 1)
    write_reports(trained, promote=False)
    training, new = record_training(trained)
    assert (training.number, new) == (1, True)
    assert toy.tags(trained) == ["training/1"]
    assert toy.git(trained, "rev-parse", "training/1^{commit}") == toy.git(trained, "rev-parse", "HEAD")
    record = read_state(Git(trained)).trainings[0].record.to_dict()
    assert record["artifact_hash"] == folder_hash(trained / "models" / "challenger")
    assert record["training"] == {"seconds": 12.5, "peak_gib": 1.5}
    assert (record["mode"], record["refresh_of"], record["rows"]) == ("full", None, 4000)
    assert (record["promote"], record["champion"]) == (False, None)
    assert record["reasons"][0]["text"] == "there is no champion yet"
    (row,) = json.loads((trained / "data" / "registry.json").read_text())["trainings"]
    assert (row["version"], row["promoted"], row["as_of"][:10]) == (None, False, "1998-03-30")
    assert record_training(trained)[1] is False
    assert toy.tags(trained) == ["training/1"]


def test_refresh_is_recorded_as_one_and_old_data_without_rows(trained):
    toy.use_challenger(trained, 1)
    write_reports(trained, as_of="1998-02-01", finetune={"refresh_of": "v1.0.0"})
    record = record_training(trained)[0].record.to_dict()
    assert (record["mode"], record["refresh_of"]) == ("refresh", "v1.0.0")
    assert record["rows"] is None  # the data have moved on since
    assert record["reasons"] is None


def test_recorded_training_is_exported_once_with_the_version_it_became(trained):
    toy.use_challenger(trained, 1)
    record_training(trained)
    promote(trained)
    toy.use_challenger(trained, 2, champion=read_state(Git(trained)).champion.artifact_hash)
    promote(trained)
    (first, second) = json.loads((trained / "data" / "registry.json").read_text())["trainings"]
    assert (first["version"], first["promoted"]) == ("v1.0.0", True)
    assert (second["version"], second["promoted"]) == ("v2.0.0", True)  # by hand, never recorded
    assert rollback(trained).name == "v1.0.0"
    assert len(json.loads((trained / "data" / "registry.json").read_text())["trainings"]) == 2


def test_nothing_to_record(trained, tmp_path):
    shutil.rmtree(trained / "models" / "challenger")
    with pytest.raises(ArtifactError, match=r"challenger/model.json: no such file"):
        record_training(trained)
    assert toy.tags(trained) == []


def test_records_of_trainings_are_no_versions_to_gto(trained):
    promoted(trained, 1)
    record_training(trained)
    shown = json.loads(toy.shell(trained, "gto", "show", "--json"))
    assert list(shown) == ["recommender"]
    assert shown["recommender"]["version"] == "v1.0.0"


def test_two_records_at_once_make_one_training(trained):
    toy.use_challenger(trained, 1)
    command = [sys.executable, "-c", ACTION, str(trained), "record_training"]
    processes = [subprocess.Popen(command, env=toy.environment()) for _ in range(2)]
    assert [process.wait(PATIENCE_SECONDS) for process in processes] == [0, 0]
    assert toy.tags(trained) == ["training/1"]


# Two at once, and killed at any point.


ACTION = (
    "import sys; from pathlib import Path; from pipeline.registry import actions;"
    " getattr(actions, sys.argv[2])(Path(sys.argv[1]))"
)


def test_two_promotions_at_once_one_wins_one_explains(trained):
    toy.use_challenger(trained, 1)
    refusals: list[str] = []

    def attempt() -> None:
        try:
            promote(trained)
        except Refused as refused:
            refusals.append(str(refused))

    git = Git(trained)
    with git.lock("evergreen"):  # both have read the state before either may act
        threads = [threading.Thread(target=attempt) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
    for thread in threads:
        thread.join()
    assert len(toy.tags(trained)) == 2
    assert len(refusals) == 1
    assert "meanwhile v1.0.0 became champion (promote by Evergreen" in refusals[0]


def test_version_left_by_a_kill_amid_the_transaction_is_taken_up(trained):
    hashes = promoted(trained, 1, 2)
    toy.git(trained, "tag", "-d", "recommender#champion#2")
    (trained / ".git" / "refs" / "tags" / "recommender#champion#2.lock").touch()
    assert champion_of(trained) == "v1.0.0"
    assert [row.status for row in versions_table(trained)] == ["registered", "champion"]
    toy.use_challenger(trained, 2, champion=hashes[0])
    assert promote(trained).name == "v2.0.0"
    assert champion_of(trained) == "v2.0.0"
    assert sum("@" in tag for tag in toy.tags(trained)) == 2


GIT_THAT_KILLS = """#!/bin/sh
# git, but as soon as (WHEN) the subcommand COMMAND is called, its caller dies by kill -9
[ "$3 $WHEN" = "$COMMAND before" ] && kill -9 $PPID
{git} "$@"
code=$?
[ "$3 $WHEN" = "$COMMAND after" ] && kill -9 $PPID
exit $code
"""


def killed_beside_git(project: Path, folder: Path, action: str, command: str, when: str) -> None:
    """Run the action with a git that kills its caller by kill -9; waits until git has let go of the lock."""
    (folder / "bin").mkdir()
    (folder / "bin" / "git").write_text(GIT_THAT_KILLS.format(git=shutil.which("git")))
    (folder / "bin" / "git").chmod(0o755)
    environment = toy.environment() | {"COMMAND": command, "WHEN": when}
    environment["PATH"] = f"{folder / 'bin'}:{environment['PATH']}"
    done = subprocess.run([sys.executable, "-c", ACTION, str(project), action], env=environment, check=False)
    assert done.returncode == -9
    with Git(project).lock("evergreen"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "when", "after"),
    [
        ("write-tree", "after", "old"),
        ("commit-tree", "after", "old"),
        ("mktag", "after", "old"),
        # git ends what it began, if it was told what: it holds the lock until then.
        ("update-ref", "before", "either"),
        ("update-ref", "after", "new"),
    ],
)
def test_promotion_killed_beside_git_leaves_old_or_new_champion(trained, tmp_path, command, when, after):
    (old,) = promoted(trained, 1)
    new = toy.use_challenger(trained, 2, champion=old)
    killed_beside_git(trained, tmp_path, "promote", command, when)
    if after == "either":
        after = "new" if champion_of(trained) == "v2.0.0" else "old"
    assert champion_of(trained) == {"old": "v1.0.0", "new": "v2.0.0"}[after]
    put_champion(trained)
    assert folder_hash(trained / CHAMPION) == {"old": old, "new": new}[after]
    assert promote(trained).name == "v2.0.0"
    assert sorted(toy.tags(trained))[-2:] == ["recommender@v1.0.0", "recommender@v2.0.0"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "when", "after"),
    [("mktag", "before", "new"), ("mktag", "after", "new"), ("update-ref", "after", "old")],
)
def test_rollback_killed_beside_git_leaves_old_or_new_champion(trained, tmp_path, command, when, after):
    old, new = promoted(trained, 1, 2)
    killed_beside_git(trained, tmp_path, "rollback", command, when)
    assert champion_of(trained) == {"old": "v1.0.0", "new": "v2.0.0"}[after]
    put_champion(trained)
    assert folder_hash(trained / CHAMPION) == {"old": old, "new": new}[after]
    assert rollback(trained, to="v1").name == "v1.0.0"


@pytest.mark.slow
@pytest.mark.parametrize(("command", "when"), [("mktag", "after"), ("update-ref", "after")])
def test_record_killed_beside_git_is_there_or_made_by_the_next(trained, tmp_path, command, when):
    toy.use_challenger(trained, 1)
    killed_beside_git(trained, tmp_path, "record_training", command, when)
    assert record_training(trained)[1] is (command == "mktag")
    assert toy.tags(trained) == ["training/1"]
    assert len(json.loads((trained / "data" / "registry.json").read_text())["trainings"]) == 1


def killed_after(project: Path, seconds: float) -> bool:
    """Start a promotion and kill -9 it; whether it was still running."""
    process = subprocess.Popen(
        [sys.executable, "-c", ACTION, str(project), "promote"], stderr=subprocess.DEVNULL
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


@pytest.mark.slow
def test_promotion_killed_at_any_moment_leaves_old_or_new_champion(trained, tmp_path):
    (old,) = promoted(trained, 1)
    new = toy.use_challenger(trained, 2, champion=old)
    whole = Path(shutil.copytree(trained, tmp_path / "timed", symlinks=True))
    start = time.perf_counter()
    assert not killed_after(whole, PATIENCE_SECONDS)
    duration = time.perf_counter() - start
    kills = 30
    for attempt in range(kills):
        project = Path(shutil.copytree(trained, tmp_path / f"killed-{attempt}", symlinks=True))
        killed_after(project, duration * (0.4 + 0.6 * (attempt + 0.5) / kills))
        time.sleep(0.05)  # a git process that outlives its parent may still end its transaction
        version, _ = put_champion(project)
        assert version.name in ("v1.0.0", "v2.0.0")
        assert folder_hash(project / CHAMPION) == {"v1.0.0": old, "v2.0.0": new}[version.name]
        assert promote(project).name == "v2.0.0"
        put_champion(project)
        assert folder_hash(project / CHAMPION) == new
        shutil.rmtree(project)
