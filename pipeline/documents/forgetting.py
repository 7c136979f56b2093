"""data/forgotten.json, the export of who is forgotten, the record of its tags, and the certificate."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.documents.base import IF_KNOWN, Count, Document, Moment, Part
from pipeline.documents.registry import Person, Record


class ForgottenPeople(Document):
    """data/forgotten.json, in the order in which they were forgotten: nothing that changes without an
    action."""

    remedy: ClassVar[str] = "run `evergreen champion`"

    people: list[Person] = Field(default_factory=list)


class Replaced(Part):
    """A model folder that lost what it had of somebody: its hashes before and after."""

    before: str
    after: str
    md5: str
    old: str | None = IF_KNOWN
    """Of its objects before, which are erased."""
    fitted_without: Count | None = IF_KNOWN
    """Number of the newest person forgotten: its matrices are of rows without theirs and earlier ones'."""


class ForgottenRecord(Record):
    """Of a tag forgotten/N. Nothing of it is later than the tag: erasing is what follows it."""

    person: Person | None = None


class RewrittenRecord(Record):
    """Of a tag rewritten/N: what versions and trainings say of these hashes holds of the new ones."""

    models: list[Replaced] = Field(default_factory=list)


class Place(Part):
    """One line of a certificate."""

    place: str
    rows: Count | None
    """Rows, objects or passages that were theirs; None where nobody can tell."""
    done: str


class Certificate(Document):
    """data/history/forgotten/MARK.json: holds nothing that names a person but to whoever has the key."""

    remedy: ClassVar[str] = "run `evergreen forget` again"

    marks: list[str]
    """Mostly one person's; those whom the service forgot since share one."""
    when: Moment
    finished: Moment | None = None
    places: list[Place] = Field(default_factory=list)
    models: list[str] = Field(default_factory=list)
    """What learned from them, and when it is replaced: a sentence each."""
