"""The registry as the page needs it: versions, who was champion when, trainings. Read from git tags.

pipeline/registry/versions.py says what the tags mean; this is a reader of a few lines, since nothing in dags/
imports the pipeline. Where there is no git, data/registry.json (an export) tells what it can.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from evergreen_pages.untrusted import get, mapping, moment, read_json, rows, string

FORM = "%(refname:strip=2)%00%(*objectname)%00%(contents)%01"
VERSION = re.compile(r"recommender@(v(\d+)\.\d+\.\d+)")
APPOINTMENT = re.compile(r"recommender#champion(!?)#(\d+)")
TRAINING = re.compile(r"training/(\d+)")
TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Version:
    name: str
    record: dict[str, Any] = field(default_factory=dict)
    commit: str | None = None

    @property
    def fit_end(self) -> datetime | None:
        return moment(get(self.record, "fit_end"))

    @property
    def reason(self) -> str | None:
        return string(self.record, "reason")


@dataclass(frozen=True)
class Appointment:
    version: str | None  # None: it was withdrawn
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def is_rollback(self) -> bool:
        return get(self.record, "action") == "rollback"


@dataclass(frozen=True)
class Registry:
    versions: Mapping[str, Version] = field(default_factory=dict)  # by name, oldest first
    appointments: list[Appointment] = field(default_factory=list)  # oldest first
    trainings: int = 0
    problem: str | None = None

    @property
    def champion(self) -> Version | None:
        newest = self.appointments[-1].version if self.appointments else None
        return self.versions.get(newest) if newest else None

    @property
    def predecessor(self) -> str | None:
        """Where `evergreen registry rollback` would go: the champion that this one replaced."""
        champion, found, previous = self.champion, None, None
        for appointment in self.appointments:
            if champion and appointment.version == champion.name and not appointment.is_rollback:
                found = previous
            previous = appointment.version
        return found


def read(root: Path) -> Registry:
    """Never raises; `problem` says what could not be read."""
    command = ["git", "-C", str(root), "for-each-ref", f"--format={FORM}"]
    command += ["refs/tags/recommender*", "refs/tags/training/"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or b""
        why = said.decode(errors="replace").strip().splitlines()[-1:] or [str(error)]
        return _exported(root, f"git: {why[0]}")
    return parse(done.stdout.decode("utf-8", "replace"))


def parse(output: str) -> Registry:
    """What `git for-each-ref --format=FORM` printed."""
    versions, appointments, trainings = [], [], 0
    for row in output.split("\x01"):
        name, commit, message = [*row.lstrip("\n").split("\0", 2), "", "", ""][:3]
        if match := VERSION.fullmatch(name):
            versions.append((int(match[2]), Version(match[1], _record(message), commit)))
        elif match := APPOINTMENT.fullmatch(name):
            appointments.append((int(match[2]), match[1], commit, _record(message)))
        elif TRAINING.fullmatch(name):
            trainings += 1
    ordered = {version.name: version for _, version in sorted(versions, key=lambda row: row[0])}
    by_commit = {version.commit: name for name, version in ordered.items()}
    return Registry(
        ordered,
        [
            Appointment(None if withdrawn else by_commit.get(commit), record)
            for _, withdrawn, commit, record in sorted(appointments, key=lambda row: row[0])
        ],
        trainings,
    )


def _record(message: str) -> dict[str, Any]:
    """The JSON behind the first paragraph; {} in a tag that gto or a person made."""
    try:
        return mapping(from_json(message.partition("\n\n")[2]))
    except ValueError:
        return {}


def _exported(root: Path, problem: str) -> Registry:
    content = read_json(root / "data" / "registry.json")
    versions = {
        name: Version(name, row, string(row, "commit"))
        for row in rows(content, "versions")
        if (name := string(row, "version"))
    }
    champion = string(content, "champion")
    appointments = [Appointment(champion)] if champion in versions else []
    return Registry(versions, appointments, len(rows(content, "trainings")), problem)
