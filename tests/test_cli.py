import json
import resource
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
import toy

from pipeline import cli
from pipeline.registry.actions import promote, put_champion


@pytest.fixture
def run(monkeypatch, capsys):
    """run(folder, *arguments) -> (exit code, standard output, standard error) of `evergreen`, in process."""
    before = signal.getsignal(signal.SIGTERM)

    def run_in(folder: Path, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["evergreen", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    yield run_in
    signal.signal(signal.SIGTERM, before)


def test_help_is_instant_and_imports_nothing_heavy():
    heavy = [
        "torch",
        "pandas",
        "numpy",
        "pyarrow",
        "dvc",
        "transformers",
        "pydantic",
        "gto",
        "airflow",
        "evidently",
    ]
    code = f"import sys, pipeline.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    command, best = [sys.executable, "-m", "pipeline", "--help"], 9.0
    for _ in range(3):
        start = _children_cpu_seconds()
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        best = min(best, _children_cpu_seconds() - start)
    assert all(name in output for name in ("cycle", "recommend", "registry", "champion"))
    assert best < 1  # wall 0.5 s on an idle machine; CPU seconds do not mind what else runs


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_version(run, tmp_path):
    code, out, _ = run(tmp_path, "--version")
    assert (code, out.split()[0]) == (0, "evergreen")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nonsense"], "error: No such command 'nonsense': see `evergreen --help`"),
        (["recommend", "-k", "few"], "error: Invalid value for '-k'"),
        (["registry", "lineage"], "error: Missing argument 'version'"),
        (["cycle", "--as-off", "x"], "error: No such option"),
    ],
)
def test_wrong_usage_is_one_line(run, trained, arguments, line):
    code, out, err = run(trained, *arguments)
    assert (code, out) == (1, "")
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_no_command_shows_help(run, tmp_path):
    code, out, err = run(tmp_path, "registry")
    assert (code, err) == (0, "")
    assert "rollback" in out


def test_outside_of_a_project(run, tmp_path):
    code, _, err = run(tmp_path, "champion")
    assert code == 1
    assert err.startswith(f"error: {tmp_path}: neither here nor above are params.yaml and dvc.yaml")


def test_record_from_the_command_line(run, trained):
    toy.use_challenger(trained, 1)
    assert run(trained, "registry", "record")[1] == "training 1: full: recorded\n"
    assert run(trained, "registry", "record")[1] == "training 1: full: recorded already\n"
    shutil.rmtree(trained / "models" / "challenger")
    code, _, err = run(trained, "registry", "record")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("error: ")
    assert "no model there: run `dvc repro finetune`" in err


def test_no_champion_after_a_refusal_points_to_the_verdict(run, trained):
    toy.use_challenger(trained, 1, promote=False)
    code, _, err = run(trained, "recommend", "--user", "1")
    assert code == 1
    assert err == (
        "error: models/champion: no champion here: `evergreen champion` gets it,"
        " reports/promotion.json says why none was promoted\n"
    )


def test_results_name_no_lists_where_there_is_no_champion(trained, capsys):
    from pipeline.show import show_results

    (trained / "recommendations").mkdir()
    (trained / "recommendations" / "top_k.parquet").touch()
    toy.use_challenger(trained, 1)
    show_results(trained)
    shown = capsys.readouterr().out
    assert shown.startswith("nothing was trained here yet, so there are no figures\n")
    assert "reports/promotion.json" in shown
    assert "top_k" not in shown
    promote(trained)
    put_champion(trained)
    show_results(trained)
    assert "the champion's lists for every user" in capsys.readouterr().out


def test_registry_commands_from_a_subfolder(run, trained):
    folder = trained / "models" / "champion"
    assert run(folder, "registry", "list")[1].startswith("no version yet")
    assert run(folder, "champion")[:2] == (
        0,
        "no champion yet: `evergreen cycle` trains and promotes the first one\n",
    )
    code, _, error = run(folder, "champion", "--to", "served")
    assert (code, error[:24]) == (1, "error: no champion yet: ")
    toy.use_challenger(trained, 1)
    code, out, _ = run(folder, "registry", "promote", "--reason", "a better one")
    assert (code, out.splitlines()[0]) == (0, "v1.0.0 is the champion: a better one")
    assert run(folder, "registry", "promote")[1].startswith("v1.0.0 is this model and already the champion")
    assert run(folder, "champion")[1] == "models/champion: v1.0.0, put there, hash verified\n"
    assert run(folder, "champion")[1] == "models/champion: v1.0.0, already there, hash verified\n"
    assert run(trained, "champion", "--to", "served/here")[0] == 0
    assert (trained / "served" / "here" / "version.json").exists()
    (row,) = json.loads(run(folder, "registry", "list", "--json")[1])
    assert (row["version"], row["status"], row["objects"]) == ("v1.0.0", "champion", "cache")
    table = run(folder, "registry", "list")[1]
    assert all(
        text in table for text in ("v1.0.0", "champion", "0.1250", "1998-03-02", row["commit"][:10], "cache")
    )
    found = json.loads(run(folder, "registry", "lineage", "v1", "--json")[1])
    assert found["commit"] == row["commit"]
    shown = run(folder, "registry", "lineage", "v1")[1]
    assert f"git show {row['commit'][:10]}:params.yaml" in shown
    assert "a better one" in shown


def test_rollback_command_and_missing_objects_in_the_list(run, trained):
    first = toy.use_challenger(trained, 1)
    promote(trained)
    toy.use_challenger(trained, 2, champion=first)
    promote(trained)
    code, out, _ = run(trained, "registry", "rollback", "--reason", "it was slow")
    assert (code, out.splitlines()[0]) == (0, "v1.0.0 is the champion")
    shutil.rmtree(trained / ".dvc" / "cache")
    assert {row["objects"] for row in json.loads(run(trained, "registry", "list", "--json")[1])} == {
        "missing"
    }
    code, _, err = run(trained, "registry", "rollback", "--to", "2")
    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_refused_promotion_is_one_line(run, trained):
    toy.use_challenger(trained, 1, promote=False)
    code, out, err = run(trained, "registry", "promote")
    assert (code, out) == (1, "")
    assert err == "error: not promoted: nDCG@10 +0.0500 against popularity\n"


@pytest.fixture
def served(trained: Path, monkeypatch) -> Path:
    """A project with a champion, whose model is replaced by one that answers with its question."""
    toy.use_challenger(trained, 1)
    promote(trained)
    put_champion(trained)

    def answer(folder: Path, data: Path, **question: object) -> list[dict]:
        assert json.loads((folder / "version.json").read_text())["version"] == "v1.0.0"
        row = {
            "rank": 1,
            "item_id": "007",
            "title": "[bold]\x1b[31mBond",
            "score": 0.5,
            "reasons": [str(question)],
        }
        return [row, row | {"rank": 2, "title": None, "score": None, "reasons": ["popular lately"]}]

    monkeypatch.setitem(sys.modules, "pipeline.models.questions", types.SimpleNamespace(recommend=answer))
    return trained


def test_recommend_as_json(run, served):
    code, out, err = run(served, "recommend", "--items", "01, 2,", "-k", "3", "--json")
    assert (code, err) == (0, "")
    first, second = json.loads(out)
    assert first["item_id"] == "007"
    assert first["version"] == second["version"] == "v1.0.0"
    assert first["reasons"] == [str({"user": None, "items": ["01", "2"], "text": None, "k": 3})]


def test_recommend_as_table_shows_titles_as_they_are(run, served):
    code, out, _ = run(served, "recommend", "--text", "spies")
    assert code == 0
    assert "[bold] [31mBond" in out
    assert "\x1b[31m" not in out
    assert "by popularity" in out


def test_recommend_says_that_a_user_is_new(run, served, caplog):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (served / "data" / "prepared").mkdir(parents=True)
    pq.write_table(pa.table({"user_id": ["01", "2"]}), served / "data" / "prepared" / "train.parquet")
    with caplog.at_level("INFO"):
        assert run(served, "recommend", "--user", "01")[0] == 0
        assert "not in the data" not in caplog.text
        assert run(served, "recommend", "--user", "1")[0] == 0
        assert "user 1 is not in the data: listed as for a new user" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "error: recommend: give exactly one of --user, --items, --text"),
        (["--user", "1", "--text", "x"], "error: recommend: give exactly one of --user, --items, --text"),
        (["--user", "1", "-k", "0"], "error: recommend: -k 0: it must be at least 1"),
        (["--items", ","], "error: recommend: --items is empty"),
        (["--text", "  "], "error: recommend: --text is empty"),
        (["--user", "1"], "error: models/champion: no champion here: `evergreen champion` gets it"),
    ],
)
def test_recommend_questions_that_cannot_be_answered(run, trained, arguments, line):
    code, out, err = run(trained, "recommend", *arguments)
    assert (code, out) == (1, "")
    assert err.startswith(line)
    assert err.count("\n") == 1
