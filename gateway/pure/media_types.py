"""Media types (RFC 9110 section 8.3.1): of which kind a body is, and whether a route takes its type.

A parameter that comes twice, or another charset than UTF-8, makes it another type. Bodies that rules read have no other
parameters than those that are known.
"""

from __future__ import annotations

import re
from collections.abc import Set

from gateway.pure.errors import Reason, Refused
from gateway.pure.selecting import Kind

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e]|\\[\t\x20-\x7e])*"'
_PARAMETER = re.compile(rf"[ \t]*;[ \t]*({_TOKEN})=({_TOKEN}|{_QUOTED})")
_MEDIA_TYPE = re.compile(rf"({_TOKEN}/{_TOKEN})((?:{_PARAMETER.pattern})*+)[ \t]*")
_STRUCTURED = r"application/(?:[!#$&^_.+a-z0-9-]+\+)?"
_PLAIN = re.compile(
    rf"(?:(?P<form>application/x-www-form-urlencoded)|{_STRUCTURED}json)"
    r'(?:[ \t]*;[ \t]*charset=(?:utf-8|"utf-8"))?[ \t]*',
    re.IGNORECASE | re.ASCII,
)
_XML = re.compile(rf"(?:{_STRUCTURED}|text/)xml")


def check_media_type(value: str | None, accepted: Set[str]) -> None:
    """`value` is that of Content-Type, `accepted` are types in lower case.

    Raises `Refused` (MEDIA_TYPE_UNSUPPORTED).
    """
    name, parameters = _read(value or "")
    if name not in accepted or not _in_utf8(parameters):
        detail = f"Send one of these, in UTF-8, and say so in Content-Type: {', '.join(sorted(accepted))}."
        raise Refused(Reason.MEDIA_TYPE_UNSUPPORTED, detail)


def kind_of(value: str) -> tuple[Kind | None, str]:
    """The kind of a body of this Content-Type, None for one that is not read; and the boundary of a multipart body."""
    plain = _PLAIN.fullmatch(value)
    if plain is not None:
        return ("form" if plain["form"] else "json"), ""
    name, parameters = _read(value)
    if name == "multipart/form-data":
        return ("multipart", parameters["boundary"]) if parameters.keys() == {"boundary"} else (None, "")
    if name == "application/soap+xml":
        parameters.pop("action", None)  # of SOAP 1.2 (RFC 3902)
    known = parameters.keys() <= {"charset"} and _in_utf8(parameters)
    return ("xml" if known and _XML.fullmatch(name) else None), ""


def _read(value: str) -> tuple[str, dict[str, str]]:
    """Type and names of parameters in lower case; no type for what is none."""
    found = _MEDIA_TYPE.fullmatch(value)
    pairs = [] if found is None else [(name.lower(), text) for name, text in _PARAMETER.findall(found[2])]
    parameters = {name: text[1:-1] if text.startswith('"') else text for name, text in pairs}
    if found is None or len(parameters) != len(pairs):
        return "", {}
    return found[1].lower(), parameters


def _in_utf8(parameters: dict[str, str]) -> bool:
    return parameters.get("charset", "utf-8").lower() == "utf-8"
