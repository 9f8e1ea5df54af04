"""Whatever is delivered to whatever provider is refused with a reason, and nothing else comes of it."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.kinds import webhook_providers
from gateway.pure.errors import Refused
from gateway.pure.webhooks import Arrival
from tests.webhooks.cases import NOW, Published, arrive, provisioned, vectors, verdict

PROVIDERS: Final = sorted(webhook_providers())
HALVES: Final = [
    "",
    " ",
    ".",
    "..",
    "a.b.c",
    "e30.e30.e30",
    "e30..e30",
    "=",
    ",",
    ";",
    "|",
    "t=1,v1=",
    "Bearer ",
    "Basic =",
]
JUNK: Final = st.sampled_from([*HALVES, "é", "\x00", "٣" * 64, "A" * 3000])


def genuine(name: str) -> list[tuple[dict[str, Any], list[bytes], Any]]:
    """Recorded deliveries, with the keys and the verifier that take them."""
    provider, found = webhook_providers()[name], []
    for vector in vectors(name):
        if provider.settings is None:
            verifier: Any = provider.provision(None, Published(None))
        else:
            verifier = provisioned(name, vector.get("settings", {}), Published(vector.get("jwks")))
        parse = provider.parse_secret
        keys = [] if parse is None else [parse(secret.encode()) for secret in vector["secrets"]]
        found.append((vector, keys, verifier))
    return found


def damaged(vector: dict[str, Any], data: st.DataObject) -> Arrival:
    """One thing of it is not as it was: a field, a character of the body, or one member of it."""
    fields, body = dict(vector["headers"]), vector["body"]
    what = data.draw(st.sampled_from(["field", "twice", "cut", "character", "member", "nothing"]))
    if what in ("field", "twice", "cut") and fields:
        name = data.draw(st.sampled_from(sorted(fields)))
        if what == "twice":
            return arrive(body.encode(), *fields.items(), (name, fields[name]), at=vector["now"], url=_url(vector))
        fields[name] = data.draw(JUNK) if what == "field" else fields[name][: data.draw(st.integers(0, 40))]
    elif what == "character" and body:
        at = data.draw(st.integers(0, len(body) - 1))
        body = body[:at] + data.draw(st.characters(exclude_categories=["Cs"])) + body[at + 1 :]
    elif what == "member" and body.startswith("{"):
        members = _members(body)
        if members:
            members[data.draw(st.sampled_from(sorted(members)))] = data.draw(
                st.one_of(st.none(), st.booleans(), st.integers(), JUNK, st.just([]), st.just({}))
            )
            body = json.dumps(members)
    elif what == "nothing":
        fields, body = {}, data.draw(JUNK)
    return arrive(body.encode(), *fields.items(), at=vector["now"], url=_url(vector))


def _members(body: str) -> dict[str, Any]:
    try:
        members = json.loads(body)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


def _url(vector: dict[str, Any]) -> str:
    url: str = vector.get("url", "https://a.example/hooks")
    return url


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_damaged_delivery_is_taken_or_refused_and_never_crashes(name: str) -> None:
    recorded = genuine(name)
    arrivals: list[tuple[Arrival, list[bytes], Any]] = []

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def collect(data: st.DataObject) -> None:
        vector, keys, verifier = data.draw(st.sampled_from(recorded))
        arrivals.append((damaged(vector, data), keys, verifier))

    collect()
    for arrival, keys, verifier in arrivals:
        await verdict(verifier, arrival, keys)
    assert len(arrivals) >= 50


@pytest.mark.parametrize("name", [name for name in PROVIDERS if hasattr(genuine(name)[0][2], "handshake")])
@settings(max_examples=60, deadline=None)
@given(method=st.sampled_from(["GET", "OPTIONS", "POST"]), value=JUNK, query=JUNK)
def test_a_handshake_answers_or_refuses_and_never_crashes(name: str, method: str, value: str, query: str) -> None:
    _, keys, verifier = genuine(name)[0]
    fields = [(f"webhook-request-{part}", value) for part in ("origin", "rate", "callback")]
    url = f"https://a.example/hooks?bt_challenge={query}"
    try:
        said = verifier.handshake(arrive(b"", *fields, at=NOW, url=url, method=method), keys)
    except Refused:
        return
    assert said is None or not set(said.headers.values()) & {value}
