"""Whether the policy learned for the places left to chance is admitted: where log and simulation agree.

In: evaluation.json, whose `policy` was learned of the log for this challenger (learned.py); the simulation,
which played the challenger's loop with these weights and with plain draws. Rule: both say `better`, of this
challenger and of the same weights. Whatever is missing or disagrees is not admitted, and places are drawn
plainly; the promotion itself does not depend on it.
"""

from __future__ import annotations

from pipeline.documents.evaluation import Evaluation, Policy
from pipeline.documents.promotion import Admission, Check
from pipeline.documents.simulation import Explored
from pipeline.evaluation.exploration import Draws
from pipeline.evaluation.gate import Case, checked


def proposed(evaluation: Evaluation | None, challenger: str | None) -> Draws | None:
    """What the log calls better than plain draws for the challenger of this hash: what a simulation plays."""
    policy = _learned(evaluation, challenger)
    return Draws.by(policy.weights) if policy and policy.answer == "better" else None


def admission(case: Case) -> Admission | None:
    """None where nothing was learned for this challenger."""
    policy = _learned(case.evaluation, case.challenger.artifact_hash)
    if policy is None:
        return None
    draws, played = proposed(case.evaluation, case.challenger.artifact_hash), _played(case, policy)
    said = f"by the log {_told(policy)}"
    if played is not None:
        said += f"; by the simulation {_told(played)}"
    elif draws is not None:
        said += "; not simulated with these weights: run `evergreen simulate`"
    admitted = draws is not None and played is not None and played.answer == "better"
    return Admission(
        admitted=admitted,
        estimate=policy.answer,
        simulation=played.answer if played else None,
        weights=policy.weights,
        text=f"{'admitted' if admitted else 'not admitted, places are drawn plainly'}: {said}",
    )


def told(found: Admission | None) -> list[Check]:
    """As a check, which never blocks; none where nothing was learned."""
    if found is None:
        return []
    text = f"the policy learned for places left to chance is {found.text}"
    return [checked("exploration", True, found.estimate, "better", text)]


def _learned(evaluation: Evaluation | None, challenger: str | None) -> Policy | None:
    if evaluation is None or challenger is None or evaluation.comparison is None:
        return None
    found, own = evaluation.comparison.off_policy, evaluation.artifact_hash.get("challenger") == challenger
    return found.policy if found and own and found.policy and found.policy.weights else None


def _played(case: Case, policy: Policy) -> Explored | None:
    """The simulation, if it is of this challenger with these weights."""
    found = case.simulation
    if found is None or found.challenger != case.challenger.artifact_hash or found.exploration is None:
        return None
    return found.exploration if found.exploration.weights == policy.weights else None


def _told(found: Policy | Explored) -> str:
    if found.difference is None or found.low is None or found.high is None:
        return found.answer
    return (
        f"{found.answer}, {found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}] items taken a place"
    )
