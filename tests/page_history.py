"""A made-up history of runs, as DAG runs and `evergreen cycle` leave it, for tests of the page."""

from __future__ import annotations

import json
import math
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

START = datetime(1998, 1, 5, tzinfo=UTC)
BEGAN = datetime(2026, 11, 22, 6, tzinfo=UTC)
SIGNALS = ("schema", "missing", "quality", "volume", "values", "new_users", "new_items", "text", "coverage")
BASELINES = ("popularity", "recent_popularity", "item_knn", "ease", "ials", "content")
REPORT = "<!doctype html><title>{0}</title><h1>{0}</h1><script>document.title += ' ran'</script>"


def write(root: Path, runs: int = 12, every: int = 3, step_days: float = 14) -> list[str]:
    """`runs` runs below root/data/history; each `every`-th trains, every second training is promoted.

    Returns the names of their folders, oldest first. Each began an hour after the one before.
    """
    names, champion, trainings = [], None, 0
    for place in range(runs):
        as_of = START + timedelta(days=step_days * place)
        trains = place % every == 0
        trainings += trains
        new = f"v{(trainings + 1) // 2}.0.0" if trains and trainings % 2 else None
        name = f"{as_of:%Y%m%dT%H%M%SZ}-{champion or 'none'}"
        folder = root / "data" / "history" / name
        write_run(folder, as_of, champion, place, trains, new)
        names.append(name)
        champion = new or champion
    return names


def write_run(
    folder: Path, as_of: datetime, champion: str | None, place: int, trains: bool, new: str | None
) -> None:
    folder.mkdir(parents=True)
    iso = as_of.isoformat()
    dag = "evergreen_training" if trains else "evergreen_monitoring"
    run = {
        "run_id": f"manual__2026-11-22T06:{place % 60:02}:00+00:00",
        "dag": dag,
        "state": "success",
        "as_of": iso,
        "champion": champion,
        "mode": "full" if trains else "none",
        "promoted": new,
        "commit": f"{place:040x}",
        "branch": f"runs/{place}",
        "started": (BEGAN + timedelta(hours=place)).isoformat(),
        "finished": (BEGAN + timedelta(hours=place, seconds=200)).isoformat(),
    }
    content: dict[str, Any] = {
        "run": run,
        "drift": drift(place, iso, champion),
        "retraining": retraining(trains, iso),
    }
    if trains:
        content |= {"promotion": promotion(new, champion), "evaluation": evaluation(place, iso, champion)}
    for name, each in content.items():
        (folder / f"{name}.json").write_text(json.dumps({"champion": champion} | each))
    for name in ("drift", "evaluation") if trains else ("drift",):
        (folder / f"{name}.html").write_text(REPORT.format(f"{name.capitalize()} of run {place}"))


def drift(place: int, as_of: str, champion: str | None) -> dict[str, Any]:
    if champion is None:
        return {
            "outcome": "no_champion",
            "text": "there is no champion yet",
            "as_of": as_of,
            "drift": False,
            "signals": {},
        }
    signals = {}
    for number, name in enumerate(SIGNALS):
        value = 0.1 * math.sin(place / 3 + number) + 0.1
        flag = value > 0.15 and number % 2 == 0
        signals[name] = {
            "value": value if number else None,
            "p_value": 0.01 if flag else 0.4,
            "floor": 0.12,
            "flag": flag,
            "kind": "hard" if number < 3 else "soft",
            "confirmed": flag and place % 2 == 0,
            "text": f"{name} {value:.2f} against 0.10, p = .010, floor 12 points: no drift",
        }
    short = {name: {key: one[key] for key in ("value", "p_value", "flag")} for name, one in signals.items()}
    windows = [{"from": as_of, "to": as_of, "rows": 1234, "users": 60, "signals": short} for _ in range(24)]
    confirmed = any(one["confirmed"] for one in signals.values())
    return {
        "outcome": "ok",
        "as_of": as_of,
        "drift": confirmed,
        "signals": signals,
        "windows": windows,
        "text": "No drift in the window 1998-03-31 to 1998-04-22, 1,234 rows of 60 users",
    }


def retraining(trains: bool, as_of: str) -> dict[str, Any]:
    text = "12,000 rows came since the last training, 12.0% of the 100,000 that it had; due at 20%"
    reason = {"signal": "max_new_share", "value": 0.12, "threshold": 0.2, "p_value": None, "text": text}
    calls = "full" if trains else None
    return {
        "retrain": trains,
        "mode": calls or "none",
        "reasons": [reason | {"calls": calls}],
        "as_of": as_of,
    }


def promotion(new: str | None, champion: str | None) -> dict[str, Any]:
    gain = "nDCG@10 +0.0200 [+0.0100, +0.0300] against"
    checks = [
        {
            "name": "beats_champion",
            "passed": bool(new),
            "value": 0.01 if new else -0.01,
            "limit": 0.0,
            "text": f"{gain} the champion",
        },
        {"name": "users", "passed": True, "value": 153, "limit": 50, "text": "153 users"},
        {
            "name": "beats_popularity",
            "passed": True,
            "value": 0.01,
            "limit": 0.0,
            "text": f"{gain} popularity",
        },
    ]
    return {
        "promote": bool(new),
        "checks": checks,
        "warnings": [] if new else ["the champion in service is weak"],
        "challenger": {"version": None, "artifact_hash": f"hash-{new}"},
        "champion": champion and {"version": champion},
    }


def evaluation(place: int, as_of: str, champion: str | None) -> dict[str, Any]:
    base = 0.12 + 0.02 * math.sin(place)
    names = {"challenger": base + 0.04, "without_text": base + 0.035} | {
        name: base - 0.01 * number for number, name in enumerate(BASELINES)
    }
    if champion:
        names["champion"] = base + 0.03
    every = {"users": 153, "points": 1976, "recall@10": 0.3}
    slices = ("all", "warm", "cold_items", "cold_users")
    models = {
        name: {
            one: every
            | {"ndcg@10": value, "ndcg@10_low": value - 0.02, "ndcg@10_high": value + 0.02}
            | {
                f"{metric}@{k}{end}": 0.123456
                for metric in ("precision", "mrr", "coverage", "novelty", "diversity")
                for k in (5, 10, 20)
                for end in ("", "_low", "_high")
            }
            for one in slices
        }
        for name, value in names.items()
    }
    paired = {
        name: {"ndcg@10": names["challenger"] - value, "low": 0.001, "high": 0.03}
        for name, value in names.items()
        if name != "challenger"
    }
    return {"as_of": as_of, "fit_end": as_of, "models": models, "paired": paired}


def satisfaction() -> dict[str, Any]:
    """What an evaluation says of a service's lists; beside it, in `comparison`, what of its chances."""
    shown = {
        "lists": 1234,
        "items_shown": 12_340,
        "click_through": 0.3125,
        "likes": 0.8,
        "returns_7_days": None,
        "coverage": 0.25,
        "diversity": 0.5,
    }
    pair = {"difference": 0.12, "low": 0.02, "high": 0.22, "answer": "better", "users": 60}
    drawn = {"champion": "v1.0.0", "challenger": "sha256:ab", "lists": 180}
    taken = {"taken": {"champion": 20, "challenger": 41}}
    told = shown | {"days": 30, "by_version": {"v1.0.0": shown, "v2.0.0": shown | {"likes": 0.9}}}
    return {
        "satisfaction": told | {"interleaved": drawn | taken | pair},
        "comparison": {
            "off_policy": pair | {"answer": "investigate", "low": -0.01, "places": 600, "taken": 0.2}
        },
    }


def appoint(root: Path, *versions: str, rollback: str | None = None) -> None:
    """A git repository whose tags say that these were promoted in turn, and then rolled back to one."""
    git = ["git", "-C", str(root), "-c", "user.name=T", "-c", "user.email=t@example.org"]

    def run(*arguments: str) -> None:
        subprocess.run([*git, *arguments], check=True, capture_output=True)

    run("init", "-q", "-b", "main")
    commits: dict[str, str] = {}
    for place, version in enumerate([*versions, *([rollback] if rollback else [])]):
        record = {"version": version, "reason": f"why {version}", "when": "2026-11-22T06:00:00+00:00"}
        record |= {
            "fit_end": (START + timedelta(days=30 * place)).isoformat(),
            "mode": "full",
            "rows": 100_000,
        }
        if version not in commits:
            run("commit", "-q", "--allow-empty", "-m", version)
            commits[version] = "done"
            more = {"artifact_hash": f"hash-{version}", "metrics": {"ndcg@10": 0.163}}
            run("tag", "-a", f"recommender@{version}", "-m", f"s\n\n{json.dumps(record | more)}")
        action = "rollback" if place == len(versions) else "promote"
        body = f"s\n\n{json.dumps(record | {'action': action})}"
        run("tag", "-a", f"recommender#champion#{place + 1}", f"recommender@{version}^{{}}", "-m", body)
