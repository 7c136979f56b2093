"""Git's plumbing for actions: snapshots and tags that leave branch, index and working tree as they are.

Every call is a `git` process: about 5 ms each, and nothing to import.
"""

from __future__ import annotations

import fcntl
import getpass
import logging
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ArtifactError, Unavailable

log = logging.getLogger(__name__)
FALLBACK_IDENTITY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "Evergreen"), ("EMAIL", "evergreen@localhost"))
}


@dataclass(frozen=True)
class Tag:
    """An annotated tag: its message's first paragraph is for people, the rest is the record."""

    name: str
    commit: str
    time: int  # seconds since 1970
    message: str


class Git:
    """The repository that holds the project at `root`. Raises ArtifactError where there is none."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._environment: dict[str, str] = {}
        try:
            folder = self.run("rev-parse", "--git-common-dir")
        except FileNotFoundError:
            raise ArtifactError("git: not found: install it, the registry lives in git tags") from None
        except ArtifactError as error:
            if "not a git repository" not in str(error):
                raise
            raise ArtifactError(
                f"{root}: no git repository: the registry lives in git tags: run `git init` "
                "and commit the project"
            ) from None
        self.folder = (root / folder).resolve()
        """Shared by all worktrees, as the tags are."""

    def run(
        self,
        *arguments: str,
        text: str | None = None,
        environment: Mapping[str, str] | None = None,
        keep_open: Iterable[int] = (),
    ) -> str:
        """Output of `git ARGUMENTS` without the last newline. Raises Unavailable with git's own line."""
        done = subprocess.run(
            ["git", "-C", str(self.root), *arguments],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **self._environment, **(environment or {})},
            pass_fds=tuple(keep_open),
            check=False,
        )
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            fatal = [line for line in said if line.startswith(("fatal: ", "error: "))]
            reason = (fatal[:1] or said or [str(done.returncode)])[-1]
            raise Unavailable(f"git {arguments[0]}: {reason}")
        return done.stdout.removesuffix("\n")

    def use_fallback_identity(self) -> None:
        """Act as Evergreen where neither environment nor configuration says who is acting."""
        try:
            self.run("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
            self.run("-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT")
        except ArtifactError:
            self._environment = {k: v for k, v in FALLBACK_IDENTITY.items() if k not in os.environ}

    def identity(self) -> str:
        """`Name <address>` of whoever acts."""
        return self.run("var", "GIT_COMMITTER_IDENT").rsplit(" ", 2)[0]

    def person(self) -> str:
        """Who sits here: `Name <address>`, or the login's name where git does not know whose it is."""
        self.use_fallback_identity()
        return self.identity() if not self._environment else getpass.getuser()

    def tags(self, *prefixes: str) -> list[Tag]:
        """Annotated tags whose names start with one of the `prefixes`."""
        form = "%(refname:strip=2)%00%(*objectname)%00%(taggerdate:unix)%00%(contents)%01"
        tags_there = []
        patterns = [f"refs/tags/{prefix}*" for prefix in prefixes]
        for row in self.run("for-each-ref", f"--format={form}", *patterns).split("\x01"):
            if row.strip("\n"):
                name, commit, moment, message = row.lstrip("\n").split("\0", 3)
                if commit:
                    tags_there.append(Tag(name, commit, int(moment), message.strip("\n")))
        return tags_there

    def show(self, commit: str, path: str) -> str | None:
        """A file of the project as it was in `commit`; None if it was not there."""
        try:
            return self.run("show", f"{commit}:./{path}")
        except ArtifactError:
            return None

    def overlook(self, path: str) -> None:
        """Let git pass over what we write into a tracked file of this checkout."""
        try:
            if self.run("ls-files", "-v", "--", path).startswith("H"):
                self.run("update-index", "--skip-worktree", "--", path)
        except ArtifactError as error:  # another git is at work here: the file shows as modified, no more
            log.debug("%s", error)

    def head(self) -> str:
        """The commit that is checked out."""
        try:
            return self.run("rev-parse", "--verify", "HEAD^{commit}")
        except ArtifactError:
            raise ArtifactError(
                "git: no commit yet: commit the project first (`git add .`, `git commit`)"
            ) from None

    def snapshot(
        self,
        message: str,
        records: Mapping[str, str],
        untracked: Iterable[str],
        leave: Iterable[str] = (),
    ) -> str:
        """A commit on top of HEAD that no branch points to; returns its hash.

        It holds the tracked files as they are in the working tree (but for those to `leave` as they were
        committed), the `untracked` ones named, and `records` (path -> content). Built in an index of its own:
        nothing that the user sees changes. Only under lock.
        """
        head = self.head()
        with self._empty_index() as index:
            self.run("read-tree", head, environment=index)
            left = [f":(exclude){path}" for path in leave]
            self.run("add", "--update", "--", ":/", *left, environment=index)
            named = [path for path in untracked if (self.root / path).is_file()]
            if named:
                self.run("add", "--force", "--", *named, environment=index)
            prefix = self.run("rev-parse", "--show-prefix")
            for path, content in records.items():
                blob = self.run("hash-object", "-w", "--stdin", text=content)
                entry = f"100644,{blob},{prefix}{path}"
                self.run("update-index", "--add", "--cacheinfo", entry, environment=index)
            tree = self.run("write-tree", environment=index)
        return self.run("commit-tree", tree, "-p", head, "-F", "-", text=message)

    def with_file(self, commit: str, path: str, content: str, message: str) -> str:
        """A commit on top of `commit` in which one file of the project is another. Only under lock."""
        with self._empty_index() as index:
            self.run("read-tree", commit, environment=index)
            blob = self.run("hash-object", "-w", "--stdin", text=content)
            entry = f"100644,{blob},{self.run('rev-parse', '--show-prefix')}{path}"
            self.run("update-index", "--add", "--cacheinfo", entry, environment=index)
            tree = self.run("write-tree", environment=index)
        return self.run("commit-tree", tree, "-p", commit, "-F", "-", text=message)

    @contextmanager
    def _empty_index(self) -> Iterator[dict[str, str]]:
        """The environment of our own index; its name is fixed, so that killed actions leave only one."""
        path = self.folder / "evergreen-index"
        lock = path.with_name(f"{path.name}.lock")
        for leftover in (path, lock):
            leftover.unlink(missing_ok=True)
        try:
            yield {"GIT_INDEX_FILE": str(path)}
        finally:
            path.unlink(missing_ok=True)

    def untracked(self, paths: Iterable[str]) -> list[str]:
        """Those of the files and folders' files that git neither tracks nor ignores."""
        listed = self.run("ls-files", "-z", "--others", "--exclude-standard", "--", *paths)
        return [path for path in listed.split("\0") if path]

    def create_tags(self, commit: str, messages: Mapping[str, str], after: int, keep_open: int) -> None:
        """Annotated tags on `commit`, all in one transaction, dated later than `after` (seconds).

        The tag objects come first: they are invisible until the transaction names them. A tag that exists
        already fails it as a whole. `keep_open` is the lock's descriptor: should this process be killed, git
        ends what it began before anyone else gets the lock.
        """
        moment = max(int(time.time()), after + 1)
        lines = []
        for name, message in messages.items():
            body = (
                f"object {commit}\ntype commit\ntag {name}\ntagger {self.identity()} {moment} +0000\n"
                f"\n{message.strip()}\n"
            )
            lines.append(f"create refs/tags/{name} {self.run('mktag', text=body)}")
        self._remove_stale_locks(messages)
        self.run("update-ref", "--stdin", text="\n".join([*lines, ""]), keep_open=[keep_open])

    def _remove_stale_locks(self, names: Iterable[str]) -> None:
        """git killed amid a transaction leaves NAME.lock; ours are nobody else's while we hold the lock."""
        for name in names:
            (self.folder / "refs" / "tags" / f"{name}.lock").unlink(missing_ok=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[int]:
        """Hold the named lock of this repository, worktrees included; waits for it. Gives its descriptor.

        The kernel drops it with the last process that holds the descriptor, however that ends.
        """
        descriptor = os.open(self.folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("waiting for another %s action to end", name)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)
