"""Is a work found by words about it? Held-back sentences of descriptions, typed into `recommend --text`.

In: data/prepared or a folder like data/raw; without one the embedded ifdb. Out: of WORKS works the share that
is among the first ten, by one sentence of its description and by half of them, which its own text then lacks:
by meaning (the un-tuned language model's vectors), by words, and by both as the command adds them up.
EVERGREEN_BENCH_WORKS is another number of works.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.bench._asked import number_of
from pipeline.bench.gate import load_with_vectors
from pipeline.bench.signals import embedded
from pipeline.data import items as catalogue
from pipeline.data import tables
from pipeline.data.histories import Prepared
from pipeline.data.text import clean
from pipeline.errors import DataError
from pipeline.evaluation.metrics import share_interval
from pipeline.models.encoder import TextEncoder
from pipeline.models.questions import WORDS
from pipeline.models.recommender import centred
from pipeline.models.words import Words
from pipeline.params import Params

WORKS, SEED, K = 200, 0, 10
LEAST_WORDS, LEAST_SENTENCES = 8, 3  # of a sentence that is asked for; of a description
_END = re.compile(r"(?<=[.!?])[\"”’)\]]*\s+")

Json = dict[str, Any]


@dataclass(frozen=True)
class Case:
    place: int  # of the work
    typed: str
    left: str  # of its description


def run(data: Path | None = None) -> Json:
    """Raises DataError where too few items have a description of three sentences."""
    params = Params.load(Path("params.yaml"))
    prepared, vectors = embedded("ifdb", params) if data is None else load_with_vectors(data, params)
    encoder = TextEncoder.load(params.finetune.encoder, params.finetune.max_length)
    works = number_of("WORKS", WORKS)
    figures = {}
    for name, half in (("one_sentence", False), ("half_of_the_sentences", True)):
        figures[name] = found(prepared, vectors, cases(prepared, works, half), encoder, params)
    return {
        "name": "text",
        "conditions": {"works": works, "items": len(prepared.catalogue), "weight_of_words": WORDS},
        "figures": figures,
        "ratios": {f"{name}_among_ten": row["both"] for name, row in figures.items()},
    }


def cases(prepared: Prepared, works: int, half: bool) -> list[Case]:
    """One of its longer sentences, or half of them, of some works with enough."""
    generator = np.random.default_rng([SEED, half])
    texts = [sentences(clean(text, 100_000)) for text in prepared.catalogue.items[tables.TEXT]]
    usable = [
        place
        for place, parts in enumerate(texts)
        if len(parts) >= LEAST_SENTENCES and any(len(part.split()) >= LEAST_WORDS for part in parts)
    ]
    if len(usable) < works:
        raise DataError(f"items: {len(usable)} descriptions of {LEAST_SENTENCES} sentences, {works} wanted")
    made = []
    for place in generator.permutation(usable)[:works]:
        parts = texts[place]
        longer = [n for n, part in enumerate(parts) if len(part.split()) >= LEAST_WORDS]
        held = generator.permutation(len(parts))[: len(parts) // 2] if half else [generator.choice(longer)]
        typed: list[str] = []
        left: list[str] = []
        for n, part in enumerate(parts):
            (typed if n in held else left).append(part)
        made.append(Case(int(place), " ".join(typed), " ".join(left)))
    return made


def sentences(text: str) -> list[str]:
    return [part.strip() for part in _END.split(text) if part.strip()]


def found(
    prepared: Prepared, vectors: np.ndarray, asked: list[Case], encoder: TextEncoder, params: Params
) -> Json:
    """Shares of the works among the first ten, by meaning, by words and by both; interval of the last."""
    items, rows = prepared.catalogue.items, [case.place for case in asked]
    without = items.iloc[rows].assign(text=pd.Series([case.left for case in asked], items.index[rows]))
    template = catalogue.parse_template(params.preprocess.item_text, items.columns)
    moment = pd.Timestamp(prepared.train_end, unit="us", tz="UTC")
    without = catalogue.with_text(without, template, params.preprocess.max_text_characters, moment)
    texts = items[catalogue.ITEM_TEXT].fillna("").to_numpy(dtype=object).copy()
    texts[rows], vectors = without[catalogue.ITEM_TEXT], vectors.copy()
    vectors[rows] = encoder.vectors(texts[rows].tolist())
    there = np.asarray(vectors.any(axis=1))
    centre = vectors[there].mean(axis=0)
    typed = centred(encoder.vectors([case.typed for case in asked]), centre)
    meaning = np.where(there, typed @ centred(np.where(there[:, None], vectors, 1), centre).T, -np.inf)
    words = Words.of(texts.tolist())
    same = np.stack([words.typed(case.typed).closeness() for case in asked])
    shares: Json = {}
    for name, scores in (("meaning", meaning), ("words", same), ("both", meaning + WORDS * same)):
        own = scores[np.arange(len(rows)), rows]
        count = int(((scores >= own[:, None]).sum(axis=1) <= K).sum())
        shares[name] = count / len(rows)
    shares["low"], shares["high"] = share_interval(count, len(rows))
    return shares
