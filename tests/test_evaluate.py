"""The stage on a tiny world: what it writes can be computed again by whoever has the tables."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import toy_log
from constant import ConstantScorer

from pipeline.data import impressions, tables
from pipeline.data.histories import Points, load_prepared
from pipeline.documents.evaluation import Evaluation
from pipeline.documents.model import Card
from pipeline.documents.promotion import Model
from pipeline.evaluation import outputs
from pipeline.evaluation import slices as slices_module
from pipeline.models.recommender import FORMAT
from pipeline.params import Evaluate, Params
from pipeline.stages import evaluate as stage
from pipeline.stages import preprocess
from pipeline.stages.decide_promotion import decide_promotion

NAMES = [
    "challenger", "champion", "without_text", "frozen_text", "frozen_state", "fine_tuned_encoder",
    "popularity", "recent_popularity", "item_knn", "ease", "ials", "content", "frozen_encoder",
]  # fmt: skip
SLICES = ["all", "warm", "cold_items", "cold_users", "empty_history"]
FIT_END = "2020-01-05T00:00:00+00:00"


class Taste:
    """Stands in for a trained model: knows that items of one parity belong together."""

    def __init__(self, name: str, sharpness: float, lacks: str | None = None) -> None:
        self.name, self.sharpness, self.lacks = name, sharpness, lacks

    text = np.eye(tiny.ITEMS, 7, dtype=np.float32)
    version = "v1"

    def with_state(self, until: int, name: str) -> "Taste":
        return Taste(name, self.sharpness / 2)

    def sharing(self, other: "Taste") -> "Taste":
        return self

    def candidates(self, points: Points) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if self.lacks:
            raise KeyError(self.lacks)
        side = np.where(np.arange(tiny.ITEMS) % 2, 1, -1)
        noise = np.random.default_rng(len(self.name)).random(tiny.ITEMS)
        for chunk in points.chunks(50):
            taste = np.sign(chunk.weights(tiny.ITEMS) @ side)
            scores = (taste[:, None] * side * self.sharpness + noise).astype(np.float32)
            scores[:, 3] = -np.inf
            yield np.broadcast_to(np.arange(tiny.ITEMS, dtype=np.int32), scores.shape), scores

    def live_features(self, _: Points, items: np.ndarray, names: list[str]) -> np.ndarray:
        return np.zeros((*items.shape, len(names)), np.float32)

    def reasons(self, points: Points, top: np.ndarray) -> list[list[list[str]]]:
        return [[["same taste"] for item in row if item >= 0] for row in top]


SHARPNESS = {"challenger": 3.0, "without_text": 0.5, "frozen_text": 0.2, "champion": 1.0}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    tiny.raw(folder / "raw")
    tiny.params(folder / "params.yaml", folder / "encoder")
    preprocess.main(folder / "raw", folder / "prepared", folder / "params.yaml")
    return folder


def trained(folder: Path) -> Path:
    """`folder` with what finetune leaves in reports/training."""
    training = folder / "reports" / "training"
    training.mkdir(parents=True)
    (training / "summary.json").write_text('{"encoder": "tiny", "seconds": 1.5}')
    (training / "curves.csv").write_text("phase,step,metric,value\nscorer,1,loss,0.4\nscorer,2,loss,0.3\n")
    return folder


def run(
    world: Path,
    folder: Path,
    champion: str | None = None,
    lacks: str | None = None,
    **card_of_champion: object,
) -> dict[str, Any]:
    """The stage in `folder`, with a champion of this name in its card if one is given."""
    named = {"challenger": "challenger", "champion": champion}
    named |= {f"ablations/{name}": name for name in ("without_text", "frozen_text")}
    for model, name in named.items():
        path = folder / "models" / model / "model.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if name is not None:
            card = {"format": FORMAT, "fit_end": FIT_END, "name": name}
            card |= {"training": {"challenger_validation_ndcg@10": 0.5}}
            path.write_text(json.dumps(card | (card_of_champion if model == "champion" else {})))
    models = [folder / "models" / name for name in ("challenger", "ablations", "champion")]

    def load(
        folder: Path, items: object, log: object, name: str = "challenger", delay_seconds: float = 0
    ) -> Taste:
        return Taste(name, SHARPNESS[name], lacks if name == "champion" else None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage.Recommender, "load", load)
        patch.setattr(
            stage, "frozen_vectors", lambda ablations, items: np.eye(len(items), 5, dtype=np.float32)
        )
        stage.main(
            world / "prepared",
            world / "raw/impressions.parquet",
            *models,
            folder / "reports",
            world / "params.yaml",
        )
    return json.loads((folder / "reports/evaluation.json").read_text())


@pytest.fixture(scope="module")
def reports(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run with a champion and training curves wrote."""
    folder = trained(tmp_path_factory.mktemp("evaluated"))
    run(world, folder, champion="older")
    return folder / "reports"


def test_what_a_service_showed_is_told_and_compared(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "world")
    points = pd.read_parquet(world / "prepared/test.parquet")
    rows = [
        (
            str(number),
            point.timestamp,
            point.user_id,
            "v1",
            "champion",
            rank,
            f"i{rank:02}",
            0.1,
            chance,
            "v1",
        )
        for number, point in enumerate(points.itertuples())
        for rank, chance in ((4, 1.0), (5, 0.25), (6, 0.5))
    ]
    shown = pd.DataFrame(rows, columns=list(impressions.TYPES)[:-2])
    shown["event"], shown["value"] = np.where(shown["rank"] == 5, "click", None), np.nan
    tables.write_parquet(shown.astype(impressions.TYPES), tmp_path / "world/raw/impressions.parquet")
    told = run(tmp_path / "world", trained(tmp_path / "evaluated"), champion="older")
    assert told["satisfaction"]["lists"] == len(points)
    assert told["satisfaction"]["likes"] == 1
    assert told["satisfaction"]["by_version"]["v1"]["click_through"] == 1
    found = told["comparison"]["off_policy"]
    assert (found["answer"], found["taken"]) == ("investigate", 0.5)
    assert found["places"] % 2 == 0
    assert found["low"] <= found["difference"] <= found["high"]
    page = (tmp_path / "evaluated/reports/evaluation.html").read_text()
    assert "What people made of the lists" in page


@pytest.fixture(scope="module")
def figures(reports: Path) -> dict[str, Any]:
    return json.loads((reports / "evaluation.json").read_text())


def test_evaluation_has_every_model_slice_and_figure_of_the_contract(figures: dict[str, Any]) -> None:
    assert {"as_of", "fit_end", "k", "split", "models", "paired"} <= set(figures)
    assert list(figures["models"]) == NAMES
    assert list(figures["paired"]) == NAMES[1:]
    assert figures["k"] == 20
    for slices in figures["models"].values():
        assert list(slices) == SLICES
        for found in slices.values():
            wanted = {"users", "points", "ndcg@10_low", "ndcg@10_high", "coverage@10"}
            wanted |= {
                f"{metric}@{k}" for metric in ("ndcg", "precision", "recall", "mrr") for k in (5, 10, 20)
            }
            assert wanted <= set(found)
            if found["points"]:
                assert found["ndcg@10_low"] <= found["ndcg@10"] <= found["ndcg@10_high"]


def test_figures_can_be_recomputed_from_the_tables(
    world: Path, reports: Path, figures: dict[str, Any]
) -> None:
    points = pd.read_parquet(world / "prepared/test.parquet").set_index("point_id")
    lists = pd.read_parquet(reports / "ranked_lists.parquet")
    train = pd.read_parquet(world / "prepared/train.parquet")
    cold_item = ~points["item_id"].isin(train["item_id"])
    cold_user = ~points["user_id"].isin(train["user_id"])
    masks = {"all": cold_item | True, "warm": ~cold_item & ~cold_user}
    masks |= {"cold_items": cold_item, "cold_users": cold_user}
    for name, table in lists.groupby("model"):
        hits = table.merge(points, on=["point_id", "item_id"]).set_index("point_id")["rank"]
        rank = hits.reindex(points.index)
        for slice_name, mask in masks.items():
            found = figures["models"][name][slice_name]
            assert found["points"] == mask.sum()
            for k in (5, 10, 20):
                hit = rank <= k
                values = {
                    "ndcg": (1 / np.log2(1 + rank)).where(hit, 0),
                    "recall": hit.astype(float),
                    "precision": hit / k,
                    "mrr": (1 / rank).where(hit, 0),
                }
                for metric, value in values.items():
                    mean = value[mask].groupby(points["user_id"][mask]).mean().mean()
                    if mask.any():
                        assert found[f"{metric}@{k}"] == pytest.approx(mean, abs=1e-12), (name, slice_name)
                    else:
                        assert found[f"{metric}@{k}"] is None


def test_every_model_lists_as_many_items_as_there_are_outside_the_history(world: Path, reports: Path) -> None:
    data = load_prepared(world / "prepared")
    candidates = tiny.ITEMS - np.diff(data.test.weights(tiny.ITEMS).indptr)
    wanted = pd.Series(np.minimum(20, candidates), index=data.test_point_ids)
    lists = pd.read_parquet(reports / "ranked_lists.parquet")
    assert list(lists.columns) == ["model", "point_id", "rank", "item_id", "score"]
    assert list(lists["model"].unique()) == NAMES
    sizes = lists.groupby(["model", "point_id"]).size().unstack("model")
    for name in NAMES:
        assert (sizes[name] == wanted[sizes.index]).all()
    ranks = lists.groupby(["model", "point_id"])["rank"]
    assert (ranks.max() == ranks.size()).all()
    assert not lists.duplicated(["model", "point_id", "item_id"]).any()


def test_unscored_items_are_listed_without_a_score(reports: Path) -> None:
    lists = pd.read_parquet(reports / "ranked_lists.parquet")
    ours = lists[lists["model"] == "challenger"]
    assert ours.loc[ours["item_id"] == "i03", "score"].isna().all()
    assert ours.loc[ours["item_id"] != "i03", "score"].notna().all()


def test_paired_is_challenger_minus_the_model(figures: dict[str, Any]) -> None:
    for name, pair in figures["paired"].items():
        ours, theirs = (figures["models"][one]["all"]["ndcg@10"] for one in ("challenger", name))
        assert pair["ndcg@10"] == pytest.approx(ours - theirs)
        assert pair["low"] <= pair["ndcg@10"] <= pair["high"]
        assert figures["paired_slices"][name]["all"] == pair


def test_it_says_what_was_evaluated_and_how_it_was_tuned(world: Path, figures: dict[str, Any]) -> None:
    summary = json.loads((world / "prepared/summary.json").read_text())
    assert figures["as_of"] == summary["as_of"]
    assert figures["fit_end"] == FIT_END  # the challenger's card says to what it was fitted
    assert figures["settings_chosen_on"] == "validation"
    assert set(figures["tuned"]["ease"]) == {
        "positives_only",
        "regularisation",
        "half_life",
        "disliked_weight",
    }
    assert 0 <= figures["validation"]["ease"]["ndcg@10"] <= 1
    assert figures["split"]["test"]["points"] == figures["models"]["ease"]["all"]["points"]
    assert (figures["training"]["encoder"], figures["training"]["seconds"]) == ("tiny", 1.5)
    assert set(figures["seconds"]) == set(NAMES)
    scores = {name: figures["models"][name]["all"]["ndcg@10"] for name in NAMES[5:]}
    assert scores[figures["best_baseline"]] == max(scores.values())


def test_metrics_are_ten_flat_numbers(reports: Path, figures: dict[str, Any]) -> None:
    metrics = json.loads((reports / "metrics.json").read_text())
    assert len(metrics) == 10
    assert all(value is None or isinstance(value, int | float) for value in metrics.values())
    assert metrics["ndcg@10"] == pytest.approx(figures["models"]["challenger"]["all"]["ndcg@10"], abs=1e-6)
    pair = figures["paired"][figures["best_baseline"]]
    assert metrics["gain_over_best_baseline_low"] == pytest.approx(pair["low"], abs=1e-6)


def test_page_shows_curves_and_ten_users(reports: Path) -> None:
    page = (reports / "evaluation.html").read_text()
    assert "same taste" in page
    assert "thing number" in page
    assert "scorer" in page


def test_nothing_unfinished_stays_behind(reports: Path) -> None:
    wanted = {"evaluation.json", "evaluation.html", "metrics.json", "ranked_lists.parquet", "training"}
    assert {path.name for path in reports.iterdir()} == wanted


def test_another_run_writes_the_same(
    world: Path, reports: Path, figures: dict[str, Any], tmp_path: Path
) -> None:
    again = run(world, trained(tmp_path), champion="older")
    clock = {"seconds": 0, "ms_per_list": 0}
    assert again | clock == figures | clock
    one, two = (folder / "ranked_lists.parquet" for folder in (reports, tmp_path / "reports"))
    assert one.read_bytes() == two.read_bytes()


def test_without_a_champion_there_is_none_in_the_evaluation(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        figures = run(world, tmp_path)
    assert "champion" not in figures["models"]
    assert "champion" not in figures["paired"]
    assert figures["validation"]["challenger"] == {"ndcg@10": 0.5}
    assert "best baseline" in caplog.messages[-1]
    shown = capsys.readouterr().err
    assert all(name in shown for name in figures["models"])


def test_a_champion_that_is_the_challenger_shares_its_lists(world: Path, tmp_path: Path) -> None:
    figures = run(world, tmp_path, champion="challenger")
    assert figures["models"]["champion"] == figures["models"]["challenger"]
    assert figures["paired"]["champion"] == {"ndcg@10": 0.0, "low": 0.0, "high": 0.0}


# The champion in the comparison that the gate reads


def points_of(world: Path) -> pd.Series:
    return pd.read_parquet(world / "prepared/test.parquet")["user_id"].value_counts()


def user_means(world: Path, reports: Path, name: str) -> pd.Series:
    """nDCG@10 of each user."""
    points = pd.read_parquet(world / "prepared/test.parquet")
    lists = pd.read_parquet(reports / "ranked_lists.parquet")
    hits = (
        lists[lists["model"] == name].merge(points, on=["point_id", "item_id"]).set_index("point_id")["rank"]
    )
    rank = hits.reindex(points["point_id"]).to_numpy()
    gain = np.where(rank <= 10, 1 / np.log2(1 + rank), 0)
    return pd.Series(gain).groupby(points["user_id"]).mean()


def test_points_are_new_to_both_models(world: Path, reports: Path, figures: dict[str, Any]) -> None:
    assert figures["points_after"] == FIT_END
    assert figures["not_comparable"] is None
    assert set(figures["artifact_hash"]) == {"challenger", "champion"}
    assert len(figures["artifact_hash"]["champion"]) == 64
    found, models = figures["comparison"], figures["models"]
    assert (found["points"], found["points_left_out"]) == (models["champion"]["all"]["points"], 0)
    assert list(found["slices"]) == SLICES
    counts = points_of(world)
    gains = {}
    for name in ("challenger", "champion", "recent_popularity"):
        means = user_means(world, reports, name)
        gains[name] = np.average(means, weights=np.sqrt(counts[means.index]))
    everywhere = found["slices"]["all"]
    assert everywhere["champion"] == pytest.approx(gains["champion"])
    assert everywhere["ndcg@10"] == pytest.approx(gains["challenger"] - gains["champion"])
    assert found["champion"]["coverage@10"] == models["champion"]["all"]["coverage@10"]
    over = found["champion_over"]["recent_popularity"]
    assert over["ndcg@10"] == pytest.approx(gains["champion"] - gains["recent_popularity"])
    assert figures["ms_per_list"]["challenger"] > 0


def test_a_newer_champion_is_compared_only_at_points_that_it_does_not_know(
    world: Path, reports: Path, figures: dict[str, Any], tmp_path: Path
) -> None:
    points = pd.read_parquet(world / "prepared/test.parquet").sort_values("timestamp")
    end = points["timestamp"].iloc[len(points) // 2]
    found = run(world, trained(tmp_path), champion="newer", fit_end=end.isoformat())
    later = points[points["timestamp"] > end]
    assert 0 < len(later) < len(points)
    assert found["points_after"] == end.isoformat()
    assert found["comparison"]["points"] == len(later)
    assert found["comparison"]["users"] == later["user_id"].nunique()
    assert found["comparison"]["points_left_out"] == len(points) - len(later)
    assert found["models"]["champion"]["all"]["points"] == len(later)
    assert found["models"]["challenger"] == figures["models"]["challenger"]
    lists = pd.read_parquet(tmp_path / "reports" / "ranked_lists.parquet")
    hits = lists.merge(later, on=["point_id", "item_id"])
    means = {}
    for name in ("challenger", "champion"):
        rank = hits[hits["model"] == name].set_index("point_id")["rank"].reindex(later["point_id"])
        gain = (1 / np.log2(1 + rank)).where(rank <= 10, 0).to_numpy()
        means[name] = pd.Series(gain).groupby(later["user_id"].to_numpy()).mean().mean()
    wanted = means["challenger"] - means["champion"]
    assert found["paired"]["champion"]["ndcg@10"] == pytest.approx(wanted)
    assert list(found["models"]) == NAMES


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 1}, f"its format is 1, this code reads {FORMAT}"),
        ({"lacks": "sequence"}, "its scorer was told 'sequence', which this code does not compute"),
    ],
)
def test_a_champion_that_cannot_be_read_is_left_out(
    world: Path, tmp_path: Path, changes: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = run(world, tmp_path, champion="older", **changes)
    assert found["not_comparable"] == said
    assert "champion" not in found["models"]
    assert "comparison" not in found
    assert f"the champion is left out, {said}" in caplog.text
    settings = Params.load(world / "params.yaml").decide_promotion
    hashes = found["artifact_hash"]
    model = {"fit_end": FIT_END, "features": ["ease"], "mib": 1.0}
    one, other = (Model.of(model | {"artifact_hash": hashes[name]}) for name in ("challenger", "champion"))
    verdict = decide_promotion(Evaluation.of(found), one, other, settings)
    text = next(check.text for check in verdict.checks if check.name == "comparable")
    assert text == f"not comparable with the champion: {said}"


def test_users_groups_become_slices(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices_module, "GROUP_USERS", 2)
    people = pd.DataFrame({"user_id": [f"u{n:02}" for n in range(tiny.USERS)]})
    people["colour"] = ["red", "red", "red", "blue"] * (tiny.USERS // 4) + ["red"] * (tiny.USERS % 4)
    shutil.copytree(world, tmp_path / "world")
    shutil.copy(world / "params.yaml", tmp_path / "world" / "params.yaml")
    people.to_parquet(tmp_path / "world" / "prepared" / "users.parquet", index=False)
    found = run(tmp_path / "world", tmp_path, champion="older")
    points = pd.read_parquet(world / "prepared/test.parquet")
    red = points["user_id"].map(people.set_index("user_id")["colour"]) == "red"
    users = points[red]["user_id"].nunique()
    assert "group:colour=red" in set(found["comparison"]["slices"]) - set(SLICES)
    assert found["models"]["ease"]["group:colour=red"]["points"] == red.sum()
    assert found["comparison"]["slices"]["group:colour=red"]["users"] == users
    assert "group:colour=red" in (tmp_path / "reports" / "evaluation.html").read_text()
    fair = found["fairness"]
    assert set(fair["exposure"]) == {"popularity", "age", "categories"}
    assert set(fair["exposure"]["categories"]["awrf"]) == {"challenger", "champion", found["best_baseline"]}
    assert all(row["after"] >= row["before"] for row in fair["floors"])
    assert {row["kind"] for row in found["comparison"]["fairness"]} == {"exposure", "calibration"}


# The pure parts


def test_points_after_is_the_later_fit_end() -> None:
    cards = [Card.of({"fit_end": end}) for end in ("1998-03-01", "1998-02-01T00:00:00.000001Z")]
    assert stage.later_fit_end(cards) == 888_710_400_000_000
    assert stage.later_fit_end(cards[1:]) == 886_291_200_000_001
    assert stage.later_fit_end([Card()]) is None


def pair(low: float, high: float) -> dict[str, Any]:
    paired = {"ease": {"ndcg@10": (low + high) / 2, "low": low, "high": high}}
    return {"best_baseline": "ease", "paired": paired, "models": {}}


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.004, 0.020, "challenger beats the best baseline (ease) by +0.0120 [+0.0040, +0.0200] nDCG@10"),
        (-0.004, 0.020, "challenger does not surely beat the best baseline (ease): +0.0080"),
        (-0.02, -0.01, "challenger does not beat the best baseline (ease), it is worse: -0.0150"),
    ],
)
def test_verdict_says_who_wins(low: float, high: float, said: str) -> None:
    assert outputs.verdict(pair(low, high)).startswith(said)


def test_verdict_without_a_baseline() -> None:
    nothing = {"best_baseline": None, "paired": {}, "models": {}}
    assert outputs.verdict(nothing) == "the challenger was not compared with a baseline"


def test_json_has_null_for_nan_and_a_word_for_infinity() -> None:
    value = {"a": np.float64("nan"), 1: [np.int32(2), float("inf")], "b": {"c": True}}
    assert outputs.as_json(value) == {"a": None, "1": [2, "infinite"], "b": {"c": True}}


def test_a_catalogue_smaller_than_k_and_one_point_are_enough() -> None:
    data = toy_log.prepared(list("ab"), [("u", "a", 0)], [("u", "b", 1)], [("v", "b", 2)])
    scorers = {"challenger": ConstantScorer("challenger", np.array([0.0, 1.0]))}
    result = stage.evaluate(
        data, scorers, Evaluate(k=20, bootstrap_samples=100, live_delay_seconds=0), seed=1
    )
    everywhere = result.figures["models"]["challenger"]["all"]
    assert (everywhere["ndcg@10"], everywhere["users"]) == (1, 1)
    assert result.figures["best_baseline"] is None
    assert result.figures["diversity_of"] is None
    assert np.isnan(everywhere["diversity@10"])
    assert outputs.headline(result.figures)["gain_over_best_baseline"] is None
