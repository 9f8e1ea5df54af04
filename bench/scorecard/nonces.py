"""Recipes of nonces in DPoP proofs: asked of the rule, by a clock that a recipe moves."""

from __future__ import annotations

import functools
import re
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from bench.scorecard import proofs, tokens
from bench.scorecard.cases import Question
from gateway.adapters.keys import FileKeys, generate_key
from gateway.adapters.memory import MemoryShared
from gateway.exchange import Exchange
from gateway.ports import Unavailable, settled
from gateway.pure.jose import thumbprint
from gateway.rule import PASS, Deny, Place, RuleSettings
from gateway.rules.dpop import Dpop, Settings
from tests.conftest import HandClock, make_exchange

_SLOT: Final = 30.0
_SLOTS: Final = ((r"previous|last", 1.0), (r"expired|old|stale|epoch", 3.0), (r"", 0.0))
"""By names of cases: the slots that pass between the nonce and the proof that has it."""


def question(name: str, *, good: bool) -> Question | None:
    """Whether a proof passes that has the nonce which the case speaks of; None for names that speak of none."""
    lower = name.lower()
    if not good and "replay store" in lower:
        return functools.partial(_judged, 0.0, passes=False, away=True)
    if "nonce" not in lower or not (good or re.search(r"expired|too old|stale", lower)):
        return None
    return functools.partial(_judged, _SLOT * next(n for words, n in _SLOTS if re.search(words, lower)), passes=good)


class _Away(MemoryShared):
    """A store of first uses that cannot be asked."""

    def first_use(self, _: object, __: object) -> bool:
        raise Unavailable("shared")


async def _judged(seconds: float, *, passes: bool, away: bool = False) -> str:
    with tempfile.TemporaryDirectory() as folder:
        clock = HandClock(time.time())
        rule = _rule(Path(folder), clock, away=away)
        asked = await settled(rule.on_request(_request(clock, None)))
        if not isinstance(asked, Deny):
            return "a proof without a nonce passes"
        nonce = dict(asked.headers)[b"DPoP-Nonce"].decode()
        clock.advance(seconds)
        verdict = await settled(rule.on_request(_request(clock, nonce)))
    return "" if (verdict is PASS) is passes else "refused" if passes else "passed"


def _rule(folder: Path, clock: HandClock, *, away: bool) -> Dpop:
    key = folder / "vault.key"
    key.touch(mode=0o600)
    key.write_text(generate_key())
    shared = (_Away if away else MemoryShared)(clock)
    ports: Any = SimpleNamespace(clock=clock, shared=shared, keys=FileKeys(key))
    before = RuleSettings(kind="jwt")
    place = Place("pay", "payments", 0, "payments", "", egress=False, earlier=(before,))
    settings = Settings.model_validate({"kind": "dpop", "origin": proofs.ORIGIN, "nonce": f"{_SLOT:.0f}s"})
    return Dpop.provision(settings, ports, place)


def _request(clock: HandClock, nonce: str | None) -> Exchange:
    draft = proofs.Draft()
    draft.claims |= {"iat": int(clock.now())} | ({} if nonce is None else {"nonce": nonce})
    token = tokens.Draft().token()
    headers = {"Authorization": f"DPoP {token}", "DPoP": draft.proof(token)}
    claims = {"cnf": {"jkt": thumbprint(draft.header["jwk"])}}
    return make_exchange("POST", draft.path, headers, claims=claims)
