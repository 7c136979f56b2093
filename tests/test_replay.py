"""`evergreen replay`: its clock, its words, and how it deals with Airflow (a stand-in that speaks REST)."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import page_history
import pytest
import toy
from collecting import of_files

from pipeline.documents.promotion import Check, Identity, Promotion
from pipeline.documents.runs import RunRecord
from pipeline.errors import ConfigError, DataError, PipelineError
from pipeline.runs import airflow_api, replay
from pipeline.runs.periods import line, told
from pipeline.runs.worktrees import REPLAYING, link_sources

PLAN = [datetime(1998, 1, 5, tzinfo=UTC), datetime(1998, 1, 19, tzinfo=UTC), datetime(1998, 2, 2, tzinfo=UTC)]


# The clock -------------------------------------------------------------------------------------------------


def test_dates_begin_where_the_share_is_reached(tmp_path: Path) -> None:
    days = [f"1998-01-{day:02}T12:00:00Z" for day in range(1, 31)]
    rows = "".join(f"u,i,{day}\n" for day in [*days, "no time"])
    (tmp_path / "x.csv").write_text(f"user_id,item_id,timestamp\n{rows}")
    collect = of_files(tmp_path / "x.csv")
    found = replay.moments(collect, replay.share("60%"), replay.span("5d"))
    # 30 rows: the 19th is the first that is behind 60 %.
    assert [f"{date:%m-%d %H}" for date in found] == ["01-19 12", "01-24 12", "01-29 12"]
    with pytest.raises(DataError, match="11\\.0 days are left: take an earlier --start"):
        replay.moments(collect, 0.6, replay.span("2w"))
    with pytest.raises(DataError, match="11\\.0 days are left"):
        replay.moments(collect, 0.6, replay.span("999999w"))


@pytest.mark.parametrize(("text", "expected"), [("60%", 0.6), ("0.25", 0.25)])
def test_share(text: str, expected: float) -> None:
    assert replay.share(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["0", "100%", "x", "1.5", "-3%"])
def test_share_outside_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--start"):
        replay.share(text)


@pytest.mark.parametrize("text", ["30", "0d", "x", "1m", "99999999999999d", "1000000w"])
def test_span_is_a_number_and_a_unit(text: str) -> None:
    with pytest.raises(ConfigError, match="--every"):
        replay.span(text)


# A stand-in for Airflow ------------------------------------------------------------------------------------


class FakeAirflow:
    """Runs end at once; a monitoring run of a day in `drifts` calls for a training, as the asset does."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.runs: dict[tuple[str, str], dict[str, object]] = {}
        self.triggered: list[tuple[str, str]] = []
        self.drifts: set[str] = set()
        self.fails: set[str] = set()
        self.paused = False
        self.unheard = False  # requests start no training
        self.broken = 0  # answers that are 503
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(None)

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body: dict[str, object] | None) -> None:
                status, content = fake.respond(unquote(self.path), body, self.headers.get("Authorization"))
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def respond(
        self, path: str, body: dict[str, object] | None, token: str | None
    ) -> tuple[int, dict[str, Any]]:
        if path == "/auth/token":
            return 201, {"access_token": "let me in"}
        if token != "Bearer let me in":
            return 401, {"detail": "Not authenticated"}
        if self.broken:
            self.broken -= 1
            return 503, {}
        if match := re.fullmatch(r"/api/v2/dags/(\w+)/dagRuns/(.+?)(/taskInstances.*)?", path):
            if match[3]:
                return 200, {"task_instances": [{"task_id": "finetune"}]}
            run = self.runs.get((match[1], match[2]))
            return (200, run) if run else (404, {"detail": "no such run"})
        if match := re.fullmatch(r"/api/v2/dags/(\w+)/dagRuns", path):
            assert body
            return 200, self.begin(match[1], str(body["dag_run_id"]), body["conf"])
        if match := re.fullmatch(r"/api/v2/dags/(\w+)", path):
            return 200, {"is_paused": self.paused}
        assert path.startswith("/api/v2/assets/events")
        [run_id] = parse_qs(urlsplit(path).query)["source_run_id"]
        called = (replay.TRAINING, f"asset__{run_id}")
        created = [{"dag_id": called[0], "run_id": called[1]}] if called in self.runs else []
        events = [{"name": "recommendations", "created_dagruns": []}]  # of the lists that a run publishes
        if created or self.unheard:
            others = [{"dag_id": "mirror", "run_id": "one"}]  # another DAG may be scheduled on it
            events = [{"name": replay.REQUEST, "created_dagruns": others if self.unheard else created}]
        return 200, {"asset_events": events}

    def begin(self, dag: str, run_id: str, conf: object) -> dict[str, object]:
        assert isinstance(conf, dict)
        self.triggered.append((dag, run_id))
        day = conf["as_of"][:10]
        state = "failed" if day in self.fails else "success"
        self.end(dag, run_id, day, state)
        if dag == replay.MONITORING and day in self.drifts:
            self.end(replay.TRAINING, f"asset__{run_id}", day, state)
        return self.runs[dag, run_id]

    def end(self, dag: str, run_id: str, day: str, state: str) -> None:
        self.runs[dag, run_id] = {"state": state}
        as_of = datetime.fromisoformat(day).replace(tzinfo=UTC)
        folder = self.repository / "data" / "history" / f"{dag}-{run_id}"
        trains = dag == replay.TRAINING
        page_history.write_run(folder, as_of, "v1.0.0", 2, trains, "v2.0.0" if trains else None)
        run = json.loads((folder / "run.json").read_text()) | {"run_id": run_id}
        (folder / "run.json").write_text(json.dumps(run))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAirflow]:
    page_history.appoint(tmp_path)
    airflow = FakeAirflow(tmp_path)
    monkeypatch.setenv("AIRFLOW_PORT", str(airflow.server.server_port))
    monkeypatch.setattr(airflow_api, "POLL_SECONDS", 0.01)
    for name in ("AIRFLOW_URL", "AIRFLOW_USER"):
        monkeypatch.delenv(name, raising=False)
    yield airflow
    airflow.server.shutdown()
    airflow.server.server_close()


def played(root: Path) -> list[str]:
    player = replay.DagRuns(root, "key")
    lines = [
        line(told(date, player.play(date, place == 0, print), "v1.0.0")) for place, date in enumerate(PLAN)
    ]
    player.end()
    return lines


def test_each_period_is_a_real_run_and_what_it_called_for(fake: FakeAirflow) -> None:
    fake.drifts = {"1998-02-02"}
    first, second, third = played(fake.repository)
    assert [dag for dag, _ in fake.triggered] == [replay.TRAINING, replay.MONITORING, replay.MONITORING]
    assert "1998-01-05" in first
    assert "trained full in 200 s · v2.0.0 promoted" in first
    assert "decision none" in second
    assert "trained" not in second
    assert "v2.0.0 promoted" in third


def test_interrupted_it_goes_on_where_it_was(fake: FakeAirflow) -> None:
    played(fake.repository)
    fake.triggered.clear()
    played(fake.repository)
    assert fake.triggered == []


def test_failed_run_is_named_and_tried_again(fake: FakeAirflow) -> None:
    fake.fails = {"1998-01-19"}
    with pytest.raises(PipelineError, match=r"evergreen_monitoring failed: see http://127.0.0.1:\d+/dags/"):
        played(fake.repository)
    assert (fake.repository / REPLAYING).is_file()  # scheduled runs stand back until it is played to its end
    fake.fails = set()
    played(fake.repository)
    assert not (fake.repository / REPLAYING).exists()
    assert ("evergreen_monitoring", "replay__key__19980119T000000Z__2") in fake.triggered


def test_silent_airflow_is_waited_for(fake: FakeAirflow) -> None:
    player = replay.DagRuns(fake.repository, "key")
    fake.broken = 3
    assert player.play(PLAN[0], True, print)


def test_paused_dag_is_named(fake: FakeAirflow) -> None:
    fake.paused = True
    with pytest.raises(PipelineError, match="evergreen_monitoring is paused"):
        replay.DagRuns(fake.repository, "key")


def test_asset_that_starts_no_run_is_told(fake: FakeAirflow, monkeypatch: pytest.MonkeyPatch) -> None:
    player = replay.DagRuns(fake.repository, "key")
    fake.unheard = fake.paused = True
    with pytest.raises(PipelineError, match="it asked for evergreen_training, and it is paused"):
        player.play(PLAN[1], False, print)
    fake.paused = False
    monkeypatch.setattr(airflow_api, "START_SECONDS", 0.05)
    with pytest.raises(PipelineError, match="none began in"):
        player.play(PLAN[2], False, print)


def test_other_checkout_is_noticed(fake: FakeAirflow, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    page_history.appoint(elsewhere)
    with pytest.raises(PipelineError, match="works on another checkout"):
        replay.DagRuns(elsewhere, "key").play(PLAN[0], True, print)


def test_champion_from_the_future_is_refused(
    fake: FakeAirflow, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("checkout")
    page_history.appoint(root, "v1.0.0", "v2.0.0")  # fitted to 1998-02-04
    with pytest.raises(
        PipelineError, match=r"v2.0.0 has learned from data until 1998-02-04, later than 1998-01-05"
    ):
        replay.DagRuns(root, "key").play(PLAN[0], True, print)
    assert fake.triggered == []
    assert not (root / REPLAYING).exists()


def test_without_airflow_it_says_what_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_PORT", "9")  # nobody listens
    monkeypatch.delenv("AIRFLOW_URL", raising=False)
    with pytest.raises(PipelineError, match="no Airflow answers there: start it with `make airflow`"):
        airflow_api.Airflow()


def test_empty_folders_are_told_without_surprise(tmp_path: Path) -> None:
    assert line(told(PLAN[0], [], None)) == "1998-01-05  drift not checked · decision none"
    (tmp_path / "promotion.json").write_text('{"promote": 1, "checks": [3]}')
    assert line(told(PLAN[0], [tmp_path], None)) == line(told(PLAN[0], [], None))
    checks = [Check(name="users", passed=False, text="few"), Check(name="points", passed=True, text="many")]
    Promotion(promote=False, checks=checks, challenger=Identity()).write(tmp_path / "promotion.json")
    assert "refused: users" in line(told(PLAN[0], [tmp_path], None))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, "allowed, not promoted"),
        ({"not_promoted": "rejected by vera"}, "allowed, not promoted: rejected by vera"),
        ({"promoted": "v2.0.0"}, "v2.0.0 promoted"),
    ],
)
def test_a_promotion_that_a_person_refused_is_told_as_none(tmp_path: Path, facts: Any, said: str) -> None:
    run = RunRecord(run_id="one", dag="evergreen_training", state="success", mode="full", **facts)
    run.write(tmp_path / "run.json")
    Promotion(promote=True, checks=[], challenger=Identity(artifact_hash="c")).write(
        tmp_path / "promotion.json"
    )
    assert line(told(PLAN[0], [tmp_path], "v1.0.0")).endswith(f" · {said}")


@pytest.mark.slow
def test_cycles_in_a_clone_replay_a_toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    project = toy.new_cycle_project(tmp_path / "project")
    rows = "".join(f"user,item,1998-{month:02}-01\n" * 8 for month in (1, 2, 3))
    (project / "source.csv").write_text(f"{rows}")
    toy.git(project, "commit", "-q", "-a", "-m", "More rows")
    clone = replay.Cycles(project, "key")
    found = [
        told(date, clone.play(date, place == 0, print), replay._champion(clone.root))
        for place, date in enumerate([datetime(1998, 1, 1, tzinfo=UTC), datetime(1998, 2, 1, tzinfo=UTC)])
    ]
    assert [period.promotion for period in found] == ["v1.0.0 promoted", "v2.0.0 promoted"]
    assert toy.tags(project) == []  # the user's registry knows nothing of it
    again = replay.Cycles(project, "key")
    assert again.play(datetime(1998, 1, 1, tzinfo=UTC), True, print)


def test_clone_reads_the_checkouts_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay.Cycles, "_clone", lambda self, root: self.root.mkdir(parents=True))
    text = Path("params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(
        text.replace("interactions: null # a", "interactions: shop/*.csv # a", 1).replace(
            "encoder: package:", "encoder: our/encoder # package:", 1
        )
    )
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "orders.csv").write_text("as delivered")
    (tmp_path / "our" / "encoder").mkdir(parents=True)
    (tmp_path / "our" / "encoder" / "config.json").write_text("{}")
    clone = replay.Cycles(tmp_path, "key")
    assert (clone.root / "shop" / "orders.csv").read_text() == "as delivered"
    assert (clone.root / "our" / "encoder" / "config.json").read_text() == "{}"


def test_an_encoder_of_a_hub_or_a_package_is_no_link(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "root"
    home.mkdir()
    root.mkdir()
    for encoder in ("owner/model", "package:name/inside", str(home)):
        params = re.sub(r"encoder: \S+", f"encoder: {encoder}", Path("params.yaml").read_text())
        (root / "params.yaml").write_text(params)
        link_sources(home, root)
        assert [path.name for path in root.iterdir()] == ["params.yaml"]


def test_command_is_listed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "replay", "--help"], capture_output=True, text=True
    )
    assert "--without-airflow" in done.stdout
