"""The service under load: lists, texts and feedback by percentiles, changed lists, swaps, memory.

In: nothing; a made-up project (pipeline/bench/_served.py) of 100,000 items and 1,000,000 rows, or of
EVERGREEN_BENCH_ITEMS and EVERGREEN_BENCH_ROWS. Server (one worker) and client share the machine.
Rule: latencies at a rate count from the moment at which a request was due, so that a stalled server cannot
hide what it keeps waiting; `one_by_one` are of a single caller; `cpu_ms` is what the server computed for an
answer, whatever else ran. `changed_list` is the time from feedback's answer to the next list, which has to
know it. `ready_seconds` is of a start after the first, which keeps what it prepared. Ratios are target /
measured: 1 and more is within it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bench._served import Size, claim, make
from pipeline.errors import ConfigError

SECONDS, CONNECTIONS, ALONE = 10, 32, 200
SWAPS = 10
TARGETS = {
    "list_p50_ms": 5.0,
    "list_p99_ms": 25.0,
    "text_p99_ms": 60.0,
    "feedback_p99_ms": 10.0,
    "changed_list_p99_ms": 50.0,
    "ready_seconds": 8.0,
    "memory_gib": 1.2,
}
Request = tuple[str, dict[str, Any]]


def run(data: Path | None = None) -> dict[str, Any]:
    """Raises ConfigError for a folder of data: the world is made up."""
    if data is not None:
        raise ConfigError("bench serve: --data: it makes its own world: leave it out")
    size = Size.asked()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as folder:
        root = Path(folder)
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copy(name, root / name)
        make(root, size)
        with _served(root) as server:
            figures = asyncio.run(_measure(server, size))
        with _served(root) as again:
            figures["service"] |= {
                "ready_seconds": again.ready_seconds,
                "ready_cpu_seconds": again.ready_cpu_seconds,
                "first_ready_seconds": server.ready_seconds,
                "first_ready_cpu_seconds": server.ready_cpu_seconds,
            }
    conditions = {
        "items": size.items,
        "rows": size.rows,
        "processors": os.cpu_count(),
        "load_before": round(load_before, 1),
        "seconds_each": SECONDS,
    }
    flat = {
        "list_p50_ms": figures["lists_at_100_a_second"]["p50_ms"],
        "list_p99_ms": figures["lists_at_100_a_second"]["p99_ms"],
        "text_p99_ms": figures["texts_one_by_one"]["p99_ms"],
        "feedback_p99_ms": figures["feedback_at_500_a_second"]["p99_ms"],
        "changed_list_p99_ms": figures["changed_list"]["p99_ms"],
        "ready_seconds": figures["service"]["ready_seconds"],
        "memory_gib": figures["service"]["peak_gib"],
    }
    ratios = {f"{name}_target": round(TARGETS[name] / value, 3) for name, value in flat.items() if value}
    return {"name": "serve", "conditions": conditions, "figures": figures, "ratios": ratios}


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
            name: round(int(lines[key].split()[0]) / 2**20, 2)
            for name, key in (("resident_gib", "VmRSS"), ("peak_gib", "VmHWM"))
        }


@contextmanager
def _served(root: Path) -> Iterator[Server]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    command = [sys.executable, "-m", "pipeline", "serve", "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    log = (root / "serve.log").open("wb")
    begin = time.monotonic()
    process = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log)
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


async def _measure(server: Server, size: Size) -> dict[str, Any]:
    generator = np.random.default_rng(3)

    def a_list() -> Request:
        return "/recommend", {"user_id": f"u{generator.integers(size.users)}"}

    def a_text() -> Request:
        words = " ".join(str(word) for word in generator.choice(["item", "number", "red", "story", "of"], 4))
        return "/recommend", {"text": f"{words} {generator.integers(size.items)}"}

    def an_event() -> Request:
        user, item = generator.integers(size.users), generator.integers(size.items)
        number = f"b{generator.integers(1 << 62)}"
        event = {
            "event_id": number,
            "user_id": f"u{user}",
            "item_id": f"i{item}",
            "event": "rating",
            "value": 5,
        }
        return "/feedback", event

    for warm in (a_list, a_text, an_event):
        await _alone(server, warm, 10)
    figures = {
        "lists_one_by_one": (await _alone(server, a_list, ALONE)).figures(),
        "lists_at_100_a_second": (await _at_rate(server, a_list, 100)).figures(),
        "texts_one_by_one": (await _alone(server, a_text, ALONE)).figures(),
        "feedback_at_500_a_second": (await _at_rate(server, an_event, 500)).figures(),
        "changed_list": (await _changed(server, 50)).figures(),
        f"lists_during_{SWAPS}_swaps": await _during_swaps(server, a_list),
    }
    return figures | {"service": server.memory()}


async def _alone(server: Server, make_request: Callable[[], Request], count: int) -> Times:
    times, client, before = Times(), await Client.open(server.port), server.cpu_seconds()
    for _ in range(count):
        begin = time.perf_counter()
        status, _content = await client.ask(*make_request())
        times.seconds.append(time.perf_counter() - begin)
        times.failed += status != 200
    client.close()
    times.cpu_seconds = server.cpu_seconds() - before
    return times


async def _at_rate(server: Server, make_request: Callable[[], Request], rate: float) -> Times:
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
    for number in range(int(rate * SECONDS)):
        due = begin + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    times.cpu_seconds = server.cpu_seconds() - before
    while not idle.empty():
        idle.get_nowait().close()
    return times


async def _changed(server: Server, count: int) -> Times:
    """From feedback's answer to the next list; failed where that does not know it."""
    times, client, before = Times(), await Client.open(server.port), server.cpu_seconds()
    for number in range(count):
        user = f"changed {number}"
        _, content = await client.ask("/recommend", {"user_id": user})
        first = json.loads(content)["items"][0]["item_id"]
        event = {"event_id": f"c{number}", "user_id": user, "item_id": first, "event": "rating", "value": 5}
        await client.ask("/feedback", event)
        begin = time.perf_counter()
        _, content = await client.ask("/recommend", {"user_id": user})
        times.seconds.append(time.perf_counter() - begin)
        times.failed += first in {item["item_id"] for item in json.loads(content)["items"]}
    client.close()
    times.cpu_seconds = server.cpu_seconds() - before
    return times


async def _during_swaps(server: Server, make_request: Callable[[], Request]) -> dict[str, Any]:
    """One caller goes on asking while one champion after another takes over."""
    times, client, seen, before = Times(), await Client.open(server.port), 0, server.cpu_seconds()
    for number in range(2, SWAPS + 2):
        version = f"v{number}.0.0"
        claim(server.root / "models/champion", version)
        limit, serving = time.monotonic() + 120, False
        while not serving and time.monotonic() < limit:
            begin = time.perf_counter()
            status, content = await client.ask(*make_request())
            times.seconds.append(time.perf_counter() - begin)
            times.failed += status != 200
            serving = status == 200 and json.loads(content)["version"] == version
        seen += serving
    client.close()
    times.cpu_seconds = server.cpu_seconds() - before
    return {**times.figures(), "swaps": seen}
