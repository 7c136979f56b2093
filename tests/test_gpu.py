"""The encoder on a device: what it learns, what a kill costs, what it agrees with, time and memory.

By default on the processor and in a tiny size; `make gpu-check` on a CUDA device (docs/gpu.md), in a size
whose figures mean something. It imports nothing but what `make gpu-wheels` brings.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import text_fits
import tiny
import torch

from pipeline.bench import encode, training
from pipeline.bench._device import peak_gib
from pipeline.models.encoder import TextEncoder
from pipeline.params import Params
from pipeline.training import progress
from pipeline.training.task import NDCG

ROOT = Path(__file__).parent.parent
MINILM = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
}
"""The shape of all-MiniLM-L6-v2: time and memory do not depend on what the weights are."""
LARGE = {"items": 5000, "users": 3000, "rows": 20, "words": 40}
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
GPU = pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])
Tell = Callable[[str], None]


@pytest.fixture(params=["cpu", GPU])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """`cpu` is refused where Lightning would take a GPU: the test would not be about what it says."""
    if request.param == "cpu" and torch.cuda.is_available():
        pytest.skip("Lightning takes the GPU here: make gpu-check")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(request.param == "cuda", warn_only=True)
    yield request.param
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.encoder(tmp_path_factory.mktemp("encoder") / "bert")


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str], device: str) -> Tell:
    """Print a figure with what it was measured on, so that it can be copied as it is."""
    name = torch.cuda.get_device_name() if device == "cuda" else "processor"

    def line(text: str) -> None:
        with capsys.disabled():
            print(f"\n{name}, torch {torch.__version__}: {text}")

    return line if device == "cuda" else lambda text: None


def fit_elsewhere(encoder: Path, folder: Path, hide_gpus: bool, **finetune: object) -> list[dict]:
    """The curves of the same training in processes of its own."""
    paths = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if hide_gpus else {}
    command = [sys.executable, ROOT / "tests" / "text_fits.py", encoder, folder, json.dumps(finetune)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths} | hidden, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "curves.json").read_text())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_learns_the_tastes(
    encoder: Path, tmp_path: Path, device: str, precision: str, tell: Tell
) -> None:
    given = text_fits.settings(encoder, tmp_path, precision=precision)
    start = training.ndcg(training.make(text_fits.world(given), training.Way(given), 1, device)[0])
    task, curves = text_fits.fit(given, tmp_path)
    end = training.ndcg(task)
    assert (task.trainer.precision, task.trainer.strategy.root_device.type) == (precision, device)
    loss = text_fits.values(curves, "loss")
    assert loss[-1] < loss[0]
    assert end > start + 0.02
    tell(f"{precision}: validation nDCG@10 {start:.4f} before, {end:.4f} after")


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), GPU], indirect=True)
def test_a_run_stopped_in_mid_epoch_ends_where_an_undisturbed_one_does(
    encoder: Path, tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "CHECKPOINT_SECONDS", 0.0)
    given = text_fits.settings(encoder, tmp_path, precision="32-true")
    whole, told = text_fits.fit(given, tmp_path / "whole")
    with pytest.raises(text_fits.Stopped):
        text_fits.fit(given, tmp_path / "stopped", stop_at=3)
    saved = torch.load(tmp_path / "stopped" / "text" / "last.ckpt", weights_only=False, map_location="cpu")
    assert (saved["epoch"], saved["global_step"]) == (0, 3)
    again, curves = text_fits.fit(given, tmp_path / "stopped")
    exact = {"rtol": 0, "atol": 0} if device == "cpu" else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(again.encoder.state_dict(), whole.encoder.state_dict(), **exact)
    np.testing.assert_allclose(text_fits.values(curves, "loss"), text_fits.values(told, "loss"), rtol=1e-4)


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), GPU], indirect=True)
def test_the_device_trains_what_the_processor_does(
    encoder: Path, tmp_path: Path, device: str, tell: Tell
) -> None:
    _, here = text_fits.fit(text_fits.settings(encoder, tmp_path, precision="32-true"), tmp_path / "here")
    there = fit_elsewhere(encoder, tmp_path, True, precision="32-true")
    losses = [text_fits.values(curves, "loss") for curves in (here, there)]
    np.testing.assert_allclose(*losses, rtol=1e-2 if device == "cuda" else 1e-6)
    quality = [text_fits.values(curves, NDCG) for curves in (here, there)]
    np.testing.assert_allclose(*quality, atol=0.03 if device == "cuda" else 1e-6)
    tell(f"validation nDCG@10 by epoch {quality[0].round(4)}, on the processor {quality[1].round(4)}")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="ddp needs two CUDA devices")
def test_two_devices_train_what_one_does(encoder: Path, tmp_path: Path) -> None:
    """Two processes on one processor: test_finetune.py."""
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    two = fit_elsewhere(encoder, tmp_path / "two", False, precision="32-true", devices=2, strategy="ddp")
    one = fit_elsewhere(encoder, tmp_path / "one", False, precision="32-true")
    for metric in ("loss", NDCG):
        np.testing.assert_allclose(*(text_fits.values(curves, metric) for curves in (two, one)), rtol=5e-3)


@pytest.fixture
def sized(device: str, encoder: Path, tmp_path: Path) -> training.World:
    """Of a size that says something on a GPU, with the settings of params.yaml; tiny on the processor."""
    if device == "cpu":
        return text_fits.world(text_fits.settings(encoder, tmp_path, encode_per_step=8))
    large = tiny.encoder(tmp_path / "minilm", **MINILM)
    given = Params.load(ROOT / "params.yaml").finetune.model_copy(update={"encoder": str(large)})
    return text_fits.world(given, **LARGE)


def test_samples_a_second_and_memory_against_the_naive_way(
    sized: training.World, device: str, tell: Tell
) -> None:
    rows = {}
    for name, way in training.ways(sized.settings).items():
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        rows[name] = training.speed(sized, way, device)
        assert 0 < rows[name]["peak_gib_so_far"] <= peak_gib(device)
        tell(
            f"{name}: {rows[name]['samples_per_second']:.0f} samples/s in {way.precision}, "
            f"peak {rows[name]['peak_gib_so_far']:.2f} GiB"
        )
    assert rows["default"]["encoded_per_step"] < rows["naive"]["encoded_per_step"]
    if device == "cuda":
        assert rows["default"]["samples_per_second"] > rows["naive"]["samples_per_second"]


def plain(encoder: TextEncoder, texts: list[str]) -> np.ndarray:
    """With transformers alone: batches of 32 in the order given, padded to the longest; means."""
    tokenizer, found = encoder.tokenizer, []
    for begin in range(0, len(texts), 32):
        some = texts[begin : begin + 32]
        batch = tokenizer(
            some, padding=True, truncation=True, max_length=encoder.max_length, return_tensors="pt"
        )
        batch = batch.to(next(encoder.parameters()).device)
        with torch.inference_mode():
            states = encoder.model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        found.append(torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1).cpu())
    return torch.cat(found).numpy()


def test_encoding_against_its_peer(sized: training.World, device: str, tell: Tell) -> None:
    given = sized.settings
    model = TextEncoder.load(given.encoder, given.max_length).to(device)
    lengths = np.random.default_rng(1).integers(1, 60, size=4000 if device == "cuda" else 40)
    texts = ["red thing number " + " ".join(str(n % 100) for n in range(length)) for length in lengths]
    if importlib.util.find_spec("sentence_transformers"):
        name, theirs = "sentence-transformers", encode.peer(given, model, texts, device)
    else:
        name, theirs = "plain transformers", lambda: plain(model, texts)
    reference, seconds = encode.best(theirs, device)
    tell(f"{name}: {len(texts) / seconds:.0f} texts/s")
    for way, run in encode.ways(model, texts).items():
        vectors, seconds = encode.best(run, device)
        tell(f"ours in {way}: {len(texts) / seconds:.0f} texts/s")
        assert encode.cosine(vectors, reference).min() > (0.9999 if way == "float32" else 0.99)
