"""What `make faults` runs: each campaign against the gateway, and the controls that it has to catch."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import campaign, cluster, money, power, programs, races, rewrapping, rolling, simulate
from tests.faults.street import street
from tests.postgres import running_postgres


@dataclass(frozen=True, slots=True)
class Score:
    """How often it was `done`, how much was looked at (`seen`), and the `harm`; `again` shows a red one once more."""

    done: int = 0
    seen: int = 0
    harm: int = 0
    again: str = ""

    def __add__(self, other: Score) -> Score:
        again = self.again or other.again
        return Score(self.done + other.done, self.seen + other.seen, self.harm + other.harm, again)


Attack = Callable[[int, int], Score]
Control = Callable[[int], Score]


@dataclass(frozen=True, slots=True)
class Campaign:
    """`attack(share, seed)` is one part; it is done `whole` times (`each`) in all and looks at `things`.

    Campaigns of one `row` are reported together. A control is one attempt at something that is broken on purpose, from
    a seed; what is broken has the same name in every campaign that shows it, and a row of that name.
    """

    row: str
    whole: int
    each: str
    things: str
    attack: Attack
    controls: Mapping[str, Control]


def share(whole: int, index: int, count: int) -> int:
    """Of so many, those of part `index` (from 1) of `count`."""
    return whole // count + (index <= whole % count)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A place for a gateway and all that it leaves."""
    with tempfile.TemporaryDirectory(prefix="pangate-faults-") as name:
        yield Path(name)


def kill_tokens(kills: int, seed: int) -> Score:
    with folder() as place:
        tally = asyncio.run(campaign.attack(place, kills, seed))
    return Score(tally.kills, tally.tokens, tally.harm)


def control_tokens(seed: int) -> Score:
    with folder() as place:
        tally = asyncio.run(campaign.control(place, seed))
    return Score(tally.kills, tally.tokens, tally.lost)


def kill_money(kills: int, seed: int) -> Score:
    return _scored(lambda place: money.attack(place, kills, seed))


def _scored(attack: Callable[[Path], Coroutine[Any, Any, money.Found]]) -> Score:
    with folder() as place:
        found = asyncio.run(attack(place))
    return Score(found.kills, found.payments, len(found.harm))


def disturb_cluster(temper: Sequence[str]) -> Attack:
    def run(deeds: int, seed: int) -> Score:
        """Half of them kills, half of them stops; it is counted how often money did not move as it should."""
        with running_postgres() as server:
            return _scored(lambda place: cluster.attack(place, server, deeds // 2, seed, temper=temper))

    return run


def control_cluster(seed: int) -> Score:
    with running_postgres() as server:
        return _scored(lambda place: cluster.stall(place, server, seed, programs.HEEDLESS_OF_LEASE))


def race_refund(count: int, _seed: int, program: Sequence[str] = programs.PRODUCT) -> Score:
    with folder() as place, street(place, races.REFUNDING, program) as stage:
        harm = [len(list(races.refunds(stage, races.CAPTURED // 125, f"race-{n}").harm())) for n in range(count)]
    return Score(count, count * races.REFUNDS, sum(harm))


def race_key(count: int, _seed: int, program: Sequence[str] = programs.PRODUCT) -> Score:
    with folder() as place, street(place, races.PAYING, program) as stage:
        harm = [len(list(races.one_key(stage, f"race-{n}").harm())) for n in range(count)]
    return Score(count, count * 2 * races.KEYED, sum(harm))


def roll_over(restarts: int, _seed: int, program: Sequence[str] = programs.PRODUCT) -> Score:
    with folder() as place:
        rolled = rolling.attack(place, restarts, program)
    return Score(rolled.restarts, rolled.requests, rolled.harm)


def simulated(plan: str) -> Attack:
    def run(crashes: int, seed: int) -> Score:
        lived = simulate.live_on({**simulate.PLANS, **simulate.CONTROLS}[plan], seed, crashes)
        again = "" if lived.red is None else simulate.replay(plan, lived.red)
        return Score(lived.crashes, lived.payments, lived.harm, again)

    return run


def simulate_all(crashes: int, seed: int) -> Score:
    """Each plan has its share."""
    plans = [simulated(plan) for plan in simulate.PLANS]
    shares = [share(crashes, n, len(plans)) for n in range(1, len(plans) + 1)]
    return sum((run(crashes, seed) for run, crashes in zip(plans, shares, strict=True)), Score())


def lose_power(moments: int, seed: int) -> Score:
    """In runs of a size at which a store is still small enough to be read through at every moment."""
    tally = power.Tally()
    for start in range(0, moments, power.MOMENTS_AT_A_TIME):
        tally += power.attack(seed + start, min(power.MOMENTS_AT_A_TIME, moments - start))
    return Score(tally.moments, tally.units, tally.harm)


def control_power(synchronous: str) -> Control:
    def run(seed: int) -> Score:
        tally = power.control(seed, power.MOMENTS_AT_A_TIME, synchronous)
        return Score(tally.moments, tally.units, tally.harm)

    return run


def rewrap_rows(rows: int, seed: int) -> Score:
    with folder() as place:
        found = asyncio.run(rewrapping.attack(place, rows, seed))
    return Score(rows, found.requests, found.harm, "; ".join(found.complaints))


def control_rewrap(seed: int) -> Score:
    with folder() as place:
        found = asyncio.run(rewrapping.control(place, seed))
    return Score(found.rows, found.requests, found.harm)


CAMPAIGNS: Mapping[str, Campaign] = {
    "kill9_money": Campaign(
        "kill9",
        800,
        "kills",
        "payments",
        kill_money,
        {
            "in_flight_max 0": lambda seed: _scored(lambda place: money.hurry(place, seed)),
            "answer before commit": lambda seed: _scored(lambda place: money.attack(place, 2, seed, programs.EAGER)),
        },
    ),
    "kill9_tokens": Campaign("kill9", 200, "kills", "tokens", kill_tokens, {"answer before commit": control_tokens}),
    "cluster": Campaign(
        "cluster",
        400,
        "kills and stops",
        "payments",
        disturb_cluster(cluster.KEYED),
        {"lease not looked at": control_cluster},
    ),
    "cluster_keyless": Campaign(
        "cluster_keyless",
        100,
        "kills and stops",
        "payments",
        disturb_cluster(cluster.KEYLESS),
        {"lease not looked at": control_cluster},
    ),
    "simulated": Campaign(
        "simulated",
        100_000,
        "crashes",
        "payments",
        simulate_all,
        {control: functools.partial(simulated(control), 10) for control in simulate.CONTROLS},
    ),
    "powerloss": Campaign(
        "powerloss",
        2_000,
        "moments",
        "units",
        lose_power,
        {f"synchronous {mode}": control_power(mode) for mode in ("OFF", "NORMAL")},
    ),
    "rolling": Campaign(
        "rolling",
        20,
        "rolling restarts",
        "requests",
        roll_over,
        {"idle connections closed at once": lambda seed: roll_over(1, seed, programs.ABRUPT)},
    ),
    "race_refund": Campaign(
        "race_refund",
        20,
        "races",
        "refunds",
        race_refund,
        {"guard without reservations": lambda seed: race_refund(1, seed, programs.HEEDLESS)},
    ),
    "race_key": Campaign(
        "race_key",
        20,
        "races",
        "requests",
        race_key,
        {"claim expires in flight": lambda seed: race_key(1, seed, programs.FORGETFUL)},
    ),
    "rewrap": Campaign(
        "rewrap", 1_000_000, "rows", "requests meanwhile", rewrap_rows, {"old key destroyed early": control_rewrap}
    ),
}
