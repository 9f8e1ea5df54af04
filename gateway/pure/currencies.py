"""Amounts of money as whole minor units, read exactly: never a float, never a rounding.

Currencies are those of ISO 4217 (list one, active codes) that have a minor unit, with its exponent: 1.00 EUR is 100,
1 JPY is 1, 1.000 KWD is 1000. Codes withdrawn since 2021 stay, since a refund may still be in them.
"""

from __future__ import annotations

import enum
import re
from typing import Final, Literal

from gateway.pure.conditions import INTEGER_MAX

AMOUNT_MAX = INTEGER_MAX
"""Minor units that an amount may have: 2**53 - 1 survives JSON, and sums of a few survive SQLite's 64 bits."""

Unit = Literal["minor", "major"]

_CODES: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE "
    "CHF CHW CNY COP COU CRC CUC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD "
    "HNL HRK HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP "
    "MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR "
    "SDG SEK SGD SHP SLE SLL SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED "
    "VES WST XAD XCD XCG YER ZAR ZMW ZWG ZWL",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
EXPONENTS: Final = {code: exponent for exponent, codes in _CODES.items() for code in codes.split()}
"""Digits behind the point of each currency's major unit."""

_DECIMAL = re.compile(r"(-?)(0|[1-9][0-9]{0,30})(?:\.([0-9]{1,30}))?", re.ASCII)


class BadAmount(enum.Enum):
    """Why something is no amount of money; the value says it to a caller."""

    MISSING = "an amount is missing"
    NOT_A_NUMBER = "the amount is not a decimal number"
    NEGATIVE = "the amount is negative"
    ZERO = "the amount is zero"
    FRACTIONAL = "the amount is not a whole number of the currency's minor unit"
    TOO_LARGE = "the amount is too large"
    CURRENCY_UNKNOWN = "the currency is not a code of ISO 4217"
    CURRENCY_DIFFERS = "the currency is not the payment's"


def parse_currency(value: object) -> str | BadAmount:
    """The code in capitals; providers write them small too."""
    code = value.upper() if isinstance(value, str) and value.isascii() else ""
    return code if code in EXPONENTS else BadAmount.CURRENCY_UNKNOWN


def parse_amount(value: object, currency: str, unit: Unit = "minor") -> int | BadAmount:
    """Minor units from 0 to AMOUNT_MAX, of a JSON integer or the decimal text of a form.

    With `major` the text counts the currency's major unit: "10.5" of EUR is 1050; more digits than the currency has
    are FRACTIONAL unless they are zeros. A float is refused whatever its value: it is not what was sent.
    """
    if currency not in EXPONENTS:
        return BadAmount.CURRENCY_UNKNOWN
    if value is None:
        return BadAmount.MISSING
    if isinstance(value, float):
        return BadAmount.FRACTIONAL
    if isinstance(value, int) and not isinstance(value, bool):
        return BadAmount.NEGATIVE if value < 0 else _bounded(value * 10 ** _shift(currency, unit))
    found = _DECIMAL.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return BadAmount.NOT_A_NUMBER
    sign, whole, fraction = found[1], found[2], found[3] or ""
    if sign:
        return BadAmount.NEGATIVE
    shift = _shift(currency, unit)
    digits = fraction.rstrip("0")
    if len(digits) > shift or (fraction and unit == "minor"):
        return BadAmount.FRACTIONAL
    return _bounded(int(whole + digits.ljust(shift, "0")))


def _shift(currency: str, unit: Unit) -> int:
    return EXPONENTS[currency] if unit == "major" else 0


def _bounded(amount: int) -> int | BadAmount:
    return amount if amount <= AMOUNT_MAX else BadAmount.TOO_LARGE
