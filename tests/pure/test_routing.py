from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.routing import Found, Missed, Pattern, RouteTable

GET, POST = frozenset({"GET"}), frozenset({"POST"})


def table(*routes: tuple[str, frozenset[str], str | None]) -> RouteTable[str]:
    return RouteTable((Pattern(path, methods, host), f"{host or ''}{path}") for path, methods, host in routes)


def test_a_template_names_the_segments_it_takes() -> None:
    found = table(("/v1/{kind}/{id}", GET, None)).match("any", "GET", "/v1/payments/pay_1")
    assert found == Found("/v1/{kind}/{id}", {"kind": "payments", "id": "pay_1"})


def test_a_name_takes_exactly_one_segment_that_is_not_empty() -> None:
    routes = table(("/v1/{id}", GET, None))
    assert routes.match("h", "GET", "/v1/") == Missed(())
    assert routes.match("h", "GET", "/v1/a/b") == Missed(())
    assert routes.match("h", "GET", "/v1") == Missed(())


def test_two_stars_take_any_rest_but_not_none() -> None:
    routes = table(("/v1/**", GET, None))
    assert isinstance(routes.match("h", "GET", "/v1/a/b/c"), Found)
    assert isinstance(routes.match("h", "GET", "/v1/"), Found)
    assert routes.match("h", "GET", "/v1") == Missed(())
    assert routes.match("h", "GET", "/v2/a") == Missed(())


def test_a_literal_comes_before_a_name_and_a_name_before_the_rest() -> None:
    routes = table(("/**", GET, None), ("/{a}/x", GET, None), ("/v1/x", GET, None), ("/v1/{b}", GET, None))
    assert [routes.match("h", "GET", path).route for path in ("/v1/x", "/v2/x", "/v1/y", "/v2/y")] == [  # type: ignore[union-attr]
        "/v1/x",
        "/{a}/x",
        "/v1/{b}",
        "/**",
    ]


def test_a_dead_end_is_left_again() -> None:
    routes = table(("/v1/payments/fixed", GET, None), ("/v1/{kind}/{id}", GET, None))
    assert routes.match("h", "GET", "/v1/payments/other") == Found(
        "/v1/{kind}/{id}", {"kind": "payments", "id": "other"}
    )


def test_a_route_of_this_host_comes_before_one_of_any_host() -> None:
    routes = table(("/x", GET, None), ("/**", GET, "api.example"))
    assert routes.match("api.example", "GET", "/x") == Found("api.example/**", {})
    assert routes.match("other.example", "GET", "/x") == Found("/x", {})
    assert routes.match("other.example", "GET", "/y") == Missed(())


def test_hosts_are_compared_without_case() -> None:
    assert isinstance(table(("/x", GET, "API.example")).match("api.example", "GET", "/x"), Found)


def test_a_missed_method_tells_which_ones_are_allowed() -> None:
    routes = table(("/x", POST, None), ("/x", frozenset({"DELETE"}), None), ("/y", GET, None))
    assert routes.match("h", "PUT", "/x") == Missed(("DELETE", "POST"))


def test_a_route_for_any_method_stands_behind_those_that_name_it() -> None:
    routes = RouteTable([(Pattern("/x", frozenset()), "any"), (Pattern("/x", POST), "post")])
    assert routes.match("h", "POST", "/x") == Found("post", {})
    assert routes.match("h", "GET", "/x") == Found("any", {})


@pytest.mark.parametrize(
    "path",
    ["", "v1", "/v1//x", "/{}", "/{a b}", "/{a}x", "/**/x", "/a*", "/../x", "/./x", "/{a}/{a}", "/a%2fb", "/a:b"],
)
def test_a_malformed_template_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"template|segment|name"):
        table((path, GET, None))


@pytest.mark.parametrize(("one", "other"), [("/v1/x", "/v1/x"), ("/v1/{a}", "/v1/{b}"), ("/v1/**", "/v1/**")])
def test_two_routes_for_the_same_requests_are_refused(one: str, other: str) -> None:
    with pytest.raises(ValueError, match="another route"):
        table((one, GET, None), (other, GET | POST, None))
    table((one, GET, None), (other, POST, None))
    table((one, GET, None), (other, GET, "api.example"))


SEGMENTS = st.lists(st.sampled_from(["a", "b", "{x}", "**"]), min_size=1, max_size=4)


@given(st.lists(SEGMENTS, max_size=8), st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4))
def test_the_tree_finds_what_a_search_through_all_templates_finds(
    templates: list[list[str]], segments: list[str]
) -> None:
    paths = {"/" + "/".join(t) for t in templates if "**" not in t[:-1] and t.count("{x}") < 2}
    routes = table(*((path, GET, None) for path in paths))
    expected = sorted((rank(path, segments), path) for path in paths if rank(path, segments) is not None)
    found = routes.match("h", "GET", "/" + "/".join(segments))
    assert isinstance(found, Found) == bool(expected)
    if expected:
        assert isinstance(found, Found)
        assert found.route == expected[0][1]


def rank(path: str, segments: list[str]) -> list[int] | None:
    """How well a template matches, by segment (the lower the better); None if not at all."""
    parts = path.split("/")[1:]
    ranks = []
    for position, part in enumerate(parts):
        if part == "**":
            return [*ranks, 2] if len(segments) > position else None
        if position >= len(segments) or part not in {segments[position], "{x}"}:
            return None
        ranks.append(1 if part == "{x}" else 0)
    return ranks if len(parts) == len(segments) else None
