"""`mode: report` decides what `enforce` decides, counts it, and changes not a byte.

Three gateways run the same files; what `${MODE}` stands for is all that they differ in. Each request breaks one rule
at most, and that rule is in this mode; all others of its policy enforce.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from examples.demo.wire import Answer
from gateway.adapters.dev_certificates import make_dev_certificates, mint_token
from gateway.config.kinds import rule_kinds
from tests.e2e.demo_world import caller, serving
from tests.e2e.harness import Gateway, free_ports
from tests.upstreams import ScriptedUpstream, answering, scripted

CONFIG = """
version: 1
listeners:
  edge:
    bind: 127.0.0.1:${PANGATE_EDGE_PORT}
    tls: {certificate: certs/server.pem, key: file:certs/server.key, client_ca: certs/both.pem,
          client_certificate: optional}
admin: {bind: "127.0.0.1:${PANGATE_ADMIN_PORT}"}
store: sqlite:var/pangate.db
upstreams: {shop: {url: "http://127.0.0.1:${PANGATE_SHOP_PORT}"}}
routes:
"""
ROUTE = """
  - {name: KIND, listener: edge, match: {path: /KIND}, policy: KIND, upstream: shop}
"""
LIMIT = 3
OWN = {
    "owner": "owner: tenant, places: [$.tenant]",
    "condition": "values: {amount: $.amount}, expression: amount < 2000",
    "velocity": f"counts: requests, key: [peer.address], at_most: {LIMIT}, within: 1d",
}
"""Kinds that stand in their own policy alone: what is wrong for others would be wrong for them as well."""
KINDS = ("mtls", "jwt", "rate_limit", "schema", "inspect", *OWN)
"""Each also names a route, and the policy in which this kind alone has the mode."""
APART = {
    "conceal": "test_in_report_mode_it_counts_and_lets_all_pass",
    "dpop": "test_in_report_mode_a_proof_is_judged_and_not_asked_for",
    "signature": "test_in_report_mode_a_refused_head_leaves_the_body_alone",
}
"""Without `dpop` and `signature`, and so with `off`, other requests are right, and `conceal` judges answers: the tests
of theirs that say what report does."""

BODY = b'{"amount": 1999, "note": "\\u00e9 as it is"}'
REPLY = (
    b"HTTP/1.1 202 Fine\r\nX-Shop: 1\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Type: text/odd\r\n"
    b"Content-Length: 6\r\n\r\n\x00hello"
)
OF_ONE_REQUEST = re.compile(rb"\r\n(Date|X-Request-Id|X-Request-Deadline|traceparent): [^\r]*")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, and the reason for which its rule refuses it; none, if nothing is wrong with it."""

    route: str
    reason: str
    identity: str | None
    authorization: str
    body: bytes = BODY


@dataclass(frozen=True, slots=True)
class Told:
    """What came of the traffic at one gateway: answers, what was forwarded, and what `pangate_blocked_total` says."""

    answers: list[Answer]
    forwarded: list[bytes]
    blocked: Mapping[tuple[str, str, str, str], float]
    """By route, stage, reason and mode."""


def traffic(certs: Path) -> Iterator[Ask]:
    """With credentials of the issuer whose files are in `certs`."""

    def bearer(**claims: object) -> str:
        return f"Bearer {mint_token(certs, claims)}"

    good = bearer()
    unsigned = good.rpartition(".")[0] + "." + "A" * 86
    for reason, identity, times in (
        ("", "partner", 1),
        ("certificate_required", None, 3),
        ("certificate_not_allowed", "stranger", 2),
        ("", "partner", 1),
        ("certificate_invalid", "shop", 1),
    ):
        yield from [Ask("mtls", reason, identity, good)] * times
    for reason, authorization, times in (
        ("", good, 1),
        ("token_required", "", 1),
        ("scope_insufficient", bearer(scope="payments:read"), 4),
        ("token_invalid", unsigned, 2),
        ("token_expired", bearer(iat=1_700_000_000, exp=1_700_000_060), 3),
        ("", good, 1),
    ):
        yield from [Ask("jwt", reason, "partner", authorization)] * times
    for reason, body in (("", BODY), ("schema_violated", b'{"amount": "1999"}'), ("body_malformed", b'{"amount": 1')):
        yield Ask("schema", reason, "partner", good, body)
    for reason, body in (("", BODY), ("card_number_found", b'{"amount": 1999, "note": "4111 1111 1111 1111"}')):
        yield Ask("inspect", reason, "partner", good, body)
    for reason, body in (("", b'{"tenant": "default"}'), ("owner_mismatch", b'{"tenant": "other"}')):
        yield Ask("owner", reason, "partner", good, body)
    for reason, body in (("", BODY), ("condition_failed", b'{"amount": 2000}')):
        yield Ask("condition", reason, "partner", good, body)
    for reason in (*("",) * LIMIT, "velocity_exceeded", "velocity_exceeded"):
        yield Ask("velocity", reason, "partner", good)
    for sub, over in (("till-1", 5), ("till-2", 1)):
        own = bearer(sub=sub)
        yield from [Ask("rate_limit", "", "partner", own)] * LIMIT
        yield from [Ask("rate_limit", "rate_limited", "partner", own)] * over


def policy(tried: str) -> str:
    """All the kinds, one of them in the mode that is tried."""
    mode = {kind: "${MODE}" if kind == tried else "enforce" for kind in KINDS}
    own = f"  - {{kind: {tried}, {OWN[tried]}, mode: '${{MODE}}'}}" if tried in OWN else ""
    key, limit = ("jwt.sub", LIMIT) if tried == "rate_limit" else ("peer.address", 1000)
    return f"""
rules:
  - kind: mtls
    ca: certs/partners-ca.pem
    san: ["spiffe://shop.example/*"]
    mode: {mode["mtls"]}
  - kind: jwt
    issuer: https://idp.example
    audience: payments
    jwks: file:certs/jwks.json
    scopes: [payments:write]
    mode: {mode["jwt"]}
  - kind: rate_limit
    key: [{key}]
    rate: {limit}/day
    burst: {limit}
    mode: {mode["rate_limit"]}
{own}
  - kind: schema
    body: {{type: object, properties: {{amount: {{type: integer}}}}}}
    mode: {mode["schema"]}
  - kind: inspect
    request: block
    response: off
    mode: {mode["inspect"]}
"""


def write_files(folder: Path) -> Path:
    """The configuration and its certificates. The listener knows two authorities, the rules one of them."""
    certs = folder / "certs"
    make_dev_certificates(certs)
    (certs / "both.pem").write_bytes(b"".join((certs / f"{ca}-ca.pem").read_bytes() for ca in ("partners", "services")))
    (folder / "config.yaml").write_text(CONFIG + "".join(ROUTE.replace("KIND", kind) for kind in KINDS))
    (folder / "policies").mkdir()
    for kind in KINDS:
        (folder / "policies" / f"{kind}.yaml").write_text(policy(kind))
    return folder


def send(gateway: Gateway, asked: list[Ask]) -> list[Answer]:
    answers = []
    for ask in asked:
        headers = {"Content-Type": "application/json", "x-mixed-Case": "kept"}
        headers |= {"Authorization": ask.authorization} if ask.authorization else {}
        with caller(gateway, "edge", ask.identity) as client:
            answers.append(client.ask("POST", f"/{ask.route}", headers, ask.body))
    return answers


def blocked(gateway: Gateway) -> dict[tuple[str, str, str, str], float]:
    found = {}
    for labels, value in gateway.samples("pangate_blocked_total").items():
        label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        found[label["route"], label["stage"], label["reason"], label["mode"]] = value
    return found


async def tell(gateway: Gateway, shop: ScriptedUpstream, asked: list[Ask]) -> Told:
    before = len(shop.requests)
    async with serving(gateway):
        answers = await asyncio.to_thread(send, gateway, asked)
        counted = await asyncio.to_thread(blocked, gateway)
    return Told(answers, shop.requests[before:], counted)


async def test_report_counts_what_enforce_blocks_and_lets_every_byte_pass(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files")
    asked = list(traffic(files / "certs"))
    told = []
    async with scripted(answering(REPLY)) as shop:
        for mode in ("report", "enforce", "off"):
            folder = Path(shutil.copytree(files, tmp_path / mode))
            gateway = Gateway(folder, {**free_ports("edge", "admin"), "shop": shop.port}, {"MODE": mode})
            told.append(await tell(gateway, shop, asked))
    report, enforce, off = told
    broken = [ask.reason for ask in asked]

    assert [_reason(answer) for answer in enforce.answers] == broken
    assert len(enforce.forwarded) == broken.count("")

    assert {answer.status for answer in report.answers} == {202}
    assert len(report.forwarded) == len(asked)
    kept = iter(enforce.forwarded)
    unguarded = [off.forwarded[i] if reason else next(kept) for i, reason in enumerate(broken)]
    assert [_anonymous(raw) for raw in report.forwarded] == [_anonymous(raw) for raw in unguarded]
    assert [_anonymous(a.received) for a in report.answers] == [_anonymous(a.received) for a in off.answers]
    assert all(raw.endswith(b"\r\n\r\n" + a.body) for raw, a in zip(report.forwarded, asked, strict=True))

    expected = Counter((ask.route, ask.reason) for ask in asked if ask.reason)
    assert {(route, reason): count for (route, _, reason, _), count in enforce.blocked.items()} == expected
    assert {mode for *_, mode in enforce.blocked} == {"enforce"}
    assert report.blocked == {(*where, "report"): count for (*where, _), count in enforce.blocked.items()}
    assert off.blocked == {}


def _reason(answer: Answer) -> str:
    """Why it was refused, or nothing."""
    return "" if answer.status == 202 else str(answer.json()["type"]).rpartition(":")[2]


def _anonymous(raw: bytes) -> bytes:
    """Without what is new in every request."""
    return OF_ONE_REQUEST.sub(b"", raw)


def test_all_kinds_that_can_report_are_tried() -> None:
    assert {name for name, kind in rule_kinds().items() if kind.rule.reportable} == {*KINDS, *APART}
    for kind, test in APART.items():
        assert f"def {test}(" in (Path(__file__).parents[1] / "rules" / f"test_{kind}.py").read_text()
