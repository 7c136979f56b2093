"""Of reports/evaluation.json: fairness to users and items (pipeline/evaluation/fairness.py)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.documents.base import Number, Part


class Ends(Part):
    value: Number = None
    low: Number = None
    high: Number = None
    users: Number = None


class UserGroup(Part):
    """The challenger's nDCG@10 on a group of users, and its gap: less that of everybody else."""

    group: str
    users: Number = None
    points: Number = None
    ndcg: Number = Field(None, validation_alias="ndcg@10", serialization_alias="ndcg@10")
    gap: Number = None
    low: Number = None  # of the gap
    high: Number = None
    p: Number = None  # two-sided, adjusted
    calibration: Number = None  # mean C_KL


class ItemGroup(Part):
    group: str
    items: Number = None  # share of the catalogue
    relevance: Number = None  # share of what users took
    exposure: dict[str, Number] = Field(default_factory=dict)  # model -> share of the attention


class Exposure(Part):
    awrf: dict[str, Ends] = Field(default_factory=dict)  # model -> figure
    groups: list[ItemGroup] = Field(default_factory=list)


class Lost(Part):
    """In what the challenger is less fair than the champion; above 0 something is lost."""

    kind: Literal["users", "exposure", "calibration"]
    name: str  # a group of users, or a way to group items
    users: Number = None
    challenger: Number = None
    champion: Number = None
    lost: Number = None
    low: Number = None
    high: Number = None
    share: Number = None
    p: Number = None  # one-sided, adjusted


class Guessed(Part):
    """How well a group of users can be guessed (pipeline/evaluation/probe.py)."""

    group: str
    users: Number = None  # of the group
    base_rate: Number = None
    auc: Number = None  # from the challenger's lists
    low: Number = None
    high: Number = None
    histories: Number = None  # AUC from what users took
    p: Number = None  # one-sided, adjusted


class Floor(Part):
    """Lists re-ranked so that a group of items gets at least a share of their attention."""

    floor: str
    least: Number = None
    before: Number = None  # the group's share of attention
    after: Number = None
    ndcg: Number = Field(None, validation_alias="ndcg@10", serialization_alias="ndcg@10")  # what it changes
    low: Number = None
    high: Number = None


class Fairness(Part):
    users: list[UserGroup] = Field(default_factory=list)  # worst first
    exposure: dict[str, Exposure] = Field(default_factory=dict)
    calibration: dict[str, Ends] = Field(default_factory=dict)  # model -> C_KL
    floors: list[Floor] = Field(default_factory=list)
    guessed: list[Guessed] = Field(default_factory=list)
