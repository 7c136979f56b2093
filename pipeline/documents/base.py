"""What all documents share: reading, writing, and the types of their fields."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from pipeline.errors import ArtifactError
from pipeline.files import write_text
from pipeline.params import utc

log = logging.getLogger(__name__)
LARGEST = 2**63


def _plain(value: Any) -> Any:
    """numpy's numbers as Python's, which strict types ask for."""
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _number(value: Any) -> Any:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < LARGEST else None
    return value if math.isfinite(value) else None


def _moment(value: Any) -> Any:
    moment: Any = utc(value)  # a pandas Timestamp is a datetime with further digits
    return moment.to_pydatetime(warn=False) if hasattr(moment, "to_pydatetime") else moment


IF_KNOWN: Any = Field(None, exclude_if=lambda value: value is None)
"""Of a field that is left out of the JSON where it is None."""
Count = Annotated[int, BeforeValidator(_plain), Field(gt=-LARGEST, lt=LARGEST)]
Number = Annotated[int | float | None, BeforeValidator(_number)]
"""Finite; null for NaN, infinities and whatever no float can hold."""
Moment = Annotated[datetime, BeforeValidator(_moment), PlainSerializer(datetime.isoformat, when_used="json")]
"""UTC, in JSON as ISO 8601; without a zone it means UTC."""


class Part(BaseModel):
    """Of a document. Strict: the text "false" is no boolean."""

    # Built when first used: a command reads a few of the some hundred types.
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, populate_by_name=True, defer_build=True
    )

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Built from a mapping. Raises pydantic's ValidationError, which is a bug of ours."""
        return cls.model_validate(content)

    def but(self, **changes: Any) -> Self:
        """The same with other values of some fields, checked."""
        return self.model_validate(dict(self) | changes)

    def to_dict(self) -> dict[str, Any]:
        """As in the file."""
        return self.model_dump(mode="json", by_alias=True)


class Document(Part):
    remedy: ClassVar[str]
    """What to run where the file is missing or malformed."""

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Raises pydantic's ValidationError. Further keys are left out, but where the type keeps them."""
        keeps = cls.model_config.get("extra") == "allow"
        return cls.model_validate_json(text, extra="allow" if keeps else "ignore")

    @classmethod
    def find_in(cls, text: str | None) -> Self | None:
        """None where the text is missing or malformed."""
        try:
            return None if text is None else cls.parse(text)
        except ValidationError:
            return None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ArtifactError naming file, key and remedy."""
        try:
            return cls.parse(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise ArtifactError(f"{path}: no such file: {cls.remedy}") from None
        except OSError as error:
            raise ArtifactError(f"{path}: {error.strerror}: {cls.remedy}") from None
        except ValidationError as error:
            raise ArtifactError(f"{path}: {problem(error)}: {cls.remedy}") from None

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """None where the file is missing or malformed."""
        try:
            return cls.read(path)
        except ArtifactError as error:
            if path.exists():
                log.warning("%s", error)
            return None

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    def write(self, path: Path) -> None:
        """In one step: readers see the old file or the new one."""
        write_text(path, self.to_json())


def problem(error: ValidationError) -> str:
    """The first thing that is wrong, with its key."""
    first = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    return f"{key}: {what[0].lower()}{what[1:]}" if key else f"damaged ({what})"
