"""What a model has in closed form of its users' rows, fitted anew on the rows that are left.

By the code, the settings and the seed of the training: EASE, item-kNN, sequential rules, iALS, counts and
means of items, and what texts let expect of items (a ridge regression on these). So it is what a training on
those rows puts there; there is nothing to downdate from, since a model folder keeps no Gram matrix, and iALS
cannot be downdated at all. Windows and settings are the same, and what is trained step by step stays.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pipeline.data import tables
from pipeline.data.histories import Log, Prepared, load_prepared
from pipeline.documents.model import Card
from pipeline.errors import PipelineError
from pipeline.forget.storage import Stays
from pipeline.models.artifacts import CARD, PARTS
from pipeline.models.baselines import train_rows
from pipeline.models.binding import Arrays, of_prefix, prefixed
from pipeline.models.collaborative import Collaborative, Settings
from pipeline.models.recommender import FORMAT
from pipeline.models.sentiment import Sentiment
from pipeline.models.text import Text

UNFIT = (PipelineError, SafetensorError, FileNotFoundError, KeyError, ValueError, MemoryError)
"""What comes of folders that other code made, or damaged ones, or too large ones."""


def refit(model: Path, before: Path, after: Path, target: Path) -> None:
    """Write the parts of a `model` folder into the file `target`, fitted on data/prepared without the rows.

    `before`: the data/prepared that it was fitted on; `after`: the same without them. Raises Stays.
    """
    try:
        _refit(model, before, after, target)
    except Stays:
        raise
    except UNFIT as error:
        raise Stays(f"they could not be fitted: {type(error).__name__}: {error}") from error


def _refit(model: Path, before: Path, after: Path, target: Path) -> None:
    card = Card.read(model / CARD)
    if card.format != FORMAT:
        raise Stays(f"of format {card.format}, and this code fits {FORMAT}")
    if card.privacy is not None:
        raise Stays(f"released once, with noise, {card.privacy.sentence}; another fit would spend it again")
    arrays, items = load_file(model / PARTS), pd.read_parquet(model / "items.parquet")
    _check(arrays, items, load_prepared(before))
    save_file(arrays | fitted(card, arrays, load_prepared(after)), target)


def _check(arrays: Arrays, items: pd.DataFrame, prepared: Prepared) -> None:
    """Whether the model's counts are those of these rows; else more than the person would change."""
    ids, log = prepared.catalogue.items[tables.ITEM], prepared.log
    same = list(ids) == list(items[tables.ITEM])
    if same:
        count = np.bincount(log.item[train_rows(log)], minlength=len(ids))
        same = np.array_equal(count, arrays["collaborative.count"])
    if not same:
        raise Stays("the rows that are kept with it are not those that it was fitted on")


def fitted(card: Card, arrays: Arrays, prepared: Prepared) -> Arrays:
    """Those of the arrays that are fitted in closed form, on these rows. Raises Stays."""
    told, catalogue, log = card.training, prepared.catalogue, prepared.log
    rows = train_rows(log)
    if not rows.any():
        raise Stays("no row of anybody else is left to fit on")
    try:
        settings = Settings.of(told)
    except KeyError as error:
        raise Stays(f"its card does not say by which settings: {error} is not there") from None
    if card.seed is None:
        raise Stays("its card does not say by which seed")
    collaborative = Collaborative.fit(log, rows, len(catalogue), settings, card.seed)
    made = prefixed("collaborative", collaborative.arrays())
    if "text.vectors" in arrays:
        made |= prefixed("text", Text.fit(arrays["text.vectors"], catalogue, collaborative).arrays())
    sentiment = Sentiment.of(of_prefix("sentiment", arrays))
    return made if sentiment is None else made | _without_texts(sentiment, log)


def _without_texts(sentiment: Sentiment, log: Log) -> Arrays:
    """Hashes of what users wrote, of those who are left."""
    return prefixed("sentiment", sentiment.of_texts(log).arrays())
