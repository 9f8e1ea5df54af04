"""multipart/form-data is taken apart one way only, and values are replaced in place, in JSON and XML parts too."""

from __future__ import annotations

import email.policy
from email.parser import BytesParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.pure.body import Document, Match, compile_selector, parse
from gateway.pure.errors import Reason, Refused
from gateway.pure.multipart_reader import MAX_PART_HEAD, MAX_PARTS

TYPE = 'multipart/form-data; boundary="a b"'
FORM = "Content-Disposition: form-data; "
NAMED = FORM + 'name="%s"'


def part(name: str, content: str | bytes, *head: str, disposition: str = NAMED) -> bytes:
    lines = [disposition.replace("%s", name), *head]
    raw = content.encode() if isinstance(content, str) else content
    return "\r\n".join([*lines, "", ""]).encode() + raw


def body(*parts: bytes, boundary: bytes = b"a b") -> bytes:
    return b"".join(b"--%b\r\n%b\r\n" % (boundary, each) for each in parts) + b"--%b--\r\n" % boundary


def read(raw: bytes) -> Document:
    return parse(TYPE, raw)


def select(raw: bytes, selector: str) -> list[Match]:
    return read(raw).select(compile_selector(selector))


def replaced(raw: bytes, selector: str, text: str) -> bytes:
    for match in reversed(select(raw, selector)):
        raw = raw[: match.start] + match.encode(text) + raw[match.end :]
    return raw


def refusal(raw: bytes, selector: str = "part:n") -> tuple[Reason, str]:
    with pytest.raises(Refused) as caught:
        select(raw, selector)
    return caught.value.reason, caught.value.detail


JSON = "Content-Type: application/json"
XML = "Content-Type: application/soap+xml; charset=utf-8; action=pay"
WHOLE = (
    part("n", "42"),
    part("m", "é\r\n\n42"),
    part("card", '{"n": "4\\u0032", "m": [42]}', JSON),
    part("order", "<o><n k='1'>42</n></o>", XML),
    part("list[]", "1"),
    part("list[]", "2"),
    part("file", b"\xff\n\r--\0n", "Content-Type: image/png", disposition=NAMED + '; filename="42 é.png"'),
    part("blob", "{}", JSON, disposition=NAMED + '; filename="blob"'),
)


# --- What is selected and replaced -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("part:n", ["42"]),
        ("part:m", ["é\r\n\n42"]),
        ("part:list[]", ["1", "2"]),
        ("part:N", []),
        ("part:card:$.n", ["42"]),
        ("part:card:$.m[*]", ["42"]),
        ("part:card:$..*", None),
        ("part:card:$.x", []),
        ("part:order:/o/n", ["42"]),
        ("part:order://@k", ["1"]),
        ("part:blob:$.n", []),
        ("part:none:$.n", []),
        ("n", []),
        ("$.n", []),
        ("//n", []),
    ],
)
def test_parts_are_selected_by_name_and_then_by_path(selector: str, expected: list[str] | None) -> None:
    if expected is None:
        assert refusal(body(*WHOLE), selector)[0] is Reason.FIELD_INVALID
    else:
        assert [match.value for match in select(body(*WHOLE), selector)] == expected


@pytest.mark.parametrize(
    ("selector", "at", "expected"),
    [
        ("part:n", 0, part("n", "T")),
        ("part:m", 1, part("m", "T")),
        ("part:card:$.n", 2, part("card", '{"n": "T", "m": [42]}', JSON)),
        ("part:card:$.m[0]", 2, part("card", '{"n": "4\\u0032", "m": ["T"]}', JSON)),
        ("part:order://n", 3, part("order", "<o><n k='1'>T</n></o>", XML)),
        ("part:order://@k", 3, part("order", "<o><n k='T'>42</n></o>", XML)),
    ],
)
def test_a_value_is_replaced_in_place_and_all_else_is_left_as_it_was(selector: str, at: int, expected: bytes) -> None:
    changed = [*WHOLE[:at], expected, *WHOLE[at + 1 :]]
    assert replaced(body(*WHOLE), selector, "T") == body(*changed)


def test_values_of_several_parts_come_in_the_order_of_the_body() -> None:
    document = read(body(part("a[]", '{"n": "1"}', JSON), part("a[]", '{"n": "2"}', JSON)))
    assert [match.value for match in document.select(compile_selector("part:a[]:$.n"))] == ["1", "2"]


@pytest.mark.parametrize(
    "selector", ["part:", "part::$.a", "part:n:", "part:n:a", "part:n:part:m", "part:[a]", "part:n:$.", "part:n:/a["]
)
def test_what_names_no_part_is_an_error_at_load(selector: str) -> None:
    with pytest.raises(ValueError, match=r"part|JSONPath|XML path"):
        compile_selector(selector)


@pytest.mark.parametrize(
    "raw",
    [
        part("n", "42", "Content-Type: text/html"),
        part("n", "42", "Content-Type: text/plain; charset=utf-16"),
        part("n", "42", "Content-Type: text/plain; charset=utf-8; charset=utf-16"),
        part("n", "42", JSON),
        part("n", b"\xff"),
        part("n", "42", disposition=NAMED + '; filename="n"'),
        part("n", "42", disposition=NAMED + '; filename=""'),
    ],
)
def test_a_selected_field_is_plain_text_in_utf_8_and_no_file(raw: bytes) -> None:
    reason, detail = refusal(body(raw))
    assert reason is Reason.FIELD_INVALID
    assert "part:n" in detail


@pytest.mark.parametrize(
    "head",
    [
        "Content-Type: text/plain",
        "content-type: Text/Plain ; charset=UTF-8",
        'CONTENT-TYPE:text/plain;charset="utf-8"',
        "Content-Transfer-Encoding: 8bit",
    ],
)
def test_plain_text_may_say_that_it_is(head: str) -> None:
    assert replaced(body(part("n", "42", head)), "part:n", "T") == body(part("n", "T", head))


@pytest.mark.parametrize(
    ("raw", "selector", "reason"),
    [
        (part("n", '{"a":1}'), "part:n:$.a", Reason.MEDIA_TYPE_UNSUPPORTED),
        (part("n", '{"a":1}', "Content-Type: text/plain"), "part:n:$.a", Reason.MEDIA_TYPE_UNSUPPORTED),
        (part("n", "<a>1</a>", XML), "part:n:$.a", Reason.MEDIA_TYPE_UNSUPPORTED),
        (part("n", '{"a":1}', JSON), "part:n:/a", Reason.MEDIA_TYPE_UNSUPPORTED),
        (part("n", "", JSON), "part:n:$.a", Reason.BODY_MALFORMED),
        (part("n", '{"a":1,"a":2}', JSON), "part:n:$.a", Reason.BODY_MALFORMED),
        (part("n", "<!DOCTYPE a><a/>", XML), "part:n:/a", Reason.BODY_MALFORMED),
        (part("n", '{"a":true}', JSON), "part:n:$.a", Reason.FIELD_INVALID),
    ],
)
def test_a_part_that_cannot_be_read_as_it_is_selected_in_refuses_all(raw: bytes, selector: str, reason: Reason) -> None:
    found, detail = refusal(body(raw), selector)
    assert found is reason
    assert detail.startswith("In the part n: ")


def test_a_part_that_nobody_selects_in_is_not_read() -> None:
    assert select(body(part("n", "{{{", JSON), part("m", "1")), "part:m")[0].value == "1"


def test_what_is_put_into_a_part_does_not_end_it() -> None:
    for raw, selector in ((part("n", "1"), "part:n"), (part("n", '{"a":"1"}', JSON), "part:n:$.a")):
        (match,) = select(body(raw), selector)
        assert match.encode("--a c")
        with pytest.raises(Refused, match="boundary"):
            match.encode("x\r\n--a b--")


def test_a_match_does_not_show_its_value() -> None:
    (match,) = select(body(part("n", "4242424242424242")), "part:n")
    assert "4242424242424242" not in repr(match)


# --- What is read ----------------------------------------------------------------------------------------------------

ONE = body(part("n", "42"))

HOSTILE = {
    "nothing": b"",
    "no boundary": b"42",
    "text before the first part": b"x\r\n" + ONE,
    "a line end before the first part": b"\r\n" + ONE,
    "text behind the last part": ONE + b"x",
    "a second line end behind the last part": ONE + b"\r\n",
    "another message behind the last part": ONE + ONE,
    "no end": ONE[: -len(b"--a b--\r\n")],
    "an end without dashes": ONE.replace(b"--a b--\r\n", b"--a b\r\n"),
    "one dash at the end": ONE.replace(b"--a b--\r\n", b"--a b-\r\n"),
    "line ends of one byte": ONE.replace(b"\r\n", b"\n"),
    "a boundary behind a bare line feed": body(part("n", "4\n--a b\r\n\r\n2")),
    "a boundary behind a bare carriage return": body(part("n", "4\r--a b\r\n\r\n2")),
    "the boundary within a line": body(part("n", "4--a b2")),
    "the boundary as the beginning of another": body(part("n", "4\r\n--a bc\r\n2")),
    "space behind the boundary": ONE.replace(b"--a b\r\n", b"--a b \r\n"),
    "space before the boundary": ONE.replace(b"\r\n--a b--", b"\r\n --a b--"),
    "an end that shares its line end with the head": ONE.replace(b"42\r\n", b""),
    "no empty line behind the head": ONE.replace(b"\r\n\r\n", b"\r\n"),
    "no head": b"--a b\r\n\r\n42\r\n--a b--\r\n",
    "a folded field": body(part("n", "42", disposition='Content-Disposition: form-data;\r\n name="%s"')),
    "a bare line feed in the head": body(part("n", "42", disposition=FORM + 'name="%s"\nX: y')),
    "a NUL in the head": body(part("n", "42", "Content-Type: text/plain\0")),
    "a field twice": body(part("n", "42", disposition=f'{NAMED}\r\nContent-Disposition: form-data; name="m"')),
    "a type twice": body(part("n", "42", JSON, JSON)),
    "space before the colon": body(part("n", "42", disposition='Content-Disposition : form-data; name="%s"')),
    "no disposition": body(part("n", "42", disposition="Content-Type: text/plain")),
    "another disposition": body(part("n", "42", disposition='Content-Disposition: attachment; name="%s"')),
    "another field": body(part("n", "42", "Content-Length: 2")),
    "a field of one's own": body(part("n", "42", "X-Field: 2")),
    "no name": body(part("n", "42", disposition="Content-Disposition: form-data")),
    "an empty name": body(part("", "42")),
    "a name twice in a part": body(part("n", "42", disposition=NAMED + '; name="m"')),
    "a name twice in two cases": body(part("n", "42", disposition=NAMED + '; Name="m"')),
    "an extended name": body(part("n", "42", disposition=NAMED + "; name*=utf-8''m")),
    "an extended file name": body(part("n", "42", disposition=NAMED + "; filename*=utf-8''m")),
    "both file names": body(part("n", "42", disposition=NAMED + "; filename=\"a\"; filename*=utf-8''b")),
    "a file name in pieces": body(part("n", "42", disposition=NAMED + '; filename*0="a"')),
    "a file name twice": body(part("n", "42", disposition=NAMED + '; filename="a"; filename="b"')),
    "another parameter": body(part("n", "42", disposition=NAMED + '; size="2"')),
    "an open quote": body(part("n", "42", disposition=FORM + 'name="%s')),
    "an escaped quote": body(part("n", "42", disposition=FORM + r'name="n\"; filename=\"%s"')),
    "a backslash": body(part("n", "42", disposition=FORM + 'name="\\%s"')),
    "a name within a file name": body(part("n", "42", disposition=NAMED + '; filename="a; name=m; b"')),
    "a name in other quotes": body(part("n", "42", disposition=FORM + "name='%s'")),
    "a tab between parameters": body(part("n", "42", disposition=NAMED + ';\tfilename="a"')),
    "no space for a parameter": body(part("n", "42", disposition=NAMED + 'filename="a"')),
    "an open parameter": body(part("n", "42", disposition=NAMED + ";")),
    "an escape in a name": body(part("n%22", "42", disposition=FORM + 'name="n%22"')),
    "an escaped line end in a name": body(part("", "42", disposition=FORM + 'name="n%0D%0A"')),
    "a name with open brackets": body(part("card[number", "42")),
    "a name that is no UTF-8": ONE.replace(b'"n"', b'"\xff"'),
    "a part twice": body(part("n", "42"), part("n", "43")),
    "a part twice in two cases": body(part("n", "42"), part("N", "43")),
    "a list in two cases": body(part("n[]", "42"), part("N[]", "43")),
    "parts in a part": body(part("n", "42", "Content-Type: multipart/mixed; boundary=x")),
    "a message in a part": body(part("n", "42", "Content-Type: Message/RFC822")),
    "base64": body(part("n", "NDI=", "Content-Transfer-Encoding: base64")),
    "quoted-printable": body(part("n", "=34=32", "Content-Transfer-Encoding: Quoted-Printable")),
    "another charset for all": body(part("_charset_", "utf-7"), part("n", "42")),
    "the same in capitals": body(part("_CHARSET_", "utf-7"), part("n", "42")),
    "a long head": body(part("n", "42", "Content-Type: text/plain" + " " * MAX_PART_HEAD)),
    "too many parts": body(*(part(f"n{n}", "") for n in range(MAX_PARTS + 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_two_parsers_could_take_apart_differently_is_refused(name: str) -> None:
    reason, detail = refusal(HOSTILE[name])
    assert reason is Reason.BODY_MALFORMED
    assert "42" not in detail


@pytest.mark.parametrize(
    ("raw", "count"),
    [
        (b"--a b--", 0),
        (b"--a b--\r\n", 0),
        (body(part("n", "")), 1),
        (body(part("n", "\r\n")), 1),
        (body(part("n", "--a\r\n--\r\n\r\n")), 1),
        (body(part("n", "1", disposition='content-disposition:FORM-DATA ; NAME=n;filename="a,b=c"')), 1),
        (body(*(part(f"n{n}", "") for n in range(MAX_PARTS))), MAX_PARTS),
    ],
)
def test_what_all_parsers_take_apart_alike_is_read(raw: bytes, count: int) -> None:
    assert len(read(raw)._parts) == count  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "raw", [b"--a b" * 200_000, b"--a b\r\n" + b"a:" * 400_000, b"--a b\r\n" + b"\r\n" * 400_000, b"-" * 1_000_000]
)
@pytest.mark.timeout(60)
def test_time_to_refuse_grows_with_the_length_alone(raw: bytes) -> None:
    assert refusal(raw)[0] is Reason.BODY_MALFORMED


# --- Bodies of any shape ---------------------------------------------------------------------------------------------

names = st.lists(st.sampled_from(["n", "card[number]", "a[]", "é", "x.y-z", "a b"]), max_size=5, unique=True)
contents = (
    st.binary(max_size=12) | st.text(max_size=6).map(str.encode) | st.sampled_from([b"\r\n", b"--a", b"\n--a", b"--"])
)
boundaries = st.from_regex(r"[0-9A-Za-z'()+_,./:=?-]{1,20}", fullmatch=True)


def by_email(raw: bytes, boundary: str) -> list[tuple[str, bytes]]:
    """What the standard library's reader of mail takes it for."""
    head = f'Content-Type: multipart/form-data; boundary="{boundary}"\r\n\r\n'.encode()
    message = BytesParser(policy=email.policy.HTTP).parsebytes(head + raw)
    found: list[tuple[str, bytes]] = []
    for each in message.get_payload() if message.is_multipart() else []:
        assert not isinstance(each, str)
        name = each.get_param("name", header="content-disposition")
        payload = each.get_payload(decode=True)
        assert isinstance(payload, bytes)
        found.append((str(name), payload))
    return found


@given(listed=names, content=contents, boundary=boundaries, data=st.data())
@settings(max_examples=150)
def test_fields_are_replaced_one_by_one_and_nothing_else_differs(
    listed: list[str], content: bytes, boundary: str, data: Any
) -> None:
    fields = [(name, data.draw(contents)) for name in listed]
    mark = b"--" + boundary.encode()
    if any(mark in name.encode() or mark in b"\r\n" + value for name, value in fields):
        return
    raw = body(*(part(name, value) for name, value in fields), boundary=boundary.encode())
    media_type = f'multipart/form-data; boundary="{boundary}"'
    for name, value in fields:
        selector = compile_selector(f"part:{name}")
        try:
            expected = value.decode()
        except UnicodeDecodeError:
            with pytest.raises(Refused):
                parse(media_type, raw).select(selector)
            continue
        (match,) = parse(media_type, raw).select(selector)
        assert match.value == expected
        edited = raw[: match.start] + match.encode("T") + raw[match.end :]
        changed = [part(other, b"T" if other == name else each) for other, each in fields]
        assert edited == body(*changed, boundary=boundary.encode())


@given(data=st.data())
@settings(max_examples=300)
def test_a_damaged_body_is_refused_or_taken_apart_as_a_reader_of_mail_does(data: Any) -> None:
    whole = body(part("n", "42"), part("m", "x\r\ny", "Content-Type: text/plain"), boundary=b"ab")
    raw = bytearray(whole)
    scraps = [b"\r\n", b"\n", b"\r", b"--ab", b"--", b" ", b";", b'"', b"=", b":", b"name=", b"\r\n--ab\r\n", b"x"]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.sampled_from(scraps))
    try:
        document = parse("multipart/form-data; boundary=ab", bytes(raw))
    except Refused:
        return
    ours = [(each.name, bytes(raw[each.start : each.end])) for each in document._parts]  # type: ignore[attr-defined]
    assert ours == by_email(bytes(raw), "ab")
