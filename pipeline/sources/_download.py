"""An archive fetched once: progress bar, checksum, cache; plain words where there is no network."""

from __future__ import annotations

import hashlib
import logging
import sys
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import IO

from tqdm import tqdm

from pipeline.errors import ConfigError, DataError, Unavailable
from pipeline.files import renamed

log = logging.getLogger(__name__)
CACHE = Path(".evergreen/downloads")
SECONDS = 30  # without an answer
BUSY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
_PIECE = 1 << 20


def download(url: str, sha256: str | None, cache: Path = CACHE) -> Path:
    """The archive at `url`, from the cache if it is there with the right checksum.

    Raises DataError if it cannot be fetched or its checksum is another one; nothing is left behind then.
    """
    if not url.startswith(("https://", "http://", "file://")):
        raise ConfigError(f"collect.url: {url!r} is no web address: begin it with https://")
    sha256 = sha256.lower() if sha256 else None
    name = url.rstrip("/").rpartition("/")[2].partition("?")[0] or "archive"
    path = cache / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"
    if path.is_file() and sha256 in (None, _sha256(path)):
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with renamed(path) as temporary:
        _fetch(url, temporary)
        actual = _sha256(temporary)
        if sha256 not in (None, actual):
            raise DataError(
                f"{url}: sha256 is {actual}, collect.sha256 says {sha256}: correct the one that is wrong"
            )
    log.info("downloaded %s, sha256 %s", url, actual)
    return path


def _fetch(url: str, target: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer, target.open("wb") as file:
            _copy(answer, file, int(answer.headers.get("Content-Length") or 0))
    except urllib.error.HTTPError as error:
        said = f"{url}: the server says {error.code} {error.reason}"
        if error.code in BUSY or error.code >= 500:
            raise Unavailable(f"{said}: try again later") from None
        raise DataError(f"{said}: correct collect.url") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, FileNotFoundError):
            raise DataError(f"{url}: no such file: correct collect.url") from None
        raise Unavailable(
            f"{url}: not reachable ({reason}): is there a network? Or fetch it elsewhere and set collect.path"
        ) from None


def _copy(answer: IO[bytes], file: IO[bytes], size: int) -> None:
    bar = tqdm(
        total=size or None, unit="B", unit_scale=True, desc="downloading", file=sys.stderr, disable=None
    )
    got = 0
    with bar:
        while piece := answer.read(_PIECE):
            file.write(piece)
            bar.update(len(piece))
            got += len(piece)
    if size and got < size:
        raise ConnectionError(f"connection lost after {got} of {size} bytes")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
