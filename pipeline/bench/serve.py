"""The service under load: lists, texts and feedback by percentiles, changed lists, swaps, memory.

In: nothing; a made-up project (pipeline/bench/_served.py) of 100,000 items and 1,000,000 rows, or of
EVERGREEN_BENCH_ITEMS and EVERGREEN_BENCH_ROWS. Server (one worker) and client share the machine.
Rule: latencies at a rate count from when a request was due; `one_by_one` are of a single caller; `cpu_ms` is
what the server computed for an answer, whatever else ran. `changed_list` is the time from feedback's answer
to the next list, which has to know it. `soak`: EVERGREEN_BENCH_REQUESTS lists, texts and events, mixed, and
how much memory grew. `ready_seconds` is of a start after the first, which keeps what it prepared. Ratios are
target / measured: 1 and more is within it. Peers beside it, where they are installed:
pipeline/bench/_served_peers.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bench._asked import number_of
from pipeline.bench._load import Client, Request, Server, Times, alone, at_rate, changed, served, soak
from pipeline.bench._served import Size, claim, make
from pipeline.bench._served_peers import beside
from pipeline.errors import ConfigError

SECONDS, ALONE, REQUESTS = 10, 200, 20_000
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


def run(data: Path | None = None) -> dict[str, Any]:
    """Raises ConfigError for a folder of data: the world is made up."""
    if data is not None:
        raise ConfigError("bench serve: --data: it makes its own world: leave it out")
    size, requests = Size.asked(), number_of("REQUESTS", REQUESTS)
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as folder:
        root = Path(folder)
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copy(name, root / name)
        make(root, size)
        service = (sys.executable, "-m", "pipeline", "serve")
        path = {"PYTHONPATH": str(Path(__file__).parents[2])}
        with served(root, *service, **path) as server:
            figures = asyncio.run(_measure(server, size, requests))
        with served(root, *service, **path) as again:
            rows, peer_ratios = beside(again, server.ready_seconds, size, SECONDS, ALONE)
            figures["service"] |= {
                "ready_seconds": again.ready_seconds,
                "ready_cpu_seconds": again.ready_cpu_seconds,
                "first_ready_seconds": server.ready_seconds,
                "first_ready_cpu_seconds": server.ready_cpu_seconds,
            }
    figures |= rows
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
    return {"name": "serve", "conditions": conditions, "figures": figures, "ratios": ratios | peer_ratios}


async def _measure(server: Server, size: Size, requests: int) -> dict[str, Any]:
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

    def anything() -> Request:
        return (a_list, a_text, an_event)[generator.choice(3, p=[0.88, 0.02, 0.1])]()

    for warm in (a_list, a_text, an_event):
        await alone(server, warm, 10)
    figures = {
        "lists_one_by_one": (await alone(server, a_list, ALONE)).figures(),
        "lists_at_100_a_second": (await at_rate(server, a_list, 100, SECONDS)).figures(),
        "texts_one_by_one": (await alone(server, a_text, ALONE)).figures(),
        "feedback_at_500_a_second": (await at_rate(server, an_event, 500, SECONDS)).figures(),
        "changed_list": (await changed(server, 50)).figures(),
        "soak": await soak(server, anything, requests),
        f"lists_during_{SWAPS}_swaps": await _during_swaps(server, a_list),
    }
    return figures | {"service": server.memory()}


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
