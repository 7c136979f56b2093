"""What people made of a service's lists, as text for the report and the page of runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.evaluation.findings import mapping
from pipeline.pages import MISSING, finite, number, plain

SHARES = ("click_through", "likes", "returns_7_days", "coverage", "diversity")
HEADS = ("Lists", "Clicked through", "Liked", "Came again in 7 days", "Coverage", "Diversity")


def people(evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    """`evaluation` as in evaluation.json; None where no service showed anything."""
    found = mapping(evaluation.get("satisfaction"))
    if not found:
        return None
    versions = sorted(mapping(found.get("by_version")).items())
    rows = versions if len(versions) == 1 else [("all", found), *versions]
    said = (
        _interleaved(mapping(found.get("interleaved"))),
        _off_policy(mapping(mapping(evaluation.get("comparison")).get("off_policy"))),
    )
    return {
        "days": number(found.get("days"), 0),
        "heads": HEADS,
        "rows": [{"name": plain(name, 40), "cells": _cells(mapping(row))} for name, row in rows],
        "said": [text for text in said if text],
    }


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [number(row.get("lists"), 0), *(percent(row.get(name)) for name in SHARES)]


def percent(value: Any) -> str:
    known = finite(value)
    return MISSING if known is None else f"{number(100 * known, 1)} %"


def _ends(found: Mapping[str, Any]) -> str:
    gain, low, high = (number(found.get(name), sign=True) for name in ("difference", "low", "high"))
    return f"{gain} [{low}, {high}]"


def _interleaved(found: Mapping[str, Any]) -> str:
    if not found:
        return ""
    taken = mapping(found.get("taken"))
    lists, users = (number(found.get(name), 0) for name in ("lists", "users"))
    one, other = (plain(found.get(name), 40) for name in ("champion", "challenger"))
    ours, theirs = (number(taken.get(name), 0) for name in ("champion", "challenger"))
    return (
        f"In {lists} lists of {users} users champion {one} and challenger {other} placed items in turns; "
        f"{ours} and {theirs} of these were taken: {_ends(found)} a list, {plain(found.get('answer'), 20)}."
    )


def _off_policy(found: Mapping[str, Any]) -> str:
    if not found:
        return ""
    places, taken = number(found.get("places"), 0), percent(found.get("taken"))
    return (
        f"Of {places} places left to chance {taken} were taken. By the challenger's chances it would have "
        f"been {_ends(found)} items a place more: {plain(found.get('answer'), 20)}."
        + _policy(mapping(found.get("policy")))
    )


def _policy(found: Mapping[str, Any]) -> str:
    if not found:
        return ""
    counts = f"{number(found.get('lists'), 0)} lists of {number(found.get('users'), 0)} users"
    if not found.get("weights"):
        return f" {counts} are too few to learn a policy for these places."
    return (
        f" A policy for these places, learned of {counts} and asked of those it had not learned of, "
        f"would have had {_ends(found)} items a place more than plain draws: "
        f"{plain(found.get('answer'), 20)}. The promotion's verdict says whether lists draw by it."
    )
