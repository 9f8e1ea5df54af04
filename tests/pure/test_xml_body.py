"""XML is read one way only, and text is found and replaced in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.dom import minidom
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.pure import xml_reader
from gateway.pure.body import Document, Match, compile_selector, parse
from gateway.pure.errors import Reason, Refused
from gateway.pure.json_reader import MAX_DEPTH, MAX_VALUES
from gateway.pure.xml_body import XmlDocument, XmlSelector, check_namespace, check_prefix
from gateway.pure.xml_reader import MAX_ATTRIBUTES, expanded

SOAP = "http://www.w3.org/2003/05/soap-envelope"
CARDS = "urn:example:cards"
PREFIXES = {"s": SOAP, "c": CARDS}


def read(body: bytes | str) -> Document:
    return parse("application/xml", body.encode() if isinstance(body, str) else body)


def select(body: bytes | str, path: str, prefixes: Mapping[str, str] = PREFIXES) -> list[Match]:
    return read(body).select(compile_selector(path, tuple(prefixes.items())))


def values(body: bytes | str, path: str, prefixes: Mapping[str, str] = PREFIXES) -> list[str]:
    return [match.value for match in select(body, path, prefixes)]


def replaced(body: str, path: str, text: str) -> str:
    raw = body.encode()
    for match in reversed(select(raw, path)):
        raw = raw[: match.start] + match.encode(text) + raw[match.end :]
    return raw.decode()


def refusal(body: bytes | str) -> Reason:
    with pytest.raises(Refused) as caught:
        read(body)
    return caught.value.reason


# --- What is read ----------------------------------------------------------------------------------------------------

LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha">' + "".join(f'<!ENTITY a{n} "{"&a;" * 10}">' for n in range(9)) + "]><a>&a8;</a>"

HOSTILE = {
    "billion laughs": LAUGHS,
    "an external entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    "a parameter entity": '<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1/x"> %x;]><a/>',
    "an external document type": '<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd"><a/>',
    "a public document type": '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "x"><html/>',
    "an empty document type": "<!DOCTYPE a><a/>",
    "a default attribute": '<!DOCTYPE a [<!ATTLIST a number CDATA "4242">]><a/>',
    "an undefined entity": "<a>&x;</a>",
    "an entity of HTML": "<a>&nbsp;</a>",
    "an undefined entity in an attribute": '<a x="&x;"/>',
    "a stylesheet": '<?xml-stylesheet href="x"?><a/>',
    "an instruction in an element": "<a><?php 1 ?></a>",
    "an instruction behind the root": "<a/><?x y?>",
    "a second declaration": '<?xml version="1.0"?><?xml version="1.0"?><a/>',
    "a declaration that does not come first": ' <?xml version="1.0"?><a/>',
    "version 1.1": '<?xml version="1.1"?><a/>',
    "UTF-7": b'<?xml version="1.0" encoding="UTF-7"?><a>+ADw-</a>',
    "another encoding declared": '<?xml version="1.0" encoding="iso-8859-1"?><a/>',
    "ASCII declared": '<?xml version="1.0" encoding="us-ascii"?><a/>',
    "utf8 without a dash": '<?xml version="1.0" encoding="utf8"?><a/>',
    "UTF-16": '<?xml version="1.0" encoding="utf-16"?><a/>'.encode("utf-16"),
    "UTF-16 without a mark": "<a/>".encode("utf-16-le"),
    "a byte order mark": b"\xef\xbb\xbf<a/>",
    "bytes that are no UTF-8": b"<a>\xff</a>",
    "an overlong spelling": b"<a>\xc0\xbc</a>",
    "half a surrogate pair": b"<a>\xed\xa0\x80</a>",
    "half a surrogate pair by number": "<a>&#xD800;</a>",
    "a character that XML does not have": "<a>\x01</a>",
    "the same by number": "<a>&#1;</a>",
    "NUL by number": "<a>&#0;</a>",
    "a non-character": "<a>\ufffe</a>",
    "two roots": "<a/><b/>",
    "text behind the root": "<a/>x",
    "text before the root": "x<a/>",
    "NUL behind the root": "<a/>\0",
    "no root": "",
    "white space alone": " \n",
    "a comment alone": "<!-- x -->",
    "an open element": "<a>",
    "elements that cross": "<a><b></a></b>",
    "an end too much": "<a/></a>",
    "names in two cases": "<a></A>",
    "CDATA in an attribute": '<a x="<![CDATA[4242]]>"/>',
    "a tag in an attribute": '<a x="<b>"/>',
    "the end of CDATA in text": "<a>4242]]></a>",
    "CDATA outside of the root": "<![CDATA[x]]><a/>",
    "open CDATA": "<a><![CDATA[x</a>",
    "an ampersand": "<a>&</a>",
    "two dashes in a comment": "<a><!-- -- --></a>",
    "an attribute twice": '<a x="1" x="2"/>',
    "an attribute twice by two prefixes": '<a xmlns:p="u" xmlns:q="u" p:x="1" q:x="2"/>',
    "an attribute without quotes": "<a x=1/>",
    "an attribute without a value": "<a x/>",
    "attributes without space": '<a x="1"y="2"/>',
    "a prefix that is not declared": "<p:a/>",
    "an attribute's prefix that is not declared": '<a p:x="1"/>',
    "a prefix declared as nothing": '<a xmlns:p=""/>',
    "xml declared as something else": '<a xmlns:xml="u"/>',
    "xmlns declared": '<a xmlns:xmlns="u"/>',
    "a space in a namespace": '<a xmlns="urn:x y"/>',
    "a brace in a namespace": '<p:a xmlns:p="urn:x}y"/>',
    "a line end in a namespace": '<a xmlns:p="urn:x&#10;y"/>',
    "too many namespaces": "<a" + "".join(f' xmlns:p{n}="u"' for n in range(MAX_VALUES)) + "/>",
    "two colons": '<p:a:b xmlns:p="u"/>',
    "a name that begins with a colon": "<:a/>",
    "a name that begins with a digit": "<1a/>",
    "too deep": "<a>" * (MAX_DEPTH + 1) + "</a>" * (MAX_DEPTH + 1),
    "too many elements": "<a>" + "<b/>" * MAX_VALUES + "</a>",
    "too many attributes in all": "<a>" + '<b x="" y=""/>' * (MAX_VALUES // 3 + 1) + "</a>",
    "too many attributes": "<a " + " ".join(f'x{n}=""' for n in range(MAX_ATTRIBUTES + 1)) + "/>",
    "JSON": '{"a": 1}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_xml_that_two_parsers_could_read_differently_is_refused(name: str) -> None:
    assert refusal(HOSTILE[name]) is Reason.BODY_MALFORMED


@pytest.mark.parametrize(
    "body",
    [
        '<?xml version="1.0"?><a/>',
        "<?xml version='1.0' encoding='UTF-8' standalone='yes'?>\r\n<a/>\r\n",
        "<a/><!-- behind -->\n",
        "<!-- before --><a><!-- within --><b/></a>",
        '<a xmlns="urn:x" xmlns:p="urn:y" p:b="1" b="2"><p:c xmlns=""/></a>',
        '<a xmlns="http://example.com/%7Ex/é?a=b&amp;c#d" xmlns:p="x"/>',
        "<a>&lt;&gt;&amp;&quot;&apos;&#9;&#x1F600;</a>",
        '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd" parse="text"/>',
        "<a>" * MAX_DEPTH + "</a>" * MAX_DEPTH,
        "<a>" + "<b/>" * (MAX_VALUES - 1) + "</a>",
        "<a " + " ".join(f'x{n}=""' for n in range(MAX_ATTRIBUTES)) + "/>",
        "<été né='oui'>€</été>",
    ],
)
def test_xml_that_all_parsers_read_alike_is_read(body: str) -> None:
    ET.fromstring(body)
    read(body)


@pytest.mark.parametrize(
    "body",
    [
        "<a" + "".join(f' xmlns:p{n}="u{n}"' for n in range(30_000)) + "/>",
        "<a " + " ".join(f'x{n}=""' for n in range(60_000)) + "/>",
        "<a>" * 300_000,
        "<a>" + "&#52;" * 200_000 + "</a>",
        "<a>" + "]]" * 400_000 + "</a>",
        "<a>" + "<![CDATA[]]>" * 80_000 + "</a>",
        "<!--" + "-" * 800_000,
        "<a x='" + '"' * 800_000,
        "<" + "a" * 1_000_000 + "/>",
        "<a>" + "<" * 500_000,
        LAUGHS,
    ],
    ids=lambda body: f"{body[:12]} of {len(body)}",
)
@pytest.mark.timeout(60)
def test_time_to_read_grows_with_the_length_alone(body: str) -> None:
    try:
        matches = select(body, "//*") + select(body, "//@*")
    except Refused:
        return
    assert len(matches) <= MAX_VALUES


# --- What is selected ------------------------------------------------------------------------------------------------

ORDER = """<?xml version="1.0"?>
<order xmlns:a="urn:example:cards" id="7">
  <card kind="x"><number>1</number><a:number>2</a:number></card>
  <b:card xmlns:b="urn:example:cards" b:kind="y" kind="z"><b:number>3</b:number><number>4</number></b:card>
  <card xmlns="urn:example:cards"><number xmlns="">5</number><number>6</number></card>
  <deep><card><card><number>7</number></card></card></deep>
  <number xml:lang="en">8</number>
</order>"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/order/number", "8"),
        ("/order/card/number", "1"),
        ("/order/card/c:number", "2"),
        ("/order/c:card/c:number", "36"),
        ("/order/c:card/number", "45"),
        ("/order/c:card/*", "3456"),
        ("/order/*/number", "145"),
        ("/order/card/*", "12"),
        ("/order/*/c:*", "236"),
        ("//number", "14578"),
        ("//*:number", "12345678"),
        ("//*:card/@*:kind", "xyz"),
        ("//c:number", "236"),
        ("//card/number", "17"),
        ("//card//number", "17"),
        ("/order//card/number", "17"),
        ("//card/card/number", "7"),
        ("/order//number", "14578"),
        ("/*/deep//number", "7"),
        ("//*//*//*//number", "7"),
        ("/order/deep/number", ""),
        ("/number", ""),
        ("/Order/number", ""),
        ("//c:order//number", ""),
        ("/order/@id", "7"),
        ("/order/card/@kind", "x"),
        ("/order/c:card/@kind", "z"),
        ("/order/c:card/@c:kind", "y"),
        ("//@kind", "xz"),
        ("//@c:*", "y"),
        ("//c:card/@*", "yz"),
        ("/order//@*", ["7", "x", "y", "z", "en"]),
        ("/order//@xml:lang", ["en"]),
    ],
)
def test_paths_select_as_xpath_says_in_the_order_of_the_body(path: str, expected: str | list[str]) -> None:
    assert values(ORDER, path) == list(expected)


def test_a_prefix_means_what_it_is_declared_for_and_not_what_the_document_calls_so() -> None:
    body = '<c:a xmlns:c="urn:other"><c:n>1</c:n><c:a xmlns:c="urn:example:cards"><c:n>2</c:n></c:a><c:n>3</c:n></c:a>'
    assert values(body, "//c:n") == ["2"]
    assert values(body, "//o:n", {"o": "urn:other"}) == ["1", "3"]
    assert values('<n xmlns="urn:example:cards">1</n>', "/n") == []
    assert values('<n xmlns="urn:example:cards">1</n>', "/c:n") == ["1"]
    assert values('<n xmlns="urn:example&#58;cards">1</n>', "/c:n") == ["1"]
    assert values('<a xmlns:c="urn:example:cards" c:n="1" n="2"/>', "/a/@n") == ["2"]


@pytest.mark.parametrize(
    "text",
    [
        "/",
        "//",
        "/a/",
        "/a///b",
        "/@a",
        "/a/@b/c",
        "/a[1]",
        "/a/text()",
        "/a/..",
        "/a | /b",
        "/a b",
        "/a\n",
        "/1a",
        "/a:b:c",
        "/:a",
        "/**",
        "/*a",
        "/*:a:b",
        "/q:a",
        "/a/@q:b",
        "/a/{urn:x}b",
    ],
)
def test_what_is_no_path_is_an_error_at_load(text: str) -> None:
    with pytest.raises(ValueError, match=r"no XML path|prefix q is not declared"):
        compile_selector(text)


def test_a_prefix_that_is_not_known_yet_is_no_error_of_the_path() -> None:
    assert compile_selector("//q:a", None).kind == "xml"


@pytest.mark.parametrize("prefix", ["", "1", "a:b", "xml", "xmlns", "XmlThing", "a b"])
def test_what_is_no_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        check_prefix(prefix)


@pytest.mark.parametrize("uri", ["", " ", "urn:x ", "urn:\x01", "http://www.w3.org/XML/1998/namespace"])
def test_what_is_no_namespace_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        check_namespace(uri)


def test_prefix_and_namespace_are_taken_as_they_are_written() -> None:
    assert (check_prefix("c14n"), check_namespace(SOAP)) == ("c14n", SOAP)


# --- What is replaced ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "value", "expected"),
    [
        ("<a><n>42</n></a>", "42", "<a><n>T</n></a>"),
        ("<a>\n <n >\n\t42\r\n </n >\n</a>", "42", "<a>\n <n >\n\tT\r\n </n >\n</a>"),
        ("<a><n>&#52;2&#x32;</n></a>", "422", "<a><n>T</n></a>"),
        ("<a><n> &#32;42&#10;</n></a>", "42", "<a><n> T</n></a>"),
        ("<a><n><![CDATA[42]]></n></a>", "42", "<a><n><![CDATA[T]]></n></a>"),
        ("<a><n>\n<![CDATA[ 42 ]]>\n</n></a>", "42", "<a><n>\n<![CDATA[ T ]]>\n</n></a>"),
        ("<a><n>4<![CDATA[2]]></n></a>", "42", "<a><n>T</n></a>"),
        ("<a><n><![CDATA[4]]><![CDATA[2]]></n></a>", "42", "<a><n>T</n></a>"),
        ("<a><n><![CDATA[&#52;]]></n></a>", "&#52;", "<a><n><![CDATA[T]]></n></a>"),
        ("<a><n><![CDATA[]]></n></a>", "", "<a><n><![CDATA[T]]></n></a>"),
        ("<a><n></n></a>", "", "<a><n>T</n></a>"),
        ("<a><n>  </n></a>", "", "<a><n>T  </n></a>"),
        ("<a><n/></a>", "", "<a><n>T</n></a>"),
        ("<a><n x='/>' /></a>", "", "<a><n x='/>' >T</n></a>"),
        ("<a><n x=\"'>42<\" y='\">'>42</n></a>".replace('<"', '&lt;"'), "42", None),
        ("<a><é/><!-- <n>41</n> --><n>42</n></a>", "42", "<a><é/><!-- <n>41</n> --><n>T</n></a>"),
        ("<a><b><![CDATA[<n>41</n>]]></b><n>42</n></a>", "42", "<a><b><![CDATA[<n>41</n>]]></b><n>T</n></a>"),
        ("<?xml version='1.0'?>\r\n<a>€\r\n<n>42</n></a>", "42", "<?xml version='1.0'?>\r\n<a>€\r\n<n>T</n></a>"),
        ("<p:a xmlns:p='u'><n>42</n></p:a>", "42", "<p:a xmlns:p='u'><n>T</n></p:a>"),
    ],
)
def test_text_is_replaced_in_place_however_it_is_spelled(body: str, value: str, expected: str | None) -> None:
    assert values(body, "//n") == [value]
    assert replaced(body, "//n", "T") == (expected or body.replace(">42</n>", ">T</n>"))


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ('<a n="42"/>', '<a n="T"/>'),
        ("<a\n\tm='n=\"1\"'\r\n n = '42' >", "<a\n\tm='n=\"1\"'\r\n n = 'T' >"),
        ('<a xmlns:n="n" n="&#52;2" x=""/>', '<a xmlns:n="n" n="T" x=""/>'),
        ('<a xmlns="u" nn="1" n=" 42\n"/>', '<a xmlns="u" nn="1" n=" T\n"/>'),
        ('<a m=">" n="42" o="/"/>', '<a m=">" n="T" o="/"/>'),
        ('<a é="n=\'1\'" n="42"/>', '<a é="n=\'1\'" n="T"/>'),
    ],
)
def test_an_attribute_is_replaced_in_place_however_it_is_spelled(tag: str, expected: str) -> None:
    closing = "" if tag.endswith("/>") else "</a>"
    assert values(tag + closing, "//@n") == ["42"]
    assert replaced(tag + closing, "//@n", "T") == expected + closing


def test_an_empty_attribute_is_a_match_too() -> None:
    assert replaced("<a n=''/>", "/a/@n", "T") == "<a n='T'/>"


def test_an_element_and_its_attributes_are_replaced_each_in_its_place() -> None:
    body = b'<a n="1" m="2"/>'
    document = read(body)
    matches = [*document.select(compile_selector("//@*")), *document.select(compile_selector("//a"))]
    for match in reversed(matches):
        body = body[: match.start] + match.encode("T") + body[match.end :]
    assert body == b'<a n="T" m="T">T</a>'


@pytest.mark.parametrize("text", ["a&b<c>d", "\"'", "]]>", "a\r\nb\tc", "é€\U0001f600", "]]", ">", ""])
@pytest.mark.parametrize("body", ["<a><n>1</n></a>", "<a><n><![CDATA[1]]></n></a>", "<a><n/></a>"])
def test_what_is_put_in_is_escaped_for_its_place(body: str, text: str) -> None:
    written = replaced(body, "//n", text)
    assert ET.fromstring(written).findtext("n", default="") == text


@pytest.mark.parametrize("text", ["a&b<c>d", "\"'", "]]>", "a\r\nb\tc", "é€\U0001f600"])
@pytest.mark.parametrize("body", ["<a n='1'/>", '<a n="1"/>'])
def test_what_is_put_into_an_attribute_is_escaped_for_its_place(body: str, text: str) -> None:
    assert ET.fromstring(replaced(body, "/a/@n", text)).get("n") == text


@pytest.mark.parametrize("text", ["\0", "a\x0b", "\ufffe", "\ud800"])
@pytest.mark.parametrize("body", ["<n>1</n>", "<n><![CDATA[1]]></n>", "<n/>"])
def test_what_xml_cannot_say_is_refused(body: str, text: str) -> None:
    with pytest.raises(Refused) as caught:
        replaced(body, "/n", text)
    assert caught.value.reason is Reason.FIELD_INVALID


@pytest.mark.parametrize(
    "body", ["<n>42<b/></n>", "<n><b>42</b></n>", "<n>4<!-- -->2</n>", "<n><!-- -->42</n>", "<n>42<![CDATA[]]><b/></n>"]
)
def test_an_element_with_anything_but_text_in_it_is_refused_if_it_is_selected(body: str) -> None:
    assert values(f"<a>{body}</a>", "//m") == []
    with pytest.raises(Refused) as caught:
        select(f"<a>{body}</a>", "//n")
    assert caught.value.reason is Reason.FIELD_INVALID
    assert "//n" in caught.value.detail
    assert "42" not in caught.value.detail


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('<n nil="true"/>', []),
        ('<n nil="1"></n>', []),
        ('<n xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:nil="true"/>', []),
        ('<n nil="true">42</n>', ["42"]),
        ('<n nil="true"> </n>', [""]),
        ('<n nil="false"/>', [""]),
        ('<n xmlns:i="urn:x" i:nil="true"/>', [""]),
    ],
)
def test_an_element_that_says_it_is_nil_is_no_match_if_it_is_empty(body: str, expected: list[str]) -> None:
    assert values(body, "/n") == expected


def test_a_match_does_not_show_its_value() -> None:
    assert "4242" not in repr(select("<a>4242</a>", "/a"))


# --- Documents of any shape ------------------------------------------------------------------------------------------

names = st.sampled_from(["a", "n", "c:n", "d:n", "é"])
content = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff")
    | st.sampled_from("<>&'\"\t\n ]"),
    max_size=8,
)
spelled = st.one_of(
    content.map(lambda text: (text, text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))),
    content.map(lambda text: (text, "".join(f"&#{ord(each)};" for each in text))),
    content.filter(lambda text: "]]>" not in text).map(lambda text: (text, f"<![CDATA[{text}]]>")),
)
quotes = st.sampled_from(["'", '"'])
blanks = st.sampled_from(["", " ", "\n", "\t\r\n"])


@st.composite
def attributes(draw: Any) -> str:
    listed = []
    for name in draw(st.lists(st.sampled_from(["n", "c:n", "m", "d:m"]), unique=True, max_size=3)):
        quote, text = draw(quotes), draw(content)
        for char in "&<\t\n" + quote:
            text = text.replace(char, f"&#{ord(char)};")
        listed.append(f"{draw(blanks)} {name}{draw(blanks)}={draw(blanks)}{quote}{text}{quote}")
    return "".join(listed)


@st.composite
def elements(draw: Any, depth: int = 3) -> str:
    name, tag = draw(names), draw(attributes())
    if draw(st.booleans()) and draw(st.booleans()):
        return f"<{name}{tag}{draw(blanks)}/>"
    inner = (
        "".join(draw(st.lists(elements(depth - 1) | st.just("<!-- <n>1</n> -->"), max_size=3)))
        if depth and draw(st.booleans())
        else "".join(spelling for _, spelling in draw(st.lists(spelled, max_size=2)))
    )
    return f"<{name}{tag}{draw(blanks)}>{inner}</{name}{draw(blanks)}>"


documents = st.tuples(st.sampled_from(["", "<?xml version='1.0' encoding='utf-8'?>\n"]), elements()).map(
    lambda pair: f'{pair[0]}<r xmlns:c="{CARDS}" xmlns:d="{CARDS}2">{pair[1]}</r>'
)


def by_element_tree(body: str) -> list[str]:
    """The texts of elements `n` of the cards' namespace that hold nothing else."""
    found = ET.fromstring(body).iter(f"{{{CARDS}}}n")
    return [(each.text or "").strip(" \t\r\n") for each in found if len(each) == 0]


def by_minidom(body: str) -> list[str]:
    found = minidom.parseString(body.encode()).getElementsByTagNameNS(CARDS, "n")
    return [
        "".join(child.data for child in each.childNodes).strip(" \t\r\n")
        for each in found
        if all(child.nodeType in {child.TEXT_NODE, child.CDATA_SECTION_NODE} for child in each.childNodes)
    ]


def by_us(body: str) -> list[str]:
    """Element by element, since one that holds others would refuse them all."""
    plain = [each for each in xml_reader.read(body.encode()) if each.plain]
    return [each.text.strip(" \t\r\n") for each in plain if each.name == expanded(CARDS, "n")]


@given(body=documents)
@settings(max_examples=200)
def test_what_is_read_is_what_other_parsers_read(body: str) -> None:
    if "<!--" not in body:
        assert by_us(body) == by_element_tree(body)
    assert by_us(body) == by_minidom(body)
    expected = [
        value.strip(" \t\r\n")
        for each in ET.fromstring(body).iter()
        for name, value in each.attrib.items()
        if name == f"{{{CARDS}}}n"
    ]
    assert values(body, "//@c:n") == expected


steps = st.lists(
    st.tuples(st.sampled_from(["/", "//"]), st.sampled_from(["a", "n", "c:n", "d:n", "é", "*"])), max_size=4
)


@given(body=documents, steps=steps)
@settings(max_examples=200)
def test_paths_lead_where_those_of_the_standard_library_lead(body: str, steps: list[tuple[str, str]]) -> None:
    root = ET.fromstring(body)
    order = {id(each): position for position, each in enumerate(root.iter())}
    expected = root.findall("." + "".join(map("".join, steps)), {"c": CARDS, "d": CARDS + "2"})
    selector = compile_selector("/r" + "".join(map("".join, steps)), (("c", CARDS), ("d", CARDS + "2")))
    elements = xml_reader.read(body.encode())
    assert isinstance(selector, XmlSelector)
    found = [elements.index(each) for each in XmlDocument(body.encode(), elements)._reached(selector)]
    assert found == sorted({order[id(each)] for each in expected})


@given(body=documents, text=content, path=st.sampled_from(["//n", "//c:n", "//@n", "//@c:n", "//@*", "//é"]))
@settings(max_examples=200)
def test_a_replacement_is_read_in_its_place_and_nothing_else_differs(body: str, text: str, path: str) -> None:
    try:
        matches = select(body, path)
    except Refused:  # an element that holds others
        return
    raw, edited, position = body.encode(), b"", 0
    for match in matches:
        assert match.start >= position
        edited += raw[position : match.start] + match.encode(text)
        position = match.end
    edited += raw[position:]
    assert [each.value for each in select(edited, path)] == [text.strip(" \t\r\n")] * len(matches)
    ET.fromstring(edited)


@given(body=documents, data=st.data())
@settings(max_examples=300)
def test_damaged_xml_is_refused_or_read_alike_by_all(body: str, data: Any) -> None:
    raw = bytearray(body.encode())
    scraps = [
        b"<",
        b">",
        b"/",
        b"&",
        b"]]>",
        b"'",
        b'"',
        b" ",
        b"\xff",
        b"<![CDATA[",
        b"<!--",
        b"-->",
        b"<?",
        b":",
        b"<n>",
    ]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.sampled_from(scraps))
    try:
        read(bytes(raw))
    except Refused:
        return
    assert by_us(raw.decode()) == by_minidom(raw.decode())
