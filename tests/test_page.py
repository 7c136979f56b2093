"""The page "Evergreen" in Airflow: what it says of a history, without Airflow."""

import json
import subprocess
import sys
import time
from pathlib import Path

import page_history
import pytest
from evergreen_pages import objects, registry, render, views
from evergreen_pages.history import History, Run
from evergreen_pages.registry import Registry
from evergreen_pages.untrusted import show

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\u202e\x00'


def overview(root: Path) -> str:
    return render.page("overview.html", root="", **views.overview(History(root).runs(), registry.read(root)))


def run_page(root: Path, run: Run) -> str:
    reports = {name: objects.find(root, run.folder, name).problem for name in objects.REPORTS}
    return render.page("run.html", root="../../", **views.one_run(run, registry.read(root), reports))


def test_overview_tells_the_champion_its_age_and_the_way_back(tmp_path: Path) -> None:
    page_history.write(tmp_path, runs=12)
    page_history.appoint(tmp_path, "v1.0.0", "v2.0.0")
    html = overview(tmp_path)
    # v2 learned until 1998-02-04, the newest data are of 1998-06-08.
    assert "In service: <strong>v2.0.0</strong>, 124 days old" in html
    assert "# v2.0.0 → v1.0.0" in html
    assert html.count('<article class="decision">') == views.RECENT
    assert "4 earlier runs" in html
    assert "12,000 rows came since the last training" in html
    assert "refused: beats champion" in html
    assert "promoted: v1.0.0" in html
    assert "nDCG@10 of 4 trainings, 2 of them promoted" in html
    assert "New items" in html
    assert "<script" not in html


def test_overview_of_nothing_says_how_to_begin(tmp_path: Path) -> None:
    html = overview(tmp_path)
    assert "No champion yet" in html
    assert "evergreen replay" in html
    assert "No earlier champion to go back to" in html
    assert "cannot be read: git: " in html  # no repository here


def test_folders_from_before_run_json_are_shown(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    folder = tmp_path / "data" / "history" / name
    (folder / "run.json").unlink()
    (folder / "evaluation.json").unlink()
    page_history.appoint(tmp_path, "v1.0.0")
    html = overview(tmp_path)
    assert "evergreen cycle" in html
    assert "promoted: v1.0.0" in html  # by the model's hash in the registry
    [run] = History(tmp_path).runs()
    assert "not here" not in run_page(tmp_path, run)


def test_run_page_has_reasons_checks_and_links_to_its_own_reports(tmp_path: Path) -> None:
    names = page_history.write(tmp_path, runs=4)
    run = History(tmp_path).runs()[-1]
    html = run_page(tmp_path, run)
    assert f'href="../../runs/{names[-1]}/evaluation/"' in html
    assert "max new share" in html
    assert "✗" in html
    assert "challenger" in html
    monitoring = run_page(tmp_path, History(tmp_path).runs()[-2])
    assert "this run left no reports/evaluation.html" in monitoring
    assert "✗" not in monitoring


def test_a_training_that_was_asked_for_says_with_which_reason(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    folder = tmp_path / "data" / "history" / name
    (folder / "retraining.json").unlink()
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"reason": "the <b>shop</b> asked"}))
    for html in (overview(tmp_path), run_page(tmp_path, History(tmp_path).runs()[0])):
        assert "the &lt;b&gt;shop&lt;/b&gt; asked" in html


def test_every_text_of_the_data_is_escaped(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    folder = tmp_path / "data" / "history" / name

    def poison(content: object) -> object:
        if isinstance(content, dict):
            keys = {"outcome", "as_of", "retrain", "promote", "passed", "drift"}
            hostile = {HOSTILE: poison(next(iter(content.values())))} if content else {}
            return {key: each if key in keys else poison(each) for key, each in content.items()} | hostile
        if isinstance(content, list):
            return [poison(each) for each in content]
        return HOSTILE if isinstance(content, str) else content

    drift = page_history.drift(3, page_history.START.isoformat(), HOSTILE)
    (folder / "drift.json").write_text(json.dumps(drift))
    for path in folder.glob("*.json"):
        path.write_text(json.dumps(poison(json.loads(path.read_text()))))
    hostile_folder = folder.rename(folder.with_name("a'\"><b>&c"))
    page_history.appoint(tmp_path, "v1.0.0")
    [run] = History(tmp_path).runs()
    for html in (overview(tmp_path), run_page(tmp_path, run)):
        assert "alert(1)" in html
        assert "<script" not in html
        assert "<img" not in html
        assert "onerror=alert" not in html.replace("&lt;img src=x onerror=alert", "")
        assert "\u202e" not in html
        assert "49" not in html.split("</style>")[1].split("{{ 7 * 7 }}")[0][-5:]
        assert hostile_folder.name not in html
        assert "a%27%22%3E%3Cb%3E%26c" in html


@pytest.mark.parametrize(
    "content", ["", "null", "[1]", '"x"', "{", "1e999", '{"signals": 3, "checks": [3], "models": []}']
)
def test_whatever_a_file_holds_the_page_stands(tmp_path: Path, content: str) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    for path in (tmp_path / "data" / "history" / name).glob("*.json"):
        path.write_text(content)
    (tmp_path / "data" / "history" / "stray.txt").write_text("no folder")
    [run] = History(tmp_path).runs()
    assert overview(tmp_path)
    assert run_page(tmp_path, run)


def test_failures_name_their_step_and_looks_without_news_say_so(tmp_path: Path) -> None:
    [first, second] = page_history.write(tmp_path, runs=2)
    for name, more in ((first, {"state": "failed", "step": "finetune"}), (second, {"looked": False})):
        folder = tmp_path / "data" / "history" / name
        file = folder / "run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | more))
    for name in ("retraining.json", "drift.json", "promotion.json"):
        (tmp_path / "data" / "history" / second / name).unlink(missing_ok=True)
    html = overview(tmp_path)
    assert "failed in finetune" in html
    assert "nothing new" in html


def test_hashes_are_shortened() -> None:
    assert (show("0f" * 32), show("0f" * 31)) == ("0f0f0f0f…", "0f" * 31)


def test_numbers_that_are_none_are_dashes(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    evaluation = tmp_path / "data" / "history" / name / "evaluation.json"
    evaluation.write_text(evaluation.read_text().replace("0.3,", "NaN,"))
    [run] = History(tmp_path).runs()
    assert "nan" not in run_page(tmp_path, run).lower().split("</style>")[1]


def test_only_what_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = page_history.write(tmp_path, runs=6)
    history, read = History(tmp_path), []
    from evergreen_pages import history as module

    once = module.read_json
    monkeypatch.setattr(module, "read_json", lambda path: read.append(path.name) or once(path))
    assert len(history.runs()) == 6
    read.clear()
    assert len(history.runs()) == 6
    assert read == []
    changed = tmp_path / "data" / "history" / names[0] / "run.json"
    changed.write_text(changed.read_text().replace("success", "failed"))
    assert history.runs()[0].state == "failed"
    assert read == ["run.json"]


def test_200_runs_take_less_than_300_ms(tmp_path: Path) -> None:
    page_history.write(tmp_path, runs=200)
    page_history.appoint(tmp_path, "v1.0.0", "v2.0.0")
    history = History(tmp_path)
    history.runs()  # the server reads them when it starts

    def seconds() -> float:
        begin = time.thread_time()
        values = views.overview(history.runs(), registry.read(tmp_path))
        assert "192 earlier runs" in render.page("overview.html", root="", **values)
        return time.thread_time() - begin

    assert min(seconds() for _ in range(3)) < 0.3


# The registry ----------------------------------------------------------------------------------------------


def test_registry_is_read_as_the_pipeline_reads_it(tmp_path: Path) -> None:
    from pipeline.registry.git import Git
    from pipeline.registry.versions import read_state

    page_history.appoint(tmp_path, "v1.0.0", "v2.0.0", "v3.0.0", rollback="v2.0.0")
    state, found = read_state(Git(tmp_path)), registry.read(tmp_path)
    assert list(found.versions) == [version.name for version in state.versions]
    assert found.champion
    assert state.champion
    assert found.champion.name == state.champion.name == "v2.0.0"
    before = state.predecessor(state.champion)
    assert before
    assert found.predecessor == before.name == "v1.0.0"
    assert "rolled back to on" in overview(tmp_path).lower()


def test_without_git_the_export_tells(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    export = {
        "champion": "v4.0.0",
        "versions": [{"version": "v4.0.0", "fit_end": "1998-01-01"}],
        "trainings": [{}],
    }
    (tmp_path / "data" / "registry.json").write_text(json.dumps(export))
    found = registry.read(tmp_path)
    assert found.champion
    assert found.champion.name == "v4.0.0"
    assert found.problem


def test_withdrawn_champion_is_none() -> None:
    row = "recommender#champion!#2\0abc\0s\n\n{}"
    assert registry.parse(f"recommender@v1.0.0\0abc\0s\n\n{{}}\x01\n{row}\x01").champion is None


# Reports ---------------------------------------------------------------------------------------------------


def test_report_is_that_of_the_run(tmp_path: Path) -> None:
    names = page_history.write(tmp_path, runs=4)
    for place, name in enumerate(names):
        found = objects.find(tmp_path, tmp_path / "data" / "history" / name, "drift")
        assert found.content == page_history.REPORT.format(f"Drift of run {place}").encode()


def test_report_that_is_gone_or_changed_is_not_served(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    folder = tmp_path / "data" / "history" / name
    md5 = objects.hashes(folder)["drift"]
    place = tmp_path / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    place.write_text("another report")
    assert "was changed in DVC's cache" in str(objects.find(tmp_path, folder, "drift").problem)
    place.unlink()
    found = objects.find(tmp_path, folder, "drift")
    assert found.content is None
    assert f"md5 {md5}) is not in DVC's cache here: `dvc gc` took it" in str(found.problem)
    (folder / "dvc.lock").write_text("stages: {a: {outs: [{path: reports/drift.html, md5: ../../etc}]}}")
    assert "left no reports/drift.html" in str(objects.find(tmp_path, folder, "drift").problem)
    (folder / "dvc.lock").write_text("a: [")
    assert objects.hashes(folder) == {}


def test_cache_elsewhere_is_found(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path / "repo", runs=1)
    root = tmp_path / "repo"
    (root / ".dvc" / "cache").rename(tmp_path / "shared")
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n[cache]\n    type = copy\n")
    (root / ".dvc" / "config.local").write_text("[cache]\n    dir = ../../shared\n")
    assert objects.find(root, root / "data" / "history" / name, "evaluation").content


# Agreement with the pipeline and with Airflow --------------------------------------------------------------


def test_signals_are_called_as_in_the_reports() -> None:
    from pipeline.drift.verdicts import LABELS

    assert views.LABELS == LABELS


def test_pages_import_neither_airflow_nor_the_pipeline() -> None:
    code = (
        "import sys; from evergreen_pages import history, objects, registry, render, views\n"
        "bad = {'airflow', 'fastapi', 'pipeline', 'pandas', 'torch', 'dvc', 'evidently'} & set(sys.modules)\n"
        "sys.exit(', '.join(bad) or None)"
    )
    subprocess.run([sys.executable, "-c", code], cwd="dags/plugins", check=True)


def test_an_empty_registry_has_no_way_back() -> None:
    assert Registry().champion is None
    assert Registry().predecessor is None
