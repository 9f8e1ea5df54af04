"""A caller reaches what is declared for the service he is, and nothing by pretending to be, or being, several."""

from __future__ import annotations

import pytest

from gateway.pure.boundaries import Boundaries, Identity, Path, Service, ambiguous
from gateway.pure.errors import Reason, Refused

CHECKOUT, PAYMENTS, APP = "spiffe://shop.example/checkout", "spiffe://shop.example/payments", "https://idp.example|app"
BOUNDARIES = Boundaries(
    [
        Service("checkout", (CHECKOUT, "dns:*.checkout.example")),
        Service("payments", (PAYMENTS,), owns=("psp",)),
        Service("app", (APP,), external=True),
        Service("internet", external=True),
    ],
    [
        Path("checkout", "create", "payments"),
        Path("payments", "charge", "psp", ("cvc", "pan")),
        Path("app", "charge", "psp", ("pan",)),
        Path("app", "create", "payments"),
        Path("internet", "status", "payments"),
    ],
)


def admitted(route: str, subject: str = "", *sans: str) -> frozenset[str] | None:
    try:
        return BOUNDARIES.admit(route, subject, sans)
    except Refused:
        return None


@pytest.mark.parametrize(
    ("route", "subject", "sans", "expected"),
    [
        ("create", "", (CHECKOUT,), frozenset()),
        ("create", "", ("dns:a.checkout.example",), frozenset()),
        ("create", "", ("spiffe://other.example/x", CHECKOUT), frozenset()),
        ("charge", "", (PAYMENTS,), frozenset({"pan", "cvc"})),
        ("charge", APP, (), frozenset({"pan"})),
        ("charge", "", (CHECKOUT,), None),
        ("create", "", (PAYMENTS,), None),
        ("charge", "", (), None),
        ("charge", "https://idp.example|other", (), None),
        ("unheard-of", "", (PAYMENTS,), None),
        ("status", "", (), frozenset()),
        ("status", "", (CHECKOUT,), frozenset()),
    ],
)
def test_a_caller_reaches_what_is_declared_for_him(
    route: str, subject: str, sans: tuple[str, ...], expected: frozenset[str] | None
) -> None:
    assert admitted(route, subject, *sans) == expected
    assert admitted(route, subject, *sans) == expected


def test_who_is_not_declared_is_refused_for_that() -> None:
    with pytest.raises(Refused) as raised:
        BOUNDARIES.admit("charge", "", (CHECKOUT,))
    assert raised.value.reason is Reason.CALLER_NOT_ALLOWED


def test_with_anothers_token_nobody_reaches_more_than_both_may() -> None:
    assert admitted("create", APP, CHECKOUT) == frozenset()
    assert admitted("charge", APP, CHECKOUT) is None
    assert admitted("charge", APP, PAYMENTS) == {"pan"}


def test_a_name_in_a_certificate_is_no_subject_of_a_token_and_the_other_way_round() -> None:
    assert admitted("charge", "", APP) is None
    assert admitted("charge", PAYMENTS) is None


@pytest.mark.parametrize("text", ["checkout", "|app", "https://idp.example|", "spiffe://*/x", "dns:*"])
def test_what_is_no_identity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no|only a segment"):
        Identity(text)


@pytest.mark.parametrize(
    ("one", "other", "could"),
    [
        (CHECKOUT, CHECKOUT, True),
        (CHECKOUT, PAYMENTS, False),
        (CHECKOUT, "spiffe://shop.example/*", True),
        ("spiffe://shop.example/**", "spiffe://shop.example/a/b", True),
        ("spiffe://shop.example/**", "spiffe://shop.example", False),
        ("spiffe://shop.example/*/a", "spiffe://shop.example/b/*", True),
        ("spiffe://shop.example/*/a", "spiffe://shop.example/b", False),
        ("spiffe://a.example/*", "spiffe://b.example/*", False),
        ("dns:*.x.example", "dns:A.x.example", True),
        ("dns:*.x.example", "dns:x.example", False),
        (APP, "https://idp.example|*", True),
        (APP, "https://idp.example|web", False),
        (APP, "https://other.example|*", False),
        (APP, CHECKOUT, False),
    ],
)
def test_two_patterns_overlap_if_somebody_could_be_both(one: str, other: str, could: bool) -> None:
    assert Identity(one).overlaps(Identity(other)) is could
    assert Identity(other).overlaps(Identity(one)) is could


def test_every_subject_of_an_issuer_is_one_pattern() -> None:
    everyone = Identity("https://idp.example|*")
    assert everyone.fits("https://idp.example|7", ())
    assert not everyone.fits("https://idp.example|", ())
    assert not everyone.fits("https://idp.example.evil|7", ())


def test_services_that_could_be_mistaken_for_each_other_are_told() -> None:
    services = [Service("a", (CHECKOUT,)), Service("b", (PAYMENTS, "spiffe://shop.example/*")), Service("c")]
    assert list(ambiguous(services)) == [("a", "b", "spiffe://shop.example/*")]
