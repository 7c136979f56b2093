"""May the challenger take the champion's place? Decides; `evergreen registry promote` acts.

In: reports/evaluation.json (differences challenger - X in nDCG@10 with 95 % intervals over users, paired at
the same points; `comparison` with the champion at points later than both), data/simulation.json (what
`evergreen simulate` found, if anything), cards, hashes and sizes of models/challenger and models/champion.
Out: reports/promotion.json `{"promote", "approval", "checks":
[{"name", "passed", "value", "limit", "text"}], "warnings": [text], "challenger", "champion",
"exploration"?}`.

Rule: promote if every check passes (those against the champion, latency and size are in
pipeline/evaluation/gate.py, gate_people.py). Shares are of the champion's own figure, so that they mean the
same on any data.
- evaluation: it can be read and is of this challenger (same fit_end, and same hash if it names one);
- is_champion: the challenger is not the champion itself (same hash);
- fit_end: not older than the champion's, so that a late or repeated run never demotes a newer model;
- comparable: this code can score with the champion, it is the one that was evaluated, and only points later
  than both fit_ends were compared;
- users, points: at least min_users and min_points of them;
- beats_champion: the interval's lower end is above -tolerance; min_gain: the mean is above it. The interval
  is about the luck of who was tested; min_gain, about that of the training: another seed or sample of the
  same data makes a model that is surely a little better or worse, and no news. Here users are weighted by
  the square root of their points, which halves the error; headline: the reported difference, where every
  user counts alike, is not surely a loss;
- slices: none of at least min_users loses more than slice_guard by an interval below 0. That interval is as
  much wider as there are slices (Bonferroni: .05 / slices, normal approximation), else one slice in forty
  would block by chance;
- coverage, popularity: what is listed has not collapsed to few or to the most popular items. The guards are
  wide, since a model that knows more lists less of what nobody takes;
- latency, size: milliseconds a list and MiB within their limits;
- fairness: no group of users surely falls behind all others, nor does attention to items surely move away
  from what users take, by more than fairness_guard (pipeline/evaluation/fairness_verdict.py);
- features: the scorer has the same inputs as the champion's, or accept_new_features says that it may differ;
- off_policy: where a service left places to chance, what people took of them does not surely say that they
  would take less of the challenger's; an interval that holds 0, or too few places, is told and stops nothing;
- faithfulness: that a score falls more without the history item that a reason names than without another is
  not surely wrong; passes where no reason names one;
- interleaved: of lists that a service drew from these two models in turns people do not surely take fewer of
  the challenger's items; too few, an interval that holds 0, or lists of other models stop nothing;
- long_term: in its own feedback loop the challenger does not surely end worse than the champion in its own by
  more than long_term_guard (pipeline/evaluation/long_term_verdict.py); without the guard it is told;
- beats_popularity, beats_recent_popularity: the interval's lower end is above 0;
- champion_beats_recent_popularity: never blocks, but warns if the champion in service no longer does;
- leads_baselines: never blocks, but warns if the best baseline has the higher mean;
- exploration: only where a policy for places left to chance was learned; never blocks. It is admitted where
  log and simulation agree that it is better (pipeline/evaluation/admission.py), and promoted with the model;
- privacy: only where a model states a budget; never blocks, but warns if the challenger's is weaker.
Without a champion, or with one that replace_unread names, those that compare with it pass. Whatever is
missing, malformed or NaN fails its check.

    python -m pipeline.stages.decide_promotion reports/evaluation.json data/simulation.json \\
        models/challenger models/champion reports/promotion.json
"""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.documents.evaluation import Evaluation
from pipeline.documents.model import Card
from pipeline.documents.promotion import Check, Model, Promotion
from pipeline.documents.simulation import LongTerm
from pipeline.errors import ArtifactError
from pipeline.evaluation.admission import admission, told
from pipeline.evaluation.gate import (
    Case,
    against_champion,
    checked,
    faithfulness,
    figures,
    free,
    interval,
    iso,
    latency,
    size,
    unusable,
    words,
)
from pipeline.evaluation.gate_people import interleaved
from pipeline.models.artifacts import CARD, VERSION, folder_hash, version_in
from pipeline.params import DecidePromotion, Params
from pipeline.run import run

log = logging.getLogger(__name__)
BASELINES = ("popularity", "recent_popularity")
MIB = 2**20


def decide_promotion(
    evaluation: Evaluation | None,
    challenger: Model | None,
    champion: Model | None,
    settings: DecidePromotion,
    simulation: LongTerm | None = None,
) -> Promotion:
    """The verdict. Never raises; `champion` is None if there is none yet.

    One that exists but cannot be read is a Model without content, and fails its checks.
    """
    case = Case(evaluation, challenger or Model(), champion, settings, simulation)
    checks = [
        _evaluation(case),
        _is_champion(case),
        _fit_end(case),
        *against_champion(case),
        interleaved(case),
        latency(case),
        size(case),
        faithfulness(case),
        *(_beats_baseline(case, name) for name in BASELINES),
    ]
    admitted = admission(case)
    checks += told(admitted)
    staleness = [] if case.why_free else [_champion_over(case, "recent_popularity")]
    staleness += [_best_baseline(case), *_privacy(case)]
    return Promotion(
        promote=all(check.passed for check in checks),
        approval=settings.approval,
        checks=[*checks, *(check for check, _ in staleness)],
        warnings=[warning for _, warning in staleness if warning],
        challenger=case.challenger.identity,
        champion=champion.identity if champion else None,
        exploration=admitted,
    )


def sentence(verdict: Promotion) -> str:
    """The verdict for people, in one line; warnings first."""
    warnings = "".join(f"WARNING: {text}. " for text in verdict.warnings)
    if verdict.failed:
        return f"{warnings}do not promote: " + "; ".join(check.text for check in verdict.failed)
    gains = "; ".join(
        check.text for check in verdict.checks if check.name.startswith("beats_") or _to_look_at(check)
    )
    return f"{warnings}promote: all {len(verdict.checks)} checks passed: {gains}"


def _to_look_at(check: Check) -> bool:
    if check.name in ("fairness", "faithfulness"):
        return check.text.startswith("investigate")
    return check.name in ("off_policy", "interleaved", "long_term", "exploration") and check.value is not None


# The models and their evaluation ---------------------------------------------------------------------------


def _evaluation(case: Case) -> Check:
    evaluation, own = case.evaluation, case.challenger.fit_end
    evaluated = evaluation.fit_end if evaluation else None
    value, limit = iso(evaluated), iso(own)
    if evaluation is None:
        text = "the evaluation cannot be read"
    elif case.challenger.artifact_hash is None or own is None:
        text = "the challenger cannot be read"
    elif evaluation.artifact_hash.get("challenger") != case.challenger.artifact_hash:
        text = "the evaluation is of another model: run `dvc repro decide_promotion`"
    elif evaluated != own:
        text = f"the evaluation is of a model fitted to {value}, the challenger is fitted to {limit}"
    else:
        return checked("evaluation", True, value, limit, f"the challenger, fitted to {limit}, was evaluated")
    return checked("evaluation", False, value, limit, text)


def _is_champion(case: Case) -> Check:
    if case.champion is None:
        return free("is_champion", "no champion yet")
    one, other = case.challenger.artifact_hash, case.champion.artifact_hash
    if one is None or other is None:
        text = "challenger or champion has no hash, so they cannot be told apart"
    elif one == other:
        text = "the challenger is the champion itself"
    else:
        return checked("is_champion", True, one, other, "the challenger is another model than the champion")
    return checked("is_champion", False, one, other, text)


def _fit_end(case: Case) -> Check:
    if case.champion is None:
        return free("fit_end", "no champion yet")
    own, limit = case.challenger.fit_end, case.champion.fit_end
    passed = own is not None and limit is not None and own >= limit
    if own is None or limit is None:
        text = "fit_end of challenger or champion is missing"
    elif passed:
        text = f"fitted to {iso(own)}, not before the champion's {iso(limit)}"
    else:
        text = f"the challenger is fitted to {iso(own)}, before the champion's {iso(limit)}"
    return checked("fit_end", passed, iso(own), iso(limit), text)


# Against the baselines -------------------------------------------------------------------------------------


def _beats_baseline(case: Case, name: str) -> Check:
    pair = interval(case.paired(name))
    if pair is None:
        return checked(f"beats_{name}", False, None, 0.0, unusable(case, name))
    text = f"{figures(pair)} against {words(name)}"
    low = pair[1]
    return checked(f"beats_{name}", low > 0, low, 0.0, text if low > 0 else f"{text}, not surely above 0")


def _champion_over(case: Case, name: str) -> tuple[Check, str | None]:
    """The champion's own standing, and a warning if it has none; that blocks no challenger."""
    pair = interval(case.comparison.champion_over.get(name))
    baseline = words(name)
    if pair is None:
        text = f"whether the champion in service still beats {baseline} is not known"
    elif pair[1] > 0:
        text = f"the champion in service is at {figures(pair)} against {baseline}"
        return checked(f"champion_beats_{name}", True, pair[1], 0.0, text), None
    else:
        text = f"THE CHAMPION IN SERVICE NO LONGER SURELY BEATS {baseline.upper()}: {figures(pair)}"
    return checked(f"champion_beats_{name}", True, pair[1] if pair else None, 0.0, text), text


def _best_baseline(case: Case) -> tuple[Check, str | None]:
    """Whether a tuned baseline leads the challenger; that blocks nothing, and is said first."""
    name = case.evaluation.best_baseline if case.evaluation else None
    pair = None if name is None else interval(case.paired(name))
    if name is None or pair is None:
        text = "whether a baseline leads the challenger is not known"
        return checked("leads_baselines", True, None, 0.0, text), None
    text = f"{figures(pair)} against the best baseline, {words(name)}"
    warning = f"the baseline {words(name)} leads the challenger: {figures(pair)}" if pair[0] < 0 else None
    return checked("leads_baselines", True, pair[0], 0.0, text), warning


def _privacy(case: Case) -> list[tuple[Check, str | None]]:
    """The budget that the challenger states, where it or the champion does, and a warning if it is weaker."""
    own, other = case.challenger.privacy, case.champion.privacy if case.champion else None
    if own is None and other is None:
        return []
    text = "no budget bounds what the challenger tells of one user"
    if own is not None:
        text = f"the challenger's weights are {own.sentence}; what this page tells of users is not"
    ends = own.epsilon if own else None, other.epsilon if other else None
    if other is None or (own and own.epsilon <= other.epsilon and own.delta <= other.delta):
        return [(checked("privacy", True, *ends, text), None)]
    text += f"; the champion's are {other.sentence}"
    return [(checked("privacy", True, *ends, text), text)]


# Files -----------------------------------------------------------------------------------------------------


def read_model(folder: Path) -> Model | None:
    """What a model folder says about itself; None if nothing is there, no content if it cannot be read."""
    if not (folder / CARD).exists() and not (folder / VERSION).exists():
        return None
    try:
        card = Card.read(folder / CARD)
        return Model(
            version=version_in(folder),
            fit_end=card.fit_end,
            artifact_hash=folder_hash(folder),
            features=card.features,
            privacy=card.privacy,
            mib=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MIB,
        )
    except ArtifactError as error:
        log.warning("%s", error)
        return Model()


def main(
    evaluation: Path,
    simulation: Path,
    challenger: Path,
    champion: Path,
    promotion: Path,
    params: Path = Path("params.yaml"),
) -> None:
    settings = Params.load(params).decide_promotion
    models = read_model(challenger), read_model(champion)
    verdict = decide_promotion(Evaluation.find(evaluation), *models, settings, LongTerm.find(simulation))
    verdict.write(promotion)
    log.info("%s", sentence(verdict))


if __name__ == "__main__":
    run(main)
