"""What users write, in a running service: rows without a value count in histories as they read.

As `models/sentiment.py` has it of the batch stages, event by event; only of a model that was trained so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import numpy as np

from pipeline.errors import PipelineError
from pipeline.models.recommender import QuestionEncoder
from pipeline.models.sentiment import Sentiment
from pipeline.serve.events import Happened

log = logging.getLogger(__name__)


class Reader:
    """A model's sentiment, which learns the texts that it is told."""

    def __init__(self, sentiment: Sentiment, encoder: Callable[[], QuestionEncoder | None]) -> None:
        """`encoder` is called when a text is new, and kept."""
        self._sentiment, self._load = sentiment, encoder
        self._encoder: QuestionEncoder | None = None
        self._deaf = False  # there is no encoder: texts say nothing

    def know(self, happened: Iterable[Happened]) -> None:
        """Read these events' texts at once: one by one each takes some ten milliseconds."""
        texts = [event.text for event in happened if event.text and event.value is None]
        if texts:
            self._sentiment = self._sentiment.with_texts(np.array(texts, dtype=object), self._encode)

    def liked(self, event: Happened, success: bool) -> bool:
        """Of an event that is a `success` or none by all but its words, which make none of what is none."""
        if not success or event.value is not None or not event.text:
            return success
        self.know([event])
        read, liked = self._sentiment.liked(np.array([event.text], dtype=object))
        return bool(liked[0]) if read[0] else success

    def _encode(self, texts: list[str]) -> np.ndarray | None:
        if self._encoder is None and not self._deaf:
            try:
                self._encoder = self._load()
            except (OSError, ValueError, PipelineError) as error:
                log.error("what users write is not read: %s", error)
            self._deaf = self._encoder is None
        return None if self._encoder is None else self._encoder.vectors(texts)
