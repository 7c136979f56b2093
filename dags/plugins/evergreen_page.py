"""The plugin: an entry "Evergreen" in Airflow's navigation, and a tab of each DAG run.

The pipeline writes the pages beside each run's record (data/history/RUN/index.html); evergreen_site.py serves
them. Every task and every DAG parser loads plugins too, so nothing but a few names is imported here.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlparse

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

PREFIX = "/evergreen"


def _below(path: str) -> str:
    """A link that also works where Airflow is served below a path."""
    return f"{urlparse(conf.get('api', 'base_url', fallback='')).path.rstrip('/')}{PREFIX}{path}"


class Evergreen(AirflowPlugin):
    name = "evergreen"
    external_views = [  # noqa: RUF012 (Airflow's own shape)
        {
            "name": "Evergreen",
            "href": _below("/"),
            "destination": "nav",
            "url_route": "evergreen",
            "nav_top_level": True,
        },
        {
            "name": "Evergreen",
            "href": _below("/dag-run/{DAG_ID}/{RUN_ID}"),
            "destination": "dag_run",
            "url_route": "evergreen_run",
        },
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        from evergreen_site import app

        return [{"app": app(), "url_prefix": PREFIX, "name": "Evergreen"}]
