"""How often the drift check cries wolf, and which planted shifts it finds; Evidently's defaults beside it."""

from pathlib import Path
from typing import Any


def run(data: Path | None = None) -> dict[str, Any]:
    """Not there yet."""
    raise NotImplementedError
