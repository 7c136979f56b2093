"""What an item's description is about: keywords (YAKE; Campos et al. 2020) and the names in it.

In: texts. Out, of the table of items: `keywords` (lower case, the best first) and `entities` (runs of
capitalised words that do not merely begin a sentence). Both depend on the one text alone, so that an item
that comes later has them as well.
"""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from pipeline.data import tables
from pipeline.data.text import clean
from pipeline.errors import ConfigError

WORDS, DIFFERENT = 2, 0.7  # of a keyword, at most; how alike two may be
MOST_ENTITIES = 12
_CAPITAL = r"[A-Z][\w'’-]+"
_ENTITY = re.compile(rf"{_CAPITAL}(?:\s+(?:(?:of|the|de|la|van|von|and)\s+)?{_CAPITAL})*")
_BEGINS = re.compile(r"(?:^|[.!?:;\"”“)(\]\[—–*•])\s*$")


def with_keywords(items: pd.DataFrame, most: int, max_characters: int) -> pd.DataFrame:
    """`items` with both columns, at most so many keywords each. Raises ConfigError without YAKE."""
    extract = extractor(most)
    texts = [clean(text, max_characters) if isinstance(text, str) else "" for text in items[tables.TEXT]]
    known = {text: (extract(text), entities(text)) for text in set(texts)}
    columns = {
        name: pd.Series([known[text][place] for text in texts], items.index, dtype=object)
        for place, name in enumerate(tables.WORDS)
    }
    return items.assign(**columns)


def entities(text: str) -> list[str]:
    """Names in a text, without repeats; one word alone is none where it begins a sentence."""
    found = dict.fromkeys(
        match[0]
        for match in _ENTITY.finditer(text)
        if " " in match[0] or not _BEGINS.search(text[: match.start()])
    )
    return list(found)[:MOST_ENTITIES]


def extractor(most: int) -> Any:
    """text -> at most so many keywords. Raises ConfigError without YAKE."""
    try:
        from yake import KeywordExtractor
    except ImportError:
        raise ConfigError(
            f"preprocess.keywords: {most}: the extra `keywords` is not installed: "
            "pip install -c constraints.txt -e '.[keywords]', or set it to 0"
        ) from None
    extractor = KeywordExtractor(n=WORDS, top=most, dedupLim=DIFFERENT)

    def extract(text: str) -> list[str]:
        found = extractor.extract_keywords(text) if text else []
        return list(dict.fromkeys(word.lower() for word, _ in found))

    return extract
