"""A server of its own process, and a client that asks it one by one or at a rate: of `evergreen bench serve`.

Rule: latencies at a rate count from the moment at which a request was due, so that a stalled server cannot
hide what it keeps waiting.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.errors import ConfigError

CONNECTIONS, CALLERS = 32, 4
Request = tuple[str, dict[str, Any]]


@dataclass
class Server:
    root: Path
    port: int
    process: subprocess.Popen[bytes]
    ready_seconds: float = 0.0
    ready_cpu_seconds: float = 0.0

    def cpu_seconds(self) -> float:
        """Of the worker, until now."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> dict[str, float]:
        """GiB now and at most, of the worker."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        return {
            name: round(int(lines[key].split()[0]) / 2**20, 4)
            for name, key in (("resident_gib", "VmRSS"), ("peak_gib", "VmHWM"))
        }


@contextmanager
def served(root: Path, *command: Path | str, **environment: str) -> Iterator[Server]:
    """`command --port N`, run in `root` until the block ends. Raises ConfigError if it never answers."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    log = (root / "serve.log").open("wb")
    begin = time.monotonic()
    process = subprocess.Popen(
        [*map(str, command), "--port", str(port)],
        cwd=root,
        env=os.environ | environment,
        stdout=log,
        stderr=log,
    )
    server = Server(root, port, process)
    try:
        asyncio.run(_until_ready(server))
        server.ready_seconds = round(time.monotonic() - begin, 1)
        server.ready_cpu_seconds = round(server.cpu_seconds(), 1)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=60)
        log.close()


async def _until_ready(server: Server) -> None:
    limit = time.monotonic() + 600
    while True:
        if server.process.poll() is not None or time.monotonic() > limit:
            raise ConfigError(f"the service did not start: {(server.root / 'serve.log').read_text()[-2000:]}")
        try:
            client = await Client.open(server.port)
            status, _ = await client.ask("/health")
            client.close()
            if status == 200:
                return
        except OSError:
            pass
        await asyncio.sleep(0.05)


@dataclass
class Client:
    """One connection that stays open."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        self.writer.write(head.encode() + content)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        length = next(
            int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length")
        )
        return int(lines[0].split()[1]), await self.reader.readexactly(length)

    def close(self) -> None:
        self.writer.close()


@dataclass
class Times:
    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    cpu_seconds: float = 0.0  # of the server meanwhile

    def add(self, more: Times) -> None:
        self.seconds += more.seconds
        self.failed += more.failed
        self.cpu_seconds += more.cpu_seconds

    def figures(self) -> dict[str, float | int | None]:
        ms = 1000 * np.array(self.seconds)
        there = len(ms) > 0
        return {
            "answers": len(ms),
            "failed": self.failed,
            "p50_ms": round(float(np.percentile(ms, 50)), 2) if there else None,
            "p99_ms": round(float(np.percentile(ms, 99)), 2) if there else None,
            "cpu_ms": round(1000 * self.cpu_seconds / len(ms), 2) if there else None,
        }


async def alone(server: Server, make_request: Callable[[], Request], count: int) -> Times:
    times, client, before = Times(), await Client.open(server.port), server.cpu_seconds()
    for _ in range(count):
        begin = time.perf_counter()
        status, _content = await client.ask(*make_request())
        times.seconds.append(time.perf_counter() - begin)
        times.failed += status != 200
    client.close()
    times.cpu_seconds = server.cpu_seconds() - before
    return times


async def at_rate(server: Server, make_request: Callable[[], Request], rate: float, seconds: float) -> Times:
    """Requests come when they are due, whether or not those before them have been answered."""
    times, before = Times(), server.cpu_seconds()
    idle: asyncio.Queue[Client] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        idle.put_nowait(await Client.open(server.port))
    begin = time.perf_counter() + 0.1

    async def one(due: float) -> None:
        client = await idle.get()
        status, _ = await client.ask(*make_request())
        idle.put_nowait(client)
        times.seconds.append(time.perf_counter() - due)
        times.failed += status != 200

    tasks = []
    for number in range(int(rate * seconds)):
        due = begin + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    times.cpu_seconds = server.cpu_seconds() - before
    while not idle.empty():
        idle.get_nowait().close()
    return times


async def soak(server: Server, make_request: Callable[[], Request], count: int) -> dict[str, Any]:
    """CALLERS ask one request after another; with the growth of the worker's memory from a tenth of them on.

    Growth: of the median of what is resident over a tenth of the answers, the last over the second.
    """
    times, before = Times(), server.cpu_seconds()
    resident: list[float] = []
    left = iter(range(count))  # of all callers together
    with tqdm(total=count, desc="soak", unit="request", disable=None, leave=False) as bar:

        async def caller() -> None:
            client = await Client.open(server.port)
            for _ in left:
                begin = time.perf_counter()
                status, _ = await client.ask(*make_request())
                times.seconds.append(time.perf_counter() - begin)
                times.failed += status != 200
                bar.update()
                if len(times.seconds) % max(1, count // 1000) == 0:
                    resident.append(server.memory()["resident_gib"])
            client.close()

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    times.cpu_seconds = server.cpu_seconds() - before
    tenths = [float(np.median(part)) for part in np.array_split(resident, 10)]
    growth = tenths[-1] / tenths[1] - 1
    return {**times.figures(), "resident_gib": round(tenths[-1], 3), "growth": round(growth, 4)}


async def changed(server: Server, count: int, name: str = "changed") -> Times:
    """From feedback's answer to the next list of a user `name N`; failed where that does not know it."""
    times, client, before = Times(), await Client.open(server.port), server.cpu_seconds()
    for number in range(count):
        user = f"{name} {number}"
        _, content = await client.ask("/recommend", {"user_id": user})
        first = json.loads(content)["items"][0]["item_id"]
        event = {"event_id": user, "user_id": user, "item_id": first, "event": "rating", "value": 5}
        await client.ask("/feedback", event)
        begin = time.perf_counter()
        _, content = await client.ask("/recommend", {"user_id": user})
        times.seconds.append(time.perf_counter() - begin)
        times.failed += first in {item["item_id"] for item in json.loads(content)["items"]}
    client.close()
    times.cpu_seconds = server.cpu_seconds() - before
    return times
