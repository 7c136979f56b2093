"""A training under a budget of privacy: what users took together is released once, with noise; no other part
learns from users.

Left out are whatever no budget covers (`LEFT_OUT`). The scorer stays at PRIOR, whose weights were chosen on
validation of other data than yours; texts are read by the encoder as it came. Lists of such a model depend on
its weights, the catalogue and the asker's own history: what others did since is not looked at.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from pipeline.data import tables
from pipeline.data.histories import Prepared
from pipeline.documents.model import Privacy
from pipeline.errors import ConfigError
from pipeline.models.baselines import train_rows
from pipeline.models.kinds import Kinds
from pipeline.models.living import Living
from pipeline.models.parts import Parts
from pipeline.models.private import COUNTS, Budget, Released, public_facts, taken
from pipeline.models.recommender import Recommender
from pipeline.models.scorer import Scorer
from pipeline.models.text import Space, Text
from pipeline.params import Finetune, Private
from pipeline.training.networks import ScorerNetwork
from pipeline.training.recipe import Serving, Texts, Trained, asked_of, validation_ndcg
from pipeline.training.split import validation_sample
from pipeline.training.task import Run
from pipeline.training.text_training import text_vectors

PRIOR = {
    "ease_5": 0.4,
    "train_count": 0.2,
    "text_5": 1.0,
    "categories_5": 0.7,
    "release_age": -0.2,
    "year_distance": -0.2,
}
HALF_LIVES = (0.25, 1.0, 4.0, 16.0, 64.0)  # days of the state that a service keeps; no pace of the data
UNIT = "user: all rows of one person, added or removed"
COVERED = [
    f"counts of items: a user adds x / |x|; {COUNTS:.0%} of the budget",
    f"pairs of items, along axes that counts and public facts choose: a user adds y y', scaled to length 1; "
    f"{1 - COUNTS:.0%} of the budget",
    "of these two alone: EASE, cosines, factors, what texts let expect",
]
LEFT_OUT = [
    "sequential rules, iALS fitted on rows, the sequence tower",
    "training of the text encoder and what users wrote",
    "the scorer's training: its weights are constants of the code",
    "settings that validation would choose",
    "live counts and neighbours of others, in lists and reasons",
    "the sample of rows that tells drift (`reference/`)",
]
PUBLIC = [
    "the table of items: ids, texts, categories",
    "the moments that part the windows (as_of, train_end, fit_end)",
    "settings, the seed, the encoder as it came",
]


def budget_of(settings: Private) -> Budget | None:
    """None: no budget is wanted."""
    return None if settings.epsilon is None else Budget(settings.epsilon, settings.delta)


def described(budget: Budget) -> Privacy:
    """What model folder, card and pages say of it."""
    counts, pairs = budget.noise
    return Privacy(
        epsilon=budget.epsilon,
        delta=budget.delta,
        mu=round(budget.mu, 6),
        unit=UNIT,
        mechanism="one Gaussian release (analytic, Balle and Wang 2018), clip 1 a user and sum",
        noise={"counts": round(counts, 6), "pairs": round(pairs, 6)},
        covered=COVERED,
        left_out=LEFT_OUT,
        public=PUBLIC,
    )


def train_privately(
    prepared: Prepared,
    run: Run,
    budget: Budget,
    serving: Serving,
    texts: Texts | None = None,
    generator: np.random.Generator | None = None,
) -> Trained:
    """The challenger alone. `generator`: of the noise, of tests and benches; else the system's randomness.

    Raises ConfigError where a text of items names what users wrote.
    """
    frozen_run = replace(run, settings=run.settings.model_copy(update={"epochs": 0}))
    rows, items = train_rows(prepared.log), len(prepared.catalogue)
    encoder, frozen, _, told = texts or text_vectors(prepared, frozen_run, rows, prepared.validation)
    told["not_fine_tuned"] = "finetune.privacy covers no training of texts"
    with run.phases.of("collaborative"):
        space = Space.of(frozen)
        facts = public_facts(prepared.catalogue, None if space is None else space.vectors)
        released = Released.of(taken(prepared.log, rows, items), budget, facts, generator)
        model = private_model(prepared, released, space, serving, run.seed)
    with run.phases.of("validation (challenger)"):
        quality = validation_ndcg(model, asked_of(validation_sample(prepared, run.seed), prepared.catalogue))
    privacy = described(budget)
    return Trained(
        {"challenger": model},
        encoder,
        frozen,
        told | {"privacy": privacy.sentence},
        privacy,
        {"challenger_validation_ndcg@10": quality, "items_kept": len(released.kept)},
    )


def private_model(
    prepared: Prepared, released: Released, space: Space | None, serving: Serving, seed: int
) -> Recommender:
    """A model of what was released, the catalogue and the texts' vectors in `space`."""
    catalogue, collaborative = prepared.catalogue, released.collaborative()
    living = Living.of(prepared.log, catalogue, HALF_LIVES, collaborative.ials, serving.delay_seconds)
    text = None if space is None else Text.fit(space.vectors, catalogue, collaborative)
    kinds = Kinds.of(catalogue).only(())  # which further signals pay is for users' rows to say
    parts = Parts(catalogue, collaborative, None, text, kinds, living, serving.candidates, lives=False)
    names = [name for name in PRIOR if text is not None or not name.startswith("text")]
    centre = None if space is None else space.centre
    return Recommender("challenger", {"features": names}, parts, prior(names, seed), centre)


def prior(names: list[str], seed: int) -> Scorer:
    """The linear blend of PRIOR, of features as they are: their spread among users is not looked at."""
    torch.manual_seed(seed)
    network = ScorerNetwork(len(names))
    with torch.no_grad():
        network.linear.weight.copy_(torch.tensor([[PRIOR[name] for name in names]]))
    return network.scorer()


def check(prepared: Prepared, settings: Finetune, item_text: str) -> None:
    """Raises ConfigError where a model with a budget would hold what no budget covers."""
    if settings.privacy.epsilon is None:
        return
    if settings.erase is not None:
        raise ConfigError(
            "params.yaml: finetune.privacy: finetune.erase learns what no budget covers: set it to null, "
            "or finetune.privacy.epsilon"
        )
    users, delta = len(np.unique(prepared.log.user)), settings.privacy.delta
    if delta * users >= 1:
        raise ConfigError(
            f"params.yaml: finetune.privacy.delta: {delta:g} lets all rows of one in {1 / delta:,.0f} users "
            f"be told, and the data have {users:,}: make it far below {1 / users:.1g}"
        )
    if "{tags}" in item_text and _tagged(prepared):
        raise ConfigError(
            "params.yaml: finetune.privacy: preprocess.item_text names {tags}, which users wrote and no "
            "budget covers: take it out, or set finetune.privacy.epsilon to null"
        )


def _tagged(prepared: Prepared) -> bool:
    tags = prepared.catalogue.items.get(tables.TAGS)
    return tags is not None and any(isinstance(row, list | np.ndarray) and len(row) for row in tags)
