"""Media types of requests, as a route declares them (RFC 9110 section 8.3.1)."""

from __future__ import annotations

import re
from collections.abc import Set

from gateway.pure.errors import Reason, Refused

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e]|\\[\t\x20-\x7e])*"'
_PARAMETER = re.compile(rf"[ \t]*;[ \t]*({_TOKEN})=({_TOKEN}|{_QUOTED})")
_MEDIA_TYPE = re.compile(rf"({_TOKEN}/{_TOKEN})((?:{_PARAMETER.pattern})*+)[ \t]*")
_UTF_8 = frozenset({"utf-8", '"utf-8"'})


def check_media_type(value: str | None, accepted: Set[str]) -> None:
    """`value` is that of Content-Type, `accepted` are types in lower case. Another charset than UTF-8, or a parameter
    that comes twice, makes it another type.

    Raises `Refused` (MEDIA_TYPE_UNSUPPORTED).
    """
    found = _MEDIA_TYPE.fullmatch(value or "")
    if found is not None and found[1].lower() in accepted:
        parameters = [(name.lower(), text.lower()) for name, text in _PARAMETER.findall(found[2])]
        told = dict(parameters)
        if len(told) == len(parameters) and told.get("charset", "utf-8") in _UTF_8:
            return
    detail = f"Send one of these, in UTF-8, and say so in Content-Type: {', '.join(sorted(accepted))}."
    raise Refused(Reason.MEDIA_TYPE_UNSUPPORTED, detail)
