"""What the service adds up for one point, against plain sums and sorts."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from pipeline.models.pairs import largest, reaching
from pipeline.serve.sums import Space, best_cells, rows_of


@pytest.mark.parametrize("count", [1, 40, 700, 20_000])
@pytest.mark.parametrize("different", [3, 1_000_000])
def test_the_best_are_those_of_a_sort(count: int, different: int) -> None:
    """Also where many are equal."""
    scores = np.random.default_rng(count).integers(0, different, count).astype(np.float32)
    sort = np.argsort(-scores, kind="stable")
    for n in (1, 10, 50):
        assert (largest(scores[None], n)[0] == sort[:n]).all()
        assert (reaching(scores, n) == np.flatnonzero(scores >= scores[sort[:n]][-1])).all()
        best = sort[:n][scores[sort[:n]] > 0]
        found = best_cells(np.arange(count), scores, n)[0]
        assert (found[: len(best)] == best).all()
        assert (found[len(best) :] == -1).all()


def test_sums_of_a_few_items_stay_apart_from_one_another() -> None:
    generator, space = np.random.default_rng(1), Space(50)
    kept = []
    for cells in (0, 1, 30, 200):
        items, values = generator.integers(0, 50, cells), generator.random((3, cells))
        different, sums = space.sums(items, values)
        kept.append((different, sums, np.array([np.bincount(items, row, minlength=50) for row in values])))
        assert set(different) == set(items)
        for others, those, dense in kept:  # what was added up earlier is still read
            wanted = generator.integers(0, 50, 20)
            np.testing.assert_allclose(space.read(others, those, wanted), dense[:, wanted], rtol=1e-6)
            assert (space.among(wanted, others) == np.isin(wanted, others)).all()
        assert list(space.different(items)) == list(dict.fromkeys(items.tolist()))


def test_rows_lie_one_behind_another() -> None:
    matrix = sp.random_array((30, 20), density=0.2, format="csr", rng=np.random.default_rng(1))
    for rows in ([], [4], [7, 2, 2]):
        columns, values, lengths = rows_of(matrix, np.array(rows, int))
        expected = matrix[rows] if rows else sp.csr_array((0, 20))
        assert (columns == expected.indices).all()
        assert (values == expected.data).all()
        assert lengths.sum() == len(columns)
