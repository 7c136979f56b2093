import numpy as np
import pytest
import torch
from histories_by_hand import log_of

from pipeline.model import FusionScorer, SequenceTower, TextSpace

# user 0: items 0 1 2 (then 3 at the same time as 2); user 1: item 4
LOG = log_of([(0, 0, 1), (0, 1, 2), (0, 2, 3), (0, 3, 3), (1, 4, 5)], items=6)


def tower(text: bool = True) -> SequenceTower:
    torch.manual_seed(0)
    vectors = np.eye(6, 8, dtype=np.float32) if text else None
    return SequenceTower(np.array([1, 1, 1, 1, 1, 0], bool), vectors, size=8, hidden=8).eval()


def at(user: int, time: int) -> object:
    return LOG.points(np.array([user], np.int32), np.array([0], np.int32), np.array([time]))


def test_sequence_scores_ignore_what_is_not_strictly_earlier() -> None:
    model = tower()
    one, other = model.score(at(0, 3)), model.score(at(0, 4))
    history_of_two = model.score(at(0, 3))
    np.testing.assert_allclose(one, history_of_two)
    assert not np.allclose(one, other)


def test_sequence_scores_do_not_depend_on_the_batch() -> None:
    model = tower()
    points = LOG.points(np.array([0, 1, -1], np.int32), np.zeros(3, np.int32), np.array([4, 9, 9]))
    together = model.score(points)
    alone = np.concatenate([model.score(points[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_sequence_scores_are_log_probabilities_over_known_items() -> None:
    probability = np.exp(tower().score(at(0, 4)))
    assert probability[0, :5].sum() == pytest.approx(1, abs=1e-5)


def test_unknown_item_has_no_part_of_its_id() -> None:
    model = tower()
    with torch.no_grad():
        model.id_embedding.weight[5] = 1000
    assert float(model.items()[5].detach().abs().max()) < 1


def test_tower_without_text_has_none() -> None:
    assert tower(text=False).project is None


def test_text_space_prefers_what_is_near_the_history() -> None:
    vectors = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1]])
    logits = TextSpace()(torch.tensor([[1.0, 0, 0]]), vectors, torch.zeros(2))
    assert logits[0].argsort(descending=True).tolist() == [0, 1, 2]


def test_fusion_starts_as_a_constant_and_clamps_outliers() -> None:
    scorer = FusionScorer(3)
    sample = torch.randn(100, 3)
    scorer.standardise(sample)
    assert scorer(sample).abs().max() == 0
    with torch.no_grad():
        scorer.linear.weight[0, 0] = 1
    assert float(scorer(torch.full((1, 3), 1e9)).detach()) == pytest.approx(8)


def test_fusion_scores_columns_like_cells() -> None:
    torch.manual_seed(0)
    scorer = FusionScorer(5)
    scorer.standardise(torch.randn(50, 5))
    with torch.no_grad():
        for parameter in scorer.parameters():
            parameter.normal_()
    cells = torch.randn(scorer.CELLS + 7, 5)
    torch.testing.assert_close(scorer.score(cells.T.contiguous()), scorer(cells).detach())
