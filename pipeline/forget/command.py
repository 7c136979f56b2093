"""`evergreen forget USER`: erases a person everywhere, says where, and writes a certificate.

First the mark: from then on nothing new of them comes in. Then what is still needed is made anew without
them, beside the old; the registry and dvc.lock name the new; files are replaced, each in one step; at last
the old objects go. Killed at any moment, the same command goes on: each step looks at what is there, not at
what was done. Whoever is forgotten already is looked for as well, so one run ends what the service began.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from pipeline.data.forgotten import LIST, Forgotten
from pipeline.data.ids import as_id
from pipeline.documents.data import Manifest
from pipeline.documents.forgetting import Certificate, Place, Replaced
from pipeline.documents.registry import Person
from pipeline.errors import ConfigError, PipelineError
from pipeline.files import is_alive, write_text
from pipeline.forget import places
from pipeline.forget.contents import Contents
from pipeline.forget.models import CLOSED_FORM, WINDOWS, Known, known_models, locks, sentences
from pipeline.forget.records import locks_of_runs, note_forgotten, note_lock, note_rewritten, with_new
from pipeline.forget.refit import refit
from pipeline.forget.storage import New, Stays, Stored, opened
from pipeline.locks import no_readers, one_cycle
from pipeline.loop.history import HISTORY, Account
from pipeline.models.artifacts import CHAMPION, PARTS, files_hash, folder_hash, has_model
from pipeline.registry.actions import put_champion
from pipeline.registry.git import Git
from pipeline.registry.objects import locked, locked_md5
from pipeline.registry.records import MANIFEST, now
from pipeline.registry.versions import State, read_state
from pipeline.runs.replay import CLONE
from pipeline.runs.worktrees import RUNS, remove

log = logging.getLogger(__name__)
CERTIFICATES = HISTORY / "forgotten"
INTERACTIONS = "data/raw/interactions"
EVENT_STORE, CACHES = "event store", ".evergreen"
UNFINISHED = "files of killed processes"
# Places that have something to say also where no row was theirs.
SAID = (EVENT_STORE, str(RUNS), UNFINISHED, CACHES)
BEYOND = (
    ("the source", "only read here: delete them there; what it still gives of them stays out"),
    ("other clones and their caches", "`git fetch --tags --force`, then `evergreen forget` there"),
    ("backups, and logs of a database", "as long as you keep them: restored, run `evergreen forget` again"),
)


def forget(root: Path, user: str | None, dry_run: bool = False) -> Certificate | None:
    """`user`: an id as the shop has it, or a pseudonym; None: whom the service forgot, or a try that was cut
    short. None is returned where everybody who was forgotten has a certificate here.

    Raises PipelineError where something is at work here, or a place does not answer; run again, it goes on.
    """
    if user is not None:
        try:
            user = as_id(user)
        except ValueError as error:
            raise PipelineError(
                f"evergreen forget: {user!r}: {error}: name one user_id as the data have it"
            ) from None
    with ExitStack() as held:
        held.enter_context(one_cycle(root))
        held.enter_context(no_readers(root))
        for replayed in sorted((root / CLONE).glob("*/params.yaml")):
            held.enter_context(one_cycle(replayed.parent))
        _refuse_runs(root)
        _refuse_dvc(root)
        if dry_run:
            people = Forgotten(root)
            if user is None:
                people = Forgotten.of_project(root)
            else:
                people.name(user)
            with opened(root, Contents(people, people.names)) as stored:
                sweep = _Sweep(root, stored, Certificate(marks=[], when=now()), act=False)
                return sweep.run()
        people, person = _marked(root, user)
        if (certificate := _begun(root, people, person)) is None:
            return None
        with opened(root, Contents(people, [user] if user else [])) as stored:
            return _Sweep(root, stored, certificate, act=True).run()


def _refuse_runs(root: Path) -> None:
    """What a run under way has read it would write again."""
    for folder in sorted((root / HISTORY).glob("*/run.json")):
        account = Account.found(folder.parent)
        if account and account.run.state == "running" and (root / RUNS / folder.parent.name).exists():
            raise PipelineError(
                f"run {account.run.run_id} is under way: wait for it to end, or mark it failed and remove "
                f"{RUNS / folder.parent.name} (`git worktree remove --force`)"
            )


def _refuse_dvc(root: Path) -> None:
    """A stage that DVC runs has read their rows, and would write them into what was cleaned."""
    for path in sorted((root / ".dvc/tmp").rglob("rwlock")):  # that of `dvc exp run --temp` lies deeper
        try:
            held = json.loads(path.read_bytes())
            users = [*held.get("write", {}).values(), *chain(*held.get("read", {}).values())]
        except (OSError, ValueError, AttributeError):
            continue
        for user in users:
            if is_alive(str(user["pid"])):
                raise PipelineError(
                    f"`{user['cmd']}` (process {user['pid']}) is under way here: wait for it to end"
                )


def _marked(root: Path, user: str | None) -> tuple[Forgotten, str | None]:
    """Everybody who is forgotten, with a tag each; and the mark of `user`."""
    people = Forgotten.of_project(root)
    wanted = [people.mark(user)] if user else []
    store = places.event_store(root)
    if store is not None:
        wanted += [change.key for change in store.changes_after(0) if change.kind == "user"]
        store.close()
    manifest, moment = Manifest.find(root / MANIFEST), now()
    known = people.marks
    new = [mark for mark in dict.fromkeys(wanted) if mark not in known]
    note_forgotten(
        root,
        [
            Person(
                mark=mark,
                number=0,
                when=moment,
                as_of=manifest.as_of if manifest else None,
                rows=places.rows(root, INTERACTIONS, Contents(Forgotten(root, [mark]))),
            )
            for mark in new
        ],
    )
    people = Forgotten.of_project(root)
    if not people.marks:
        raise ConfigError(f"{LIST}: nobody is forgotten yet: name somebody, `evergreen forget USER`")
    return people, wanted[0] if user else None


def _begun(root: Path, people: Forgotten, person: str | None) -> Certificate | None:
    """The certificate to write: that of an earlier try, or a new one; None: nobody is without one."""
    if person is not None:
        path, marks = root / CERTIFICATES / f"{person}.json", [person]
    else:
        told = {
            mark
            for path in (root / CERTIFICATES).glob("*.json")
            if (known := Certificate.find(path)) and known.finished
            for mark in known.marks
        }
        marks = sorted(people.marks - told)
        if not marks:
            return None
        path = root / CERTIFICATES / f"{marks[0]}.json"
    found = Certificate.find(path) if path.is_file() else None
    return found.but(finished=None) if found else Certificate(marks=marks, when=now())


@dataclass
class _Sweep:
    """Goes through all places. Without `act` it looks, and changes nothing."""

    root: Path
    stored: Stored
    certificate: Certificate
    act: bool
    places: list[Place] = field(default_factory=list)

    @property
    def contents(self) -> Contents:
        return self.stored.contents

    def run(self) -> Certificate:
        for place in self._steps():
            earlier = next((one for one in self.certificate.places if one.place == place.place), None)
            if earlier and earlier.rows and not place.rows:
                place = earlier  # all of it was done then
            elif earlier and earlier.rows and place.rows:
                place = place.but(rows=place.rows + earlier.rows)
            if place.rows == 0 and place.place not in SAID:
                place = place.but(done="nothing of theirs")
            self.places.append(place)
            if self.act:
                self._note()
        told = self.certificate.but(places=self.places, models=sentences(self.root, self.certificate.marks))
        if self.act:
            told = told.but(finished=now())
            told.write(self.root / CERTIFICATES / f"{told.marks[0]}.json")
        return told

    def _note(self) -> None:
        """What was done so far, for whoever goes on after a kill."""
        later = [one for one in self.certificate.places if one.place not in {p.place for p in self.places}]
        told = self.certificate.but(places=[*self.places, *later])
        told.write(self.root / CERTIFICATES / f"{told.marks[0]}.json")

    def _steps(self) -> Iterator[Place]:
        yield self._event_store()
        yield self._unfinished()
        places.rows(self.root, "data/raw", self.contents)  # whose names to look for in texts
        self.stored.look()
        yield from self._matrices()
        state = read_state(Git(self.root))
        hashes, replaced = state.hashes, state.erased
        if self.act:
            self._locks(hashes)
        for folder in places.FOLDERS:
            yield self._files(folder, hashes)
        for folder in places.MODELS:
            yield self._model_folder(folder, state)
        yield self._champion()
        yield self._worktrees()
        yield self._caches()
        for place in (self.stored.cache, *self.stored.remotes):
            rows = sum(place.holding.values())
            if self.act:
                self.stored.erase(place, replaced)
            done = "objects erased; what is still needed was made anew without them"
            yield Place(place=place.name, rows=rows, done=done)
        for name, done in BEYOND:
            yield Place(place=name, rows=None, done=done)

    def _event_store(self) -> Place:
        store = places.event_store(self.root)
        if store is None:
            return Place(place=EVENT_STORE, rows=0, done="none was ever used here")
        try:
            rows, moment = 0, round(now().timestamp() * 1_000_000)
            for user in store.people():
                if self.contents.people.has(user):
                    self.contents.names.add(user)
                    rows += store.rows_of(user)
                    if self.act:
                        store.forget(user, self.contents.people.mark(user), moment)
            if self.act:
                for mark in sorted(self.contents.people.marks):
                    store.forget("", mark, moment)  # refused from now on, with or without events
        finally:
            store.close()
        return Place(place=EVENT_STORE, rows=rows, done="events and impressions deleted; later ones refused")

    def _matrices(self) -> Iterator[Place]:
        """Every model folder without them, in sample and matrices; the registry names the new ones."""
        git = Git(self.root)
        state = read_state(git)
        newest = max((person.number for person in state.forgotten), default=0)
        for model in known_models(self.root, git, state, self.stored.lacks):
            rows = self.stored.rows_in(model.data, WINDOWS)
            why = self._made_anew(model, newest, rows) if self.act else None
            if not rows and 0 < newest <= model.fitted_without:
                rows = None  # a try that was cut short has done it
            elif rows is None:
                why = "the rows that they were fitted on are not kept"
            done = f"fitted anew without them: {CLOSED_FORM}"
            done = f"as they are until they are trained anew: {why}" if why else done
            yield Place(place=f"matrices of {model.name}", rows=rows, done=done)
        for text in locks(self.root, git):  # to which a try that was cut short has not come
            old = locked_md5(text)
            if old is not None and old in state.moved:
                self.stored.stands_for(old, state.moved[old])

    def _made_anew(self, model: Known, newest: int, rows: int | None) -> str | None:
        """The folder, and the data that it was fitted on; why its matrices stay, where they do."""
        why, data = None, None
        if model.data is not None and rows is not None:
            data = self.stored.rewritten(model.data, {})
        with ExitStack() as held:
            others = {}
            if rows:
                log.info("fitting the matrices of %s anew", model.name)
                try:
                    others[PARTS] = self._matrices_without(model, data, held)
                except Stays as stays:
                    why = str(stays)
            new = self.stored.rewritten(model.md5, {}, others)
        if new is None and (data is None or model.version is None):
            return why
        before = model.version.artifact_hash if model.version else self._hash(model.md5)
        told = Replaced(
            before=before,
            after=self._hash(new.md5) if new else before,
            md5=new.md5 if new else model.md5,
            old=model.md5,
            fitted_without=newest if others else None,
        )
        pairs = ((model.md5, new), (model.data, data))
        note_rewritten(self.root, told, {old: made for old, made in pairs if old and made}, model.version)
        return why

    def _hash(self, md5: str) -> str:
        return files_hash(self.stored.objects.files(md5) or {})

    def _matrices_without(self, model: Known, data: New | None, held: ExitStack) -> Path:
        """A file with its parts, as long as the stack is open. Raises Stays."""
        if model.data is None or data is None:
            raise Stays("the rows that they were fitted on are not whole")
        folders = (model.md5, model.data, data.md5)
        folder, before, after = (held.enter_context(self.stored.laid_out(md5)) for md5 in folders)
        target = folder.parent / PARTS
        refit(folder, before, after, target)
        return target

    def _locks(self, hashes: dict[str, str]) -> None:
        """dvc.lock, and those that the next run starts from, name objects without the rows."""
        path, git = self.root / "dvc.lock", Git(self.root)
        texts = locks_of_runs(git)
        if path.is_file():
            texts["dvc.lock"] = path.read_text(encoding="utf-8")
        for name, text in texts.items():
            outs = {str(out["md5"]) for out in locked(text, "outs") if out.get("md5")}
            made = {md5: new for md5 in sorted(outs) if (new := self.stored.rewritten(md5, hashes))}
            changed = with_new(text, made)
            if changed != text and name == "dvc.lock":
                write_text(path, changed)
            elif changed != text:
                note_lock(git, name, changed)

    def _files(self, folder: str, hashes: dict[str, str]) -> Place:
        if self.act:
            found = places.clean(self.root, folder, self.contents, hashes)
        else:
            found = places.rows(self.root, folder, self.contents)
        return Place(place=folder, rows=found, done="files replaced without them")

    def _model_folder(self, folder: str, state: State) -> Place:
        there = self.root / folder
        found = places.rows(self.root, folder, self.contents)
        now = state.models.get(folder_hash(there)) if has_model(there) else None
        if self.act and now is not None:
            places.put_model(self.stored.objects, now, there)
        elif self.act:
            places.clean_model(self.root, folder, self.contents)
        return Place(place=folder, rows=found, done="taken out of the sample")

    def _champion(self) -> Place:
        found = places.rows(self.root, str(CHAMPION), self.contents)
        if self.act:
            put_champion(self.root)
        done = "taken out of the sample; matrices as above, all else as it was"
        return Place(place=str(CHAMPION), rows=found, done=done)

    def _worktrees(self) -> Place:
        there = sorted(path for path in (self.root / RUNS).glob("*") if path.is_dir())
        if self.act:
            for path in there:
                remove(Git(self.root), path)
        done = f"{len(there)} of ended runs removed; a run that is cleared makes its own anew"
        return Place(place=str(RUNS), rows=None if there else 0, done=done if there else "none there")

    def _unfinished(self) -> Place:
        there = [*places.unfinished(self.root), *self.stored.unfinished]
        if self.act:
            places.removed(there)
        names = ", ".join(path.name for path in there)
        return Place(
            place=UNFINISHED,
            rows=None if there else 0,
            done=f"removed: {names}" if there else "none there",
        )

    def _caches(self) -> Place:
        there = places.caches(self.root)
        if self.act:
            places.removed(there)
        names = ", ".join(str(path.relative_to(self.root)) for path in there)
        done = f"removed, to be made again: {names}" if there else "none there"
        return Place(place=CACHES, rows=None if there else 0, done=done)
