"""Made-up worlds whose items live for days or for hours and whose best possible ranking is known.

Every day brings new items, each with a topic and an appeal that fades by half in `half_life` days; users have
tastes for topics and come for short visits. A user takes an item with a chance proportional to appeal x what
is left of it x taste, never the same twice. The best possible ranking is by these chances.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.histories import MICROSECONDS_A_DAY, Points, Prepared

DAYS, ITEMS_A_DAY = 60, 40
TOPICS = ("politics", "football", "weather", "cinema", "science", "business", "travel", "cooking")
WORDS = 6  # a text has: mostly of its topic
START = pd.Timestamp("2026-01-01", tz="UTC")


@dataclass(frozen=True)
class Kind:
    half_life: float  # days in which half of an item's appeal is gone
    appeal: float  # deviation of the log of an item's first appeal
    taste: float  # deviation of the log of a user's taste for a topic
    users: int
    visits: int  # of a user
    taken: int  # items a visit


KINDS = {
    "days": Kind(half_life=1.0, appeal=1.0, taste=1.5, users=800, visits=8, taken=6),
    "hours": Kind(half_life=0.15, appeal=1.5, taste=0.7, users=2000, visits=3, taken=4),
}


@dataclass(frozen=True)
class World:
    kind: Kind
    born: np.ndarray  # (items,) days since START
    appeal: np.ndarray  # (items,) log
    topic: np.ndarray  # (items,)
    taste: np.ndarray  # (users, topics) log

    @classmethod
    def of(cls, kind: Kind, seed: int) -> World:
        generator = np.random.default_rng(seed)
        items = DAYS * ITEMS_A_DAY
        return cls(
            kind,
            born=np.sort(generator.uniform(0, DAYS, items)),
            appeal=generator.normal(0, kind.appeal, items),
            topic=generator.integers(len(TOPICS), size=items),
            taste=generator.normal(0, kind.taste, (kind.users, len(TOPICS))),
        )

    def chances(self, user: np.ndarray, day: np.ndarray) -> np.ndarray:
        """(asked, items) log of what chances are proportional to; -inf: not born yet."""
        age = day[:, None] - self.born[None, :]
        chance = self.appeal - np.log(2) * age / self.kind.half_life + self.taste[user][:, self.topic]
        return np.where(age > 0, chance, -np.inf)

    def rows(self, seed: int) -> pd.DataFrame:
        generator = np.random.default_rng([seed, 1])
        user = np.repeat(np.arange(self.kind.users), self.kind.visits)
        begin = generator.uniform(2, DAYS, len(user))
        found = []
        for who, day in zip(user, begin, strict=True):
            noise = generator.gumbel(size=len(self.born))  # the largest sums are a draw without replacement
            drawn = np.argsort(-(self.chances(np.array([who]), np.array([day]))[0] + noise))
            taken = drawn[: self.kind.taken]
            found += [(who, item, day + place / 1440) for place, item in enumerate(taken)]
        table = pd.DataFrame(found, columns=[tables.USER, tables.ITEM, "day"]).drop_duplicates(
            [tables.USER, tables.ITEM]
        )
        times = (START + pd.to_timedelta(table.pop("day"), unit="D")).astype(tables.MOMENT)
        names = {
            tables.USER: [f"u{n:04d}" for n in table[tables.USER]],
            tables.ITEM: [f"i{n:05d}" for n in table[tables.ITEM]],
        }
        table = table.assign(
            **names, **{tables.TIME: times, tables.EVENT: "view", tables.VALUE: np.nan, tables.TEXT: None}
        )
        table = table.astype(
            {tables.VALUE: "float64", tables.TEXT: "str", tables.USER: "str", tables.ITEM: "str"}
        )
        return table.sort_values([tables.TIME, tables.USER, tables.ITEM], ignore_index=True)

    def items(self, seed: int) -> pd.DataFrame:
        generator = np.random.default_rng([seed, 2])
        texts = [
            " ".join(
                TOPICS[topic if generator.random() < 0.7 else generator.integers(8)] for _ in range(WORDS)
            )
            for topic in self.topic
        ]
        never = pd.Series([pd.NaT] * len(texts), dtype=tables.MOMENT)
        born = (START + pd.to_timedelta(self.born, unit="D")).as_unit("us")
        return pd.DataFrame(
            {
                tables.ITEM: [f"i{n:05d}" for n in range(len(texts))],
                tables.TITLE: texts,
                tables.TEXT: pd.Series([None] * len(texts), dtype="str"),
                tables.CATEGORIES: [[] for _ in texts],
                tables.AVAILABLE_FROM: pd.Series(born),
                tables.AVAILABLE_UNTIL: never,
            }
        )

    def write(self, raw: Path, seed: int) -> None:
        rows = self.rows(seed)
        tables.write_parquet(rows, raw / "interactions" / "month=all" / "part-0.parquet")
        tables.write_parquet(self.items(seed), raw / "items.parquet")
        as_of = {"as_of": rows[tables.TIME].max().isoformat(), "content_hash": "turnover"}
        (raw / "manifest.json").write_text(json.dumps(as_of), encoding="utf-8")


@dataclass(frozen=True)
class BestPossible:
    """Ranks by the chances that the rows were drawn by. A `Scorer`."""

    world: World
    prepared: Prepared
    name: str = "best_possible"

    def score(self, points: Points) -> np.ndarray:
        users = np.array([int(name[1:]) for name in self.prepared.user_ids])[points.user]
        items = np.array([int(name[1:]) for name in self.prepared.catalogue.ids])
        day = (points.time - START.value // 1000) / MICROSECONDS_A_DAY
        return self.world.chances(users, day)[:, items].astype(np.float32)
