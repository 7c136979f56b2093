"""The items whose vectors have the greatest products with a user's, among those that may be retrieved.

Up to EXACT items every product is computed. Beyond, faiss compares vectors whose places are rounded to
four bits (Quicker ADC, André et al. 2019), and the best by these are compared exactly: for one user in a
seventh of the time at 100,000 items, also where vectors form no clusters, which inverted lists and graphs of
neighbours need (docs/log.md). Where the recall is below RECALL the search stays exact. To round and to check
takes .5 to 1 s of 100,000 vectors, so a service keeps what came of it: `kept_in`.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipeline.files import NOT_WHOLE, temporary_beside
from pipeline.models.pairs import best_columns, largest, product

log = logging.getLogger(__name__)

BLOCK = 65_536  # items whose products with the users are in memory at a time
EXACT = 20_000  # items up to which rounding gains less than it costs
RECALL = 0.98  # of the best CHECKED items, at least
CHECKED, QUERIES, OF_QUERY = 100, 64, 5
WIDER = (4, 8, 16)  # times as many by rounded vectors as are wanted: the first that reaches RECALL
SAMPLE, ROUNDS = 2_000, 8  # items by which rounding is fitted, rounds of k-means; see RECALL
FORMAT = 1  # another one for another way to round
INDEX, TOLD = "index.faiss", "rounding.npz"


class Nearest:
    """Item vectors, ready to be searched."""

    def __init__(self, vectors: np.ndarray, allowed: np.ndarray) -> None:
        """(catalogue, d) float32; (catalogue,) bool: which of them may be found."""
        self.numbers = np.flatnonzero(allowed).astype(np.int32)
        self._every = np.ascontiguousarray(vectors, np.float32)  # as they are: no copy

    def digest(self) -> str:
        """What rounding depends on."""
        import faiss

        told = hashlib.sha256(f"{FORMAT} {faiss.__version__} {self._every.shape}".encode())
        told.update(self._every.data)
        told.update(self.numbers.data)
        return told.hexdigest()[:32]

    def best(self, users: np.ndarray, n: int) -> np.ndarray:
        """(points, d) -> (points, n) int32 items of the greatest products, best first, -1 behind.

        Equal products by place in the catalogue.
        """
        users = users.astype(np.float32)
        rounded = self._rounded
        return self._exact(users, n) if rounded is None else rounded.best(users, n)

    @cached_property
    def vectors(self) -> np.ndarray:
        """(allowed, d)."""
        every = len(self.numbers) == len(self._every)
        return self._every if every else self._every[self.numbers]

    def _exact(self, users: np.ndarray, n: int) -> np.ndarray:
        if len(users) == 1:
            return best_columns(_products(users, self.vectors), n, self.numbers)
        numbers, scores = [], []
        for begin in range(0, len(self.numbers), BLOCK):
            of_block = _products(users, self.vectors[begin : begin + BLOCK])
            place = largest(of_block, n)
            numbers.append(self.numbers[begin + place])
            scores.append(np.take_along_axis(of_block, place, axis=1))
        if not numbers:
            return np.full((len(users), n), -1, np.int32)
        found, score = np.concatenate(numbers, axis=1), np.concatenate(scores, axis=1)
        place = best_columns(score, n)  # blocks come in order, so that equal ones stay in order
        return np.where(place >= 0, np.take_along_axis(found, np.maximum(place, 0), axis=1), -1)

    @cached_property
    def _rounded(self) -> Rounded | None:
        """None: exact."""
        if len(self.numbers) <= EXACT:
            return None
        generator = np.random.default_rng(0)
        every, allowed = self._every, self.numbers
        rounded = Rounded.made(every, allowed, generator)
        # Users are close to sums of what they took.
        taken = generator.integers(0, len(allowed), (QUERIES, OF_QUERY))
        users = every[allowed[taken]].sum(axis=1)
        products = _products(users, every)[:, allowed]
        least = np.partition(products, -CHECKED, axis=1)[:, -CHECKED, None]
        for wider in WIDER:
            rounded.wider = wider
            found = every[rounded.best(users, CHECKED)]
            if (np.einsum("und,ud->un", found, users) >= least - 1e-6 * np.abs(least)).mean() >= RECALL:
                return rounded
        return None


class Rounded:
    """Vectors with places of four bits, to be searched before they are compared exactly."""

    wider = WIDER[0]

    def __init__(self, vectors: np.ndarray, numbers: np.ndarray, turn: np.ndarray, index: Any) -> None:
        """(catalogue, d) float32; (allowed,) int32: those that are searched; (d, d or d + 1) rotation, under
        which `index` has them."""
        self.vectors, self.numbers, self._turn, self._index = vectors, numbers, turn, index

    @classmethod
    def made(cls, vectors: np.ndarray, numbers: np.ndarray, generator: np.random.Generator) -> Self:
        import faiss  # only large catalogues need it

        width = vectors.shape[1]
        # Products stay under a rotation, which spreads what one place says over all, so that all of the few
        # bits are used.
        even = width + width % 2
        turn = np.linalg.qr(generator.normal(size=(even, even)))[0][:width].astype(np.float32)
        index: Any = faiss.IndexPQFastScan(even, even, 4, faiss.METRIC_INNER_PRODUCT)
        index.pq.cp.niter = ROUNDS
        index.train(vectors[numbers[generator.permutation(len(numbers))[:SAMPLE]]] @ turn)
        index.pq.sync_transposed_centroids()  # adding is four times as quick with these
        for begin in range(0, len(numbers), BLOCK):
            index.add(vectors[numbers[begin : begin + BLOCK]] @ turn)
        return cls(vectors, numbers, turn, index)

    def write(self, path: Path) -> None:
        import faiss

        faiss.write_index(self._index, str(path / INDEX))
        np.savez(path / TOLD, turn=self._turn, wider=self.wider)

    @classmethod
    def read(cls, path: Path, vectors: np.ndarray, numbers: np.ndarray) -> Self:
        """Raises what files raise that are not there, or not whole."""
        import faiss

        with np.load(path / TOLD) as told:
            found = cls(vectors, numbers, told["turn"], faiss.read_index(str(path / INDEX)))
            found.wider = int(told["wider"])
        if found._index.ntotal != len(numbers):
            raise ValueError(f"{found._index.ntotal} vectors")
        return found

    def best(self, users: np.ndarray, n: int) -> np.ndarray:
        """(points, d) -> (points, n) int32 items, best first."""
        most = min(n * self.wider, len(self.numbers))
        if len(users) == 1:
            [close] = self._index.search(users @ self._turn, most)[1]
            close.sort()
            close = self.numbers[close]
            place: np.ndarray = close[largest((self.vectors.take(close, axis=0) @ users[0])[None], n)]
            return place
        found = self.numbers[np.sort(self._index.search(users @ self._turn, most)[1], axis=1)]
        return np.take_along_axis(found, largest(product(users, self.vectors, found), n), axis=1)


def kept_in(folder: Path, searches: Iterable[Nearest]) -> None:
    """Round the vectors of all `searches`, or read from `folder` what was made of the same ones; what is made
    is kept there, and whatever else lies there goes. A search that stays exact is checked at each start."""
    used = set()
    for search in searches:
        if len(search.numbers) <= EXACT:
            continue
        used.add(name := search.digest())
        try:
            search.__dict__["_rounded"] = Rounded.read(folder / name, search._every, search.numbers)
        except (*NOT_WHOLE, RuntimeError):
            if (made := search._rounded) is not None:
                _keep(made, folder / name)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in used and not path.name.startswith("."):
            shutil.rmtree(path, ignore_errors=True)


def _keep(rounded: Rounded, final: Path) -> None:
    try:
        part = temporary_beside(final)
        rounded.write(part)
        shutil.rmtree(final, ignore_errors=True)  # it could not be read
        part.rename(final)
    except (OSError, RuntimeError) as error:  # nothing can be written here, or another worker was quicker
        log.warning("%s: not kept for the next start: %s", final.parent, error)


def _products(users: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(points, items); of one point by one pass over the vectors."""
    return (vectors @ users[0])[None] if len(users) == 1 else users @ vectors.T
