"""dvc.yaml -> stages, their order, and what Airflow should know of each; nothing is run and nothing written.

A comes before B if an output of A equals, contains or lies inside a dependency of B: DVC's own rule
(tests/test_dvc_graph.py compares). Whoever reads dvc.yaml has to see the graph, so templates (`foreach`,
`matrix`, `vars`, `${...}`) are refused. `meta.airflow` of a stage may hold HINTS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FILE_KEYS = {"stages", "plots", "metrics", "artifacts"}
STAGE_KEYS = {"desc", "cmd", "deps", "params", "outs", "metrics", "plots", "meta"}
HINTS: dict[str, type | tuple[type, ...]] = {
    "retries": int,
    "retry_delay_seconds": (int, float),
    "timeout_minutes": (int, float),
    "pool": str,
    "queue": str,
    "schedule": str,
    "new_events": int,
    "approval_hours": (int, float),
}
"""schedule: cron, of the DAG that is for this stage; new_events: of the service's store, after which the
monitoring runs, too, where EVERGREEN_EVENTS names that store; approval_hours: how long a person has to say
yes to the promotion; pool: of Airflow's, `training` is made by the plugin."""


class GraphError(ValueError):
    """dvc.yaml is not what can be compiled: what, where, and what to do."""


@dataclass(frozen=True)
class Stage:
    name: str
    desc: str
    upstream: tuple[str, ...]
    hints: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    stages: dict[str, Stage]
    fingerprint: str
    """sha256 of its lines: a run refuses another dvc.yaml than the one that its DAG was compiled from."""


def read(path: Path) -> Graph:
    """Raises GraphError, which names file and key; OSError if there is no such file."""
    content = path.read_bytes()
    try:
        found = yaml.load(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise GraphError(f"{path}: not YAML: {error}") from None
    stages = found.get("stages") if isinstance(found, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        raise GraphError(f"{path}: stages: missing or malformed: write them out")
    _refuse(path, "", set(found) - FILE_KEYS)
    for name, stage in stages.items():
        _refuse(path, f"stages.{name}.", set(stage) - STAGE_KEYS)
        if "${" in str(stage):
            raise GraphError(f"{path}: stages.{name}: a template (${{...}}): write the value out")
    graph = {}
    for name, stage in stages.items():
        desc = " ".join(str(stage.get("desc", name)).split())
        graph[name] = Stage(name, desc, _upstream(name, stages), _hints(path, name, stage))
    lines = "\n".join(content.decode().splitlines())  # git may have changed their ends
    return Graph(graph, hashlib.sha256(lines.encode()).hexdigest())


def _refuse(path: Path, where: str, unknown: Iterable[str]) -> None:
    if names := sorted(map(str, unknown)):
        raise GraphError(f"{path}: {where}{names[0]}: cannot be compiled: write the stages out without it")


def _upstream(name: str, stages: dict[str, Any]) -> tuple[str, ...]:
    needed = _paths(stages[name], "deps")
    return tuple(
        other
        for other, stage in stages.items()
        if other != name
        and any(_meet(out, dep) for out in _paths(stage, "outs", "metrics", "plots") for dep in needed)
    )


def _paths(stage: dict[str, Any], *kinds: str) -> list[str]:
    """Each entry is a path, or {path: options}."""
    entries = [entry for kind in kinds for entry in stage.get(kind) or []]
    return [str(next(iter(entry)) if isinstance(entry, dict) else entry).rstrip("/") for entry in entries]


def _meet(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _hints(path: Path, name: str, stage: dict[str, Any]) -> dict[str, Any]:
    hints = (stage.get("meta") or {}).get("airflow") or {}
    where = f"{path}: stages.{name}.meta.airflow"
    if not isinstance(hints, dict):
        raise GraphError(f"{where}: not a mapping: give it some of {', '.join(HINTS)}")
    for key, value in hints.items():
        if key not in HINTS:
            raise GraphError(f"{where}.{key}: unknown: use some of {', '.join(HINTS)}")
        if isinstance(value, bool) or not isinstance(value, HINTS[key]):
            raise GraphError(f"{where}.{key}: {value!r} is of the wrong type: see dags/dvc_graph.py")
    return dict(hints)
