"""docker/compose.yaml as compose would read it."""

import re
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path("docker")
COMPOSE = (DOCKER / "compose.yaml").read_text()
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


def interpolated(values: dict[str, str]) -> dict[str, Any]:
    """compose.yaml with its variables filled in, as compose does it; `${X:?}` refuses an empty one."""

    def fill(match: re.Match[str]) -> str:
        value = values.get(match[1], "")
        if match[2] == ":?" and not value:
            raise ValueError(f"{match[1]}: {match[3]}")
        return value or (match[3] if match[2] == ":-" else "")

    lines = [line for line in COMPOSE.splitlines() if not line.lstrip().startswith("#")]
    return dict(yaml.safe_load(VARIABLE.sub(fill, "\n".join(lines)).replace("$$", "$")))


FILLED = EXAMPLE | dict.fromkeys(SECRETS, "s3cret")
