"""A tiny language model and a tiny world of two tastes, for the tests of training.

Users of one taste take "red" items, those of the other "blue" ones; texts say which. So whoever learned
anything ranks the taste's items first, also the item that nobody has touched.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import toy

from pipeline.data import impressions, tables

ITEMS, USERS = 24, 30


def encoder(folder: Path, **shape: int) -> Path:
    """A BERT of two layers with its own word-level tokenizer, saved; weights from a fixed seed.

    `shape`: of its configuration, where it shall be larger.
    """
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "thing", "number", ".", ","]
    (folder / "vocab.txt").write_text("\n".join(words + [str(n) for n in range(100)]) + "\n")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
    }
    config = BertConfig(vocab_size=len(tokenizer), **(sizes | shape))
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def raw(folder: Path, rows_a_user: int = 12, texts: bool = True, tastes: int = 2) -> Path:
    """data/raw: every user takes items of its own taste in a random order; the last item is new to all.

    A user has half of the `tastes`.
    """
    import pandas as pd

    generator = np.random.default_rng(5)
    rows = []
    for user in range(USERS):
        own = np.flatnonzero((np.arange(ITEMS) - user) % tastes < tastes // 2)
        taken = generator.permutation(own)[:rows_a_user]
        # Users come one after the other, half overlapping, so every window has new and known ones.
        times = user * 5 + np.arange(rows_a_user) + generator.random()
        rows += [(f"u{user:02}", f"i{item:02}", hour) for item, hour in zip(taken, times, strict=False)]
    table = pd.DataFrame(rows, columns=[tables.USER, tables.ITEM, "hour"])
    start = pd.Timestamp("2020-01-01", tz="UTC")
    table[tables.TIME] = (start + pd.to_timedelta(table.pop("hour"), unit="h")).astype("datetime64[us, UTC]")
    table = table.assign(**{tables.EVENT: "click", tables.VALUE: np.nan, tables.TEXT: None})
    month = folder / "interactions" / "month=2020-01"
    month.mkdir(parents=True)
    table.astype({tables.VALUE: "float64", tables.TEXT: "str"}).to_parquet(
        month / "part-0.parquet", index=False
    )
    colour = ["red" if item % 2 else "blue" for item in range(ITEMS)]
    items = pd.DataFrame(
        {
            tables.ITEM: [f"i{item:02}" for item in range(ITEMS)],
            tables.TITLE: [f"{c} thing number {i}" if texts else None for i, c in enumerate(colour)],
            tables.TEXT: None,
            tables.CATEGORIES: [[c] if texts else [] for c in colour],
            tables.AVAILABLE_FROM: pd.Series([pd.NaT] * ITEMS, dtype="datetime64[us, UTC]"),
            tables.AVAILABLE_UNTIL: pd.Series([pd.NaT] * ITEMS, dtype="datetime64[us, UTC]"),
        }
    )
    items.to_parquet(folder / "items.parquet", index=False)
    tables.write_parquet(impressions.none(), folder / "impressions.parquet")
    manifest = {"source": "tiny", "as_of": table[tables.TIME].max().isoformat(), "content_hash": "tiny"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def params(path: Path, encoder: Path, **finetune: object) -> Path:
    """The committed params.yaml with the tiny encoder, and settings that take seconds.

    `auto` would be bfloat16 on some processors: three digits, where tests ask for more.
    """
    content = toy.committed_params()
    content["finetune"] |= {"encoder": str(encoder), "batch_size": 32, "epochs": 2, "learning_rate": 1e-3}
    content["finetune"] |= {"trainable_layers": 1, "precision": "32-true"} | finetune
    content["preprocess"] |= {"min_user_interactions": 2, "positive": {"events": None, "min_value": None}}
    return toy.write_params(path, content)
