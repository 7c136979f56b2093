"""One trial: the challenger that `finetune` would make with other params, judged on the validation window.

In: data/prepared, params.yaml with other values. Out: nDCG@10 of each user of the validation points, those by
which `finetune` itself reports; the test window is never looked at. Ablations are left out; the texts'
vectors are made once for all trials that read and train the texts alike (with the rows of params.yaml as it
is). What was measured is kept, so the same values cost nothing a second time, and a killed training goes on
from its checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline.data.histories import Prepared, load_prepared
from pipeline.files import renamed, write_text
from pipeline.models import pretrained
from pipeline.models.baselines import train_rows
from pipeline.params import Params, parsed
from pipeline.stages import preprocess
from pipeline.stages.finetune import finetune
from pipeline.training.recipe import Serving, Texts, validation_gains
from pipeline.training.split import split
from pipeline.training.task import Run
from pipeline.training.text_training import text_vectors
from pipeline.tune.space import Space, Value

SHARE = 0.25  # of the fitted users, whose rows a first look is trained on
FEWEST_USERS = 200  # fitted, from which on there is a first look
ALONE = {"devices": 1, "num_nodes": 1, "strategy": "auto", "refresh_of": None}
NO_TEXT = {"user_tower"}  # of finetune's keys: says nothing of the texts' vectors


def check_ahead(raw: Path, space: Space) -> None:
    """What no trial can read is refused before the first one, as `preprocess` and `finetune` would.

    Raises ConfigError for a template, keywords or an encoder, Unavailable where a hub does not answer.
    """
    columns = pq.read_schema(raw / "items.parquet").names
    tried = [space.as_is]
    for key, dimension in space.dimensions.items():
        tried += [{key: value} for value in dimension.choices or (dimension.low, dimension.high)]
    every = [parsed(space.params_text(values)) for values in tried]
    for params in every:
        preprocess.check_text(params.preprocess, columns)
    for encoder in dict.fromkeys(params.finetune.encoder for params in every):
        pretrained.load(encoder)


@dataclass(frozen=True)
class Measured:
    gains: np.ndarray  # (users,) nDCG@10 at the validation points
    seconds: float

    @property
    def ndcg(self) -> float:
        return float(self.gains.mean()) if len(self.gains) else 0.0


class Trials:
    """All trials on one data/prepared, kept in `folder`."""

    def __init__(self, raw: Path, data: Path, folder: Path, space: Space) -> None:
        self.raw, self.folder, self.space = raw, folder, space
        self.base, self.params = load_prepared(data), parsed(space.text)
        self._last: tuple[str, Prepared] | None = None

    @property
    def prunes(self) -> bool:
        """Whether users are enough for a first look at some of them."""
        log = self.base.log
        return len(np.unique(log.user[train_rows(log)])) >= FEWEST_USERS

    def measured(self, values: Mapping[str, Value], share: float = 1.0) -> Measured:
        """With rows of this share of the users to fit on, or what was measured before."""
        name = _digest(dict(sorted(values.items())), share)
        file = self.folder / f"{name}.json"
        if file.exists():
            kept = json.loads(file.read_text(encoding="utf-8"))
            return Measured(np.array(kept["gains"]), kept["seconds"])
        begin, run = time.monotonic(), self.folder / f"run-{name}"
        gains = self._trained(parsed(self.space.params_text(values)), share, run)
        found = Measured(gains, time.monotonic() - begin)
        write_text(file, json.dumps({"gains": gains.tolist(), "seconds": found.seconds}))
        shutil.rmtree(run, ignore_errors=True)
        return found

    def _trained(self, params: Params, share: float, folder: Path) -> np.ndarray:
        prepared = self._prepared(params)
        settings = params.finetune.model_copy(update=ALONE)
        texts = self._texts(params, prepared)
        if share < 1:
            prepared = _of_some(prepared, share, params.seed)
        serving = Serving(params.recommend.candidates, params.evaluate.live_delay_seconds)
        with quiet():
            context = Run(settings, params.seed, folder)
            trained = finetune(prepared, context, ablations=False, serving=serving, texts=texts)
        model = trained.models["challenger"]
        return validation_gains(model, list(model.parts.ask(split(prepared, params.seed).validation)))

    def _prepared(self, params: Params) -> Prepared:
        """data/prepared, or the same made anew where its settings are others."""
        if params.preprocess == self.params.preprocess:
            return self.base
        name = params.preprocess.model_dump_json()
        if self._last is None or self._last[0] != name:
            with tempfile.TemporaryDirectory(dir=self.folder) as temporary, quiet():
                file, prepared = Path(temporary) / "params.yaml", Path(temporary) / "prepared"
                file.write_text(params.model_dump_json(), encoding="utf-8")  # JSON is YAML
                preprocess.main(self.raw, prepared, file)
                self._last = name, load_prepared(prepared)
        return self._last[1]

    def _texts(self, params: Params, prepared: Prepared) -> Texts:
        """Vectors of the items' texts, of the rows of params.yaml as it is but where the texts are others."""
        read = params.preprocess.model_copy(
            update={"min_user_interactions": self.params.preprocess.min_user_interactions}
        )
        settings = params.finetune.model_copy(update=ALONE)
        name = _digest(read.model_dump(), settings.model_dump(exclude=NO_TEXT), params.seed)
        file, run = self.folder / f"texts-{name}.npz", self.folder / f"run-texts-{name}"
        if not file.exists():
            data = self.base if read == self.params.preprocess else prepared
            rows = split(data, params.seed)
            with quiet():
                context = Run(settings, params.seed, run)
                _, frozen, tuned, _ = text_vectors(data, context, rows.inner, rows.validation)
            with renamed(file) as temporary, temporary.open("wb") as out:
                np.savez(out, frozen=frozen, tuned=tuned)
            shutil.rmtree(run, ignore_errors=True)
        with np.load(file) as kept:
            return None, kept["frozen"], kept["tuned"], {}


def _of_some(prepared: Prepared, share: float, seed: int) -> Prepared:
    """Fitted on the rows of some users alone; what all of them did is state and history as before."""
    chosen = np.random.default_rng([seed, 6]).random(len(prepared.user_ids)) < share
    log = prepared.log
    return replace(prepared, log=replace(log, fit=log.fit & chosen[log.user]))


def _digest(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the lines of single epochs, of which a search has hundreds, and Lightning's notes."""
    loggers = [logging.getLogger(name) for name in ("pipeline.training", "pipeline.stages")]
    levels = [logger.level for logger in loggers]
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
