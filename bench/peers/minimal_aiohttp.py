"""The peer that does nothing: an aiohttp Application whose one handler forwards with a ClientSession, behind mTLS."""

from __future__ import annotations

import argparse
import ssl
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

SESSION = web.AppKey("session", ClientSession)
UPSTREAM = web.AppKey("upstream", str)


async def forward(request: web.Request) -> web.Response:
    body = await request.read()
    headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "content-length")}
    url = request.app[UPSTREAM] + request.raw_path
    async with request.app[SESSION].request(request.method, url, headers=headers, data=body) as answer:
        content = await answer.read()
        return web.Response(status=answer.status, body=content, content_type=answer.content_type)


async def session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar()) as client:
        app[SESSION] = client
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--ca", required=True)
    options = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    context.load_verify_locations(options.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    app = web.Application()
    app[UPSTREAM] = options.upstream
    app.router.add_route("*", "/{path:.*}", forward)
    app.cleanup_ctx.append(session)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=options.port, ssl_context=context, access_log=None, print=None)


if __name__ == "__main__":
    main()
