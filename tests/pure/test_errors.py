"""Reasons and problem documents."""

from __future__ import annotations

import orjson
import pytest

from gateway.pure.errors import Reason, problem, where


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_makes_a_problem_document_with_an_error_that_sdks_map(reason: Reason) -> None:
    document = orjson.loads(problem(reason, "Do this.", request_id="r1", outcome="unknown", members={"policy": "p"}))
    assert document["type"] == f"urn:pangate:problem:{reason.label}"
    assert (document["title"], document["status"], document["detail"]) == (reason.title, reason.status, "Do this.")
    assert (document["instance"], document["outcome"], document["policy"]) == ("urn:pangate:request:r1", "unknown", "p")
    assert document["error"] == {"type": reason.error_type, "code": reason.label, "message": "Do this."}


def test_reasons_have_labels_of_their_own_and_statuses_of_errors() -> None:
    assert len({reason.label for reason in Reason}) == len(Reason)
    assert all(400 <= reason.status < 600 for reason in Reason)


def test_the_place_of_an_exception_tells_where_but_not_what() -> None:
    try:
        int("4242424242424242x")
    except ValueError as error:
        told = where(error)
    assert told.startswith("ValueError at ")
    assert told.rpartition(":")[2].isdigit()
    assert "4242" not in told
