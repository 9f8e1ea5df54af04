"""Which paths between services exist: who may call which route, what may be revealed on it, which events go where.

One table, made when the configuration is loaded. What enforces it asks it, and what draws it reads it out, so that no
path passes that is not drawn and none is drawn that does not pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from gateway.pure.certificates import compile_san, sans_overlap
from gateway.pure.errors import Reason, Refused
from gateway.pure.lru import Lru

_REMEMBERED: Final = 4096
_BAR: Final = "|"
_ANYBODY: Final = "*"


@dataclass(frozen=True, slots=True, order=True)
class Path:
    """`service` may call `route`, and so reach `upstream`; on the way tokens of the classes `reveals` are revealed."""

    service: str
    route: str
    upstream: str
    reveals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Flow:
    """Events of one `type` about the payments of what `service` owns go to `reader`, by way of `publisher`."""

    service: str
    type: str
    reader: str
    publisher: str


@dataclass(frozen=True, slots=True)
class Service:
    """Who shows one of the `identities` is this service; one without is whoever a route's own checks let in."""

    name: str
    identities: tuple[str, ...] = ()
    external: bool = False
    owns: tuple[str, ...] = ()


class Identity:
    """A pattern of those who are one service: of SANs (`compile_san`), or `ISSUER|SUBJECT` of access tokens.

    `*` as SUBJECT is every subject of the issuer. Raises ValueError when the text is neither.
    """

    __slots__ = ("_pattern", "of_token", "text")

    def __init__(self, text: str) -> None:
        issuer, bar, subject = text.partition(_BAR)
        if bar and not (issuer and subject):
            raise ValueError(f"{text} is no identity; write ISSUER|SUBJECT, or a SAN such as spiffe://shop.example/pay")
        self.text = text
        self.of_token = bool(bar)
        whose = ".+" if subject == _ANYBODY else re.escape(subject)
        self._pattern = re.compile(re.escape(issuer + bar) + whose) if bar else compile_san(text)

    @property
    def issuer(self) -> str:
        """Of the access tokens; empty for a pattern of SANs."""
        return self.text.partition(_BAR)[0] if self.of_token else ""

    def fits(self, subject: str, sans: Sequence[str]) -> bool:
        """Is it shown by this subject (`iss|sub`), or by one of these names? Neither can pass for the other."""
        shown = (subject,) if self.of_token else sans
        return any(self._pattern.fullmatch(name) for name in shown)

    def overlaps(self, other: Identity) -> bool:
        """Could somebody be both?"""
        if self.of_token != other.of_token:
            return False
        if not self.of_token:
            return sans_overlap(self.text, other.text)
        (ours, _, mine), (theirs, _, yours) = self.text.partition(_BAR), other.text.partition(_BAR)
        return ours == theirs and (mine == yours or _ANYBODY in (mine, yours))


class Boundaries:
    """All declared paths and flows; what they do not hold does not exist."""

    __slots__ = ("_callers", "_identities", "_known", "_open", "flows", "paths", "services")

    def __init__(self, services: Iterable[Service], paths: Iterable[Path], flows: Iterable[Flow] = ()) -> None:
        self.services = tuple(services)
        self.paths = tuple(sorted(paths))
        self.flows = tuple(sorted(flows))
        anyone = {service.name for service in self.services if not service.identities}
        self._identities = [(service.name, Identity(text)) for service in self.services for text in service.identities]
        self._callers: Mapping[tuple[str, str], Path] = {(path.service, path.route): path for path in self.paths}
        self._open = {path.route for path in self.paths if path.service in anyone}
        self._known: Lru[tuple[str, str, tuple[str, ...]], frozenset[str]] = Lru(_REMEMBERED)

    def admit(self, route: str, subject: str, sans: tuple[str, ...]) -> frozenset[str]:
        """The classes of tokens that may be revealed to the caller on the route. Raises `Refused` CALLER_NOT_ALLOWED.

        Where several credentials name several services, each of them must be declared, and what is revealed is what
        may be to all: nobody reaches more with another's token than the other does, nor than he does himself.
        """
        if route in self._open:
            return frozenset()
        known = self._known.get((route, subject, sans))
        if known is None:
            known = self._judge(route, subject, sans)
            self._known.put((route, subject, sans), known)
        return known

    def _judge(self, route: str, subject: str, sans: tuple[str, ...]) -> frozenset[str]:
        named = {name for name, identity in self._identities if identity.fits(subject, sans)}
        paths = [self._callers.get((name, route)) for name in named]
        allowed = [frozenset(path.reveals) for path in paths if path is not None]
        if not allowed or len(allowed) < len(paths):
            raise Refused(Reason.CALLER_NOT_ALLOWED, "Ask the operator to declare that your service calls this route.")
        return frozenset.intersection(*allowed)


def ambiguous(services: Iterable[Service]) -> Iterator[tuple[str, str, str]]:
    """Pairs of services and the identity of the second that could be the first's too."""
    for one, other in combinations(services, 2):
        for text in other.identities:
            if any(Identity(mine).overlaps(Identity(text)) for mine in one.identities):
                yield one.name, other.name, text
