"""Further vectors of items: read and checked, compared as texts are, found where taste follows them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collecting import ROOT, items, of_files, run, written

from pipeline.errors import DataError
from pipeline.models.modalities import Modality, alike

ROWS = ("u,a,1580472000", "u,b,1580472001", "u,c,1580472002")


def collected(tmp_path: Path, *things: str, header: str = "item_id,image_vector") -> Path:
    rows = written(tmp_path / "x.csv", "user_id,item_id,timestamp", *ROWS)
    return run(tmp_path, of_files(rows, items=written(tmp_path / "items.csv", header, *things)))


@pytest.mark.parametrize(
    ("one", "other"),
    [("0.5|-1|2", "3 4 5e-1"), ('"[0.5, -1, 2]"', "[3. 4. 0.5]"), ('"0.5, -1, 2"', "3;4;.5")],
)
def test_vectors_in_text(tmp_path: Path, one: str, other: str) -> None:
    raw = collected(tmp_path, f"a,{one}", f"b,{other}", "c,", "d,0|0|0")
    found = items(raw)["image_vector"]
    assert found.loc["a"] == [0.5, -1, 2]
    assert found.loc["b"] == [3, 4, 0.5]
    assert found.loc[["c", "d"]].isna().all()  # zeros point nowhere
    assert pq.read_schema(raw / "items.parquet").field("image_vector").type == pa.list_(pa.float32())


def test_vectors_of_parquet_and_json_lines(tmp_path: Path) -> None:
    cells = [{"item_id": "a", "sound_vector": [1.5, 2.0]}, {"item_id": "b", "sound_vector": None}]
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "items.parquet")
    written(tmp_path / "items.jsonl", *map(json.dumps, cells))
    rows = written(tmp_path / "x.csv", "user_id,item_id,timestamp", *ROWS)
    for name in ("items.parquet", "items.jsonl"):
        raw = run(tmp_path / name.replace(".", "-"), of_files(rows, items=tmp_path / name))
        assert items(raw)["sound_vector"].loc["a"] == [1.5, 2.0]


@pytest.mark.parametrize("wrong", ["1|2", "1|2|x", "1|2|inf", "tall", '"0,1|2"'])
def test_a_cell_that_is_no_such_vector_is_refused_by_name(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(
        DataError, match=r"items, column image_vector: item 'c' has '.*', not 3 finite numbers"
    ):
        collected(tmp_path, "a,1|2|3", "b,3|4|5", f"c,{wrong}")


def test_the_reason_names_the_modality_and_the_item_that_are_nearest() -> None:
    image = Modality("image", np.array([[1, 0], [0, 1], [0.8, 0.6], [0, 0]], np.float32))
    sound = Modality("sound", np.array([[1, 0], [0.6, 0.8], [0, 1], [0, 0]], np.float32))
    assert alike([image, sound], np.array([0, 1]), 2, 0.3) == ("image", 0)  # .8, .6; of sound 0, .8
    assert alike([sound], np.array([0, 1]), 2, 0.3) == ("sound", 1)
    assert alike([image, sound], np.array([0, 1]), 3, 0.3) is None  # which has no vector
    assert alike([image], np.zeros(0, int), 2, 0.3) is None


@pytest.mark.slow
def test_the_recipe_for_pictures_gives_like_pictures_like_vectors(tmp_path: Path) -> None:
    """What docs/sources.md shows, typed as it stands, over a CLIP of random weights in a folder."""
    from PIL import Image
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    sides = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = CLIPModel(
        CLIPConfig(
            text_config=sides, vision_config={**sides, "image_size": 32, "patch_size": 16}, projection_dim=16
        )
    )
    model.save_pretrained(tmp_path / "clip")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "clip"
    )
    (tmp_path / "shop").mkdir()
    generator, cells = np.random.default_rng(0), ["item_id,picture", "bare,"]
    colours = {"red": (220, 30, 30), "blue": (30, 30, 220)}
    for name, colour in colours.items():
        for number, mode in enumerate(("RGB", "RGBA", "P")):  # with transparency, with a palette
            noise = generator.integers(-25, 26, (40, 50, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            file = tmp_path / "shop" / f"{name}{number}.png"
            Image.fromarray(pixels).convert(mode).save(file)
            cells.append(f"{name}{number},{file}")
    written(tmp_path / "shop" / "products.csv", *cells)
    (recipe,) = re.findall(r"```py\n(.*?)```", (ROOT / "docs" / "sources.md").read_text(), re.S)
    subprocess.run([sys.executable, "-c", recipe], cwd=tmp_path, check=True, capture_output=True)

    rows = written(tmp_path / "x.csv", "user_id,item_id,timestamp", "u,red0,1580472000", "u,bare,1580472001")
    raw = run(tmp_path, of_files(rows, items=tmp_path / "shop" / "products.parquet"))
    found = items(raw)["image_vector"]
    assert not isinstance(found.loc["bare"], list)
    vectors = {name: np.array([found.loc[f"{name}{n}"] for n in range(3)]) for name in colours}
    assert vectors["red"].shape == (3, 16)
    for one, other in (("red", "blue"), ("blue", "red")):
        middle = vectors[one].mean(axis=0)
        within = np.linalg.norm(vectors[one] - middle, axis=1).max()
        assert within < np.linalg.norm(vectors[other] - middle, axis=1).min()
