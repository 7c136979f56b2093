"""Models of RecTools behind FastAPI, one worker, beside the service: the same data, the same load, in turns.

Where the peers' environment (_peers.py) is not there, nothing of it is measured: `python -m
pipeline.bench._peers` makes it. What runs in it is _served_peer.py, which says how lists are made there.
Rule: all servers are up at once and asked one after another, TURNS times, so that what else the machine does
falls on each; `changed_unknown`: of CHANGED lists after feedback, those that did not know it;
`first_ready_seconds` is a start with the fit, `ready_seconds` one with what that kept. A ratio is the
service / the peer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bench import _peers
from pipeline.bench._load import Request, Server, Times, alone, at_rate, changed, served
from pipeline.bench._served import Size
from pipeline.models.collaborative import IALS_ALPHA, IALS_FACTORS, IALS_REGULARISATIONS, KNN_NEIGHBOURS

PEERS, SCRIPT = ("ials", "item_knn"), Path(__file__).with_name("_served_peer.py")
TURNS, CHANGED, RATE = 3, 50, 100
TASK = {
    "factors": IALS_FACTORS,
    "regularization": IALS_REGULARISATIONS[0],
    "alpha": IALS_ALPHA,
    "neighbours": KNN_NEIGHBOURS,
    "seed": 17,
}
RATIOS = ("one_by_one_p50_ms", "list_p50_ms", "cpu_ms", "changed_p50_ms", "ready_seconds", "peak_gib")


@dataclass
class Measured:
    server: Server
    first_ready_seconds: float | None = None
    lists: Times = field(default_factory=Times)
    one_by_one: Times = field(default_factory=Times)
    changed: Times = field(default_factory=Times)

    def row(self) -> dict[str, Any]:
        lists, changes = self.lists.figures(), self.changed.figures()
        return {
            "answers": lists["answers"],
            "failed": self.lists.failed + self.one_by_one.failed,
            "list_p50_ms": lists["p50_ms"],
            "list_p99_ms": lists["p99_ms"],
            "cpu_ms": lists["cpu_ms"],
            "one_by_one_p50_ms": self.one_by_one.figures()["p50_ms"],
            "changed_p50_ms": changes["p50_ms"],
            "changed_unknown": changes["failed"],
            "ready_seconds": self.server.ready_seconds,
            "first_ready_seconds": self.first_ready_seconds,
            **self.server.memory(),
        }


def beside(
    service: Server, first_ready_seconds: float, size: Size, seconds: float, count: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """(figures, ratios) of service and peers: `count` lists one by one, and at RATE for `seconds`."""
    python = _peers.installed()
    if python is None:
        print(f"no peer beside the service: `python -m {_peers.__name__}` installs them", file=sys.stderr)
        return {}, {}
    measured = {"service": Measured(service, first_ready_seconds)}
    with ExitStack() as open_servers:
        for name in PEERS:
            folder = service.root / f"peer-{name}"
            folder.mkdir()
            task = TASK | {"model": name, "raw": str(service.root / "data/raw")}
            (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
            command, quiet = (python, SCRIPT, folder), {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ""}
            with served(folder, *command, **quiet) as fitting:
                first = fitting.ready_seconds
            server = open_servers.enter_context(served(folder, *command, **quiet))
            measured[name] = Measured(server, first)
        asyncio.run(_in_turns(list(measured.values()), size, seconds, count))
        rows = {name: each.row() for name, each in measured.items()}
    ours = rows["service"]
    ratios = {
        f"{what}_over_{name}": round(ours[what] / rows[name][what], 3)
        for name in PEERS
        for what in RATIOS
        if rows[name][what]
    }
    return {f"beside_{name}": row for name, row in rows.items()}, ratios


async def _in_turns(measured: list[Measured], size: Size, seconds: float, count: int) -> None:
    generator = np.random.default_rng(3)

    def a_list() -> Request:
        return "/recommend", {"user_id": f"u{generator.integers(size.users)}"}

    for each in measured:
        await alone(each.server, a_list, 10)
    for turn in range(TURNS):
        for each in measured:
            each.one_by_one.add(await alone(each.server, a_list, max(1, count // TURNS)))
            each.lists.add(await at_rate(each.server, a_list, RATE, seconds / TURNS))
            each.changed.add(await changed(each.server, CHANGED // TURNS, f"beside {turn}"))
