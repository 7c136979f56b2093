"""docker/compose.yaml, with the files for several machines over it, as compose would read them."""

import re
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path("docker")
COMPOSE, CENTER, WORKER = (
    (DOCKER / name).read_text() for name in ("compose.yaml", "center.yaml", "worker.yaml")
)
EXAMPLE = dict(
    line.split("=", 1)
    for line in (DOCKER / ".env.example").read_text().splitlines()
    if line and line[0] != "#"
)
SECRETS = (
    "POSTGRES_PASSWORD",
    "API_SECRET_KEY",
    "JWT_SECRET",
    "REDIS_PASSWORD",
    "ADMIN_PASSWORD",
    "TASKS_PASSWORD",
    "FERNET_KEY",
)
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(:-|:\?)?([^}]*)\}")


def interpolated(values: dict[str, str], *files: str) -> dict[str, Any]:
    """compose.yaml with its variables filled in, as compose does it; `${X:?}` refuses an empty one.

    `files`: texts of those that lie over it: their lists are added, all else is replaced.
    """
    found = _filled(COMPOSE, values)
    for text in files:
        for name, changes in _filled(text, values)["services"].items():
            service = found["services"][name]
            for key, value in changes.items():
                service[key] = [*service.get(key, []), *value] if isinstance(value, list) else value
    return found


def _filled(text: str, values: dict[str, str]) -> dict[str, Any]:

    def fill(match: re.Match[str]) -> str:
        value = values.get(match[1], "")
        if match[2] == ":?" and not value:
            raise ValueError(f"{match[1]}: {match[3]}")
        return value or (match[3] if match[2] == ":-" else "")

    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return dict(yaml.safe_load(VARIABLE.sub(fill, "\n".join(lines)).replace("$$", "$")))


FILLED = EXAMPLE | dict.fromkeys(SECRETS, "s3cret")
FILLED |= {"CENTER_ADDRESS": "10.77.0.1", "WORKER_HOST": "worker-b"}
