"""data/simulation.json, what the gate asks of a simulation, and reports/simulation.json, all of it."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.documents.base import IF_KNOWN, Count, Document, Number, Part
from pipeline.documents.evaluation import Answer


class Lost(Part):
    """In what the challenger's loop ends worse than the champion's; above 0 something is lost."""

    name: str
    challenger: Number = None  # mean over the second half of the rounds
    champion: Number = None
    lost: Number = None
    low: Number = None
    high: Number = None
    share: Number = None  # lost, of what the measure is compared with
    p: Number = None  # one-sided, adjusted for the number of measures


class Explored(Part):
    """The challenger's loop with its last places drawn by learned weights, against one with plain draws."""

    answer: Answer
    weights: dict[str, Number]  # of pipeline.evaluation.exploration.COLUMNS
    learned: Number = None  # items taken a place
    plain: Number = None
    difference: Number = None
    low: Number = None
    high: Number = None
    measures: list[Lost] = Field(default_factory=list)  # `champion`: the loop with plain draws


class LongTerm(Document):
    """Without content: nothing was simulated."""

    remedy: ClassVar[str] = "run `evergreen simulate`"

    challenger: str | None = None  # artifact_hash
    champion: str | None = None
    rounds: Count = 0  # retrainings of each loop
    replications: Count = 0
    measures: list[Lost] = Field(default_factory=list)
    exploration: Explored | None = IF_KNOWN  # where the evaluation has a policy that it calls better


class Curve(Part):
    """A measure, round by round, with a 95 % interval over replications."""

    mean: list[Number]
    low: list[Number]
    high: list[Number]


class Calibration(Part):
    """How far simulated choices are from the data's, and the data's two halves from one another."""

    name: str
    kind: str  # of distance
    simulated: Number = None
    data: Number = None
    distance: Number = None
    bound: Number = None  # mean distance of the halves
    largest: Number = None  # largest distance of the halves
    within: bool


class Simulation(LongTerm):
    seed: Count
    users: Count
    items: Count
    new_items: Count
    choices: Number  # a user and round
    k: Count
    seconds: Number
    behaviour: dict[str, Number]
    choice: dict[str, Number]  # fitted weights
    calibration: list[Calibration]
    curves: dict[str, dict[str, Curve]]  # loop -> measure

    @property
    def for_the_gate(self) -> LongTerm:
        return LongTerm.of({name: getattr(self, name) for name in LongTerm.model_fields})
