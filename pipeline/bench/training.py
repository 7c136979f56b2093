"""Fine-tuning the encoder: samples a second and seconds to equal validation quality, against the naive way.

In: a folder like data/prepared or data/raw. Out: figures of a step, ratios, and how far each way came.
Rule: a sample is up to 20 history items and the item taken next. Ways, all with one loss, in one process:
- naive: every item of every sample through the whole encoder, padded to the longest, all layers trained,
  float32, batches of 32 (pipeline/bench/_naive.py);
- exact: the same gradients (tests/test_text_task.py), each distinct item once, in buckets of like length;
- cached, all layers: the batches, items with gradients, expiry and precision of params.yaml, no layer frozen;
- default: as params.yaml says. Precision `auto` is bfloat16 for both where the processor computes in it.
Seconds are CPU seconds of one thread (of an accelerator those of the clock), validation left out. To equal
quality: the exact way's best value, the naive way's seconds computed from its measured step and the steps
that the exact way took; loading, tokenising and encoding all items once count. Quality is the validation
nDCG@10 of what is trained, popularity included.
The catalogue ten times as large has nine copies of every item; each row of the log takes one copy at random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.bench import _naive
from pipeline.bench._device import now, peak_gib
from pipeline.data.histories import Points
from pipeline.errors import DataError
from pipeline.models.encoder import TextEncoder, tokenize
from pipeline.models.ranking import target_ndcg
from pipeline.models.tokens import Tokens
from pipeline.params import Finetune, Params
from pipeline.training.fitting import precision
from pipeline.training.networks import one_thread
from pipeline.training.task import Run
from pipeline.training.text_task import Texts, TextTask, frozen_layers

OWN = Path("data/prepared")
SEEDS, STEPS, EVERY = 3, 64, 8  # of the exact way; a validation after every so many steps
MEASURED, MEASURED_NAIVE = 4, 2  # steps whose time is taken, after one that is not
NAIVE_BATCH, ALL = 32, 10**6
LEARNING_RATE = 1e-4  # for all ways: with a smaller one none gets far in so few steps
COPIES = 10

Json = dict[str, Any]


@dataclass(frozen=True)
class World:
    """What all ways share; `seconds`: CPU seconds of loading and tokenising."""

    settings: Finetune
    tokens: Tokens
    train: Points
    validation: Points
    half_life: float  # of the text means, in rows
    seconds: float

    @classmethod
    def load(cls, folder: Path, settings: Finetune, seed: int) -> World:
        # Not at the top: a world that is made by hand (tests/test_gpu.py) needs no Parquet and no drift.
        from pipeline.bench.gate import load
        from pipeline.training.split import split
        from pipeline.training.text_training import HALF_LIFE

        prepared = load(folder)[0]
        parts = split(prepared, seed)
        texts = prepared.catalogue.items["item_text"].fillna("").tolist()
        begin = now("cpu")
        tokens = tokenize(TextEncoder.load(settings.encoder, settings.max_length), texts)
        spent = now("cpu") - begin
        empty = np.array([not text for text in texts], bool)
        points = prepared.log.successes(parts.inner & ~empty[prepared.log.item])
        points = points[np.flatnonzero(points.lengths > 0)]
        if not len(points) or not len(parts.validation):
            raise DataError(f"{folder}: nothing to fine-tune on: no successes after a history, or no texts")
        return cls(settings, tokens, points, parts.validation, HALF_LIFE, spent)

    def larger(self, copies: int, generator: np.random.Generator) -> World:
        """Every item `copies` times, end to end; each row of the log takes one of them."""
        items, log = len(self.tokens), self.train.log
        many = np.tile(np.arange(items), copies)
        lengths = self.tokens.lengths[many]
        offsets = np.r_[0, np.cumsum(lengths)]
        tokens = Tokens(np.tile(self.tokens.ids, copies), offsets, self.tokens.unknown_share)
        copy = generator.integers(copies, size=len(log))
        moved = replace(log, item=(log.item + items * copy).astype(np.int32))
        rows = np.minimum(self.train.stop, len(log) - 1)  # the row after the history: what was taken
        train = replace(self.train, log=moved, target=moved.item[rows])
        return replace(self, tokens=tokens, train=train)


@dataclass(frozen=True)
class Way:
    """How to train: settings, and the loss of a batch."""

    settings: Finetune
    naive: bool = False

    @property
    def precision(self) -> str:
        """Of its steps: what is cached trains as the pipeline does, the exact way as the naive one."""
        return precision(self.settings.precision) if self.settings.cache_steps else "32-true"

    def loss(self, task: TextTask, batch: np.ndarray, generator: np.random.Generator) -> Tensor:
        if not self.naive:
            return task.step(batch, generator)
        task.counts[0] += 1
        loss, texts = _naive.loss(task, batch)
        task.counts[1:] += texts
        return loss


def ways(settings: Finetune) -> dict[str, Way]:
    settings = settings.model_copy(update={"learning_rate": LEARNING_RATE})
    whole = {"trainable_layers": ALL, "lora_rank": None}
    exact = settings.model_copy(update=whole | {"cache_steps": 0, "batch_size": NAIVE_BATCH})
    return {
        "default": Way(settings),
        "cached_all_layers": Way(settings.model_copy(update=whole)),
        "exact": Way(exact),
        "naive": Way(exact, naive=True),
    }


def run(data: Path | None = None) -> Json:
    """Raises DataError if the folder holds no prepared tables."""
    params = Params.load(Path("params.yaml"))
    with one_thread():
        world = World.load(data or OWN, params.finetune, params.seed)
        figures = {name: speed(world, way) for name, way in ways(params.finetune).items()}
        larger = world.larger(COPIES, np.random.default_rng(params.seed))
        figures["default_10x_catalogue"] = speed(larger, ways(params.finetune)["default"])
        found = [quality(world, figures, seed) for seed in tqdm(range(SEEDS), desc="seeds", disable=None)]
    for name in ("default", "exact"):
        figures[name]["validation_ndcg"] = [one[name] for one in found]
    return {
        "name": "training",
        "conditions": conditions(world),
        "figures": figures,
        "ratios": ratios(figures) | times_to_quality(found),
        "findings": [sentence(one) for one in found],
    }


def make(world: World, way: Way, seed: int, device: str = "cpu") -> tuple[TextTask, float]:
    """(a task on the device that has not trained yet, seconds of encoding all items with it)."""
    settings = way.settings
    encoder = TextEncoder.load(settings.encoder, settings.max_length).to(device)
    begin = now(device)
    below = frozen_layers(encoder, settings)
    hidden = encoder.lower_activations(world.tokens, below) if below else None
    with torch.no_grad():
        vectors = encoder.encode(world.tokens, None, hidden, below).cpu().numpy()
    spent = now(device) - begin
    texts = Texts(world.tokens, hidden, vectors)
    run_ = Run(settings, seed, Path(".evergreen/bench/training"))
    task = TextTask(run_, encoder, texts, world.train, world.validation, world.half_life)
    return task.to(device), spent


def train(task: TextTask, way: Way, steps: int, seed: int, after: Callable[[int, float], bool]) -> None:
    """`steps` steps where the task is, or fewer if `after` (given the steps and seconds so far) says so."""
    device = task.device.type
    trained = [p for p in task.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, LEARNING_RATE, weight_decay=task.weight_decay, fused=True)
    spent = 0.0
    for step in range(steps):
        generator = np.random.default_rng([seed, step])
        batch = generator.choice(len(task.train_points), way.settings.batch_size, replace=False)
        begin = now(device)
        with torch.autocast(device, torch.bfloat16, enabled=way.precision.startswith("bf16")):
            loss = way.loss(task, batch, generator)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        spent += now(device) - begin
        if after(step + 1, spent):
            return


def speed(world: World, way: Way, device: str = "cpu") -> Json:
    """Figures of a step, the first left out."""
    task, encoding = make(world, way, 0, device)
    moments: list[float] = []

    def after(_: int, spent: float) -> bool:
        moments.append(spent)
        return False

    train(task, way, 1 + (MEASURED_NAIVE if way.naive else MEASURED), 0, after)
    seconds = (moments[-1] - moments[0]) / (len(moments) - 1)
    steps, texts, encoded = task.counts.tolist()
    return {
        "samples_per_second": way.settings.batch_size / seconds,
        "seconds_per_step": seconds,
        "batch": way.settings.batch_size,
        "texts_per_step": texts / steps,
        "encoded_per_step": encoded / steps,
        "item_reuse": texts / max(1, encoded),
        "seconds_before": world.seconds + (0.0 if way.naive or way.settings.cache_steps == 0 else encoding),
        "peak_gib_so_far": peak_gib(device),
    }


def quality(world: World, figures: Json, seed: int) -> Json:
    """The exact way's best quality, at which step; when the default got there, and its own best."""
    chosen = ways(world.settings)
    curve = curve_of(world, chosen["exact"], STEPS, EVERY, seed)
    best = max(value for _, _, value in curve)
    steps = next(step for step, _, value in curve if value == best)
    ours = curve_of(world, chosen["default"], STEPS, EVERY, seed)
    reached = next((spent for _, spent, value in ours if value >= best), None)
    naive = figures["naive"]["seconds_before"] + steps * figures["naive"]["seconds_per_step"]
    return {
        "start": curve[0][2],
        "exact": best,
        "exact_steps": steps,
        "default": max(value for _, _, value in ours),
        "default_seconds": None if reached is None else figures["default"]["seconds_before"] + reached,
        "naive_seconds": naive,
    }


def curve_of(world: World, way: Way, steps: int, every: int, seed: int) -> list[tuple[int, float, float]]:
    """(steps, CPU seconds, validation nDCG@10) before training and after every so many steps."""
    task, _ = make(world, way, seed)
    found = [(0, 0.0, ndcg(task))]

    def after(step: int, spent: float) -> bool:
        if step % every == 0:
            found.append((step, spent, ndcg(task)))
        return False

    train(task, way, steps, seed, after)
    return found


@torch.no_grad()
def ndcg(task: TextTask) -> float:
    """Mean over the validation points, the logits as they are trained: with the log-popularity."""
    vectors, gains = task.encode(), []
    assert task.points is not None
    for points in task.points.chunks(64):
        history = torch.from_numpy(points.weights(len(vectors), task.half_life).toarray())
        scores = task.space(history.to(task.device), vectors, task.centre).cpu() + task.log_popularity
        gains.append(target_ndcg(scores.numpy(), points, 10))
    return float(np.concatenate(gains).mean())


def ratios(figures: Json) -> Json:
    """Samples a second over the naive way's, and what ten times as many items cost a step."""
    naive = figures["naive"]["samples_per_second"]
    told = {
        f"samples_per_second_{name}": figures[name]["samples_per_second"] / naive
        for name in ("default", "cached_all_layers", "exact")
    }
    grown = figures["default_10x_catalogue"]["seconds_per_step"] / figures["default"]["seconds_per_step"]
    memory = figures["cached_all_layers"]["peak_gib_so_far"] / figures["naive"]["peak_gib_so_far"]
    return told | {"step_with_10x_catalogue": grown, "memory_cached_over_naive": memory}


def times_to_quality(found: list[Json]) -> Json:
    """Naive over default seconds, of seeds where the exact way gained; None: not reached by the default."""
    pairs = [(one["naive_seconds"], one["default_seconds"]) for one in found if one["exact_steps"]]
    shares = [naive / ours if ours else None for naive, ours in pairs]
    told = [share for share in shares if share is not None]
    gaps = [one["default"] - one["exact"] for one in found]
    return {
        "time_to_equal_quality": shares,
        "mean_time_to_equal_quality": float(np.mean(told)) if told else None,
        "default_minus_exact_ndcg": float(np.mean(gaps)) if gaps else None,
    }


def conditions(world: World) -> Json:
    return {
        "points": len(world.train),
        "items": len(world.tokens),
        "tokens_a_text": float(world.tokens.lengths.mean()),
        "encoder": world.settings.encoder,
        "precision_of_cached_ways": precision(world.settings.precision),
        "precision_of_exact_and_naive": "32-true",
        "threads": torch.get_num_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "learning_rate": LEARNING_RATE,
        "steps_of_the_exact_way": STEPS,
        "seeds": SEEDS,
    }


def sentence(one: Json) -> str:
    there = "was not reached" if one["default_seconds"] is None else f"took {one['default_seconds']:.0f} s"
    return (
        f"validation nDCG@10 {one['start']:.4f} before, {one['exact']:.4f} by the exact way after "
        f"{one['exact_steps']} steps; the same {there} by the default (best {one['default']:.4f}), "
        f"{one['naive_seconds']:.0f} s naively"
    )
