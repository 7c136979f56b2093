"""A model of RecTools behind FastAPI: run by pipeline/bench/_served_peers.py in the peers' environment.

It imports nothing of the project. In: FOLDER with task.json {model, raw, factors, regularization, alpha,
neighbours, seed}; `raw` holds interactions/month=*/*.parquet and items.parquet. The first start fits the
model and keeps it in FOLDER, the next ones load it.
Rule: a list is made of the user's history as it is now, feedback included: iALS folds the row in, item-kNN
adds up its items' neighbours (implicit's own calls: RecTools' `recommend` knows the rows of its last fit
alone, and makes a matrix of all of them for each call). Who has no row gets the most popular items. Feedback
is on disk before the answer. New items need another fit.
"""

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

# RecTools, FastAPI and uvicorn are imported where they are used: the project's environment has no RecTools.


def fitted(folder: Path, task: dict[str, Any], rows: pd.DataFrame) -> tuple[Any, np.ndarray]:
    """(implicit's model as RecTools has fitted it, its items' ids)."""
    kept = folder / "model.pickle"
    if not kept.exists():
        from rectools import Columns
        from rectools.dataset import Dataset
        from rectools.models import ImplicitALSWrapperModel, ImplicitItemKNNWrapperModel

        table = rows.rename(
            columns={"user_id": Columns.User, "item_id": Columns.Item, "timestamp": Columns.Datetime}
        )
        dataset = Dataset.construct(table.assign(**{Columns.Weight: 1.0}))
        if task["model"] == "ials":
            from implicit.als import AlternatingLeastSquares

            names = ("factors", "regularization", "alpha")
            inner = AlternatingLeastSquares(**{name: task[name] for name in names}, random_state=task["seed"])
            model = ImplicitALSWrapperModel(inner)
        else:
            from implicit.nearest_neighbours import CosineRecommender

            model = ImplicitItemKNNWrapperModel(CosineRecommender(K=task["neighbours"]))
        model.fit(dataset)
        kept.write_bytes(pickle.dumps((model.model, np.asarray(dataset.item_id_map.external_ids, dtype=str))))
    found: tuple[Any, np.ndarray] = pickle.loads(kept.read_bytes())  # without RecTools, which loads torch
    return found


class Lists:
    def __init__(
        self, model: Any, items: np.ndarray, rows: pd.DataFrame, titles: dict[str, str], live: dict[str, Any]
    ):
        self.model, self.items, self.titles, self.live = model, items, titles, live
        self.place = {item: place for place, item in enumerate(items)}
        user, users = pd.factorize(rows["user_id"])
        item = pd.Index(items).get_indexer(rows["item_id"])
        matrix = sp.csr_matrix((np.ones(len(rows), np.float32), (user, item)), (len(users), len(items)))
        matrix.data[:] = 1
        self.matrix, self.user = matrix, {name: row for row, name in enumerate(users)}
        self.popular = np.argsort(-np.asarray(matrix.sum(axis=0))[0], kind="stable")
        self.new: dict[str, list[int]] = {}  # of users, since the start

    def history(self, user_id: str) -> np.ndarray:
        row = self.user.get(user_id)
        old = self.matrix.indices[slice(*self.matrix.indptr[row : row + 2])] if row is not None else []
        return np.unique(np.concatenate([old, self.new.get(user_id, [])]).astype(np.int32))

    def top(self, user_id: str, k: int) -> list[dict[str, Any]]:
        history = self.history(user_id)
        if len(history):
            shape = 1, len(self.items)
            row = sp.csr_matrix((np.ones(len(history), np.float32), history, [0, len(history)]), shape)
            places, scores = self.model.recommend(0, row, N=k, filter_already_liked_items=True, **self.live)
        else:
            places, scores = self.popular[:k], np.zeros(k)
        ids = [str(self.items[place]) for place in places]
        return [
            {"item_id": name, "rank": rank, "score": float(score), "title": self.titles[name]}
            for rank, (name, score) in enumerate(zip(ids, scores, strict=True), 1)
        ]


def application(lists: Lists, events: Path) -> Any:
    # No annotations as strings in this file: FastAPI would look for these classes among its globals.
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Question(BaseModel):
        user_id: str
        k: int = 10

    class Event(BaseModel):
        event_id: str
        user_id: str
        item_id: str
        event: str
        value: float | None = None

    app, log = FastAPI(), events.open("ab")

    async def health() -> dict[str, str]:
        return {"status": "ok"}

    async def recommend(question: Question) -> dict[str, Any]:
        return {"items": lists.top(question.user_id, question.k)}

    async def feedback(event: Event) -> dict[str, int]:
        log.write(event.model_dump_json().encode() + b"\n")
        log.flush()
        os.fsync(log.fileno())
        if event.item_id in lists.place:
            lists.new.setdefault(event.user_id, []).append(lists.place[event.item_id])
        return {"accepted": 1}

    app.get("/health")(health)
    app.post("/recommend")(recommend)
    app.post("/feedback")(feedback)
    return app


def main(folder: Path, port: int) -> None:
    import uvicorn

    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    raw = Path(task["raw"])
    columns = ["user_id", "item_id", "timestamp"]
    files = sorted((raw / "interactions").glob("month=*/*.parquet"))
    rows = pd.concat([pd.read_parquet(file, columns=columns) for file in files], ignore_index=True)
    titles = pd.read_parquet(raw / "items.parquet", columns=["item_id", "title"])
    model, items = fitted(folder, task, rows)
    live = {"recalculate_user": True} if task["model"] == "ials" else {}
    lists = Lists(model, items, rows, dict(titles.itertuples(index=False)), live)
    uvicorn.run(application(lists, folder / "events.jsonl"), port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[sys.argv.index("--port") + 1]))
