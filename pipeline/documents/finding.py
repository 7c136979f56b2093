"""What data show: in data/raw/manifest.json what rows tell as they pass, in reports/check.json all."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.documents.base import Number, Part


class Finding(Part):
    """One thing that the data show, with what mends it."""

    kind: str  # words_like_this
    severity: Literal["error", "warning", "note"]  # error: a training fails, or is worthless
    text: str
    figure: Number = None
    unit: str | None = None  # "share" (0.25 is a quarter), "rows", "days", ...
    examples: list[str] = Field(default_factory=list)
    key: str | None = None  # of params.yaml
    remedy: str | None = None  # what to do, with the key

    @property
    def line(self) -> str:
        """For terminals and logs."""
        key = None if self.key and self.remedy and self.key in self.remedy else self.key
        todo = ": ".join(part for part in (key, self.remedy) if part and part not in self.text)
        return f"{self.text}: {todo}" if todo else self.text
