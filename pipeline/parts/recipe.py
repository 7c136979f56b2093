"""How a challenger is trained: what is fitted on which rows, and what validation chooses.

train:       | inner rows ...................... | later rows .. |   validation   |   test
parts        fitted here, for the scorer's sample
scorer                                             fitted here
parts        fitted again on all of train, which is what serves
validation   chooses epochs and settings; nothing is fitted on it

The live state is no fit: at every point it is what all users did strictly before.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from pipeline.data.histories import Points, Prepared
from pipeline.models.challenger import _text_vectors, choose_matrix, split
from pipeline.models.encoder import TextEncoder
from pipeline.models.fusing import Split
from pipeline.models.networks import SequenceTower
from pipeline.models.state import half_lives
from pipeline.models.training import Run
from pipeline.parts.collaborative import Collaborative, Settings
from pipeline.parts.kinds import Kinds
from pipeline.parts.living import Living
from pipeline.parts.parts import Parts
from pipeline.parts.recommender import Recommender
from pipeline.parts.sampling import Sizes, sample
from pipeline.parts.scorer import fit_scorer, prior_scorer
from pipeline.parts.sequence import Sequence
from pipeline.parts.text import Space, Text

FEWEST_SCORER_POINTS = 20
SCORER_SIZES, VALIDATION_SIZES = Sizes(60, 60), Sizes(200, 200)


@dataclass(frozen=True)
class Trained:
    """What `train` makes: three models over one catalogue and what the report tells of the training."""

    models: dict[str, Recommender]  # challenger; frozen_text, without_text if it is no refresh
    encoder: TextEncoder | None  # None: a refresh of a model without one
    frozen: np.ndarray | None  # (items, width) un-tuned vectors; None in a refresh
    summary: dict[str, object]


def train(
    prepared: Prepared, run: Run, champion: Recommender | None = None, ablations: bool = True
) -> Trained:
    """All phases. The summary holds counts and figures, no times: same seed, same bytes.

    With `champion` (bound to this catalogue) a refresh: its text vectors stay, of new items its encoder
    makes them, its tower goes on from its weights; everything else is fitted anew; no ablations.
    """
    rows = split(prepared, run.seed)
    summary: dict[str, object] = {"scorer_points": len(rows.later), "train_rows": int(rows.full.sum())}
    encoder, frozen, spaces, of_texts = _spaces(prepared, run, rows, champion, ablations)
    matrix = choose_matrix(prepared.log, rows, prepared.catalogue)
    settings = Settings(matrix.positives_only, matrix.regularisation)
    summary |= of_texts | {
        "ease_regularisation": settings.regularisation,
        "positives_only": settings.positives_only,
    }
    base = Base.fit(prepared, rows, settings, run.seed)
    tower = None if champion is None else champion.parts.sequence.tower
    models = {}
    for name, space in spaces.items():
        models[name], figures = base.model(run, name, space, tower)
        summary |= {f"{name}_{key}": value for key, value in figures.items()}
    return Trained(models, encoder, frozen, summary)


Spaces = dict[str, Space | None]


def _spaces(
    prepared: Prepared, run: Run, rows: Split, champion: Recommender | None, ablations: bool
) -> tuple[TextEncoder | None, np.ndarray | None, Spaces, dict[str, object]]:
    """(encoder, un-tuned vectors, vectors of each model to be made, what the summary says of it)."""
    if champion is not None:
        own = (
            None
            if champion.text is None or champion.centre is None
            else Space(champion.text, champion.centre)
        )
        figures = {"refresh_of": champion.version, "encoder": champion.card["training"].get("encoder")}
        return champion.encoder(), None, {"challenger": own}, figures
    encoder, frozen, tuned, figures = _text_vectors(prepared, run, rows)
    spaces = {"challenger": Space.of(tuned)}
    if ablations:
        spaces |= {"frozen_text": Space.of(frozen), "without_text": None}
    return encoder, frozen, spaces, figures


@dataclass(frozen=True)
class Base:
    """What does not depend on the text, fitted once for the challenger and its ablations."""

    prepared: Prepared
    rows: Split
    kinds: Kinds
    inner: tuple[Collaborative, Living]
    full: tuple[Collaborative, Living]

    @classmethod
    def fit(cls, prepared: Prepared, rows: Split, settings: Settings, seed: int) -> Base:
        data, catalogue = prepared.log, prepared.catalogue
        pace = half_lives(data.time[rows.full])

        def of(mask: np.ndarray) -> tuple[Collaborative, Living]:
            collaborative = Collaborative.fit(data, mask, len(catalogue), settings, seed)
            return collaborative, Living.of(data, catalogue, pace, collaborative.ials)

        return cls(prepared, rows, Kinds.of(catalogue), of(rows.inner), of(rows.full))

    def model(
        self, run: Run, name: str, space: Space | None, tower: SequenceTower | None
    ) -> tuple[Recommender, dict[str, object]]:
        """Tower, text and scorer of one kind of text vectors, and their figures."""
        rows, begin = self.rows, time.perf_counter()
        early = self._parts(run, rows.inner, self.inner, f"sequence ({name})", space, tower)
        phase = f"sequence on all of train ({name})"
        late = self._parts(run, rows.full, self.full, phase, space, early.sequence.tower)
        generator = np.random.default_rng([run.seed, 2])
        # Parts that were fitted on no row at all would teach the scorer nothing but to distrust them.
        enough = rows.inner.any() and len(rows.later) >= FEWEST_SCORER_POINTS and len(rows.validation) > 1
        if enough:
            names, fitted_on = sample(early, rows.later, None, SCORER_SIZES, generator)
            _, against = sample(late, rows.validation, names, VALIDATION_SIZES, generator)
            run.seconds[f"features ({name})"] = round(time.perf_counter() - begin, 1)
            scorer, figures = fit_scorer(run, f"scorer ({name})", names, fitted_on, against)
        else:
            points = rows.later[:1] if len(rows.later) else prepared_point(self.prepared)
            names, shown = sample(late, points, None, Sizes(1, 1), generator)
            scorer, figures = prior_scorer(names, shown), {"scorer_epochs": 0}
        centre = None if space is None else space.centre
        model = Recommender(name, {"features": names}, late, scorer, centre)
        return model, figures | {"validation_ndcg@10": validation_ndcg(model, rows.validation)}

    def _parts(
        self,
        run: Run,
        mask: np.ndarray,
        fitted: tuple[Collaborative, Living],
        phase: str,
        space: Space | None,
        before: SequenceTower | None,
    ) -> Parts:
        data, catalogue = self.prepared.log, self.prepared.catalogue
        vectors = None if space is None else space.vectors
        collaborative, living = fitted
        sequence = Sequence.fit(run, data, mask, vectors, len(catalogue), phase, before)
        text = None if vectors is None else Text.fit(vectors, catalogue, collaborative)
        return Parts(catalogue, collaborative, sequence, text, self.kinds, living)


def prepared_point(prepared: Prepared) -> Points:
    """One point, at the end of the log, of nobody: where there is none to fit on."""
    moment = int(prepared.log.time.max(initial=0)) + 1
    return prepared.log.points(np.full(1, -1, np.int32), np.zeros(1, np.int32), np.full(1, moment, np.int64))


def validation_ndcg(model: Recommender, points: Points) -> float | None:
    """nDCG@10 as it is reported: mean over a user's points, then over users."""
    if not len(points):
        return None
    gains, begin = np.zeros(len(points)), 0
    for items, scores in model.candidates(points):
        rows = slice(begin, begin + len(items))
        target = np.where(items == points.target[rows, None], scores, -np.inf).max(axis=1, initial=-np.inf)
        rank = (scores >= target[:, None]).sum(axis=1)
        gains[rows] = np.where((target > -np.inf) & (rank <= 10), 1 / np.log2(1 + np.maximum(rank, 1)), 0)
        begin = rows.stop
    place = np.unique(points.user, return_inverse=True)[1]
    return round(float((np.bincount(place, gains) / np.bincount(place)).mean()), 6)
