"""The source `ifdb`: works of interactive fiction, with descriptions, that readers played or wished for.

105,635 rows of 3,587 readers and 9,873 works, 2007-12 to 2026-06, committed beside this module: an extract of
IFDB, the Interactive Fiction Database, CC BY 3.0 US (`_ifdb/LICENSE.md`). Rows have no value, so each of them
is a success, whatever preprocess.positive.min_value says. Works become available at their publication, of
which often the year alone is known (then its first day); their tags are those of 2026.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from pipeline.data import tables
from pipeline.params import Collect
from pipeline.sources import Tables, digest_of

CREDIT = "Works and descriptions: IFDB, the Interactive Fiction Database, ifdb.org, CC BY 3.0 US"
FOLDER = Path(__file__).parent / "_ifdb"
FILES = [FOLDER / "interactions.parquet", FOLDER / "items.parquet"]


def read(settings: Collect) -> Tables:
    interactions, items = (pq.ParquetFile(path).read().to_pandas() for path in FILES)
    start = items[tables.AVAILABLE_FROM]
    items[tables.AVAILABLE_FROM] = start = start.mask(start.str.startswith("1-"))  # year 1: unknown
    items[tables.YEAR] = pd.to_numeric(start.str[:4]).astype("Int64")
    return Tables([interactions], items)


def fingerprint(settings: Collect) -> str:
    return digest_of(FILES)
