"""SASRec or BERT4Rec of RecTools, fitted and asked: run by pipeline/bench/_peers.py, which says where.

It imports nothing of the project. In, beside task.json {model, settings, seed, k, most_epochs, every}:
rows.parquet (user, item, liked; each user's oldest first), validation.parquet (point, user, target),
validation_histories.parquet and test_histories.parquet (point, item, liked; oldest first).
Out: validation_lists.parquet and test_lists.parquet (point, rank, item, score), then told.json.
Rule: histories longer than the model reads are cut into several users, so that nothing of train is lost; the
number of epochs is the one with the best nDCG@k at the validation points. Targets of test are not here.
"""

from __future__ import annotations

import copy
import json
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# RecTools is imported where it is used, so that the rest can be tested where it is not installed.
POINTS = 1000  # asked at a time
PATIENCE = 2  # looks at validation without a better one


def trainer() -> Any:
    import pytorch_lightning as pl

    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(max_epochs=1, accelerator="cpu", enable_checkpointing=False, **silent)


def dataset(rows: pd.DataFrame) -> Any:
    """Of user, item: the order of the rows stands for time."""
    from rectools import Columns
    from rectools.dataset import Dataset

    table = pd.DataFrame({Columns.User: rows["user"], Columns.Item: rows["item"], Columns.Weight: 1.0})
    table[Columns.Datetime] = pd.to_datetime(np.arange(len(rows)), unit="s")
    return Dataset.construct(table)


def cut(rows: pd.DataFrame, length: int) -> pd.DataFrame:
    """Every `length` rows of a user become a user of their own."""
    part = rows.groupby("user").cumcount() // length
    return rows.assign(user=rows.groupby(["user", part]).ngroup())


def lists(model: Any, histories: pd.DataFrame, liked_only: bool, k: int) -> pd.DataFrame:
    """The k best of each point that has a known item in its history, without the items of the history."""
    known = histories["item"].isin(model.data_preparator.get_known_item_ids())
    read = histories[known & histories["liked"]] if liked_only else histories[known]
    met = histories.drop_duplicates(["point", "item"])
    lengths = met.groupby("point").size().sort_values()
    points = lengths.index[lengths.index.isin(read["point"])]
    found = []
    for begin in range(0, len(points), POINTS):
        asked = points[begin : begin + POINTS]
        most = k + int(lengths[asked].max())
        told = dataset(read[read["point"].isin(asked)].rename(columns={"point": "user"}))
        top = model.recommend(asked.to_numpy(), told, k=most, filter_viewed=False)
        top = top[["user_id", "item_id", "score", "rank"]]
        found.append(unmet(top.set_axis(["point", "item", "score", "rank"], axis=1), met, k))
    empty = pd.DataFrame(columns=["point", "rank", "item", "score"])
    return pd.concat(found, ignore_index=True) if found else empty


def unmet(top: pd.DataFrame, met: pd.DataFrame, k: int) -> pd.DataFrame:
    """The first k of each point's list (point, item, score, rank) that are not in `met` (point, item)."""
    top = top.merge(met[["point", "item"]], "left", indicator=True)
    top = top[top.pop("_merge") == "left_only"].sort_values(["point", "rank"])
    top["rank"] = top.groupby("point").cumcount() + 1
    return top.loc[top["rank"] <= k, ["point", "rank", "item", "score"]]


def ndcg(listed: pd.DataFrame, points: pd.DataFrame) -> float:
    """Mean over users of the mean over a user's points."""
    hits = points.merge(listed, "left", left_on=["point", "target"], right_on=["point", "item"])
    gain = (1 / np.log2(1 + hits["rank"])).fillna(0)
    return float(gain.groupby(hits["user"]).mean().mean())


def fit(task: dict[str, Any], folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model with the weights of its best epoch, and what is to be told of it."""
    from rectools.models import BERT4RecModel, SASRecModel

    settings = dict(task["settings"])
    liked_only = settings.pop("positives_only")
    rows = pd.read_parquet(folder / "rows.parquet")
    rows = rows[rows["liked"]] if liked_only else rows
    kind = {"sasrec": SASRecModel, "bert4rec": BERT4RecModel}[task["model"]]
    model = kind(**settings, get_trainer_func=trainer, deterministic=True)
    told = dataset(cut(rows, settings["session_max_len"]))
    points = pd.read_parquet(folder / "validation.parquet")
    histories = pd.read_parquet(folder / "validation_histories.parquet")
    best, weights, curve = (-1.0, 0), None, []
    for epoch in range(task["every"], task["most_epochs"] + 1, task["every"]):
        model.fit_partial(told, min_epochs=task["every"], max_epochs=task["every"])
        curve.append(ndcg(lists(model, histories, liked_only, task["k"]), points))
        if curve[-1] > best[0]:
            best, weights = (curve[-1], epoch), copy.deepcopy(model.torch_model.state_dict())
        if epoch - best[1] >= PATIENCE * task["every"]:
            break
    model.torch_model.load_state_dict(weights)
    return model, {"epochs": best[1], "validation": best[0], "curve": curve}


def main(folder: Path) -> None:
    import pytorch_lightning as pl

    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    pl.seed_everything(task["seed"], workers=True, verbose=False)
    model, told = fit(task, folder)
    for window in ("validation", "test"):
        histories = pd.read_parquet(folder / f"{window}_histories.parquet")
        listed = lists(model, histories, task["settings"]["positives_only"], task["k"])
        listed.to_parquet(folder / f"{window}_lists.parquet", index=False)
    told["cpu_seconds"] = time.process_time()
    (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
