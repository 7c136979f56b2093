"""`evergreen serve` as a process of its own, on a free port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ports import free_port
from waiting import PATIENCE_SECONDS, until

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Served:
    project: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: object = None, method: str | None = None) -> tuple[int, Any]:
        request = urllib.request.Request(self.address + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def ready(self) -> None:
        def healthy() -> bool:
            with suppress(OSError):
                if self.ask("/health")[0] == 200:
                    return True
            assert self.process.poll() is None, "the service ended"
            return False

        until(healthy)

    def kill(self) -> None:
        """As a crash would: every process of it, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_SECONDS)


def start(project: Path, workers: int = 1, port: int | None = None, **environment: str) -> Served:
    port = port or free_port()
    command = [sys.executable, "-m", "pipeline", "serve", "--port", str(port), "--workers", str(workers)]
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    log = (project / "serve.log").open("ab")
    process = subprocess.Popen(
        command, cwd=project, env=variables, stdout=log, stderr=log, start_new_session=True
    )
    return Served(project, port, process)


@contextmanager
def running(project: Path, workers: int = 1, **environment: str) -> Iterator[Served]:
    found = start(project, workers, **environment)
    try:
        found.ready()
        yield found
        found.process.terminate()
        assert found.process.wait(PATIENCE_SECONDS) in (0, -signal.SIGTERM, 130, 143)
    finally:
        if found.process.poll() is None:
            found.kill()
