"""params.yaml: what is wrong with it is told in one line that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.errors import ConfigError
from pipeline.params import Params


def load(folder: Path, **sections: object) -> Params:
    content = yaml.safe_load(Path("params.yaml").read_text()) | sections
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    return Params.load(folder / "params.yaml")


def test_a_section_pasted_whole_names_what_it_lacks_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, preprocess={"positive": {"events": None, "min_value": None}})
    text = str(error.value)
    assert text.count("preprocess") == 1
    assert "repeats" in text
    assert "item_text" in text
    assert "git checkout params.yaml" in text


def test_one_missing_key_is_named_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"recommend\.k: missing"):
        load(tmp_path, recommend={"candidates": 500})


def test_missing_and_unknown_keys_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, evaluate={"kk": 10}, preprocess={})
    assert "evaluate.kk: unknown key" in str(error.value)
    assert "evaluate lacks 3 keys (k, bootstrap_samples" in str(error.value)
    assert "preprocess lacks" in str(error.value)


def test_a_time_that_is_still_to_come_is_refused(tmp_path: Path) -> None:
    text = Path("params.yaml").read_text().replace("as_of: null", 'as_of: "2990-01-01"', 1)
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"collect.as_of: 2990-01-01.* is in the future"):
        Params.load(tmp_path / "params.yaml")


def test_the_pipelines_own_columns_cannot_be_withheld(tmp_path: Path) -> None:
    section = yaml.safe_load(Path("params.yaml").read_text())["preprocess"]
    assert load(tmp_path, preprocess=section | {"never_features": ["owner"]})
    with pytest.raises(ConfigError, match=r"never_features\.1: categories is a column of the contract's own"):
        load(tmp_path, preprocess=section | {"never_features": ["owner", "categories"]})


@pytest.mark.parametrize(
    ("section", "key"),
    [("decide_promotion", "long_term_guard"), ("serve", "exploration"), ("finetune", "epochs")],
)
def test_a_number_is_no_switch(tmp_path: Path, section: str, key: str) -> None:
    given = yaml.safe_load(Path("params.yaml").read_text())[section]
    with pytest.raises(ConfigError, match=rf"{section}\.{key}.* number"):
        load(tmp_path, **{section: given | {key: True}})


def test_a_floor_is_no_switch(tmp_path: Path) -> None:
    given = yaml.safe_load(Path("params.yaml").read_text())["recommend"]
    with pytest.raises(ConfigError, match=r"recommend\.exposure_floors.* number"):
        load(tmp_path, recommend=given | {"exposure_floors": {"popularity": {"lower half": True}}})
