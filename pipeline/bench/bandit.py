"""Off-policy estimates on Open Bandit's logs: each of two policies told from the other's log.

In: the small logs (10,000 rows each) of three campaigns of a shop, in which chance decided who got lists of a
uniform policy and who those of Thompson sampling. They lie in the wheel obp 0.4.1 (`pip install --no-deps
obp==0.4.1`; never imported); --data is the folder obp of that wheel, unpacked. Data: Saito, Aihara, Matsutani
& Narita 2021, arXiv 2008.07146, CC BY 4.0; nothing of it is kept here.
Rule: the estimators of pipeline/evaluation/off_policy.py; `apart` is the distance of an estimate from what
the other policy's own log says, in standard errors of both. Thompson sampling is that of the priors in the
wheel, by DRAWS draws; its log is of a week in which they went on learning, so of its own rows the logged
chances count. The doubly robust model of clicks is an item's mean in the other FOLDS, with PRIOR rows of all
items' mean. Rows are taken as independent. `over_published`: by what obp's quickstart prints of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from pipeline.errors import ConfigError
from pipeline.evaluation.off_policy import Estimate, answer, difference, doubly_robust, mean_of, snips

CAMPAIGNS, POLICIES = ("all", "men", "women"), {"random": "random", "thompson": "bts"}  # name -> folder
PLACES, DRAWS, CHUNK = 3, 400_000, 20_000
FOLDS, PRIOR = 3, 100
PUBLISHED = {"ips": 0.004553, "doubly_robust": 0.004647}  # all, Thompson sampling from the uniform log
LOGS, PRIORS = Path("dataset/obd"), Path("policy/conf/prior_bts.yaml")


def run(data: Path | None = None) -> dict[str, Any]:
    """Raises ConfigError where the files are not."""
    folder = _folder(data)
    priors = yaml.safe_load((folder / PRIORS).read_text(encoding="utf-8"))
    figures: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    rows = 0
    for campaign in CAMPAIGNS:
        logs = {name: Log.read(folder, policy, campaign) for name, policy in POLICIES.items()}
        rows += sum(len(log.click) for log in logs.values())
        alpha, beta = (np.array(priors[campaign][name], float) for name in ("alpha", "beta"))
        rows_of = compared(logs, thompson(alpha, beta))
        figures |= {f"{campaign}_{name}": row for name, row in rows_of.items()}
        for name in POLICIES:
            real = rows_of[f"{name}_clicks"]["value"]
            for kind in ("snips", "doubly_robust"):
                ratios[f"{campaign}_{name}_{kind}"] = rows_of[f"{name}_{kind}"]["value"] / real
    for kind, value in PUBLISHED.items():
        ratios[f"{kind}_over_published"] = figures[f"all_thompson_{kind}"]["value"] / value
    return {
        "name": "bandit",
        "conditions": {"rows": rows, "campaigns": len(CAMPAIGNS), "draws": DRAWS},
        "figures": figures,
        "ratios": ratios,
    }


def _folder(data: Path | None) -> Path:
    package = find_spec("obp") if data is None else None
    places = (
        [data] if data else [Path(place) for place in (package and package.submodule_search_locations) or []]
    )
    for place in places:
        if (place / LOGS).is_dir() and (place / PRIORS).is_file():
            return place
    raise ConfigError(
        f"bench bandit: {data or 'the wheel obp'}: no {LOGS}: `pip install --no-deps obp==0.4.1`, or --data "
        "with the folder obp of the unpacked wheel"
    )


@dataclass(frozen=True)
class Log:
    """Rows of one policy and one campaign."""

    item: np.ndarray  # (rows,) int
    place: np.ndarray  # (rows,) int, 0 to PLACES - 1
    click: np.ndarray  # (rows,) float, 0 or 1
    logged: np.ndarray  # (rows,) chance of that item in that place

    @classmethod
    def read(cls, folder: Path, policy: str, campaign: str) -> Log:
        path = folder / LOGS / policy / campaign / f"{campaign}.csv"
        table = pd.read_csv(path, usecols=["item_id", "position", "click", "propensity_score"])
        place = table["position"].to_numpy() - table["position"].min()
        click, logged = (table[name].to_numpy(float) for name in ("click", "propensity_score"))
        return cls(table["item_id"].to_numpy(), place, click, logged)


def thompson(alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """(items, PLACES) chances that Beta draws rank an item there."""
    chance, count = np.random.default_rng(17), np.zeros((len(alpha), PLACES))
    for begin in range(0, DRAWS, CHUNK):
        drawn = chance.beta(alpha, beta, (min(CHUNK, DRAWS - begin), len(alpha)))
        best = np.argpartition(-drawn, PLACES - 1, axis=1)[:, :PLACES]
        order = np.argsort(-np.take_along_axis(drawn, best, axis=1), axis=1)
        best = np.take_along_axis(best, order, axis=1)
        count += np.stack([np.bincount(column, minlength=len(alpha)) for column in best.T], axis=1)
    return count / DRAWS


def compared(logs: dict[str, Log], sampled: np.ndarray) -> dict[str, dict[str, Any]]:
    """Clicks a row of each policy, by its own log and by the other's; Thompson sampling less uniform."""
    uniform = np.full_like(sampled, 1 / len(sampled))
    clicks = {name: snips(log.click, log.logged, log.logged) for name, log in logs.items()}
    found = {f"{name}_clicks": _row(estimate) for name, estimate in clicks.items()}
    real = float(clicks["thompson"].value - clicks["random"].value)
    error = float(np.hypot(_error(clicks["thompson"]), _error(clicks["random"])))
    found["difference"] = {"value": real, "low": real - 1.96 * error, "high": real + 1.96 * error}
    for name, log, policy in (
        ("thompson", logs["random"], sampled),
        ("random", logs["thompson"], uniform),
    ):
        new = policy[log.item, log.place]
        for kind, estimate in estimates(log, policy).items():
            found[f"{name}_{kind}"] = _row(estimate, clicks[name])
        thompson_chance, uniform_chance = (new, log.logged) if name == "thompson" else (log.logged, new)
        between = difference(log.click, thompson_chance, uniform_chance, log.logged)
        found[f"difference_without_{name}"] = {
            **_row(between),
            "apart": abs(float(between.value) - real) / float(np.hypot(_error(between), error)),
            "answer": answer(between, log.logged),
        }
    return {name: {key: _plain(value) for key, value in row.items()} for name, row in found.items()}


def estimates(log: Log, policy: np.ndarray) -> dict[str, Estimate]:
    """What `policy` (items, PLACES) would have earned a row, by estimator."""
    new = policy[log.item, log.place]
    weights = new / log.logged
    fold = np.random.default_rng(5).integers(FOLDS, size=len(log.click))
    clicks = np.zeros((FOLDS, len(policy)))  # as the other folds have them
    for number in range(FOLDS):
        rest = fold != number
        count = np.bincount(log.item[rest], minlength=len(policy))
        sums = np.bincount(log.item[rest], log.click[rest], minlength=len(policy))
        clicks[number] = (sums + PRIOR * log.click[rest].mean()) / (count + PRIOR)
    expected = (clicks @ policy)[fold, log.place]
    return {
        "ips": mean_of(weights * log.click, weights),
        "snips": snips(log.click, new, log.logged),
        "doubly_robust": doubly_robust(log.click, new, log.logged, clicks[fold, log.item], expected),
    }


def _error(estimate: Estimate) -> float:
    return float(estimate.high - estimate.low) / (2 * 1.96)


def _row(estimate: Estimate, real: Estimate | None = None) -> dict[str, Any]:
    row = {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "effective": estimate.effective,
    }
    if real is not None:
        row["apart"] = np.abs(estimate.value - real.value) / np.hypot(_error(estimate), _error(real))
    return row


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else float(value)
