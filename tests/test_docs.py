"""The pages of docs/ say what is so: their YAML loads, their tables are the settings, their lists are the code's."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import pytest
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from standardwebhooks import WebhookVerificationError

from docs.generate import FOLDER, PAGES
from gateway.adapters.dev_certificates import make_dev_certificates
from gateway.check import check
from gateway.cli import main
from gateway.config.kinds import rule_kinds, webhook_providers
from gateway.config.lifecycles import check_lifecycles
from gateway.config.settings import ConfigFile
from gateway.config.tenant import Tenant
from gateway.pure.deliveries import Envelope, signed_fields
from gateway.pure.errors import Reason
from gateway.pure.lifecycle_machine import LifecycleFile
from gateway.pure.mapping_words import MappingFile
from gateway.rule import RuleSettings

ROOT = Path(__file__).parents[1]
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", *ROOT.glob("docs/**/*.md")])
}
REASONS = {reason.label: reason for reason in Reason}
ENVIRONMENT = {
    "TILL_7_SECRET": "a secret of this example, no more",
    "STRIPE_WHSEC": "whsec_demo_not_a_secret",
    "EVENTS_TOKEN": "demo-not-a-secret",
    "PANGATE_WHSEC": "whsec_cGFuZ2F0ZS1kZW1vLW5vdC1hLXNlY3JldC1hdC1hbGw=",
    "POSTGRES_PASSWORD": "not-a-secret",
    "REDIS_PASSWORD": "not-a-secret",
    "BAO_TOKEN": "not-a-secret",
    "SENTINEL_PASSWORD": "not-a-secret",
}
ELSE = {
    "version": "version: 1\n",
    "store": "store: sqlite:var/pangate.db\n",
    "keys": "keys: {key: file:certs/vault.key}\n",
    "listeners": """\
listeners:
  edge: {bind: 127.0.0.1:8443}
  egress:
    bind: 127.0.0.1:8444
    tls:
      certificate: certs/server.pem
      key: file:certs/server.key
      client_ca: certs/services-ca.pem
      client_certificate: required
""",
    "upstreams": """\
upstreams:
  payments: {url: "http://127.0.0.1:9000"}
  stripe: {url: "https://api.stripe.example"}
""",
    "routes": """\
routes:
  - {name: out, listener: egress, match: {host: out.example, path: /**}, policy: example, upstream: stripe}
""",
}
"""What a page's examples leave unsaid, by the key that says it."""


ANSWERED = """\
routes:
  - {name: tokens, listener: egress, match: {path: "/v1/tokens/{token}"}, policy: example}
"""
VAULT_POLICY = """\
rules:
  - {kind: mtls, ca: certs/services-ca.pem}
  - {kind: rate_limit, key: [mtls.san], rate: 10/minute}
  - {kind: vault, operation: OPERATION}
"""


def blocks(text: str) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def is_policy(block: str) -> bool:
    return re.search(r"^rules:", block, re.MULTILINE) is not None


def is_lifecycle(block: str) -> bool:
    return re.search(r"^commands:", block, re.MULTILINE) is not None


LIFECYCLES = [(page, block) for page, text in TEXTS.items() for block in blocks(text) if is_lifecycle(block)]
POLICIES = [(page, block) for page, text in TEXTS.items() for block in blocks(text) if is_policy(block)]
CONFIGURATIONS = {
    page: "\n".join(found)
    for page, text in TEXTS.items()
    if (found := [block for block in blocks(text) if not is_policy(block) and not is_lifecycle(block)])
}


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certs")
    make_dev_certificates(directory)
    return directory


@pytest.fixture
def folder(tmp_path: Path, certs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Certificates and the policies of this repository, for a config.yaml to be written beside."""
    (tmp_path / "certs").symlink_to(certs)
    (tmp_path / "policies").mkdir()
    for policy in ROOT.glob("policies/*.yaml"):
        (tmp_path / "policies" / policy.name).write_bytes(policy.read_bytes())
    for operation in ("look_up", "find", "delete"):
        name = f"vault-{operation.replace('_', '-')}.yaml"
        (tmp_path / "policies" / name).write_text(VAULT_POLICY.replace("OPERATION", operation))
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def keys(block: str) -> set[str]:
    return set(YAML(typ="safe", pure=True).load(block) or ())


def completed(text: str) -> str:
    return text + "".join(part for name, part in ELSE.items() if name not in keys(text))


@pytest.mark.parametrize(("page", "block"), POLICIES, ids=[f"{p}-{n}" for n, (p, _) in enumerate(POLICIES)])
def test_a_policy_in_the_documents_loads_and_builds(page: str, block: str, folder: Path) -> None:
    (folder / "policies" / "example.yaml").write_text(block)
    config = completed(ANSWERED if "kind: vault" in block else "")
    (folder / "config.yaml").write_text(
        config if "kind: reveal" in block else config.replace("egress, match: {host", "edge, match: {host")
    )
    assert len(check(folder / "config.yaml").policies["example"].rules) > 0


@pytest.mark.parametrize("page", CONFIGURATIONS)
def test_the_configuration_of_a_page_loads_and_builds(page: str, folder: Path) -> None:
    (folder / "policies" / "example.yaml").write_text(
        "rules:\n  - {kind: mtls, ca: certs/services-ca.pem}\n  - {kind: reveal, fields: []}\n"
    )
    (folder / "config.yaml").write_text(completed(CONFIGURATIONS[page]))
    assert check(folder / "config.yaml").settings.routes


@pytest.mark.parametrize(("page", "block"), LIFECYCLES, ids=[page for page, _ in LIFECYCLES])
def test_a_life_cycle_in_the_documents_is_good(page: str, block: str, folder: Path) -> None:
    (folder / "policies" / "lifecycles").mkdir()
    (folder / "policies" / "lifecycles" / "example.yaml").write_text(block)
    assert "example" in check_lifecycles(folder)


def test_every_section_of_the_configuration_has_an_example() -> None:
    assert keys(CONFIGURATIONS["docs/reference/config.md"]) == set(ConfigFile.model_fields)


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_says_now(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`"


# --- tables of settings ----------------------------------------------------------------------------------------------


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """All settings by path; lists and names of things add nothing to it, alternatives their kind."""
    for name, field in model.model_fields.items():
        path = prefix + (field.alias or name)
        kinds = kinds_in(field.annotation)
        inner = None if name == "tenant" else model_in(field.annotation)
        if kinds:
            for kind, alternative in kinds.items():
                yield from leaves(alternative, f"{path}[{kind}].")
        elif inner is None:
            yield path, field
        else:
            yield from leaves(inner, f"{path}.")


def kinds_in(annotation: Any) -> dict[str, type[BaseModel]]:
    """The alternatives of a union of models that `kind` tells apart, else none."""
    parts = get_args(annotation)
    if len(parts) > 1 and all(isinstance(part, type) and "kind" in getattr(part, "model_fields", ()) for part in parts):
        return {get_args(part.model_fields["kind"].annotation)[0]: part for part in parts}
    return next((found for part in parts if (found := kinds_in(part))), {})


def model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return None if annotation is Tenant else annotation
    if get_origin(annotation) is not None:
        return next((found for part in get_args(annotation) if (found := model_in(part)) is not None), None)
    return None


def sections(text: str) -> dict[str, str]:
    first, *rest = re.split(r"^## ", text, flags=re.MULTILINE)
    return {"": first, **{part.partition("\n")[0]: part for part in rest}}


def documented(section: str) -> dict[str, str]:
    """Path and default of each row of a table of settings."""
    return dict(re.findall(r"^\| `([a-z0-9_.]+)` \| [^|]+ \| ([^|]+) \|", section, re.MULTILINE))


def is_default(written: str, field: FieldInfo) -> bool:
    if field.is_required() or written == "required":
        return field.is_required() and written == "required"
    default = field.get_default(call_default_factory=True)
    if written == "none":
        return default is None
    value = YAML(typ="safe", pure=True).load(written.strip("`"))
    adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
    return bool(adapter.validate_python(value) == adapter.validate_python(default))


def wrong_defaults(rows: dict[str, str], settings: dict[str, FieldInfo]) -> dict[str, str]:
    return {path: written for path, written in rows.items() if not is_default(written, settings[path])}


@pytest.mark.parametrize("kind", rule_kinds())
def test_the_settings_of_a_kind_are_documented_with_their_defaults(kind: str) -> None:
    rows = documented(sections(TEXTS["docs/reference/rules.md"])[kind])
    common = set(RuleSettings.model_fields)
    settings = {path: field for path, field in leaves(rule_kinds()[kind].settings) if path not in common}
    settings = without_parts_of("query", rule_kinds()[kind].settings, settings)
    assert rows.keys() == settings.keys()
    assert wrong_defaults(rows, settings) == {}


def without_parts_of(name: str, model: type[BaseModel], settings: dict[str, FieldInfo]) -> dict[str, FieldInfo]:
    """The settings, with one whole in place of its parts, which stand in another table."""
    kept = {path: field for path, field in settings.items() if not path.startswith(f"{name}.")}
    return kept | ({name: model.model_fields[name]} if len(kept) < len(settings) else {})


def setting(heading: str, path: str) -> str:
    """The path of a setting in a table below a heading such as `The file`, `listeners` or `events: webhook`."""
    section, _, kind = heading.partition(": ")
    if section not in ConfigFile.model_fields:
        return path
    first, dot, rest = path.partition(".")
    return f"{section}.{first}[{kind}]{dot}{rest}" if kind else f"{section}.{path}"


def test_the_settings_of_the_configuration_are_documented_with_their_defaults() -> None:
    rows = {
        setting(heading, path): written
        for heading, section in sections(TEXTS["docs/reference/config.md"]).items()
        for path, written in documented(section).items()
    }
    settings = dict(leaves(ConfigFile))
    assert rows.keys() == settings.keys()
    assert wrong_defaults(rows, settings) == {}


def test_the_words_of_a_life_cycle_are_documented_with_their_defaults() -> None:
    rows = documented(sections(TEXTS["docs/reference/lifecycle.md"])["The file"])
    words = dict(leaves(LifecycleFile))
    assert rows.keys() == words.keys()
    assert wrong_defaults(rows, words) == {}


def test_the_words_of_a_mapping_are_documented_with_their_defaults() -> None:
    rows = documented(sections(TEXTS["docs/reference/lifecycle.md"])["Mappings"])
    words = without_parts_of("operations", MappingFile, dict(leaves(MappingFile)))
    assert rows.keys() == words.keys()
    assert wrong_defaults(rows, words) == {}


# --- names -----------------------------------------------------------------------------------------------------------


def test_reasons_are_quoted_with_their_status() -> None:
    quoted = {
        (label, int(status)) for text in TEXTS.values() for label, status in re.findall(r"`(\w+)` (\d{3})\b", text)
    }
    assert quoted
    assert {
        (label, status) for label, status in quoted if label in REASONS and REASONS[label].status != status
    } == set()
    assert {label for label, _ in quoted if label not in REASONS} == set()


def test_every_webhook_provider_has_a_section() -> None:
    headings = re.findall(r"^### `(\w+)`$", TEXTS["docs/webhooks.md"], re.MULTILINE)
    assert sorted(headings) == sorted(webhook_providers())


def test_the_python_lines_of_the_webhooks_page_take_what_is_forwarded(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = ENVIRONMENT["PANGATE_WHSEC"]
    monkeypatch.setenv("PANGATE_WHSEC", secret)
    (lines,) = re.findall(r"^```python\n(.*?)^```$", TEXTS["docs/webhooks.md"], re.MULTILINE | re.DOTALL)
    program: dict[str, Any] = {}
    exec(compile(lines, "webhooks.md", "exec"), program)
    envelope = Envelope("full", [], b'{"id": "evt_1"}')
    key = base64.b64decode(secret.removeprefix("whsec_"))
    fields = signed_fields("dlv_1", "stripe", envelope, time.time(), key)
    headers = {name.decode(): value.decode() for name, value in fields}
    assert program["receive"](headers, envelope.body) == {"id": "evt_1"}
    with pytest.raises(WebhookVerificationError):
        program["receive"](headers, b'{"id": "evt_2"}')


def test_every_command_is_in_the_documents() -> None:
    text = "\n".join(TEXTS.values())
    assert [name for name in commands(main, "pangate") if name not in text] == []


def commands(group: click.Group, prefix: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}"
