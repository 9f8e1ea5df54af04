"""Recipes of signed messages: what the name of a case says, done to a message that would pass.

A message is drafted, signed as it stands, and changed behind the signer's back; what a name asks for is read from its
words, so that another wording of the same attack finds its way too.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from bench.scorecard.cases import Exchange
from bench.scorecard.signed import BODY, KEYS, Draft, public_pem
from gateway.pure.message_signatures import (
    HMAC,
    content_digest,
    sign,
)
from gateway.pure.structured_fields import Bare, Item

_RACERS = 50
_HASH = hashes.SHA512()

Change = Callable[[Draft, re.Match[str]], None]


def _drop(name: str) -> Change:
    return lambda draft, _: draft.sent.append(lambda d: d.set(name, None))


def _later(change: Callable[[Draft], None]) -> Change:
    return lambda draft, _: draft.sent.append(change)


def _parameter(name: str, value: Bare | None) -> Change:
    def change(draft: Draft, _: re.Match[str]) -> None:
        draft.parameters.pop(name, None)
        if value is not None:
            draft.parameters[name] = value

    return change


def _cover(*names: str | Item) -> Change:
    items = [name if isinstance(name, Item) else Item(name) for name in names]
    return lambda draft, _: setattr(draft, "components", items)


def _cover_too(*names: str | Item) -> Change:
    def change(draft: Draft, _: re.Match[str]) -> None:
        draft.components += [name if isinstance(name, Item) else Item(name) for name in names]

    return change


def _created(sign_of: int) -> Change:
    return lambda draft, found: draft.parameters.update(created=int(time.time()) + sign_of * int(found[1]))


def _digest(value: str | None) -> Change:
    return lambda draft, _: setattr(draft, "digest", value)


def _raw(change: Callable[[bytes], bytes]) -> Change:
    return lambda draft, _: setattr(draft, "change_signature", change)


def _as_it_is(_: Draft, __: re.Match[str]) -> None:
    pass


def _with_key(draft: Draft, found: re.Match[str]) -> None:
    draft.sign_with({"hmac": "mac", "ecdsa": "ec", "rsa": "rsa"}.get(found[1], "ed"))


def _under_the_same_id(draft: Draft, _: re.Match[str]) -> None:
    draft.kid = "other"


def _public_key_as_secret(draft: Draft, _: re.Match[str]) -> None:
    draft.parameters["alg"] = HMAC
    draft.forge = lambda base: sign(HMAC, public_pem("ed"), base)


def _der(draft: Draft, _: re.Match[str]) -> None:
    draft.sign_with("ec")
    draft.forge = lambda base: bytes(KEYS["ec"][1].sign(base, ec.ECDSA(hashes.SHA256())))


def _coalesced(draft: Draft, _: re.Match[str]) -> None:
    draft.set("Prefer", "a, b")
    draft.components.append(Item("prefer"))

    def split(d: Draft) -> None:
        d.set("Prefer", None)
        d.fields += [("Prefer", "a"), ("Prefer", "b")]

    draft.sent.append(split)


def _twice(name: str) -> Change:
    def change(draft: Draft) -> None:
        draft.set(name, f"{draft.field(name)}, {draft.field(name)}")

    return _later(change)


def _on_two_lines(name: str) -> Change:
    return _later(lambda draft: draft.fields.append((name, draft.field(name))))


def _other_label(draft: Draft) -> None:
    draft.set("Signature", draft.field("Signature").replace("sig1=", "sig2=", 1))


def _second_signature(draft: Draft) -> None:
    given = draft.field("Signature-Input").replace("sig1=", "sig2=", 1)
    draft.set("Signature-Input", f"{draft.field('Signature-Input')}, {given}")
    draft.set("Signature", f"{draft.field('Signature')}, sig2=:{base64.b64encode(bytes(64)).decode()}:")


def _upper_label(draft: Draft) -> None:
    for name in ("Signature", "Signature-Input"):
        draft.set(name, draft.field(name).replace("sig1=", "SIG1=", 1))


def _reordered(draft: Draft) -> None:
    head, *parameters = draft.field("Signature-Input").split(";")
    draft.set("Signature-Input", ";".join([head, *reversed(parameters)]))


def _covered(draft: Draft, _: re.Match[str]) -> None:
    draft.set("X-Note", "as signed")
    draft.components.append(Item("x-note"))
    draft.sent.append(lambda d: d.set("X-Note", "as sent"))


def _replace(name: str, old: str, new: str) -> Change:
    return _later(lambda draft: draft.set(name, re.sub(old, new, draft.field(name), count=1)))


def _wrong_digest(draft: Draft, _: re.Match[str]) -> None:
    draft.digest = content_digest(b"another body")


def _one_wrong_digest(draft: Draft, _: re.Match[str]) -> None:
    draft.digest = f"{content_digest(draft.body)}, sha-512=:{base64.b64encode(bytes(64)).decode()}:"


def _attr_before(name: str, value: object) -> Change:
    return lambda draft, _: setattr(draft, name, value)


def _attr(name: str, value: object) -> Change:
    return _later(lambda draft: setattr(draft, name, value))


def _sha512(draft: Draft, _: re.Match[str]) -> None:
    draft.digest = f"sha-512=:{base64.b64encode(hashlib.sha512(draft.body).digest()).decode()}:"


def _both_digests(draft: Draft, found: re.Match[str]) -> None:
    _sha512(draft, found)
    draft.digest = f"{content_digest(draft.body)}, {draft.digest}"


def _cased(draft: Draft, _: re.Match[str]) -> None:
    def spelled(d: Draft) -> None:
        d.fields = [("CONTENT-digest" if n == "Content-Digest" else n, v) for n, v in d.fields]

    draft.sent.append(spelled)


def _pss_without_salt(draft: Draft, _: re.Match[str]) -> None:
    draft.sign_with("rsa")
    draft.forge = lambda base: bytes(KEYS["rsa"][1].sign(base, padding.PSS(padding.MGF1(_HASH), 0), _HASH))


def _pkcs(draft: Draft, _: re.Match[str]) -> None:
    draft.sign_with("rsa")
    draft.forge = lambda base: bytes(KEYS["rsa"][1].sign(base, padding.PKCS1v15(), _HASH))


def _too_large(raw: bytes) -> bytes:
    """Ed25519's S and the order of its group: what RFC 8032 section 5.1.7 refuses."""
    order = 2**252 + 27742317777372353535851937790883648493
    return raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")


def _of_other(draft: Draft, _: re.Match[str]) -> None:
    other = Draft(target="/signed/2?account=2", body=BODY + b" ")
    other.bytes()
    draft.sent.append(lambda d: d.set("Signature", other.field("Signature")))


def _uncovered(name: str, value: str) -> Change:
    """Added behind the signer's back to a message that has to cover it."""
    return lambda draft, _: draft.sent.append(lambda d: d.set(name, value))


def _folded(draft: Draft, found: re.Match[str]) -> None:
    _covered(draft, found)
    draft.sent.append(lambda d: d.set("X-Note", "as\r\n signed"))


def _many_labels(draft: Draft, found: re.Match[str]) -> None:
    def repeat(d: Draft) -> None:
        for name in ("Signature-Input", "Signature"):
            value = d.field(name).partition("=")[2]
            d.set(name, ", ".join(f"sig{n}={value}" for n in range(int(found[1]))))

    draft.sent.append(repeat)


def _long_input(draft: Draft, _: re.Match[str]) -> None:
    draft.components += [Item(f"x-note-{number}") for number in range(4000)]


RECIPES: Sequence[tuple[str, Change]] = [
    (r"control.*\b(ed25519|ecdsa|hmac|rsa)", _with_key),
    (r"control\b", _as_it_is),
    (r"content-digest sha-512|sha-512 only", _sha512),
    (r"content-digest.*both right", _both_digests),
    (r"alg (param(eter)? )?(missing|absent)", _as_it_is),
    (r"case of (the )?(name|field)|field name case", _cased),
    (r"(pss|salt)", _pss_without_salt),
    (r"pkcs|v1[._]5 signature", _pkcs),
    (r"small order|s >= l|non-?canonical s\b", _raw(_too_large)),
    (r"(another|other) (request|message)|over (an)?other body", _of_other),
    (r"authorization not covered|dpop not covered", _uncovered("Authorization", "Bearer a.b.c")),
    (r"content-encoding", _uncovered("Content-Encoding", "gzip")),
    (r"header (moved|order)", _as_it_is),
    (r"obs-?fold", _folded),
    (r"(\d+) (labels|signatures)", _many_labels),
    (r"signature-input.*\d+ ?ki?b|signature-input (too|very)", _long_input),
    (r"signature-input (twice|duplicate)", _on_two_lines("Signature-Input")),
    (r"signature (field |header )?(twice|duplicate)", _on_two_lines("Signature")),
    (r"without colons?", _replace("Signature", "=:(.*):$", r"=\1")),
    (r"inner list|signature-input (malformed|garbage|not)", _replace("Signature-Input", r"=\(.*?\)", "=1")),
    (r"response signature|;req", _cover_too(Item("@status"))),
    (r"component ;?bs|;bs\b", _cover_too(Item("content-digest", {"bs": True}))),
    (r"component ;?key|;key", _cover_too(Item("content-digest", {"key": "md5"}))),
    (r"@query-param missing|query-param.*(missing|absent)", _cover_too(Item("@query-param", {"name": "missing"}))),
    (r"method changed|other method", _attr("method", "PUT")),
    (r"path changed|other path", _attr("target", "/signed/2?account=1")),
    (r"query (changed|added|removed|reordered)|parameter (changed|added)", _attr("target", "/signed/1?account=2")),
    (r"scheme changed|other scheme", _attr_before("scheme", "https")),
    (r"trailing comma", _replace("Signature", "$", ",")),
    (r"non-?canonical|stray bits", _replace("Signature", "(.)==:$", r"\1=:")),
    (r"label.*upper", _later(_upper_label)),
    (r"param(eter)?s? reordered", _later(_reordered)),
    (
        r"header (value |twice )?(changed|removed|added)|header white ?space|white ?space.*header|added twice",
        _covered,
    ),
    (r"target.?uri changed", _attr("target", "/signed/1?account=3")),
    (r"(authority|host) changed|other (authority|host)", _attr("host", "other.example")),
    (r"query-?param.*(twice|duplicate)", _attr("target", "/signed/1?account=1&account=1")),
    (r"re-?serialised|parsed json|pretty", _attr("body", BODY.replace(b":", b": "))),
    (r"body (emptied|removed|empty|dropped)", _attr("body", b"")),
    (r"(newline|byte|space).*(added|appended).*body|body.*(newline|appended|trailing)", _attr("body", BODY + b"\n")),
    (r"body.*(changed|tampered|replaced|flipped)|one byte of the body", _attr("body", BODY.replace(b"100", b"999"))),
    (r"content-digest (missing|absent|removed)", _drop("Content-Digest")),
    (r"content-digest.*(md5|sha-1|sha1|sha\b|crc|unixsum)", _digest("md5=:1B2M2Y8AsgTpgAmY7PhCfg==:")),
    (r"content-digest empty", _digest(" ")),
    (r"content-digest (of|over).*(decoded|decompressed|other|another)", _wrong_digest),
    (r"content-digest.*unknown", _digest("sha-999=:AAAA:")),
    (r"content-digest.*one wrong", _one_wrong_digest),
    (r"content-digest (not covered|uncovered)", _cover("@method", "@target-uri")),
    (r"content-digest.*(malformed|not base64|truncated)", _digest("sha-256=:AA==:")),
    (r"content-digest (wrong|mismatch|of another|changed)|digest mismatch", _wrong_digest),
    (r"content-digest (twice|duplicate)|two content-digest", _on_two_lines("Content-Digest")),
    (r"required component|@target-uri not covered|only @path", _cover("@method", "@path", "content-digest")),
    (r"@method not covered", _cover("@target-uri", "content-digest")),
    (r"empty covered|no components|nothing covered", _cover()),
    (r"component (listed )?twice|duplicate component", _cover_too("@method")),
    (r"unknown (derived )?component|@unknown", _cover_too("@unknown")),
    (r"@status", _cover_too("@status")),
    (r"component.*(missing|absent|not (in|present))|missing (header|field)", _cover_too("x-missing")),
    (r"upper.?case.*component|component.*upper", _cover_too(Item("Content-Digest"))),
    (r";(req|tr|sf)\b", _cover_too(Item("@method", {"req": True}))),
    (r"created missing|no created", _parameter("created", None)),
    (r"created (\d+) ?s(?:econds)? (?:old|ago|in the past)", _created(-1)),
    (r"created (\d+) ?s(?:econds)? (?:ahead|in the future|early)", _created(1)),
    (r"created.*future", _parameter("created", int(time.time()) + 3600)),
    (r"created.*(float|decimal|fraction)", _replace("Signature-Input", r"created=(\d+)", r"created=\1.5")),
    (r"created.*(string|text|quoted)", _replace("Signature-Input", r"created=(\d+)", r'created="\1"')),
    (r"created.*(negative|zero)|created.*(too )?old|stale", _parameter("created", 0)),
    (r"created (changed|altered)|params? changed", _replace("Signature-Input", r"created=\d", "created=9")),
    (r"expire[sd]", _parameter("expires", 1)),
    (r"nonce (missing|absent)|no nonce", _parameter("nonce", None)),
    (r"nonce (integer|number)", _parameter("nonce", 7)),
    (r"nonce (empty|too short|short)", _parameter("nonce", "")),
    (r"nonce (too long|\d+ ?k)", _parameter("nonce", "n" * 4096)),
    (r"keyid (missing|absent)|no keyid", _parameter("keyid", None)),
    (r"keyid.*(\.\./|path|/etc)", _parameter("keyid", "../../etc/passwd")),
    (r"keyid (unknown|of another|of other|other)|unknown key(id)?", lambda draft, _: draft.sign_with("other")),
    (r"keyid (empty)", _parameter("keyid", "")),
    (r"(another|other|wrong) key|signed by", _under_the_same_id),
    (r"alg.*hmac.*public key|public key.*hmac", _public_key_as_secret),
    (r"alg.*(differs|mismatch|other|wrong)", _parameter("alg", "ecdsa-p256-sha256")),
    (r"alg.*(none|unknown|empty|''|weak|rsa-v1)", _parameter("alg", "none")),
    (r"tag (missing|absent)|no tag", _parameter("tag", None)),
    (r"tag (wrong|other|changed|of another)|other tag", _parameter("tag", "another-application")),
    (r"signature without signature-input|signature-input missing", _drop("Signature-Input")),
    (r"signature-input without signature|signature missing|no signature", _drop("Signature")),
    (r"duplicate label|label twice", _twice("Signature")),
    (r"label.*(mismatch|not match|differ|other|unknown)", _later(_other_label)),
    (r"two signature-input", _on_two_lines("Signature-Input")),
    (r"two signature (fields|headers)", _on_two_lines("Signature")),
    (r"(two|second|extra|more|multiple) signatures?|signatures?.*one (bad|wrong|invalid)", _later(_second_signature)),
    (r"coalesc|two fields", _coalesced),
    (r"\bder\b", _der),
    (r"truncated|too short|cut", _raw(lambda raw: raw[:-1])),
    (r"padded|trailing (zero|byte)|too long", _raw(lambda raw: raw + b"\0")),
    (r"bit (flipped|changed)|flip", _raw(lambda raw: bytes([raw[0] ^ 1]) + raw[1:])),
    (r"signature (bytes )?(empty|zero)|all.zero", _raw(lambda raw: bytes(len(raw)))),
    (r"not base64|malformed|garbage|not a (byte sequence|dictionary)", _replace("Signature", "=:.*", '="text"')),
    (r"base64url", _replace("Signature", r"=:..", "=:-_")),
]


def steps(name: str, *, good: bool) -> Callable[[], Sequence[Exchange]] | None:
    """The requests of a recipe, made when it is played; None for a name that says nothing we know how to do."""
    lower = name.lower()
    if re.search(r"parallel|race|at once", lower):
        return _raced if good else _raced_again
    if re.search(r"nonce.*(replay|reus|twice|again)|replay", lower):
        return _replayed
    for pattern, change in RECIPES:
        found = re.search(pattern, lower)
        if found is not None:
            return lambda: [_made(change, found)]
    return None


def _made(change: Change, found: re.Match[str]) -> Exchange:
    draft = Draft()
    change(draft, found)
    return Exchange(draft.bytes())


def _replayed() -> Sequence[Exchange]:
    exchange = Exchange(Draft().bytes())
    return [exchange, exchange]


def _raced() -> Sequence[Exchange]:
    return [Exchange(Draft().bytes(), times=_RACERS)]


def _raced_again() -> Sequence[Exchange]:
    exchange = Exchange(Draft().bytes())
    return [exchange, replace(exchange, times=_RACERS)]
