"""News for people: the log, a webhook, an e-mail; and the notes of tasks and runs in Airflow's own pages.

By Airflow's connections: `evergreen_webhook` (HTTP; its address as URI, or in the field Host) gets
`{"subject", "text"}` as JSON (most chats read `text`); `evergreen_smtp` (SMTP; its extra has `from_email`
and `to`) sends an e-mail. Or by environment: EVERGREEN_WEBHOOK_URL; EVERGREEN_MAIL_TO (addresses,
comma-separated) through EVERGREEN_SMTP_URL (smtp://user:password@host:587; `smtps:` for TLS from the start;
`smtp:` uses STARTTLS where it is offered). Where there are both, the connection is used. Notes go through
Airflow's API as EVERGREEN_API_USER with EVERGREEN_API_PASSWORD; without them, where login is off. A notice
that cannot be delivered is logged and stops nothing.
"""

from __future__ import annotations

import html
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
    hook = _connection("evergreen_webhook")
    if url := _address(hook) if hook else os.environ.get("EVERGREEN_WEBHOOK_URL"):
        _try("webhook", lambda: _call("POST", url, {"subject": subject, "text": f"{subject}\n{text}"}))
    if server := _connection("evergreen_smtp"):
        _try("e-mail", lambda: _mail_by_hook(server, subject, text))
    elif os.environ.get("EVERGREEN_MAIL_TO") and os.environ.get("EVERGREEN_SMTP_URL"):
        _try("e-mail", lambda: _mail(subject, text))


def page_of(dag_id: str, run_id: str) -> str:
    """The address of a run's page in Airflow."""
    from airflow.sdk.configuration import conf

    base = str(conf.get("api", "base_url", fallback="")).rstrip("/")
    return f"{base}/dags/{quote(dag_id)}/runs/{quote(run_id, safe='')}/plugin/evergreen_run"


def set_note(context: Any, text: str) -> None:
    """The note of the running task."""
    ti = context["ti"]
    index = [str(ti.map_index)] if ti.map_index is not None and ti.map_index >= 0 else []
    _note([ti.dag_id, "dagRuns", ti.run_id, "taskInstances", ti.task_id, *index], text)


def set_run_note(context: Any, text: str) -> None:
    """The note of the whole run."""
    _note([context["ti"].dag_id, "dagRuns", context["ti"].run_id], text)


def _note(parts: list[str], text: str) -> None:
    path = "/api/v2/dags/" + "/".join(quote(part, safe="") for part in parts)

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
        answer = _call("POST", f"{base}/auth/token", {"username": user, "password": password})
    else:
        answer = _call("GET", f"{base}/auth/token")
    return str(answer["access_token"])


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


def _connection(name: str) -> Any:
    """Of Airflow's: its database, AIRFLOW_CONN_..., or a secrets backend; None where there is none."""
    try:
        from airflow.sdk import Connection
        from airflow.sdk.exceptions import AirflowException
    except ImportError:  # in tests, where Airflow is not installed
        return None
    try:
        return Connection.get(name)
    except AirflowException:
        return None


def _address(connection: Any) -> str:
    """Of a URI https://host/path; or of a form's Host (an address or a name) and Schema (http or https)."""
    host, schema = connection.host or "", connection.schema or ""
    if "://" in host:
        return str(host)
    given = schema in ("http", "https")
    scheme = schema if given else "https" if connection.conn_type == "https" else "http"
    port = f":{connection.port}" if connection.port else ""
    return f"{scheme}://{host}{port}/{'' if given else schema}"


def _mail_by_hook(connection: Any, subject: str, text: str) -> None:
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    to = connection.extra_dejson.get("to") or os.environ.get("EVERGREEN_MAIL_TO")
    if not to:
        raise ValueError("the connection evergreen_smtp names nobody: its extra needs `to`")
    with SmtpHook(smtp_conn_id="evergreen_smtp") as hook:
        line, body = " ".join(subject.split()), f"<pre>{html.escape(text)}</pre>"
        hook.send_email_smtp(to=to, subject=line, html_content=body)


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
