"""`evergreen serve`: the service over the project's champion, in one worker or several."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.serve.access import ENVIRONMENT, Keys, is_loopback, new_key

log = logging.getLogger(__name__)
KEYS = Path(".evergreen/api-keys")


def add_key(root: Path, name: str) -> tuple[str, Path]:
    """(the key, the file it was added to)."""
    path = Path(os.environ.get(ENVIRONMENT) or root / KEYS)
    return new_key(path, name), path


def serve(root: Path, host: str, port: int, workers: int) -> None:
    """Until it is stopped. Raises ConfigError for what would be open to strangers, or cannot be."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import sqlalchemy  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ConfigError(
            f"serving needs {error.name}: run `make serve`, or `.venv/bin/python setup_environment.py serve`"
        ) from None
    if Keys.from_environment() is None and not is_loopback(host):
        raise ConfigError(
            f"--host {host}: beyond this machine keys are needed: `evergreen serve --new-key NAME` makes "
            f"one, {ENVIRONMENT}={KEYS} names the file"
        )
    if not 0 <= port <= 65_535:
        raise ConfigError(f"--port {port}: from 0 to 65535")
    if workers < 1:
        raise ConfigError(f"--workers {workers}: at least 1")
    # A worker computes one list at a time; more threads would only fight over the processors.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="evergreen-metrics-") as folder:
        if workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        log.info("http://%s:%d/ (Ctrl-C stops it)", f"[{host}]" if ":" in host else host, port)
        uvicorn.run(
            "pipeline.serve.app:create",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=10,
        )
