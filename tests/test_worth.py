"""Which further signals stay: told by samples whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import toy_log

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
