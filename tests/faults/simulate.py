"""`python -m tests.faults.simulate`: live lives in the simulation, from a seed on, until one is red.

`--seed N --trace` lives one again, line by line. `--plan` names what is lived: the product against a provider that
honours keys, or ignores them, with outcomes found out (by sending again, by asking) or left in doubt; or one of the
controls, which have to be caught. In `events` there is a relay too, and somebody who is sent them.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.adapters.keys import FileKeys
from gateway.adapters.sqlite import SqliteStore
from gateway.pure.querying import Query, compile_address, compile_each
from gateway.pure.resolving import Doubts
from tests.faults.bank import Lie, Temper
from tests.faults.life import Found, Life, Plan
from tests.faults.machine import NETWORK_SECONDS, PATIENCE_SECONDS
from tests.faults.oracle import Harm
from tests.faults.simulation import Simulation

KEYLESS = Temper(honours_keys=False, guards=False, lies={Lie.FAILED: 0.05})


def forget_claims(store: SqliteStore, loop: Simulation) -> None:
    """A claim that is in flight ends with the process that made it: the same key is executed again."""
    store._db.execute("DELETE FROM keys WHERE state = 'unknown'")


def believe_sent(store: SqliteStore, loop: Simulation) -> None:
    """What was handed to the process that died has surely left."""
    store._db.execute("UPDATE outbox SET state = 'sent' WHERE state = 'due'")


def jump_the_line(store: SqliteStore, loop: Simulation) -> None:
    """An event need not wait for the one ahead of it."""
    store._db.execute("UPDATE outbox SET state = 'due' WHERE state = 'queued'")


def answer_early(store: SqliteStore, loop: Simulation) -> None:
    """Everyone is answered, and then, a step later, there is a commit."""
    db = store._db

    def transact(batch: list[Any]) -> bool:
        db.execute("BEGIN")
        for waiting in batch:
            store._attempt(waiting)
        store._writer.put(commit)
        return True

    def commit() -> None:
        db.execute("COMMIT")

    store._transact = transact  # type: ignore[method-assign]


_IN_FLIGHT_MAX = 2 * PATIENCE_SECONDS + 4 * NETWORK_SECONDS
"""Longer than any request is on its way: late ones arrive when the gateway has given them up."""
_BY_REFERENCE = Query(
    address=compile_address("/v1/payments?reference={$.reference}", ()),
    method="GET",
    each=compile_each("$.payments[*]"),
    done=(),
    not_done=(),
    not_found=frozenset({404}),
    status=201,
)


def _asks(settle: float) -> Doubts:
    return Doubts("query", settle, settle, 86400.0, _BY_REFERENCE)


def _sends_again() -> Doubts:
    return Doubts("replay", _IN_FLIGHT_MAX, _IN_FLIGHT_MAX, 86400.0)


PLANS: Mapping[str, Plan] = {
    "keys": Plan(),
    "keyless": Plan(temper=KEYLESS),
    "replay": Plan(doubts=_sends_again()),
    "query": Plan(temper=KEYLESS, doubts=_asks(_IN_FLIGHT_MAX)),
    "events": Plan(publishes=True),
}
CONTROLS: Mapping[str, Plan] = {
    "in_flight_max 0": Plan(temper=KEYLESS, doubts=_asks(0.0)),
    "sent again without keys": Plan(temper=KEYLESS, doubts=_sends_again()),
    "claim expires in flight": Plan(temper=KEYLESS, spoil=forget_claims),
    "answer before commit": Plan(spoil=answer_early),
    "events believed sent": Plan(publishes=True, spoil=believe_sent),
    "events out of line": Plan(publishes=True, spoil=jump_the_line),
    "lying disk": Plan(power=1.0, honest_disk=False),
}


@dataclass(frozen=True, slots=True)
class Lived:
    """What some lives came to. `red` is the seed of the first that found harm."""

    lives: int = 0
    crashes: int = 0
    payments: int = 0
    effects: int = 0
    tokens: int = 0
    harm: int = 0
    red: int | None = None

    def __add__(self, other: Lived) -> Lived:
        red = self.red if self.red is not None else other.red
        return Lived(
            self.lives + other.lives,
            self.crashes + other.crashes,
            self.payments + other.payments,
            self.effects + other.effects,
            self.tokens + other.tokens,
            self.harm + other.harm,
            red,
        )


@contextmanager
def desk() -> Iterator[tuple[FileKeys, Path]]:
    """The same key in every run, made here, and the name of a store."""
    with tempfile.TemporaryDirectory(prefix="pangate-simulated-") as folder:
        key = Path(folder, "vault.key")
        key.touch(0o600)
        key.write_text(f"pangate-key-1:{base64.b64encode(hashlib.sha256(b'simulated').digest()).decode()}\n")
        yield FileKeys(key), Path(folder, "simulated.db")


def live(plan: Plan, seed: int, *, trace: bool = False) -> Found:
    """One life."""
    with desk() as (keys, path):
        return Life(plan, seed, keys, path, print if trace else None).run()


def live_on(plan: Plan, seed: int, crashes: int) -> Lived:
    """Lives from a seed on, until there were so many crashes, or harm."""
    lived = Lived()
    with desk() as (keys, path):
        while lived.crashes < crashes and not lived.harm:
            found = Life(plan, seed, keys, path).run()
            red = seed if found.harm else None
            harm = len(found.harm)
            lived += Lived(1, found.crashes, found.payments, found.effects, found.tokens, harm, red)
            seed += 1
    return lived


def replay(plan: str, seed: int) -> str:
    """The command that shows a red life again."""
    return f"python -m tests.faults.simulate --plan {shlex.quote(plan)} --seed {seed} --trace"


def show(harm: Harm) -> str:
    return f"{harm.kind}: {harm.reference} {harm.detail}"


def main() -> None:
    plans = {**PLANS, **CONTROLS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", choices=plans, default="keys")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trace", action="store_true", help="live this seed alone, and show it")
    parser.add_argument("--crashes", type=int, default=1_000)
    options = parser.parse_args()
    plan, write = plans[options.plan], sys.stdout.write
    if options.trace:
        found = live(plan, options.seed, trace=True)
        write("".join(f"{show(harm)}\n" for harm in found.harm) + f"digest {found.digest}\n")
        sys.exit(bool(found.harm))
    began = time.perf_counter()
    lived = live_on(plan, options.seed, options.crashes)
    rate = lived.crashes / (time.perf_counter() - began)
    write(f"{lived}\n{rate:.0f} crashes/s\n")
    if lived.red is not None:
        write(f"{replay(options.plan, lived.red)}\n")
    sys.exit(lived.harm > 0)


if __name__ == "__main__":
    main()
