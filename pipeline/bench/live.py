"""What a live state pays: the challenger with it, without it, and every baseline that counts live, tuned.

In: data/prepared, or a folder like data/raw; beside it made-up worlds whose items live for days and hours.
Out: nDCG@10 with intervals and the paired difference to each, also for cold items. Rule: as `bench ranking`,
SEEDS of the challenger; `frozen_state` is the challenger with the state of the end of train; in a made-up
world `best_possible` ranks by the chances that its rows were drawn by.

Every fit is kept in .evergreen/ranking, so that a killed bench goes on.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.bench import _turnover, _windows, ranking
from pipeline.bench._fits import Bench, Ranked, fingerprint
from pipeline.bench.gate import load_with_vectors
from pipeline.evaluation import tuning
from pipeline.evaluation.figures import CHALLENGER, HEADLINE
from pipeline.evaluation.findings import FROZEN_STATE
from pipeline.models.ranking import rank_points
from pipeline.params import Params

OWN = Path("data/prepared")
BEST_POSSIBLE, SEED = "best_possible", 7

Json = dict[str, Any]


def run(data: Path | None = None) -> Json:
    """Raises DataError if there are no data."""
    params = Params.load(Path("params.yaml"))
    windows = _windows.load_windows(data or OWN, params)
    given = [Bench(one, vectors, params, ranking.FOLDER / fingerprint(one)) for one, vectors in windows]
    worlds = {name: _turnover.World.of(kind, SEED) for name, kind in _turnover.KINDS.items()}
    total = len(given) + len(worlds)
    with tqdm(total=total, desc="live", unit="window", disable=None, leave=False) as bar:
        found = []
        for bench in given:
            found.append(fits(bench))
            bar.update()
        own: dict[str, Json] = {}
        for name, world in worlds.items():
            own[name] = made_up(world, params)
            bar.update()
    pooled = {
        name: _windows.pooled([bench.prepared for bench in given], [each[name] for each in found])
        for name in found[0]
    }
    return summary(ranking.summary(given, pooled), own)


def fits(bench: Bench) -> dict[str, list[Ranked]]:
    """Every baseline, and the challenger with and without live state; one fit a seed of what has seeds."""
    bench.folder.mkdir(parents=True, exist_ok=True)
    names = tuning.baselines(bench.vectors if bench.vectors.any() else None, 0)
    found = {name: ranking.baseline(bench, name) for name in names}
    model = lru_cache(maxsize=1)(partial(ranking.trained, bench))
    code, end = ranking.code(bench), bench.prepared.train_end + 1

    def listed(seed: int, frozen: bool) -> Ranked:
        challenger, validation = model(seed)
        asked = challenger.with_state(end, FROZEN_STATE) if frozen else challenger
        points, catalogue = bench.prepared.test, bench.prepared.catalogue
        return Ranked(
            rank_points(asked, points, catalogue, bench.order, ranking.K)[0], validation, {}, 1, 0.0
        )

    for seed in range(bench.params.seed, bench.params.seed + ranking.SEEDS):
        for name, frozen in ((CHALLENGER, False), (FROZEN_STATE, True)):
            one = bench.kept(name, seed, code, partial(listed, seed, frozen))
            found.setdefault(name, []).append(one)
    return found


def made_up(world: _turnover.World, params: Params) -> Json:
    """`ranking.summary` of a made-up world, with the best possible ranking."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "data" / "raw"
        world.write(raw, SEED)
        prepared, vectors = load_with_vectors(raw, params)
    bench = Bench(prepared, vectors, params, ranking.FOLDER / fingerprint(prepared))
    best = _turnover.BestPossible(world, prepared)
    listed, _ = rank_points(best, prepared.test, prepared.catalogue, bench.order, ranking.K)
    return ranking.summary([bench], fits(bench) | {BEST_POSSIBLE: [Ranked(listed, float("nan"), {}, 1, 0.0)]})


def summary(given: Json, own: dict[str, Json]) -> Json:
    """All worlds in one: figures by `<world>: <model>`, the ratios that count. `own`: the made-up ones."""
    figures: Json = {}
    ratios: Json = {}
    findings = []
    for world, found in (("given", given), *own.items()):
        rows = found["figures"]
        figures |= {f"{world}: {name}": row for name, row in rows.items()}
        head = {name: row[HEADLINE] for name, row in rows.items()}
        ours = head[CHALLENGER]
        ours_too = (CHALLENGER, FROZEN_STATE, BEST_POSSIBLE)
        peers = {name: value for name, value in head.items() if name not in ours_too}
        best = max(peers, key=lambda name: peers[name])
        popular = max(head["popularity"], head["recent_popularity"])
        ratios[f"{world}_challenger_over_{best}"] = ours / peers[best] if peers[best] else None
        ratios[f"{world}_challenger_over_live_popularity"] = ours / popular if popular else None
        ratios[f"{world}_live_over_frozen_state"] = ours / head[FROZEN_STATE] if head[FROZEN_STATE] else None
        pair = rows[best]
        findings.append(
            f"{world}: best baseline {best}: challenger {pair['challenger_minus']:+.4f} "
            f"[{pair['pair_low']:+.4f}, {pair['pair_high']:+.4f}]"
        )
        if BEST_POSSIBLE in head:
            ratios[f"{world}_challenger_over_best_possible"] = ours / head[BEST_POSSIBLE]
    return {
        "name": "live",
        "conditions": {"given": given["conditions"]} | {name: one["conditions"] for name, one in own.items()},
        "figures": figures,
        "ratios": ratios,
        "findings": findings,
        "slices": {"given": given["slices"]} | {name: one["slices"] for name, one in own.items()},
    }
