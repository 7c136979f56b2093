"""The trainer of `evergreen backtest --full`: preprocess and finetune as they are, on what was known then.

In: a timeline, the items table, params. Out: model folders under the run's cache, one a key, and scorers over
the timeline's catalogue. Rule: a refresh keeps the encoder of the champion's last full training, so refreshes
of equal encoders at the same window are the same model. A training that was killed goes on from finetune's
own checkpoint.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from pipeline.backtest.timeline import Timeline
from pipeline.backtest.world import MIB, Fitted
from pipeline.data import tables
from pipeline.documents.data import Manifest
from pipeline.documents.model import Claim, Cost
from pipeline.files import replace_folder, temporary_beside
from pipeline.models.artifacts import VERSION, has_model
from pipeline.models.pretrained import identify
from pipeline.params import Params

REFRESH_OF = "-refresh-of-"
SECONDS = "training.json"  # beside the model: what it cost


@dataclass(frozen=True)
class Full:
    items: pd.DataFrame  # of data/raw
    params: Params
    folder: Path
    code: str = "full"

    def key(self, number: int, mode: str, champion: str) -> str:
        own = f"w{number:02d}"
        return own if mode == "full" else f"{own}{REFRESH_OF}{champion.split(REFRESH_OF)[-1]}"

    def fit(self, timeline: Timeline, key: str) -> Fitted:
        from pipeline.models.recommender import Recommender

        folder = self.folder / key
        if not has_model(folder):
            self._train(timeline, key, folder)
        model = Recommender.load(folder, timeline.items, timeline.log)
        seconds = Cost.read(folder / SECONDS).seconds
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MIB
        return Fitted(model, model.text, seconds or 0.0, size, list(model.card["features"]))

    def _train(self, timeline: Timeline, key: str, folder: Path) -> None:
        from pipeline.stages import finetune, preprocess

        own, _, base = key.partition(REFRESH_OF)
        if base and not has_model(self.folder / base):
            self._train(timeline, base, self.folder / base)
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = temporary_beside(folder)
        try:
            raw, prepared, params = beside / "raw", beside / "prepared", beside / "params.yaml"
            self._write_raw(timeline, int(own[1:]), raw)
            content = self.params.model_dump(mode="json")
            content["finetune"]["refresh_of"] = base or None
            params.write_text(yaml.safe_dump(content), encoding="utf-8")
            preprocess.main(raw, prepared, params)
            trained, training = beside / "model", beside / "training"
            encoder, ablations = beside / "encoder.json", beside / "ablations"
            if not base:
                identify(self.params.finetune.encoder).write(encoder)
            finetune.main(prepared, encoder, trained, ablations, training, params, self.folder / base)
            Claim(version=key).write(trained / VERSION)
            (trained / SECONDS).write_text((training / "summary.json").read_text(encoding="utf-8"))
            replace_folder(trained, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _write_raw(self, timeline: Timeline, number: int, raw: Path) -> None:
        """data/raw as it was at the decision before window `number`."""
        as_of = timeline.as_of(number)
        rows = timeline.rows[timeline.rows[tables.TIME] <= as_of][tables.INTERACTIONS].reset_index(drop=True)
        tables.write_parquet(rows, raw / "interactions" / "month=all" / "part-0.parquet")
        known = self.items[tables.ITEM].isin(set(rows[tables.ITEM]))
        tables.write_parquet(self.items[known].reset_index(drop=True), raw / "items.parquet")
        manifest = Manifest(as_of=as_of, content_hash=f"{timeline.key}-{number}")
        manifest.write(raw / "manifest.json")
