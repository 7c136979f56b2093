"""The gate's rules on a challenger against the champion in service, and on its budget.

In: what decide_promotion was given (`Case`). Out: one check a rule; pipeline/stages/decide_promotion.py tells
the rules. Whatever is missing fails its check with a text that says so; nothing here raises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from statistics import NormalDist

from pipeline.documents.base import Number
from pipeline.documents.evaluation import Comparison, Difference, Evaluation, Weighted
from pipeline.documents.promotion import Check, Model
from pipeline.documents.simulation import LongTerm
from pipeline.evaluation.fairness_verdict import verdict
from pipeline.evaluation.long_term_verdict import verdict as long_term_verdict
from pipeline.params import DecidePromotion

EVERYWHERE, CHALLENGER, CHAMPION = "all", "challenger", "champion"
COVERAGE, POPULARITY = "coverage@10", "popularity_percentile@10"
GUARDED = ("cold_items", "cold_users")  # slices that a comparison must hold, whatever else it holds
WEIGHTED = "users weighted by the root of their points"
ALPHA = 0.05  # of all slices' intervals together

Interval = tuple[float, float, float]  # mean, lower and upper end


@dataclass(frozen=True)
class Case:
    """What is decided upon."""

    evaluation: Evaluation | None
    challenger: Model
    champion: Model | None
    """None: there is none yet."""
    settings: DecidePromotion
    simulation: LongTerm | None = None

    @property
    def why_free(self) -> str | None:
        """Why nothing is compared with the champion; None if everything is."""
        if self.champion is None:
            return "no champion yet"
        version, unread = self.champion.version, self.not_comparable
        if version is not None and unread and version == self.settings.replace_unread:
            return f"not compared: decide_promotion.replace_unread names {version}, and {unread}"
        return None

    @property
    def not_comparable(self) -> str | None:
        return self.evaluation.not_comparable if self.evaluation else None

    @property
    def comparison(self) -> Comparison:
        """Without content where challenger and champion were not compared."""
        return (self.evaluation and self.evaluation.comparison) or Comparison()

    def paired(self, name: str) -> Difference | None:
        """challenger - model, every user alike."""
        return self.evaluation.paired.get(name) if self.evaluation else None

    @property
    def pair(self) -> Interval | None:
        """Of challenger - champion, users weighted by the square root of their points."""
        return interval(self.comparison.slices.get(EVERYWHERE))

    @property
    def base(self) -> float | None:
        """The champion's nDCG@10 at the compared points, weighted alike."""
        everywhere = self.comparison.slices.get(EVERYWHERE)
        value = everywhere.champion if everywhere else None
        return value if value is not None and value >= 0 else None


def checked(name: str, passed: bool, value: str | Number, limit: str | Number, text: str) -> Check:
    return Check(name=name, passed=passed, value=value, limit=limit, text=text)


def free(name: str, why: str) -> Check:
    """A check that has nothing to compare with, and passes."""
    return checked(name, True, None, None, why)


# The budget -------------------------------------------------------------------------------------------------


def latency(case: Case) -> Check:
    limit = case.settings.max_ms_per_list
    value = case.evaluation.ms_per_list.get(CHALLENGER) if case.evaluation else None
    return _at_most("latency", value, limit, "ms a list", "max_ms_per_list")


def size(case: Case) -> Check:
    limit = case.settings.max_model_mib
    return _at_most("size", case.challenger.mib, limit, "MiB of model", "max_model_mib")


def _at_most(name: str, value: float | None, limit: float | None, unit: str, key: str) -> Check:
    if limit is None:
        return checked(name, True, value, None, f"no limit (decide_promotion.{key})")
    if value is None or value < 0:
        return checked(name, False, None, limit, f"{unit}: not measured")
    passed = value <= limit
    text = f"{value:,.1f} {unit}, {'within' if passed else 'above'} the limit of {limit:,g}"
    return checked(name, passed, value, limit, text)


# Reasons ----------------------------------------------------------------------------------------------------


def faithfulness(case: Case) -> Check:
    """Whether the challenger's reasons are true; `investigate` is told, and stops nothing."""
    name, found = "faithfulness", case.evaluation.faithfulness if case.evaluation else None
    if found is None or found.items is None:
        return checked(name, False, None, 0.0, "whether reasons are true was not measured")
    if found.items == 0:
        return free(name, "no reason names an item of a history")
    gain, low, high = found.difference, found.low, found.high
    if gain is None or low is None or high is None or not low <= gain <= high:
        return checked(name, False, None, 0.0, "no usable measure of whether reasons are true")
    text = (
        f"a score falls {gain:+.3f} [{low:+.3f}, {high:+.3f}] more without the history item that a reason "
        "names than without another"
    )
    if high <= 0:
        return checked(name, False, gain, 0.0, f"{text}: what reasons say is surely not why")
    return checked(name, True, gain, 0.0, text if low > 0 else f"investigate: {text}")


# Against the champion --------------------------------------------------------------------------------------


def against_champion(case: Case) -> list[Check]:
    rules = {
        "comparable": _comparable,
        "users": _users,
        "points": _points,
        "beats_champion": _beats_champion,
        "min_gain": _min_gain,
        "headline": _headline,
        "slices": _slices,
        "coverage": _coverage,
        "popularity": _popularity,
        "fairness": _fairness,
        "features": _features,
        "off_policy": _off_policy,
        "long_term": long_term,
    }
    if case.why_free:
        return [free(name, case.why_free) for name in rules]
    return [rule(case) for rule in rules.values()]


def _comparable(case: Case) -> Check:
    assert case.champion is not None  # else free
    after = case.evaluation.points_after if case.evaluation else None
    ends = [end for end in (case.challenger.fit_end, case.champion.fit_end) if end is not None]
    limit = max(ends) if len(ends) == 2 else None
    evaluated = case.evaluation.artifact_hash.get(CHAMPION) if case.evaluation else None
    if case.not_comparable:
        text = f"not comparable with the champion: {case.not_comparable}"
    elif case.evaluation is None or case.evaluation.comparison is None:
        text = "not comparable: the evaluation has no comparison with the champion"
    elif evaluated is None or evaluated != case.champion.artifact_hash:
        text = "not comparable: another champion was evaluated: run `dvc repro decide_promotion`"
    elif after is None or limit is None:
        text = "not comparable: it is not said after which moment points are new to both models"
    elif after < limit:
        text = f"not comparable: points from {iso(after)} on were compared, one model knows {iso(limit)}"
    else:
        text = f"compared at points after {iso(after)}, which are new to both"
        return checked("comparable", True, iso(after), iso(limit), text)
    return checked("comparable", False, iso(after), iso(limit), text)


def _users(case: Case) -> Check:
    return _enough("users", case.comparison.users, case.settings.min_users)


def _points(case: Case) -> Check:
    return _enough("points", case.comparison.points, case.settings.min_points)


def _enough(name: str, value: Number, limit: int) -> Check:
    if value is None:
        return checked(
            name, False, None, limit, f"not comparable: the number of {name} compared is not known"
        )
    count = f"{value:,.0f} {name} compared"
    passed = value >= limit
    text = count if passed else f"not comparable: {count}, at least {limit:,} are needed"
    return checked(name, passed, value, limit, text)


def _beats_champion(case: Case) -> Check:
    if case.pair is None or case.base is None:
        return checked("beats_champion", False, None, None, "no usable comparison with the champion")
    _, low, _ = case.pair
    limit = 0.0 - case.settings.tolerance * case.base
    passed = low > limit
    text = f"{figures(case.pair)} against champion ({WEIGHTED})"
    return checked(
        "beats_champion", passed, low, limit, text if passed else f"{text}, not surely above {limit:g}"
    )


def _min_gain(case: Case) -> Check:
    if case.pair is None or case.base is None:
        return checked("min_gain", False, None, None, "no usable comparison with the champion")
    gain, limit = case.pair[0], case.settings.min_gain * case.base
    share = f" ({gain / case.base:+.1%} of the champion's)" if case.base else ""
    passed = gain > limit
    text = (
        f"nDCG@10 {gain:+.4f}{share}, {'more' if passed else 'not more'} than the least gain {limit:+.4f} "
        f"({WEIGHTED})"
    )
    return checked("min_gain", passed, gain, limit, text)


def _headline(case: Case) -> Check:
    """The reported difference, where every user counts alike, must at least not be surely a loss."""
    pair = interval(case.paired(CHAMPION))
    if pair is None:
        return checked("headline", False, None, 0.0, unusable(case, CHAMPION))
    passed = pair[2] >= 0
    text = f"{figures(pair)} against champion with every user alike, as the table of results reports it"
    return checked("headline", passed, pair[2], 0.0, text if passed else f"{text}: surely below 0")


def _slices(case: Case) -> Check:
    found, guard = case.comparison.slices, case.settings.slice_guard
    if not set(GUARDED) <= set(found):
        return checked("slices", False, None, -guard, "the slices were not compared")
    sizes = {name: of.users for name, of in found.items() if name != EVERYWHERE}
    if unknown := sorted(name for name, users in sizes.items() if users is None or users < 0):
        return checked("slices", False, None, -guard, f"slices of unknown size: {', '.join(unknown)}")
    least = case.settings.min_users
    guarded = [name for name, users in sizes.items() if users is not None and users >= least]
    slices = {name: _Slice.of(found[name], len(guarded)) for name in guarded}
    if broken := sorted(name for name, one in slices.items() if one is None):
        return checked("slices", False, None, -guard, f"no usable comparison on {', '.join(broken)}")
    kept = {name: one for name, one in slices.items() if one is not None}
    small = f"; {rest} too small to guard" if (rest := len(sizes) - len(kept)) else ""
    if not kept:
        return checked("slices", True, None, -guard, f"no slice has {case.settings.min_users} users{small}")
    worst = min(kept, key=lambda name: kept[name].share)
    lost = [f"{name} {one}" for name, one in kept.items() if one.share < -guard and one.high < 0]
    value = kept[worst].share if math.isfinite(kept[worst].share) else None
    if lost:
        text = f"loses more than {guard:.0%} of nDCG@10 on {'; '.join(lost)}"
        return checked("slices", False, value, -guard, text)
    text = (
        f"none of {len(kept)} slices surely loses more than {guard:.0%}; worst {worst} {kept[worst]}{small}"
    )
    return checked("slices", True, value, -guard, text)


@dataclass(frozen=True)
class _Slice:
    """challenger - champion on a slice, with the interval that holds for `slices` of them at once."""

    gain: float
    low: float
    high: float
    share: float  # of the champion's figure
    users: float

    @classmethod
    def of(cls, found: Weighted, slices: int) -> _Slice | None:
        gain, base, error, users = found.ndcg, found.champion, found.error, found.users
        if gain is None or base is None or error is None or users is None or base < 0 or error < 0:
            return None
        width = NormalDist().inv_cdf(1 - ALPHA / 2 / slices) * error
        share = gain / base if base else (math.inf if gain > 0 else 0.0)
        return cls(gain, gain - width, gain + width, share, users)

    def __str__(self) -> str:
        ends = f"[{self.low:+.4f}, {self.high:+.4f}]"
        return f"{self.gain:+.4f} {ends} ({self.share:+.0%}, {self.users:,.0f} users)"


def _coverage(case: Case) -> Check:
    ours, theirs = _beside(case, COVERAGE)
    if ours is None or theirs is None:
        return checked("coverage", False, ours, None, "coverage of challenger or champion: not measured")
    limit = (1 - case.settings.coverage_guard) * theirs
    passed = ours >= limit
    text = f"lists {ours:.1%} of what is on offer, the champion {theirs:.1%}"
    return checked("coverage", passed, ours, limit, text if passed else f"{text}: less than {limit:.1%}")


def _popularity(case: Case) -> Check:
    ours, theirs = _beside(case, POPULARITY)
    if ours is None or theirs is None:
        return checked("popularity", False, ours, None, "popularity of what is listed: not measured")
    limit = theirs + case.settings.popularity_guard * (1 - theirs)
    passed = ours <= limit
    text = (
        f"lists items of popularity percentile {100 * ours:.1f} on average, the champion {100 * theirs:.1f}"
    )
    return checked("popularity", passed, ours, limit, text if passed else f"{text}: above {100 * limit:.1f}")


def _beside(case: Case, key: str) -> tuple[float | None, float | None]:
    return case.comparison.challenger.get(key), case.comparison.champion.get(key)


def _fairness(case: Case) -> Check:
    rows, guard = case.comparison.fairness, case.settings.fairness_guard
    if rows is None:
        return checked("fairness", False, None, guard, "fairness was not measured")
    if not rows:
        return free("fairness", "neither groups of users nor of items to compare")
    passed, value, text = verdict(rows, guard)
    return checked("fairness", passed, value, guard, text)


def _features(case: Case) -> Check:
    assert case.champion is not None  # else free
    ours, theirs = case.challenger.features, case.champion.features
    if not ours or not theirs:
        text = "the features of challenger or champion are not known"
        return checked("features", False, None, None, text)
    new, gone = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    changes = [f"{word} {', '.join(names)}" for word, names in (("new:", new), ("gone:", gone)) if names]
    if not changes:
        return checked("features", True, len(ours), len(theirs), f"the same {len(ours)} features")
    text = f"features {'; '.join(changes)}"
    if case.settings.accept_new_features:
        return checked("features", True, len(ours), len(theirs), f"{text} (accepted by the params)")
    text = f"{text}: if that is meant, set decide_promotion.accept_new_features"
    return checked("features", False, len(ours), len(theirs), text)


def _off_policy(case: Case) -> Check:
    """What people took of places left to chance; `investigate` is told, and stops nothing."""
    if case.evaluation is None or case.evaluation.comparison is None:
        return checked("off_policy", False, None, 0.0, "the evaluation has no comparison with the champion")
    found = case.comparison.off_policy
    if found is None:
        return free("off_policy", "no lists with places left to chance (serve.exploration) to learn from")
    gain, low, high = found.difference, found.low, found.high
    if gain is None or low is None or high is None or not low <= gain <= high:
        return checked("off_policy", False, None, 0.0, "no usable estimate from places left to chance")
    text = (
        f"{found.answer}: {gain:+.4f} [{low:+.4f}, {high:+.4f}] items taken a place left to chance, of "
        f"{found.places or 0:,.0f} places and {found.users or 0:,.0f} users"
    )
    passed = not (found.answer == "not better" and high < 0)
    return checked("off_policy", passed, gain, 0.0, text if passed else f"{text}: surely below 0")


def long_term(case: Case) -> Check:
    """Where feedback leads; where no guard asks for it, a simulation is told, and stops nothing."""
    assert case.champion is not None  # else free
    guard, found = case.settings.long_term_guard, case.simulation
    pair = (case.challenger.artifact_hash, case.champion.artifact_hash)
    ours = found is not None and None not in pair and (found.challenger, found.champion) == pair
    if found is None or not ours or not found.measures:
        if guard is None:
            return free("long_term", "not simulated (`evergreen simulate`; decide_promotion.long_term_guard)")
        text = "no simulation of these two models, as long_term_guard asks for: run `evergreen simulate`"
        return checked("long_term", False, None, guard, text)
    passed, value, told = long_term_verdict(found.measures, guard)
    text = f"{told}, over {found.rounds} retrainings, {found.replications} times"
    return checked("long_term", passed or guard is None, value, guard, text)


# Intervals --------------------------------------------------------------------------------------------------


def interval(pair: Difference | Weighted | None) -> Interval | None:
    """A paired difference, if it is three finite numbers in order."""
    if pair is None:
        return None
    gain, low, high = pair.ndcg, pair.low, pair.high
    if gain is None or low is None or high is None or not low <= gain <= high:
        return None
    return gain, low, high


def figures(pair: Interval) -> str:
    return f"nDCG@10 {pair[0]:+.4f} [{pair[1]:+.4f}, {pair[2]:+.4f}]"


def unusable(case: Case, name: str) -> str:
    """Why there is no difference from the model `name`."""
    what = "no usable comparison" if case.paired(name) else "not compared"
    return f"{what} with the {words(name)}"


def words(name: str) -> str:
    return name.replace("_", " ")


def iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
