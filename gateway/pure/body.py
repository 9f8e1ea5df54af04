"""Bodies that rules read: parsed strictly, addressed by selector, replaced in place.

The media type says of what kind a body is, the selector in what kind it finds something; each kind is a reader and a
document, and nothing outside of this module knows which kinds there are.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from gateway.pure import form_reader, json_reader, multipart_reader, xml_reader
from gateway.pure.errors import Reason, Refused
from gateway.pure.form_body import FieldSelector, FormDocument, compile_field
from gateway.pure.json_body import JsonDocument, PathSelector, compile_path
from gateway.pure.media_types import kind_of
from gateway.pure.multipart_body import MultipartDocument, PartSelector
from gateway.pure.selecting import KINDS, Document, Kind, Match, Selector
from gateway.pure.xml_body import XmlDocument, compile_xml_path

__all__ = [
    "KINDS",
    "Document",
    "FieldSelector",
    "JsonDocument",
    "Kind",
    "Match",
    "PathSelector",
    "Prefixes",
    "Selector",
    "compile_field",
    "compile_selector",
    "parse",
    "unsupported",
]

_CALLED: dict[Kind, str] = {"json": "JSON", "form": "a form", "xml": "XML", "multipart": "multipart/form-data"}
_SELECTORS_REMEMBERED = 1024

Prefixes = tuple[tuple[str, str], ...]
"""Prefixes of XML names, and the namespaces that they stand for."""


def parse(media_type: str, body: bytes, kinds: Collection[Kind] = KINDS) -> Document:
    """Read a body by its Content-Type value; no bytes of no type are an empty document.

    Raises `Refused`: MEDIA_TYPE_UNSUPPORTED for what is of none of `kinds`, before a byte is read; BODY_MALFORMED for
    what two parsers could read differently.
    """
    kind, boundary = ("empty", "") if not body and not media_type else kind_of(media_type)
    if kind not in kinds:
        raise unsupported(kinds)
    if kind == "json":
        return JsonDocument(body, json_reader.read(body))
    if kind == "form":
        return FormDocument(form_reader.read(body))
    if kind == "xml":
        return XmlDocument(body, xml_reader.read(body))
    if kind == "multipart":
        delimiter = multipart_reader.delimiter(boundary)
        return MultipartDocument(body, delimiter, multipart_reader.read(body, delimiter), parse)
    return _EMPTY


def unsupported(kinds: Collection[Kind]) -> Refused:
    """The refusal of a body that is of none of these kinds."""
    called = [name for kind, name in _CALLED.items() if kind in kinds]
    listed = ", ".join(called[:-1]) + " or " + called[-1] if called[1:] else "".join(called)
    return Refused(Reason.MEDIA_TYPE_UNSUPPORTED, f"Send {listed}, in UTF-8, and say so in Content-Type.")


@lru_cache(_SELECTORS_REMEMBERED)
def compile_selector(text: str, namespaces: Prefixes | None = ()) -> Selector:
    """`$...` is a JSONPath (RFC 9535), `/...` a path of XML elements (`gateway.pure.xml_body`), `part:NAME` and
    `part:NAME:PATH` a part of multipart/form-data, anything else the name of a form field.

    `namespaces` are the prefixes that XML paths may have; None checks a text before they are known. Raises ValueError
    when the text is no selector.
    """
    if text.startswith("$"):
        return compile_path(text)
    if text.startswith("/"):
        return compile_xml_path(text, None if namespaces is None else dict(namespaces))
    if not text.startswith("part:"):
        return compile_field(text)
    _, name, *path = text.split(":", 2)
    if path and not path[0].startswith(("$", "/")):
        raise ValueError(f"{text!r} selects no part; write part:NAME, part:NAME:$.path or part:NAME:/path")
    return PartSelector(text, form_reader.check_name(name), compile_selector(path[0], namespaces) if path else None)


class _EmptyDocument:
    __slots__ = ()
    kind: Kind = "empty"

    def select(self, _: Selector) -> list[Match]:
        """Nothing."""
        return []

    def alike(self, _: Selector) -> bool:
        """No."""
        return False


_EMPTY = _EmptyDocument()
