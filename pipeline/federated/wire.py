"""Silos that share no rows: each a process with its own, asked by a server that has none.

Over the wire go messages of named arrays alone, whose names and shapes `MAY` fixes: sums over a silo's users
and weights of a network, of sizes that do not depend on how many rows there are. Both ends check that, so a
message that holds anything else is neither sent nor read. A silo of fewer than FEWEST users sends nothing:
its sums would be its users' rows.
"""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from pipeline.errors import DataError

FEWEST = 20  # users of a silo
MAY: dict[str, int] = {  # name of an array -> its dimensions
    "kept": 1,  # item indices that pairs are asked of
    "axes": 2,  # (kept, axes) along which private pairs are summed
    "counts": 1,  # (items,) sums over users
    "pairs": 2,  # (kept, kept) or (axes, axes) sums over users
    "weights": 2,  # of the head, in both directions
    "points": 0,  # how many a silo learned from: what its weights count
    "round": 0,
    "rate": 0,  # share of the learning rate, which falls from round to round
    "noise": 0,  # standard deviation that a silo adds
    "plain": 0,  # whether a user counts by how much they took
}

Message = dict[str, np.ndarray]


class Silo(Protocol):
    """Has rows, and answers questions from them."""

    @property
    def users(self) -> int: ...

    def answer(self, what: str, message: Message) -> Message: ...


def packed(what: str, message: Message) -> bytes:
    """Raises ValueError where it holds what no message may."""
    for name, values in message.items():
        if name not in MAY or np.ndim(values) != MAY[name] or np.asarray(values).dtype.kind not in "biuf":
            raise ValueError(f"no message may hold {name}, an array of {np.ndim(values)} dimensions")
    out = io.BytesIO()
    np.savez_compressed(out, what=np.array(what), **message)  # type: ignore[arg-type]
    return out.getvalue()


def unpacked(content: bytes) -> tuple[str, Message]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        message = {name: arrays[name] for name in arrays.files if name != "what"}
        what = str(arrays["what"])
    packed(what, message)
    return what, message


@dataclass
class Server:
    """Asks all silos at once. `seen`: every message that went over the wire, as it went."""

    connections: Sequence[Connection]
    seen: list[bytes] = field(default_factory=list)

    def ask(self, what: str, **message: Any) -> list[Message]:
        """The answer of each silo. Raises DataError with what a silo says against it."""
        content = packed(what, {name: np.asarray(values) for name, values in message.items()})
        for connection in self.connections:
            self.seen.append(content)
            connection.send_bytes(content)
        answers = []
        for number, connection in enumerate(self.connections, 1):
            self.seen.append(connection.recv_bytes())
            told, answer = unpacked(self.seen[-1])
            if told != what:
                raise DataError(f"silo {number}: {told}")
            answers.append(answer)
        return answers


@contextmanager
def silos(makers: Sequence[Callable[[], Silo]]) -> Iterator[Server]:
    """A server of one process a silo, which end with it. `makers` are sent to the processes at their start:
    where the silos are other machines, each reads its own rows there."""
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in makers]
    processes = [
        context.Process(target=serve, args=(maker, there), daemon=True)
        for maker, (_, there) in zip(makers, pairs, strict=True)
    ]
    for process in processes:
        process.start()
    for _, there in pairs:
        there.close()
    try:
        yield Server([here for here, _ in pairs])
    finally:
        for here, _ in pairs:
            here.close()  # which ends the silo
        for process in processes:
            process.join()


def serve(maker: Callable[[], Silo], connection: Connection) -> None:
    """Answers until the server is gone."""
    silo = maker()
    while True:
        try:
            what, message = unpacked(connection.recv_bytes())
        except (EOFError, ConnectionError):
            return
        connection.send_bytes(answered(silo, what, message))


def answered(silo: Silo, what: str, message: Message) -> bytes:
    if silo.users < FEWEST:
        return packed(f"{silo.users} users, of which sums would tell: {FEWEST} are needed", {})
    return packed(what, silo.answer(what, message))
