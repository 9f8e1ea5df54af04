"""multipart/form-data (RFC 7578) that every parser takes apart the same way.

The syntax of RFC 2046 section 5.1.1, less what parsers differ over: line ends other than CRLF, text before the first
part and behind the last, the boundary inside of a part, fields and parameters that are not those of a form, a field
twice, and whatever could spell a name in a second way (`name*`, `filename*`, backslashes and semicolons in quotes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.pure.errors import Reason, Refused
from gateway.pure.form_reader import check_name
from gateway.pure.json_reader import fold

MAX_PARTS = 128
MAX_PART_HEAD = 2048
"""Bytes of the header fields of one part."""

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_FIELD = re.compile(rb"([A-Za-z-]+):[ \t]*([\x20-\x7e\x80-\xff]*)")
_PARAMETER = re.compile(r'[ ]*;[ ]*([A-Za-z*0-9]+)=(?:"([^"\\;]*)"|([A-Za-z0-9_.-]+))')
_DISPOSITION = re.compile(rf"form-data((?:{_PARAMETER.pattern})*+)[ ]*", re.IGNORECASE)
_FIELDS = frozenset({b"content-disposition", b"content-type", b"content-transfer-encoding"})
_AS_IT_IS = frozenset({"", "7bit", "8bit", "binary"})
_MANY_PARTS = ("multipart/", "message/")


@dataclass(frozen=True, slots=True)
class FormPart:
    """One part. Bytes `start` to `end` of the body are its content; `filename` is None for a field that is no file."""

    name: str
    filename: str | None
    media_type: str
    start: int
    end: int


def delimiter(boundary: str) -> bytes:
    """What begins the lines between the parts. Raises `Refused` (BODY_MALFORMED) for what is no boundary."""
    if _BOUNDARY.fullmatch(boundary) is None:
        raise _malformed("Declare a boundary of 1 to 70 characters in Content-Type, as RFC 2046 allows them.")
    return b"--" + boundary.encode()


def read(body: bytes, mark: bytes) -> list[FormPart]:
    """The parts between lines that begin with `mark`, in their order. Raises `Refused` (BODY_MALFORMED)."""
    if body.count(mark) > MAX_PARTS + 1:
        raise _malformed(f"Send at most {MAX_PARTS} parts, and the boundary in none of them.")
    pieces = body.split(mark)
    if pieces[0] or pieces[-1] not in {b"--", b"--\r\n"}:
        raise _malformed("Begin with the boundary, and end with it and two dashes; send nothing outside of the parts.")
    parts, position = [], len(mark)
    for piece in pieces[1:-1]:
        parts.append(_part(piece, position))
        position += len(piece) + len(mark)
    _refuse_second_readings([part.name for part in parts])
    return parts


def _part(piece: bytes, position: int) -> FormPart:
    """A part with the line ends around it, which belong to the boundaries."""
    head_end = piece.find(b"\r\n\r\n")
    start, end = head_end + 4, len(piece) - 2
    if not piece.startswith(b"\r\n") or not piece.endswith(b"\r\n") or not 0 < head_end <= end - 4:
        raise _malformed("Write boundaries on lines of their own, header fields and an empty line before each part.")
    if head_end > MAX_PART_HEAD:
        raise _malformed(f"Send at most {MAX_PART_HEAD} bytes of header fields in a part.")
    fields = _fields(piece[2:head_end])
    name, filename = _disposition(fields.get(b"content-disposition", ""))
    media_type = fields.get(b"content-type", "")
    if media_type.lower().startswith(_MANY_PARTS):
        raise _malformed("Send parts that hold no parts of their own.")
    if fields.get(b"content-transfer-encoding", "").lower() not in _AS_IT_IS:
        raise _malformed("Send the parts as they are, without a Content-Transfer-Encoding.")
    return FormPart(name, filename, media_type, position + start, position + end)


def _fields(head: bytes) -> dict[bytes, str]:
    fields: dict[bytes, str] = {}
    for line in head.split(b"\r\n"):
        found = _FIELD.fullmatch(line)
        name = found[1].lower() if found is not None else b""
        if found is None or name not in _FIELDS or name in fields:
            raise _malformed("Send Content-Disposition and Content-Type in a part, each once, and nothing else.")
        try:
            fields[name] = found[2].decode().strip(" ")
        except UnicodeDecodeError:
            raise _malformed("Encode the header fields of parts in UTF-8.") from None
    return fields


def _disposition(text: str) -> tuple[str, str | None]:
    found = _DISPOSITION.fullmatch(text)
    pairs = _PARAMETER.findall(found[1]) if found is not None else []
    parameters = {name.lower(): quoted or plain for name, quoted, plain in pairs}
    if len(parameters) != len(pairs) or not {"name"} <= parameters.keys() <= {"name", "filename"}:
        raise _malformed(
            'Write Content-Disposition: form-data; name="..." in each part, and filename="..." for a file.'
        )
    try:
        name = check_name(parameters["name"])
    except ValueError:
        raise _malformed("Write part names as name or name[key], with matching brackets.") from None
    return name, parameters.get("filename")


def _refuse_second_readings(names: list[str]) -> None:
    if any("%" in name for name in names):
        raise _malformed("Write part names without percent signs: some readers take them for escapes.")
    if any(fold(name) == "_charset_" for name in names):
        raise _malformed("Send all parts in UTF-8, and no part named _charset_.")
    single = [name for name in names if not name.endswith("[]")]
    if len({fold(name) for name in names}) != len(set(names)) or len(set(single)) != len(single):
        raise _malformed("Send each part's name once, in one spelling; name a list name[].")


def _malformed(detail: str) -> Refused:
    return Refused(Reason.BODY_MALFORMED, detail)
