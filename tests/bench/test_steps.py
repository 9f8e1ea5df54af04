"""Samples of stacks become microseconds by step: who decides, who only waited, and nothing gets lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.steps import STEPS, costs, fold, step_of

LOOP = ["run (gateway/app.py)", "run_forever (loop.c)", "uv_run (core.c)"]
SERVE = [*LOOP, "Connection.start (gateway/server/connection.py)", "Proxy.serve (gateway/server/proxy.py)"]


@pytest.mark.parametrize(
    ("stack", "step"),
    [
        ([*SERVE, "Jwt.on_request (gateway/rules/jwt.py)", "Lru.get (gateway/pure/lru.py)"], "jwt"),
        ([*SERVE, "Mtls.on_request (gateway/rules/mtls.py)", "Lru.get (gateway/pure/lru.py)"], "mtls"),
        ([*SERVE, "Pipeline._call (gateway/pipeline.py)", "request_head (gateway/pure/http.py)"], "upstream"),
        ([*SERVE, "response_head (gateway/pure/http.py)", "_joined (gateway/pure/http.py)"], "answer"),
        (
            [
                *LOOP,
                "Connection.buffer_updated (gateway/server/connection.py)",
                "read_head (gateway/pure/request_reader.py)",
            ],
            "parse",
        ),
        ([*SERVE, "Connection._write (gateway/server/connection.py)", "SSL_write_ex (libssl.so.3)"], "TLS"),
        ([*SERVE, "Connection._write (gateway/server/connection.py)", "UVStream_write (loop.c)"], "sockets and loop"),
        ([*SERVE, "opaque (gateway/pure/tokens.py)", "EVP_DigestFinal (libcrypto.so.3)"], "tokenize"),
        ([*SERVE, "Proxy._observe (gateway/server/proxy.py)", "f (<string>)"], "telemetry"),
        (SERVE, "pipeline"),
        (LOOP, "sockets and loop"),
        (["f (somewhere.py)"], "other"),
        ([], "other"),
    ],
)
def test_the_innermost_known_place_decides(stack: list[str], step: str) -> None:
    assert step_of(stack) == step


@pytest.mark.parametrize("leaf", ["epoll_pwait (libc.so.6)", "pthread_cond_timedwait (libc.so.6)", "poll (libc.so.6)"])
def test_who_waits_costs_nothing(leaf: str) -> None:
    assert step_of([*LOOP, leaf]) is None
    assert step_of([leaf, "f (gateway/rules/jwt.py)"]) == "jwt"


def test_only_the_thread_that_is_asked_for_is_folded() -> None:
    lines = [
        "thread (7): MainThread;f (gateway/rules/jwt.py) 3",
        "thread (7): MainThread;g (gateway/rules/jwt.py) 2",
        "thread (7): MainThread;run_forever (loop.c);epoll_pwait (libc.so.6) 90",
        "thread (77): store;f (gateway/adapters/sqlite.py) 40",
    ]
    assert fold(lines, 7) == {"jwt": 5}


@given(
    st.dictionaries(st.sampled_from(STEPS), st.integers(1, 10_000), min_size=1), st.floats(1, 1e4), st.floats(0, 1e4)
)
def test_what_the_kernel_counted_is_shared_out_whole(samples: dict[str, int], main: float, others: float) -> None:
    found = costs(samples, main, others)
    assert tuple(found) == STEPS
    assert sum(found.values()) == pytest.approx(main + others)
    assert found["store"] >= others


def test_steps_get_their_share_of_the_main_thread_and_the_store_its_own_thread() -> None:
    found = costs({"jwt": 1, "store": 1, "parse": 2}, 100, 40)
    assert (found["jwt"], found["parse"], found["store"], found["TLS"]) == (25, 50, 65, 0)


def test_without_samples_only_the_store_is_known() -> None:
    assert sum(costs({}, 100, 40).values()) == 40
