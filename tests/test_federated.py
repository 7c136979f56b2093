"""Silos share sums and weights: what comes of it is the pooled fit, and no row goes over the wire."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from histories_by_hand import log_of

from pipeline.errors import DataError
from pipeline.federated import collaborative, head
from pipeline.federated.collaborative import Taken
from pipeline.federated.wire import MAY, Server, Silo, packed, serve, silos, unpacked
from pipeline.models import baselines
from pipeline.models.private import Budget, Released

USERS, ITEMS, WIDTH = 90, 30, 6


@pytest.fixture(scope="module")
def x() -> sp.csr_matrix:
    generator = np.random.default_rng(2)
    taste = np.arange(ITEMS) % 2 == np.arange(USERS)[:, None] % 2
    chosen = generator.random((USERS, ITEMS)) < np.where(taste, 0.5, 0.1)
    chosen[:, 3] = True
    return sp.csr_matrix(chosen.astype(np.float64))


@contextmanager
def threads(parts: Sequence[Silo]) -> Iterator[Server]:
    """As `silos`, in this process: the same bytes over the same pipes."""
    pairs = [multiprocessing.Pipe() for _ in parts]
    running = [
        threading.Thread(target=serve, args=(lambda part=part: part, there))
        for part, (_, there) in zip(parts, pairs, strict=True)
    ]
    for thread in running:
        thread.start()
    yield Server([here for here, _ in pairs])
    for here, _ in pairs:
        here.close()
    for thread in running:
        thread.join()


def parted(x: sp.csr_matrix, number: int) -> list[Taken]:
    return [Taken(sp.csr_matrix(x[part])) for part in np.array_split(np.arange(x.shape[0]), number)]


@pytest.mark.parametrize("number", [2, 4])
def test_ease_of_silos_is_that_of_all_rows(x: sp.csr_matrix, number: int) -> None:
    with threads(parted(x, number)) as server:
        found = collaborative.ease(server, 20.0)
    pooled = baselines.ease(x.astype(np.float32), 20.0)
    assert np.array_equal(found.kept, pooled.kept)
    assert np.abs(found.matrix - pooled.matrix).max() < 1e-5


def test_private_sums_of_silos_are_those_of_all_rows(x: sp.csr_matrix) -> None:
    bare, facts = Budget(float("inf"), 1e-5), np.arange(ITEMS)[:, None] % 2.0
    with threads(parted(x, 3)) as server:
        found = collaborative.released(server, bare, facts)
    pooled = Released.of(x, bare, facts)
    assert np.array_equal(found.kept, pooled.kept)
    assert np.abs(found.counts - pooled.counts).max() < 1e-9
    assert np.abs(found.pairs - pooled.pairs).max() < 1e-9


def test_shares_of_noise_add_up_to_that_of_the_budget(x: sp.csr_matrix) -> None:
    budget = Budget(1.0, 1e-5)
    bare, added = Released.of(x, Budget(float("inf"), 1e-5)), []
    with threads(parted(x, 4)) as server:
        for _ in range(20):
            added.append(collaborative.released(server, budget).counts - bare.counts)
    assert np.std(added) == pytest.approx(budget.noise[0], rel=0.15)


def test_no_row_goes_over_the_wire(x: sp.csr_matrix) -> None:
    """Every byte is read: nothing is as long as there are users, whose number changes no size, and nobody's
    row stands in any array."""
    sizes = []
    for rows in (x, sp.vstack([x, x])):
        with threads(parted(sp.csr_matrix(rows), 2)) as server:
            collaborative.ease(server, 20.0)
            collaborative.released(server, Budget(float("inf"), 1e-5))
        shapes = []
        for content in server.seen:
            what, message = unpacked(content)
            assert what in ("counts", "pairs")
            assert set(message) <= set(MAY)
            for values in message.values():
                assert values.shape in ((), (ITEMS,), (ITEMS, ITEMS))
                shapes.append(values.shape)
                if values.ndim and values.dtype.kind == "f":
                    of_users = (np.atleast_2d(values)[:, None] == rows.toarray()[None]).all(axis=2)
                    assert not of_users.any()
        sizes.append(shapes)
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    "message", [{"rows": np.zeros(3)}, {"counts": np.zeros((3, 3))}, {"counts": np.array(["u1"])}]
)
def test_what_is_no_sum_is_not_sent(message: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="no message may hold"):
        packed("counts", message)


def test_a_silo_of_few_users_sends_nothing(x: sp.csr_matrix) -> None:
    with threads([Taken(sp.csr_matrix(x[:70])), Taken(sp.csr_matrix(x[70:75]))]) as server:
        with pytest.raises(DataError, match="silo 2: 5 users"):
            collaborative.ease(server, 20.0)
        assert not [name for content in server.seen[-1:] for name in unpacked(content)[1]]


def test_a_head_of_silos_learns_what_the_pooled_one_learns() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((ITEMS, WIDTH)).astype(np.float32)
    vectors[:, 0] = 0.5 * (-1) ** np.arange(ITEMS)  # what users' tastes are about is a small part of a text
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [
        (user, int(2 * generator.integers(ITEMS // 2) + user % 2), 10 * user + step)
        for user in range(USERS)
        for step in range(6)
    ]
    points = log_of(rows, ITEMS).successes(np.ones(len(rows), bool))
    points = points[np.flatnonzero(points.lengths > 0)]

    def quality(weights: np.ndarray) -> float:
        found = head.logits(points, *map(torch.from_numpy, (vectors, weights))) / head.TEMPERATURE
        return float(found.log_softmax(dim=1)[np.arange(len(points)), points.target].mean())

    learned = []
    for number in (1, 2):
        parts = [head.TextHead(points[points.user % number == part], vectors, 1) for part in range(number)]
        with threads(parts) as server:
            learned.append(head.averaged(server, WIDTH, rounds=10))
        assert {what for what, _ in map(unpacked, server.seen)} == {"head"}
        assert {values.shape for _, m in map(unpacked, server.seen) for values in m.values()} == {
            (),
            (WIDTH, WIDTH),
        }
    pooled, averaged = map(quality, learned)
    before = quality(np.zeros((WIDTH, WIDTH), np.float32))
    assert pooled > before + 0.1
    assert averaged - before > 0.8 * (pooled - before)


@pytest.mark.slow
def test_silos_are_processes(x: sp.csr_matrix) -> None:
    makers = [partial(Taken, part.x) for part in parted(x, 2)]
    with silos(makers) as server:
        found = collaborative.ease(server, 20.0)
    assert np.abs(found.matrix - baselines.ease(x.astype(np.float32), 20.0).matrix).max() < 1e-5
