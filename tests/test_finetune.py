"""The whole stage on a tiny world: what it learns, what it writes, and that a kill costs nothing."""

import json
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tiny
from torch import Tensor

from pipeline.data.histories import load_prepared
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation import ranked
from pipeline.evaluation.tuning import frozen_order
from pipeline.models.artifacts import folder_hash
from pipeline.models.pretrained import identify
from pipeline.models.ranking import rank_points
from pipeline.models.recommender import Recommender
from pipeline.params import Params
from pipeline.stages import finetune, preprocess
from pipeline.training import recipe, text_training
from pipeline.training.task import Run
from pipeline.training.text_task import TextTask

REPOSITORY = Path.cwd()
OUTPUTS = ("models/challenger", "models/ablations", "reports/training")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    tiny.raw(folder / "raw")
    tiny.params(folder / "params.yaml", tiny.encoder(folder / "encoder"))
    identify(str(folder / "encoder")).write(folder / "encoder.json")
    preprocess.main(folder / "raw", folder / "prepared", folder / "params.yaml")
    return folder


def command(world: Path) -> list[str]:
    paths = [str(world / "prepared"), str(world / "encoder.json"), *OUTPUTS]
    return [sys.executable, "-m", "pipeline.stages.finetune", *paths, "--params", str(world / "params.yaml")]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    told = logging.FileHandler(folder / "told")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(logging.getLogger(), "handlers", [told])
        patch.setattr(logging.getLogger(), "level", logging.INFO)
        outputs = (Path(path) for path in OUTPUTS)
        finetune.main(world / "prepared", world / "encoder.json", *outputs, params=world / "params.yaml")
    told.close()
    return folder


def test_what_is_trained_is_said_before_the_first_step(world: Path, trained: Path) -> None:
    told = (trained / "told").read_text()
    first = next(line for line in told.splitlines() if line.startswith("text: "))
    assert re.fullmatch(
        rf"text: {world / 'encoder'}: 1 of 2 layers trained, 1 frozen; \d+ items, \d+ steps of 32 points, "
        r"about \d+ s",
        first,
    )
    assert told.index(first) < told.index("text: epoch 1: ")


def test_out_of_memory_names_what_fits(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = TextTask.step

    def step(self: TextTask, batch: np.ndarray, generator: np.random.Generator) -> Tensor:
        if len(batch) > 8:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return made(self, batch, generator)

    monkeypatch.setattr(TextTask, "step", step)
    context = Run(Params.load(world / "params.yaml").finetune, 1, tmp_path)
    with pytest.raises(ConfigError, match=r"finetune.batch_size: out of memory at 32; 8 fits$"):
        finetune.finetune(load_prepared(world / "prepared"), context)


def test_where_no_batch_fits_other_keys_are_named() -> None:
    encoder = SimpleNamespace(layers=range(6))
    task = SimpleNamespace(can_step=lambda size: False, encoder=encoder, frozen_layers=2)
    assert text_training._too_large(task, 256) == (  # type: ignore[arg-type]
        "params.yaml: finetune.batch_size: out of memory at 256; no other fits: set "
        "finetune.trainable_layers below 4, finetune.lora_rank to 8, or finetune.encoder to a smaller one"
    )


def test_memory_that_ends_later_is_no_matter_of_the_batch(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.\nmore")

    monkeypatch.setattr(finetune, "train", fail)
    context = Run(Params.load(world / "params.yaml").finetune, 1, tmp_path)
    with pytest.raises(DataError, match=r"not enough memory to train on .* 9 bytes.\): free some, or"):
        finetune.finetune(load_prepared(world / "prepared"), context)


def test_weights_of_the_encoder_change(world: Path, trained: Path) -> None:
    from pipeline.models.encoder import TextEncoder

    before = TextEncoder.load(str(world / "encoder"), 16).state_dict()
    after = TextEncoder.load(str(trained / "models/challenger/encoder"), 16).state_dict()
    top = [key for key in before if ".layer.1." in key and "weight" in key]
    assert max(float((before[key] - after[key]).abs().max()) for key in top) > 1e-3
    # Half precision on disk: what was frozen comes back within its rounding.
    frozen = [key for key in before if ".layer.0." in key]
    assert max(float((before[key] - after[key]).abs().max()) for key in frozen) < 1e-3


def test_taste_is_learned(world: Path, trained: Path) -> None:
    from pipeline.models.ranking import popularity_order, rank_points
    from pipeline.models.recommender import Recommender

    prepared = load_prepared(world / "prepared")
    model = Recommender.load(trained / "models/challenger", prepared.catalogue.items, prepared.log)
    points = prepared.test[np.flatnonzero(prepared.test.lengths >= 2)]
    order = popularity_order(model.popularity, prepared.catalogue.ids)
    top, _ = rank_points(model, points, prepared.catalogue, order, 1)
    own = points.log.item[points.stop - 1] % 2
    assert (top[:, 0] % 2 == own).mean() > 0.9


def test_curves_and_figures_are_written(trained: Path) -> None:
    curves = pd.read_csv(trained / "reports/training/curves.csv")
    assert set(curves.columns) == {"phase", "step", "metric", "value"}
    assert {"text", "sequence (challenger)", "scorer (challenger)"} <= set(curves["phase"])
    figures = json.loads((trained / "reports/training/summary.json").read_text())
    assert figures["unknown_token_share"] == 0
    phases = figures["seconds_by_phase"]
    assert figures["seconds"] + 0.05 * (1 + len(phases)) > sum(phases.values()) > 0  # each is rounded
    assert {"text", "scorer (frozen_text)"} <= set(figures["seconds_by_phase"])
    cost = json.loads((trained / "reports/training/cost.json").read_text())  # DVC's metrics: numbers alone
    told = ("seconds", "cpu_seconds", "peak_gib", "energy_wh_estimate")
    assert cost == {f"training_{name}": figures[name] for name in told}
    assert figures["cpu_seconds"] > 0
    assert 0 < figures["energy_wh_estimate"] < 10
    assert not (trained / ".evergreen/checkpoints").exists() or not any(
        (trained / ".evergreen/checkpoints").iterdir()
    )


def test_model_folder_holds_no_time_and_repeats_exactly(
    world: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, where other tests trained before: nothing of them is in it either."""
    monkeypatch.chdir(tmp_path)
    outputs = (Path(path) for path in OUTPUTS)
    finetune.main(world / "prepared", world / "encoder.json", *outputs, params=world / "params.yaml")
    assert folder_hash(tmp_path / OUTPUTS[0]) == folder_hash(trained / OUTPUTS[0])


KILLED = """
import os, runpy, signal, sys
from pipeline.training import progress

phase, step = sys.argv[1], int(sys.argv[2])
progress.CHECKPOINT_SECONDS = 0
saved = progress.Saved.on_train_batch_end


def then_die(self, trainer, module, *others):
    saved(self, trainer, module, *others)
    if module.phase == phase and trainer.global_step == step:
        os.kill(os.getpid(), signal.SIGKILL)


progress.Saved.on_train_batch_end = then_die
sys.argv = ["finetune", *sys.argv[3:]]
runpy.run_module("pipeline.stages.finetune", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "told"),
    [
        ("text", "text: resumed from epoch 1, step 2"),
        ("scorer (challenger)", "resumed from"),
    ],
)
def test_run_killed_in_mid_epoch_goes_on_to_the_same_model(
    world: Path, trained: Path, tmp_path: Path, phase: str, told: str
) -> None:
    killed = [sys.executable, "-c", KILLED, phase, "2", *command(world)[3:]]
    done = subprocess.run(killed, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / OUTPUTS[0]).exists()
    done = subprocess.run(command(world), cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert told in done.stderr
    figures = [json.loads((at / OUTPUTS[2] / "summary.json").read_text()) for at in (tmp_path, trained)]
    assert len({one["challenger_validation_ndcg@10"] for one in figures}) == 1
    assert folder_hash(tmp_path / OUTPUTS[0]) == folder_hash(trained / OUTPUTS[0])


@pytest.mark.slow
def test_two_processes_train_what_one_does(world: Path, trained: Path, tmp_path: Path) -> None:
    settings = tiny.params(tmp_path / "two.yaml", world / "encoder", devices=2, strategy="ddp")
    two = [*command(world)[:-1], str(settings)]
    done = subprocess.run(two, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        done.stderr.count("trained in") == done.stderr.count("text: epoch 1") == 1
    )  # the first alone prints
    found = [pd.read_csv(at / OUTPUTS[2] / "curves.csv") for at in (tmp_path, trained)]
    values = [curves.loc[curves["phase"] == "text", "value"].to_numpy() for curves in found]
    assert len(values[0])
    np.testing.assert_allclose(*values, rtol=2e-3)  # sums in another order, no more


@pytest.mark.slow
def test_bfloat16_trains_what_single_precision_does(
    world: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What precision: auto means on processors and GPUs that compute in it."""
    settings = tiny.params(tmp_path / "params.yaml", world / "encoder", precision="bf16-mixed")
    monkeypatch.chdir(tmp_path)
    finetune.main(
        world / "prepared", world / "encoder.json", *(Path(path) for path in OUTPUTS), params=settings
    )
    found = [pd.read_csv(at / OUTPUTS[2] / "curves.csv") for at in (tmp_path, trained)]
    loss = [c.loc[(c["phase"] == "text") & (c["metric"] == "loss"), "value"].to_numpy() for c in found]
    np.testing.assert_allclose(*loss, rtol=0.02)


def test_no_item_text_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.raw(tmp_path / "raw", texts=False)
    settings = tiny.params(tmp_path / "params.yaml", tiny.encoder(tmp_path / "encoder"))
    preprocess.main(tmp_path / "raw", tmp_path / "prepared", settings)
    monkeypatch.chdir(tmp_path)
    made = (Path(path) for path in OUTPUTS)
    finetune.main(tmp_path / "prepared", tmp_path / "encoder.json", *made, params=settings)
    prepared = load_prepared(tmp_path / "prepared")
    from pipeline.models.recommender import Recommender

    model = Recommender.load(Path(OUTPUTS[0]), prepared.catalogue.items, prepared.log)
    assert all(np.isfinite(scores[items >= 0]).all() for items, scores in model.candidates(prepared.test))
    told = json.loads((Path(OUTPUTS[2]) / "summary.json").read_text())
    assert told["not_fine_tuned"] == "no item has a text"
    assert told["trainable_layers"] == 0


def test_scorer_is_not_fitted_on_inputs_that_met_no_row(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of train at one timestamp: its rows are the later ones, and there are no inner ones."""
    made = recipe.split

    def split(*arguments: object) -> object:
        parts = made(*arguments)  # type: ignore[arg-type]
        return replace(parts, cuts=[replace(cut, inner=np.zeros_like(cut.inner)) for cut in parts.cuts])

    monkeypatch.setattr(recipe, "split", split)
    context = Run(Params.load(world / "params.yaml").finetune, 1, tmp_path)
    prepared = load_prepared(world / "prepared")
    trained = finetune.finetune(prepared, context, ablations=False)
    assert trained.summary["challenger_scorer_epochs"] == 0
    model = trained.models["challenger"]
    assert all(np.isfinite(scores[items >= 0]).all() for items, scores in model.candidates(prepared.test))


def test_why_nothing_is_fine_tuned() -> None:
    settings = Params.load(Path("params.yaml")).finetune
    why = text_training._nothing_to_train
    assert why(settings, no_text=False, points=1) == ""
    assert why(settings.model_copy(update={"epochs": 0}), False, 1) == "finetune.epochs is 0"
    assert (
        why(settings.model_copy(update={"trainable_layers": 0}), False, 1) == "finetune.trainable_layers is 0"
    )
    assert why(settings, no_text=False, points=0).startswith("no success in train")


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("package:no_such_package/model", "finetune.encoder: package no_such_package is not installed"),
        ("./nowhere", "finetune.encoder: ./nowhere: no such folder"),
        ("package:numpy/core", r"finetune.encoder: no model \(config.json\)"),
    ],
)
def test_unknown_encoder_is_named(world: Path, encoder: str, message: str) -> None:
    from pipeline.models.encoder import TextEncoder

    with pytest.raises(ConfigError, match=message):
        TextEncoder.load(encoder, 16)


def test_encoder_without_tokenizer_is_named(tmp_path: Path) -> None:
    from pipeline.models.encoder import TextEncoder

    folder = tiny.encoder(tmp_path / "encoder")
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "vocab.txt").unlink()
    with pytest.raises(ConfigError, match="tokenizer"):
        TextEncoder.load(str(folder), 16)


def test_a_second_process_ranks_as_each_model_does_by_itself(
    world: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ranked, "FEWEST_POINTS", 1)
    monkeypatch.setattr(ranked, "processors", lambda: 2)
    models = trained / "models"
    training = ranked.Training(world / "prepared", models / "challenger", models / "ablations", 0)
    prepared = load_prepared(training.data)

    def load(folder: Path) -> Recommender:
        return Recommender.load(folder, prepared.catalogue.items, prepared.log, delay_seconds=0)

    challenger = load(training.challenger)
    apart = {name: load(training.ablations / name) for name in ("without_text", "frozen_text")}
    apart |= {"challenger": challenger}
    apart |= {"frozen_state": load(training.challenger).with_state(prepared.train_end + 1, "frozen_state")}
    order = frozen_order(prepared)
    alone = {
        name: rank_points(model, prepared.test, prepared.catalogue, order, 10)
        for name, model in apart.items()
    }
    with ranked.ranked_beside(training, challenger, prepared, 10) as there:
        found = there()
    assert multiprocessing.active_children() == []
    with ranked.ranked_beside(training, challenger, prepared, 10) as there:
        [other] = multiprocessing.active_children()
        other.kill()
        here = there()
    assert "the trained models are ranked here" in caplog.text
    for lists in (found.lists, here.lists):
        assert lists.keys() == alone.keys()
        for name, (items, scores) in lists.items():
            np.testing.assert_array_equal(items, alone[name][0])
            np.testing.assert_array_equal(scores, alone[name][1])
    assert found.seconds.keys() == alone.keys()


def test_models_of_one_training_share_what_users_took_together(world: Path, trained: Path) -> None:
    prepared = load_prepared(world / "prepared")
    items, rows, models = prepared.catalogue.items, prepared.log, trained / "models"
    challenger = Recommender.load(models / "challenger", items, rows)
    ablation = Recommender.load(models / "ablations/without_text", items, rows)
    shared = ablation.sharing(challenger)
    assert shared.parts.collaborative is challenger.parts.collaborative
    assert shared.parts.living is challenger.parts.living
    other = replace(challenger.parts.collaborative, count=challenger.parts.collaborative.count + 1)
    stranger = replace(challenger, parts=replace(challenger.parts, collaborative=other))
    assert ablation.sharing(stranger) is ablation
