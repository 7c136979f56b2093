"""A model folder as a recommender over a catalogue and a log: save, load, list, explain.

model.json          the card: format, dates, settings, feature names, validation figures
encoder/            the language model and its tokenizer (absent in ablations)
items.parquet       item_id and item_text that the arrays index
parts.safetensors   what the parts keep (pipeline/models/parts.py), and the scorer

Loaded with another items table, arrays move to its items; new or changed texts go through the encoder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pipeline.data import tables
from pipeline.data.histories import Catalogue, Log, Points
from pipeline.documents.model import Claim
from pipeline.errors import ArtifactError
from pipeline.models.artifacts import CARD, PARTS, VERSION, read_card
from pipeline.models.asked import Asked
from pipeline.models.bert import Bert
from pipeline.models.binding import Arrays, moved, of_prefix, prefixed
from pipeline.models.collaborative import Collaborative
from pipeline.models.kinds import Kinds
from pipeline.models.living import Living
from pipeline.models.modalities import alike
from pipeline.models.parts import Parts, stacked
from pipeline.models.scorer import Scorer
from pipeline.models.sentiment import Encode, Sentiment
from pipeline.models.sequence import Sequence
from pipeline.models.text import Facts, Text

if TYPE_CHECKING:
    from pipeline.models.encoder import TextEncoder

FORMAT = 8
FEW_TEXTS = 500  # NumPy reads so many before PyTorch, which then takes two thirds of the time, is imported
NEAR = 0.3  # cosine from which on an item is said to be like another
FROZEN = "frozen_vectors.npy"  # beside the ablations


@dataclass(frozen=True)
class Recommender:
    """Parts and scorer bound to one catalogue and the live state of one log."""

    name: str
    card: dict[str, Any]
    parts: Parts
    scorer: Scorer
    centre: np.ndarray | None  # (width,) mean text vector that was subtracted
    folder: Path | None = None
    version: str | None = None
    sentiment: Sentiment | None = None  # None: what users wrote says nothing that pays

    @property
    def catalogue(self) -> Catalogue:
        return self.parts.catalogue

    @property
    def fit_end(self) -> str:
        return str(self.card["fit_end"])

    @property
    def text(self) -> np.ndarray | None:
        """(items, width) float32 centred unit vectors; None without texts."""
        return None if self.parts.text is None else self.parts.text.vectors

    @property
    def popularity(self) -> np.ndarray:
        """(items,) rows of each in train: by these the rest of a list is ordered."""
        return self.parts.collaborative.count

    def candidates(self, points: Points) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of chunks of points: (points, candidates) int32 items, -1 behind; float32 scores, -inf there."""
        return self.answers(self.parts.ask(points))

    def answers(self, asked_points: Iterable[Asked]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same of what is asked already."""
        for asked in asked_points:
            items = self.parts.candidates(asked)
            yield items, self.scores(asked, items)

    def scores(self, asked: Asked, items: np.ndarray) -> np.ndarray:
        """(points, candidates) float32, -inf for none."""
        scores = self.scorer.score(stacked(self.parts.columns(asked, items), self.card["features"]))
        return np.where(items >= 0, scores, -np.inf).astype(np.float32)

    def live_features(self, points: Points, items: np.ndarray, names: list[str]) -> np.ndarray:
        """(points, n, names) float32 of (points, n) items, -1 for none; 0 in a model that does not live."""
        if not self.parts.lives:
            return np.zeros((*items.shape, len(names)), np.float32)
        return stacked(self.parts.living.of_items(items, points.time[:, None]), names)

    def with_state(self, until: int, name: str) -> Recommender:
        """The same with the live state as of a moment (microseconds): it stands still there."""
        living = self.parts.living.frozen(until)
        return replace(self, name=name, parts=replace(self.parts, living=living))

    def sharing(self, other: Recommender) -> Recommender:
        """The same, with those parts of another model that are equal: what these make of points is then made
        once for both (`Asked.once`)."""
        own, parts = self.parts.collaborative.arrays(), self.parts
        theirs = other.parts.collaborative.arrays()
        if own.keys() != theirs.keys() or not all(np.array_equal(own[name], theirs[name]) for name in own):
            return self
        parts = replace(parts, collaborative=other.parts.collaborative)
        if parts.living.live.half_lives == other.parts.living.live.half_lives:
            parts = replace(parts, living=other.parts.living)
        return replace(self, parts=parts)

    def over(self, log: Log) -> Recommender:
        """The same with the live state of another log over the same catalogue."""
        own = self.parts.living.live
        factors, delay = self.parts.collaborative.ials, own.delay / 1_000_000
        living = Living.of(log, self.catalogue, own.half_lives, factors, delay)
        return replace(self, parts=replace(self.parts, living=living))

    def encoder(self) -> TextEncoder | None:
        """The language model of its folder; None if it was trained on items without texts."""
        if self.parts.text is None or self.folder is None:
            return None
        return load_encoder(self.folder, self.card)

    def question_encoder(self) -> QuestionEncoder | None:
        """The language model for the few texts of a question; None if it was trained on items without."""
        if self.parts.text is None or self.folder is None:
            return None
        return question_encoder(self.folder, self.card)

    def reasons(self, points: Points, top: np.ndarray) -> list[list[list[str]]]:
        """Why each of the (points, k) listed items is there: what is near it, and how popular it is."""
        if self.parts.lives:
            count = self.parts.living.live.at(np.maximum(top, 0), points.time[:, None]).count
        else:
            count = np.ones(top.shape, np.int64)  # what is new is for others' rows to say
        popular, found = self._much_taken(points), list[list[list[str]]]()
        for asked in self.parts.ask(points):
            for row in range(len(asked.points)):
                place = len(found)
                owed = self.parts.collaborative.owed(asked, row, np.maximum(top[place], 0))
                point = points[place : place + 1]
                found.append(self._reasons_of(point, top[place], owed, count[place], popular[place]))
        return found

    def _much_taken(self, points: Points) -> list[set[int]]:
        """Of each point, the items taken most lately: a twentieth of the catalogue, a hundred at most."""
        count = min(100, max(1, len(self.catalogue) // 20))
        if self.parts.lives:
            lists = self.parts.living.lately(points.time, count)
        else:
            lists = self.parts.collaborative.most_taken(len(points), count)
        return [set(row[row >= 0].tolist()) for row in lists]

    def _reasons_of(
        self, point: Points, top: np.ndarray, owed: np.ndarray, count: np.ndarray, popular: set[int]
    ) -> list[list[str]]:
        newest = point.log.item[point.newest(50).rows()[1]]
        history, recent = np.unique(newest), [self._categories[item] for item in newest[-10:]]
        kinds, graphs = set().union(*recent), self.parts.kinds.graphs.values()
        of_items = []
        for place, item in enumerate(top):
            if item < 0:
                continue
            reasons = []
            near = int(owed[place]) if owed[place] >= 0 else self._nearest(history, int(item))
            if near is not None:
                reasons.append(f"like {self._titles[near]}, which you had")
            joined = [graph.shared(history, int(item)) for graph in graphs if len(history)]
            reasons += [f"{how[0]} {self._titles[how[1]]}" for how in joined if how is not None]
            if seen := alike(self.parts.kinds.modalities, history, int(item), NEAR):
                reasons.append(f"{seen[0]} like that of {self._titles[seen[1]]}")
            if shared := self._categories[item].intersection(kinds):
                reasons.append(f"in {', '.join(sorted(shared)[:3])}")
            if int(item) in popular:
                reasons.append("popular lately" if self.parts.lives else "popular")
            if count[place] == 0:
                reasons.append("new")
            of_items.append(
                reasons or ["fits the model's picture of you" if len(history) else "a good start"]
            )
        return of_items

    def _nearest(self, history: np.ndarray, item: int) -> int | None:
        """The history item with the nearest text, if it is near."""
        if self.text is not None and len(history):
            close = self.text[history] @ self.text[item]
            if close.max() > NEAR:
                return int(history[close.argmax()])
        return None

    @cached_property
    def _titles(self) -> list[str]:
        """Of every item; a row of the frame at a time would cost a millisecond each."""
        items = self.catalogue.items
        titles = items[tables.TITLE] if tables.TITLE in items else items[tables.ITEM]
        there = titles.notna() & (titles != "")
        return [str(title)[:80] for title in titles.where(there, items[tables.ITEM]).tolist()]

    @cached_property
    def _categories(self) -> list[frozenset[str]]:
        listed = self.catalogue.items.get(tables.CATEGORIES)
        if listed is None:
            return [frozenset()] * len(self.catalogue)
        kinds = (list, tuple, np.ndarray)
        return [frozenset(row) if isinstance(row, kinds) else frozenset() for row in listed]

    @classmethod
    def load(
        cls,
        folder: Path,
        items: pd.DataFrame,
        log: Log,
        name: str = "challenger",
        delay_seconds: float | None = None,
    ) -> Recommender:
        """Bind the model in `folder` to `items` (with item_text) and to the state of `log` over them.

        Raises ArtifactError if it is no model.
        """
        card = read_card(folder)
        if card.get("format") != FORMAT:
            raise ArtifactError(
                f"{folder}: format {card.get('format')}, this code reads {FORMAT}: train anew"
            )
        try:
            own = pd.read_parquet(folder / "items.parquet")
            arrays = load_file(folder / PARTS)
        except (OSError, ValueError, SafetensorError) as error:
            raise ArtifactError(
                f"{folder}: damaged ({error}): run `evergreen champion`, or train anew"
            ) from None
        catalogue = Catalogue.of(items)
        place = catalogue.index(own[tables.ITEM])  # own item -> item of the catalogue, -1: gone
        collaborative = Collaborative.bound(of_prefix("collaborative", arrays), place, len(catalogue))
        text = _bound_text(folder, card, arrays, own, catalogue, place)
        vectors = None if text is None else text.vectors
        sequence, tower = None, card["user_tower"]
        if tower is not None:
            sequence = Sequence.bound(of_prefix("sequence", arrays), place, len(catalogue), vectors, tower)
        delay = card["delay_seconds"] if delay_seconds is None else delay_seconds
        living = Living.of(log, catalogue, tuple(card["half_lives"]), collaborative.ials, delay)
        kinds = Kinds.of(catalogue, card["features"])
        sentiment, encode = Sentiment.of(of_prefix("sentiment", arrays)), _reader(folder, card)
        sentiment = sentiment and sentiment.knowing(log, encode)
        felt = None if sentiment is None else sentiment.felt(log)
        lives = card.get("privacy") is None
        parts = Parts(
            catalogue, collaborative, sequence, text, kinds, living, card["candidates"], felt, lives
        )
        claim = Claim.find(folder / VERSION)
        return cls(
            name,
            card,
            parts,
            Scorer(of_prefix("scorer", arrays)),
            arrays.get("centre"),
            folder,
            claim.version if claim else None,
            sentiment,
        )


def save(folder: Path, card: dict[str, Any], model: Recommender, encoder: TextEncoder | None) -> None:
    """Write a model folder; the card comes last, so a folder with a card is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = model.parts
    model.catalogue.items[[tables.ITEM, "item_text"]].to_parquet(folder / "items.parquet", index=False)
    arrays = prefixed("collaborative", parts.collaborative.arrays())
    if parts.sequence is not None:
        arrays |= prefixed("sequence", parts.sequence.arrays())
    arrays |= prefixed("scorer", model.scorer.weights)
    if model.sentiment is not None:
        arrays |= prefixed("sentiment", model.sentiment.arrays())
    tower = None if parts.sequence is None else parts.sequence.kind
    content: dict[str, Any] = {"format": FORMAT, "user_tower": tower}
    live = parts.living.live
    content |= {"half_lives": list(live.half_lives), "delay_seconds": live.delay / 1_000_000}
    content["candidates"] = parts.most
    if parts.text is not None and model.centre is not None:
        arrays |= prefixed("text", parts.text.arrays()) | {"centre": model.centre}
        content["facts"] = {
            "categories": parts.text.facts.categories,
            "newest_year": parts.text.facts.newest_year,
        }
    save_file(arrays, folder / PARTS)
    if encoder is not None:
        encoder.save(folder / "encoder")
    text = json.dumps(card | content, indent=2, allow_nan=False, ensure_ascii=False)
    (folder / CARD).write_text(text + "\n", encoding="utf-8")


class QuestionEncoder(Protocol):
    def vectors(self, texts: list[str]) -> np.ndarray:
        """(texts, width) float32 unit vectors; rows of empty texts are zero."""


def question_encoder(folder: Path, card: dict[str, Any]) -> QuestionEncoder:
    """Raises ConfigError or OSError for a damaged one."""
    return Bert.load(folder / "encoder", card["max_length"]) or load_encoder(folder, card)


def vectors_of(folder: Path, card: dict[str, Any], texts: list[str]) -> np.ndarray:
    """(texts, width) float32, by whichever encoder is done first."""
    encoder = question_encoder(folder, card) if len(texts) <= FEW_TEXTS else load_encoder(folder, card)
    return encoder.vectors(texts)


def load_encoder(folder: Path, card: dict[str, Any]) -> TextEncoder:
    """Raises ConfigError for a damaged one."""
    from pipeline.models.encoder import TextEncoder  # with PyTorch, which takes longer than most lists

    return TextEncoder.load(str(folder / "encoder"), card["max_length"])


def _reader(folder: Path, card: dict[str, Any]) -> Encode:
    """Texts to vectors by the folder's encoder, which is loaded when it is asked."""

    def encode(texts: list[str]) -> np.ndarray | None:
        if not (folder / "encoder").is_dir():
            return None
        return vectors_of(folder, card, texts)

    return encode


def frozen_vectors(ablations: Path, catalogue: Catalogue) -> np.ndarray | None:
    """(items, width) float32 un-tuned vectors in the catalogue's order; None after a refresh."""
    if not (ablations / FROZEN).exists():
        return None
    try:
        vectors = np.load(ablations / FROZEN)
    except (OSError, ValueError):
        raise ArtifactError(f"{ablations / FROZEN}: damaged: run `dvc repro --force finetune`") from None
    if len(vectors) != len(catalogue):
        raise ArtifactError(f"{ablations / FROZEN}: of another catalogue: run `dvc repro finetune`")
    return vectors.astype(np.float32)


def centred(vectors: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Vectors of texts in the space of `Space.vectors`."""
    shifted = vectors - centre
    return (shifted / np.linalg.norm(shifted, axis=1, keepdims=True)).astype(np.float32)


def _bound_text(
    folder: Path,
    card: dict[str, Any],
    arrays: Arrays,
    own: pd.DataFrame,
    catalogue: Catalogue,
    place: np.ndarray,
) -> Text | None:
    """Saved vectors where the text is the same, new ones from the encoder."""
    if "text.vectors" not in arrays:
        return None
    saved = of_prefix("text", arrays)
    texts = catalogue.items["item_text"].fillna("").to_numpy(dtype=object)
    same = place >= 0
    same[same] = texts[place[same]] == own["item_text"].fillna("").to_numpy(dtype=object)[same]
    out = moved(saved["vectors"], np.where(same, place, -1), len(catalogue))
    done = np.zeros(len(catalogue), bool)
    done[place[same]] = True
    new = np.flatnonzero(~done & (texts != ""))
    if len(new):
        if not (folder / "encoder").is_dir():
            raise ArtifactError(f"{folder}: no encoder for {len(new)} new texts: run `dvc repro finetune`")
        out[new] = centred(vectors_of(folder, card, texts[new].tolist()), arrays["centre"])
    return Text.bound(saved, place, catalogue, out, Facts(**card["facts"]), same)
