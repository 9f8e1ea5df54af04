"""Structured field values (RFC 8941), read strictly and written in their one canonical spelling.

Stricter than section 4.2 in one point: a key that comes twice in a dictionary, or among parameters, is refused where
the RFC takes the last one, since what two readers could take differently must not carry a signature.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NoReturn, TypeVar


class Token(str):
    """A bare word, which is another value than the string of the same characters."""

    __slots__ = ()


Bare = int | Decimal | str | Token | bytes | bool
Parameters = Mapping[str, Bare]


@dataclass(frozen=True, slots=True)
class Item:
    """A value with parameters."""

    value: Bare
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InnerList:
    """Items in parentheses, with parameters of the list itself."""

    items: tuple[Item, ...]
    parameters: Parameters = field(default_factory=dict)


Member = Item | InnerList

_KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")
_NUMBER = re.compile(r"-?(?:[0-9]{1,12}\.[0-9]{1,3}|[0-9]{1,15})(?![0-9.])")
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")
_BYTES = re.compile(r":([A-Za-z0-9+/]*={0,2}):")
_BOOLEAN = re.compile(r"\?([01])")
_NEXT_MEMBER = re.compile(r"[ \t]*,[ \t]*")
_SPACES = re.compile(r" *")

T = TypeVar("T")


def parse_item(text: str) -> Item:
    """Raises ValueError."""
    return _whole(text, _Reader.item)


def parse_list(text: str) -> tuple[Member, ...]:
    """Raises ValueError."""
    return _whole(text, _Reader.list)


def parse_dictionary(text: str) -> dict[str, Member]:
    """Members in their order. Raises ValueError."""
    return _whole(text, _Reader.dictionary)


def serialize(member: Member) -> str:
    """The canonical spelling (section 4.1). Raises ValueError for what has none."""
    if isinstance(member, InnerList):
        return f"({' '.join(map(serialize, member.items))}){_parameters(member.parameters)}"
    return _bare(member.value) + _parameters(member.parameters)


def _parameters(parameters: Parameters) -> str:
    return "".join(f";{key}" if value is True else f";{key}={_bare(value)}" for key, value in parameters.items())


def _bare(value: Bare) -> str:
    if isinstance(value, bool):
        return f"?{value:d}"
    if isinstance(value, bytes):
        return f":{base64.b64encode(value).decode()}:"
    if isinstance(value, Token):
        return value
    if isinstance(value, str):
        if not (value.isascii() and value.isprintable()):
            raise ValueError("a string holds printable ASCII only")
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, Decimal):
        whole, _, fraction = f"{value:.3f}".partition(".")
        return f"{whole}.{fraction.rstrip('0') or '0'}"
    return str(value)


def _whole(text: str, read: Callable[[_Reader], T]) -> T:
    reader = _Reader(text.strip(" "))
    value = read(reader)
    reader.end()
    return value


@dataclass(slots=True)
class _Reader:
    text: str = field(repr=False)
    at: int = 0

    def end(self) -> None:
        if self.at != len(self.text):
            _malformed()

    def item(self) -> Item:
        return Item(self._bare(), self._parameters())

    def list(self) -> tuple[Member, ...]:
        members: list[Member] = []
        while self._goes_on(bool(members)):
            members.append(self._member())
        return tuple(members)

    def dictionary(self) -> dict[str, Member]:
        members: dict[str, Member] = {}
        while self._goes_on(bool(members)):
            key = self._match(_KEY)[0]
            if key in members:
                _malformed()
            members[key] = self._member() if self._skip("=") else Item(value=True, parameters=self._parameters())
        return members

    def _goes_on(self, begun: bool) -> bool:
        if self.at == len(self.text):
            return False
        if begun:
            self._match(_NEXT_MEMBER)
            if self.at == len(self.text):
                _malformed()
        return True

    def _member(self) -> Member:
        return self._inner_list() if self._skip("(") else self.item()

    def _inner_list(self) -> InnerList:
        items: list[Item] = []
        while True:
            spaces = self._match(_SPACES)[0]
            if self._skip(")"):
                return InnerList(tuple(items), self._parameters())
            if items and not spaces:
                _malformed()
            items.append(self.item())

    def _parameters(self) -> Parameters:
        found: dict[str, Bare] = {}
        while self._skip(";"):
            self._match(_SPACES)
            key = self._match(_KEY)[0]
            if key in found:
                _malformed()
            found[key] = self._bare() if self._skip("=") else True
        return found

    def _bare(self) -> Bare:
        first = self.text[self.at : self.at + 1]
        if first == '"':
            return re.sub(r"\\(.)", r"\1", self._match(_STRING)[1])
        if first == ":":
            return _decoded(self._match(_BYTES)[1])
        if first == "?":
            return self._match(_BOOLEAN)[1] == "1"
        if first.isalpha() or first == "*":
            return Token(self._match(_TOKEN)[0])
        number = self._match(_NUMBER)[0]
        return Decimal(number) if "." in number else int(number)

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self.text, self.at)
        if found is None:
            _malformed()
        self.at = found.end()
        return found

    def _skip(self, character: str) -> bool:
        if not self.text.startswith(character, self.at):
            return False
        self.at += 1
        return True


def _decoded(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        _malformed()
    if base64.b64encode(raw).decode() != text:
        _malformed()
    return raw


def _malformed() -> NoReturn:
    raise ValueError("not a structured field value (RFC 8941)")
