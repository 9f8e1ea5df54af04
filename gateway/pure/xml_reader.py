"""XML that every parser reads the same way, and where in the bytes its values stand.

XML 1.0 and Namespaces in XML 1.0 as Expat reads them, in UTF-8 and without a document type: what a declaration could
add (entities, default attributes) and what only some parsers act on (processing instructions) is refused. XInclude
and the like are elements, no more: nothing is ever fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pyexpat import ExpatError, ParserCreate
from typing import NoReturn

from gateway.pure.errors import Reason, Refused
from gateway.pure.json_reader import MAX_DEPTH, MAX_VALUES

MAX_ATTRIBUTES = 64
"""Of one element, namespace declarations left out."""
WHITE_SPACE = " \t\r\n"

Span = tuple[int, int]

_SEPARATOR = "\x1f"
"""No character of XML, so in no name and no address of a namespace."""
_NO_URI = re.compile(r"[\x00- <>\"{}|\\^`\x7f-\xa0]")
"""Not in an IRI (RFC 3987 section 2.2), and what other parsers put between a namespace and a name."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TAG = re.compile(rb"""<(?P<name>[^ \t\r\n/>]++)(?P<attributes>(?:[^"'>]++|"[^"]*+"|'[^']*+')*+)>""")
_ATTRIBUTE = re.compile(rb"""[ \t\r\n]++(?P<name>[^ \t\r\n=]++)[ \t\r\n]*+=[ \t\r\n]*+(?:"([^"]*+)"|'([^']*+)')""")


def expanded(uri: str, local: str) -> str:
    """The name of an element or attribute as `Element` has it; `uri` is that of its namespace, empty if it has none."""
    return uri + _SEPARATOR + local if uri else local


def is_namespace(uri: str) -> bool:
    """Can a document declare it, and every parser keep it apart from a name?"""
    return bool(uri) and _NO_URI.search(uri) is None


def local_name(name: str) -> str:
    """An expanded name without its namespace."""
    return name.rpartition(_SEPARATOR)[2]


@dataclass(slots=True)
class Tag:
    """A start tag in the bytes: its name as it is spelled, where it ends, and the values of its attributes."""

    name: bytes
    end: int
    empty: bool
    values: list[Span]


@dataclass(slots=True)
class Element:
    """An element, by the order of the document. `parent` is the position of its parent, -1 for the root's.

    Its start tag begins at byte `start`, its content ends at byte `end`. `plain` if it holds text alone: no element and
    no comment. `attributes` are names and values in turn, namespace declarations left out.
    """

    name: str
    attributes: list[str] = field(repr=False)
    parent: int
    start: int
    end: int = 0
    plain: bool = True
    pieces: list[str] = field(default_factory=list, repr=False)

    @property
    def text(self) -> str:
        """The decoded text of a plain element."""
        return "".join(self.pieces)

    def named_attributes(self) -> Iterator[tuple[str, str]]:
        """Names and decoded values."""
        return zip(self.attributes[::2], self.attributes[1::2], strict=True)

    def tag(self, body: bytes) -> Tag:
        """The start tag in the body that the element was read from."""
        found = _TAG.match(body, self.start)
        assert found is not None
        values = [
            each.span(each.lastindex or 0)
            for each in _ATTRIBUTE.finditer(body, *found.span("attributes"))
            if each["name"] != b"xmlns" and not each["name"].startswith(b"xmlns:")
        ]
        return Tag(found["name"], found.end(), body[found.end() - 2 : found.end()] == b"/>", values)


def read(body: bytes) -> list[Element]:
    """The elements in the order of the document. Raises `Refused` (BODY_MALFORMED)."""
    if body.startswith(_BYTE_ORDER_MARK):
        raise _malformed("Send the XML without a byte order mark.")
    if b"\0" in body:  # the parser takes UTF-16 for what it is, whatever it is told
        raise _malformed("Encode the XML as UTF-8.")
    return _Reading().read(body)


class _Reading:
    """One run of the parser."""

    def __init__(self) -> None:
        self._elements: list[Element] = []
        self._open: list[int] = []
        self._values = 0
        parser = self._parser = ParserCreate("utf-8", _SEPARATOR)
        parser.ordered_attributes = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._document_type
        parser.ProcessingInstructionHandler = self._instruction
        parser.StartNamespaceDeclHandler = self._namespace
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.CommentHandler = self._comment

    def read(self, body: bytes) -> list[Element]:
        parser = self._parser
        try:
            parser.Parse(body, True)  # noqa: FBT003 - the parser takes no names
        except ExpatError:
            at = parser.ErrorByteIndex
            raise _malformed(f"Send one well-formed XML document in UTF-8; this one breaks at byte {at}.") from None
        finally:
            del self._parser  # it holds our methods: they would keep one another
        return self._elements

    def _declaration(self, version: str, encoding: str | None, _: int) -> None:
        if version != "1.0" or (encoding or "utf-8").lower() != "utf-8":
            raise _malformed("Send XML 1.0 in UTF-8, and declare no other encoding.")

    def _document_type(self, *_: object) -> NoReturn:
        raise _malformed("Send the XML without a document type (DOCTYPE); entities beyond XML's own five are not read.")

    def _instruction(self, *_: object) -> NoReturn:
        raise _malformed("Send the XML without processing instructions.")

    def _namespace(self, _: str | None, uri: str | None) -> None:
        self._count(1)
        if uri is not None and not is_namespace(uri):
            raise _malformed("Declare namespaces by URIs, without spaces, quotes and brackets.")

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise _malformed(f"Send at most {MAX_VALUES} elements and attributes in one document.")

    def _start(self, name: str, attributes: list[str]) -> None:
        parent = self._open[-1] if self._open else -1
        if parent >= 0:
            self._elements[parent].plain = False
        self._count(1 + len(attributes) // 2)
        if len(self._open) >= MAX_DEPTH:
            raise _malformed(f"Nest XML at most {MAX_DEPTH} deep.")
        if len(attributes) > 2 * MAX_ATTRIBUTES:
            raise _malformed(f"Send at most {MAX_ATTRIBUTES} attributes in one element.")
        self._open.append(len(self._elements))
        self._elements.append(Element(name, attributes, parent, self._parser.CurrentByteIndex))

    def _end(self, _: str) -> None:
        self._elements[self._open.pop()].end = self._parser.CurrentByteIndex

    def _characters(self, text: str) -> None:
        element = self._elements[self._open[-1]]
        if element.plain:
            element.pieces.append(text)

    def _comment(self, _: str) -> None:
        if self._open:
            self._elements[self._open[-1]].plain = False


def _malformed(detail: str) -> Refused:
    return Refused(Reason.BODY_MALFORMED, detail)
