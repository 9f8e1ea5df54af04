"""Lines of several processes in one file."""

from __future__ import annotations

import os
import threading

from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.lines import WholeLines, pieces

LINES = st.lists(st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"") + b"\n"), max_size=20)


@given(LINES, st.integers(1, 40))
def test_pieces_end_with_lines_and_are_no_larger_than_they_may_be(lines: list[bytes], size: int) -> None:
    found = list(pieces(b"".join(lines), size))
    assert b"".join(found) == b"".join(lines)
    assert all(piece.endswith(b"\n") for piece in found)
    assert all(len(piece) <= size or piece.count(b"\n") == 1 for piece in found)


def test_what_lacks_its_end_is_written_too() -> None:
    assert list(pieces(b"one\ntwo", 4)) == [b"one\n", b"two"]


def test_lines_of_many_writers_in_one_pipe_stay_whole() -> None:
    reading, writing = os.pipe()
    got: list[bytes] = []

    def read() -> None:
        with os.fdopen(reading, "rb") as file:
            got.append(file.read())

    def write(letter: bytes) -> None:
        lines = WholeLines(writing)
        for _ in range(20):
            lines.write((letter * 99 + b"\n") * 200)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    os.close(writing)
    reader.join()
    found = got[0].splitlines()
    assert len(found) == 3 * 20 * 200
    assert {len(line) for line in found} == {99}
    assert {len(set(line)) for line in found} == {1}
