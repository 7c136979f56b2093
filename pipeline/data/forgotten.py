"""Who is forgotten: keyed marks by which a person's rows are known, and left out of whatever comes later.

A mark is four digits that tell the key, and HMAC-SHA256 of the user's pseudonym under it, cut to 128 bits
(hex): ids can be guessed, marks without the key cannot be checked against a guess; and an id and its
pseudonym have one mark. The key is that of pseudonyms where one is set, else .evergreen/forgotten.key, which
the first `evergreen forget` or `DELETE /users/{id}` makes; marks of either are known.

data/forgotten.json lists the marks (an export of tags: pipeline/registry/versions.py), and so does the event
store of a service. A mark whose key is not here stops whoever reads ids: nobody can tell whom it means.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.ids import as_ids
from pipeline.data.pseudonyms import KEY, KEY_FILE, Pseudonyms
from pipeline.documents.data import LeftOut
from pipeline.documents.forgetting import ForgottenPeople
from pipeline.errors import ConfigError, DataError
from pipeline.sources import Tables

LIST, OWN_KEY = Path("data/forgotten.json"), Path(".evergreen/forgotten.key")


class Forgotten:
    """The marks of a project, and who has one of them. Raises ConfigError where a mark's key is missing."""

    def __init__(self, root: Path, marks: Iterable[str] = (), listed: int = 0) -> None:
        self.root, self.marks, self.listed = root, set(marks), listed
        self._in_list = len(self.marks)
        self._keys: dict[str, Pseudonyms] = {}  # number -> key
        self.names: set[str] = set()  # as good as forgotten, without a mark: to see what that would mean
        self._marks: dict[str, frozenset[str]] = {}  # of a user under every key
        self.rows, self.people = 0, set[str]()  # left out so far
        self._read_keys()
        self.add(())

    @classmethod
    def of_project(cls, root: Path) -> Forgotten:
        """With the marks of data/forgotten.json."""
        path = root / LIST
        listed = ForgottenPeople.read(path).people if path.is_file() else []
        newest = max((person.number for person in listed), default=0)
        return cls(root, (person.mark for person in listed), newest)

    def _read_keys(self) -> None:
        keys = []
        if os.environ.get(KEY) or os.environ.get(KEY_FILE):
            keys.append(Pseudonyms.from_environment())
        for folder in (self.root.absolute(), *self.root.absolute().parents):  # a run's worktree lies below
            if (folder / OWN_KEY).is_file():
                keys.append(Pseudonyms((folder / OWN_KEY).read_bytes().strip()))
                break
        self._keys = {key.number: key for key in keys}

    def add(self, marks: Iterable[str]) -> None:
        """Those that an event store has, too."""
        self.marks.update(marks)
        if missing := {mark[:4] for mark in self.marks} - set(self._keys):
            self._read_keys()
            self._marks.clear()
            if missing := missing - set(self._keys):
                raise ConfigError(
                    f"{LIST}: somebody is forgotten by a mark of key {min(missing)}, which is not here: "
                    f"copy {OWN_KEY} from where it was made, or set {KEY}; see docs/privacy.md"
                )

    def mark(self, user_id: str, make: bool = True) -> str:
        """Of an id as `as_ids` has it, or of its pseudonym. The first makes the key where there is none.

        Raises ConfigError where it is not to `make` one, or cannot.
        """
        if not self._keys:
            try:
                if make:
                    _make_key(self.root / OWN_KEY)
            except OSError as error:
                raise ConfigError(f"{OWN_KEY}: {error.strerror}: set {KEY}, or make it elsewhere") from None
            self._read_keys()
        if not self._keys:
            raise ConfigError(
                f"there is no key to mark who is forgotten, and several machines would each make their own: "
                f"set {KEY} for all of them; see docs/privacy.md"
            )
        return _mark(next(iter(self._keys.values())), user_id)

    def name(self, user_id: str) -> None:
        """Take somebody for forgotten, by the id and its pseudonyms."""
        self.names.add(user_id)
        for key in self._keys.values():
            with suppress(DataError):  # a pseudonym of another key
                self.names.add(key.of(user_id))

    def has(self, user_id: str) -> bool:
        if not self.marks or user_id in self.names:
            return user_id in self.names
        own = self._marks.get(user_id)
        if own is None:
            found = []
            for key in self._keys.values():
                with suppress(DataError):  # a pseudonym of another key
                    found.append(_mark(key, user_id))
            own = self._marks[user_id] = frozenset(found)
        return not own.isdisjoint(self.marks)

    def among(self, users: pd.Series) -> np.ndarray:
        """(rows,) bool: whose user is forgotten; a missing id is nobody."""
        if not self.marks and not self.names:
            return np.zeros(len(users), bool)
        gone = [user for user in users.dropna().unique() if self.has(str(user))]
        return users.isin(gone).to_numpy()

    def without(self, read: Tables) -> Tables:
        """What a source found, without their rows; counts what is left out. Of ids as the source has them."""

        def cleared(chunks: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
            yield from map(self._cleared, chunks)

        self.rows, self.people = 0, set()
        return replace(
            read,
            interactions=cleared(read.interactions),
            users=None if read.users is None else self._cleared(read.users),
            feedback=cleared(read.feedback),
        )

    def _cleared(self, frame: pd.DataFrame) -> pd.DataFrame:
        if not self.marks or tables.USER not in frame:
            return frame
        ids = as_ids(frame[tables.USER])
        gone = self.among(ids)
        if not gone.any():
            return frame
        self.rows += int(gone.sum())
        self.people.update(min(self._marks[str(user)] & self.marks) for user in ids[gone].unique())
        return frame[~gone]

    @property
    def unlisted(self) -> int:
        """Of whom an event store knows, and data/forgotten.json does not."""
        return len(self.marks) - self._in_list

    @property
    def left_out(self) -> LeftOut:
        return LeftOut(known=self.listed, people=len(self.people), rows=self.rows)


def _mark(key: Pseudonyms, user_id: str) -> str:
    text = f"forgotten: {key.of(user_id)}"
    return f"{key.number}-{hmac.new(key.key, text.encode(), hashlib.sha256).hexdigest()[:32]}"


def _make_key(path: Path) -> None:
    """Readable by its owner alone; of several processes one makes it. It is whole when it has its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(f"{secrets.token_hex(32)}\n")
    with suppress(FileExistsError):
        os.link(beside, path)
    beside.unlink()
