"""A Log written as (user, item, time) triples."""

import numpy as np

from pipeline.data.histories import Log


def log_of(
    rows: list[tuple[int, int, int]], items: int, positive: list[bool] | None = None, users: int = 0
) -> Log:
    """`users`: how many there are at least, with or without rows."""
    rows = sorted(rows, key=lambda row: row[0])  # stable: the given order is the order in time
    user, item, time = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    assert item.max(initial=0) < items
    return Log(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        time=time.astype(np.int64),
        value=np.full(len(rows), np.nan, np.float32),
        positive=np.ones(len(rows), bool) if positive is None else np.array(positive, bool),
        fit=np.ones(len(rows), bool),
        window=np.zeros(len(rows), np.int8),
        indptr=np.r_[0, np.cumsum(np.bincount(user, minlength=users))].astype(np.int64),
    )
