"""Questions to an upstream beside a request: with the caller's credentials, and nothing that belongs to the request."""

from __future__ import annotations

from gateway.asking import ANSWER_BYTES_MAX, ask, question_head
from gateway.ports import BodyStream, Response
from tests.conftest import Body, make_exchange


class Library:
    """An upstream that answers with a book."""

    name = "library"
    authority = b"library.internal"

    def __init__(self, *pages: bytes) -> None:
        self.book = Body(*pages)
        self.lent = 0

    async def acquire(self, *, safe: bool) -> Library:
        assert safe
        self.lent += 1
        return self

    async def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        assert (method, body) == ("GET", b"")
        return Response(200, [], b"", self.book)

    def release(self) -> None:
        self.lent -= 1


def test_a_question_is_the_callers_own_and_has_nothing_of_the_request() -> None:
    fields = {"Authorization": "Bearer sk", "Content-Type": "a/b", "Idempotency-Key": "k", "Accept-Encoding": "gzip"}
    x = make_exchange(headers={**fields, "If-None-Match": '"a"', "Range": "bytes=0-1", "Cookie": "a=b"}, subject="i|s")
    x.consumed.add(b"cookie")
    head = question_head(x, "GET", "/p/1", Library.authority, egress=False)
    line, *lines = head.decode().split("\r\n")[:-1]
    assert line == "GET /p/1 HTTP/1.1"
    assert [each.partition(":")[0] for each in lines] == [
        "Authorization",
        "Host",
        "X-Request-Id",
        "traceparent",
        "Pangate-Tenant",
        "Forwarded",
        "Pangate-Subject",
        "Accept-Encoding",
    ]
    assert "Accept-Encoding: identity" in lines
    assert "Host: library.internal" in lines


def test_an_outside_provider_learns_nothing_of_the_caller() -> None:
    x = make_exchange(subject="i|s")
    assert b"Pangate" not in question_head(x, "GET", "/p/1", Library.authority, egress=True)


async def test_an_answer_is_read_whole_and_its_connection_given_back() -> None:
    library = Library(b"a", b"b")
    assert (await ask(library, "GET", b"")).body == b"ab"
    assert (library.lent, library.book.closed) == (0, True)


async def test_an_answer_without_an_end_is_read_no_further_than_its_bound() -> None:
    library = Library(*[b"x" * 65536] * 100)
    answer = await ask(library, "GET", b"")
    assert ANSWER_BYTES_MAX < len(answer.body) <= ANSWER_BYTES_MAX + 65536
    assert (answer.stream, library.lent, library.book.closed) == (None, 0, True)
