"""Forms as documents: a field is selected by its name, and its value is percent-encoded where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from gateway.pure import form_reader
from gateway.pure.json_reader import fold
from gateway.pure.selecting import Kind, Match, Selector


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """The decoded name of a form field."""

    text: str
    kind: Kind = "form"


def compile_field(name: str) -> FieldSelector:
    """Raises ValueError for what no field can be called."""
    return FieldSelector(form_reader.check_name(name))


class FormDocument:
    """A form that was read strictly."""

    __slots__ = ("_fields",)
    kind: Kind = "form"

    def __init__(self, fields: list[form_reader.Field]) -> None:
        self._fields = fields

    @property
    def content(self) -> dict[str, str | list[str]]:
        """The values by name; a list where a name comes several times."""
        found: dict[str, str | list[str]] = {}
        for each in self._fields:
            before = found.get(each.name)
            among = [] if before is None else before if isinstance(before, list) else [before]
            found[each.name] = [*among, each.value] if among else each.value
        return found

    def select(self, selector: Selector) -> list[Match]:
        """See `Document`."""
        if not isinstance(selector, FieldSelector):
            return []
        return [Match(f.start, f.end, f.value, _escape) for f in self._fields if f.name == selector.text]

    def alike(self, selector: Selector) -> bool:
        """See `Document`."""
        return isinstance(selector, FieldSelector) and fold(selector.text) in {fold(f.name) for f in self._fields}


def _escape(text: str) -> bytes:
    return quote(text, safe="").encode()
