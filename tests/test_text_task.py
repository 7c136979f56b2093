"""Every text once a step: equal to the naive way, bounded where a cache allows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from histories_by_hand import log_of

from pipeline.bench import _naive
from pipeline.models import encoder as encoder_module
from pipeline.models.encoder import TextEncoder
from pipeline.params import Params
from pipeline.training.networks import one_thread
from pipeline.training.task import Run
from pipeline.training.text_task import Texts, TextTask, frozen_layers, look

ITEMS = 24
TEXTS = [f"{'red' if i % 2 else 'blue'} thing number {i} {'. ' * (i % 5)}" for i in range(ITEMS)]


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.encoder(tmp_path_factory.mktemp("encoder") / "bert")


def make(folder: Path, **settings: object) -> TextTask:
    encoder = TextEncoder.load(str(folder), 16)
    given = Params.load(tiny.params(folder / "params.yaml", folder, **settings)).finetune
    tokens, below = encoder.tokenize(TEXTS), frozen_layers(encoder, given)
    hidden = encoder.lower_activations(tokens, below) if below else None
    with torch.no_grad():
        vectors = encoder.encode(tokens).numpy()
    generator = np.random.default_rng(3)
    rows = [
        (user, int(item), time)
        for user in range(6)
        for time, item in enumerate(generator.permutation(ITEMS)[:9])
    ]
    log = log_of(rows, items=ITEMS)
    points = log.points(log.user, log.item, log.time)
    points = points[np.flatnonzero(points.lengths > 0)]
    return TextTask(Run(given, 1, folder), encoder, Texts(tokens, hidden, vectors), points, points[:0], 5.0)


def gradients(task: TextTask, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    task.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in task.named_parameters() if p.grad is not None}


def step(task: TextTask, batch: np.ndarray, number: int = 0) -> torch.Tensor:
    return task.step(batch, np.random.default_rng(number))


def items_of(task: TextTask, batch: np.ndarray) -> np.ndarray:
    points = task.train_points[batch]
    return np.unique(np.concatenate([points.log.item[points.rows()[1]], points.target]))


@pytest.mark.parametrize(("layers", "kept"), [(3, 10_000), (3, 0), (1, 10_000)])
def test_without_a_cache_loss_and_gradients_are_the_naive_ones(
    folder: Path, layers: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "KEPT_TOKENS", kept)  # 0: activations are all computed again
    task = make(folder, trainable_layers=layers, cache_steps=0, encode_per_step=1)
    batch = np.arange(0, 40, 3)
    ours = step(task, batch)
    found = gradients(task, ours)
    naive, texts = _naive.loss(task, batch)
    wanted = gradients(task, naive)
    torch.testing.assert_close(ours, naive)
    assert found.keys() == wanted.keys()
    assert ("encoder.model.embeddings.word_embeddings.weight" in found) == (layers > 2)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)
    assert texts == task.counts[1] > task.counts[2] == len(items_of(task, batch))  # each of them once


def test_a_cache_bounds_what_is_encoded_and_expires(folder: Path) -> None:
    task = make(folder, trainable_layers=3, cache_steps=2, encode_per_step=4)
    batch = np.arange(40)
    for number in range(2):
        step(task, batch, number)
    assert task.counts.tolist()[::2] == [2, 8]
    for number in range(2, 12):
        step(task, batch, number)
        assert task.age(items_of(task, batch)).max() <= 2
    assert task.item_reuse > 10


def test_only_trained_items_have_gradients_and_enter_the_cache(folder: Path) -> None:
    task = make(folder, trainable_layers=3, cache_steps=100, encode_per_step=ITEMS)
    with torch.no_grad():
        task.cache.mul_(-1)  # to be seen where it is read
    everything = step(task, np.arange(40))
    naive, _ = _naive.loss(task, np.arange(40))
    torch.testing.assert_close(everything, naive)
    place = items_of(task, np.arange(40))
    torch.testing.assert_close(task.cache[place], task.vectors[place])


@pytest.mark.parametrize("rank", [None, 2])
def test_training_learns_and_leaves_a_plain_encoder(folder: Path, rank: int | None) -> None:
    task = make(folder, trainable_layers=1, cache_steps=4, encode_per_step=8, lora_rank=rank)
    trained = [p for p in task.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, 1e-2)
    losses = []
    for number in range(30):
        optimiser.zero_grad()
        loss = step(task, np.arange(40), number)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert min(losses[-5:]) < losses[0] - 0.02
    with torch.no_grad():
        before = task.encode()
        task.encoder.settle()
        torch.testing.assert_close(task.encoder.encode(task.texts.tokens), before, atol=1e-5, rtol=1e-4)
    assert not any("lora" in name for name in task.encoder.model.state_dict())
    fresh = TextEncoder.load(str(folder), 16).model.state_dict()
    changed = {
        name for name, value in task.encoder.model.state_dict().items() if not torch.equal(value, fresh[name])
    }
    assert changed
    assert all(".layer.1." in name for name in changed)


def test_activations_of_frozen_layers_are_kept_in_a_file_past_a_size(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TextEncoder.load(str(folder), 16)
    tokens = encoder.tokenize(TEXTS)
    plain = encoder.lower_activations(tokens, 1, tmp_path / "hidden.npy")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(encoder_module, "MAPPED_BYTES", 0)
    for _ in range(2):  # the second finds the file
        mapped = encoder.lower_activations(tokens, 1, tmp_path / "hidden.npy")
        assert isinstance(mapped, np.memmap)
        assert mapped.nbytes == plain.nbytes / 2
        np.testing.assert_allclose(mapped, plain, rtol=1e-3, atol=1e-5)
        with torch.no_grad():
            as_plain, as_mapped = (encoder.encode(tokens, None, each, 1) for each in (plain, mapped))
        torch.testing.assert_close(as_mapped, as_plain, rtol=0, atol=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["hidden.npy"]


def test_a_look_at_many_items_takes_no_more_than_it_may() -> None:
    generator = np.random.default_rng(0)
    rows = [
        (user, int(item), time)
        for user in range(40)
        for time, item in enumerate(generator.permutation(900)[:30])
    ]
    log = log_of(rows, items=900)
    points = log.points(log.user, log.item, log.time)
    looked = look(points, 900, 200, 10, np.random.default_rng(1))
    assert len(looked.items) == 200
    assert (np.diff(looked.items) > 0).all()
    _, row = looked.points.newest(10).rows()
    assert np.isin(log.item[row], looked.items).all()
    assert np.isin(looked.points.target, looked.items).all()
    assert 5 < len(looked.points) < len(points)
    needed = np.union1d(log.item[row], looked.points.target)
    assert 80 < len(needed) <= 100
    everything = look(points, 900, 900, 10, np.random.default_rng(1))
    assert everything.points is points
    np.testing.assert_array_equal(everything.items, np.arange(900))


def test_few_points_are_all_looked_at_among_random_others() -> None:
    log = log_of([(0, 1, 0), (0, 2, 1), (0, 3, 2)], items=50)
    points = log.points(log.user, log.item, log.time)
    looked = look(points, 50, 20, 10, np.random.default_rng(1))
    assert len(looked.points) == 3
    assert len(looked.items) == 20
    assert {1, 2, 3} <= set(looked.items.tolist())
    assert len(look(points[:0], 50, 20, 10, np.random.default_rng(1)).items) == 20


def test_validation_over_a_sample_of_items_finds_the_nearest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = make(folder)
    monkeypatch.setattr(TextTask, "LOOK_ITEMS", ITEMS - 2)
    task = make(folder)
    assert len(task.looked) == ITEMS - 2
    for each in (full, task):
        each.on_validation_epoch_start()
    assert task.vectors.shape == (ITEMS - 2, full.vectors.shape[1])
    torch.testing.assert_close(task.cache[task.looked], full.cache[task.looked])
    task.points = full.points = task.train_points
    gains, every = task.gains(np.arange(20)), full.gains(np.arange(20))
    unseen = ~np.isin(task.train_points.target[:20], task.looked)
    assert (gains[unseen] == 0).all()
    assert gains[~unseen].mean() >= every[~unseen].mean() - 0.1  # fewer items to stand above the target
