"""Which further signals of items a model gets: those that held-back points surely gain by.

A knowledge graph and modalities are the data's own, and whether they say anything of taste is for the data to
say: noise costs a scorer more than it looks. So the scorer's linear part is fitted with each of them and
without any, and one stays if the likelihood of what was taken at the held-back points rises by LEAST standard
errors (of users), and nDCG@10 among the sample does, too: likelihood alone may gain far down a list, and an
nDCG that rises a little is a toss of a coin.
What does not stay is as if it had never been there.
"""

from __future__ import annotations

import numpy as np
import torch

from pipeline.models.kinds import Kinds
from pipeline.training.sampling import NOWHERE, Sample
from pipeline.training.scorer_task import fit_linear, listwise, prior_scorer

LEAST, FEWEST_USERS = 2.0, 20
Worth = dict[str, dict[str, float | bool]]
NOTHING: dict[str, float | bool] = {"nats": 0.0, "errors": 0.0, "ndcg@10": 0.0, "kept": False}


def worthy(
    kinds: Kinds, names: list[str], learned: Sample, judged: Sample, users: np.ndarray, seed: int
) -> tuple[Kinds, Worth]:
    """(`kinds` with what stays, what each of `further` gains: nats a point, in standard errors, nDCG@10).

    `names`: the columns of both samples; `users`: (judged,) whose points they are. Of too few users nothing
    can be said, so nothing stays.
    """
    further = kinds.further
    if not further or len(np.unique(users)) < FEWEST_USERS:
        return kinds.only(()), {name: NOTHING for name in further}
    of_further = set().union(*further.values())
    bare = [name for name in names if name not in of_further]

    def quality(chosen: list[str]) -> np.ndarray:
        place = [names.index(name) for name in chosen]
        return qualities(chosen, learned.only(place), judged.only(place), seed)

    without, found = quality(bare), Worth()
    for name, own in further.items():
        with_it = quality(bare + [column for column in names if column in own])
        found[name] = gained(with_it - without, judged.weight, users)
    return kinds.only([name for name, told in found.items() if told["kept"]]), found


def qualities(names: list[str], learned: Sample, judged: Sample, seed: int) -> np.ndarray:
    """(2, judged): log-likelihood, and nDCG@10 among the sample, of a linear part fitted here."""
    scorer = prior_scorer(names, learned, seed)
    fit_linear(scorer, names, learned, judged)
    with torch.no_grad():
        blocks = (judged.features[begin : begin + 256] for begin in range(0, len(judged) or 1, 256))
        logits = torch.cat([scorer(torch.from_numpy(block).float()) for block in blocks])
        likely = -listwise(logits, judged, slice(None)).numpy()
    there = judged.log_weight > NOWHERE / 2
    rank = ((logits >= logits[:, :1]).numpy() & there).sum(axis=1)
    return np.stack([likely, np.where(rank <= 10, 1 / np.log2(1 + np.maximum(rank, 1)), 0)])


def gained(difference: np.ndarray, weight: np.ndarray, users: np.ndarray) -> dict[str, float | bool]:
    """What `worthy` tells of a signal. `difference`: of two `qualities`; `weight`, `users`: (judged,).

    In both figures a point counts by its weight: one that no list can answer counts little.
    """
    if len(np.unique(users)) < FEWEST_USERS:
        return NOTHING
    weight = weight / weight.mean()
    likely, ndcg = difference * weight
    of_user = np.unique(users, return_inverse=True)[1]
    of_users = np.bincount(of_user, likely)
    errors = float(of_users.sum() / max(1e-12, np.sqrt((of_users**2).sum())))
    gains = np.bincount(of_user, ndcg) / np.bincount(of_user, weight)
    gain, spread = float(gains.mean()), float(gains.std() / np.sqrt(len(gains)))
    kept = errors > LEAST and gain / max(1e-12, spread) > LEAST
    told: dict[str, float | bool] = {"nats": round(float(likely.mean()), 6), "errors": round(errors, 2)}
    return told | {"ndcg@10": round(gain, 6), "kept": kept}
