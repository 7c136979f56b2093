"""Fitting anything: as many steps as there are, in every precision; and settings that no fit can have."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn

from pipeline.data.histories import Points
from pipeline.errors import ConfigError
from pipeline.params import Params
from pipeline.training import fitting, progress
from pipeline.training.cost import Meter, Phases
from pipeline.training.fitting import check, fit, is_out_of_memory
from pipeline.training.task import Batches, Run, Task


class Parabola(Task):
    phase, learning_rate = "parabola", 0.1

    def __init__(self, run: Run) -> None:
        none = np.zeros(0, np.int64)
        super().__init__(run, Points(None, none, none, none, none, none))  # type: ignore[arg-type]
        self.place = nn.Parameter(torch.ones(1))

    def training_step(self, batch: np.ndarray, index: int) -> Tensor:
        return self.record((self.place**2).sum(), len(batch))


@pytest.mark.parametrize(
    ("batches", "epochs", "accumulate"), [(1, 1, 1), (3, 3, 1), (9, 1, 1), (2, 3, 4), (5, 2, 3), (7, 1, 2)]
)
def test_every_number_of_steps_can_be_made(
    tmp_path: Path, batches: int, epochs: int, accumulate: int
) -> None:
    tiny.params(tmp_path / "params.yaml", Path("encoder"), accumulate=accumulate)
    run = Run(Params.load(tmp_path / "params.yaml").finetune, 1, tmp_path)
    task = Parabola(run)
    fit(run, task, Batches(run, task.phase, batches, 1), epochs, validate=False, processes=True)
    steps = -(-batches // accumulate) * epochs
    assert task.trainer.global_step == steps
    assert task.total_steps == steps + 1
    assert task.place.item() < 1


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "32-true"])
def test_every_precision_makes_steps(tmp_path: Path, precision: str) -> None:
    tiny.params(tmp_path / "params.yaml", Path("encoder"), precision=precision)
    run = Run(Params.load(tmp_path / "params.yaml").finetune, 1, tmp_path)
    task = Parabola(run)
    fit(run, task, Batches(run, task.phase, 4, 1), 1, validate=False, processes=True)
    assert task.place.item() < 1


def test_without_a_terminal_progress_is_told_in_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    tiny.params(tmp_path / "params.yaml", Path("encoder"))
    run = Run(Params.load(tmp_path / "params.yaml").finetune, 1, tmp_path)
    task = Parabola(run)
    with caplog.at_level("INFO"):
        fit(run, task, Batches(run, task.phase, 3, 1), 2, validate=False)
    lines = [line for line in caplog.messages if line.startswith("parabola: epoch") and "step" in line]
    assert [line.partition("step ")[2].partition(",")[0] for line in lines][-1] == "6 of 6"
    assert "epoch 2 of 2" in lines[-1]


def test_the_tries_before_a_kill_are_part_of_the_cost(tmp_path: Path) -> None:
    (tmp_path / "tries").mkdir()
    killed = {
        "seconds": 1000,
        "cpu_seconds": 700,
        "peak_gib": 99,
        "seconds_by_phase": {"text": 900, "sequence": 50},
    }
    (tmp_path / "tries" / "0.json").write_text(json.dumps(killed))
    phases = Phases()
    second = Meter(tmp_path, phases)
    with phases.of("sequence"):
        pass
    with phases.of("scorer"):  # still under way
        cost = second.stop()
    assert 1000 <= cost["seconds"] < 1100
    assert cost["peak_gib"] == 99
    assert 700 <= cost["cpu_seconds"] < 800
    # 700 s at 10 W and 1,000 s of 99 GiB at .375 W, and a little of its own
    assert 12.2 < cost["energy_wh_estimate"] < 12.6
    assert cost["seconds_by_phase"]["text"] == 900
    assert 50 <= cost["seconds_by_phase"]["sequence"] < 150
    assert set(cost["seconds_by_phase"]) == {"text", "sequence", "scorer"}
    third = Meter(tmp_path, Phases()).stop()  # counts what the second noted, too
    assert third["seconds"] >= cost["seconds"] - 1
    assert third["seconds_by_phase"]["text"] == 900
    assert len(list((tmp_path / "tries").glob("*.json"))) == 3


def test_a_phase_that_is_met_again_counts_on() -> None:
    phases = Phases()
    with phases.of("text"):
        pass
    before = phases.seconds()["text"]
    with phases.of("text"):
        assert phases.seconds()["text"] > before > 0


def test_accumulation_and_precision_are_the_encoder_s_alone(tmp_path: Path) -> None:
    tiny.params(tmp_path / "params.yaml", Path("encoder"), accumulate=4, precision="bf16-mixed")
    run = Run(Params.load(tmp_path / "params.yaml").finetune, 1, tmp_path)
    task = Parabola(run)
    fit(run, task, Batches(run, task.phase, 4, 1), 1, validate=False)
    assert task.trainer.global_step == 4
    assert task.trainer.precision == "32-true"


@pytest.mark.parametrize("settings", [{"devices": 0}, {"devices": "many"}, {"strategy": "banana"}])
def test_what_lightning_refuses_is_named(tmp_path: Path, settings: dict[str, object]) -> None:
    tiny.params(tmp_path / "params.yaml", Path("encoder"), **settings)
    (key, value) = next(iter(settings.items()))
    with pytest.raises(ConfigError, match=rf"^params.yaml: finetune \(.*{key}: {value}.*\): .+"):
        check(Params.load(tmp_path / "params.yaml").finetune)


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"), True),
        (RuntimeError("could not create a primitive"), True),  # oneDNN
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_out_of_memory_is_told_from_bugs(error: Exception, answer: bool) -> None:
    assert is_out_of_memory(error) is answer


@pytest.mark.parametrize(
    ("tiles", "instructions", "maker", "expected"),
    [
        (True, True, "GenuineIntel", "bf16-mixed"),
        (False, True, "GenuineIntel", "32-true"),
        (False, True, "AuthenticAMD", "bf16-mixed"),
        (False, False, "AuthenticAMD", "32-true"),
        (False, True, None, "32-true"),
    ],
)
def test_precision_is_what_the_processor_is_quicker_in(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiles: bool,
    instructions: bool,
    maker: str | None,
    expected: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    monkeypatch.setattr(fitting, "CPUINFO", tmp_path / "cpuinfo")
    if maker:
        (tmp_path / "cpuinfo").write_text(f"vendor_id : {maker}\n")
    assert fitting.precision("auto") == expected
    assert fitting.precision("16-mixed") == "16-mixed"
