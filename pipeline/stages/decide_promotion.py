"""May the challenger take the champion's place? Decides; `evergreen registry promote` acts.

In: reports/evaluation.json (paired nDCG@10 differences challenger - X with 95 % intervals over users), cards
and hashes of models/challenger and models/champion. Out: reports/promotion.json
`{"promote", "approval", "checks": [{"name", "passed", "value", "limit", "text"}], "challenger", "champion"}`.

Rule: promote if every check passes.
- evaluation: it can be read and is of this challenger (same fit_end);
- is_champion: the challenger is not the champion itself (same hash);
- fit_end: not older than the champion's, so that a late or repeated run never demotes a newer model;
- beats_champion, beats_popularity, beats_recent_popularity: the interval's lower bound is above 0.
Without a champion those that compare with it pass. Whatever is missing, malformed or NaN fails its check.

    python -m pipeline.stages.decide_promotion reports/evaluation.json models/challenger models/champion \\
        reports/promotion.json
"""

from __future__ import annotations

import json
import logging
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.artifacts import CARD, VERSION, folder_hash, read_card
from pipeline.errors import ArtifactError
from pipeline.params import DecidePromotion, Params
from pipeline.run import run

log = logging.getLogger(__name__)
BASELINES = ("popularity", "recent_popularity")

Check = dict[str, Any]


def decide_promotion(
    evaluation: Any, challenger: Any, champion: Any, settings: DecidePromotion
) -> dict[str, Any]:
    """The verdict as a dictionary ready for JSON. Never raises, whatever the first three arguments hold.

    `challenger` and `champion` are `{"version", "fit_end", "artifact_hash"}`; `champion` is None if there is
    none yet. One that exists but cannot be read is a dictionary without a usable hash, and fails its checks.
    """
    checks = [
        _evaluation(evaluation, challenger),
        _is_champion(challenger, champion),
        _fit_end(challenger, champion),
        _beats(evaluation, "champion") if champion is not None else _no_champion("beats_champion"),
        *(_beats(evaluation, name) for name in BASELINES),
    ]
    return {
        "promote": all(check["passed"] for check in checks),
        "approval": settings.approval,
        "checks": checks,
        "challenger": _identity(challenger),
        "champion": None if champion is None else _identity(champion),
    }


def sentence(verdict: dict[str, Any]) -> str:
    """The verdict for people, in one line."""
    failed = [check for check in verdict["checks"] if not check["passed"]]
    if failed:
        return "do not promote: " + "; ".join(check["text"] for check in failed)
    gains = "; ".join(check["text"] for check in verdict["checks"] if check["name"].startswith("beats_"))
    return f"promote: all {len(verdict['checks'])} checks passed: {gains}"


def _evaluation(evaluation: Any, challenger: Any) -> Check:
    evaluated, own = _moment(_get(evaluation, "fit_end")), _moment(_get(challenger, "fit_end"))
    value, limit = _text(evaluated), _text(own)
    if not isinstance(evaluation, dict) or "paired" not in evaluation:
        text = "the evaluation cannot be read"
    elif _string(challenger, "artifact_hash") is None or own is None:
        text = "the challenger cannot be read"
    elif evaluated != own:
        text = f"the evaluation is of a model fitted to {value}, the challenger is fitted to {limit}"
    else:
        return _check("evaluation", True, value, limit, f"the challenger, fitted to {limit}, was evaluated")
    return _check("evaluation", False, value, limit, text)


def _is_champion(challenger: Any, champion: Any) -> Check:
    if champion is None:
        return _no_champion("is_champion")
    one, other = _string(challenger, "artifact_hash"), _string(champion, "artifact_hash")
    if one is None or other is None:
        text = "challenger or champion has no hash, so they cannot be told apart"
    elif one == other:
        text = "the challenger is the champion itself"
    else:
        return _check("is_champion", True, one, other, "the challenger is another model than the champion")
    return _check("is_champion", False, one, other, text)


def _fit_end(challenger: Any, champion: Any) -> Check:
    if champion is None:
        return _no_champion("fit_end")
    own, limit = _moment(_get(challenger, "fit_end")), _moment(_get(champion, "fit_end"))
    if own is None or limit is None:
        text = "fit_end of challenger or champion is missing"
    elif own < limit:
        text = f"the challenger is fitted to {_text(own)}, before the champion's {_text(limit)}"
    else:
        text = f"fitted to {_text(own)}, not before the champion's {_text(limit)}"
    passed = own is not None and limit is not None and own >= limit
    return _check("fit_end", passed, _text(own), _text(limit), text)


def _beats(evaluation: Any, name: str) -> Check:
    pair = _get(_get(evaluation, "paired"), name)
    gain, low, high = (_number(_get(pair, key)) for key in ("ndcg@10", "low", "high"))
    readable = name.replace("_", " ")
    if gain is None or low is None or high is None or not low <= gain <= high:
        text = f"no usable comparison with the {readable}" if pair else f"not compared with the {readable}"
        return _check(f"beats_{name}", False, low, 0.0, text)
    text = f"nDCG@10 {gain:+.4f} [{low:+.4f}, {high:+.4f}] against {readable}"
    return _check(f"beats_{name}", low > 0, low, 0.0, text if low > 0 else f"{text}, not surely above 0")


def _no_champion(name: str) -> Check:
    return _check(name, True, None, None, "no champion yet")


def _check(name: str, passed: bool, value: Any, limit: Any, text: str) -> Check:
    return {"name": name, "passed": passed, "value": value, "limit": limit, "text": text}


def _identity(model: Any) -> dict[str, Any]:
    return {
        "version": _string(model, "version"),
        "fit_end": _text(_moment(_get(model, "fit_end"))),
        "artifact_hash": _string(model, "artifact_hash"),
    }


def _get(mapping: Any, key: str) -> Any:
    return mapping.get(key) if isinstance(mapping, dict) else None


def _string(model: Any, key: str) -> str | None:
    value = _get(model, key)
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _moment(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def read_model(folder: Path) -> dict[str, Any] | None:
    """What a model folder says about itself; None if nothing is there, {} if what is there cannot be read."""
    if not (folder / CARD).exists() and not (folder / VERSION).exists():
        return None
    try:
        card = read_card(folder)
        version = _read_json(folder / VERSION)
        return {
            "version": _get(version, "version"),
            "fit_end": card.get("fit_end"),
            "artifact_hash": folder_hash(folder),
        }
    except ArtifactError as error:
        log.warning("%s", error)
        return {}


def _read_json(path: Path) -> Any:
    """The content; None if missing or malformed: the checks then say no."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def main(
    evaluation: Path, challenger: Path, champion: Path, promotion: Path, params: Path = Path("params.yaml")
) -> None:
    settings = Params.load(params).decide_promotion
    verdict = decide_promotion(_read_json(evaluation), read_model(challenger), read_model(champion), settings)
    promotion.parent.mkdir(parents=True, exist_ok=True)
    temporary = promotion.with_name(f".{promotion.name}.partial")
    temporary.write_text(json.dumps(verdict, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(promotion)
    log.info("%s", sentence(verdict))


if __name__ == "__main__":
    run(main)
