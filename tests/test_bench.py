"""The command `evergreen bench`: what it lists, and how a result is shown."""

import json
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from pipeline import cli, locks
from pipeline.errors import PipelineError

RESULT = {
    "name": "gate",
    "conditions": {"repeats": 20, "data": "toy"},
    "figures": {"equal_challengers": {"share": 0.05, "upper_end": 0.123456}, "better": {"share": None}},
    "ratios": {"promoted_if_better": 0.9},
    "findings": ["Titles \x1b[31mmay not colour[/] anything."],
}


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """run(*arguments) -> (exit code, standard output, standard error, the folder that the bench got)."""
    given: list[Path | None] = []
    (tmp_path / "params.yaml").touch()
    (tmp_path / "dvc.yaml").touch()
    bench = types.SimpleNamespace(run=lambda data: given.append(data) or RESULT)
    monkeypatch.setitem(sys.modules, "pipeline.bench.drift", bench)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    (tmp_path / "below").mkdir()

    def run_it(*arguments: str) -> tuple[int, str, str, list[Path | None]]:
        monkeypatch.chdir(tmp_path / "below")
        monkeypatch.setattr(sys, "argv", ["evergreen", "bench", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code, out, err, given

    return run_it


@pytest.mark.parametrize("own", [True, False])
def test_a_bench_over_data_does_not_begin_while_somebody_is_forgotten(run, monkeypatch, tmp_path, own):
    if own:
        monkeypatch.setattr(sys.modules["pipeline.bench.drift"], "OWN", Path("data/raw"), raising=False)
    with locks.no_readers(tmp_path):
        code, _, err, given = run("drift", *([] if own else ["--data", "elsewhere"]))
    assert (code, given) == (1, [])
    assert "`evergreen forget` is at work" in err


def test_nobody_is_forgotten_while_a_bench_over_data_is_at_work(run, monkeypatch, tmp_path):
    told = []

    def measure(data):
        try:
            with locks.no_readers(tmp_path):
                told.append(None)
        except PipelineError as error:
            told.append(str(error))
        return RESULT

    monkeypatch.setattr(sys.modules["pipeline.bench.drift"], "run", measure)
    run("drift", "--json")  # of a made-up world
    run("drift", "--json", "--data", "elsewhere")
    monkeypatch.setattr(sys.modules["pipeline.bench.drift"], "OWN", Path("data/raw"), raising=False)
    run("drift", "--json")
    assert told[0] is None
    assert all("`bench`" in line for line in told[1:])


def test_benches_that_read_the_projects_data_or_keep_lists_say_so():
    """By their text, for the next one: data/... unless another folder is named, or a folder in .evergreen."""
    for file in Path(cli.__file__).parent.joinpath("bench").glob("[!_]*.py"):
        text = file.read_text(encoding="utf-8")
        reads = re.search(r"Path\(\"(?:data/|\.evergreen/)|worlds\(data|ranking\.FOLDER", text)
        assert bool(reads) == bool(re.search(r"^OWN = ", text, re.MULTILINE)), file.name


def test_help_lists_every_bench_and_loads_none():
    code = "import sys; from pipeline.cli import app; app(['bench', '--help'], standalone_mode=False)\n"
    code += (
        "print([name for name in sys.modules if name.startswith(('pipeline.bench', 'numpy', 'evidently'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = {file.stem for file in Path(cli.__file__).parent.joinpath("bench").glob("[!_]*.py")}
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line.strip()}
    assert names <= listed
    assert done.stdout.splitlines()[-1] == "[]"


def test_json_is_one_object(run):
    code, out, _, given = run("drift", "--json")
    assert (code, json.loads(out), given) == (0, RESULT, [None])


def test_the_table_shows_rows_ratios_conditions_and_no_markup(run):
    code, out, _, _ = run("drift")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert "repeats 20" in lines
    assert "equal challengers 0.05 0.1235" in lines
    assert "better - -" in lines
    assert "promoted if better 0.9" in lines
    assert "\x1b" not in out
    assert "may not colour[/] anything." in out


def test_figures_that_are_no_rows_are_lines(run, monkeypatch):
    monkeypatch.setitem(RESULT, "figures", {"seconds": 1.5, "shares": [0.25, 0.5]})
    lines = [" ".join(line.split()) for line in run("drift")[1].splitlines()]
    assert {"seconds 1.5", "shares 0.25, 0.5"} <= set(lines)


def test_a_folder_is_meant_from_where_the_user_stands(run, tmp_path):
    _, _, _, given = run("drift", "--data", "mine")
    assert given == [tmp_path / "below" / "mine"]


def test_an_unknown_bench_leads_to_the_list(run):
    code, out, err, _ = run("nonsense")
    assert (code, out) == (1, "")
    assert err == "error: No such command 'nonsense': see `evergreen bench --help`\n"
