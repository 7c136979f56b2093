"""The HTTP interface: routes, problems as RFC 9457 says, metrics. `create` is the factory that uvicorn calls.

Settings come from the environment: EVERGREEN_EVENTS (the store's address), EVERGREEN_API_KEYS (a file),
EVERGREEN_RATE (calls a second of each caller; 0 or unset: no limit), EVERGREEN_CORS (origins, by commas).
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from pydantic import BeforeValidator, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.data import forgotten, pseudonyms
from pipeline.errors import ConfigError, DataError, PipelineError
from pipeline.serve.access import MOST_BYTES, Keys, Rate, problem_with
from pipeline.serve.described import describe
from pipeline.serve.engine import Engine, NotReady
from pipeline.serve.events import Row, Store, StoreError, default_url
from pipeline.serve.listing import Unknown
from pipeline.serve.measured import Measured
from pipeline.serve.messages import (
    MOST_EVENTS,
    MOST_LISTED,
    Alike,
    Answer,
    Changed,
    Event,
    Forgotten,
    Found,
    Health,
    Id,
    Item,
    Question,
    Received,
    as_list,
)
from pipeline.serve.writing import Erased, Writer

log = logging.getLogger(__name__)
PAGE = Path(__file__).parents[1] / "templates" / "serve.html"
POLICY = (  # of the page: its own script and style, its own server
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
ERASED: dict[int | str, dict[str, Any]] = {410: {"description": "a user was forgotten"}}
UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "no such item"}}
RETRY_SECONDS = 2.0  # between looks for a champion that is not there yet
Events = Annotated[list[Event], BeforeValidator(as_list), Field(min_length=1, max_length=MOST_EVENTS)]


class Service:
    """What one worker holds."""

    def __init__(
        self, root: Path, url: str | None = None, keys: Keys | None = None, rate: Rate | None = None
    ) -> None:
        self.store = Store(url or default_url(root), create=False)
        self.engine = Engine(root, self.store)
        self.writer = Writer(self.store)
        self.keys, self.rate = keys, rate or Rate(0)
        self.pseudonyms = pseudonyms.of_data(root)
        self.store.forgotten = self.forgotten = forgotten.Forgotten.of_project(root)
        self.measured = Measured(self.engine, self.writer)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._start, name="start", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _start(self) -> None:
        """Until a champion is there. Answers say `starting` meanwhile, and why."""
        while not self._stop.is_set():
            try:
                self.store.create()
            except StoreError as error:
                self.engine.store_problem = str(error)
            try:
                self.engine.start()
                log.info("serving %s", self.engine.version)
                return
            except PipelineError as error:
                self.engine.problem = str(error)
            except Exception as error:
                log.exception("the champion could not be loaded")
                self.engine.problem = f"{type(error).__name__}: {error}"
            self._stop.wait(RETRY_SECONDS)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
        self.engine.close()
        self.writer.close()
        self.store.close()

    def health(self) -> tuple[int, Health]:
        engine = self.engine
        problem = engine.whole_problem
        if engine.version is None:
            return 503, Health(
                status="starting", version=None, fit_end=None, state_lag_seconds=None, problem=problem
            )
        return 200, Health(
            status="degraded" if problem else "ok",
            version=engine.version,
            fit_end=engine.world.fit_end,
            state_lag_seconds=engine.lag_seconds,
            problem=problem,
        )

    def named(self, user_id: str) -> str:
        """What data and store call a user. Raises DataError for a pseudonym of another key."""
        return user_id if self.pseudonyms is None else self.pseudonyms.of(user_id)

    def kept(self, events: list[Event], now: int) -> list[Row]:
        """As the store keeps them; events without a time happen now, one microsecond after another."""
        hidden = self.pseudonyms
        return [
            Row(
                event.event_id,
                self.named(event.user_id),
                event.item_id,
                event.event,
                event.value,
                event.text if hidden is None or event.text is None else pseudonyms.scrubbed(event.text),
                now + place if event.timestamp is None else round(event.timestamp.timestamp() * 1_000_000),
                event.impression_id,
            )
            for place, event in enumerate(events)
        ]


def create(root: Path | None = None, url: str | None = None) -> FastAPI:
    """The application over the project in `root` (default: the working directory)."""
    service = Service(root or Path.cwd(), url, Keys.from_environment(), Rate.from_environment())

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await run_in_threadpool(service.close)

    app = FastAPI(
        title="Evergreen",
        description="Lists that know what happened a moment ago, and why each item is on them.",
        version="1",
        lifespan=life,
    )
    app.state.service = service
    _problems(app)
    app.add_middleware(Guard, service=service)
    if origins := os.environ.get("EVERGREEN_CORS"):
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[origin.strip() for origin in origins.split(",")],
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    _lists(app, service)
    _writes(app, service)
    _service_pages(app, service)
    describe(app)
    return app


# Routes ----------------------------------------------------------------------------------------------------


def _lists(app: FastAPI, service: Service) -> None:
    engine = service.engine

    @app.post("/recommend", tags=["lists"], response_model=Answer)
    def recommend(question: Question) -> Response:
        """Items for a known user, for a history given in place, for a text, or for any of these together."""
        if question.user_id is not None:
            question = question.model_copy(update={"user_id": service.named(question.user_id)})
        answer, impression = engine.recommend(question)
        if question.as_of is None:  # a list of the past is shown to nobody
            service.writer.show(impression)
        service.measured.listed(answer.fallback)
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.get("/items/{item_id:item}/similar", tags=["lists"], response_model=Alike, responses=UNKNOWN)
    def similar(item_id: Annotated[Id, InPath()], k: Annotated[int, Field(ge=1, le=MOST_LISTED)] = 10) -> Any:
        """Items that the same people take, or that are described alike; also of a withdrawn item."""
        if not engine.knows_item(item_id):
            raise HTTPException(404, f"no item {item_id!r}")
        return {"version": engine.version, "items": engine.similar(item_id, k)}

    @app.get("/items", tags=["lists"], response_model=Found)
    def items(words: str = "", k: Annotated[int, Field(ge=1, le=MOST_LISTED)] = 10) -> Any:
        """Items whose title holds the words, the most popular first."""
        return {"version": engine.version, "items": engine.catalogue_rows(words[:200], k)}


def _writes(app: FastAPI, service: Service) -> None:
    engine = service.engine

    @app.post("/feedback", tags=["feedback"], responses=ERASED)
    async def feedback(
        events: Annotated[Events, Body()],
    ) -> Received:
        """One event or a list of them, durable before the answer; sent again, an event counts once."""
        if engine.version is None:
            raise NotReady
        done = service.writer.append(service.kept(events, engine.moment()))
        accepted, duplicates = await asyncio.wrap_future(done)
        service.measured.received(accepted, duplicates)
        return Received(accepted=accepted, duplicates=duplicates, version=str(engine.version))

    @app.put("/items/{item_id:item}", tags=["items"], response_model=Changed)
    def put_item(item_id: Annotated[Id, InPath()], item: Item) -> Any:
        """Put an item, new or changed; lists hold it within a moment."""
        service.store.put_item(item_id, engine.content(item), engine.moment())
        return {"version": engine.version, "item_id": item_id}

    @app.delete("/items/{item_id:item}", tags=["items"], response_model=Changed, responses=UNKNOWN)
    def withdraw(item_id: Annotated[Id, InPath()]) -> Any:
        """Take an item from all lists at once. Put again, it comes back."""
        if not engine.knows_item(item_id):
            raise HTTPException(404, f"no item {item_id!r}")
        service.store.put_item(item_id, None, engine.moment())
        return {"version": engine.version, "item_id": item_id}

    @app.delete("/users/{user_id:id}", tags=["feedback"], response_model=Forgotten)
    def forget(user_id: Annotated[Id, InPath()]) -> Any:
        """Erase a person's events and impressions, and what the lists know of them, for good.

        What comes of them later is refused; data and older models: `evergreen forget`.
        """
        name = service.named(user_id)
        mark = service.forgotten.mark(name, make=service.store.sqlite)
        events, _ = service.store.forget(name, mark, engine.moment())
        return {"version": engine.version, "events": events}


def _service_pages(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["service"], response_model=Health, responses={503: {"model": Health}})
    async def health() -> Response:
        """200 when lists are made (`ok`, or `degraded` with the problem), 503 while starting."""
        status, told = service.health()
        return JSONResponse(told.model_dump(), status)

    @app.get("/metrics", tags=["service"], response_class=PlainTextResponse)
    def metrics() -> Response:
        """For Prometheus."""
        return Response(service.measured.text(), media_type=service.measured.CONTENT_TYPE)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        headers = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        headers["Content-Security-Policy"] = POLICY
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=headers)

    @app.get("/page.json", include_in_schema=False)
    def page_settings() -> Any:
        return service.engine.for_page()


# Around them -----------------------------------------------------------------------------------------------


def problem(status: int, detail: str, request: Request | None = None, **further: Any) -> JSONResponse:
    """RFC 9457."""
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if request is not None and (number := getattr(request.state, "request_id", None)):
        further["request_id"] = number
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(content | further, status, headers, media_type="application/problem+json")


def _problems(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        errors = [
            {
                "field": ".".join(str(part) for part in each["loc"] if part != "body") or "body",
                "message": str(each["msg"]).removeprefix("Value error, "),
            }
            for each in error.errors()[:20]
        ]
        first = errors[0]
        return problem(422, f"{first['field']}: {first['message']}", request, errors=errors)

    @app.exception_handler(Unknown)
    async def unknown(request: Request, error: Unknown) -> Response:
        return problem(422, str(error), request)

    @app.exception_handler(DataError)
    async def unreadable(request: Request, error: DataError) -> Response:
        return problem(422, str(error), request)

    @app.exception_handler(NotReady)
    async def starting(request: Request, _: NotReady) -> Response:
        why = app.state.service.engine.problem or "the champion is being loaded"
        return problem(503, f"starting: {why}", request)

    @app.exception_handler(ConfigError)
    @app.exception_handler(StoreError)
    async def no_store(request: Request, error: Exception) -> Response:
        return problem(503, f"{error}: nothing was kept", request)

    @app.exception_handler(Erased)
    async def erased(request: Request, _: Erased) -> Response:
        return problem(
            410, "a user of these events was forgotten (DELETE /users/{id}): nothing was kept", request
        )

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        answer = problem(error.status_code, str(error.detail), request)
        if error.status_code == 405:  # Starlette knows the methods of the first route alone
            answer.headers["Allow"] = ", ".join(_methods(request))
        return answer


def _methods(request: Request) -> list[str]:
    """That the path has, by any route."""
    path = {**request.scope, "method": "no such"}
    routes = [route for route in request.app.routes if route.matches(path)[0] is not Match.NONE]
    return sorted({method for route in routes for method in route.methods or ()})


class Guard:
    """Around every call: who may, its id, its time. Plain ASGI: Starlette's own middlewares cost a
    millisecond."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, request, status = time.perf_counter(), Request(scope, receive), 0
        number = request.headers.get("x-request-id", "")[:64] or uuid.uuid4().hex
        request.state.request_id = number

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", number.encode("latin-1"))]
            await send(message)

        try:
            refusal = _refusal(self.service, request)
            await (refusal or self.app)(scope, receive, told)
        except Exception:
            log.exception("request %s failed", number)
            if status:
                raise  # half an answer is out already
            answer = problem(500, "a fault of the service: its log has more", request)
            await answer(scope, receive, told)
        route = getattr(scope.get("route"), "path_format", "other")
        seconds = time.perf_counter() - begin
        self.service.measured.answered(route, status, seconds)
        # The route, not the path: that may hold a user's id.
        log.info("%s %s %s %d %.1f ms", number, request.method, route, status, 1000 * seconds)


def _refusal(service: Service, request: Request) -> Response | None:
    client = request.client.host if request.client else None
    service.keys = service.keys and service.keys.renewed()
    found = problem_with(service.keys, request.headers.get("host"), request.headers, request.url.path, client)
    if not isinstance(found, str):
        return problem(*found, request)
    if not service.rate.allows(found):
        return problem(429, "too many calls: EVERGREEN_RATE is the limit a second", request)
    length = request.headers.get("content-length")
    if length is None and request.method in ("POST", "PUT"):
        return problem(411, "a body needs its Content-Length", request)
    if length is not None and (not length.isdigit() or int(length) > MOST_BYTES):
        return problem(413, f"a body has at most {MOST_BYTES:,} bytes: send less at a time", request)
    return None
