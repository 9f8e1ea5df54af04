"""XML documents: elements and attributes are selected by path, and their text is replaced in place.

A path is a small part of XPath: `/a/b` children, `//b` descendants at any depth, `*` any name, `p:b` a name in the
namespace that the prefix `p` is declared for, `*:b` in any or none, `@b` at the end an attribute. A name without a
prefix is in no namespace, whatever prefixes the document uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from gateway.pure.errors import Reason, Refused
from gateway.pure.selecting import Kind, Match, Selector
from gateway.pure.xml_reader import WHITE_SPACE, Element, Span, expanded, is_namespace, local_name

_NAME = r"[^\W\d][\w.\-]*"
_STEP = re.compile(rf"(//?)(@?)(?:({_NAME}|\*):)?({_NAME}|\*)")
_PREFIX = re.compile(_NAME)
_RESERVED = {"xml": "http://www.w3.org/XML/1998/namespace"}
_NIL = {"nil", expanded("http://www.w3.org/2001/XMLSchema-instance", "nil")}
_BLANKS = WHITE_SPACE.encode()
_CDATA, _CDATA_END = b"<![CDATA[", b"]]>"
_ESCAPES = str.maketrans({char: f"&#{ord(char)};" for char in "\"'\t\r\n"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_NOT_XML = re.compile("[^\t\r\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Test = Callable[[str], bool]
"""Does an expanded name fit?"""


@dataclass(frozen=True, slots=True)
class XmlSelector:
    """A path. `steps` lead to elements: `deep` has the bits of those that look at any depth; `attribute` comes last."""

    text: str
    steps: tuple[Test, ...]
    deep: int
    attribute: Test | None
    kind: Kind = "xml"


def check_prefix(prefix: str) -> str:
    """The prefix itself. Raises ValueError for one that cannot be declared (Namespaces in XML 1.0, section 3)."""
    if _PREFIX.fullmatch(prefix) is None or prefix.lower().startswith("xml"):
        raise ValueError("a prefix is a word such as soap, and does not begin with xml")
    return prefix


def check_namespace(uri: str) -> str:
    """The name of a namespace itself. Raises ValueError for what no document could declare."""
    if not is_namespace(uri) or uri in _RESERVED.values():
        raise ValueError("a namespace is the address that documents declare, such as urn:example:cards")
    return uri


def compile_xml_path(text: str, namespaces: Mapping[str, str] | None) -> XmlSelector:
    """Raises ValueError for what is no path, or has a prefix that `namespaces`, where it is given, does not have."""
    found = list(_STEP.finditer(text))
    whole = bool(found) and "".join(step[0] for step in found) == text
    if not whole or any(step[2] for step in found[:-1]) or found[0][0].startswith("/@"):
        raise ValueError(f"{text!r} is no XML path; write /a/b, //b, /a/*/b or /p:a/@b, from the root on")
    tests = [_test(step[3], step[4], namespaces) for step in found]
    deep = sum(1 << i for i, step in enumerate(found) if step[1] == "//")
    attribute = tests.pop() if found[-1][2] else None
    return XmlSelector(text, tuple(tests), deep, attribute)


class XmlDocument:
    """A document that was read strictly; offsets of values are found when they are asked for."""

    __slots__ = ("_body", "_elements")
    kind: Kind = "xml"

    def __init__(self, body: bytes, elements: list[Element]) -> None:
        self._body = body
        self._elements = elements

    def alike(self, selector: Selector) -> bool:  # noqa: ARG002
        """See `Document`: nobody reads names of XML so."""
        return False

    def select(self, selector: Selector) -> list[Match]:
        """See `Document`."""
        if not isinstance(selector, XmlSelector):
            return []
        reached = self._reached(selector)
        if selector.attribute is None:
            return [self._text(each, selector) for each in reached if not _is_nil(each)]
        return [match for each in reached for match in self._attributes(each, selector.attribute)]

    def _reached(self, selector: XmlSelector) -> Iterator[Element]:
        """The elements at the end of the path. Of each, bit `i` tells whether it may be looked at with step `i`: steps
        up to there led to its parent, or, for a step of any depth, to an element around it."""
        last = 1 << len(selector.steps)
        led: list[int] = []
        for element in self._elements:
            before = led[element.parent] if element.parent >= 0 else 1
            after = before & selector.deep
            for i, fits in enumerate(selector.steps if before else ()):
                if before >> i & 1 and fits(element.name):
                    after |= 2 << i
            led.append(after)
            if after & last:
                yield element

    def _text(self, element: Element, selector: XmlSelector) -> Match:
        if not element.plain:
            raise Refused(Reason.FIELD_INVALID, f"Send text in {selector.text}, and no elements or comments.")
        tag = element.tag(self._body)
        value = element.text.strip(WHITE_SPACE)
        if tag.empty:
            return Match(tag.end - 2, tag.end - 1, value, lambda text: b">%b</%b" % (_escape(text), tag.name))
        start, end = _stripped(self._body, (tag.end, element.end))
        inner = start + len(_CDATA), end - len(_CDATA_END)
        if self._body.startswith(_CDATA, start) and self._body.find(_CDATA_END, start, end) == inner[1]:
            return Match(*_stripped(self._body, inner), value, _in_cdata)
        return Match(start, end, value, _escape)

    def _attributes(self, element: Element, fits: Test) -> Iterator[Match]:
        spans: list[Span] | None = None
        for i, (name, value) in enumerate(element.named_attributes()):
            if fits(name):
                spans = spans or element.tag(self._body).values
                yield Match(*_stripped(self._body, spans[i]), value.strip(WHITE_SPACE), _escape)


def _test(prefix: str | None, local: str, namespaces: Mapping[str, str] | None) -> Test:
    if prefix is None:
        return (lambda _: True) if local == "*" else local.__eq__
    if prefix == "*":
        return lambda name: local_name(name) == local
    uri = prefix if namespaces is None else namespaces.get(prefix) or _RESERVED.get(prefix)
    if uri is None:
        raise ValueError(f"the prefix {prefix} is not declared; say under namespaces what it stands for")
    wanted = expanded(uri, local)
    return (lambda name: name.startswith(wanted[:-1])) if local == "*" else wanted.__eq__


def _is_nil(element: Element) -> bool:
    """Without content, and said to have none (XML Schema part 1, section 2.6.2; Braintree leaves its namespace out)."""
    if not element.plain or element.text:
        return False
    return any(name in _NIL and value in {"true", "1"} for name, value in element.named_attributes())


def _stripped(body: bytes, span: Span) -> Span:
    """Without the white space around it."""
    spelling = body[slice(*span)].rstrip(_BLANKS)
    return span[0] + len(spelling) - len(spelling.lstrip(_BLANKS)), span[0] + len(spelling)


def _escape(text: str) -> bytes:
    """For elements and attributes alike."""
    if _NOT_XML.search(text) is not None:
        raise Refused(Reason.FIELD_INVALID, "What stands for this value cannot be written in XML.")
    return text.translate(_ESCAPES).encode()


def _in_cdata(text: str) -> bytes:
    """For a CDATA section: as it is, or behind its end where it would be read otherwise."""
    escaped = _escape(text)
    if "]]>" in text or "\r" in text:
        return b"]]>%b<![CDATA[" % escaped
    return text.encode()
