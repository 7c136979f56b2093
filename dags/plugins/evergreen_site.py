"""The pages of data/history behind Airflow's own login: who may read the DAG may read them; nobody can write.

Imported by the web server alone (see evergreen_page.py). Nothing is rendered here: the pipeline wrote the
pages.
Rule: a name in an address is looked up among those that there are, and never becomes a path.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from urllib.parse import quote

from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import HTMLResponse, RedirectResponse, Response

DAG = "evergreen_training"
INDEX = "index.html"
REPORTS = ("drift.html", "evaluation.html", "simulation.html")
PAGES = (INDEX, "drift-report.html", "evaluation-report.html", "simulation-report.html")
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-src 'self'; frame-ancestors 'self'; "
    "base-uri 'none'; form-action 'none'"
)
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
"""Of a report, which brings scripts (Evidently's): an origin of its own, no cookies, no requests."""
NOTE = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><meta http-equiv="refresh" content="15">
<title>Evergreen</title>
<body style="font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem">
<h1>{}</h1><p>{}</p></body>"""
NO_HISTORY = NOTE.format(
    "No run yet",
    "Trigger the DAG evergreen_training. Or <code>evergreen replay</code>, in another terminal, plays the"
    " data's own history through the DAGs: some minutes, and this page is full.",
)
NO_RECORD = NOTE.format(
    "This run has no record yet",
    "It has one as soon as its first task, <code>open</code>, has begun. If that was skipped or failed at"
    " once, its note says why. Only evergreen_monitoring and evergreen_training leave records.",
)


@cache
def app() -> FastAPI:
    """Of the user's checkout: EVERGREEN_REPO, or the folder that holds dags/."""
    checkout = os.environ.get("EVERGREEN_REPO")
    return create_app(Path(checkout) if checkout else Path(__file__).resolve().parents[2])


def create_app(root: Path) -> FastAPI:
    site = Site(root / "data" / "history")
    # No documentation of its own: it would be open to strangers.
    # Not AccessView.PLUGINS: FAB's viewers lack it.
    access = [Depends(requires_access_dag("GET", param_dag_id=DAG))]
    made = FastAPI(title="Evergreen", docs_url=None, redoc_url=None, openapi_url=None, dependencies=access)
    routes = {
        "/": site.overview,
        "/index.html": site.overview,
        "/dag-run/{dag}/{run_id:path}": site.dag_run,
        "/{name}/{file}": site.file,
    }
    for path, answer in routes.items():
        made.add_api_route(path, answer, methods=["GET"], response_class=HTMLResponse, response_model=None)
    return made


class Site:
    """The answers. They read files, so FastAPI runs them in threads."""

    def __init__(self, history: Path) -> None:
        self.history = history

    def overview(self) -> Response:
        page = self.history / INDEX
        return _html(page.read_bytes() if page.is_file() else NO_HISTORY)

    def dag_run(self, dag: str, run_id: str) -> Response:
        """To the page of a DAG run, for Airflow's own view of it."""
        up = "../" * (2 + run_id.count("/"))
        for folder in self._folders():
            if _belongs(folder, dag, run_id):
                return RedirectResponse(
                    f"{up}{quote(folder.name, safe='')}/{INDEX}", headers=_headers(POLICY)
                )
        return _html(NO_RECORD)

    def file(self, name: str, file: str) -> Response:
        """A page of a run, or a report."""
        folder = next((one for one in self._folders() if one.name == name), None)
        if folder is None or file not in (*PAGES, *REPORTS):
            raise HTTPException(404, "no such run or page in data/history")
        try:
            content = (folder / file).read_bytes()
        except OSError:
            raise HTTPException(404, f"this run left no {file}") from None
        return _html(content, REPORT_POLICY if file in REPORTS else POLICY)

    def _folders(self) -> list[Path]:
        try:
            return [one for one in self.history.iterdir() if one.is_dir() and not one.name.startswith(".")]
        except OSError:
            return []


def _belongs(folder: Path, dag: str, run_id: str) -> bool:
    try:
        record = json.loads((folder / "run.json").read_bytes())
        return bool(record["dag"] == dag and record["run_id"] == run_id)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _html(content: bytes | str, policy: str = POLICY) -> HTMLResponse:
    return HTMLResponse(content, headers=_headers(policy))


def _headers(policy: str) -> dict[str, str]:
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cache-Control": "private, no-store",
    }
