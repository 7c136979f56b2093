"""A film club whose people are MovieLens': whom they take after, and what they will say of a film, is known.

It begins with some of these people and with half of the films; each rates its films over a month, in any
order, since MovieLens' own is that of the pages on which it showed them. Then new films come, and new people:
of a list each rates what it knows, with the stars that MovieLens has; four or more, and it has taken the
film. Between lists it rates films that it thinks of by itself: not all that a shop hears of people began on
its lists.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import pandas as pd
import tiny
import toy
import yaml
from served_process import Served

from pipeline.sources.movielens_100k import _paths

ROOT = Path(__file__).resolve().parents[1]
FILMS, NEW_FILMS, FOUNDERS = 500, 250, 200
DAYS, MONTH = 180, 30  # in which the founders come, and in which each of them rates
LIKED, LISTED, OWN = 4, 10, 4  # stars; places of a list; films that come to mind between two lists


class Clock:
    """The club's: a quarter of an hour passes whenever somebody does something, so a round takes days."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def tick(self) -> str:
        self.now += timedelta(minutes=15)
        return self.now.isoformat()


@dataclass
class Person:
    name: str
    ratings: dict[str, int]  # item -> stars, of the person's own future, in its order
    seen: list[str] = field(default_factory=list)  # listed or rated before: nobody asks for it again

    def ask(self, service: Served) -> dict[str, Any]:
        question = {"user_id": self.name, "k": LISTED, "exclude": self.seen, "explain": False}
        status, told = service.ask("/recommend", question)
        assert status == 200, told
        return told

    def look(self, service: Served, clock: Clock | None) -> int:
        """At a list: how many of it the person takes. Without a clock nobody hears of it."""
        told = self.ask(service)
        listed = [row["item_id"] for row in told["items"]]
        assert not set(listed) & set(self.seen)
        self.seen += listed
        known = [item for item in listed if item in self.ratings]
        if clock is not None:
            self.rate(service, known, told["impression_id"], clock)
        return sum(self.ratings[item] >= LIKED for item in known)

    def think_of_some(self, service: Served, clock: Clock) -> None:
        own = [item for item in self.ratings if item not in self.seen][:OWN]
        self.seen += own
        self.rate(service, own, None, clock)

    def rate(self, service: Served, items: list[str], impression: str | None, clock: Clock) -> None:
        events = [
            {
                "event_id": f"{self.name}-{item}",
                "user_id": self.name,
                "item_id": item,
                "event": "rating",
                "value": self.ratings[item],
                "impression_id": impression,
                "timestamp": clock.tick(),
            }
            for item in items
        ]
        if events:
            status, answer = service.ask("/feedback", events)
            assert (status, answer["accepted"]) == (200, len(events)), answer

    def copy(self) -> Person:
        return Person(self.name, self.ratings, list(self.seen))


def rounds(
    people: list[Person], service: Served, number: int, clock: Clock | None, think: bool = False
) -> np.ndarray:
    """(people, rounds) items taken of each list; everybody has looked before anybody looks again."""

    def looks(person: Person) -> int:
        if think and clock is not None:
            person.think_of_some(service, clock)
        return person.look(service, clock)

    # One after another: whose events come first changes the others' lists, and so what a training learns.
    return np.array([[looks(person) for person in people] for _ in range(number)]).T


def club(folder: Path, members: int, seed: int = 3) -> tuple[Path, list[Person], datetime]:
    """(the project, its new members, when they come). A checkout of its own, with a tiny text encoder."""
    ratings, films = _ratings()
    chance = np.random.default_rng(seed)
    new = chance.choice(films["item_id"], NEW_FILMS, replace=False)
    # Enough has to be known of a person to tell a good list from a bad one.
    liked = ratings[ratings["rating"] >= LIKED].groupby("user_id").size()
    users = chance.permutation(np.sort(liked[liked >= 2 * LISTED].index))
    founders = set(users[:FOUNDERS])
    early = ratings[ratings["user_id"].isin(founders) & ~ratings["item_id"].isin(new)]
    come = dict(zip(sorted(founders), chance.uniform(0, DAYS, FOUNDERS), strict=True))
    days = early["user_id"].map(come) + chance.uniform(0, MONTH, len(early))
    start = pd.Timestamp("2024-01-01", tz="UTC")
    early = early.assign(
        timestamp=(start + pd.to_timedelta(days, unit="D")).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    )
    people = []
    for user in users[FOUNDERS : FOUNDERS + members]:
        mine = ratings[ratings["user_id"] == user]
        mine = mine.iloc[chance.permutation(len(mine))]
        people.append(Person(str(user), dict(zip(mine["item_id"], mine["rating"].astype(int), strict=True))))
    folder.mkdir(parents=True, exist_ok=True)
    early.to_csv(folder / "ratings.csv", index=False)
    films.to_csv(folder / "films.csv", index=False)
    return project(folder), people, start.to_pydatetime() + timedelta(days=float(days.max()))


def _ratings() -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, films, *_ = _paths()
    ratings = pd.read_csv(rows, sep="\t", dtype="str").iloc[:, :3]
    ratings.columns = ["user_id", "item_id", "rating"]
    ratings["rating"] = ratings["rating"].astype("float")
    items = pd.read_csv(films, sep="\t", dtype="str")
    items.columns = ["item_id", "title", "year", "categories"]
    items["categories"] = items["categories"].str.replace(" ", "|")
    most = ratings["item_id"].value_counts(sort=True).index[:FILMS]
    return ratings[ratings["item_id"].isin(most)], items[items["item_id"].isin(most)]


def project(folder: Path) -> Path:
    """A checkout in `folder` whose source is ratings.csv and films.csv there."""
    checkout = folder / "project"
    parts = ["pipeline", "dvc.yaml", "params.yaml", ".gitignore", ".dvc", ".dvcignore", "models", "data"]
    listed = subprocess.run(
        ["git", "ls-files", "-z", *parts], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, checkout / name)
    path = checkout / "params.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["collect"] |= {"source": "files"}
    settings["collect"]["files"] |= {
        "interactions": str(folder / "ratings.csv"),
        "items": str(folder / "films.csv"),
        "columns": {"value": "rating", "event": {"constant": "rating"}},
    }
    encoder = tiny.encoder(folder / "encoder")
    settings["finetune"] |= {"encoder": str(encoder), "epochs": 0, "max_length": 16, "user_tower": "mean"}
    settings["evaluate"] |= {"bootstrap_samples": 200}
    settings["preprocess"] |= {"test_share": 0.15}
    path.write_text(yaml.safe_dump(settings))
    toy.git(checkout, "init", "-q", "-b", "main")
    toy.git(checkout, "add", ".")
    toy.git(checkout, "commit", "-q", "-m", "Start")
    return checkout
