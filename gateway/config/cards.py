"""Routes that card data passes, and what their policies must say of it: tokens on the way in, a list on the way out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.config.complaints import Complaint
from gateway.config.consistency import Policy
from gateway.config.reader import Path, Source
from gateway.config.settings import ConfigFile, Route
from gateway.pure.body import PathSelector, compile_selector
from gateway.rule import RuleSettings

_NAMED = re.compile(r"(?:(?:credit|debit|payment)?card|cc)(?:number|num|no|pan)|pan|primaryaccountnumber")
_NUMBER = re.compile(r"number|num|no")
_HOLDER = re.compile(r"(?:credit|debit|payment|bank)?(?:card|cc)(?:data|details|info)?|paymentmethod")
_WORD = re.compile(r"[^a-z0-9]")
_DEPTH_MAX = 64


def unprotected(settings: ConfigFile, source: Source, policies: Mapping[str, Policy]) -> Iterator[Complaint]:
    """Routes that take card numbers and make no tokens of them, and egress routes that do not list what they reveal."""
    seen: set[Complaint] = set()
    for i, route in enumerate(settings.routes):
        policy = policies.get(route.policy or "")
        if policy is None or route.listener not in settings.listeners or not policy.rules:
            continue
        rules = [rule for rule in policy.rules if rule.mode != "off"]
        if settings.is_egress(route):
            yield from _unlisted(policy, rules, source, i)
            continue
        yield from _undeclared(route, policy, rules, source, i)
        for complaint in _uncovered(policy, rules):
            if complaint not in seen:  # routes of one policy share its mistakes
                seen.add(complaint)
                yield complaint


def _unlisted(policy: Policy, rules: Sequence[RuleSettings], source: Source, position: int) -> Iterator[Complaint]:
    if not any(rule.kind == "reveal" for rule in rules):
        text = (
            f"routes[{position}]: goes to a provider, and policy {policy.name} does not say what it reveals: add"
            " {kind: reveal, fields: [{select: $.card.number, class: pan}]}, or fields: [] for nothing"
        )
        yield source.at(("routes", position, "policy"), text)


def _undeclared(
    route: Route, policy: Policy, rules: Sequence[RuleSettings], source: Source, position: int
) -> Iterator[Complaint]:
    """Classes that the route says its requests carry, of which its policy replaces none."""
    replaced = {field.token_class for rule in rules if rule.kind == "tokenize" for field in getattr(rule, "fields", ())}
    for at, token_class in enumerate(route.accepts):
        if token_class not in replaced:
            text = (
                f"routes[{position}].accepts: {token_class}, and policy {policy.name} makes no token of it: add"
                f" {{kind: tokenize, fields: [{{select: {_EXAMPLES[token_class]}, class: {token_class}}}]}}"
            )
            yield source.at(("routes", position, "accepts", at), text)


_EXAMPLES = {"pan": "$.card.number", "cvc": "$.card.cvc", "track": "$.card.track", "pin": "$.card.pin"}


def _uncovered(policy: Policy, rules: Sequence[RuleSettings]) -> Iterator[Complaint]:
    """Properties of a schema that are called as card numbers are, and that no rule replaces."""
    selectors = [s for rule in rules for text in rule.replaced if isinstance(s := _compiled(text), PathSelector)]
    for position, rule in enumerate(policy.rules):
        if rule.kind != "schema" or rule.mode == "off":
            continue
        body: Any = getattr(rule, "body", {})
        for steps, place in _card_numbers(body, body, (), ("rules", position, "body")):
            if not any(_selects(selector, steps) for selector in selectors):
                written = "$" + "".join("[*]" if step is None else f".{step}" for step in steps)
                text = (
                    f"schema: {written} is called as a card number is, and nothing makes a token of it: add"
                    f" {{kind: tokenize, fields: [{{select: {written}, class: pan}}]}} behind it"
                )
                yield policy.source.at(place, text)


def _compiled(text: str) -> object:
    return compile_selector(text) if text.startswith("$") else None


def _card_numbers(
    schema: Any, root: Any, steps: tuple[str | None, ...], place: Path
) -> Iterator[tuple[tuple[str | None, ...], Path]]:
    """Steps to such properties (None for any element of an array), and where the schema stands that says so."""
    if not isinstance(schema, Mapping) or len(place) > _DEPTH_MAX:
        return
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/") and isinstance(root, Mapping):
        name = reference.removeprefix("#/$defs/")
        definitions = root.get("$defs")
        if isinstance(definitions, Mapping) and len(steps) < _STEPS_MAX:
            for found, _ in _card_numbers(definitions.get(name), root, steps, place):
                yield found, place
    for word in ("allOf", "anyOf", "oneOf"):
        for at, each in enumerate(schema.get(word) or ()):
            yield from _card_numbers(each, root, steps, (*place, word, at))
    if "items" in schema:
        yield from _card_numbers(schema["items"], root, (*steps, None), (*place, "items"))
    properties = schema.get("properties")
    for name, each in properties.items() if isinstance(properties, Mapping) else ():
        there = (*place, "properties", name)
        if _holds_number(name, steps) and _is_scalar(each):
            yield (*steps, name), there
        yield from _card_numbers(each, root, (*steps, name), there)


_STEPS_MAX = 16


def _holds_number(name: str, steps: Sequence[str | None]) -> bool:
    """`card_number` anywhere; `number` in what is called `card`."""
    word = _plain(name)
    holder = next((_plain(step) for step in reversed(steps) if step is not None), "")
    return _NAMED.fullmatch(word) is not None or (
        _NUMBER.fullmatch(word) is not None and _HOLDER.fullmatch(holder) is not None
    )


def _is_scalar(schema: Any) -> bool:
    kinds = schema.get("type", "string") if isinstance(schema, Mapping) else "string"
    return not {"string", "integer", "number"}.isdisjoint([kinds] if isinstance(kinds, str) else kinds)


def _plain(name: str) -> str:
    return _WORD.sub("", name.lower())


def _selects(selector: PathSelector, steps: Sequence[str | None]) -> bool:
    """Does it select what stands at these steps of a body that has nothing else?"""
    value: Any = ""
    for step in reversed(steps):
        value = [value] if step is None else {step: value}
    return any(found == "" for _, found in selector.locate(value))
