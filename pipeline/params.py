"""params.yaml as typed, frozen settings: one class a section; unknown keys are refused by name."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from pipeline.errors import ConfigError
from pipeline.file_settings import Files, Section

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
OURS = {"user_id", "item_id", "timestamp", "event", "value", "text", "title", "categories"}
OURS |= {"available_from", "available_until", "graph_relations", "graph_entities"}


def utc(value: object) -> datetime | None:
    """An ISO 8601 string as UTC; without a zone it means UTC. Raises ValueError."""
    if value is None:
        return None
    if not isinstance(value, str | datetime):
        raise ValueError('write it in quotes, as ISO 8601: "1998-03-01"')
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f'{value!r} is no ISO 8601 time; write it like "1998-03-01"') from None
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{value!r} is not within the years 1 to 9999 of UTC") from None


def past(moment: datetime | None) -> datetime | None:
    """The same. Raises ValueError for a time that is still to come: all would be old by then."""
    if moment is not None and moment > datetime.now(UTC):
        raise ValueError(f"{moment.isoformat()} is in the future: name a time until now")
    return moment


def withheld(name: str) -> str:
    """The same. Raises ValueError for a column that the pipeline itself works with."""
    if name in OURS:
        raise ValueError(f"{name} is a column of the contract's own: leave it out of the source instead")
    return name


class Sql(Section):
    """Queries name their columns like the contract's tables: SELECT customer AS user_id, ..."""

    url: str | None
    """SQLAlchemy's address of a database; ${NAME} is taken from the environment."""
    interactions: str | None
    """`:as_of` in it is collect.as_of; the end of time if that is null."""
    items: str | None
    users: str | None
    relations: str | None = None


class Collect(Section):
    source: str
    """A module of pipeline/sources/, with - for _."""
    as_of: Annotated[datetime | None, BeforeValidator(utc), AfterValidator(past)]
    """The data is read as if it were this moment; later rows are set apart. null: the last kept row."""
    path: str | None
    """movielens: folder or zip archive."""
    url: str | None
    """movielens: archive to download when there is no path."""
    sha256: str | None
    """movielens: checksum of the archive."""
    files: Files
    sql: Sql
    feedback: str | None = None
    """SQLAlchemy's address of the service's event store (EVERGREEN_EVENTS), whose events join the source's
    interactions; ${NAME} is taken from the environment."""
    pseudonyms: bool = False
    """Users' ids become keyed hashes before anything is written; the key: EVERGREEN_PSEUDONYM_KEY
    (pipeline/data/pseudonyms.py)."""
    max_rejected_share: Share
    """More bad rows than this fail the stage before anything is replaced."""
    min_joined_share: Share
    """A smaller share of interactions whose item the table of items has fails it, too."""


class Positive(Section):
    events: list[str] | None
    """Events that count as success; null: all."""
    min_value: float | None
    """Least value of a success, for rows that have one; null: every row."""


class Floors(Section):
    """Effects below which nothing is called drift, however sure it is. Shares: of rows, 0.05 = 5 points."""

    missing: Share
    """Rise of a column's share of empty cells."""
    volume: Annotated[float, Field(gt=0)]
    """Rows a day: 0.5 = half as many again, or a third less."""
    events: Share
    """Total variation of the events: the share of rows whose event would have to change."""
    values: Share
    """Largest gap between the cumulative distributions of the values."""
    user_activity: Share
    """The same, of rows a user and active day."""
    new_users: Share
    """Change of the share of rows of users not met before the window."""
    new_items: Share
    """The same of items."""
    item_popularity: Share
    """Total variation of the items' shares of the rows."""
    categories: Share
    """Total variation of the categories' shares of the rows."""
    text: Annotated[float, Field(ge=0, le=0.5)]
    """How much better than 0.5 (guessing) a classifier of texts tells old from new rows (area under ROC)."""
    embedding: Annotated[float, Field(ge=0)]
    """Shift of the mean item vector, in units of the vectors' spread."""
    scores: Share
    """Largest gap between the cumulative distributions of the champion's top scores."""
    coverage: Share
    """Change of the share of the catalogue that the champion lists."""
    list_popularity: Share
    """Change of the mean popularity percentile of what the champion lists."""
    quality: Share
    """Relative loss of nDCG@10."""


class DetectDrift(Section):
    window_days: Annotated[float, Field(ge=0)]
    """A window of new rows does not close before; days from its first row."""
    min_rows: Annotated[int, Field(ge=10)]
    """Rows that a window holds at least; fewer are not enough data."""
    min_users: Annotated[int, Field(ge=2)]
    """Users that a window holds at least."""
    reference_windows: Count
    """Windows before fit_end that later ones are compared with."""
    reference_rows: Annotated[int, Field(ge=100)]
    """Above this, the reference is a sample of whole users."""
    current_rows: Annotated[int, Field(ge=100)]
    """The same for a window."""
    rows_per_user: Count
    """A user counts at most as much as this many rows, so that one heavy user decides nothing."""
    permutations: Annotated[int, Field(ge=99)]
    """Of users between the two sides; the least p-value is 1 / (1 + permutations)."""
    alpha: Annotated[float, Field(gt=0, lt=1)]
    """False alarms that are accepted, over all signals of a window together (Holm)."""
    quality_points: Annotated[int, Field(ge=10)]
    """Points a side at which the champion is asked for its lists."""
    floors: Floors


class DecideRetraining(Section):
    """Now is the data's as_of: days are days of data, not of the calendar on the wall."""

    max_age_days: Annotated[float | None, Field(gt=0)]
    """A training is due when the data is this much later than that of the last one, promoted or not."""
    max_new_share: Annotated[float | None, Field(gt=0)]
    """A training is due when this many rows came since the last one, as a share of those that it had."""
    drift: Literal["refresh", "full", "ignore"]
    """What confirmed drift of another signal than quality calls for."""
    quality_drop: Literal["refresh", "full", "ignore"]
    """What it calls for that the champion's nDCG@10 fell below its own at promotion."""
    min_new_rows: Annotated[int, Field(ge=0)]
    """Fewer rows since the last training hold back whatever calls for one."""
    min_gap_days: Annotated[float, Field(ge=0)]
    """The least time between trainings."""
    label_delay_days: Annotated[float, Field(ge=0)]
    """Until it is known what users made of what they saw; a younger window's quality counts for nothing."""
    max_trainings_per_month: Count | None
    """More are held back; a month is 30 days of data. null: no limit."""
    max_seconds_per_month: Annotated[float | None, Field(gt=0)]
    """Likewise seconds of training."""
    max_forgotten_share: Annotated[float | None, Field(gt=0)]
    """A full training is due when the rows of people forgotten since the last one are this share of all."""
    max_forgotten_days: Annotated[float | None, Field(gt=0)]
    """And when the champion has learned from somebody who was forgotten this long ago, refused or not."""
    full_every: Count | None
    """Of so many trainings at least one is full, where only refreshes are called for; 1: all. null: none."""


class Preprocess(Section):
    engine: Literal["duckdb", "spark"] = "duckdb"
    """Who computes; the tables are the same. spark wants the extra `spark` and Java 17 or later."""
    spark_master: str | None = None
    """Of engine spark: a cluster (spark://HOST:7077), whose workers have this folder at the same path; null:
    this machine (local[*])."""
    min_user_interactions: Annotated[int, Field(ge=0)]
    """Users with fewer rows in train are left out of fitting (never out of evaluation)."""
    validation_share: Annotated[float, Field(gt=0, lt=1)]
    """Of all interactions."""
    test_share: Annotated[float, Field(gt=0, lt=1)]
    positive: Positive
    repeats: Literal["exclude", "include"]
    """include: what a user has met before may be a point and may be listed (coffee, songs)."""
    max_points_per_user: Count
    item_text: str
    """Template over title, year, categories, description, tags and any further column of items."""
    max_text_characters: Count
    """Longer texts are cut."""
    never_features: list[Annotated[str, AfterValidator(withheld)]] = Field(default_factory=list)
    """Columns of users and items, and relations, that no model may see; the evaluation groups by them."""
    keywords: Annotated[int, Field(ge=0, le=50)] = 0
    """Of each item's text, by which items are compared where held-back points gain by it; wants the extra
    `keywords` and some 6 ms a text. 0: none."""


class Private(Section):
    epsilon: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    """What the model may tell of any one user, with delta (docs/privacy.md); null: no budget, nothing is
    added to weights and nothing left out."""
    delta: Annotated[float, Field(gt=0, lt=0.1)] = 1e-5
    """The chance that it tells more; far below one over the number of users."""


class Finetune(Section):
    encoder: str
    """package:NAME/SUBDIR (a model inside an installed package), a local folder, or a hub id."""
    max_length: Annotated[int, Field(ge=4, le=8192)]
    """Tokens of an item's text that are read."""
    epochs: Annotated[int, Field(ge=0)]
    """At most; early stopping on validation nDCG@10 may end before. 0 leaves the encoder as it came."""
    batch_size: Annotated[int, Field(ge=2)]
    """Points (history, target) a step."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak, of the encoder; linear warm-up, cosine decay."""
    trainable_layers: Annotated[int, Field(ge=0)]
    """Topmost transformer layers that are trained; the rest are frozen, their activations computed once. As
    many as there are, or more: the embeddings are trained too."""
    lora_rank: Count | None
    """Rank of the low-rank corrections (peft) that are trained in place of those layers' weights."""
    encode_per_step: Count
    """Items a step that are encoded with gradients, a random choice of those that its points need."""
    cache_steps: Annotated[int, Field(ge=0)]
    """Steps for which the vectors of the other items are taken from a cache; older ones are encoded again.
    0: no cache, all items of a step are trained, however many: exact, and many times slower."""
    accumulate: Count
    """Batches a step of the optimiser, while the encoder is trained."""
    user_tower: Literal["mean", "recency", "gru", "transformer"]
    """How a user's items in time order become a vector (pipeline/models/towers.py)."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "32", "bf16", "16"]
    """Of the encoder in training. auto: bf16-mixed where processor or GPU is quicker in it, else 32-true."""
    devices: int | str
    num_nodes: Count
    strategy: str
    erase: str | None = None
    """A column of users, e.g. gender: what text vectors tell of it, linearly, is taken out of them."""
    refresh_of: str | None = None
    """A version whose encoder is kept while all else is fitted anew, in a fraction of the time; null: a full
    training. `evergreen cycle` sets it for a run."""
    privacy: Private = Field(default_factory=Private)


class Evaluate(Section):
    k: Annotated[int, Field(ge=10)]
    """Length of the ranked lists; the headline is @10."""
    bootstrap_samples: Annotated[int, Field(ge=100)]
    live_delay_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """How long after an interaction the live state knows of it, in training and evaluation alike."""


class DecidePromotion(Section):
    approval: Literal["auto", "human"]
    """human: an allowed promotion waits for `evergreen registry promote`."""
    tolerance: Share
    """Share of the champion's nDCG@10. The difference's lower bound must be above minus this."""
    min_gain: Share
    """Share of the champion's nDCG@10. The mean difference must be above this: what another seed gives."""
    min_users: Count
    """Users among the compared points; with fewer the models are not comparable. Also to guard a slice."""
    min_points: Count
    """Points that are later than the fit_end of both models; with fewer they are not comparable."""
    slice_guard: Share
    """Share of the champion's nDCG@10 on a slice that may be lost; more blocks, if it is no chance."""
    coverage_guard: Share
    """Share of the champion's coverage@10 that may be lost. A better model often lists less of what nobody
    takes; the guard stops a collapse."""
    popularity_guard: Share
    """How far the mean popularity percentile of what is listed may rise, as a share of the way from the
    champion's to 1, the most popular item's."""
    fairness_guard: Share | None
    """Share of the champion's nDCG@10 by which a group of users may fall behind all others, and of the
    attention that may move away from what users take. More blocks, if it is no chance; null: nothing does."""
    long_term_guard: Share | None = None
    """Share of the champion's figure that the challenger may lose in ten rounds of its own feedback
    (pipeline/simulation); more blocks, if it is no chance. It is simulated before the decision, in minutes.
    null: nothing is asked for, and what was simulated is told."""
    max_ms_per_list: Annotated[float | None, Field(gt=0)]
    """Milliseconds a list, many at once, on the machine that evaluates; null: no limit."""
    max_model_mib: Annotated[float | None, Field(gt=0)]
    """Size of the model folder; null: no limit."""
    accept_new_features: bool
    """true: the challenger's scorer may have other features than the champion's."""
    replace_unread: str | None
    """A champion's version that this code cannot read, to be replaced without a comparison with it."""


class Recommend(Section):
    k: Count
    candidates: Annotated[int, Field(ge=50)]
    """Items that the retrievers together bring to the scorer, at most."""
    exposure_floors: dict[str, dict[str, Annotated[float, Field(gt=0, le=1)]]] = Field(default_factory=dict)
    """Way to group items -> group -> least share of a list's attention, of the stage's lists
    (pipeline/models/floors.py). The evaluation says what it costs."""


class Serve(Section):
    challenger_share: Share
    """Of the users, whose lists are drawn from champion and challenger in turns."""
    exploration: Share
    """Of the lists asked for by a user_id alone, those whose last places are left to chance."""
    retention_days: Annotated[float, Field(gt=0)] | None
    """After which the event store lets go of what was shown, and of events that `collect` does not read."""
    copy_model: str | None
    """A causal language model that writes a line for a listed item (`explain: "copy"`); null = none."""


class YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """libyaml where there is one: ten times faster."""


class Params(Section):
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    collect: Collect
    detect_drift: DetectDrift
    decide_retraining: DecideRetraining
    preprocess: Preprocess
    finetune: Finetune
    evaluate: Evaluate
    decide_promotion: DecidePromotion
    recommend: Recommend
    serve: Serve

    @classmethod
    def load(cls, path: Path) -> "Params":
        """Read and check the whole file. Raises ConfigError naming every wrong key at once."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file: run from the project's folder") from None
        return parsed(text, str(path))


def parsed(text: str, name: str = "params.yaml") -> Params:
    """The content of a params.yaml; `name`: whose, for the ConfigError that names every wrong key at once."""
    try:
        return Params.model_validate(yaml.load(text, Loader=YamlLoader))
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not YAML: {_place(error)}") from None
    except ValidationError as error:
        raise ConfigError(f"{name}: {'; '.join(_problems(error))}") from None


def _place(error: yaml.YAMLError) -> str:
    """One line: the error's own text has several, with an arrow under the place."""
    mark, what = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}: {what}" if mark and what else " ".join(str(error).split())


def _problems(error: ValidationError) -> list[str]:
    """What is wrong, in the order of the file; several keys that one section lacks are one problem."""
    missing: dict[str, list[str]] = {}
    for detail in error.errors():
        if detail["type"] == "missing":
            *path, key = map(str, detail["loc"])
            missing.setdefault(".".join(path), []).append(key)
    problems: dict[str, None] = {}
    for detail in error.errors():
        section = ".".join(map(str, detail["loc"][:-1]))
        keys = missing.get(section, []) if detail["type"] == "missing" else []
        problems[_incomplete(section, keys) if len(keys) > 1 else _problem(detail)] = None
    return list(problems)


def _incomplete(section: str, keys: list[str]) -> str:
    return (
        f"{section or 'the file'} lacks {len(keys)} keys ({', '.join(keys)}): every key must be there: "
        "change values inside the committed section instead of pasting another in its place "
        "(`git diff params.yaml` shows what went, `git checkout params.yaml` brings all back)"
    )


def _problem(detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{key}: unknown key; remove it or correct its name"
    if detail["type"] == "missing":
        return f"{key}: missing; add it (see the committed params.yaml)"
    return f"{key}: {detail['msg'].removeprefix('Value error, ')} (found {detail['input']!r})"
