"""A version's model card and data sheet, in Hugging Face's format: YAML for machines, then text for people.

In: what lies in the project when a version is made (`Known`); what is missing is said to be unknown, and
never stops a promotion. Out: both as text, kept in the version's commit and put into the champion's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.documents.data import Manifest, Summary
from pipeline.documents.evaluation import Evaluation
from pipeline.documents.fairness import Exposure
from pipeline.documents.model import Card
from pipeline.documents.promotion import Promotion
from pipeline.models.artifacts import DATA_SHEET, MODEL_CARD
from pipeline.pages import MISSING, finite, number, plain, show, words

TEMPLATES = Path(__file__).parents[1] / "templates"
TAGS = ["recommender-system", "evergreen"]
METRICS = ("ndcg@10", "recall@10", "mrr@10", "coverage@10")
OURS, BEFORE = "challenger", "champion"  # as the evaluation calls them
SIZES = {
    "n<1K": 1e3,
    "1K<n<10K": 1e4,
    "10K<n<100K": 1e5,
    "100K<n<1M": 1e6,
    "1M<n<10M": 1e7,
    "10M<n<100M": 1e8,
}
ROWS_INSIDE = "The folder's `reference/` holds a sample of interactions by user: publish the rest without it."
LIMITS = (
    "People can only take what they were shown or found: a good list of unseen items may score low.",
    "One data set and one cut in time say nothing certain about the next month: `evergreen drift` looks.",
    "Groups of fewer than 20 test users are not measured; of others only wide gaps can be told from luck.",
    "What nobody has taken is ranked by its text and kind alone.",
    ROWS_INSIDE,
)
NO_FIGURES = "No evaluation of this model was found."

Rows = list[tuple[str, ...]]


@dataclass(frozen=True)
class Known:
    version: str
    card: Card
    manifest: Manifest | None = None
    summary: Summary | None = None
    evaluation: Evaluation | None = None  # of this model, else None
    verdict: Promotion | None = None

    @property
    def source(self) -> str:
        return plain((self.manifest and self.manifest.source) or "unknown source", 80)


def cards(known: Known) -> dict[str, str]:
    """File name -> text of both."""
    return {MODEL_CARD: model_card(known), DATA_SHEET: data_sheet(known)}


# The model --------------------------------------------------------------------------------------------------


def model_card(known: Known) -> str:
    from huggingface_hub import ModelCard, ModelCardData

    evaluation, card = known.evaluation, known.card
    encoder = str(card.finetune.get("encoder") or "")
    name = f"Evergreen recommender {known.version}"
    data = ModelCardData(
        model_name=name,
        library_name="evergreen",
        license="other",
        license_name="as-the-data",
        tags=TAGS,
        datasets=[known.source],
        metrics=["ndcg", "recall", "mrr"],
        base_model=encoder if encoder.count("/") == 1 and ":" not in encoder else None,
        eval_results=_results(known, name),
    )
    values: dict[str, Any] = {
        "title": name,
        "version": known.version,
        "summary": _summary(known),
        "points": _points(evaluation),
        "models": _models(evaluation),
        "differences": _differences(evaluation),
        "slices": _slices(evaluation),
        "users": _users(evaluation),
        "exposure": [_exposure(by, one) for by, one in _exposures(evaluation).items()],
        "fairness": _check(known.verdict, "fairness"),
        "never": _never(card),
        "privacy": card.privacy,
        "left_out": [cell(text) for text in card.privacy.left_out] if card.privacy else [],
        "training": _training(card),
        "checks": [f"{cell(words(one.name))}: {cell(one.text)}" for one in _checks(known.verdict)],
        "limits": [text for text in LIMITS if card.privacy is None or text != ROWS_INSIDE],
    }
    return _text(ModelCard.from_template(data, template_path=str(TEMPLATES / "model_card.md"), **values))


def _results(known: Known, name: str) -> list[Any] | None:
    from huggingface_hub import EvalResult

    scores = _of(known.evaluation, OURS)
    found = [(key, value) for key in METRICS[:3] if (value := finite(scores.get(key))) is not None]
    return [
        EvalResult(
            task_type="recommendation",
            dataset_type=known.source,
            dataset_name=known.source,
            dataset_split="test",
            metric_type=key.partition("@")[0],
            metric_name=key,
            metric_value=round(value, 6),
        )
        for key, value in found
    ] or None


def _summary(known: Known) -> str:
    card, kind = known.card, "full training"
    if card.refresh_of:
        kind = f"refresh of {cell(card.refresh_of)}, whose text encoder it keeps"
    fitted = (
        f"fitted to data until {_day(card.fit_end)}" if card.fit_end else "fitted to data of unknown dates"
    )
    return f"A ranking model for the items of one service, from {known.source}: {kind}, {fitted}."


def _of(evaluation: Evaluation | None, model: str, part: str = "all") -> dict[str, Any]:
    return dict(evaluation.models.get(model, {}).get(part, {})) if evaluation else {}


def _points(evaluation: Evaluation | None) -> str:
    scores = _of(evaluation, OURS)
    if not scores:
        return NO_FIGURES
    return f"{number(scores.get('points'), 0)} test points of {number(scores.get('users'), 0)} users."


def _models(evaluation: Evaluation | None) -> Rows:
    """This model, the champion before it, and the best baseline."""
    if evaluation is None:
        return []
    best = evaluation.best_baseline
    names = {OURS: "this model", BEFORE: "the champion before it"}
    names |= {best: f"best baseline, {cell(words(best))}"} if best else {}
    return [
        (label, *(_with_ends(_of(evaluation, name), key) for key in METRICS))
        for name, label in names.items()
        if name in evaluation.models
    ]


def _differences(evaluation: Evaluation | None) -> Rows:
    pairs = evaluation.paired if evaluation else {}
    return [
        (
            cell(words(name)),
            f"{number(one.ndcg, 4, True)} [{number(one.low, 4, True)}, {number(one.high, 4, True)}]",
        )
        for name, one in pairs.items()
        if one.ndcg is not None
    ]


def _slices(evaluation: Evaluation | None) -> Rows:
    found = evaluation.models.get(OURS, {}) if evaluation else {}
    return [
        (cell(words(name)), number(scores.get("users"), 0), _with_ends(dict(scores), METRICS[0]))
        for name, scores in found.items()
        if name != "all" and not name.startswith("group:") and scores.get("users")
    ]


def _users(evaluation: Evaluation | None) -> Rows:
    if evaluation is None:
        return []
    guessed = {row.group: row for row in evaluation.fairness.guessed}
    rows: Rows = []
    for row in evaluation.fairness.users:
        scores, guess = _of(evaluation, OURS, f"group:{row.group}"), guessed.get(row.group)
        gap = _ends(row.gap, row.low, row.high, sign=True)
        told = _ends(guess.auc, guess.low, guess.high, 2) if guess else _ends(None, None, None)
        rows.append((cell(row.group), number(row.users, 0), _with_ends(scores, METRICS[0]), gap, told))
    return rows


def _exposures(evaluation: Evaluation | None) -> dict[str, Exposure]:
    return evaluation.fairness.exposure if evaluation else {}


def _exposure(by: str, found: Exposure) -> tuple[str, str, str]:
    figure = found.awrf.get(OURS)
    known = [row for row in found.groups if row.relevance is not None and row.exposure.get(OURS) is not None]
    worst = max(known, key=lambda row: (row.relevance or 0) - (row.exposure[OURS] or 0), default=None)
    text = MISSING
    if worst:
        taken, shown = (number(100 * (value or 0), 1) for value in (worst.relevance, worst.exposure[OURS]))
        text = f"{cell(worst.group)}: {taken} % of what is taken, {shown} % of the attention"
    ends = (figure.value, figure.low, figure.high) if figure else (None, None, None)
    return cell(words(by)), _ends(*ends), text


def _checks(verdict: Promotion | None) -> list[Any]:
    return verdict.checks if verdict else []


def _check(verdict: Promotion | None, name: str) -> str:
    return next(
        (cell(one.text) for one in _checks(verdict) if one.name == name and one.value is not None), ""
    )


def _never(card: Card) -> str:
    names = (card.preprocess or {}).get("never_features") or ()
    told = "No column was withheld from it."
    if names:
        told = f"Withheld from it (preprocess.never_features): {', '.join(map(cell, names))}."
    for column, found in (card.training.get("erased") or {}).items():
        told += (
            f" Taken out of its text vectors (finetune.erase): {cell(column)}, whose best guessed group is "
            f"guessed with an AUC of {found['auc_after']:.2f}, {found['auc_before']:.2f} before."
        )
    return told


def _training(card: Card) -> Rows:
    facts = {"as of": card.as_of, "train until": card.train_end, "fitted until": card.fit_end}
    rows: Rows = [(name, _day(moment)) for name, moment in facts.items()]
    rows += [("data hash", cell(card.data_hash or MISSING)), ("seed", show(card.seed))]
    settings = {name: value for name, value in card.finetune.items() if name != "privacy"}
    rows += [(cell(words(name)), cell(show(value))) for name, value in settings.items()]
    rows += [("features of the scorer", str(len(card.features or ())))]
    return [row for row in rows if row[1] != MISSING]


# The data ---------------------------------------------------------------------------------------------------


def data_sheet(known: Known) -> str:
    from huggingface_hub import DatasetCard, DatasetCardData

    manifest, summary = known.manifest, known.summary
    rows = manifest.rows.kept if manifest else None
    title = f"Data of Evergreen recommender {known.version}"
    data = DatasetCardData(
        pretty_name=title,
        license="other",
        tags=TAGS,
        size_categories=[_size(rows)] if rows is not None else None,
        source_datasets=[known.source],
    )
    evaluation = known.evaluation
    users = evaluation.fairness.users if evaluation else []
    values: dict[str, Any] = {
        "title": title,
        "version": known.version,
        "counts": _counts(manifest),
        "windows": _windows(summary),
        "events": ", ".join(
            f"{cell(name)} {number(n, 0)}" for name, n in (summary.events if summary else {}).items()
        ),
        "success": _success(known.card),
        "groups": ", ".join(
            f"{cell(row.group)} {number(row.users, 0)}" for row in sorted(users, key=lambda r: r.group)
        ),
        "source": _collected(known),
        "preparation": _preparation(known),
        "distribution": _distribution(manifest),
    }
    return _text(DatasetCard.from_template(data, template_path=str(TEMPLATES / "data_sheet.md"), **values))


def _counts(manifest: Manifest | None) -> Rows:
    if manifest is None:
        return [("manifest", "not found")]
    rows, given = manifest.rows, manifest.user_rows
    return [
        ("as of", _day(manifest.as_of)),
        ("rows", f"{number(rows.kept, 0)} kept of {number(rows.read, 0)} read"),
        ("rejected, duplicate", f"{number(rows.rejected, 0)}, {number(rows.duplicates, 0)}"),
        ("users, items", f"{number(manifest.users, 0)}, {number(manifest.items, 0)}"),
        ("rows of the table of users", number((given or {}).get("kept"), 0)),
        ("first and last interaction", f"{_day(manifest.first_timestamp)}, {_day(manifest.last_timestamp)}"),
        ("content hash", cell(manifest.content_hash or MISSING)),
    ]


def _windows(summary: Summary | None) -> Rows:
    windows = summary.windows if summary else {}
    return [
        (
            name,
            _day(one.first),
            _day(one.last),
            *(number(n, 0) for n in (one.rows, one.users, one.items, one.positive)),
        )
        for name, one in windows.items()
    ]


def _success(card: Card) -> str:
    positive = (card.preprocess or {}).get("positive") or {}
    events, least = positive.get("events"), positive.get("min_value")
    what = f"the events {', '.join(map(cell, events))}" if events else "every event"
    return f"A success: {what}{'' if least is None else f', with a value of at least {least:g}'}."


def _collected(known: Known) -> str:
    return (
        f"By `evergreen` from the source `{known.source}`, as it was at the moment named above; rows without "
        "ids or a readable time, or later than that, were set apart and counted."
    )


def _preparation(known: Known) -> list[str]:
    settings = known.card.preprocess or {}
    template = plain(settings.get("item_text") or "unknown").replace("`", "")
    return [
        "Parted by time into train, validation and test; validation chose, nothing was fitted on test.",
        f"Text of an item: `{template}`, cleaned of markup.",
        f"Items that a user had already: {cell(settings.get('repeats') or 'exclude')}d from lists.",
        _never(known.card),
    ]


def _distribution(manifest: Manifest | None) -> str:
    credit = f" Credit: {cell(manifest.credit)}." if manifest and manifest.credit else ""
    return f"Not published with the model; the source's own terms hold.{credit}"


def _size(rows: int) -> str:
    return next((name for name, end in SIZES.items() if rows < end), "100M<n<1B")


# Text -------------------------------------------------------------------------------------------------------


def cell(value: Any) -> str:
    """Untrusted text that breaks neither a table nor a list, and is no markup."""
    text = plain(value, 400)
    for character in "\\`*_<>[]|#":
        text = text.replace(character, f"\\{character}")
    return text


def _with_ends(scores: dict[str, Any], key: str) -> str:
    return _ends(scores.get(key), scores.get(f"{key}_low"), scores.get(f"{key}_high"))


def _ends(value: Any, low: Any, high: Any, digits: int = 3, sign: bool = False) -> str:
    if finite(low) is None or finite(high) is None:
        return number(value, digits, sign)
    return f"{number(value, digits, sign)} [{number(low, digits, sign)}, {number(high, digits, sign)}]"


def _day(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else MISSING


def _text(card: Any) -> str:
    """Without the blank lines that a template leaves at its end."""
    return str(card).rstrip("\n") + "\n"
