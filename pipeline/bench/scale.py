"""What the line costs at the size of an ordinary shop: seconds and memory of each stage.

In: nothing, or a folder like data/raw to go through instead of the made-up world. Out: CPU and wall seconds
and peak memory of preprocess, finetune, evaluate with all baselines, and recommend, each a process of its
own, and how much of its target each takes. Rule: params.yaml as it is; in the made-up world users have a
few topics and items one, of whose words their texts of WORDS words are; a topic's items differ in appeal.
Words are the most frequent of the descriptions in the embedded ifdb: 30 of them have 43 tokens of MiniLM, the
first 30 of a description 45.
EVERGREEN_BENCH_ITEMS, _ROWS and _USERS name another size.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from pipeline.bench._process import measured
from pipeline.bench._served import Size
from pipeline.data import impressions, tables
from pipeline.models.pretrained import identify
from pipeline.params import Params
from pipeline.sources import ifdb

WORDS, TOPICS, TOPICS_A_USER, VOCABULARY = 30, 200, 3, 60
DAYS, SEED = 360, 0
START = pd.Timestamp("2025-01-01", tz="UTC")
IMPRESSIONS = "data/impressions.parquet"  # nothing was shown to anybody
MOST_MINUTES = {"finetune": 30.0, "evaluate": 15.0, "recommend": 10.0}
MOST_GIB = 8.0  # of finetune

Json = dict[str, Any]


def run(data: Path | None = None) -> Json:
    """Raises DataError if a stage fails."""
    size = Size.asked()
    spec = Params.load(Path("params.yaml")).finetune.encoder
    with tempfile.TemporaryDirectory(prefix="evergreen-scale-") as temporary:
        root = Path(temporary)
        shutil.copy("params.yaml", root / "params.yaml")
        raw = data or made_up(root / "data/raw", size)
        (root / "data").mkdir(exist_ok=True)
        identify(spec).write(root / "data/encoder.json")
        tables.write_parquet(impressions.none(), root / IMPRESSIONS)
        figures = {}
        stages = _stages(raw)
        for name in tqdm(stages, desc="scale", unit="stage", disable=None, leave=False):
            figures[name] = measured(f"pipeline.stages.{name}", *stages[name], folder=root)
            if name == "finetune":
                shutil.copytree(root / "models/challenger", root / "models/champion")
    return summary(figures, "as given" if data else size.rows)


def _stages(raw: Path) -> dict[str, list[Path | str]]:
    models = ["models/challenger", "models/ablations"]
    return {
        "preprocess": [raw, "data/prepared"],
        "finetune": ["data/prepared", "data/encoder.json", *models, "reports/training"],
        "evaluate": ["data/prepared", IMPRESSIONS, *models, "models/none", "reports"],
        "recommend": ["data/prepared", "models/champion", "recommendations/top_k.parquet"],
    }


def summary(figures: dict[str, dict[str, float]], rows: int | str) -> Json:
    ratios = {
        f"{name}_of_its_minutes": figures[name]["wall_seconds"] / 60 / most
        for name, most in MOST_MINUTES.items()
    }
    ratios["finetune_of_its_memory"] = figures["finetune"]["peak_gib"] / MOST_GIB
    return {
        "name": "scale",
        "conditions": {"rows": rows, "cpus": os.cpu_count()},
        "figures": figures,
        "ratios": ratios,
        "findings": [
            f"{name}: {used['wall_seconds'] / 60:.1f} minutes, {used['peak_gib']:.1f} GiB at most"
            for name, used in figures.items()
        ],
    }


def made_up(folder: Path, size: Size) -> Path:
    """A folder like data/raw."""
    generator = np.random.default_rng(SEED)
    topic = generator.integers(0, TOPICS, size.items)
    by_topic = np.argsort(topic, kind="stable")
    first = np.searchsorted(topic[by_topic], np.arange(TOPICS + 1))
    _write_items(folder, topic, generator)
    own = generator.integers(0, TOPICS, (size.users, TOPICS_A_USER))
    user = (size.users * generator.random(size.rows) ** 1.5).astype(int)
    chosen = own[user, generator.integers(0, TOPICS_A_USER, size.rows)]
    there = np.diff(first)[chosen]
    place = (there * generator.random(size.rows) ** 2).astype(int)  # some are taken more than others
    item = by_topic[np.minimum(first[chosen] + place, size.items - 1)]
    ends = START + pd.Timedelta(days=DAYS)
    moment = pd.to_datetime(
        np.sort(generator.integers(START.value, ends.value, size.rows)) // 1_000, unit="us", utc=True
    )
    rows = pd.DataFrame(
        {
            tables.USER: pd.Series([f"u{number}" for number in user], dtype="str"),
            tables.ITEM: pd.Series([f"i{number}" for number in item], dtype="str"),
            tables.TIME: pd.Series(moment).astype(tables.MOMENT),
            tables.EVENT: pd.Series("rating", index=range(size.rows), dtype="str"),
            tables.VALUE: generator.integers(3, 6, size.rows).astype(np.float64),
            tables.TEXT: pd.Series(None, index=range(size.rows), dtype="str"),
        }
    )
    for month, part in rows.groupby(rows[tables.TIME].dt.strftime("%Y-%m")):
        tables.write_parquet(part, folder / "interactions" / f"month={month}" / "part-0.parquet")
    (folder / "manifest.json").write_text(f'{{"as_of": "{ends.isoformat()}", "content_hash": "0"}}')
    return folder


def _write_items(folder: Path, topic: np.ndarray, generator: np.random.Generator) -> None:
    names = generator.permutation(_words(TOPICS * VOCABULARY)).reshape(TOPICS, VOCABULARY)
    drawn = names[topic[:, None], generator.integers(0, VOCABULARY, (len(topic), WORDS))]
    never = pd.Series(pd.NaT, index=range(len(topic)), dtype=tables.MOMENT)
    items = pd.DataFrame(
        {
            tables.ITEM: pd.Series([f"i{number}" for number in range(len(topic))], dtype="str"),
            tables.TITLE: pd.Series([" ".join(row[:3]) for row in drawn], dtype="str"),
            tables.TEXT: pd.Series([" ".join(row[3:]) for row in drawn], dtype="str"),
            tables.CATEGORIES: [[f"topic {number % 20}"] for number in topic],
            tables.AVAILABLE_FROM: never,
            tables.AVAILABLE_UNTIL: never,
        }
    )
    tables.write_parquet(items, folder / "items.parquet")


def _words(most: int) -> np.ndarray:
    """The most frequent words of three letters and more."""
    described = pd.read_parquet(ifdb.FILES[1], columns=[tables.TEXT])[tables.TEXT].dropna().str.lower()
    counted = Counter(word for text in described for word in re.findall("[a-z]{3,}", text))
    return np.array([word for word, _ in counted.most_common(most)])
