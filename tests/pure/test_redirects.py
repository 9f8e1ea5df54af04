from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.redirects import is_among, leads_to


@pytest.mark.parametrize(
    ("location", "found"),
    [
        *((each, ("", "")) for each in ("/v1/payments/1", "?page=2", "next", "#top", "", "./a//b")),
        ("https://Shop.example/x", ("https", "shop.example")),
        ("http://shop.example:8080", ("http", "shop.example")),
        ("//evil.example/x", ("", "evil.example")),
        *(
            (each, None)
            for each in (r"/\\evil.example", r"https:\\evil.example", "https:evil.example", "https:///evil.example")
        ),
        *((each, None) for each in ("javascript:alert(1)", "data:text/html,x", "https://shop.example@evil.example")),
        *(
            (each, None)
            for each in (" //evil.example", "/\t/evil.example", "//[::1", "https://a.example:x/", "//\u0435vil.example")
        ),
    ],
)
def test_where_it_leads_is_one_host_or_not_clear(location: str, found: tuple[str, str] | None) -> None:
    assert leads_to(location) == found


@given(st.text(max_size=40))
def test_any_text_is_read_or_not_clear(location: str) -> None:
    found = leads_to(location)
    assert found is None or found == ("", "") or found[1]


def test_a_pattern_is_a_name_or_all_below_one() -> None:
    patterns = frozenset({"acs.bank.example", "*.psp.example"})
    hosts = ["acs.bank.example", "a.psp.example", "a.b.psp.example", "psp.example", "evilpsp.example", "bank.example"]
    assert [host for host in hosts if is_among(host, patterns)] == hosts[:3]
