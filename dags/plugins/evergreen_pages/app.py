"""The pages' routes, behind Airflow's own login: who may read the DAG may read them; nobody can write.

Imported by the web server alone (see evergreen_page.py).
"""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import HTMLResponse, Response

from evergreen_pages import objects, registry, render, views
from evergreen_pages.history import History, Run

DAG = "evergreen_training"


@cache
def app() -> FastAPI:
    """Of the user's checkout: EVERGREEN_REPO, or the folder that holds dags/."""
    told = os.environ.get("EVERGREEN_REPO")
    return create_app(Path(told) if told else Path(__file__).resolve().parents[3])


def create_app(root: Path) -> FastAPI:
    site = Site(root)
    routes = {
        "/": site.overview,
        "/runs/{name}/": site.run,
        "/dag-run/{dag}/{run_id:path}": site.dag_run,
        "/runs/{name}/{report}/": site.report,
        "/runs/{name}/{report}/content": site.content,
    }
    # No documentation of its own: it would be open to strangers.
    made = FastAPI(
        title="Evergreen",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # Not AccessView.PLUGINS: FAB's viewers do not have it.
        dependencies=[Depends(requires_access_dag("GET", param_dag_id=DAG))],
    )
    for path, answer in routes.items():
        made.add_api_route(path, answer, methods=["GET"], response_class=HTMLResponse, response_model=None)
    threading.Thread(target=site.history.runs, daemon=True).start()  # so that the first reader does not wait
    return made


class Site:
    """The answers. They read files, so FastAPI runs them in threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.history = History(root)

    def overview(self) -> HTMLResponse:
        return html("overview.html", root="", **views.overview(self.history.runs(), self._registry()))

    def run(self, name: str) -> HTMLResponse:
        return self._run_page(self._named(name), "../../")

    def dag_run(self, dag: str, run_id: str) -> HTMLResponse:
        """The page of a DAG run, for Airflow's own view of it."""
        up = "../" * (2 + run_id.count("/"))
        for run in reversed(self.history.runs()):
            if run.dag == dag and run.run_id == run_id:
                return self._run_page(run, up)
        return html("unknown.html", root=up, title="Evergreen", ours=dag in views.DAGS)

    def report(self, name: str, report: str) -> HTMLResponse:
        """The frame around a report, with the way back."""
        run, found = self._found(name, report)
        told = views.summary(run, self._registry())
        values = {"title": f"{report.capitalize()} report", "run": told, "problem": found.problem}
        return html("report.html", 200 if found.content is not None else 404, root="../../../", **values)

    def content(self, name: str, report: str) -> Response:
        _, found = self._found(name, report)
        if found.content is None:
            raise HTTPException(404, found.problem)
        return HTMLResponse(found.content, headers=_headers(render.REPORT_POLICY))

    def _run_page(self, run: Run, up: str) -> HTMLResponse:
        reports = {name: objects.find(self.root, run.folder, name).problem for name in objects.REPORTS}
        return html("run.html", root=up, **views.one_run(run, self._registry(), reports))

    def _named(self, name: str) -> Run:
        """Among those that there are: a name never becomes a path."""
        for run in self.history.runs():
            if run.name == name:
                return run
        raise HTTPException(404, "no such run in data/history")

    def _found(self, name: str, report: str) -> tuple[Run, objects.Found]:
        run = self._named(name)
        if report not in objects.REPORTS:
            raise HTTPException(404, f"no such report; there are {', '.join(objects.REPORTS)}")
        return run, objects.find(self.root, run.folder, report)

    def _registry(self) -> registry.Registry:
        return registry.read(self.root)


def html(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(render.page(template, **values), status, headers=_headers(render.POLICY))


def _headers(policy: str) -> dict[str, str]:
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cache-Control": "private, no-store",
    }
