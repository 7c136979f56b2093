import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from histories_by_hand import log_of

from pipeline.data.histories import Log, Points
from pipeline.models.tower import MOST_ROWS
from pipeline.params import Finetune, Params
from pipeline.training import sequence_task
from pipeline.training.networks import ScorerNetwork, SequenceTower, TextSpace, one_thread
from pipeline.training.readers import READERS, Mean, Recency
from pipeline.training.sequence_task import BATCH, SequenceTask, fit_sequence
from pipeline.training.task import Batches, Run

# user 0: items 0 1 2 (then 3 at the same time as 2); user 1: item 4
LOG = log_of([(0, 0, 1), (0, 1, 2), (0, 2, 3), (0, 3, 3), (1, 4, 5)], items=6)


def tower(text: bool = True, kind: str = "gru") -> SequenceTower:
    torch.manual_seed(0)
    vectors = np.eye(6, 8, dtype=np.float32) if text else None
    return SequenceTower(np.array([1, 1, 1, 1, 1, 0], bool), vectors, kind, size=8).eval()


every_kind = pytest.mark.parametrize("kind", READERS)


def read(model: SequenceTower, points: Points) -> np.ndarray:
    """(points, items) logits."""
    found = model.sequence()
    return np.c_[found.users(points), np.ones(len(points))] @ found._vectors.T


def at(user: int, time: int) -> Points:
    return LOG.points(np.array([user], np.int32), np.array([0], np.int32), np.array([time]))


@every_kind
def test_sequence_scores_ignore_what_is_not_strictly_earlier(kind: str) -> None:
    model = tower(kind=kind)
    one, other = read(model, at(0, 3)), read(model, at(0, 4))
    history_of_two = read(model, at(0, 3))
    np.testing.assert_allclose(one, history_of_two)
    assert not np.allclose(one, other)


@every_kind
def test_sequence_scores_do_not_depend_on_the_batch(kind: str) -> None:
    model = tower(kind=kind)
    points = LOG.points(np.array([0, 1, -1], np.int32), np.zeros(3, np.int32), np.array([4, 9, 9]))
    together = read(model, points)
    alone = np.concatenate([read(model, points[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@every_kind
@pytest.mark.parametrize("text", [True, False])
def test_a_list_reads_histories_as_the_training_does(kind: str, text: bool) -> None:
    """NumPy's last states are the network's, of histories of any length; also beyond those that are read."""
    generator = np.random.default_rng(3)
    many = MOST_ROWS + 7
    told = [(user, time) for user, n in enumerate((0, 1, 3, many)) for time in range(n)]
    log = log_of([(user, int(generator.integers(6)), time) for user, time in told], items=6)
    points = log.points(np.arange(-1, 4, dtype=np.int32), np.zeros(5, np.int32), np.full(5, many))
    model = tower(text, kind)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        vectors, expected = model.items(), []
        for start, stop in zip(points.start, points.stop, strict=True):
            span = slice(max(start, stop - MOST_ROWS), stop)
            item, liked = torch.from_numpy(log.item[span]).long(), torch.from_numpy(log.positive[span]).long()
            states = model(item[None], liked[None], vectors)[0] if len(item) else model.start[None]
            expected.append(states[-1].numpy())
    np.testing.assert_allclose(model.sequence().users(points), np.stack(expected), atol=2e-5)
    np.testing.assert_allclose(model.sequence()._vectors[:, :-1], vectors[:-1].numpy(), atol=1e-6)


@pytest.mark.parametrize("corrects", [True, False])
def test_a_list_scores_pairs_as_the_training_does(corrects: bool) -> None:
    torch.manual_seed(0)
    network, features = ScorerNetwork(5), torch.randn(7, 1000, 5) * 20  # more pairs than a block
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    if not corrects:
        torch.nn.init.zeros_(network.mlp[-1].weight)  # type: ignore[arg-type]
    network.standardise(features.numpy(), np.ones((7, 1000), bool))
    with torch.no_grad():
        expected = network(features).numpy()
    np.testing.assert_allclose(network.scorer().score(features.numpy()), expected, atol=1e-3, rtol=1e-4)


def test_what_is_trained_on_changes_nothing_that_was_made_before() -> None:
    model = tower()
    made, before = model.sequence(), at(0, 4)
    users = made.users(before)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    np.testing.assert_array_equal(made.users(before), users)
    assert not np.allclose(model.sequence().users(before), users)


@every_kind
def test_a_state_reads_its_place_and_what_is_before(kind: str) -> None:
    torch.manual_seed(0)
    reader, x = READERS[kind](8).eval(), torch.randn(2, 5, 8)
    later = x.clone()
    later[:, 3:] = torch.randn(2, 2, 8)
    one, other = reader(x), reader(later)
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert (one[:, 3] - other[:, 3]).abs().max() > 1e-3


@every_kind
def test_tower_learns_what_follows(kind: str) -> None:
    """Item 1 is followed by 2, item 3 by 4, whatever is first: told from the last of two items."""
    torch.manual_seed(0)
    model = SequenceTower(np.ones(6, bool), None, kind, size=8).train()
    item = torch.tensor([[0, 1], [5, 1], [0, 3], [5, 3]])
    goal = torch.tensor([2, 2, 4, 4])
    optimiser = torch.optim.AdamW(model.parameters(), 0.05)
    with one_thread():
        for _ in range(60):
            vectors = model.items()
            logits = model(item, torch.ones_like(item), vectors)[:, -1] @ vectors[:-1].T + model.bias[:-1]
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(logits, goal).backward()
            optimiser.step()
    vectors = model.eval().items()
    logits = model(item, torch.ones_like(item), vectors)[:, -1] @ vectors[:-1].T + model.bias[:-1]
    assert logits.argmax(dim=1).tolist() == goal.tolist()


def test_mean_and_recency_by_hand() -> None:
    x = torch.tensor([[[4.0], [2.0], [0.0]]])
    torch.testing.assert_close(Mean(1)(x), torch.tensor([[[4.0], [3.0], [2.0]]]))
    recency = Recency(1)
    with torch.no_grad():
        recency.log2_half_life.zero_()  # one item: weights 1, 1/2, 1/4 backwards
    torch.testing.assert_close(recency(x), torch.tensor([[[4.0], [8 / 3], [8 / 7]]]))


def test_params_offer_every_reader() -> None:
    assert set(get_args(Finetune.model_fields["user_tower"].annotation)) == set(READERS)


def test_unknown_item_has_no_part_of_its_id() -> None:
    model = tower()
    with torch.no_grad():
        model.id_embedding.weight[5] = 1000
    assert float(model.items()[5].detach().abs().max()) < 1


def test_vectors_of_some_items_are_those_of_all() -> None:
    """Also what training drops of them: it depends on the item, not on the others asked for."""
    model, some = tower().train(), torch.tensor([4, 0, 6])
    torch.manual_seed(1)
    every = model.items()
    torch.manual_seed(1)
    torch.testing.assert_close(model.items(some), every[some])


def many_users(tmp_path: Path) -> tuple[Run, Log]:
    generator = np.random.default_rng(0)
    rows = [(user, int(generator.integers(40)), time) for user in range(90) for time in range(1 + user % 17)]
    run = Run(Params.load(Path("params.yaml")).finetune, 1, tmp_path)
    return run, log_of(rows, 40, list(generator.random(len(rows)) < 0.7))


@pytest.mark.parametrize("most_classes", [1024, 8])
def test_a_large_batch_is_the_mean_of_its_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_classes: int
) -> None:
    monkeypatch.setattr(SequenceTask, "MOST_CLASSES", most_classes)
    run, log = many_users(tmp_path)
    network = SequenceTower(np.ones(40, bool), np.eye(40, 8, dtype=np.float32), size=8).eval()
    task = SequenceTask(run, "sequence", network, log, np.ones(len(log), bool), None)
    every = np.arange(len(task.segments))
    loss = task.training_step(every, 0)
    assert loss is not None
    by_length = every[np.argsort(np.diff(task.segments)[:, 0], kind="stable")]
    total = targets = 0.0
    for begin in range(0, len(every), BATCH):
        part = by_length[begin : begin + BATCH]
        if (alone := task.training_step(part, 0)) is not None:
            here = sum(int(log.positive[start + 1 : stop].sum()) for start, stop in task.segments[part])
            total, targets = total + here * alone.item(), targets + here
    assert loss.item() == pytest.approx(total / targets, rel=1e-5)


def test_an_epoch_of_many_users_takes_larger_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, log = many_users(tmp_path)
    seen: list[Batches] = []
    monkeypatch.setattr(sequence_task, "fit", lambda run, task, batches, *_, **__: seen.append(batches))
    for most in (sequence_task.MOST_STEPS, 2):
        monkeypatch.setattr(sequence_task, "MOST_STEPS", most)
        fit_sequence(run, log, np.ones(len(log), bool), None, 40, "sequence")
    assert [len(batches) for batches in seen] == [3, 2]


def test_tower_without_text_has_none() -> None:
    assert tower(text=False).project is None


def test_text_space_prefers_what_is_near_the_history() -> None:
    vectors = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1]])
    logits = TextSpace()(torch.tensor([[1.0, 0, 0]]), vectors, torch.zeros(2))
    assert logits[0].argsort(descending=True).tolist() == [0, 1, 2]


def test_what_makes_lists_does_not_import_torch() -> None:
    """It takes longer than everything else that a list needs, and the service 200 MB of memory."""
    modules = ("stages.evaluate", "stages.recommend", "models.questions", "drift.check", "serve.app")
    code = f"import sys, {', '.join(f'pipeline.{name}' for name in modules)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
