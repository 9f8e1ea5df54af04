"""Asking the vault for tokens of card numbers: what the rules share that put them in the numbers' places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.exchange import Exchange
from gateway.operations import Candidate, PutToken, Row, TokenRow
from gateway.ports import Ports, Ring
from gateway.pure.metrics import Metric
from gateway.pure.token_formats import FORMATS, RANDOM_BYTES, Format, FormatName, decorated
from gateway.pure.tokens import OPAQUE_BYTES, associated_data, fingerprints, opaque

Dedupe: TypeAlias = Literal["tenant", "merchant", "none"]
Environment: TypeAlias = Annotated[str, Field(pattern="^[a-z0-9]{1,16}$")]


class Puts(dict[tuple[str, str, str | None], PutToken]):
    """What one message asks of the vault, by number, format and expiry; for one merchant of the tenant, if told."""

    __slots__ = ("merchant",)

    def __init__(self, merchant: str | None = None) -> None:
        super().__init__()
        self.merchant = merchant


class TokenFormat(BaseModel):
    """How tokens are written: in a format of ours, or in a pattern of the operator's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["opaque", "decorated"] | FormatName = "opaque"
    pattern: str | None = None

    @model_validator(mode="after")
    def _patterned(self) -> Self:
        if (self.format == "decorated") != (self.pattern is not None):
            raise ValueError("format: decorated and a pattern belong together")
        if self.pattern is not None:
            decorated(self.pattern)
        return self

    def compiled(self) -> Format | None:
        """None for opaque tokens, which alone need no vault to be known again."""
        if self.pattern is not None:
            return decorated(self.pattern)
        return FORMATS.get(self.format)


class Minter:
    """`dedupe: tenant` gives a number the token it has already, `merchant` that which it has of this merchant;
    `environment` is a part of opaque tokens.
    """

    __slots__ = ("_clock", "_dedupe", "_entropy", "_environment", "_keys", "_telemetry")

    def __init__(self, ports: Ports, dedupe: Dedupe, environment: str) -> None:
        self._clock = ports.clock
        self._entropy = ports.entropy
        self._keys = ports.keys
        self._telemetry = ports.telemetry
        self._dedupe = dedupe
        self._environment = environment

    def put(
        self, puts: Puts, exchange: Exchange, digits: str, made: Format | None, expiry: str | None = None
    ) -> PutToken:
        """The operation for a number, `made.shortest` digits or more; one that comes twice in a message asks once."""
        name = "opaque" if made is None else made.name
        asked = digits, name, expiry
        put = puts.get(asked)
        if put is None:
            ring = exchange.vault()
            even, odd = self._fingerprints(ring, digits, puts.merchant)
            put = puts[asked] = PutToken(
                exchange.tenant,
                "pan",
                name,
                even,
                self._mint(exchange.tenant, ring, digits, made),
                self._clock.now(),
                fingerprint_odd=odd,
                merchant=puts.merchant,
                expiry=expiry,
            )
        return put

    def _fingerprints(self, ring: Ring, digits: str, merchant: str | None) -> tuple[bytes | None, bytes | None]:
        return (None, None) if self._dedupe == "none" else fingerprints(digits, ring.fingerprints, merchant)

    def _mint(self, tenant: str, ring: Ring, digits: str, made: Format | None) -> Callable[[int], Candidate]:
        keys, entropy, environment = self._keys, self._entropy, self._environment

        def mint(_: int) -> Candidate:
            if made is None:
                token = opaque("pan", environment, entropy(OPAQUE_BYTES), keys.keyed(tenant, "token"))
            else:
                token = made.mint(digits, entropy(RANDOM_BYTES))
            associated = associated_data(tenant, token, "pan")
            return Candidate(token, ring.seal(digits.encode(), associated))

        return mint

    def count(self, rows: Sequence[Row]) -> None:
        """What the vault answered; a row that is no token's says that the value was one already."""
        counted: dict[str, int] = {}
        for row in rows:
            result = "token" if not isinstance(row, TokenRow) else "new" if row.new else "existing"
            counted[result] = counted.get(result, 0) + 1
        for result, times in counted.items():
            self._telemetry.count(Metric.TOKENIZED, "pan", result, by=times)


def spelled(token: str, original: str, made: Format | None) -> str:
    """A token as it takes the place of a number that was written like this."""
    return token if made is None else made.write(token, original)
