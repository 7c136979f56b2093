"""The gate's rule on lists that champion and challenger drew in turns (see interleaved.py)."""

from __future__ import annotations

from pipeline.documents.promotion import Check, Model
from pipeline.evaluation.gate import Case, checked, free
from pipeline.models.artifacts import named

NAME = "interleaved"


def interleaved(case: Case) -> Check:
    """Whose items people took; `investigate` is told, and stops nothing. Lists of other models do not count:
    the service names a model by its version, one without by its hash."""
    if case.why_free:
        return free(NAME, case.why_free)
    if case.evaluation is None:
        return checked(NAME, False, None, 0.0, "the evaluation cannot be read")
    people = case.evaluation.satisfaction
    found = people.interleaved if people else None
    if found is None:
        return free(NAME, "no lists that both models drew in turns (serve.challenger_share) to learn from")
    if (_name(case.champion), _name(case.challenger)) != (found.champion, found.challenger):
        return free(
            NAME, f"lists in turns were of {found.champion} and {found.challenger}, not of these models"
        )
    gain, low, high = found.difference, found.low, found.high
    if gain is None or low is None or high is None or not low <= gain <= high:
        return checked(NAME, False, None, 0.0, "no usable measure of lists that both models drew in turns")
    text = (
        f"{found.answer}: {gain:+.4f} [{low:+.4f}, {high:+.4f}] items taken a list drawn in turns, of "
        f"{found.lists or 0:,.0f} lists and {found.users or 0:,.0f} users"
    )
    passed = not (found.answer == "not better" and high < 0)
    return checked(NAME, passed, gain, 0.0, text if passed else f"{text}: surely below 0")


def _name(model: Model | None) -> str | None:
    """As a service calls it; None where that cannot be told."""
    if model is None or model.artifact_hash is None:
        return None
    return model.version or named(model.artifact_hash)
