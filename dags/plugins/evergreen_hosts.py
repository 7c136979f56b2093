"""Where login is off, Airflow's server answers to this machine alone, and acts for its own pages alone.

A page of a stranger whose name is made to point to 127.0.0.1 (DNS rebinding) would otherwise get an
administrator's token from /auth/token: the browser sends such a request with the stranger's name as Host. And
any page could post what needs no body, as a training is asked for by materialising an asset: the browser
names the page as Origin.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.configuration import conf

HOSTS = ["127.0.0.1", "localhost"]
READING = ("GET", "HEAD", "OPTIONS")


class OwnPages:
    """ASGI middleware: a request that acts is refused (403) where a page of another origin sends it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] not in READING:
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            origin = headers.get(b"origin")  # none: no browser
            if origin is not None and urlsplit(origin).netloc != headers.get(b"host"):
                from starlette.responses import PlainTextResponse

                refused = PlainTextResponse("refused: another page's request", status_code=403)
                return await refused(scope, receive, send)
        return await self.app(scope, receive, send)


class EvergreenHosts(AirflowPlugin):
    name = "evergreen_hosts"

    @property
    def fastapi_root_middlewares(self) -> list[dict[str, Any]]:
        """Read by the web server alone; other processes load neither FastAPI nor Starlette for it."""
        if not conf.getboolean("core", "simple_auth_manager_all_admins", fallback=False):
            return []
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        options = {"allowed_hosts": HOSTS, "www_redirect": False}
        return [
            {"middleware": TrustedHostMiddleware, "kwargs": options, "name": "Evergreen: hosts"},
            {"middleware": OwnPages, "kwargs": {}, "name": "Evergreen: own pages"},
        ]
