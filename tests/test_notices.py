import json
import socketserver
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "dags"))

import notices


@pytest.fixture
def web() -> Iterator[tuple[str, list[Any]]]:
    """An address, and what was sent there: (method, path, authorization, body).

    It answers 500 to a body that says "locked" the first time, and always to one that says "broken".
    """
    heard: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            told = (self.command, self.path, self.headers.get("Authorization"), json.loads(body or "null"))
            failing = b"broken" in body or (b"locked" in body and told not in heard)
            heard.append(told)
            self.send_response(500 if failing else 200)
            self.end_headers()
            self.wfile.write(b'{"access_token": "t"}' if self.path == "/auth/token" else b"ok")

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", heard
        server.shutdown()


def test_webhook(web: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    address, heard = web
    monkeypatch.setenv("EVERGREEN_WEBHOOK_URL", f"{address}/hook")
    notices.tell("v2.0.0 is the champion", "Run 7: +3 %")
    body = {"subject": "v2.0.0 is the champion", "text": "v2.0.0 is the champion\nRun 7: +3 %"}
    assert heard == [("POST", "/hook", None, body)]


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/x", "file:///etc/passwd", "nonsense"])
def test_a_webhook_that_is_not_there_stops_nothing(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EVERGREEN_WEBHOOK_URL", address)
    with caplog.at_level("INFO", "airflow.task"):
        notices.tell("failed", "because")
    assert "failed: because" in caplog.text
    assert "webhook not delivered" in caplog.text


@pytest.fixture
def mail() -> Iterator[tuple[int, list[str]]]:
    """The port of a mail server, and the lines that it received."""
    received: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline().decode():
                received.append(line)
                if line.startswith("data"):
                    self.wfile.write(b"354 go on\r\n")
                    while (text := self.rfile.readline().decode()) != ".\r\n":
                        received.append(text)
                self.wfile.write(b"221 bye\r\n" if line.startswith("QUIT") else b"250 fine\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield int(server.server_address[1]), received
        server.shutdown()


def test_mail(mail: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    port, received = mail
    monkeypatch.setenv("EVERGREEN_SMTP_URL", f"smtp://127.0.0.1:{port}")
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "ops@example.org")
    notices.tell("finetune\nfailed", "out of memory")
    text = "".join(received)
    assert "rcpt to:<ops@example.org>" in text.lower()
    assert "Subject: finetune failed\r\n" in text
    assert "out of memory" in text


@pytest.mark.parametrize(
    "connection", ["{address}/hook", '{{"conn_type": "http", "host": "{address}/hook"}}']
)
def test_webhook_by_a_connection_of_airflow(
    web: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch, connection: str
) -> None:
    pytest.importorskip("airflow")
    address, heard = web
    monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_WEBHOOK", connection.format(address=address))
    notices.tell("failed", "because")
    assert [(told[0], told[1], told[3]["text"]) for told in heard] == [("POST", "/hook", "failed\nbecause")]


def test_mail_by_a_connection_of_airflow(
    mail: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("airflow")
    port, received = mail
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "e@example.org", "to": "ops@example.org"}
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_SMTP", json.dumps(connection))
    notices.tell("finetune failed", "out of <memory>")
    text = "".join(received)
    assert "rcpt to:<ops@example.org>" in text.lower()
    assert "Subject: finetune failed" in text


def test_note_of_a_run(web: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    address, heard = web
    monkeypatch.setattr(notices, "_api", lambda: address)
    notices.set_run_note({"ti": SimpleNamespace(dag_id="d", run_id="manual__2026+00:00")}, "v2.0.0 promoted")
    path = "/api/v2/dags/d/dagRuns/manual__2026%2B00%3A00?update_mask=note"
    assert heard[1] == ("PATCH", path, "Bearer t", {"note": "v2.0.0 promoted"})


def test_note_of_a_task(web: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    address, heard = web
    monkeypatch.setattr(notices, "_api", lambda: address)
    task = SimpleNamespace(dag_id="d", run_id="manual__2026+00:00", task_id="collect", map_index=-1)
    notices.set_note({"ti": task}, "x" * 2000)
    path = "/api/v2/dags/d/dagRuns/manual__2026%2B00%3A00/taskInstances/collect?update_mask=note"
    assert heard == [("GET", "/auth/token", None, None), ("PATCH", path, "Bearer t", {"note": "x" * 900})]
    monkeypatch.setenv("EVERGREEN_API_USER", "u")
    monkeypatch.setenv("EVERGREEN_API_PASSWORD", "p")
    notices.set_note({"ti": task}, "y")
    assert heard[2] == ("POST", "/auth/token", None, {"username": "u", "password": "p"})


@pytest.mark.parametrize(("text", "times", "lost"), [("locked", 2, ""), ("broken", 4, "note not delivered")])
def test_a_note_is_written_again_after_a_servers_error(
    web: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch, caplog: Any, text: str, times: int, lost: str
) -> None:
    address, heard = web
    monkeypatch.setattr(notices, "_api", lambda: address)
    monkeypatch.setattr(notices, "PAUSE_SECONDS", 0)
    task = SimpleNamespace(dag_id="d", run_id="r", task_id="open", map_index=-1)
    notices.set_note({"ti": task}, text)
    assert [told[3] for told in heard if told[0] == "PATCH"] == [{"note": text}] * times
    assert lost in caplog.text
