"""The admin listener: health, readiness, metrics, reload, and other actions. Bound to this machine.

Nothing of a request is shown here, and no web page may change anything (its browser says that it is one).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.ports import Soon, settled
from gateway.pure.bind import Unix, parse_bind
from gateway.server.actions import Action

Checks = Callable[[], Awaitable[Mapping[str, bool]]]
Reload = Callable[[], Awaitable[Sequence[str]]]
Scrape = Callable[[], Soon[tuple[bytes, str]]]


class Admin:
    """Serves four paths of its own, and `actions`.

    `retire` makes `/readyz` answer 503 from then on, whatever the checks say. `checks` names what must work for
    requests to be served; `scrape` renders the metrics and names their media type; `reload` returns the complaints for
    which the configuration was not applied, none if it was.
    """

    def __init__(self, *, checks: Checks, scrape: Scrape, reload: Reload, actions: Sequence[Action] = ()) -> None:
        self._checks = checks
        self._scrape = scrape
        self._reload = reload
        self._actions = actions
        self._retired = False
        self._runner: web.AppRunner | None = None

    async def open(self, bind: str) -> None:
        """Raises ValueError (`bind`) and OSError."""
        place = parse_bind(bind)
        app = web.Application(middlewares=[_refuse_pages])
        app.add_routes([
            web.get("/healthz", self._healthz),
            web.get("/readyz", self._readyz),
            web.get("/metrics", self._metrics),
            web.post("/reload", self._reloaded),
            *(web.route(action.method, action.path, functools.partial(_acted, action)) for action in self._actions),
        ])  # fmt: skip
        app.on_response_prepare.append(_name_no_software)
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=75.0, handle_signals=False)
        await self._runner.setup()
        if isinstance(place, Unix):
            await web.UnixSite(self._runner, place.path).start()
        else:
            await web.TCPSite(self._runner, place.host, place.port).start()

    @property
    def port(self) -> int:
        """The bound TCP port."""
        assert self._runner is not None
        return int(self._runner.addresses[0][1])

    def retire(self) -> None:
        self._retired = True

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return json_response(200, {"status": "alive", "pid": os.getpid()})

    async def _readyz(self, _: web.Request) -> web.Response:
        checks = {"accepting": not self._retired, **await self._checks()}
        ready = all(checks.values())
        return json_response(200 if ready else 503, {"ready": ready, "checks": checks})

    async def _metrics(self, _: web.Request) -> web.Response:
        body, media_type = await settled(self._scrape())
        return web.Response(body=body, headers={"Content-Type": media_type})

    async def _reloaded(self, _: web.Request) -> web.Response:
        try:
            complaints = await self._reload()
        except Exception as error:  # noqa: BLE001 - the operator reads what failed; the old configuration runs on
            return json_response(500, {"applied": False, "complaints": [f"The reload failed: {type(error).__name__}."]})
        return json_response(409 if complaints else 200, {"applied": not complaints, "complaints": list(complaints)})


async def _acted(action: Action, request: web.Request) -> web.Response:
    return json_response(*await action.perform(request.query, await request.read()))


def json_response(status: int, document: Mapping[str, object]) -> web.Response:
    """An answer that nobody keeps."""
    headers = {"Cache-Control": "no-store"}
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json", headers=headers)


@web.middleware
async def _refuse_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method != "GET" and ("Origin" in request.headers or "Sec-Fetch-Site" in request.headers):
        return json_response(403, {"complaints": ["A web page may not change anything here."]})
    return await handler(request)


async def _name_no_software(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "pangate"
