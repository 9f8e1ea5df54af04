from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.config.settings import Limits, Listener, Route, Shared, Tls, Upstream
from gateway.pure.units import Files


def listener(bind: Any, **fields: Any) -> Listener:
    return Listener.model_validate({"bind": bind, **fields}, context=Files("/etc/pangate"))


@pytest.mark.parametrize("text", ["127.0.0.1:8443", "127.0.0.1:0", "[::1]:8443", "unix:/run/s.sock"])
def test_an_address_stays_as_it_was_written(text: str) -> None:
    assert listener(text).bind == text


def test_a_unix_socket_is_below_the_directory_of_the_configuration() -> None:
    assert listener("unix:var/s.sock").bind == "unix:/etc/pangate/var/s.sock"


@pytest.mark.parametrize("text", ["", "8443", ":8443", "127.0.0.1", "127.0.0.1:65536", "localhost:80", "unix:"])
def test_what_is_no_address_is_told_what_to_write(text: Any) -> None:
    with pytest.raises(ValidationError, match="expected ADDRESS:PORT"):
        listener(text)


def test_a_unix_socket_path_that_the_system_would_cut_off_is_refused() -> None:
    with pytest.raises(ValidationError, match="at most 107 bytes"):
        listener("unix:" + "a" * 100)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1"])
def test_clear_text_is_for_this_machine_alone(host: str) -> None:
    with pytest.raises(ValidationError, match="needs tls"):
        listener(f"{host}:80")
    with pytest.raises(ValidationError, match="needs tls"):
        listener(f"{host}:80", identity="sidecar")


@pytest.mark.parametrize(
    ("fields", "knows"),
    [
        ({}, False),
        ({"identity": "sidecar"}, True),
        ({"tls": {"certificate": "c", "key": "file:k"}}, False),
        (
            {
                "tls": {
                    "certificate": "c",
                    "key": "file:k",
                    "client_ca": "ca",
                    "client_certificate": "optional",
                }
            },
            False,
        ),
        (
            {
                "tls": {
                    "certificate": "c",
                    "key": "file:k",
                    "client_ca": "ca",
                    "client_certificate": "required",
                }
            },
            True,
        ),
    ],
)
def test_a_listener_knows_its_callers_by_certificate_or_declaration(fields: dict[str, Any], knows: bool) -> None:
    assert listener("127.0.0.1:1", **fields).knows_callers is knows


@pytest.mark.parametrize(
    "tls",
    [
        {"certificate": "c", "key": "file:k", "client_ca": "ca"},
        {"certificate": "c", "key": "file:k", "client_certificate": "required"},
    ],
)
def test_asking_for_client_certificates_takes_an_authority_and_the_other_way_round(tls: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="belong together"):
        Tls.model_validate(tls)


@pytest.mark.parametrize("limit", sorted(Limits.model_fields))
def test_no_limit_can_be_turned_off(limit: str) -> None:
    zero = {"timeout": "0s", "bytes": "0B", "body": "0B", "request": "0B", "response": "0B"}
    for value in (zero.get(limit.rpartition("_")[2], 0), None, "", -1, float("inf")):
        with pytest.raises(ValidationError):
            Limits.model_validate({limit: value})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:9000",
        "ftp://a.example",
        "http://",
        "http://a.example/v1",
        "http://a.example?x",
        "http://a.example#x",
        "http://a b.example",
        "http://a.example:x",
        "http://a.example:99999",
        "http://[::1",
        "http://ä.example",
    ],
)
def test_an_upstream_is_an_origin(url: str) -> None:
    with pytest.raises(ValidationError, match="expected http://HOST"):
        Upstream.model_validate({"url": url})


@pytest.mark.parametrize("url", ["redis://:pw@localhost", "rediss://u:pw@localhost:1/0"])
def test_a_password_in_a_url_is_a_secret_in_clear_and_is_not_quoted(url: str) -> None:
    with pytest.raises(ValidationError, match="never written in clear") as raised:
        Shared.model_validate({"url": url})
    assert all("pw" not in str(error["ctx"]["error"]) for error in raised.value.errors())


@given(st.text())
def test_any_url_is_taken_or_refused_with_a_sentence(url: str) -> None:
    try:
        assert Upstream.model_validate({"url": url}).url.startswith("http")
    except ValidationError as error:
        assert all(detail["type"] in ("value_error", "string_unicode") for detail in error.errors())  # noqa: PT017


@pytest.mark.parametrize(("path", "fits"), [("/hooks", True), ("/hooks/{id}", False), ("/hooks/**", False)])
def test_an_inbox_forwards_to_one_path(path: str, fits: bool) -> None:
    route = {
        "name": "hooks",
        "listener": "edge",
        "match": {"path": path},
        "upstream": "shop",
        "inbox": {"provider": "stripe", "secrets": ["env:X"]},
    }
    if fits:
        assert Route.model_validate(route).inbox is not None
    else:
        with pytest.raises(ValidationError, match="inbox needs path"):
            Route.model_validate(route)
