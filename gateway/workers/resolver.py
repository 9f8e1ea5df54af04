"""Finds out what became of calls in doubt: sends them again under the same key, asks for the payment, or gets a person.

A call stays in doubt in the store until its outcome is recorded there, together with key and payment; a crash at any
point therefore leaves it to the next one who looks. Before a request is sent again, that it will be is committed, so
that "nothing can be under way any more" is always counted from the last send.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Literal

from gateway.asking import ask
from gateway.exchange import Exchange
from gateway.operations import (
    Call,
    DoubtCall,
    DoubtLostCalls,
    DueCalls,
    DueCallsRow,
    ListCalls,
    ResendCall,
    UnknownCall,
)
from gateway.ports import Outcome, Ports, Response, Unavailable, UpstreamError
from gateway.pure.errors import where
from gateway.pure.http import response_headers
from gateway.pure.metrics import Metric
from gateway.pure.querying import Verdict
from gateway.pure.resolving import LONGEST_WAIT, Decided, Ended, Step
from gateway.recorded import RecordedPipeline

Decision = Literal["done", "failed"]
Recorded = Callable[[], Mapping[str, RecordedPipeline]]

LEASE = 5.0
"""Seconds for which the store hands a call to no other gateway's resolver: as long as answers take as a rule. Two that
ask about one call do no harm, and who died while asking should not keep others from it."""
LOOK_AROUND = 10.0
"""Seconds between two looks for calls whose end could not be recorded."""


class Resolver:
    """One loop for all routes; `recorded` gives the pipelines of the configuration that runs now, by route.

    At most `concurrency` calls are looked into at once, over connections of their own. Without a `wake`, the store is
    asked every `poll` seconds.
    """

    def __init__(self, ports: Ports, recorded: Recorded, *, concurrency: int = 8, poll: float = 1.0) -> None:
        self._ports = ports
        self._recorded = recorded
        self._concurrency = concurrency
        self._poll = poll
        self._woken = asyncio.Event()
        self._stopping = False
        self._more = False
        """There may be more to look into than there was room for."""
        self._under_way: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._look_around_at = 0.0

    def wake(self) -> None:
        """There is, or may be, something to find out."""
        self._woken.set()

    async def run(self) -> None:
        """Step until `stop`."""
        while not self._stopping:
            self._woken.clear()
            await self.step(self._ports.clock.now())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll):
                    await self._woken.wait()

    async def stop(self) -> None:
        """Start nothing more, and wait for what is under way."""
        self._stopping = True
        self.wake()
        await self.drain()

    async def drain(self) -> None:
        """Wait for the calls that are being looked into."""
        while self._under_way:
            await asyncio.wait(self._under_way.values())

    async def step(self, now: float) -> None:
        """Look into what is due, as far as there is room."""
        try:
            await self._look_around(now)
            room = 0 if self._stopping else self._concurrency - len(self._under_way)
            due = await self._due(now, room)
        except Unavailable:
            return
        telemetry = self._ports.telemetry
        telemetry.set(Metric.CALLS_IN_DOUBT, due.unknown)
        telemetry.set(Metric.CALLS_OLDEST_SECONDS, max(0.0, now - due.oldest) if due.oldest else 0.0)
        for call in due.due:
            if (call.tenant, call.owner) not in self._under_way:
                self._under_way[call.tenant, call.owner] = asyncio.create_task(self._resolve(call))
        self._more = len(due.due) == room

    async def _due(self, now: float, limit: int) -> DueCallsRow:
        due = DueCalls(now, limit, LEASE)
        return (await self._ports.store.commit([due]))[due]

    async def _look_around(self, now: float) -> None:
        """Calls that are in flight for longer than any exchange lives: the store was away when they ended."""
        if now >= self._look_around_at:
            longest = max((pipeline.doubts.in_flight_max for pipeline in self._recorded().values()), default=0.0)
            await self._ports.store.commit([DoubtLostCalls(now - max(longest, LOOK_AROUND), now)])
            self._look_around_at = now + LOOK_AROUND

    # --- one call

    async def _resolve(self, call: Call) -> None:
        try:
            next_at, note = await self._attempt(call)
            if note:
                await self._leave(call, next_at, note)
        except Unavailable:
            self._log("call_not_left", call)
        finally:
            del self._under_way[call.tenant, call.owner]
        if self._more:
            self.wake()

    async def _attempt(self, call: Call) -> tuple[float | None, str]:
        """When to look again (None: a person has to), and why; no reason if the outcome is known now."""
        now = self._ports.clock.now()
        pipeline = self._recorded().get(call.route)
        if pipeline is None:
            return now + LONGEST_WAIT, "the route is no longer configured, or no longer says how to find out"
        if call.in_doubt != pipeline.doubts.mode:
            return None, "the route finds out in another way now, for which this call was not recorded"
        began = call.sent_at
        try:
            x, recorded = pipeline.reopen(call)
            began = recorded.began
            step = pipeline.doubts.step(now, began)
            if step is Step.PERSON:
                return None, "a person has to find out"
            ask = step is Step.ASK
            note = await (self._ask(call, x, pipeline, recorded.head) if ask else self._resend(call, x, pipeline))
        except UpstreamError as error:
            note = error.reason.label
        except Unavailable as error:
            note = f"{error} is not available"
        except Exception as error:  # noqa: BLE001 - one call's failure must not end the loop for the others
            note = where(error)
        later = self._ports.clock.now()
        return pipeline.next_look(later, began, call.sent_at), note

    async def _resend(self, call: Call, x: Exchange, pipeline: RecordedPipeline) -> str:
        now = self._ports.clock.now()
        send = ResendCall(call.tenant, call.owner, call.attempt, now)
        known = await pipeline.resend(x, send, quiet=pipeline.doubts.quiet(now, call.sent_at))
        return self._known(call, x, "replay") if known else f"status {x.upstream_status}"

    async def _ask(self, call: Call, x: Exchange, pipeline: RecordedPipeline, head: bytes) -> str:
        query = pipeline.doubts.query
        assert query is not None
        asked_at = self._ports.clock.now()
        response = await ask(pipeline.rescue, query.method, head)
        reading = query.read(response.status, response.body)
        if reading.verdict is Verdict.UNCLEAR:
            return f"status {response.status}, and no plain answer"
        if reading.verdict is Verdict.DONE:
            x.outcome, x.upstream_status = Outcome.ANSWERED, query.status
            x.response = Response(query.status, _kept(response), reading.answer)
        elif pipeline.doubts.settled(asked_at, call.sent_at):
            x.outcome, x.response = Outcome.REFUSED, Response(response.status)
        else:
            return "not done, which does not count yet"
        return self._known(call, x, "query") if await pipeline.conclude(x) else "somebody else was faster"

    async def _leave(self, call: Call, next_at: float | None, note: str) -> None:
        """As unknown as it was; somebody else may have ended it meanwhile."""
        doubt = DoubtCall(call.tenant, call.owner, self._ports.clock.now(), next_at)
        if (await self._ports.store.commit([doubt])).refused is None:
            self._ports.telemetry.count(Metric.CALLS_RESOLVED, call.route, call.in_doubt, "unknown")
            self._log("call_in_doubt" if next_at is not None else "call_needs_person", call, note=note)

    def _known(self, call: Call, x: Exchange, how: str) -> str:
        self._ports.telemetry.count(Metric.CALLS_RESOLVED, call.route, how, x.ended.value)
        self._log("call_resolved", call, how=how, ended=x.ended.value, level="info")
        return ""

    def _log(self, event: str, call: Call, *, level: str = "warning", **fields: object) -> None:
        known = {"id": call.owner, "tenant": call.tenant, "route": call.route, "attempt": call.attempt}
        self._ports.telemetry.log(event, level=level, **known, **fields)

    # --- a person

    async def listed(self, tenant: str | None, limit: int) -> tuple[UnknownCall, ...]:
        """Calls in doubt, oldest first. Raises `Unavailable`."""
        asked = ListCalls(tenant, limit)
        return (await self._ports.store.commit([asked]))[asked].calls

    async def retry(self, tenant: str, owner: str) -> str:
        """Look into a call now; why that cannot be, or nothing. Raises `Unavailable`."""
        found, why = await self._found(tenant, owner)
        if found is None:
            return why
        call = found.call
        if call.in_doubt == "manual":
            return "this route is in_doubt: manual; look at the provider, then say done or failed"
        now = self._ports.clock.now()
        await self._ports.store.commit([DoubtCall(tenant, owner, now, now)])
        self._log("call_retried", call)
        self.wake()
        return ""

    async def decide(self, tenant: str, owner: str, decision: Decision, note: str, alias: str = "") -> str:
        """A person found out, and says so in `note`; why that cannot be, or nothing. Raises `Unavailable`.

        `alias` is what the provider calls the new payment that was made.
        """
        found, why = await self._found(tenant, owner)
        if found is None:
            return why
        if alias and (found.payment is None or found.alias is not None):
            return "the provider's id is for a call that made a new payment, and this one did not"
        call = found.call
        pipeline = self._recorded().get(call.route)
        if pipeline is None:
            return f"route {call.route} is no longer configured: its rules are needed to end the call"
        x, _ = pipeline.reopen(call)
        if decision == "done":
            x.decided, x.outcome, x.upstream_status = Decided(Ended.EXECUTED, alias or None), Outcome.ANSWERED, 200
        else:
            x.decided, x.outcome = Decided(Ended.NOT_EXECUTED), Outcome.REFUSED
        x.response = Response(200)
        if not await pipeline.conclude(x):
            return "somebody else was faster: list the calls again"
        self._known(call, x, "person")
        self._log("call_decided", call, decision=decision, note=note)
        return ""

    async def _found(self, tenant: str, owner: str) -> tuple[UnknownCall | None, str]:
        """The call, or why there is none to decide."""
        if (tenant, owner) in self._under_way:
            return None, "it is being looked into right now: try again in a moment"
        asked = ListCalls(tenant, 1, owner)
        calls = (await self._ports.store.commit([asked]))[asked].calls
        return (calls[0], "") if calls else (None, "there is no such call in doubt")


def _kept(response: Response) -> list[tuple[bytes, bytes]]:
    """The fields of an answer that fit a part of its body."""
    return [field for field in response_headers(response.headers) if field[0].lower() == b"content-type"]
