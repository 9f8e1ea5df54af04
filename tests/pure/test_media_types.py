"""A media type is one that a route declares, in one reading."""

from __future__ import annotations

import pytest

from gateway.pure.errors import Reason, Refused
from gateway.pure.media_types import check_media_type

ACCEPTED = frozenset({"application/json", "multipart/form-data"})


@pytest.mark.parametrize(
    "value",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json ; version=1",
        'multipart/form-data; boundary="a b"',
    ],
)
def test_a_declared_type_passes_however_it_is_spelled(value: str) -> None:
    check_media_type(value, ACCEPTED)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "text/plain",
        "application/json, text/html",
        "application/json;",
        "application/json; charset=utf-7",
        "application/json; charset=utf-8; charset=utf-7",
        "application/json; Charset=utf-8; charset=utf-8",
        "application/json; charset",
        "application/json+x",
        "application /json",
        "application/jsonp",
        "json",
    ],
)
def test_any_other_is_refused(value: str | None) -> None:
    with pytest.raises(Refused) as refused:
        check_media_type(value, ACCEPTED)
    assert refused.value.reason is Reason.MEDIA_TYPE_UNSUPPORTED
    assert "application/json, multipart/form-data" in refused.value.detail
