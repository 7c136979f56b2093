"""data/forgotten.json, the export of who is forgotten, the record of its tags, and the certificate."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.documents.base import Count, Document, Moment, Part
from pipeline.documents.registry import Person, Record


class ForgottenPeople(Document):
    """data/forgotten.json, in the order in which they were forgotten: nothing that changes without an
    action."""

    remedy: ClassVar[str] = "run `evergreen champion`"

    people: list[Person] = Field(default_factory=list)


class Replaced(Part):
    """A model folder whose sample lost somebody's rows: its hashes before and after."""

    before: str
    after: str
    md5: str


class ForgottenRecord(Record):
    """Of a tag forgotten/N. Nothing of it is later than the tag: erasing is what follows it."""

    person: Person | None = None


class RewrittenRecord(Record):
    """Of a tag rewritten/N: what versions and trainings say of these hashes holds of the new ones."""

    models: list[Replaced] = Field(default_factory=list)


class Place(Part):
    """One line of a certificate."""

    place: str
    found: Count
    done: str
    state: Literal["erased", "nothing", "kept", "beyond"] = "erased"
    """kept: it stays, and `done` says why; beyond: out of reach from here, and `done` says what to do."""


class Certificate(Document):
    """data/history/forgotten/MARK.json: holds nothing that names the person but to whoever has the key."""

    remedy: ClassVar[str] = "run `evergreen forget` again"

    mark: str
    when: Moment
    finished: Moment | None = None
    places: list[Place] = Field(default_factory=list)
    models: list[str] = Field(default_factory=list)
    """Versions that learned from the person, and when they are replaced, a sentence each."""
