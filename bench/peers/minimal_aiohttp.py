"""The peer that does nothing: an aiohttp Application whose one handler forwards with a ClientSession, behind mTLS.

Written as the documentation of aiohttp shows both, with their defaults. Bodies stream both ways and header fields are
passed on, as a proxy must; there is no access log. `--uvloop` gives it the faster event loop.
"""

from __future__ import annotations

import argparse
import ssl
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, web

SESSION = web.AppKey("session", ClientSession)
UPSTREAM = web.AppKey("upstream", str)
HOP_BY_HOP = ("Host", "Connection", "Keep-Alive", "Transfer-Encoding", "TE", "Trailer", "Upgrade")


async def forward(request: web.Request) -> web.StreamResponse:
    headers = request.headers.copy()
    for name in HOP_BY_HOP:
        headers.popall(name, None)
    url = request.app[UPSTREAM] + request.raw_path
    body = request.content if request.body_exists else None
    async with request.app[SESSION].request(request.method, url, headers=headers, data=body) as answer:
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


async def session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession() as client:
        app[SESSION] = client
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    context.load_verify_locations(options.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    app = web.Application()
    app[UPSTREAM] = options.upstream
    app.router.add_route("*", "/{path:.*}", forward)
    app.cleanup_ctx.append(session)
    loop = uvloop.new_event_loop() if options.uvloop else None
    web.run_app(app, host="127.0.0.1", port=options.port, ssl_context=context, access_log=None, print=None, loop=loop)


if __name__ == "__main__":
    main()
