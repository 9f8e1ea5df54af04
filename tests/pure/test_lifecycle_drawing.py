from __future__ import annotations

import re

import pytest

from gateway.pure.lifecycle_checker import check_machine
from gateway.pure.lifecycle_drawing import Format, draw
from tests.pure.lifecycles import card

REPORT = check_machine(card())
STATES = {state.name for state in card().states}


def test_mermaid_shows_every_change_once_with_facts_in_parentheses() -> None:
    first, *lines = draw(REPORT, "mermaid").splitlines()
    arrows = [line.strip() for line in lines if "-->" in line]
    assert first == "stateDiagram-v2"
    assert "[*] --> new" in arrows
    facts = "(chargeback), (external_refund), (refunded_reached), (refunded_total), (disputed_total)"
    assert f"captured --> closed: {facts}, refund succeeds" in arrows
    assert {"voided --> [*]", "closed --> [*]"} <= set(arrows)
    assert len(arrows) == len(set(arrows)) == len(REPORT.edges) + 3


def test_dot_tells_facts_from_commands_and_is_well_formed() -> None:
    text = draw(REPORT, "dot")
    assert text.startswith("digraph lifecycle {\n")
    assert text.endswith("}\n")
    assert '    "captured" -> "closed" [style=solid, label="refund succeeds"];\n' in text
    assert re.search(r'"captured" -> "closed" \[style=dashed, label="chargeback\\n', text)
    assert '"closed" [peripheries=2];' in text
    assert set(re.findall(r'"(\w+)" -> ', text)) | set(re.findall(r'-> "(\w+)"', text)) == STATES


@pytest.mark.parametrize(("form", "mark"), [("mermaid", "%%"), ("dot", "//")])
def test_a_drawing_says_where_it_is_from(form: Format, mark: str) -> None:
    head = f"{mark} States are those of the table card; arrows are the changes that exploring it found"
    assert head in draw(REPORT, form)
