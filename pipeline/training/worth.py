"""Which further signals of items a model gets: those that held-back points surely gain by.

A knowledge graph and modalities are the data's own, and whether they say anything of taste is for the data to
say: noise costs a scorer more than it looks. So the scorer's linear part is fitted with each of them and
without any, and one stays if the likelihood of what was taken at the held-back points rises by LEAST standard
errors (of sums over users). What does not stay is as if it had never been there.
"""

from __future__ import annotations

import numpy as np
import torch

from pipeline.models.kinds import Kinds
from pipeline.training.sampling import Sample
from pipeline.training.scorer_task import fit_linear, listwise, prior_scorer

LEAST, FEWEST_USERS = 2.0, 20
Worth = dict[str, dict[str, float | bool]]


def worthy(
    kinds: Kinds, names: list[str], learned: Sample, judged: Sample, users: np.ndarray, seed: int
) -> tuple[Kinds, Worth]:
    """(`kinds` with what stays, of each further signal: gain in nats a point, standard errors, kept).

    `names`: the columns of both samples; `users`: (judged,) whose points they are. Of too few users nothing
    can be said, so nothing stays.
    """
    further = kinds.further
    if not further or len(np.unique(users)) < FEWEST_USERS:
        return kinds.only(()), {name: {"gain": 0.0, "errors": 0.0, "kept": False} for name in further}
    bare = [name for name in names if not name.startswith(tuple(further.values()))]

    def losses(chosen: list[str]) -> np.ndarray:
        place = [names.index(name) for name in chosen]
        one, other = (Sample(s.features[:, :, place], s.log_weight, s.weight) for s in (learned, judged))
        scorer = prior_scorer(chosen, one, seed)
        fit_linear(scorer, chosen, one, other)
        with torch.no_grad():
            logits = scorer(torch.from_numpy(other.features).float())
            return np.asarray(listwise(logits, other, slice(None)).numpy() * other.weight)

    without, found = losses(bare), Worth()
    for name, start in further.items():
        gain = without - losses(bare + [column for column in names if column.startswith(start)])
        of_users = np.bincount(np.unique(users, return_inverse=True)[1], gain)
        errors = float(of_users.sum() / max(1e-12, np.sqrt((of_users**2).sum())))
        found[name] = {
            "gain": round(float(gain.mean()), 6),
            "errors": round(errors, 2),
            "kept": errors > LEAST,
        }
    return kinds.only([name for name, told in found.items() if told["kept"]]), found
