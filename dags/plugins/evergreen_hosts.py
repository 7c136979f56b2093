"""Where login is off, Airflow's server answers to the names of this machine alone.

A page of a stranger whose name is made to point to 127.0.0.1 (DNS rebinding) would otherwise get an
administrator's token from /auth/token: the browser sends such a request with the stranger's name as Host.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.configuration import conf

HOSTS = ["127.0.0.1", "localhost"]


class EvergreenHosts(AirflowPlugin):
    name = "evergreen_hosts"

    @property
    def fastapi_root_middlewares(self) -> list[dict[str, Any]]:
        """Read by the web server alone; other processes load neither FastAPI nor Starlette for it."""
        if not conf.getboolean("core", "simple_auth_manager_all_admins", fallback=False):
            return []
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        options = {"allowed_hosts": HOSTS, "www_redirect": False}
        return [{"middleware": TrustedHostMiddleware, "kwargs": options, "name": "Evergreen: hosts"}]
