"""How a challenger is trained: what is fitted on which rows, and what validation chooses.

train:       | inner rows ...................... | later rows .. |   validation   |   test
parts        fitted here, for the scorer's sample
scorer                                             fitted here
parts        fitted again on all of train, which is what serves
validation   chooses epochs and settings; nothing is fitted on it

The live state is no fit: at every point it is what all users did strictly before.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline.data.histories import Catalogue, Log, Points, Prepared
from pipeline.documents.model import Privacy
from pipeline.models.asked import Asked
from pipeline.models.collaborative import Collaborative, Settings, choose
from pipeline.models.encoder import TextEncoder
from pipeline.models.kinds import Kinds
from pipeline.models.living import Living
from pipeline.models.parts import CHUNK, Parts
from pipeline.models.recommender import Recommender
from pipeline.models.sentiment import Sentiment
from pipeline.models.sequence import Sequence
from pipeline.models.state import half_lives
from pipeline.models.text import Space, Text
from pipeline.training.ahead import stretches, trained_ahead
from pipeline.training.erasing import erasure
from pipeline.training.sampling import Sample, Sizes, joined, sample
from pipeline.training.scorer_task import fit_linear, fit_scorer, prior_scorer
from pipeline.training.sequence_task import fit_sequence
from pipeline.training.split import Split, cuts_of, split
from pipeline.training.task import Run
from pipeline.training.text_training import text_vectors
from pipeline.training.worth import Worth, gained, qualities, worthy

FEWEST_SCORER_POINTS = 20
SCORER_SIZES, VALIDATION_SIZES = Sizes(60, 30, 30), Sizes(200, 100, 100)
LIGHT = Settings(positives_only=False, regularisation=300.0)
LIGHT_SIZES, LIGHT_POINTS_PER_USER, MOST_LIGHT_POINTS, FEWEST_LIGHT_POINTS = Sizes(60, 70, 70), 20, 1500, 50
LIGHT_VALIDATION = 0.3  # of its points, the newest
WORTH_POINTS = 1500  # by which further signals are judged

Texts = tuple[TextEncoder | None, np.ndarray, np.ndarray, dict[str, object]]


@dataclass(frozen=True)
class Serving:
    """How lists will be made; the scorer is fitted on the same."""

    candidates: int = 500  # of a point
    delay_seconds: float = 0.0  # after which the live state knows of a row


@dataclass(frozen=True)
class Trained:
    """What `train` makes: three models over one catalogue and what the report tells of the training."""

    models: dict[str, Recommender]  # challenger; frozen_text, without_text if it is no refresh
    encoder: TextEncoder | None  # None: a refresh of a model without one
    frozen: np.ndarray | None  # (items, width) un-tuned vectors; None in a refresh
    summary: dict[str, object]
    privacy: Privacy | None = None  # the budget that the weights were released under
    outside: dict[str, object] = field(default_factory=dict)  # figures of users that no budget covers


def train(
    prepared: Prepared,
    run: Run,
    champion: Recommender | None = None,
    ablations: bool = True,
    serving: Serving | None = None,
    texts: Texts | None = None,
) -> Trained:
    """All phases. The summary holds counts and figures, no times: same seed, same bytes.

    With `champion` (bound to this catalogue) a refresh: its text vectors stay, of new items its encoder
    makes them, its tower goes on from its weights; everything else is fitted anew; no ablations.
    `texts`: what `text_vectors` gave before, where the same is to be had again.
    """
    rows = split(prepared, run.seed)
    summary: dict[str, object] = {"scorer_points": rows.scorer_points, "train_rows": int(rows.full.sum())}
    encoder, frozen, spaces, of_texts = _spaces(prepared, run, rows, champion, ablations, texts)
    with run.phases.of("collaborative"):
        settings = choose(prepared.log, rows.full, rows.validation, len(prepared.catalogue), run.seed)
        base = Base.fit(prepared, rows, settings, run.seed, serving or Serving())
    summary |= of_texts | settings.told()
    tower = None if champion is None else champion.parts.sequence
    sentiment: Sentiment | None = None
    signals: Worth = {}
    with run.phases.of("further signals"):
        if encoder is not None and prepared.log.text is not None:
            base, sentiment, signals = base.reading(encoder, next(iter(spaces.values())), run.seed)
        if base.kinds.further:
            base, found = base.worthy(next(iter(spaces.values())), run.seed)
            signals |= found
    summary |= {"signals": signals} if signals else {}
    models = {}
    others = {name: None if space is None else space.vectors for name, space in spaces.items()}
    del others["challenger"]
    with trained_ahead(run, base.prepared.log, rows, len(prepared.catalogue), others) as wait:
        for name, space in spaces.items():
            wait(name)
            models[name], figures = base.model(run, name, space, tower)
            if sentiment is not None:
                parts = replace(models[name].parts, felt=sentiment.felt(prepared.log))
                models[name] = replace(models[name], sentiment=sentiment, parts=parts)
            summary |= {f"{name}_{key}": value for key, value in figures.items()}
    return Trained(models, encoder, frozen, summary)


Spaces = dict[str, Space | None]


def _spaces(
    prepared: Prepared,
    run: Run,
    rows: Split,
    champion: Recommender | None,
    ablations: bool,
    texts: Texts | None,
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
    encoder, frozen, tuned, figures = texts or text_vectors(prepared, run, rows.inner, rows.validation)
    if (column := run.settings.erase) and encoder is not None and tuned.any():
        encoder.erasure, erased = erasure(tuned, prepared, column, run.seed)
        tuned, frozen = encoder.erasure(tuned), erasure(frozen, prepared, column, run.seed)[0](frozen)
        figures = figures | {"erased": {column: erased}}
    spaces = {"challenger": Space.of(tuned)}
    if ablations:
        spaces |= {"frozen_text": Space.of(frozen), "without_text": None}
    return encoder, frozen, spaces, figures


@dataclass(frozen=True)
class Fitted:
    """On some rows, and what is asked of it: points keep what it makes of them for the next model."""

    collaborative: Collaborative
    living: Living
    asked: list[Asked]


@dataclass(frozen=True)
class Base:
    """What does not depend on the text, fitted once for the challenger and its ablations."""

    prepared: Prepared
    rows: Split
    kinds: Kinds
    cuts: list[Fitted]  # one for each of `rows`
    full: Fitted
    serving: Serving

    @classmethod
    def fit(cls, prepared: Prepared, rows: Split, settings: Settings, seed: int, serving: Serving) -> Base:
        data, catalogue = prepared.log, prepared.catalogue
        pace = half_lives(data.time[rows.full])

        def of(mask: np.ndarray, points: Points) -> Fitted:
            collaborative = Collaborative.fit(data, mask, len(catalogue), settings, seed)
            living = Living.of(data, catalogue, pace, collaborative.ials, serving.delay_seconds)
            return Fitted(collaborative, living, asked_of(points, catalogue))

        cuts = [of(cut.inner, cut.later) for cut in rows.cuts]
        return cls(prepared, rows, Kinds.of(catalogue), cuts, of(rows.full, rows.validation), serving)

    def reading(
        self, encoder: TextEncoder, space: Space | None, seed: int
    ) -> tuple[Base, Sentiment | None, Worth]:
        """With rows of histories liked as they read, if validation gains by it; measured as `worthy` does."""
        log, bare = self.prepared.log, self.kinds.only(())
        sentiment = Sentiment.fit(log, self.rows.full, encoder.vectors)
        if sentiment is None:
            return self, None, {}
        other = self._over(sentiment.felt(log).log)
        names, learned, judged, users = self._samples(space, bare, seed)
        felt_names, felt_learned, felt_judged, _ = other._samples(space, bare, seed)
        # The candidates may be others, and with them which points count little: the same must be compared.
        weight = (judged.weight + felt_judged.weight) / 2
        plain = qualities(names, learned, judged, seed)
        told = gained(qualities(felt_names, felt_learned, felt_judged, seed) - plain, weight, users)
        signals: Worth = {"sentiment": told | {"spearman": round(sentiment.spearman, 4)}}
        return (other, sentiment, signals) if told["kept"] else (self, None, signals)

    def _over(self, log: Log) -> Base:
        """Asked over another log of the same rows."""

        def asked(fitted: Fitted) -> Fitted:
            return replace(
                fitted, asked=[Asked(replace(one.points, log=log), one.items) for one in fitted.asked]
            )

        prepared = replace(self.prepared, log=log)
        return replace(self, prepared=prepared, cuts=list(map(asked, self.cuts)), full=asked(self.full))

    def worthy(self, space: Space | None, seed: int) -> tuple[Base, Worth]:
        """With those further signals of items that validation gains by, measured without tower and MLP."""
        kinds, worth = worthy(self.kinds, *self._samples(space, self.kinds, seed), seed)
        return replace(self, kinds=kinds), worth

    def _samples(
        self, space: Space | None, kinds: Kinds, seed: int
    ) -> tuple[list[str], Sample, Sample, np.ndarray]:
        """(names of columns, what is learned from, what is judged, whose points these are)."""
        newest = self.cuts[-1]

        part, most = newest.collaborative, self.serving.candidates
        text = None if space is None else Text.fit(space.vectors, self.prepared.catalogue, part)
        whole = Parts(self.prepared.catalogue, part, None, text, kinds, newest.living, most)
        generator = np.random.default_rng([seed, 5])
        fitted_on, judged_on = _some(newest.asked), _some(self.full.asked)
        names, learned = sample(whole, fitted_on, None, LIGHT_SIZES, generator)
        _, judged = sample(whole, judged_on, names, LIGHT_SIZES, generator)
        users = np.concatenate([asked.points.user for asked in judged_on] or [np.zeros(0, np.int32)])
        return names, learned, judged, users

    def model(
        self, run: Run, name: str, space: Space | None, tower: Sequence | None
    ) -> tuple[Recommender, dict[str, object]]:
        """Tower, text and scorer of one kind of text vectors, and their figures."""
        rows, features = self.rows, f"features ({name})"
        generator = np.random.default_rng([run.seed, 2])
        samples: list[Sample] = []
        names: list[str] | None = None
        *early_ones, (last, full) = stretches(name, rows)
        for (phase, inner), cut, fitted in zip(early_ones, rows.cuts, self.cuts, strict=True):
            early = self._parts(run, inner, fitted, phase, space, tower)
            tower = early.sequence
            # Parts that were fitted on no row at all would teach the scorer nothing but to distrust them.
            if cut.inner.any() and len(cut.later):
                with run.phases.of(features):
                    names, found = sample(early, fitted.asked, names, SCORER_SIZES, generator)
                samples.append(found)
        late = self._parts(run, full, self.full, last, space, tower)
        if names and sum(map(len, samples)) >= FEWEST_SCORER_POINTS and len(rows.validation) > 1:
            with run.phases.of(features):
                _, against = sample(late, self.full.asked, names, VALIDATION_SIZES, generator)
            scorer, figures = fit_scorer(run, f"scorer ({name})", names, joined(samples), against)
        else:
            names, shown = sample(late, list(late.ask(self._any_point())), None, Sizes(1, 1, 1), generator)
            scorer, figures = prior_scorer(names, shown).scorer(), {"scorer_epochs": 0}
        centre = None if space is None else space.centre
        model = Recommender(name, {"features": names}, late, scorer, centre)
        with run.phases.of(f"validation ({name})"):
            return model, figures | {"validation_ndcg@10": validation_ndcg(model, self.full.asked)}

    def _any_point(self) -> Points:
        later = self.rows.cuts[-1].later
        return later[:1] if len(later) else _somewhere(self.prepared.log)

    def _parts(
        self,
        run: Run,
        mask: np.ndarray,
        fitted: Fitted,
        phase: str,
        space: Space | None,
        before: Sequence | None,
    ) -> Parts:
        data, catalogue = self.prepared.log, self.prepared.catalogue
        vectors = None if space is None else space.vectors
        sequence = fit_sequence(run, data, mask, vectors, len(catalogue), phase, before)
        text = None if vectors is None else Text.fit(vectors, catalogue, fitted.collaborative)
        of_rows, most = fitted.collaborative, self.serving.candidates
        return Parts(catalogue, of_rows, sequence, text, self.kinds, fitted.living, most)


@dataclass(frozen=True)
class Shared:
    """What light models of one log, mask and seed have in common, fitted once: all but what items are."""

    kept: dict[str, Any] = field(default_factory=dict)

    def once(self, what: str, compute: Callable[[], Any]) -> Any:
        if what not in self.kept:
            self.kept[what] = compute()
        return self.kept[what]


def light(
    log: Log,
    rows: np.ndarray,
    catalogue: Catalogue,
    vectors: np.ndarray | None,
    seed: int,
    shared: Shared | None = None,
) -> Recommender:
    """The same parts in seconds, for where models are needed by the dozen: un-tuned texts, no tower, no MLP.

    Fitted on the rows of a mask ((rows of the log,) bool), of which the newest choose the penalty.
    `vectors`: (items, width), zero rows without text.
    """
    shared = shared or Shared()
    space = Space.of(vectors) if vectors is not None else None
    generator = np.random.default_rng([seed, 1])
    cuts = cuts_of(log, rows, MOST_LIGHT_POINTS, LIGHT_POINTS_PER_USER, MOST_LIGHT_POINTS, generator)
    pace = half_lives(log.time[rows])

    def parts(mask: np.ndarray, name: str, kinds: Kinds) -> Parts:
        def fit() -> tuple[Collaborative, Living]:
            collaborative = Collaborative.fit(log, mask, len(catalogue), LIGHT, seed)
            return collaborative, Living.of(log, catalogue, pace, collaborative.ials)

        collaborative, living = shared.once(name, fit)
        text = None if space is None else Text.fit(space.vectors, catalogue, collaborative)
        return Parts(catalogue, collaborative, None, text, kinds, living)

    newest = cuts[-1]
    points = newest.later[np.argsort(newest.later.time, kind="stable")]
    cut = int(len(points) * (1 - LIGHT_VALIDATION))
    if len(points) < FEWEST_LIGHT_POINTS or not newest.inner.any():  # too few to choose by
        cut = len(points)
    learned_from = [one.later for one in cuts[:-1]] + [points[:cut] if cut else _somewhere(log)]
    asked = shared.once("asked", lambda: [asked_of(some, catalogue) for some in learned_from])
    against = shared.once("against", lambda: asked_of(points[cut:], catalogue))

    def samples(kinds: Kinds) -> tuple[list[str], Sample, Sample]:
        own, names, found = deepcopy(generator), None, []
        for number, (one, of_cut) in enumerate(zip(cuts, asked, strict=True)):
            early = parts(one.inner, f"cut {number}", kinds)
            if of_cut:
                names, fitted_on = sample(early, of_cut, names, LIGHT_SIZES, own)
                found.append(fitted_on)
        assert names is not None  # the newest cut asks at least at one point
        return names, joined(found), sample(early, against, names, LIGHT_SIZES, own)[1]

    kinds = Kinds.of(catalogue)
    names, fitted_on, judged = samples(kinds)
    kept, _ = worthy(kinds, names, fitted_on, judged, points[cut:].user, seed)
    gone = {name: own for name, own in kinds.further.items() if name not in kept.further}
    if gone and set(gone) <= set(kinds.graphs):  # which bring no candidates
        lost = set().union(*gone.values())
        place = [number for number, name in enumerate(names) if name not in lost]
        names, fitted_on, judged = [names[n] for n in place], fitted_on.only(place), judged.only(place)
    elif gone:
        names, fitted_on, judged = samples(kept)
    kinds = kept
    network = prior_scorer(names, fitted_on, seed)
    if len(judged):
        fit_linear(network, names, fitted_on, judged)
    centre = None if space is None else space.centre
    return Recommender("light", {"features": names}, parts(rows, "all", kinds), network.scorer(), centre)


def asked_of(points: Points, catalogue: Catalogue) -> list[Asked]:
    return [Asked(chunk, len(catalogue)) for chunk in points.chunks(CHUNK)]


def _some(asked: list[Asked]) -> list[Asked]:
    """Some WORTH_POINTS of them, of all users alike."""
    return asked[:: max(1, sum(len(one.points) for one in asked) // WORTH_POINTS)]


def _somewhere(log: Log) -> Points:
    """One point, at the end of the log, of nobody: where there is none to fit on."""
    moment = int(log.time.max(initial=0)) + 1
    return log.points(np.full(1, -1, np.int32), np.zeros(1, np.int32), np.full(1, moment, np.int64))


def validation_ndcg(model: Recommender, asked: list[Asked]) -> float | None:
    """nDCG@10 as it is reported: mean over a user's points, then over users."""
    gains = validation_gains(model, asked)
    return round(float(gains.mean()), 6) if len(gains) else None


def validation_gains(model: Recommender, asked: list[Asked]) -> np.ndarray:
    """(users of the points, in ascending order) nDCG@10."""
    if not asked:
        return np.zeros(0)
    gains = []
    for chunk, (items, scores) in zip(asked, model.answers(asked), strict=True):
        here = items == chunk.points.target[:, None]
        target = np.where(here, scores, -np.inf).max(axis=1, initial=-np.inf)
        rank = (scores >= target[:, None]).sum(axis=1)
        found = (target > -np.inf) & (rank <= 10)
        gains.append(np.where(found, 1 / np.log2(1 + np.maximum(rank, 1)), 0))
    place = np.unique(np.concatenate([chunk.points.user for chunk in asked]), return_inverse=True)[1]
    means: np.ndarray = np.bincount(place, np.concatenate(gains)) / np.bincount(place)
    return means
