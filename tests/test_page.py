"""The pages of data/history: what they say of records, hostile ones too."""

import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import page_history
import pytest
from waiting import slowness

from pipeline.dashboard import runs
from pipeline.dashboard.question import question
from pipeline.dashboard.views import RECENT, sentence
from pipeline.dashboard.write import write_overview, write_pages, write_run

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\u202e\x00'


def history(root: Path) -> Path:
    return root / "data" / "history"


def overview(root: Path) -> str:
    write_overview(root)
    return (history(root) / "index.html").read_text()


def run_page(root: Path, name: str) -> str:
    write_run(history(root) / name)
    return (history(root) / name / "index.html").read_text()


def note(root: Path, name: str, **facts: Any) -> None:
    file = history(root) / name / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def test_overview_tells_the_champion_its_age_and_the_way_back(tmp_path: Path) -> None:
    page_history.write(tmp_path, runs=12)
    page_history.appoint(tmp_path, "v1.0.0", "v2.0.0")
    html = overview(tmp_path)
    # v2 learned until 1998-02-04, the newest data are of 1998-06-08.
    assert "In service: <strong>v2.0.0</strong>, 124 days old" in html
    assert "# v2.0.0 → v1.0.0" in html
    assert html.count('<p class="pills">') == RECENT
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
    assert "cannot be read" in html  # no repository here


def test_rollback_is_told(tmp_path: Path) -> None:
    page_history.appoint(tmp_path, "v1.0.0", "v2.0.0", "v3.0.0", rollback="v2.0.0")
    html = overview(tmp_path)
    assert "In service: <strong>v2.0.0</strong>" in html
    assert "rolled back to on" in html.lower()
    assert "# v2.0.0 → v1.0.0" in html


def test_runs_stand_by_when_they_ran_and_a_failure_on_old_data_is_not_hidden(tmp_path: Path) -> None:
    names = page_history.write(tmp_path, runs=12, step_days=-14)  # the newest run is on the oldest data
    note(tmp_path, names[-1], state="failed", step="collect", error="source.csv: no such file: restore it")
    html = overview(tmp_path)
    places = [html.index(f'href="{name}/index.html"') for name in reversed(names[-RECENT:])]
    assert places[1:] == sorted(places[1:])
    assert "failed in collect" in html.split('<section id="champion"')[0]  # the first thing that is said
    assert "source.csv: no such file: restore it" in html


def test_run_page_has_reasons_checks_and_links_to_its_own_reports(tmp_path: Path) -> None:
    *_, monitoring, training = page_history.write(tmp_path, runs=4)
    html = run_page(tmp_path, training)
    assert 'href="evaluation-report.html"' in html
    assert "max new share" in html
    assert "✗" in html
    frame = (history(tmp_path) / training / "evaluation-report.html").read_text()
    assert 'sandbox="allow-scripts" src="evaluation.html"' in frame
    html = run_page(tmp_path, monitoring)
    assert 'href="drift-report.html"' in html
    assert "valuation report" not in html  # it made none
    assert "✗" not in html


def test_report_of_a_decision_that_lies_elsewhere_is_not_offered(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    (history(tmp_path) / name / "evaluation.html").unlink()
    html = run_page(tmp_path, name)
    assert "evaluation-report.html" not in html
    assert "git show runs/0:dvc.lock" in html


def test_run_page_links_to_the_simulation_that_its_gate_asked_for_and_to_no_other(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    assert "imulation report" not in run_page(tmp_path, name)
    (history(tmp_path) / name / "simulation.html").write_text("<!doctype html>")
    assert 'href="simulation-report.html"' in run_page(tmp_path, name)
    frame = (history(tmp_path) / name / "simulation-report.html").read_text()
    assert 'sandbox="allow-scripts" src="simulation.html"' in frame


def test_failed_run_says_what_failed_and_a_running_one_its_step(tmp_path: Path) -> None:
    first, second, third = page_history.write(tmp_path, runs=3)
    note(tmp_path, first, state="failed", step="finetune", error="no such encoder: mend finetune.encoder")
    html = run_page(tmp_path, first)
    assert "failed in finetune" in html
    assert "no such encoder: mend finetune.encoder" in html
    note(tmp_path, second, state="running", step="evaluate", finished=None)
    html = run_page(tmp_path, second)
    assert "running: evaluate" in html
    assert 'http-equiv="refresh"' in html
    note(tmp_path, third, looked=False)
    assert 'http-equiv="refresh"' not in run_page(tmp_path, third)
    killed = "marked as failed, killed"
    note(tmp_path, first, error=None)
    assert killed in run_page(tmp_path, first)


def test_first_promotion_opens_with_what_was_checked(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    file = history(tmp_path) / name / "promotion.json"
    promotion = json.loads(file.read_text())
    names = ("is_champion", "fit_end", "comparable", "min_gain")
    free = [
        {"name": one, "passed": True, "value": None, "limit": None, "text": "no champion yet"}
        for one in names
    ]
    file.write_text(json.dumps(promotion | {"checks": free + promotion["checks"]}))
    html = run_page(tmp_path, name)
    assert html.count("no champion yet: ") == 1
    assert html.index("beats champion") < html.index("is champion, fit end, comparable, min gain")


def test_a_run_that_asks_a_person_says_so(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    file = history(tmp_path) / name / "promotion.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"approval": "human"}))
    note(tmp_path, name, state="running", step="decide_promotion", promoted=None, finished=None)
    assert "waits for a person" in run_page(tmp_path, name)
    note(tmp_path, name, step="promote")
    assert "running: promote" in run_page(tmp_path, name)
    note(tmp_path, name, state="success", not_promoted="rejected by vera")
    assert "Not promoted</dt><dd>rejected by vera" in run_page(tmp_path, name)
    assert "rejected by vera" in overview(tmp_path)
    said = sentence(runs.read_one(history(tmp_path) / name))
    assert said.endswith("allowed, not promoted as of 1998-01-05: rejected by vera")
    note(tmp_path, name, state="failed", step="decide_promotion")
    assert "ended while a person was asked" in run_page(tmp_path, name)


def test_a_models_hash_is_shortened(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    file = history(tmp_path) / name / "promotion.json"
    check = {"name": "is_champion", "passed": True, "value": "ab" * 32, "limit": "cd" * 32, "text": "other"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"checks": [check]}))
    assert "abababab…, limit cdcdcdcd…" in run_page(tmp_path, name)


def test_approval_names_the_person(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    note(tmp_path, name, approved_by="vera")
    html = run_page(tmp_path, name)
    assert "Approved by" in html
    assert "vera" in html


def test_a_training_that_was_asked_for_says_with_which_reason(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    (history(tmp_path) / name / "retraining.json").unlink()
    note(tmp_path, name, reason="the <b>shop</b> asked")
    for html in (overview(tmp_path), run_page(tmp_path, name)):
        assert "the &lt;b&gt;shop&lt;/b&gt; asked" in html


def test_sentence_of_a_run(tmp_path: Path) -> None:
    trained, looked = page_history.write(tmp_path, runs=2)
    folder = history(tmp_path)
    assert sentence(runs.read_one(folder / trained)).endswith("promoted: v1.0.0 as of 1998-01-05")
    assert sentence(runs.read_one(folder / looked)).endswith("no training is due as of 1998-01-19")
    for name in ("drift.json", "retraining.json"):
        (folder / looked / name).unlink()
    assert sentence(runs.read_one(folder / looked)) == "lists alone as of 1998-01-19"
    note(tmp_path, looked, state="failed", step="collect", error="disk full")
    assert sentence(runs.read_one(folder / looked)) == "failed in collect: disk full"
    note(tmp_path, looked, error=None)  # marked as failed
    for said in (sentence(runs.read_one(folder / looked)), overview(tmp_path), run_page(tmp_path, looked)):
        assert "it was marked as failed, killed, or ran out of time" in said


# Hostile and broken content ---------------------------------------------------------------------------------


def poison(content: object) -> object:
    if isinstance(content, dict):
        keys = {"outcome", "as_of", "started", "finished", "mode", "calls", "state", "kind"}
        hostile = {HOSTILE: poison(next(iter(content.values())))} if content else {}
        return {key: each if key in keys else poison(each) for key, each in content.items()} | hostile
    if isinstance(content, list):
        return [poison(each) for each in content]
    return HOSTILE if isinstance(content, str) else content


def test_every_text_of_the_data_is_escaped(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    folder = history(tmp_path) / name
    drift = page_history.drift(3, page_history.START.isoformat(), HOSTILE)
    (folder / "drift.json").write_text(json.dumps(drift))
    for path in folder.glob("*.json"):
        path.write_text(json.dumps(poison(json.loads(path.read_text()))))
    hostile = folder.rename(folder.with_name("a'\"><b>&c")).name
    page_history.appoint(tmp_path, "v1.0.0")
    for html in (overview(tmp_path), run_page(tmp_path, hostile)):
        assert "alert(1)" in html
        assert "<script" not in html
        assert "<img" not in html
        assert "onerror=alert" not in html.replace("&lt;img src=x onerror=alert", "")
        assert "\u202e" not in html
        assert "{{ 7 * 7 }}" in html
        assert hostile not in html
    assert "a%27%22%3E%3Cb%3E%26c" in overview(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "null", "[1]", '"x"', "{", "1e999", '{"signals": 3, "checks": [3], "models": []}']
)
def test_whatever_a_file_holds_the_pages_stand(tmp_path: Path, content: str) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    for path in (history(tmp_path) / name).glob("*.json"):
        path.write_text(content)
    (history(tmp_path) / "stray.txt").write_text("no folder")
    assert name in overview(tmp_path)
    assert run_page(tmp_path, name)


def test_numbers_that_are_none_are_dashes(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    evaluation = history(tmp_path) / name / "evaluation.json"
    evaluation.write_text(evaluation.read_text().replace("0.3,", "NaN,"))
    assert "nan" not in run_page(tmp_path, name).lower().split("</style>")[1]


def test_what_people_made_of_the_lists_is_told_by_version(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    assert "What people made of the lists" not in overview(tmp_path) + run_page(tmp_path, name)
    file = history(tmp_path) / name / "evaluation.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | page_history.satisfaction()))
    for html in (overview(tmp_path), run_page(tmp_path, name)):
        assert "What people made of the lists" in html
        row = html.split('<tr><th scope="row">v2.0.0</th>')[1].split("</tr>")[0]
        assert re.findall("<td>(.*?)</td>", row) == ["1,234", "31.2 %", "90.0 %", "–", "25.0 %", "50.0 %"]
        assert "champion v1.0.0 and challenger sha256:ab placed items in turns; 20 and 41 of these" in html
        assert "Of 600 places left to chance 20.0 % were taken" in html
        assert "investigate." in html


def test_a_page_that_cannot_be_written_stops_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    (history(tmp_path) / name / "index.html").mkdir()
    write_pages(tmp_path, history(tmp_path) / name)
    assert "were not written" in caplog.text


def test_a_new_evaluation_is_seen_though_it_is_older_than_what_was_read_before(tmp_path: Path) -> None:
    [name] = page_history.write(tmp_path, runs=1)
    file = history(tmp_path) / name / "evaluation.json"
    assert ">0.160<" in run_page(tmp_path, name)
    text = file.read_text().replace('"ndcg@10": 0.16,', '"ndcg@10": 0.199,')
    other = tmp_path / "evaluation.json"
    other.write_text(text)
    os.utime(other, (0, 0))
    shutil.copy2(other, file)
    assert ">0.199<" in run_page(tmp_path, name)


def test_overview_of_200_runs_takes_less_than_a_second(tmp_path: Path) -> None:
    """It is written at every step of a run."""
    page_history.write(tmp_path, runs=200)
    page_history.appoint(tmp_path, "v1.0.0", "v2.0.0")

    def seconds() -> float:
        begin = time.thread_time()
        assert "192 earlier runs" in overview(tmp_path)
        return time.thread_time() - begin

    assert min(seconds() for _ in range(3)) < slowness()


# The question before a promotion ----------------------------------------------------------------------------


def test_question_has_figures_and_checks_and_no_markup_of_the_data(tmp_path: Path) -> None:
    *_, name = page_history.write(tmp_path, runs=4)
    file = history(tmp_path) / name / "promotion.json"
    hostile = {"name": "slices", "passed": False, "value": -0.1, "limit": 0.0, "text": "[a](b) <b> | x"}
    promotion = json.loads(file.read_text())
    compared = {"champion": {"version": "v7.0.0"}}  # not that of before the run: `evaluate` was cleared
    file.write_text(json.dumps(promotion | compared | {"checks": [*promotion["checks"], hostile]}))
    text = question(runs.read_one(history(tmp_path) / name))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert "It would replace v7.0.0." in text
    assert any(row.startswith("| challenger | 0.16") for row in rows)
    assert any(row.startswith("| champion | 0.15") for row in rows)
    checks = [row for row in rows if "passed" in row or "FAILED" in row]
    assert ["FAILED" in row for row in checks] == sorted(("FAILED" in row for row in checks), reverse=True)
    assert r"\[a\]\(b\) \<b\> \| x" in text
    assert "153 users" in text
    assert "the champion in service is weak" in text
