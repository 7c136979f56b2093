"""Which further signals stay: told by samples whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import toy_log

from pipeline.evaluation import paid
from pipeline.models.kinds import Kinds
from pipeline.models.modalities import Modality
from pipeline.training.sampling import Sample
from pipeline.training.worth import worthy

NAMES = ["ease_5", "vector_look_5", "vector_noise_5"]


def kinds(*names: str) -> Kinds:
    vectors = np.eye(2, dtype=np.float32)
    plain = Kinds.of(toy_log.catalogue("ab"))
    return replace(plain, modalities=tuple(Modality(name, vectors) for name in names))


def sampled(generator: np.random.Generator, points: int, places: int = 30) -> Sample:
    """What is taken follows the first two columns; it stands first."""
    features = generator.normal(size=(points, places, 3))
    chance = np.exp(features[:, :, 0] + features[:, :, 1])
    for point in range(points):
        taken = generator.choice(places, p=chance[point] / chance[point].sum())
        features[point, [0, taken]] = features[point, [taken, 0]]
    return Sample(
        features.astype(np.float16), np.zeros((points, places), np.float32), np.ones(points, np.float32)
    )


def test_what_is_taken_for_it_stays_and_noise_goes() -> None:
    generator = np.random.default_rng(1)
    learned, judged, users = sampled(generator, 300), sampled(generator, 300), np.arange(300) % 60
    found, told = worthy(kinds("look", "noise"), NAMES, learned, judged, users, 1)
    assert list(found.further) == ["look"]
    assert told["look"]["kept"]
    assert told["look"]["errors"] > 4
    assert told["look"]["ndcg@10"] > 0.05
    assert not told["noise"]["kept"]


def test_a_modality_whose_name_goes_on_in_anothers_is_judged_alone() -> None:
    """`image_vector` beside `image_clip_vector`: what one brings is not what the other does."""
    generator = np.random.default_rng(1)
    learned, judged, users = sampled(generator, 300), sampled(generator, 300), np.arange(300) % 60
    names = ["ease_5", "vector_image_clip_5", "vector_image_5"]
    found, told = worthy(kinds("image", "image_clip"), names, learned, judged, users, 1)
    assert list(found.further) == ["image_clip"]
    assert told["image_clip"]["kept"]
    assert not told["image"]["kept"]


def test_a_modality_called_like_another_signal_is_judged_beside_it() -> None:
    """`graph_vector` (vectors of a graph's nodes) beside the graph itself."""
    generator = np.random.default_rng(1)
    learned, judged, users = sampled(generator, 300), sampled(generator, 300), np.arange(300) % 60
    lists = {"graph_entities": [["x"], ["x"]], "graph_relations": [["of"], ["of"]]}
    both = replace(kinds("graph"), graph=Kinds.of(toy_log.catalogue("ab", **lists)).graph)
    for names, kept in (
        (["ease_5", "vector_graph_5", "graph_5"], "graph_vector"),
        (["ease_5", "graph_5", "vector_graph_5"], "graph"),
    ):
        found, told = worthy(both, names, learned, judged, users, 1)
        assert set(told) == {"graph", "graph_vector"}
        assert list(found.further) == [kept]
    assert paid.kind_of("vector_graph_5") != paid.kind_of("graph_5")


def test_of_few_users_nothing_is_sure() -> None:
    generator = np.random.default_rng(1)
    learned, judged = sampled(generator, 300), sampled(generator, 300)
    found, told = worthy(kinds("look"), NAMES[:2], learned, judged, np.arange(300) % 19, 1)
    assert not found.further
    assert told["look"] == {"nats": 0, "errors": 0, "ndcg@10": 0, "kept": False}


def test_without_further_signals_there_is_nothing_to_judge() -> None:
    nothing = Sample(np.zeros((0, 1, 0), np.float16), np.zeros((0, 1), np.float32), np.zeros(0, np.float32))
    plain = kinds()
    found, told = worthy(plain, [], nothing, nothing, np.zeros(0, int), 1)
    assert (found.further, told) == ({}, {})
