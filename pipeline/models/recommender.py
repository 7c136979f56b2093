"""A model folder as a scorer over a catalogue: save, load, score, explain.

model.json       the card: format, dates, settings, feature names, validation figures
encoder/         the language model and its tokenizer (absent in ablations)
items.parquet    item_id and item_text that the arrays below index
inputs.safetensors, networks.safetensors    fitted inputs; scorer and sequence tower

Loaded with another items table, arrays move to its items; new or changed texts go through the encoder.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors

from pipeline.data import tables as t
from pipeline.data.histories import Catalogue, Points, Prepared
from pipeline.errors import ArtifactError
from pipeline.models.artifacts import CARD, VERSION, has_model, read_card
from pipeline.models.baselines import Factors, ItemMatrix, Scorer
from pipeline.models.content import Content, category_matrix
from pipeline.models.encoder import TextEncoder, texts_to_vectors
from pipeline.models.features import IALS_ALPHA, IALS_REGULARISATION, Columns, Inputs, Statistics, years
from pipeline.models.networks import FusionScorer, SequenceTower

FORMAT, READS = 4, (2, 3, 4)  # 3: its sequence tower is a GRU; 2: without a scorer of newcomers
CELL_BYTES = 48_000_000  # of one chunk's features
FROZEN = "frozen_vectors.npy"


@dataclass(frozen=True)
class Recommender:
    """Inputs, tower and scorer bound to one catalogue. A `Scorer`."""

    name: str
    card: dict[str, Any]
    catalogue: Catalogue
    inputs: Inputs
    scorer: FusionScorer
    centre: np.ndarray | None  # (width,) mean vector that was subtracted
    cold_scorer: FusionScorer | None = None  # of items that train never had; None: the scorer of all others
    cold_shift: float = 0.0  # added to what it gives
    folder: Path | None = None
    version: str | None = None

    @property
    def fit_end(self) -> str:
        return str(self.card["fit_end"])

    @torch.no_grad()
    def score(self, points: Points) -> np.ndarray:
        """(points, items) float32."""
        out = np.empty((len(points), len(self.catalogue)), np.float32)
        size = max(1, CELL_BYTES // (4 * 32 * max(1, len(self.catalogue))))
        for begin in range(0, len(points), size):
            chunk = points[begin : begin + size]
            out[begin : begin + size] = self.score_columns(self.inputs.columns(chunk), len(chunk))
        return out

    def score_columns(self, columns: Columns, points: int) -> np.ndarray:
        """(points, items) float32 from the features of these points."""
        names = self.card["features"]
        features = np.empty((len(names), points, len(self.catalogue)), np.float32)
        for place, name in enumerate(names):
            features[place] = columns[name]
        told = torch.from_numpy(features)
        scores = self.scorer.score(told.flatten(1)).view(points, -1)
        cold = torch.from_numpy(np.flatnonzero(self.inputs.statistics.count == 0))
        if self.cold_scorer is not None and len(cold):
            newcomers = self.cold_scorer.score(told[:, :, cold].flatten(1)).view(points, -1)
            scores[:, cold] = newcomers + self.cold_shift
        return scores.numpy()

    def encoder(self) -> TextEncoder | None:
        """The language model of its folder; None if it was trained on items without texts."""
        if self.inputs.text is None or self.folder is None:
            return None
        return TextEncoder.load(str(self.folder / "encoder"), self.card["max_length"])

    def reasons(self, points: Points, top: np.ndarray) -> list[list[list[str]]]:
        """Why each of the (points, k) listed items is there: what is near it, and how popular it is."""
        popular = self.inputs.statistics.popularity[:, -1]
        much = (popular > 0) & (popular > np.quantile(popular, 0.95)) if len(popular) else popular > 0
        return [self._reasons_of(points[i : i + 1], top[i], much) for i in range(len(points))]

    def _reasons_of(self, point: Points, top: np.ndarray, popular: np.ndarray) -> list[list[str]]:
        """`popular`: (items,) bool."""
        newest = point.log.item[point.newest(50).rows()[1]]
        history, recent = np.unique(newest), [self._categories[item] for item in newest[-10:]]
        found = []
        for item in top[top >= 0]:
            reasons = []
            if len(history):
                near = self._nearest(history, int(item))
                if near is not None:
                    reasons.append(f"like {self._titles[near]}, which you had")
                shared = self._categories[item].intersection(set().union(*recent))
                if shared:
                    reasons.append(f"in {', '.join(sorted(shared)[:3])}")
            if popular[item]:
                reasons.append("popular lately")
            if self.inputs.statistics.count[item] == 0:
                reasons.append("new")
            found.append(reasons or ["fits the model's picture of you" if len(history) else "a good start"])
        return found

    def _nearest(self, history: np.ndarray, item: int) -> int | None:
        """The history item with the greatest EASE weight towards the item, else the nearest text."""
        weight = self.inputs.ease.to(item)[history]
        if weight.max() > 0.01:
            return int(history[weight.argmax()])
        if self.inputs.text is not None:
            close = self.inputs.text[history] @ self.inputs.text[item]
            if close.max() > 0.3:
                return int(history[close.argmax()])
        return None

    @cached_property
    def _titles(self) -> list[str]:
        """Of every item; a row of the frame at a time would cost a millisecond each."""
        items = self.catalogue.items
        titles = items[t.TITLE] if t.TITLE in items else items[t.ITEM]
        there = titles.notna() & (titles != "")
        return [str(title)[:80] for title in titles.where(there, items[t.ITEM])]

    @cached_property
    def _categories(self) -> list[frozenset[str]]:
        listed = self.catalogue.items.get(t.CATEGORIES)
        if listed is None:
            return [frozenset()] * len(self.catalogue)
        return [frozenset() if row is None or np.isscalar(row) else frozenset(row) for row in listed]

    @classmethod
    def load(cls, folder: Path, items: pd.DataFrame, name: str = "challenger") -> Recommender:
        """Bind the model in `folder` to `items` (with item_text). Raises ArtifactError if it is no model."""
        card = read_card(folder)
        if card.get("format") not in READS:
            raise ArtifactError(
                f"{folder}: format {card.get('format')}, this code reads {FORMAT}: train anew"
            )
        try:
            own = pd.read_parquet(folder / "items.parquet")
            arrays = load_file(folder / "inputs.safetensors")
            networks = load_tensors(folder / "networks.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise ArtifactError(
                f"{folder}: damaged ({error}): run `evergreen champion`, or train anew"
            ) from None
        catalogue = Catalogue.of(items)
        place = catalogue.index(own[t.ITEM])  # own item -> item of the catalogue, -1: gone
        text = _bind_text(folder, arrays, own, catalogue, place) if "text" in arrays else None
        sequence = _bind_sequence(networks, card, text, place, len(catalogue))
        scorer = _bind_scorer(networks, "scorer.", card)
        assert scorer is not None
        inputs = Inputs(
            items=len(catalogue),
            ease=_bind_matrix(arrays, "ease", place, len(catalogue)),
            knn=_bind_matrix(arrays, "knn", place, len(catalogue)),
            ials=_bind_factors(arrays, place, len(catalogue)),
            statistics=_bind_statistics(arrays, place, len(catalogue)),
            value_mean=card["value_mean"],
            value_deviation=card["value_deviation"],
            sequence=None,
            text=None,
            imputed=None,
            categories=Content.of(category_matrix(catalogue)),
            year=years(catalogue),
        )
        version = None
        if (folder / VERSION).exists():
            version = json.loads((folder / VERSION).read_text(encoding="utf-8")).get("version")
        inputs = inputs.with_text(text, sequence)
        cold, shift = _bind_scorer(networks, "cold_scorer.", card), card.get("cold_shift", 0.0)
        return cls(name, card, catalogue, inputs, scorer, arrays.get("centre"), cold, shift, folder, version)


def save(folder: Path, card: dict[str, Any], model: Recommender, encoder: TextEncoder | None) -> None:
    """Write a model folder; the card comes last, so a folder with a card is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    catalogue, inputs, centre = model.catalogue, model.inputs, model.centre
    columns = [t.ITEM, "item_text"]
    catalogue.items[columns].to_parquet(folder / "items.parquet", index=False)
    arrays: dict[str, np.ndarray] = {}
    for name in ("ease", "knn"):
        matrix: ItemMatrix = getattr(inputs, name)
        sparse = sp.csr_matrix(matrix.matrix)
        arrays |= {f"{name}.kept": matrix.kept, f"{name}.data": sparse.data}
        arrays |= {f"{name}.indices": sparse.indices, f"{name}.indptr": sparse.indptr}
    arrays |= {"ials": inputs.ials.vectors, "ials.known": inputs.ials.known}
    arrays |= {f"statistics.{key}": value for key, value in asdict(inputs.statistics).items()}
    if inputs.text is not None and centre is not None:
        arrays |= {"text": inputs.text, "centre": centre}
    save_file(
        {key: np.ascontiguousarray(value) for key, value in arrays.items()}, folder / "inputs.safetensors"
    )
    networks = {f"scorer.{key}": value for key, value in model.scorer.state_dict().items()}
    if model.cold_scorer is not None:
        networks |= {f"cold_scorer.{key}": value for key, value in model.cold_scorer.state_dict().items()}
    if inputs.sequence is not None:
        networks |= {f"sequence.{key}": value for key, value in inputs.sequence.state_dict().items()}
    save_tensors(
        {key: value.contiguous() for key, value in networks.items()}, folder / "networks.safetensors"
    )
    if encoder is not None:
        encoder.save(folder / "encoder")
    content = {"format": FORMAT, "value_mean": inputs.value_mean, "value_deviation": inputs.value_deviation}
    content |= {"cold_shift": model.cold_shift}
    if inputs.sequence is not None:
        card = card | {"user_tower": inputs.sequence.kind}
    text = json.dumps(card | content, indent=2, allow_nan=False, ensure_ascii=False)
    (folder / CARD).write_text(text + "\n", encoding="utf-8")


def load_scorers(challenger: Path, ablations: Path, champion: Path, prepared: Prepared) -> dict[str, Scorer]:
    """Every fitted model that is there, by name."""
    items = prepared.catalogue.items
    found: dict[str, Scorer] = {"challenger": Recommender.load(challenger, items)}
    if has_model(champion):
        found["champion"] = Recommender.load(champion, items, "champion")
    for name in ("without_text", "frozen_text"):
        if has_model(ablations / name):
            found[name] = Recommender.load(ablations / name, items, name)
    return found


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


def text_vectors(model: Scorer) -> np.ndarray | None:
    """(items, width) centred unit vectors that a model compares texts by; None without texts."""
    return model.inputs.text if isinstance(model, Recommender) else None


# Binding to another catalogue ------------------------------------------------------------------------------


def centred(vectors: np.ndarray, centre: np.ndarray) -> np.ndarray:
    shifted = vectors - centre
    return (shifted / np.linalg.norm(shifted, axis=1, keepdims=True)).astype(np.float32)


def _bind_text(
    folder: Path, arrays: dict[str, np.ndarray], own: pd.DataFrame, catalogue: Catalogue, place: np.ndarray
) -> np.ndarray:
    """(items, width): saved vectors where the text is the same, new ones from the encoder."""
    out = np.zeros((len(catalogue), arrays["text"].shape[1]), np.float32)
    texts = catalogue.items["item_text"].fillna("").to_numpy(dtype=object)
    same = place >= 0
    same[same] = texts[place[same]] == own["item_text"].to_numpy(dtype=object)[same]
    out[place[same]] = arrays["text"][same]
    done = np.zeros(len(catalogue), bool)
    done[place[same]] = True
    new = np.flatnonzero(~done & (texts != ""))
    if len(new):
        if not (folder / "encoder").is_dir():
            raise ArtifactError(f"{folder}: no encoder for {len(new)} new texts: run `dvc repro finetune`")
        encoder = TextEncoder.load(str(folder / "encoder"), read_card(folder)["max_length"])
        out[new] = centred(texts_to_vectors(encoder, texts[new].tolist())[0], arrays["centre"])
    return out


def _bind_matrix(arrays: dict[str, np.ndarray], name: str, place: np.ndarray, items: int) -> ItemMatrix:
    kept = place[arrays[f"{name}.kept"]]
    count = len(kept)
    parts = tuple(arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
    matrix = sp.csr_matrix(parts, shape=(count, count))
    there = np.flatnonzero(kept >= 0)  # both catalogues are sorted by id, so the order stands
    if len(there) < count:
        matrix = matrix[there][:, there]
    return ItemMatrix(items, kept[there], matrix).quick()


def _bind_factors(arrays: dict[str, np.ndarray], place: np.ndarray, items: int) -> Factors:
    there = place >= 0
    vectors, known = np.zeros((items, arrays["ials"].shape[1]), np.float32), np.zeros(items, bool)
    vectors[place[there]], known[place[there]] = arrays["ials"][there], arrays["ials.known"][there]
    return Factors(vectors, known, IALS_REGULARISATION, IALS_ALPHA)


def _bind_statistics(arrays: dict[str, np.ndarray], place: np.ndarray, items: int) -> Statistics:
    there = place >= 0
    bound = {}
    for key in Statistics.__dataclass_fields__:
        own = arrays[f"statistics.{key}"]
        bound[key] = np.zeros((items, *own.shape[1:]), np.float32)
        bound[key][place[there]] = own[there]
    return Statistics(**bound)


def _bind_sequence(
    networks: dict[str, torch.Tensor],
    card: dict[str, Any],
    text: np.ndarray | None,
    place: np.ndarray,
    items: int,
) -> SequenceTower | None:
    state = _part(networks, "sequence.")
    if not state:
        return None
    for key in [key for key in state if key.startswith(("gru.", "out."))]:  # before format 4
        state[f"reader.{key}"] = state.pop(key)
    with_text, size = "project.weight" in state, state["id_embedding.weight"].shape[1]
    kind = card.get("user_tower", "gru")
    tower = SequenceTower(np.zeros(items, bool), text if with_text else None, kind, size)
    rows = torch.from_numpy(np.r_[place, items])  # the padding stays the last
    there = rows >= 0
    for key in ("id_embedding.weight", "known", "bias"):
        moved = torch.zeros(items + 1, *state[key].shape[1:])
        moved[rows[there]] = state[key][there]
        state[key] = moved
    tower.load_state_dict(state, strict=True)
    return tower.eval()


def _bind_scorer(networks: dict[str, torch.Tensor], prefix: str, card: dict[str, Any]) -> FusionScorer | None:
    state = _part(networks, prefix)
    if not state:
        return None
    scorer = FusionScorer(len(card["features"]))
    scorer.load_state_dict(state)
    return scorer.eval()


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
