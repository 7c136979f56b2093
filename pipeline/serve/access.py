"""Who may ask, how often and how much: keys, rate, size of a body; the id of each request.

EVERGREEN_API_KEYS names a file with a line `NAME SHA256-OF-KEY` for each key; `evergreen serve --new-key
NAME` adds one and prints the key, once. Without such a file only this machine is answered, by its own names,
so that no page of elsewhere can reach the service through a browser here.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import math
import os
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.files import stamp

log = logging.getLogger(__name__)
ENVIRONMENT = "EVERGREEN_API_KEYS"
OPEN = {"/", "/health", "/favicon.ico"}  # the page holds nothing; probes have no keys
LOCAL_NAMES = {"localhost", "127.0.0.1", "[::1]", "testserver"}
MOST_BYTES = 8 << 20  # of a body
_LINE = re.compile(r"(\S+)\s+([0-9a-f]{64})")


def is_loopback(host: str | None) -> bool:
    if host in ("localhost", "testclient"):
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Keys:
    names: Mapping[str, str]  # sha256 -> name
    path: Path | None = None
    seen: tuple[int, int] | None = None  # of the file when it was read

    @classmethod
    def from_environment(cls) -> Keys | None:
        """None without the variable. Raises ConfigError for a file that is missing, malformed or empty."""
        path = os.environ.get(ENVIRONMENT)
        return cls.read(Path(path)) if path else None

    def renewed(self) -> Keys:
        """As the file has them now; itself where that did not change, or cannot be read."""
        if self.path is None or (seen := stamp(self.path)) == self.seen:
            return self
        try:
            return self.read(self.path)
        except ConfigError as error:
            log.error("%s; the keys of before are taken", error)
            return replace(self, seen=seen)

    @classmethod
    def read(cls, path: Path) -> Keys:
        seen = stamp(path)  # before it is read: what changes meanwhile is read again
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ConfigError(
                f"{path}: {error.strerror} ({ENVIRONMENT}): make one with `evergreen serve --new-key NAME`"
            ) from None
        names = {}
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.startswith("#"):
                match = _LINE.fullmatch(line.strip())
                if match is None:
                    raise ConfigError(
                        f"{path}: line {number} is not `NAME SHA256`: make one by `evergreen serve --new-key`"
                    )
                names[match[2]] = match[1]
        if not names:
            raise ConfigError(f"{path}: no key in it: `evergreen serve --new-key NAME` adds one")
        return cls(names, path, seen)

    def name_of(self, header: str | None) -> str | None:
        """Whose key `Authorization: Bearer KEY` holds."""
        scheme, _, key = (header or "").partition(" ")
        if scheme.casefold() != "bearer" or not key:
            return None
        digest = hashlib.sha256(key.strip().encode()).hexdigest()
        found = None
        for known, name in self.names.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found


def new_key(path: Path, name: str) -> str:
    """Add a key for `name` to the file; the key itself is nowhere but in what is returned."""
    if not re.fullmatch(r"[\w.@-]+", name):
        raise ConfigError(f"--new-key {name!r}: letters, digits and . _ @ - alone")
    key = secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{name} {hashlib.sha256(key.encode()).hexdigest()}\n")
    return key


@dataclass
class Rate:
    """Calls a second of each caller, with bursts of as many; 0: no limit."""

    limit: float
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def from_environment(cls) -> Rate:
        """Raises ConfigError for what is no rate."""
        text = os.environ.get("EVERGREEN_RATE") or "0"
        with suppress(ValueError):
            if 0 <= (limit := float(text)) < math.inf:
                return cls(limit)
        raise ConfigError(f"EVERGREEN_RATE: {text!r} is no number of calls a second; 0 is no limit")

    def allows(self, caller: str) -> bool:
        if self.limit <= 0:
            return True
        now = time.monotonic()
        if len(self._left) > 10_000:  # whoever was quiet for so long has its burst again
            quiet = max(1.0, 1 / self.limit)
            self._left = {name: each for name, each in self._left.items() if now - each[1] < quiet}
        burst = max(self.limit, 1.0)  # of less than a call no call could ever be made
        left, last = self._left.get(caller, (burst, now))
        left = min(burst, left + (now - last) * self.limit)
        if left < 1:
            self._left[caller] = (left, now)
            return False
        self._left[caller] = (left - 1, now)
        return True


def problem_with(
    keys: Keys | None, host: str | None, headers: Mapping[str, str], path: str, client: str | None
) -> tuple[int, str] | str:
    """(status, detail) where the caller may not ask; else the caller's name, for its rate."""
    if keys is None:
        if not is_loopback(client):
            return 403, f"without keys only this machine is answered: name a file of keys in {ENVIRONMENT}"
        name = re.sub(r":\d+$", "", host or "")
        if name and name not in LOCAL_NAMES:
            return 403, f"host {name!r}: without keys this service goes by localhost alone"
        return str(client)
    name_of = keys.name_of(headers.get("authorization"))
    if name_of is None and path not in OPEN:
        return 401, "a key is needed: `Authorization: Bearer KEY`"
    return name_of or str(client)


__all__ = ["ENVIRONMENT", "MOST_BYTES", "Keys", "Rate", "is_loopback", "new_key", "problem_with"]
