"""Settings and files for the tests of sources and of collect."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import toy

from pipeline.data.tables import read_parquet
from pipeline.file_settings import Files
from pipeline.params import Collect
from pipeline.stages import collect

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("EVERGREEN_DATA") or ROOT.parent / "shared" / "data")


def settings(**changes: Any) -> Collect:
    """The committed section `collect` with some keys changed, those of `files` one by one."""
    section = toy.committed_params()["collect"]
    section["files"] |= changes.pop("files", {})
    return Collect.model_validate({**section, **changes})


def of_files(interactions: Path | str, **changes: Any) -> Collect:
    """Settings of the source `files`; those of its own section go where they belong."""
    inner = {key: changes.pop(key) for key in Files.model_fields if key in changes}
    inner = {key: str(value) if isinstance(value, Path) else value for key, value in inner.items()}
    return settings(source="files", files={"interactions": str(interactions), **inner}, **changes)


def written(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
    return path


def params_file(folder: Path, section: Collect) -> Path:
    """A params.yaml with this section and the committed rest."""
    params = toy.committed_params() | {"collect": section.model_dump(mode="json")}
    return toy.write_params(folder / "params.yaml", params)


def run(folder: Path, section: Collect) -> Path:
    """Run the stage; the folder of its outputs."""
    collect.main(folder / "raw", params_file(folder, section))
    return folder / "raw"


def interactions(raw: Path) -> pd.DataFrame:
    return read_parquet(raw / "interactions", "interactions")


def items(raw: Path) -> pd.DataFrame:
    return read_parquet(raw / "items.parquet", "items").set_index("item_id")


def rejected(raw: Path) -> pd.DataFrame:
    return read_parquet(raw / "rejected.parquet")
