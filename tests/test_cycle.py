import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy

from pipeline.cycle import _causes, _news, _undo_as_of, _with_as_of, read_as_of
from pipeline.errors import ConfigError


def cycle(project: Path, *arguments: str) -> list[str]:
    """Lines of a cycle that must succeed, without what dvc and the stages print."""
    done = toy.evergreen(project, "cycle", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def decisions(lines: list[str]) -> dict[str, str]:
    known = ("as of", "champion", "source", "training", "promotion", "recommend")
    pairs = [line.split(":", 1) for line in lines if line.split(":", 1)[0] in known]
    return {name: text.strip() for name, text in pairs}


def stages_run(lines: list[str]) -> list[str]:
    return [line.split("'")[1] for line in lines if line.startswith("Running stage")]


def recommended(project: Path) -> dict:
    return json.loads((project / "recommendations" / "top_k.parquet").read_text())


def test_first_cycle_trains_promotes_and_recommends(cycled_once):
    project, output = cycled_once
    lines = output.splitlines()
    assert stages_run(lines) == ["collect", "finetune", "evaluate", "decide_promotion", "recommend"]
    assert lines[0].split() == ["champion:", "none", "yet"]
    said = decisions(lines)
    assert said["training"] == "every stage runs, for the first time"
    assert said["promotion"].startswith("v1.0.0 is the champion: nDCG@10 +0.0200 [+0.0100, +0.0300]")
    assert said["champion"] == "v1.0.0, put into models/champion, verified"
    assert recommended(project)["version"] == "v1.0.0"
    assert "2 users, 3 test points" in output
    assert "challenger − model" in output
    assert "reports/promotion.json" in lines[-2]
    assert toy.git(project, "status", "--porcelain").split() == ["??", "dvc.lock"]


def test_second_cycle_runs_no_stage_and_says_why(cycled):
    before = toy.tags(cycled)
    start = time.perf_counter()
    lines = cycle(cycled)
    assert time.perf_counter() - start < 15
    assert stages_run(lines) == []
    said = decisions(lines)
    assert said["source"] == "files, unchanged since it was collected"
    assert said["training"] == "nothing new in source, params and code: no stage is run"
    assert said["promotion"] == "nothing to do: the challenger is the champion, v1.0.0"
    assert said["recommend"] == "nothing to do: same champion, same data"
    assert toy.tags(cycled) == before


def test_failing_stage_has_the_last_word(cycled):
    (cycled / "source.csv").write_text("bad")
    done = toy.evergreen(cycled, "cycle")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: source.csv: row 3: bad; remove it"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_changed_source_is_collected_and_the_better_model_promoted(cycled):
    with (cycled / "source.csv").open("a") as file:
        file.write("user,item,1998-03-01\n")
    lines = cycle(cycled)
    assert "changed since it was collected" in decisions(lines)["source"]
    assert decisions(lines)["promotion"].startswith("v2.0.0 is the champion")
    assert recommended(cycled)["version"] == "v2.0.0"
    # Rolled back, it stays so: the same model is not promoted again, and the lists follow.
    assert toy.evergreen(cycled, "registry", "rollback").stdout.startswith("v1.0.0 is the champion")
    lines = cycle(cycled)  # recommend may come from dvc's run-cache
    assert set(stages_run(lines)) <= {"recommend"}
    assert "this model is v2.0.0, which was replaced" in decisions(lines)["promotion"]
    assert recommended(cycled)["version"] == "v1.0.0"


@pytest.mark.slow
def test_worse_model_is_not_promoted_and_the_reason_is_said(cycled):
    with (cycled / "source.csv").open("a") as file:
        file.write("user,item,1998-03-01\n")
    (cycled / "gain.txt").write_text("-0.01")
    lines = cycle(cycled)
    assert "finetune" in stages_run(lines)
    assert decisions(lines)["promotion"].startswith(
        "not promoted: nDCG@10 +0.0000 [-0.0100, +0.0100] against champion"
    )
    assert recommended(cycled)["version"] == "v1.0.0"


@pytest.mark.slow
def test_promotion_waits_for_a_person(cycled):
    with (cycled / "source.csv").open("a") as file:
        file.write("user,item,1998-03-01\n")
    toy.set_param(cycled, "approval: auto", "approval: human")
    assert "waits for approval" in decisions(cycle(cycled))["promotion"]
    assert toy.evergreen(cycled, "registry", "promote").returncode == 1
    assert toy.evergreen(cycled, "registry", "promote", "--approve").returncode == 0
    lines = cycle(cycled)
    assert stages_run(lines) == ["recommend"]
    assert decisions(lines)["champion"] == "v2.0.0, put into models/champion, verified"


@pytest.mark.slow
def test_as_of_holds_for_one_run_and_never_restores_what_an_older_source_said(cycled):
    params = (cycled / "params.yaml").read_text()
    lines = cycle(cycled, "--as-of", "1998-01-15")
    assert decisions(lines)["training"] == "collect: params.yaml: collect changed"
    assert (cycled / "data" / "raw" / "rows.txt").read_text() == "user,item,1998-01-01"
    assert (cycled / "params.yaml").read_text() == params
    assert stages_run(cycle(cycled, "--as-of", "1998-01-15")) == []
    (cycled / "source.csv").write_text("user,item,1998-01-02\nuser,item,1998-02-01\n")
    cycle(cycled)
    assert (cycled / "data" / "raw" / "rows.txt").read_text().split()[0] == "user,item,1998-01-02"
    # dvc's run-cache knows this as_of, from the source as it was.
    cycle(cycled, "--as-of", "1998-01-15")
    assert (cycled / "data" / "raw" / "rows.txt").read_text() == "user,item,1998-01-02"


@pytest.mark.slow
def test_broken_source_mended_is_read_anew(cycled):
    (cycled / "source.csv").write_text("bad")
    assert toy.evergreen(cycled, "cycle").returncode == 1
    (cycled / "source.csv").write_text("user,item,1998-01-03\n")
    cycle(cycled)
    assert (cycled / "data" / "raw" / "rows.txt").read_text() == "user,item,1998-01-03"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_cycle_leaves_no_process_and_the_next_one_goes_on(cycled, number):
    (cycled / "source.csv").write_text("sleep,item,1998-03-01\n")
    command = [sys.executable, "-m", "pipeline", "cycle"]
    process = subprocess.Popen(
        command,
        cwd=cycled,
        env=toy.environment() | {"SHELL": "/bin/sh"},  # dash stays between dvc and the stage, bash does not
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (cycled / "asleep.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    if number == signal.SIGKILL:
        assert process.returncode == -9
    else:
        assert process.returncode == 130
        assert error.splitlines()[-1].startswith("error: interrupted: run it again to go on")
    time.sleep(0.5)
    assert not _processes_in(cycled)
    assert not (cycled / "models" / "challenger" / "model.json").exists()
    (cycled / "source.csv").write_text("user,item,1998-03-01\n")
    assert decisions(cycle(cycled))["promotion"].startswith("v2.0.0 is the champion")


def _processes_in(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(process / "cwd")) == folder:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_two_cycles_in_one_folder(cycled):
    import fcntl

    with (cycled / ".evergreen" / "cycle.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = toy.evergreen(cycled, "cycle")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: another `evergreen cycle` runs in this folder: wait for it to end"


def test_changed_champion_alone_is_nothing_new():
    stale = {
        "evaluate": ["models/champion"],
        "decide_promotion": ["models/champion"],
        "recommend": ["models/champion"],
    }
    assert _news(stale) == {}
    stale["evaluate"].append("params.yaml: evaluate.k")
    assert _news(stale) == {"evaluate": ["params.yaml: evaluate.k"]}


def test_causes_are_what_a_person_changed():
    assert _causes(["data/raw/items.parquet", "params.yaml: seed"]) == "params.yaml: seed"
    assert _causes(["data/a", "data/b", "data/c", "data/d", "data/e"]) == "data/a, data/b, data/c and 2 more"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  as_of: null # a comment", '  as_of: "1998-03-01" # a comment'),
        ('  as_of: "1997-01-01"', '  as_of: "1998-03-01"'),
        ("  as_of: '1997-01-01'   # x", '  as_of: "1998-03-01"   # x'),
        ("  as_of:", '  as_of: "1998-03-01"'),
        ("  as_of: # none", '  as_of: "1998-03-01" # none'),
    ],
)
def test_as_of_changes_one_line_and_keeps_comments(line, expected):
    text = "evaluate:\n  as_of: 1\ncollect: # x\n  source: files\n\n# as_of: 2\n{}\n\nlater:\n  as_of: 4\n"
    assert _with_as_of(text.format(line), "1998-03-01") == text.format(expected)


@pytest.mark.parametrize("text", ["", "collect: {as_of: null}\n", "evaluate:\n  as_of: null\n"])
def test_as_of_without_its_line(text):
    with pytest.raises(ConfigError, match=r"params.yaml: collect.as_of: no such line"):
        _with_as_of(text, "1998-03-01")


def test_as_of_is_put_back_even_after_an_error(tmp_path):
    before = Path("params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(before)
    with pytest.raises(ConfigError, match=r"collect.as_of: 'soon' is no ISO"), read_as_of(tmp_path, "soon"):
        raise AssertionError("not reached")
    assert (tmp_path / "params.yaml").read_text() == before
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["params.yaml"]


def test_as_of_of_a_killed_run_is_put_back_by_the_next(tmp_path, capsys):
    before = Path("params.yaml").read_text()
    path = tmp_path / "params.yaml"
    for edited in (False, True):
        path.write_text(before)
        during = _with_as_of(before, "1998-03-01")
        (tmp_path / ".evergreen").mkdir(exist_ok=True)
        note = {"before": before, "during": during}
        (tmp_path / ".evergreen" / "params-before-as-of.json").write_text(json.dumps(note))
        path.write_text(during + "# mine\n" if edited else during)
        _undo_as_of(tmp_path)
        assert path.read_text() == (during + "# mine\n" if edited else before)
    assert "was edited during the run: check collect.as_of" in capsys.readouterr().out
