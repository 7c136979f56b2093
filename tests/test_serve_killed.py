"""Everything killed with -9 in the midst of 5,000 events: no acknowledged one is lost, none counts twice."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from http.client import HTTPException
from pathlib import Path

import pytest
import served
from served_process import Served, running, start
from waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.slow
for needed in ("fastapi", "uvicorn", "prometheus_client", "sqlalchemy"):
    pytest.importorskip(needed)

EVENTS, SENDERS, USERS = 5_000, 6, 200
TOGETHER = 5  # events of a call


def event(number: int) -> dict[str, object]:
    item, user = f"i{number % 24:02}", f"w{number % USERS}"
    return {"event_id": f"k{number}", "user_id": user, "item_id": item, "event": "click"}


def send(service: Served, numbers: list[int], acknowledged: set[int], lock: threading.Lock) -> None:
    """Until all are acknowledged or the service is gone; few at a time, again where a worker still starts."""
    for begin in range(0, len(numbers), TOGETHER):
        part = numbers[begin : begin + TOGETHER]
        status, told = 503, {}
        while status == 503:
            try:
                status, told = service.ask("/feedback", [event(number) for number in part])
            except (OSError, HTTPException, ValueError):
                return
        if status == 200 and told["accepted"] + told["duplicates"] == len(part):
            with lock:
                acknowledged.update(part)


def in_threads(service: Served, numbers: list[int], acknowledged: set[int], kill_at: int | None) -> None:
    lock = threading.Lock()
    threads = [
        threading.Thread(target=send, args=(service, numbers[place::SENDERS], acknowledged, lock))
        for place in range(SENDERS)
    ]
    for thread in threads:
        thread.start()
    if kill_at is not None:
        limit = time.monotonic() + PATIENCE_SECONDS
        while len(acknowledged) < kill_at:
            assert time.monotonic() < limit
            time.sleep(0.002)
        service.kill()
    for thread in threads:
        thread.join(timeout=PATIENCE_SECONDS)


def stored(project: Path) -> list[str]:
    with sqlite3.connect(project / ".evergreen" / "events.db") as found:
        return [row[0] for row in found.execute("SELECT event_id FROM evergreen_events")]


def test_acknowledged_events_outlive_a_crash(tmp_path_factory: pytest.TempPathFactory) -> None:
    project = tmp_path_factory.mktemp("killed") / "project"
    shutil.copytree(served.once(tmp_path_factory), project)
    acknowledged: set[int] = set()
    first = start(project, workers=2)
    try:
        first.ready()
        in_threads(first, list(range(EVENTS)), acknowledged, kill_at=EVENTS // 2)
    finally:
        if first.process.poll() is None:
            first.kill()
    kept = stored(project)
    assert EVENTS // 2 <= len(acknowledged) < EVENTS
    assert len(kept) == len(set(kept))
    assert {f"k{number}" for number in acknowledged} <= set(kept)
    with running(project, workers=2) as second:
        # Whoever has no answer sends again; some send what was acknowledged, too.
        rest = [number for number in range(EVENTS) if number not in acknowledged or number % 10 == 0]
        in_threads(second, rest, acknowledged, kill_at=None)
        assert len(acknowledged) == EVENTS
        kept = stored(project)
        assert len(kept) == len(set(kept)) == EVENTS
        # Every worker's lists leave out what a user of these events had.
        for _ in range(8):
            _, told = second.ask("/recommend", {"user_id": "w7", "k": 24})
            had = {f"i{number % 24:02}" for number in range(7, EVENTS, USERS)}
            assert not had & {item["item_id"] for item in told["items"]}
