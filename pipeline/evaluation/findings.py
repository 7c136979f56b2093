"""What an evaluation says, in words: which baseline is best, who beats whom, and whether fine-tuning paid.

In: `evaluation` as in reports/evaluation.json. Out: differences with their answers, and sentences.
Rule: a paired interval above zero is a yes, below zero a no, around zero not distinguishable from chance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.pages import finite, number, words

HEADLINE = "ndcg@10"
LEAST_USERS = 10  # of a slice; with fewer, the interval of a bootstrap over them means nothing
OURS = ("challenger", "champion")
WITHOUT_TEXT, FROZEN_TEXT, FROZEN_STATE = "without_text", "frozen_text", "frozen_state"
ABLATIONS = (WITHOUT_TEXT, FROZEN_TEXT, FROZEN_STATE, "fine_tuned_encoder")
LABELS = {
    "without_text": "no text",
    "frozen_text": "frozen text",
    "fine_tuned_encoder": "fine-tuned, text alone",
    "challenger": "fine-tuned + scorer (challenger)",
}


@dataclass(frozen=True)
class Difference:
    """challenger − `name` in nDCG@10 at the same points, with its paired interval."""

    name: str
    value: float | None
    low: float | None
    high: float | None

    @property
    def answer(self) -> str:
        """yes: above zero; no: below; unsure: the interval holds zero; missing: not measured."""
        if self.value is None or self.low is None or self.high is None:
            return "missing"
        return "yes" if self.low > 0 else "no" if self.high < 0 else "unsure"

    @property
    def figures(self) -> str:
        low, high = number(self.low, sign=True), number(self.high, sign=True)
        return f"{number(self.value, sign=True)} nDCG@10 (95% interval {low} to {high})"


def kind(name: str) -> str:
    """challenger, champion, ablation or baseline; also the class of style.css that a model is drawn in."""
    return name if name in OURS else "ablation" if name in ABLATIONS else "baseline"


def ranked(models: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Models by nDCG@10 on all points, the best first; those without a figure last."""

    def badness(slices: dict[str, Any]) -> float:
        value = figure(slices)
        return 1.0 if value is None else -value

    return dict(sorted(((n, mapping(s)) for n, s in models.items()), key=lambda pair: badness(pair[1])))


def best_baseline(evaluation: Mapping[str, Any]) -> str | None:
    """The name that `evaluation` gives, else the baseline with the highest nDCG@10 on all points."""
    models = ranked(evaluation["models"])
    named = evaluation.get("best_baseline")
    rivals = [name for name in models if kind(name) == "baseline" and figure(models[name]) is not None]
    return str(named) if named in models else rivals[0] if rivals else None


def too_few(slices: Mapping[str, Any], slice_name: str) -> bool:
    """Whether a slice has so few users that an interval over them would be a false promise."""
    users = figure(slices, slice_name, "users")
    return users is not None and users < LEAST_USERS


def difference(evaluation: Mapping[str, Any], name: str, slice_name: str = "all") -> Difference:
    """challenger − `name` on a slice; without figures if it was not measured, or on too few users."""
    if slice_name != "all" and too_few(mapping(evaluation["models"].get("challenger")), slice_name):
        return Difference(name, None, None, None)
    found = mapping(mapping(mapping(evaluation.get("paired_slices")).get(name)).get(slice_name))
    if slice_name == "all":
        found = mapping(mapping(evaluation.get("paired")).get(name)) or found
    return Difference(name, *(finite(found.get(key)) for key in (HEADLINE, "low", "high")))


def mapping(value: Any) -> dict[str, Any]:
    """The mapping, or an empty one for whatever else stands in its place."""
    return dict(value) if isinstance(value, Mapping) else {}


def figure(slices: Mapping[str, Any], slice_name: str = "all", key: str = HEADLINE) -> float | None:
    """One figure of a model, None where it has none."""
    return finite(mapping(slices.get(slice_name)).get(key))


def payoff(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Did fine-tuning pay? Only if it beats both the frozen encoder and having no text at all."""
    training = mapping(evaluation.get("training"))
    if version := training.get("refresh_of"):
        text = f"Not asked: a refresh keeps the text encoder of {version} and fits the rest anew."
        return {"answer": "missing", "text": text, "cold": ""}
    if why := training.get("not_fine_tuned"):
        return {"answer": "missing", "text": f"Nothing was fine-tuned: {why}.", "cold": ""}
    pairs = [difference(evaluation, name) for name in ("frozen_text", "without_text")]
    pairs = [pair for pair in pairs if pair.answer != "missing"]
    answers = {pair.answer for pair in pairs}
    answer = next((one for one in ("no", "unsure", "yes") if one in answers), "missing")
    if answer == "missing":
        text = "The challenger was not compared with itself without text and with frozen text."
        return {"answer": answer, "text": text, "cold": ""}
    opening = {
        "yes": "Fine-tuning paid on this data",
        "no": "Fine-tuning did not pay on this data",
        "unsure": "Whether fine-tuning paid cannot be told from chance on this data",
    }[answer]
    text = "; ".join(f"fine-tuned − {LABELS[pair.name]} is {pair.figures}" for pair in pairs)
    cold = difference(evaluation, "frozen_text", "cold_items")
    known = f"On cold items, fine-tuned − frozen text is {cold.figures}."
    return {
        "answer": answer,
        "text": f"{opening}: {text}.",
        "cold": "" if cold.answer == "missing" else known,
    }


def living(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """What it pays to count live: the challenger against itself with the state of the end of train."""
    pair = difference(evaluation, FROZEN_STATE)
    if pair.answer == "missing":
        return {"answer": "missing", "text": ""}
    opening = {
        "yes": "Knowing what everybody did up to each point pays",
        "no": "Knowing what everybody did up to each point costs",
        "unsure": "What it pays to know what everybody did up to each point cannot be told from chance",
    }[pair.answer]
    delay = finite(mapping(evaluation.get("live")).get("delay_seconds"))
    known = f" A row is known after {number(delay, 0)} s." if delay else ""
    cold = difference(evaluation, FROZEN_STATE, "cold_items")
    of_cold = "" if cold.answer == "missing" else f" On cold items it is {cold.figures}."
    text = f"{opening}: live − state of the end of train is {pair.figures}.{of_cold}{known}"
    return {"answer": pair.answer, "text": text}


def reasons(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Are reasons true: does a score fall without the history item that one names?"""
    found = mapping(evaluation.get("faithfulness"))
    value, low, high = (finite(found.get(key)) for key in ("difference", "low", "high"))
    pair = Difference("reasons", value, low, high)
    if pair.answer == "missing":
        return {"answer": "missing", "text": ""}
    opening = {"yes": "They are", "no": "They are not", "unsure": "That cannot be told from chance"}
    named, other = (number(found.get(key), sign=True) for key in ("named", "other"))
    ends = f"{number(value, sign=True)} (95% interval {number(low, sign=True)} to {number(high, sign=True)})"
    count, users = (number(found.get(key), 0) for key in ("items", "users"))
    text = (
        f"{opening[pair.answer]}: a score falls {ends} more without the history item that a reason names "
        f"than without another of the same history ({count} listed items of {users} users)."
    )
    return {"answer": pair.answer, "text": text, "named": named, "other": other}


def retrievers(evaluation: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The share of the targets that each retriever brings, best first; last, what all bring together."""
    found = mapping(evaluation.get("candidates"))
    shares = {name: finite(value) for name, value in mapping(found.get("recall")).items()}
    known = [(name, value) for name, value in shares.items() if value is not None]
    everything = finite(found.get("all"))
    ranked = sorted(known, key=lambda pair: -pair[1])
    return ranked if everything is None else [*ranked, ("all together", everything)]


def training_seconds(training: Mapping[str, Any]) -> dict[str, float]:
    """Of each of LABELS' models, the seconds of its own phases; all share what is left of the whole."""
    phases = {str(name): finite(spent) for name, spent in mapping(training.get("seconds_by_phase")).items()}
    known = {name: spent for name, spent in phases.items() if spent is not None}
    text = known.get("text", 0.0)
    found = {"fine_tuned_encoder": text} if "text" in known else {}
    for name in ("without_text", "frozen_text", "challenger"):
        own = [spent for phase, spent in known.items() if phase.endswith(f"({name})")]
        if own:
            found[name] = sum(own) + (text if name == "challenger" else 0.0)
    return found


def cost(training: Mapping[str, Any]) -> str:
    """What training took, in a sentence; empty if it is not known."""
    seconds, memory = finite(training.get("seconds")), finite(training.get("peak_gib"))
    if seconds is None:
        return ""
    peak = "" if memory is None else f" and {number(memory, 1)} GiB of memory at most"
    text = training_seconds(training).get("fine_tuned_encoder")
    share = "" if text is None else f"; fine-tuning the text took {number(text, 0)} s of it"
    cpu, energy = (finite(training.get(name)) for name in ("cpu_seconds", "energy_wh_estimate"))
    used = ""
    if cpu is not None and energy is not None:
        by = training.get("energy_estimated_by")
        used = f" That is {number(cpu, 0)} CPU seconds and an estimated {number(energy, 2)} Wh (by {by})."
    return f"Training, with what all of these share, took {number(seconds, 0)} s{peak}{share}.{used}"


def verdict(evaluation: Mapping[str, Any], best: str | None) -> dict[str, str]:
    """Does the challenger beat the best baseline, and the champion?"""
    models = evaluation["models"]
    if best is None or "challenger" not in models:
        return {"answer": "missing", "text": "A challenger and a baseline are needed.", "champion": ""}
    pair, name = difference(evaluation, best), words(best)
    ours, theirs = (figure(mapping(models[one])) for one in ("challenger", best))
    share = f", {number(100 * (ours / theirs - 1), 0, sign=True)}%" if ours is not None and theirs else ""
    leader = "The challenger" if (pair.value or 0) > 0 else f"The baseline {name}"
    text = {
        "yes": f"The challenger beats the best baseline, {name}: {pair.figures}{share}.",
        "no": f"A baseline wins, {name}: challenger − {name} is {pair.figures}{share}.",
        "unsure": f"{leader} leads, but not surely: challenger − {name} is {pair.figures}{share}.",
        "missing": f"Only means are known: challenger {number(ours)}, {name} {number(theirs)}.",
    }[pair.answer]
    champion = difference(evaluation, "champion")
    than = {"yes": "better than", "no": "worse than", "unsure": "not distinguishable from", "missing": ""}
    served = (
        f"It is {than[champion.answer]} the champion in service: {champion.figures}, every user alike; the "
        "promotion weighs users by the root of their points."
    )
    unread = evaluation.get("not_comparable")
    left_out = f"The champion in service was left out: {unread}." if unread else ""
    return {
        "answer": pair.answer,
        "text": text,
        "champion": left_out if champion.answer == "missing" else f"{served}{_left_out_points(evaluation)}",
    }


def _left_out_points(evaluation: Mapping[str, Any]) -> str:
    count = finite(mapping(evaluation.get("comparison")).get("points_left_out")) or 0
    return f" {number(count, 0)} points that one of the two knew already do not count." if count else ""
