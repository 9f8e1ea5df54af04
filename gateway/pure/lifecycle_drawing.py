"""Draws a life cycle as Mermaid or DOT: the states of its table, and the changes of state that the checker saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from gateway.pure.lifecycle_checker import Report

Format = Literal["mermaid", "dot"]

_HEAD = (
    "States are those of the table {name}; arrows are the changes that exploring it found ({payments} payments).",
    "A fact that breaks an invariant changes the state too; it puts the payment under review, and is not drawn.",
)


def draw(report: Report, form: Format) -> str:
    """A text that ends with a line break. Arrows of facts are told from those of commands by their own style."""
    lines: dict[Format, Callable[[Report], Iterator[str]]] = {"mermaid": _mermaid, "dot": _dot}
    return "".join(f"{line}\n" for line in lines[form](report))


def _mermaid(report: Report) -> Iterator[str]:
    """Facts are in parentheses: Mermaid's state diagrams have one kind of arrow."""
    yield "stateDiagram-v2"
    yield from (f"    %% {line}" for line in _head(report))
    yield f"    [*] --> {report.initial}"
    for (source, target), events in report.edges.items():
        shown = (f"({event})" if event in report.machine.facts else event for event in events)
        yield f"    {source} --> {target}: {', '.join(shown)}"
    yield from (f"    {state.name} --> [*]" for state in report.machine.states if state.final)


def _dot(report: Report) -> Iterator[str]:
    yield "digraph lifecycle {"
    yield from (f"    // {line}" for line in _head(report))
    yield "    rankdir=LR; node [shape=box, style=rounded];"
    yield from (f'    "{state.name}" [peripheries=2];' for state in report.machine.states if state.final)
    yield f'    "*" [shape=point]; "*" -> "{report.initial}";'
    for (source, target), events in report.edges.items():
        for facts, style in ((False, "solid"), (True, "dashed")):
            shown = [event for event in events if (event in report.machine.facts) is facts]
            if shown:
                label = "\\n".join(shown)
                yield f'    "{source}" -> "{target}" [style={style}, label="{label}"];'
    yield "}"


def _head(report: Report) -> Iterator[str]:
    values: Mapping[str, object] = {"name": report.machine.name, "payments": report.payments}
    yield from (line.format_map(values) for line in _HEAD)
