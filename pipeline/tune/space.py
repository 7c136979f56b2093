"""What `evergreen tune` may vary: keys of params.yaml, each with a range or a list of values.

Spelled as on the command line: `1e-5..3e-4` (a number between; logarithmic where it is no whole one), `gru,
mean` or `["{title}", "{title}. {description}"]` (one of these). What a value is by now is always among them.
Keys that say what is measured (windows, points, successes), where data come from or what is decided are not
searched: their figures could not be compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.errors import ConfigError
from pipeline.loop.overrides import with_value
from pipeline.params import Params, parsed

KNOWN = {
    "finetune.user_tower": "gru, transformer, recency, mean",
    "recommend.candidates": "200..800",
    "preprocess.min_user_interactions": "0..20",
    "preprocess.max_text_characters": "250, 500, 1000, 2000",
    "preprocess.keywords": "0, 8, 16",
    "preprocess.item_text": None,
    "finetune.encoder": None,
    "finetune.max_length": "32, 64, 128, 256",
    "finetune.epochs": "0..4",
    "finetune.batch_size": "64, 128, 256, 512",
    "finetune.learning_rate": "1e-5..3e-4",
    "finetune.trainable_layers": "0..4",
    "finetune.lora_rank": "null, 4, 8, 16",
    "finetune.encode_per_step": "64, 128, 256",
    "finetune.cache_steps": "20, 100, 400",
}
"""Keys that may be searched, and their values where none are given; None: these have to be given."""
SEARCHED = ("finetune.user_tower", "recommend.candidates", "preprocess.min_user_interactions")
"""By default: they are cheap, as the texts' vectors stay."""

Value = str | int | float | None
Values = dict[str, Value]


@dataclass(frozen=True)
class Dimension:
    """One of `choices`, or where there are none a number from `low` to `high`."""

    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def suggest(self, trial: Any, key: str) -> Value:
        """What Optuna's `trial` tries."""
        if self.choices:
            return trial.suggest_categorical(key, self.choices)
        if self.whole:
            return trial.suggest_int(key, self.low, self.high)
        return trial.suggest_float(key, self.low, self.high, log=self.low > 0)

    def with_value(self, value: Value) -> Dimension:
        """The same with this value among them."""
        if self.choices:
            return self if value in self.choices else Dimension((value, *self.choices))
        if value is None or isinstance(value, str):
            raise ValueError(f"params.yaml says {_spelled(value)}, which no range has: list the values")
        low, high = min(self.low, value), max(self.high, value)
        if isinstance(value, int) and low == int(low) and high == int(high):  # 1e3 of a key of whole numbers
            low, high = int(low), int(high)
        return Dimension((), low, high)

    def __str__(self) -> str:
        return (
            ", ".join(map(_spelled, self.choices))
            if self.choices
            else f"{_spelled(self.low)}..{_spelled(self.high)}"
        )


@dataclass(frozen=True)
class Space:
    """params.yaml, and what of it is searched."""

    text: str  # of params.yaml
    dimensions: dict[str, Dimension]

    @classmethod
    def of(cls, text: str, wanted: Sequence[str] = ()) -> Space:
        """`wanted`: KEY or KEY=VALUES each; none: SEARCHED. Raises ConfigError where that cannot be."""
        params, dimensions = parsed(text), {}
        for spelled in wanted or SEARCHED:
            key, _, values = (part.strip() for part in spelled.partition("="))
            if key in dimensions:
                raise ConfigError(f"--search {key}: given twice: write all its values in one")
            dimensions[key] = _dimension(key, values, _now(params, key))
        space = cls(text, dimensions)
        for key, dimension in dimensions.items():
            for value in dimension.choices or (dimension.low, dimension.high):
                parsed(space.params_text({key: value}), f"--search {key}")
        return space

    @property
    def as_is(self) -> Values:
        """What params.yaml says."""
        params = parsed(self.text)
        return {key: _now(params, key) for key in self.dimensions}

    def suggest(self, trial: Any) -> Values:
        return {key: dimension.suggest(trial, key) for key, dimension in self.dimensions.items()}

    def params_text(self, values: Mapping[str, Value]) -> str:
        """params.yaml with these."""
        text = self.text
        for key, value in values.items():
            section, _, name = key.partition(".")
            text = with_value(text, (section, name), value)
        return text


def _now(params: Params, key: str) -> Value:
    if key not in KNOWN:
        raise ConfigError(
            f"--search {key}: not searched: it is none of {', '.join(KNOWN)}; other keys say what is "
            "measured or decided, so their figures could not be compared"
        )
    section, _, name = key.partition(".")
    value: Value = getattr(getattr(params, section), name)
    return value


def _dimension(key: str, values: str, now: Value) -> Dimension:
    spelled = values or KNOWN[key]
    if not spelled:
        raise ConfigError(f'--search {key}: give its values: --search \'{key}=["one", "other"]\'')
    try:
        return _read(spelled).with_value(now)
    except (ValueError, yaml.YAMLError) as error:
        said = "no such list" if isinstance(error, yaml.YAMLError) else error
        raise ConfigError(f"--search {key}={spelled}: write LOW..HIGH or VALUE,VALUE: {said}") from None


def _read(spelled: str) -> Dimension:
    if found := re.fullmatch(r"\s*(\S+?)\s*\.\.\s*(\S+?)\s*", spelled):
        low, high = map(_number, found.groups())
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"{low} is not below {high}" if not low < high else "a range has two ends")
        return Dimension((), low, high)
    listed = yaml.safe_load(spelled if spelled.lstrip().startswith("[") else f"[{spelled}]")
    if not all(value is None or isinstance(value, str | int | float) for value in listed) or not listed:
        raise ValueError("no such list")
    return Dimension(tuple(dict.fromkeys(map(_unquoted, listed))))


def _unquoted(value: Value) -> Value:
    """YAML takes 1e-5, without a point, for a text: beside 1.0e-5 it would be a value of its own."""
    return float(value) if isinstance(value, str) and re.fullmatch(r"[\d.]+[eE][-+]?\d+", value) else value


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _spelled(value: Value) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
