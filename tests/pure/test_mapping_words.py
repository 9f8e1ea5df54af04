"""What a mapping file may say, and what is wrong with one that cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.pure.mapping_words import (
    MappingError,
    MappingFile,
    OperationWords,
    QueryWords,
    compile_mapping,
    compile_operation,
    compile_query,
)
from tests.pure.lifecycles import card

AUTHORIZE: dict[str, Any] = {
    "command": "authorize",
    "payment": "response:$.id",
    "amount": "$.amount",
    "currency": "$.currency",
}


@pytest.mark.parametrize(
    ("change", "place", "text"),
    [
        ({"command": "authorise"}, ("command",), "card has no such command"),
        ({"command": None}, (), "needs command, or tells: it would do nothing"),
        ({"payment": []}, (), "needs payment: where the payment's id stands"),
        ({"payment": ["path:id", "response:$.id"]}, ("payment",), "stands in the request or in the answer, not in"),
        ({"currency": None}, (), "needs currency: that of the new payment, in the request"),
        ({"currency": "response:$.currency"}, (), "needs currency: that of the new payment, in the request"),
        ({"currency": "path:currency"}, ("currency",), "stands in the body of the request or the answer"),
        ({"amount": "response:$.amount"}, ("amount",), "stands in the request's body"),
        ({"amount": "amount"}, (), "a request's body is JSON or a form"),
        ({"amount_is": "total"}, ("amount_is",), "needs an amount, and a command that has a total"),
        ({"command": "increment", "amount": None, "amount_is": "total"}, ("amount_is",), "needs an amount"),
        ({"results": {"ok": "succeeded"}}, (), "needs status"),
        ({"status": "$.s", "tells": {"ok": {"captured_total": True}}}, ("tells", "ok", "captured_total"), "needs the"),
        ({"status": "$.s", "tells": {"ok": {"auth_expired": "$.a"}}}, ("tells", "ok", "auth_expired"), "takes no amo"),
        ({"status": "$.s", "tells": {"ok": {"captured": "$.a"}}}, ("tells", "ok", "captured"), "card has no such fact"),
        (
            {"status": "$.s", "tells": {"ok": {"chargeback": "$.a"}}},
            ("tells", "ok", "chargeback"),
            "an answer tells",
        ),
        ({"payment": "path:id", "unit": "major", "currency": None}, ("unit",), "major units need currency"),
    ],
)
def test_what_cannot_be_meant_is_said_at_its_place(change: dict[str, Any], place: tuple[str, ...], text: str) -> None:
    words = OperationWords.model_validate({**AUTHORIZE, **change})
    with pytest.raises(MappingError) as raised:
        compile_operation(words, card())
    assert [fault.path for fault in raised.value.faults if fault.text.startswith(text)] == [place]


QUERY: dict[str, Any] = {"path": "/v1/payments/{id}", "says": [{"tells": {"captured_total": "$.captured"}}]}


@pytest.mark.parametrize(
    ("tells", "place", "text"),
    [
        ({"captured": "$.a"}, ("says", 0, "tells", "captured"), "card has no such fact"),
        ({"captured_total": True}, ("says", 0, "tells", "captured_total"), "needs the path"),
        ({"chargeback": "$.a"}, ("says", 0, "tells", "chargeback"), "an answer tells totals"),
    ],
)
def test_a_query_that_cannot_be_meant_is_said_at_its_place(
    tells: dict[str, Any], place: tuple[str | int, ...], text: str
) -> None:
    words = QueryWords.model_validate({**QUERY, "says": [{"tells": tells}]})
    with pytest.raises(MappingError) as raised:
        compile_query(words, card())
    assert [fault.path for fault in raised.value.faults if fault.text.startswith(text)] == [place]


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "v1/payments/{id}"},
        {"path": "/v1/payments"},
        {"path": "/v1/payments/{number}"},
        {"path": "/v1/payments?reference={$.reference}"},
        {"says": []},
        {"not_found": [500]},
        {"payment": "id"},
    ],
)
def test_a_query_that_could_not_be_asked_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        QueryWords.model_validate({**QUERY, **wrong})


def test_an_operation_knows_what_it_has_to_read() -> None:
    opens = compile_operation(OperationWords.model_validate(AUTHORIZE), card())
    assert (opens.opens, opens.reads_answer, opens.kind) == (True, True, "json")
    void = compile_operation(OperationWords.model_validate({"command": "void", "payment": "path:id"}), card())
    assert (void.opens, void.reads_answer, void.in_body, void.kind) == (False, False, (), "empty")


def test_everything_that_is_wrong_with_a_file_is_said_at_once() -> None:
    file = MappingFile.model_validate(
        {
            "version": 1,
            "operations": {"refund": {"command": "refnd", "payment": "path:id"}},
            "query": {**QUERY, "says": [{"tells": {"captured_totl": "$.captured"}}]},
            "events": [{"types": ["a"], "payment": "$.id", "unit": "major", "tells": {"captured_totl": "$.amount"}}],
        }
    )
    with pytest.raises(MappingError) as raised:
        compile_mapping("mine", file, card())
    assert [fault.path for fault in raised.value.faults] == [
        ("operations", "refund", "command"),
        ("query", "says", 0, "tells", "captured_totl"),
        ("events", 0, "tells", "captured_totl"),
        ("events", 0, "unit"),
    ]
    assert "operations.refund.command: card has no such command" in str(raised.value)


def test_several_entries_may_be_about_one_type_in_their_order() -> None:
    entry = {"payment": "$.id", "tells": {"auth_expired": True}}
    events = [{**entry, "types": ["a", "b"]}, {**entry, "types": ["b"], "once": "twice:$.id"}]
    mapping = compile_mapping("mine", MappingFile.model_validate({"version": 1, "events": events}), card())
    assert {kind: [event.once is not None for event in found] for kind, found in mapping.events.items()} == {
        "a": [False],
        "b": [False, True],
    }


@pytest.mark.parametrize("words", [{"event": "type"}, {"events": [{"types": [], "payment": "$.id", "tells": {}}]}])
def test_a_file_with_other_words_is_refused(words: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MappingFile.model_validate({"version": 1, **words})
