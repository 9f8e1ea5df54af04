"""The kinds of body that card data comes in, and how it may be written there. A kind that is added is tried wherever
the others are: declared, undeclared, both ways, on every way to fail, and when the gateway dies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Spelling = Callable[[str], str]


def _plain(text: str) -> str:
    return text


def _grouped(separator: str) -> Spelling:
    return lambda text: separator.join(text[at : at + 4] for at in range(0, len(text), 4))


@dataclass(frozen=True)
class Kind:
    """`body` has the places NUMBER, CODE and NOTE. In `clear` spellings a number can give way where nobody declared it,
    to a mask and, if bodies may be `resized`, to a token; in `hidden` ones it cannot.
    """

    name: str
    media_type: str
    body: str
    fields: Sequence[Mapping[str, Any]]
    clear: Mapping[str, Spelling] = field(default_factory=lambda: {"plain": _plain})
    hidden: Mapping[str, Spelling] = field(default_factory=dict)
    resized: bool = True

    @property
    def spellings(self) -> Mapping[str, Spelling]:
        return {**self.clear, **self.hidden}

    def gives_way(self, action: str, spelling: str) -> bool:
        """Does an undeclared number in this spelling give way, where the rule says so?"""
        return action != "block" and spelling in self.clear and (action == "mask" or self.resized)

    def with_card(self, number: str, code: str, spell: Spelling = _plain) -> bytes:
        return self._filled(spell(number), spell(code), "none")

    def with_note(self, number: str, spell: Spelling = _plain) -> bytes:
        return self._filled("none", "none", spell(number))

    def _filled(self, number: str, code: str, note: str) -> bytes:
        return self.body.replace("NUMBER", number).replace("CODE", code).replace("NOTE", note).encode()


def _each(write: str) -> Spelling:
    return lambda text: "".join(write.format(ord(character)) for character in text)


KINDS: Final = (
    Kind(
        "json",
        "application/json",
        '{"card": {"number": "NUMBER", "cvc": "CODE"}, "note": "NOTE"}',
        ({"select": "$.card.number", "class": "pan"}, {"select": "$.card.cvc", "class": "cvc"}),
        {"plain": _plain, "grouped": _grouped(" ")},
        {"escaped": _each("\\u{:04x}")},
    ),
    Kind(
        "form",
        "application/x-www-form-urlencoded",
        "card[number]=NUMBER&card[cvc]=CODE&note=NOTE",
        ({"select": "card[number]", "class": "pan"}, {"select": "card[cvc]", "class": "cvc"}),
        {"plain": _plain, "grouped": _grouped("+")},
        {"escaped": _each("%{:02x}")},
    ),
    Kind(
        "xml",
        "application/xml",
        '<sale note="NOTE"><card cvc="CODE"><number>NUMBER</number></card></sale>',
        ({"select": "/sale/card/number", "class": "pan"}, {"select": "//card/@cvc", "class": "cvc"}),
        {"plain": _plain, "grouped": _grouped(" ")},
        {"escaped": _each("&#{};")},
    ),
    Kind(
        "soap",
        "application/soap+xml",
        '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><c><n><![CDATA[NUMBER]]></n><v>CODE</v>'
        "<t>NOTE</t></c></s:Body></s:Envelope>",
        ({"select": "//c/n", "class": "pan"}, {"select": "//c/v", "class": "cvc"}),
    ),
    Kind(
        "multipart",
        "multipart/form-data; boundary=frontier",
        '--frontier\r\nContent-Disposition: form-data; name="card"\r\nContent-Type: application/json\r\n\r\n'
        '{"number": "NUMBER"}\r\n--frontier\r\nContent-Disposition: form-data; name="cvc"\r\n\r\nCODE\r\n'
        '--frontier\r\nContent-Disposition: form-data; name="note"\r\n\r\nNOTE\r\n--frontier--\r\n',
        ({"select": "part:card:$.number", "class": "pan"}, {"select": "part:cvc", "class": "cvc"}),
        {"plain": _plain, "grouped": _grouped(" ")},
        resized=False,
    ),
)
