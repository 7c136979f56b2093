"""`evergreen forget` and what a model has in closed form: then it is that of a fit without the person."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import erasing
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import tiny
import toy
from conftest import made_once
from safetensors.numpy import load_file

pytest.importorskip("sqlalchemy")

from pipeline.data.histories import Prepared, load_prepared
from pipeline.documents.forgetting import Certificate
from pipeline.documents.model import Card
from pipeline.forget import command
from pipeline.forget.command import forget
from pipeline.forget.models import trained_on
from pipeline.forget.refit import refit
from pipeline.forget.storage import Stays, Storage
from pipeline.models.artifacts import CARD, PARTS, folder_hash
from pipeline.models.baselines import ItemMatrix, train_rows
from pipeline.models.binding import of_prefix
from pipeline.models.collaborative import Collaborative, Settings
from pipeline.models.living import Living
from pipeline.models.pretrained import identify
from pipeline.models.private import Budget
from pipeline.models.recommender import Recommender
from pipeline.models.text import Text
from pipeline.registry.actions import promote, put_champion, rollback
from pipeline.registry.git import Git
from pipeline.registry.objects import Objects, locked_md5
from pipeline.registry.versions import read_state
from pipeline.serve.engine import Engine
from pipeline.serve.events import Store
from pipeline.serve.messages import Question
from pipeline.stages import finetune, preprocess
from pipeline.training.private import described

ANNA, BERT = "u03", "u08"


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in toy.environment().items():
        monkeypatch.setenv(name, value)
    once = made_once(tmp_path_factory, "matrices", lambda folder: project(folder / "project"))
    shutil.copytree(once, tmp_path / "all", symlinks=True)
    config = tmp_path / "all/project/.dvc/config"
    config.write_text(config.read_text().replace(str(once), str(tmp_path / "all")))
    return tmp_path / "all/project"


def project(root: Path) -> Path:
    """Two versions, really trained on the same data; both in DVC's cache and a remote beside it."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    toy.new_project(root)
    remote = f"['remote \"store\"']\n    url = {root.parent / 'remote'}\n"
    (root / ".dvc/config").write_text(f"[core]\n    analytics = false\n    remote = store\n{remote}")
    encoder = tiny.encoder(root.parent / "encoder")
    params = tiny.params(root / "params.yaml", encoder, epochs=1)
    identify(str(encoder)).write(root / "data/encoder.json")
    toy.git(root, "commit", "-qam", "Bring own data")
    prepared, challenger = root / "data/prepared", root / "models/challenger"
    preprocess.main(tiny.raw(root / "data/raw"), prepared, params)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        finetune.main(
            prepared,
            Path("data/encoder.json"),
            challenger,
            root / "models/ablations",
            root / "reports/training",
            params,
        )
    before = None
    for name in ("first", "second"):
        train(root, name)
        toy.write_verdict(root, champion=before)
        promote(root, reason="for this test")
        put_champion(root)
        before = folder_hash(challenger)
    return root


def train(root: Path, name: str) -> None:
    """Another challenger, which knows the same."""
    path = root / "models/challenger" / CARD
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": name}))
    lock(root)


def lock(root: Path) -> None:
    data, model = (
        f"    - path: {path}\n      hash: md5\n{erasing.kept(root, root / path)}"
        for path in ("data/prepared", "models/challenger")
    )
    stages = f"  preprocess:\n    cmd: make\n    outs:\n{data}"
    stages += f"  finetune:\n    cmd: make\n    deps:\n{data}    outs:\n{model}"
    (root / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n{stages}")


def forgotten(root: Path, user: str, dry_run: bool = False) -> Certificate:
    told = forget(root, user, dry_run)
    assert told is not None
    return told


def rows_left(root: Path, *people: str) -> Prepared:
    """data/prepared as it was, read without these users' rows."""
    folder = root.parent / "left" / "-".join(people)
    folder.mkdir(parents=True)
    for path in (root / "data/prepared").iterdir():
        shutil.copy(path, folder)
        if path.suffix == ".parquet" and "user_id" in (table := pd.read_parquet(path)):
            table[~table["user_id"].isin(people)].to_parquet(folder / path.name)
    return load_prepared(folder)


def matrices(fit: Collaborative) -> dict[str, np.ndarray]:
    """By name, over the whole catalogue."""

    def whole(model: ItemMatrix) -> np.ndarray:
        out = np.zeros((model.items, model.items))
        out[np.ix_(model.kept, model.kept)] = sp.csr_matrix(model.matrix).toarray()
        return out

    found = {name: whole(getattr(fit, name)) for name in ("ease", "knn", "rules")}
    found |= {name: getattr(fit, name) for name in ("count", "value", "liked")}
    return found | {"ials": fit.ials.vectors, "known": fit.ials.known.astype(float)}


def of_folder(folder: Path) -> Collaborative:
    arrays = of_prefix("collaborative", load_file(folder / PARTS))
    return Collaborative.bound(arrays, np.arange(tiny.ITEMS), tiny.ITEMS)


def fit_on(left: Prepared, folder: Path) -> Collaborative:
    card = Card.read(folder / CARD)
    settings = Settings.of(card.training)
    assert card.seed is not None
    return Collaborative.fit(left.log, train_rows(left.log), len(left.catalogue), settings, card.seed)


def apart(first: Collaborative, second: Collaborative) -> dict[str, float]:
    others = matrices(second)
    return {name: float(np.abs(own - others[name]).max()) for name, own in matrices(first).items()}


def test_matrices_and_scores_are_those_of_a_fit_without_the_person(root: Path) -> None:
    champion, left = root / "models/champion", rows_left(root, ANNA)
    before = of_folder(champion)
    expected = fit_on(left, champion)
    assert max(apart(before, expected).values()) > 0.01
    told = forgotten(root, ANNA)
    assert max(apart(of_folder(champion), expected).values()) < 1e-6

    # The lists, with what follows from the matrices: texts' expectations, the live state's folded items.
    found = Recommender.load(champion, left.catalogue.items, left.log)
    assert found.parts.text is not None
    parts = found.parts
    half_lives = parts.living.live.half_lives
    fit_anew = replace(
        parts,
        collaborative=expected,
        text=Text.fit(found.parts.text.vectors, left.catalogue, expected),
        living=Living.of(left.log, left.catalogue, half_lives, expected.ials),
    )
    for (items, scores), (as_items, as_scores) in zip(
        found.candidates(left.test), replace(found, parts=fit_anew).candidates(left.test), strict=True
    ):
        np.testing.assert_array_equal(items, as_items)
        np.testing.assert_allclose(scores, as_scores, atol=1e-6)
        assert np.isfinite(scores[items >= 0]).all()
    places = {place.place: place for place in told.places}
    assert places["matrices of v2.0.0"].rows == 12
    assert "fitted anew" in places["matrices of v2.0.0"].done
    [sentence] = [text for text in told.models if "champion" in text]
    assert "are without them now" in sentence
    assert "encoder" in sentence


def test_the_new_model_is_everywhere_and_the_old_matrices_nowhere(root: Path) -> None:
    state = read_state(Git(root))
    files, rows = (
        Objects(root).files(md5)
        for md5 in (state.versions[-1].md5, trained_on((root / "dvc.lock").read_text()))
    )
    assert files is not None
    assert rows is not None
    gone = (files[PARTS], rows["train.parquet"])
    old, stays = [f"{path.parent.name}/{path.name}" for path in gone], files["encoder/config.json"]
    places = (root / ".dvc/cache/files/md5", root.parent / "remote/files/md5")
    assert all((place / name).is_file() for place in places for name in old)
    forgotten(root, ANNA)
    assert not [name for place in places for name in old if (place / name).exists()]
    assert stays.is_file()
    state = read_state(Git(root))
    for version in state.versions:
        Objects(root).require(version.md5, version.artifact_hash)
        text = Git(root).show(version.lock_commit, "dvc.lock")
        assert locked_md5(text) == version.md5  # what `dvc gc --all-tags` keeps
        assert version.fitted_without == 1
        assert trained_on(text) == locked_md5((root / "dvc.lock").read_text(), "data/prepared")
    assert state.champion is not None
    for name in ("models/champion", "models/challenger"):
        assert folder_hash(root / name) == state.champion.artifact_hash
    assert locked_md5((root / "dvc.lock").read_text()) == state.champion.md5
    shutil.rmtree(root / ".dvc/cache")
    assert rollback(root, to="v1").name == "v1.0.0"  # from the remote
    put_champion(root)
    assert (
        max(apart(of_folder(root / "models/champion"), of_folder(root / "models/challenger")).values()) == 0
    )


def test_again_it_changes_nothing_and_the_next_person_goes_as_well(root: Path) -> None:
    left = rows_left(root, ANNA, BERT)
    first = forgotten(root, ANNA)
    before, tags = folder_hash(root / "models/champion"), toy.tags(root)
    again = forgotten(root, ANNA)
    assert (folder_hash(root / "models/champion"), toy.tags(root)) == (before, tags)
    assert [place for place in again.places if "matrices" in place.place] == [
        place for place in first.places if "matrices" in place.place
    ]
    told = forgotten(root, BERT)
    champion = root / "models/champion"
    assert max(apart(of_folder(champion), fit_on(left, champion)).values()) < 1e-6
    assert [version.fitted_without for version in read_state(Git(root)).versions] == [2, 2]
    assert "are without them now" in " ".join(told.models)
    for version in read_state(Git(root)).versions:
        text = Git(root).show(version.lock_commit, "dvc.lock")
        assert locked_md5(text) == version.md5


def test_a_look_says_which_and_changes_nothing(root: Path) -> None:
    before, tags = erasing.snapshot(root.parent), toy.tags(root)
    told = forgotten(root, ANNA, dry_run=True)
    assert (erasing.snapshot(root.parent), toy.tags(root)) == (before, tags)
    assert {place.place: place.rows for place in told.places}["matrices of v1.0.0"] == 12


def test_without_the_rows_that_it_was_fitted_on_they_stay_and_it_is_said(root: Path) -> None:
    champion = root / "models/champion"
    before = of_folder(champion)
    md5 = trained_on((root / "dvc.lock").read_text())
    files = Objects(root).files(md5)
    assert md5 is not None
    assert files is not None
    for name in (md5, *[path.parent.name + path.name for path in files.values()]):
        for place in (root / ".dvc/cache/files/md5", root.parent / "remote/files/md5"):
            (place / name[:2] / name[2:]).unlink()
    told = forgotten(root, ANNA)
    assert max(apart(of_folder(champion), before).values()) == 0
    [place] = [place for place in told.places if place.place == "matrices of v2.0.0"]
    assert "not kept" in place.done
    assert place.rows is None
    assert not [text for text in told.models if "without them now" in text]
    assert not with_rows(champion)
    assert folder_hash(champion) == read_state(Git(root)).champion.artifact_hash  # type: ignore[union-attr]


def test_other_rows_than_those_that_it_was_fitted_on_are_refused(root: Path) -> None:
    """Of data/prepared that another commit of the code made, say: more than the person would change."""
    champion, path = root / "models/champion", root / "data/prepared/train.parquet"
    before = of_folder(champion)
    pd.read_parquet(path).iloc[5:].to_parquet(path)
    toy.git(root, "tag", "--delete", "recommender@v1.0.0", "recommender@v2.0.0")
    lock(root)
    toy.git(root, "tag", "--delete", *[tag for tag in toy.tags(root) if "champion" in tag])
    toy.write_verdict(root)
    promote(root, reason="for this test")
    put_champion(root)
    told = forgotten(root, ANNA)
    [place] = [place for place in told.places if place.place == "matrices of v1.0.0"]
    assert "not those" in place.done
    assert max(apart(of_folder(champion), before).values()) == 0
    assert not with_rows(champion)


def test_a_challenger_that_is_no_version_is_fitted_anew_as_well(root: Path) -> None:
    challenger = root / "models/challenger"
    expected = fit_on(rows_left(root, ANNA), challenger)
    train(root, "third")
    before = folder_hash(challenger)
    forgotten(root, ANNA)
    assert max(apart(of_folder(challenger), expected).values()) < 1e-6
    state = read_state(Git(root))
    assert state.hashes[before] == folder_hash(challenger)
    Objects(root).require(locked_md5((root / "dvc.lock").read_text()), folder_hash(challenger))
    # Promoted later, it is known to be without her.
    toy.write_verdict(root, champion=state.champion.artifact_hash)  # type: ignore[union-attr]
    assert promote(root, reason="for this test").name == "v3.0.0"
    state = read_state(Git(root))
    assert state.versions[-1].fitted_without == 1
    assert state.versions[-1].lock_commit == state.versions[-1].commit


def test_a_model_with_a_budget_stays_as_it_was_released(root: Path) -> None:
    """Another release would spend the budget again."""
    champion = root / "models/champion"
    card = json.loads((champion / CARD).read_text())
    told = described(Budget(4.0, 1e-5)).to_dict()
    (champion / CARD).write_text(json.dumps(card | {"privacy": told}))
    with pytest.raises(Stays, match="noise"):
        refit(champion, root / "data/prepared", root / "data/prepared", root / "parts")
    assert not (root / "parts").exists()


def test_a_copy_without_a_shared_remote_goes_by_the_tags(root: Path) -> None:
    """It can fetch tags, and has to make the folders itself."""
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n")
    twin = Path(shutil.copytree(root.parent, root.parent.parent / "twin", symlinks=True)) / "project"
    shutil.rmtree(root.parent / "remote")
    shutil.rmtree(twin.parent / "remote")
    expected = fit_on(rows_left(root, ANNA), root / "models/champion")
    forgotten(root, ANNA)
    toy.git(twin, "fetch", "-q", "--tags", str(root))
    (twin / ".evergreen").mkdir(exist_ok=True)
    shutil.copy(root / ".evergreen/forgotten.key", twin / ".evergreen")
    tags = toy.tags(twin)
    forgotten(twin, ANNA)
    assert toy.tags(twin) == tags  # the same folders, which are noted
    assert max(apart(of_folder(twin / "models/champion"), expected).values()) < 1e-6
    assert folder_hash(twin / "models/champion") == folder_hash(root / "models/champion")
    assert not with_rows(twin)


def test_the_service_takes_it_over_without_a_restart(root: Path) -> None:
    engine = Engine(root, Store(f"sqlite:///{root}/.evergreen/events.db"))
    try:
        engine.load()
        before = engine.world.digest
        forgotten(root, ANNA)
        engine.renew()
        assert engine.whole_problem is None
        assert engine.world.digest == folder_hash(root / "models/champion") != before
        assert engine.version == "v2.0.0"
        listed = engine.recommend(Question(user_id=BERT, k=5))[0].items
        colours = [colour for one in listed for colour in one.categories]
        assert colours.count("red") >= 4  # Bert's colour: which red ones is rounding, they are all alike
    finally:
        engine.close()
        engine.store.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "when", ["before 1", "after 1", "before 2", "after 2", "before 3", "after 3", "erasing 2"]
)
def test_killed_while_models_are_made_anew_it_goes_on(when: str, root: Path) -> None:
    champion, challenger = root / "models/champion", root / "models/challenger"
    expected = fit_on(rows_left(root, ANNA), champion)
    train(root, "third")  # and was not promoted
    code = "import test_forget_matrices, sys; test_forget_matrices.forget_until(*sys.argv[1:])"
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    command = [sys.executable, "-c", code, str(root), when]
    killed = subprocess.run(command, env=toy.environment() | {"PYTHONPATH": path}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert folder_hash(champion)
    forgotten(root, ANNA)
    for folder in (champion, challenger):
        assert max(apart(of_folder(folder), expected).values()) < 1e-6
    assert not with_rows(root.parent)
    state = read_state(Git(root))
    assert [version.fitted_without for version in state.versions] == [1, 1]
    for version in state.versions:
        Objects(root).require(version.md5, version.artifact_hash)
    assert folder_hash(champion) == state.champion.artifact_hash  # type: ignore[union-attr]
    Objects(root).require(locked_md5((root / "dvc.lock").read_text()), folder_hash(challenger))
    # No more matrices are kept than those of both versions, and of whom the models are.
    kept = {path for path in (root / ".dvc/cache").rglob("*") if path.is_file() and has_parts(path)}
    assert kept == {Objects(root).files(version.md5)[PARTS] for version in state.versions}  # type: ignore[index]


def with_rows(folder: Path) -> list[Path]:
    """Tables with a row of Anna's."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and path.read_bytes()[:4] == b"PAR1":
            table = pd.read_parquet(path)
            if "user_id" in table and (table["user_id"] == ANNA).any():
                found.append(path)
    return found


def has_parts(path: Path) -> bool:
    return b'"collaborative.count"' in path.read_bytes()[:20_000]


def forget_until(root: str, when: str) -> None:
    """Killed before or after the n-th model is noted in the registry, or before the n-th object goes."""
    noted, (side, number) = 0, when.split()
    real, delete, gone = command.note_rewritten, Storage.delete, list[str]()

    def erase(place: Storage, oid: str) -> None:
        gone.append(oid)
        if (side, str(len(gone))) == ("erasing", number):
            os.kill(os.getpid(), signal.SIGKILL)
        delete(place, oid)

    def note(*arguments: object) -> object:
        nonlocal noted
        noted += 1
        if (side, str(noted)) == ("before", number):
            os.kill(os.getpid(), signal.SIGKILL)
        state = real(*arguments)  # type: ignore[arg-type]
        if (side, str(noted)) == ("after", number):
            os.kill(os.getpid(), signal.SIGKILL)
        return state

    command.note_rewritten = note  # type: ignore[assignment]
    Storage.delete = erase  # type: ignore[method-assign]
    forget(Path(root), ANNA)
