"""What callers send and get, as types: the HTTP interface's fields, their limits, what a bad one is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from pipeline.data import tables
from pipeline.data.ids import as_id
from pipeline.data.unseen import tidy

MOST_EVENTS = 5_000  # of one call
MOST_HISTORY = 1_000  # rows given in place
MOST_LISTED = 200
MOST_COLUMNS = 100  # of an item, beyond those named
COPY = "copy"  # of `explain`
ASKED = ("user_id", "history", "text")  # of which a question has one
AHEAD = timedelta(minutes=5)  # by which a caller's clock may be fast
EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)

# Ids are text: a number would lose leading zeros before it arrives. Those of users and items, events and
# categories are what collect makes of them, so that a person is one user here and in the next training.
Key = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]*\S[^\x00]*$")]
Id = Annotated[Key, AfterValidator(as_id)]
Name = Annotated[Key, AfterValidator(tidy), Field(min_length=1)]
Text = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]
Number = Annotated[float, Field(strict=True)]  # neither `true` nor "5"
Whole = Annotated[int, Field(strict=True, ge=-(2**63), le=2**63 - 1)]
Cell = bool | Whole | Number | Text | list[Text] | list[Number] | None  # what Parquet holds as it is sent
OWN_COLUMNS = {tables.ITEM, "item_text", tables.TAG_TIMES}  # of `items`, that no caller gives
RELATIONS = {"relations", *tables.RELATIONS, *tables.GRAPH}  # nor these: of a table of their own


def _zoned(value: object) -> object:
    """ISO 8601 alone: a bare number could be seconds or milliseconds. Without a zone it means UTC."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)  # type: ignore[arg-type]
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (TypeError, ValueError):
        raise ValueError('write it as ISO 8601, like "2026-03-01T12:00:00Z"') from None
    except OverflowError:  # 9999-12-31T23:59:59-01:00
        raise ValueError("beyond the years 1 to 9999 of UTC: write it without an offset") from None


def _is_vector(cell: object) -> bool:
    return isinstance(cell, list) and bool(cell) and all(isinstance(each, int | float) for each in cell)


def _plausible(moment: datetime) -> datetime:
    if moment < EARLIEST:
        raise ValueError("before 1970-01-02: an interaction has a time")
    if moment > datetime.now(UTC) + AHEAD:
        raise ValueError("in the future: leave it out where it is now")
    return moment


def _explanation(value: object) -> object:
    if isinstance(value, bool) or value == COPY:
        return value
    raise ValueError('true, false or "copy"')


Moment = Annotated[AwareDatetime, BeforeValidator(_zoned), AfterValidator(_plausible)]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Told(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Event(Message):
    """A row of `interactions`, with an id that makes sending it twice harmless."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"event_id": "a1", "user_id": "196", "item_id": "50", "event": "rating", "value": 5}]
        }
    )

    event_id: Key
    user_id: Id
    item_id: Id
    event: Name
    value: Number | None = None
    text: Text | None = None
    timestamp: Moment | None = None
    """When it happened; now if left out."""
    impression_id: Key | None = None
    """Of the list on which the user did it."""


def as_list(content: Any) -> Any:
    return [content] if isinstance(content, dict) else content


class Taken(Message):
    item_id: Id
    timestamp: Moment | None = None
    event: Name | None = None
    value: Number | None = None


class Question(Message):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "196", "k": 5},
                {"history": [{"item_id": "50"}, {"item_id": "181"}], "diversity": 0.3},
                {"text": "a heist that goes wrong", "categories": ["Thriller"]},
            ],
            "anyOf": [{"required": [name]} for name in ASKED],
        }
    )

    user_id: Id | None = None
    history: list[Taken] | None = Field(default=None, max_length=MOST_HISTORY)
    """Further rows of the user's, oldest first, for this list alone."""
    text: Annotated[Text, StringConstraints(min_length=1)] | None = None
    k: int = Field(default=10, ge=1, le=MOST_LISTED, strict=True)
    exclude: list[Id] = Field(default=[], max_length=10_000)
    categories: list[Name] | None = Field(default=None, min_length=1, max_length=100)
    """Only items that have one of them."""
    diversity: float = Field(default=0.0, ge=0, le=1, strict=True)
    """0: by score; towards 1 an item counts the less, the more it is like those above it."""
    as_of: Moment | None = None
    """The list of that moment, from what was known then."""
    explain: Annotated[bool | Literal["copy"], BeforeValidator(_explanation)] = True
    """"copy": also a line of text for the first ten, where params.yaml names a `serve.copy_model`."""

    @model_validator(mode="after")
    def _asks_something(self) -> Question:
        if all(getattr(self, name) is None for name in ASKED):
            raise ValueError(f"give at least one of {', '.join(ASKED)}")
        return self


class Reason(Told):
    kind: str
    text: str
    weight: float
    """By how much it raises the score above the mean candidate's."""
    item_id: str | None = None
    """The item of the history that it names."""


class Listed(Told):
    item_id: str
    rank: int
    score: float | None
    """None: listed behind the scored ones, by popularity."""
    propensity: float
    """With which probability this item stood at this rank, given those above it."""
    title: str | None
    categories: list[str] = []
    reasons: list[Reason]
    line: str | None = None
    """A line of text made of title and reasons, for `explain: "copy"`."""


class Answer(Told):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "impression_id": "0f6f2d0b8c7d4f0e9f4b1f0b6d8a2c11",
                    "version": "v1.0.0",
                    "fallback": None,
                    "items": [
                        {
                            "item_id": "50",
                            "rank": 1,
                            "score": 2.413,
                            "propensity": 1.0,
                            "title": "Star Wars",
                            "categories": ["Sci-Fi"],
                            "reasons": [
                                {
                                    "kind": "history",
                                    "text": "liked by who liked 181",
                                    "weight": 0.8,
                                    "item_id": "181",
                                }
                            ],
                        }
                    ],
                }
            ]
        }
    )

    impression_id: str
    version: str
    fallback: str | None
    items: list[Listed]


class Received(Told):
    accepted: int
    duplicates: int
    version: str


class Alike(Told):
    version: str
    items: list[Listed]


class Titled(Told):
    item_id: str
    title: str


class Found(Told):
    version: str
    items: list[Titled]


class Changed(Told):
    version: str
    item_id: str


class Forgotten(Told):
    version: str
    events: int
    """How many were erased."""


class Item(Message):
    """A row of `items`; further columns may stand beside: numbers, texts, or lists of either."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [{"title": "Heat", "categories": ["Crime", "Thriller"], "year": 1995}]
        },
    )

    __pydantic_extra__: dict[str, Cell]

    title: Text | None = None
    text: Text | None = None
    categories: list[Name] = Field(default=[], max_length=100)
    tags: list[Text] | None = Field(default=None, max_length=1_000)
    available_from: Annotated[AwareDatetime, BeforeValidator(_zoned)] | None = None
    available_until: Annotated[AwareDatetime, BeforeValidator(_zoned)] | None = None

    @model_validator(mode="after")
    def _further_columns(self) -> Item:
        names = self.__pydantic_extra__
        if len(names) > MOST_COLUMNS:
            raise ValueError(f"{len(names)} further columns: at most {MOST_COLUMNS}")
        for name, cell in names.items():
            if name in OWN_COLUMNS:
                raise ValueError(f"{name}: not a column that can be given: leave it out")
            if name in RELATIONS:
                raise ValueError(
                    f"{name}: relations come with the source (collect.files.relations): leave it out"
                )
            if name.endswith(tables.VECTOR) and cell is not None and not _is_vector(cell):
                raise ValueError(f"{name}: a vector is a list of numbers: another name, or such a list")
            if not (name.isprintable() and 1 <= len(name.strip()) <= 100):
                raise ValueError(f"{name[:100]!r}: a column's name has 1 to 100 printable characters")
        return self


class Health(Told):
    status: str
    version: str | None
    fit_end: str | None
    state_lag_seconds: float | None
    problem: str | None = None


class Wrong(Told):
    field: str
    message: str


class Problem(Told):
    """Why a call was not answered as asked (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Content",
                    "status": 422,
                    "detail": "k: Input should be greater than or equal to 1",
                    "errors": [{"field": "k", "message": "Input should be greater than or equal to 1"}],
                    "request_id": "5f0c6a1e8f6b4c0f9a3f6d9a7b1c2d3e",
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None
    """That of the answer's X-Request-Id, and of the log."""
    errors: list[Wrong] | None = None
    """Each field that is wrong."""
