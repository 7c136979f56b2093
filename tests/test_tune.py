"""`evergreen tune`: what may be searched, how a search goes on, and what of it DVC lists."""

import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tiny
import toy
import yaml

from pipeline.errors import ConfigError, DataError
from pipeline.loop.overrides import set_values
from pipeline.params import Params
from pipeline.tune import command, experiments
from pipeline.tune.page import take, verdict
from pipeline.tune.space import KNOWN, SEARCHED, Space
from pipeline.tune.trials import Measured, check_ahead

PARAMS = Path("params.yaml").read_text(encoding="utf-8")
DVC_YAML = """
stages:
  preprocess:
    cmd: python -m pipeline.stages.preprocess data/raw data/prepared
    deps: [data/raw]
    params: [preprocess]
    outs: [data/prepared]
metrics: [data/tuning.json]
"""


# The space


def test_every_key_that_may_be_searched_is_in_params_and_has_values_it_accepts() -> None:
    given = {
        "finetune.encoder": '["a", "b"]',
        "preprocess.item_text": '["{title}", "{title}, {description}"]',
    }
    wanted = [key if values else f"{key}={given[key]}" for key, values in KNOWN.items()]
    space = Space.of(PARAMS, wanted)
    assert set(space.dimensions) == set(KNOWN)
    # What params.yaml says is within every one of them.
    for key, now in space.as_is.items():
        assert space.dimensions[key].with_value(now) == space.dimensions[key]


def test_values_are_ranges_or_lists() -> None:
    space = Space.of(
        PARAMS, ["finetune.learning_rate=1e-5..1e-3", "finetune.epochs = 1..3", "finetune.lora_rank=4"]
    )
    rate, epochs, rank = space.dimensions.values()
    assert (rate.low, rate.high, rate.whole) == (1e-5, 1e-3, False)
    assert (epochs.low, epochs.high, epochs.whole) == (1, 3, True)
    assert rank.choices == (None, 4)  # as it is, too
    assert "lora_rank: 4 " in space.params_text({"finetune.lora_rank": 4})
    assert set(Space.of(PARAMS).dimensions) == set(SEARCHED)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("seed", "it is none of finetune.user_tower"),
        ("preprocess.test_share", "could not be compared"),
        ("finetune.epochs=3..1", "3 is not below 1"),
        ("finetune.epochs=a..b", "write LOW..HIGH"),
        ("finetune.user_tower=1..3", "says gru, which no range has"),
        ("finetune.lora_rank=1..8", "says null, which no range has: list"),
        ("finetune.learning_rate=1e-5..inf", "two ends"),
        ("finetune.epochs=1,,2", "no such list"),
        ("finetune.epochs=[1,2", "no such list"),
        ("finetune.user_tower=gru,lstm", "finetune.user_tower: Input should be"),
        ("recommend.candidates=1..100", "recommend.candidates"),
        ("preprocess.item_text", "give its values"),
    ],
)
def test_what_cannot_be_searched_is_told_in_one_line(wanted: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        Space.of(PARAMS, [wanted])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_count_however_they_are_spelled() -> None:
    wanted = ["finetune.learning_rate=1e-5,3e-5,1E-4", "recommend.candidates=100..1e3"]
    rate, candidates = Space.of(PARAMS, wanted).dimensions.values()
    assert rate.choices == (1e-5, 3e-5, 1e-4)  # the second is what params.yaml says: no value twice
    assert (candidates.low, candidates.high, candidates.whole) == (100, 1000, True)


def test_a_key_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"finetune\.epochs: given twice"):
        Space.of(PARAMS, ["finetune.epochs=0..3", "finetune.epochs=1,2"])


# The search, over a made-up quality: candidates alone matter, and 300 of them are best


class MadeUp:
    """In the place of Trials, whose trainings take a second each even here."""

    prunes = True
    base = SimpleNamespace(validation=SimpleNamespace(user=np.arange(50), __len__=lambda: 50))

    def __init__(self, raw: Path, data: Path, folder: Path, space: Space) -> None:
        self.space, self.params, self.asked = space, SimpleNamespace(seed=1), []
        MadeUp.last = self
        self.base = SimpleNamespace(validation=_Points())

    def measured(self, values: dict, share: float = 1.0) -> Measured:
        self.asked.append((values, share))
        if share == 1 and MadeUp.fails_at == len([1 for _, share in self.asked if share == 1]):
            raise MadeUp.error
        quality = 0.3 - abs(values["recommend.candidates"] - 300) / 2000
        return Measured(quality + np.linspace(-0.1, 0.1, 50), 1.5)

    fails_at: int | None = None
    error: BaseException = KeyboardInterrupt()
    last: "MadeUp"


class _Points:
    user = np.arange(50)

    def __len__(self) -> int:
        return 50


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in toy.environment().items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "data" / "tuning.json").write_text('{"validation_ndcg@10": null}\n')
    (folder / ".gitignore").write_text(toy.GIT_IGNORE)
    (folder / "dvc.lock").write_text("schema: '2.0'\n")
    toy.git(folder, "init", "-q", "-b", "main")
    toy.git(folder, "add", ".gitignore", "params.yaml", "data/tuning.json")
    toy.git(folder, "commit", "-q", "-m", "First")
    monkeypatch.setattr(command, "Trials", MadeUp)
    monkeypatch.setattr(command.repro, "repro", lambda *arguments: None)
    monkeypatch.setattr(command, "note_encoder", lambda root: None)
    monkeypatch.setattr(command, "check_ahead", lambda *arguments: None)
    monkeypatch.setattr(command, "checkpoint_key", lambda *arguments: "key")
    monkeypatch.setattr(command, "identify", lambda *arguments: None)
    monkeypatch.setattr(MadeUp, "fails_at", None)
    return folder


def test_a_search_finds_what_is_best_and_says_how_to_take_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "BEFORE_PRUNING", 2)
    lines: list[str] = []
    report = command.tune(project, 8, say=lines.append)
    assert len(report["trials"]) == len(lines) == 8
    assert report["trials"][0]["params"] == report["as_is"]
    best = report["best"]
    assert best["changed"]
    assert best["validation_ndcg@10"] == max(row["validation_ndcg@10"] or 0 for row in report["trials"])
    # Of every user alike, so the interval is the gain itself.
    assert best["gain"] == pytest.approx(
        best["validation_ndcg@10"] - report["trials"][0]["validation_ndcg@10"]
    )
    assert 0 < best["low"] <= best["gain"] <= best["high"]
    assert max(report["importance"], key=lambda key: report["importance"][key]) == "recommend.candidates"
    states = {row["state"] for row in report["trials"]}
    assert states == {"complete", "pruned"}
    pruned = [row for row in report["trials"] if row["state"] == "pruned"]
    assert all(row["validation_ndcg@10"] is None and row["first_look_ndcg@10"] for row in pruned)
    assert verdict(report)[0] == "yes"
    assert best["experiment"] in take(report)[0]
    assert f"recommend.candidates={best['params']['recommend.candidates']}" in take(report)[1]
    assert json.loads((project / "reports" / "tune.json").read_text()) == report
    assert "<svg" in (project / "reports" / "tune.html").read_text()
    assert (project / "params.yaml").read_text() == PARAMS


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preprocess.item_text", "{title}"),
        ("preprocess.item_text", "{title}: it's {year}. {categories}"),
        ("finetune.learning_rate", 2e-05),
        ("finetune.lora_rank", 4),
        ("finetune.user_tower", "mean"),
    ],
)
def test_the_line_that_takes_a_trial_over_can_be_typed_as_it_stands(
    tmp_path: Path, key: str, value: str | float
) -> None:
    best = {"changed": True, "experiment": "tune-x-1", "params": {key: value}}
    command_line = take({"best": best, "as_is": {key: None}})[1]
    assert command_line.startswith("evergreen cycle -S ")
    (tmp_path / "params.yaml").write_text(PARAMS)
    set_values(tmp_path, [word for word in shlex.split(command_line)[2:] if word != "-S"])
    section, _, name = key.partition(".")
    assert getattr(getattr(Params.load(tmp_path / "params.yaml"), section), name) == value


def test_every_trial_is_an_experiment_on_the_commit_that_is_checked_out(project: Path) -> None:
    report = command.tune(project, 2, searched=["recommend.candidates=100..900"])
    head = toy.git(project, "rev-parse", "HEAD").strip()
    before = toy.git(project, "status", "--porcelain")
    for row in report["trials"]:
        ref = f"refs/exps/{head[:2]}/{head[2:]}/{row['experiment']}"
        assert toy.git(project, "rev-parse", f"{ref}^").strip() == head
        params = toy.git(project, "show", f"{ref}:params.yaml")
        assert f"candidates: {row['params']['recommend.candidates']} " in params
        metrics = json.loads(toy.git(project, "show", f"{ref}:{experiments.METRICS}"))
        assert metrics["validation_ndcg@10"] == row["validation_ndcg@10"]
        assert toy.git(project, "show", f"{ref}:dvc.lock") == "schema: '2.0'\n"
    assert toy.git(project, "status", "--porcelain") == before
    # On another commit they are listed again, with nothing measured anew.
    toy.git(project, "commit", "-q", "--allow-empty", "-m", "Second")
    command.tune(project, 2, searched=["recommend.candidates=100..900"])
    assert not MadeUp.last.asked or {share for _, share in MadeUp.last.asked} == {1.0}  # for the interval
    head = toy.git(project, "rev-parse", "HEAD").strip()
    assert len(toy.git(project, "for-each-ref", f"refs/exps/{head[:2]}/{head[2:]}").splitlines()) == 2


def test_an_interrupted_search_goes_on_with_the_trial_that_was_under_way(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MadeUp, "fails_at", 2)
    with pytest.raises(KeyboardInterrupt):
        command.tune(project, 3)
    values, _ = MadeUp.last.asked[-1]
    monkeypatch.setattr(MadeUp, "fails_at", None)
    report = command.tune(project, 3)
    assert MadeUp.last.asked[0][0] == values
    assert len(report["trials"]) == 3
    assert [row["params"] for row in report["trials"]].count(values) == 1


def test_a_trial_that_fails_stops_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MadeUp, "fails_at", 2)
    monkeypatch.setattr(MadeUp, "error", DataError("out of memory"))
    report = command.tune(project, 3)
    assert [row["state"] for row in report["trials"]] == ["complete", "fail", "complete"]
    assert report["trials"][1]["error"] == "out of memory"
    assert report["trials"][1]["experiment"] is None


def test_where_every_trial_fails_its_error_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MadeUp, "fails_at", 1)
    monkeypatch.setattr(MadeUp, "error", DataError("out of memory"))
    with pytest.raises(DataError, match="out of memory"):
        command.tune(project, 1)


def test_after_the_timeout_no_trial_begins(project: Path) -> None:
    with pytest.raises(Exception, match="no trial came to an end"):
        command.tune(project, 5, timeout=0)


@pytest.fixture(scope="module")
def tiny_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ahead")
    tiny.encoder(folder / "weights")
    tiny.params(folder / "params.yaml", folder / "weights")
    return tiny.raw(folder / "data" / "raw")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ('preprocess.item_text=["{title}", "{titles}"]', r"preprocess\.item_text: unknown field \{titles\}"),
        ('preprocess.item_text=["{title"]', r"preprocess\.item_text: .*in '\{title'"),
        ('preprocess.item_text=["{owner}"]', r"\{owner\} is a column that preprocess\.never_features"),
        ("finetune.encoder=/nowhere/weights", "finetune.encoder: /nowhere/weights: no such folder"),
        ("finetune.encoder=package:nowhere/model", "package nowhere is not installed"),
    ],
)
def test_what_no_trial_could_read_is_refused_before_the_first(tiny_raw: Path, wanted: str, said: str) -> None:
    content = yaml.safe_load((tiny_raw.parents[1] / "params.yaml").read_text())
    content["preprocess"]["never_features"] = ["owner"]
    text = yaml.safe_dump(content)
    path = tiny_raw / "items.parquet"
    if "owner" not in (items := pd.read_parquet(path)):
        items.assign(owner="she").to_parquet(path, index=False)
    with pytest.raises(ConfigError, match=said):
        check_ahead(tiny_raw, Space.of(text, [wanted]))
    check_ahead(tiny_raw, Space.of(text, ['preprocess.item_text=["{title}", "{title}. {description}"]']))


def test_keywords_without_their_extra_are_refused_before_the_first_trial(
    tiny_raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yake", None)
    text = (tiny_raw.parents[1] / "params.yaml").read_text()
    for values in ("0, 8", "0..8"):
        with pytest.raises(ConfigError, match=r"preprocess\.keywords: 8: the extra"):
            check_ahead(tiny_raw, Space.of(text, [f"preprocess.keywords={values}"]))


def test_a_search_that_cannot_be_tried_leaves_no_study(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise ConfigError("finetune.encoder: no such folder")

    monkeypatch.setattr(command, "check_ahead", refuse)
    with pytest.raises(ConfigError, match="no such folder"):
        command.tune(project, 1)
    assert not (project / ".evergreen/tune/trials.log").exists()


# The real thing, on a tiny world


@pytest.mark.slow
def test_trials_train_the_challenger_and_dvc_lists_and_applies_them(tmp_path: Path) -> None:
    project = tmp_path / "project"
    tiny.encoder(project / "weights")
    tiny.params(project / "params.yaml", Path("weights"), epochs=1)
    files = {"dvc.yaml": DVC_YAML, "data/tuning.json": '{"validation_ndcg@10": null}\n'}
    for name, text in (files | {".gitignore": toy.GIT_IGNORE, "data/encoder.json": toy.NO_ENCODER}).items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)
    toy.git(project, "init", "-q", "-b", "main")
    for key, value in (("user.name", "T"), ("user.email", "t@example.org")):  # `dvc exp apply` commits
        toy.git(project, "config", key, value)
    toy.dvc(project, "init", "-q")
    toy.git(project, "add", "-A")
    toy.git(project, "commit", "-q", "-m", "First")
    tiny.raw(project / "data" / "raw")
    search = ("--search", "finetune.user_tower=gru,mean", "--search", "preprocess.min_user_interactions=0..4")
    done = toy.evergreen(project, "tune", "--trials", "2", "--json", *search)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    shown = json.loads(toy.dvc(project, "exp", "show", "--json"))
    listed = {one["name"]: one["revs"][0]["data"] for rev in shown for one in rev.get("experiments") or []}
    assert len(report["trials"]) == 2
    for row in report["trials"]:
        data = listed[row["experiment"]]
        params = data["params"]["params.yaml"]["data"]
        assert params["finetune"]["user_tower"] == row["params"]["finetune.user_tower"]
        assert (
            data["metrics"]["data/tuning.json"]["data"]["validation_ndcg@10"] == row["validation_ndcg@10"] > 0
        )
    other = next(row for row in report["trials"] if row["params"] != report["as_is"])
    toy.dvc(project, "exp", "apply", other["experiment"])
    applied = (project / "params.yaml").read_text()
    assert f"min_user_interactions: {other['params']['preprocess.min_user_interactions']}" in applied
