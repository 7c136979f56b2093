"""`evergreen tune`: search params.yaml for values whose challenger ranks the validation window best.

Optuna proposes (TPE; Bergstra et al. 2011), its study lies in .evergreen/tune. The first trial is params.yaml
as it is. Where users are enough, a trial is first trained on the rows of a quarter of them, and ends there if
that is below the median of the others' first looks. Interrupted or killed, the same command goes on, the
trial under way from its checkpoints. Other data, code, params or space are another study.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import PipelineError
from pipeline.evaluation import metrics
from pipeline.files import write_text
from pipeline.locks import held, reading
from pipeline.loop import repro
from pipeline.loop.steps import note_encoder
from pipeline.models.pretrained import identify
from pipeline.params import parsed
from pipeline.registry.git import Git
from pipeline.stages.finetune import checkpoint_key
from pipeline.tune import experiments
from pipeline.tune.space import Space, Values
from pipeline.tune.trials import SHARE, Trials, check_ahead

FOLDER = Path(".evergreen/tune")
RAW, DATA = Path("data/raw"), Path("data/prepared")
REPORT, PAGE = "tune.json", "tune.html"
RANDOM, BEFORE_PRUNING = 5, 4  # trials before proposals follow results; before one may be pruned
FEWEST = 4  # whole trials by which it is said what matters
SAMPLES = 2000  # of the bootstrap
VALUE, FIRST_LOOK = "validation_ndcg@10", "first_look_ndcg@10"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

Json = dict[str, Any]
log = logging.getLogger(__name__)


def tune(
    root: Path,
    trials: int,
    timeout: float | None = None,
    searched: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Json:
    """The report, also written. `trials`: in all, of this study; `timeout`: seconds after which none begins.

    Raises ConfigError for a space that cannot be searched or tried, PipelineError where no trial ended.
    """
    text = (root / "params.yaml").read_text(encoding="utf-8")
    space, git = Space.of(text, searched), Git(root)
    git.head()
    refusal = "another `evergreen tune` runs in this folder: wait for it to end"
    with held(root / FOLDER / "lock", refusal), reading(root):
        note_encoder(root)
        repro.repro(root, "--quiet", "preprocess")
        check_ahead(root / RAW, space)
        study, folder = _study(root, space)
        _take_up(study, space)
        court = Trials(root / RAW, root / DATA, folder, space)
        begin, failed = time.monotonic(), None
        while _count(study) < trials and (timeout is None or time.monotonic() - begin < timeout):
            failed = _try(study, court, say, trials) or failed
            _record(git, study, space)
        _record(git, study, space)
        report = _report(root, study, court)
    if report["best"] is None:
        raise failed or PipelineError("no trial came to an end: give more --trials or a longer --timeout")
    write(report, root / "reports")
    return report


def write(report: Json, reports: Path) -> None:
    from pipeline.tune.page import render

    write_text(reports / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    write_text(reports / PAGE, render(report))


def _study(root: Path, space: Space) -> tuple[optuna.Study, Path]:
    """The one of these data, code, params and space, and its folder."""
    params = parsed(space.text)
    key = checkpoint_key(root / DATA, params, identify(params.finetune.encoder, root))
    dimensions = {name: str(dimension) for name, dimension in space.dimensions.items()}
    name = hashlib.sha256(json.dumps([key, params.preprocess.model_dump(), dimensions]).encode()).hexdigest()[
        :8
    ]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(root / FOLDER / "trials.log"))),
        study_name=name,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=BEFORE_PRUNING),
    )
    # Taken up again, it must not propose what it has proposed.
    study.sampler = optuna.samplers.TPESampler(
        seed=params.seed + len(study.trials), n_startup_trials=RANDOM, multivariate=True
    )
    folder = root / FOLDER / name
    folder.mkdir(exist_ok=True)
    return study, folder


def _take_up(study: optuna.Study, space: Space) -> None:
    """Trials that an earlier run left under way come first; in a new study params.yaml as it is."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        optuna.trial.Trial(study, trial._trial_id).set_user_attr("interrupted", True)
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)
    if not study.trials:
        study.enqueue_trial(space.as_is)


def _count(study: optuna.Study) -> int:
    return len(_ended(study))


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    """All but those that were interrupted."""
    found = study.get_trials(deepcopy=False, states=ENDED)
    return [trial for trial in found if "interrupted" not in trial.user_attrs]


def _try(study: optuna.Study, court: Trials, say: Callable[[str], None], trials: int) -> PipelineError | None:
    """One trial; the error of one that failed."""
    trial, number = study.ask(), _count(study) + 1
    values = court.space.suggest(trial)
    said = f"trial {number} of {trials}: {', '.join(f'{key} {value}' for key, value in values.items())}"
    try:
        if court.prunes:
            look = court.measured(values, SHARE)
            trial.report(look.ndcg, step=1)
            if trial.should_prune():
                trial.set_user_attr("seconds", round(look.seconds, 1))
                study.tell(trial, state=TrialState.PRUNED)
                say(f"{said}: pruned, {look.ndcg:.4f} on a quarter of the users, {look.seconds:.0f} s")
                return None
        found = court.measured(values)
    except PipelineError as error:
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=TrialState.FAIL)
        say(f"{said}: failed: {error}")
        return error
    trial.set_user_attr("seconds", round(found.seconds, 1))
    study.tell(trial, found.ndcg)
    say(f"{said}: nDCG@10 {found.ndcg:.4f} on validation, {found.seconds:.0f} s")
    return None


def _name(study: optuna.Study, trial: FrozenTrial) -> str:
    return f"tune-{study.study_name}-{trial.number}"


def _record(git: Git, study: optuna.Study, space: Space) -> None:
    there = experiments.names(git)
    for trial in _ended(study):
        if trial.state != TrialState.FAIL and _name(study, trial) not in there:
            found = {VALUE: _value(trial), FIRST_LOOK: trial.intermediate_values.get(1)}
            experiments.record(git, _name(study, trial), space.params_text(trial.params), found)


def _value(trial: FrozenTrial) -> float | None:
    return trial.value if trial.state == TrialState.COMPLETE else None


# Report -----------------------------------------------------------------------------------------------------


def _report(root: Path, study: optuna.Study, court: Trials) -> Json:
    space = court.space
    whole = [trial for trial in _ended(study) if trial.state == TrialState.COMPLETE]
    best = max(whole, key=lambda trial: trial.value or 0.0, default=None)
    points = court.base.validation
    return {
        "study": study.study_name,
        "validation": {"points": len(points), "users": len(np.unique(points.user))},
        "searched": {key: str(dimension) for key, dimension in space.dimensions.items()},
        "as_is": space.as_is,
        "trials": [_row(study, trial) for trial in _ended(study)],
        "best": None if best is None else _best(study, best, court),
        "importance": _importance(study, court.params.seed) if len(whole) >= FEWEST else {},
    }


def _row(study: optuna.Study, trial: FrozenTrial) -> Json:
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "params": trial.params,
        VALUE: _value(trial),
        FIRST_LOOK: trial.intermediate_values.get(1),
        "seconds": trial.user_attrs.get("seconds"),
        "experiment": None if trial.state == TrialState.FAIL else _name(study, trial),
        "error": trial.user_attrs.get("error"),
    }


def _best(study: optuna.Study, best: FrozenTrial, court: Trials) -> Json:
    """With what it gains over params.yaml as it is: paired, users drawn with replacement."""
    as_is: Values = court.space.as_is
    found = _row(study, best) | {"changed": best.params != as_is, "gain": None, "low": None, "high": None}
    if best.params != as_is and any(trial.params == as_is for trial in _ended(study)):
        gains = court.measured(best.params).gains - court.measured(as_is).gains
        samples = metrics.user_bootstrap(gains[:, None], SAMPLES, court.params.seed)
        low, high = metrics.interval(samples)
        found |= {"gain": float(gains.mean()), "low": float(low[0]), "high": float(high[0])}
    return found


def _importance(study: optuna.Study, seed: int) -> dict[str, float]:
    """Share of the trials' spread that each key explains (fANOVA; Hutter et al. 2014); empty if they tie."""
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=32, seed=seed)
    try:
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (RuntimeError, ValueError):  # no spread
        return {}
    return {key: round(float(share), 4) for key, share in found.items()}
