"""Train the challenger: the text encoder, the parts that retrieve and describe, the scorer over their pairs.

In: data/prepared (pipeline/data/histories.py), data/encoder.json (which weights finetune.encoder names;
`evergreen cycle` keeps it, so that other weights in a folder train anew). Out: models/challenger (a model
folder, pipeline/models/recommender.py), models/ablations (`without_text`, `frozen_text`, and the un-tuned
vectors of all items), reports/training (curves.csv: phase, step, metric, value; summary.json; cost.json).
Phases: pipeline/training/recipe.py.

With finetune.refresh_of the encoder of models/champion is kept and the rest is fitted, without ablations.
That folder is no dependency of the stage: a version's content never changes, and its name is in the params.

Killed and started again it goes on from the last checkpoint, in .evergreen/checkpoints/<hash of settings,
data and code>, removed after success.
Run: python -m pipeline.stages.finetune data/prepared data/encoder.json \\
    models/challenger models/ablations reports/training
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_utilities.core.rank_zero import rank_zero_only

import pipeline
from pipeline.data.histories import Prepared, load_prepared
from pipeline.documents.data import Summary
from pipeline.documents.model import Card, Cost, Encoder
from pipeline.drift import reference
from pipeline.errors import ConfigError, Unavailable
from pipeline.files import replace_folder, temporary_beside
from pipeline.models import recommender
from pipeline.models.artifacts import has_model
from pipeline.models.pretrained import identify
from pipeline.models.recommender import Recommender
from pipeline.params import DetectDrift, Params
from pipeline.run import run
from pipeline.training import private
from pipeline.training.cost import Meter
from pipeline.training.fitting import check, is_out_of_memory
from pipeline.training.recipe import Serving, Texts, Trained, train
from pipeline.training.task import Run

log = logging.getLogger(__name__)
CHECKPOINTS = Path(".evergreen/checkpoints")


def finetune(
    prepared: Prepared,
    context: Run,
    champion: Recommender | None = None,
    ablations: bool = True,
    serving: Serving | None = None,
    texts: Texts | None = None,
) -> Trained:
    """Same prepared tables, settings, seed and machine: same weights. `champion`: a refresh of it."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    budget = private.budget_of(context.settings.privacy)
    try:
        if budget is not None:
            return private.train_privately(prepared, context, budget, serving or Serving(), texts)
        return train(prepared, context, champion, ablations, serving, texts)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        told = str(error).partition("\n")[0][:200]
        raise Unavailable(
            f"not enough memory to train on {len(prepared.log):,} interactions of "
            f"{len(prepared.catalogue):,} items ({told}): free some, or collect a shorter span"
        ) from None


def checkpoint_key(data: Path, params: Params, encoder: Encoder | None = None) -> str:
    """Hash of everything that a resumed run must share with the one it continues."""
    kept = [params.finetune.model_dump_json(), params.seed, params.recommend.candidates]
    kept += [params.evaluate.live_delay_seconds, encoder and encoder.sha256]
    digest = hashlib.sha256(json.dumps(kept).encode())
    sources = sorted(Path(pipeline.__path__[0]).rglob("*.py"))
    for path in [*sorted(data.glob("*.parquet")), *sources]:
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def refreshed(version: str | None, champion: Path, prepared: Prepared) -> Recommender | None:
    """The model that finetune.refresh_of names, which has to be the one in service."""
    if version is None:
        return None
    there = (
        Recommender.load(champion, prepared.catalogue.items, prepared.log, "champion")
        if has_model(champion)
        else None
    )
    if there is None or there.version != version:
        found = there.version if there else "no model"
        raise ConfigError(
            f"params.yaml: finetune.refresh_of: {version}, but {champion} holds {found}: "
            "run `evergreen champion`, or set it to null for a full training"
        )
    return there


def in_full(params: Params) -> Params:
    """With a budget of privacy every training is full: a kept encoder may have learned outside it."""
    own = params.finetune
    if own.privacy.epsilon is None or own.refresh_of is None:
        return params
    log.info(
        "trained in full, without the encoder of %s: finetune.privacy covers no training of texts",
        own.refresh_of,
    )
    return params.model_copy(update={"finetune": own.model_copy(update={"refresh_of": None})})


def used_encoder(params: Params, noted: Path) -> Encoder | None:
    """What finetune.encoder names now; None for a refresh, which has the champion's. Warns where
    data/encoder.json says otherwise. Raises ConfigError where there is none."""
    if params.finetune.refresh_of is not None:
        return None
    encoder = identify(params.finetune.encoder)
    if Encoder.find(noted) != encoder:
        log.warning(
            "warning: %s is not of this encoder, so the next cycle will train again: "
            "run `evergreen champion` before `dvc repro`",
            noted,
        )
    return encoder


def _quiet() -> None:
    """Without Lightning's notes on settings that are meant; of several processes only the first speaks."""
    if getattr(rank_zero_only, "rank", 0):
        logging.disable(logging.WARNING)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\.")


def main(
    data: Path,
    encoder: Path,
    challenger: Path,
    ablations: Path,
    training: Path,
    params: Path = Path("params.yaml"),
    champion: Path = Path("models/champion"),
) -> None:
    _quiet()
    settings = in_full(Params.load(params))
    check(settings.finetune)
    prepared = load_prepared(data)
    summary = Summary.read(data / "summary.json")
    private.check(prepared, settings.finetune, str(summary.settings.get("item_text")))
    folder = CHECKPOINTS / checkpoint_key(data, settings, used_encoder(settings, encoder))
    context = Run(settings.finetune, settings.seed, folder)
    meter = Meter(folder, context.phases)
    serving = Serving(settings.recommend.candidates, settings.evaluate.live_delay_seconds)
    before = refreshed(settings.finetune.refresh_of, champion, prepared)
    trained = finetune(prepared, context, before, serving=serving)
    card = Card(
        as_of=summary.as_of,
        train_end=summary.train_end,
        fit_end=summary.fit_end,
        data_hash=summary.data_hash if trained.privacy is None else None,  # who has all other rows could tell
        preprocess=summary.settings,
        seed=settings.seed,
        max_length=trained.encoder.max_length if trained.encoder else settings.finetune.max_length,
        finetune=settings.finetune.model_dump(),
        training=trained.summary,
        privacy=trained.privacy,
    )
    _write_models(trained, card, prepared, challenger, ablations, data, settings.detect_drift)
    cost = Cost.of(trained.summary | trained.outside | meter.stop())
    _write_report(training, cost, context.curves)
    shutil.rmtree(folder, ignore_errors=True)
    quality = (trained.summary | trained.outside).get("challenger_validation_ndcg@10")
    log.info(
        "trained in %.0f s (%.0f CPU s, some %.2g Wh, an estimate), %.1f GiB at most; validation nDCG@10 %s",
        cost.seconds,
        cost.cpu_seconds,
        cost.energy_wh_estimate,
        cost.peak_gib,
        quality,
    )


def _write_models(
    trained: Trained,
    card: Card,
    prepared: Prepared,
    challenger: Path,
    ablations: Path,
    data: Path,
    rule: DetectDrift,
) -> None:
    beside = temporary_beside(ablations)
    if trained.frozen is not None:
        np.save(beside / recommender.FROZEN, trained.frozen.astype(np.float32))
    for name, model in trained.models.items():
        target = temporary_beside(challenger) if name == "challenger" else beside / name
        encoder = trained.encoder if name == "challenger" else None
        own = card.but(name=name, features=model.card["features"])
        recommender.save(target, own.to_dict(), model, encoder)
        if name == "challenger":
            if trained.privacy is None:  # no budget covers rows
                _write_reference(target / reference.FOLDER, data, card, rule)
            replace_folder(target, challenger)
    replace_folder(beside, ablations)


def _write_reference(folder: Path, data: Path, card: Card, rule: DetectDrift) -> None:
    """What it was fitted on and evaluated with, to tell later whether the world has moved."""
    known = [pd.read_parquet(data / f"{window}.parquet") for window in ("train", "validation")]
    assert card.fit_end is not None  # summary.json has one
    reference.write(folder, pd.concat(known, ignore_index=True), card.fit_end, rule)


def _write_report(folder: Path, cost: Cost, curves: list[dict[str, Any]]) -> None:
    beside = temporary_beside(folder)
    columns = ["phase", "step", "metric", "value"]
    pd.DataFrame(curves, columns=columns).to_csv(beside / "curves.csv", index=False)
    cost.write(beside / "summary.json")
    told = ("seconds", "cpu_seconds", "peak_gib", "energy_wh_estimate")
    metrics = {f"training_{name}": getattr(cost, name) for name in told}
    (beside / "cost.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    replace_folder(beside, folder)


if __name__ == "__main__":
    run(main)
