"""Whose items people took from lists that champion and challenger drew in turns (serve/interleaving.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.impressions import LIST
from pipeline.documents.evaluation import Answer

INTERLEAVED = "interleaved:"  # the model of such an impression, before the challenger's version
LEAST_USERS = 30  # who took something of such a list; of fewer nothing is answered
SAMPLES, SEED = 2_000, 17


def outcome(shown: pd.DataFrame) -> dict[str, Any] | None:
    """None where there are no such lists; of several pairs of models the newest counts.

    `shown`: impressions, in order of time, with `positive`. `difference`: items of the challenger taken a
    list, less those of the champion; its 95 % interval redraws users, all of whose lists go together.
    """
    drawn = shown[shown["model"].str.startswith(INTERLEAVED) & shown[tables.USER].notna()]
    if not len(drawn):
        return None
    newest = drawn.iloc[-1]
    drawn = drawn[(drawn["version"] == newest["version"]) & (drawn["model"] == newest["model"])]
    champion, challenger = str(newest["version"]), str(newest["model"]).removeprefix(INTERLEAVED)
    taken = drawn[drawn["positive"]]
    of_challenger = taken["placed_by"] == challenger
    lists = drawn.groupby(tables.USER)[LIST].nunique()
    gain = of_challenger.map({True: 1, False: -1}).groupby(taken[tables.USER]).sum()
    found = _difference(gain.reindex(lists.index, fill_value=0).to_numpy(), lists.to_numpy())
    return {
        "champion": champion,
        "challenger": challenger,
        "lists": int(lists.sum()),
        "users": len(lists),
        "taken": {"champion": int((~of_challenger).sum()), "challenger": int(of_challenger.sum())},
        **found,
        "answer": _answer(found["low"], found["high"], taken[tables.USER].nunique()),
    }


def _difference(gain: np.ndarray, lists: np.ndarray) -> dict[str, float]:
    """(users,) items of the challenger taken less those of the champion; (users,) lists."""
    generator = np.random.default_rng(SEED)
    redrawn = np.empty(SAMPLES)
    for sample in range(SAMPLES):
        users = generator.integers(len(lists), size=len(lists))
        redrawn[sample] = gain[users].sum() / lists[users].sum()
    low, high = np.quantile(redrawn, (0.025, 0.975))
    ends = {"difference": gain.sum() / lists.sum(), "low": low, "high": high}
    return {name: round(float(end), 6) for name, end in ends.items()}


def _answer(low: float, high: float, users: int) -> Answer:
    if users < LEAST_USERS:
        return "investigate"
    return "better" if low > 0 else "not better" if high < 0 else "investigate"
