"""An addon for mitmproxy: card data in a JSON body goes, tokens come; nothing is stored. `mitmdump -s` loads it.

What this peer does not do, and Pangate does in the same run: mitmproxy asks for a client certificate and takes any or
none, for it has no option that verifies one against an authority; no access token is checked; no rate is limited; no
token is kept. Its figure is the cost of rewriting alone.
"""

from __future__ import annotations

from mitmproxy import http
from replace import NotACardError, replace_card


def request(flow: http.HTTPFlow) -> None:
    try:
        flow.request.content, _ = replace_card(flow.request.content or b"")
    except NotACardError:
        flow.response = http.Response.make(422)
