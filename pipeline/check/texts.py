"""How the encoder's tokenizer reads the items' texts: without loading the model, or any framework."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from pipeline.data.items import ITEM_TEXT
from pipeline.documents.check import TextFigures
from pipeline.models.pretrained import locate

MOST_TEXTS = 5000  # of a larger catalogue every n-th


def figures(items: pd.DataFrame, encoder: str, max_length: int) -> TextFigures:
    """`items` with item_text. Raises ConfigError for an encoder that is not there."""
    texts = items[ITEM_TEXT].fillna("")
    filled = texts[texts != ""]
    known = TextFigures(items=len(items), without_text=len(texts) - len(filled))
    tokenizer = Path(locate(encoder)) / "tokenizer.json"
    if filled.empty:
        return known
    known = known.but(median_characters=float(filled.str.len().median()))
    if not tokenizer.is_file():  # a hub id, GGUF
        return known
    sample = filled.iloc[:: -(-len(filled) // MOST_TEXTS)].tolist()
    return known.but(**_of_tokens(tokenizer, sample, max_length))


def _of_tokens(tokenizer: Path, texts: list[str], max_length: int) -> dict[str, float]:
    from tokenizers import Tokenizer

    reader = Tokenizer.from_file(str(tokenizer))
    reader.no_truncation()
    reader.no_padding()
    unknown = json.loads(tokenizer.read_text(encoding="utf-8"))["model"].get("unk_token")
    number = reader.token_to_id(unknown) if isinstance(unknown, str) else None
    special = reader.num_special_tokens_to_add(False)
    encoded = reader.encode_batch(texts, add_special_tokens=False)
    tokens = sum(len(one.ids) for one in encoded)
    words = sum(len({place for place in one.word_ids if place is not None}) for one in encoded)
    missing = 0 if number is None else sum(one.ids.count(number) for one in encoded)
    return {
        "unknown_tokens": missing / max(tokens, 1),
        "tokens_a_word": tokens / max(words, 1),
        "cut": sum(len(one.ids) + special > max_length for one in encoded) / len(texts),
    }
