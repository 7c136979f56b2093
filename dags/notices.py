"""News for people: the log, a webhook, an e-mail; and the note of a task in Airflow's own pages.

Environment: EVERGREEN_WEBHOOK_URL gets `{"subject", "text"}` as JSON (most chats read `text`).
EVERGREEN_MAIL_TO (addresses, comma-separated) gets an e-mail through EVERGREEN_SMTP_URL
(smtp://user:password@host:587; `smtps:` for TLS from the start; `smtp:` uses STARTTLS where it is offered).
Notes go through Airflow's API as EVERGREEN_API_USER with EVERGREEN_API_PASSWORD; without them, where login is
off. A notice that cannot be delivered is logged and stops nothing.
"""

from __future__ import annotations

import json
import logging
import os
import smtplib
import time
import urllib.request
from email.message import EmailMessage
from typing import Any
from urllib.parse import quote, unquote, urlsplit

log = logging.getLogger("airflow.task")
TIMEOUT_SECONDS = 10
NOTE_TRIES, PAUSE_SECONDS = 4, 2
"""SQLite has one writer: while another request holds it, Airflow answers 500 after five seconds (3.3.2)."""
NOTE_LENGTH = 900
"""Airflow takes 1,000 characters."""


def tell(subject: str, text: str) -> None:
    log.info("%s: %s", subject, text)
    if url := os.environ.get("EVERGREEN_WEBHOOK_URL"):
        _try("webhook", lambda: _call("POST", url, {"subject": subject, "text": f"{subject}\n{text}"}))
    if os.environ.get("EVERGREEN_MAIL_TO") and os.environ.get("EVERGREEN_SMTP_URL"):
        _try("e-mail", lambda: _mail(subject, text))


def set_note(context: Any, text: str) -> None:
    """The note of the running task."""
    ti = context["ti"]
    parts = (ti.dag_id, "dagRuns", ti.run_id, "taskInstances", ti.task_id)
    path = "/api/v2/dags/" + "/".join(quote(part, safe="") for part in parts)
    if ti.map_index is not None and ti.map_index >= 0:
        path += f"/{ti.map_index}"

    def write() -> None:
        base = _api()
        token = _token(base)
        body = {"note": text[:NOTE_LENGTH]}
        _call("PATCH", f"{base}{path}?update_mask=note", body, {"Authorization": f"Bearer {token}"})

    _try("note", write, NOTE_TRIES)


def _api() -> str:
    from airflow.sdk.configuration import conf

    address = conf.get("core", "execution_api_server_url", fallback="") or conf.get("api", "base_url")
    return str(address).rstrip("/").removesuffix("/execution")


def _token(base: str) -> str:
    user, password = (os.environ.get(f"EVERGREEN_API_{name}") for name in ("USER", "PASSWORD"))
    if user and password:
        found = _call("POST", f"{base}/auth/token", {"username": user, "password": password})
    else:
        found = _call("GET", f"{base}/auth/token")
    return str(found["access_token"])


def _call(method: str, url: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("an address has to start with http:// or https://")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    request.method = method
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        text = answer.read()
    try:
        return json.loads(text)
    except ValueError:
        return None


def _mail(subject: str, text: str) -> None:
    server = urlsplit(os.environ["EVERGREEN_SMTP_URL"])
    message = EmailMessage()
    message["Subject"] = " ".join(subject.split())
    message["To"] = os.environ["EVERGREEN_MAIL_TO"]
    sender = os.environ.get("EVERGREEN_MAIL_FROM") or unquote(server.username or "")
    message["From"] = sender or "evergreen@localhost"
    message.set_content(text)
    kind = smtplib.SMTP_SSL if server.scheme == "smtps" else smtplib.SMTP
    with kind(server.hostname or "localhost", server.port or 0, timeout=TIMEOUT_SECONDS) as smtp:
        smtp.ehlo()
        if server.scheme == "smtp" and smtp.has_extn("starttls"):
            smtp.starttls()
        if server.username and server.password:
            smtp.login(unquote(server.username), unquote(server.password))
        smtp.send_message(message)


def _try(what: str, act: Any, tries: int = 1) -> None:
    """Again after an error of the server's or of the line; not after a refusal."""
    for left in reversed(range(tries)):
        try:
            return act()
        except (OSError, ValueError, KeyError, TypeError, smtplib.SMTPException) as error:
            passing = isinstance(error, OSError) and getattr(error, "code", 500) >= 500
            if not (left and passing):
                return log.warning("%s not delivered: %s", what, error)
        time.sleep(PAUSE_SECONDS)
