"""The shipped card machine, as a table that tests may change."""

from __future__ import annotations

import functools
from typing import Any

from gateway.config.complaints import Complaint
from gateway.config.lifecycles import shipped
from gateway.config.reader import read
from gateway.pure.lifecycle_machine import LifecycleFile, Machine, compile_machine


def card_table() -> dict[str, Any]:
    """Plain data, as read; a new copy each time."""
    file, content = shipped()["card"]
    complaints: list[Complaint] = []
    source = read(file, content, {}, complaints)
    assert source is not None
    assert complaints == []
    table: dict[str, Any] = source.data
    return table


def machine_of(table: dict[str, Any]) -> Machine:
    return compile_machine("card", LifecycleFile.model_validate(table))


@functools.cache
def card() -> Machine:
    return machine_of(card_table())
