"""What no other test would notice: rooms, names, sizes, banned calls, links, and what must not be in the repository.

Each exception says why it is one, and an exception that is no longer needed fails.
"""

from __future__ import annotations

import ast
import builtins
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from bench.log_lines import CARDS
from gateway.config.kinds import rule_kinds, webhook_providers
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric
from gateway.pure.token_formats import is_card_number

ROOT = Path(__file__).parents[1]
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60


def tracked() -> dict[str, str]:
    """The text files of the repository, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    paths = [name.decode() for name in listed.split(b"\0") if name]
    return {path: (ROOT / path).read_text(encoding="utf-8") for path in paths if (ROOT / path).is_file()}


FILES = tracked()
PAGES = {path: text for path, text in FILES.items() if path.endswith(".md")}
MODULES = {
    path.removeprefix("gateway/"): text
    for path, text in FILES.items()
    if path.startswith("gateway/") and path.endswith(".py")
}
TREES = {path: ast.parse(text) for path, text in MODULES.items()}


def none_but(excused: Mapping[str, str], found: Iterable[str]) -> None:
    """Everything found is excused, and everything excused is found."""
    there = set(found)
    assert sorted(there - excused.keys()) == []
    assert sorted(excused.keys() - there) == [], "no longer needed"


# --- a place for everything ------------------------------------------------------------------------------------------

TESTED_ELSEWHERE = {
    "adapters/clock.py": "tests/e2e/test_drain.py",
    "adapters/memory.py": "tests/adapters/test_shared.py",
    "adapters/redis.py": "tests/adapters/test_shared.py",
    "adapters/redis_node.py": "tests/adapters/test_redis_nodes.py",
    "adapters/redis_sad.py": "tests/adapters/test_sad.py",
    "adapters/postgres_connections.py": "tests/adapters/test_postgres.py",
    "adapters/postgres_doctor.py": "tests/test_tending.py",
    "adapters/sqlite_doctor.py": "tests/test_tending.py",
    "adapters/postgres_steps.py": "tests/adapters/test_store_units.py",
    "adapters/postgres_touches.py": "tests/adapters/test_postgres.py",
    "adapters/sql_audit.py": "tests/adapters/test_store_audit.py",
    "adapters/sql_calls.py": "tests/adapters/test_store_calls.py",
    "adapters/sql_deliveries.py": "tests/adapters/test_store.py",
    "adapters/sql_keys.py": "tests/adapters/test_store_keys.py",
    "adapters/sql_outbox.py": "tests/adapters/test_store_events.py",
    "adapters/sql_payments.py": "tests/adapters/test_store_payments.py",
    "adapters/sql_statements.py": "tests/adapters/test_store.py",
    "adapters/sql_vault.py": "tests/adapters/test_store.py",
    "adapters/sql_rewrap.py": "tests/workers/test_rewrap.py",
    "adapters/sql_vault_keys.py": "tests/adapters/test_keyrings.py",
    "adapters/sql_visit.py": "tests/adapters/test_store_payments.py",
    "adapters/sqlite_steps.py": "tests/adapters/test_sql_operations.py",
    "adapters/store_queue.py": "tests/adapters/test_store_units.py",
    "admin_client.py": "tests/server/test_admin_events.py",
    "bodies.py": "tests/test_pipeline.py",
    "commands/audit.py": "tests/server/test_admin_audit.py",
    "commands/base.py": "tests/server/test_admin_audit.py",
    "commands/explain.py": "tests/test_explaining.py",
    "commands/vault.py": "tests/server/test_admin_audit.py",
    "config/base.py": "tests/config/test_settings.py",
    "config/boundaries.py": "tests/config/test_load.py",
    "config/cards.py": "tests/config/test_load.py",
    "config/complaints.py": "tests/config/test_load.py",
    "config/doubts.py": "tests/config/test_load.py",
    "config/store.py": "tests/test_storing.py",
    "config/events.py": "tests/config/test_load.py",
    "config/keys.py": "tests/test_keeping.py",
    "commands/vault_keys.py": "tests/server/test_admin_vault.py",
    "config/redis.py": "tests/test_sharing.py",
    "config/shared.py": "tests/config/test_settings.py",
    "config/upstreams.py": "tests/config/test_load.py",
    "contexts.py": "tests/test_check.py",
    "config/consistency.py": "tests/config/test_load.py",
    "config/inert.py": "tests/test_check.py",
    "exchange.py": "tests/test_pipeline.py",
    "minting.py": "tests/rules/test_tokenize.py",
    "soon.py": "tests/test_pipeline.py",
    "workers/vault_keys.py": "tests/workers/test_rewrap.py",
    "pure/form_body.py": "tests/pure/test_body.py",
    "nowhere.py": "tests/rules/test_vault.py",
    "pure/form_reader.py": "tests/pure/test_body.py",
    "pure/json_body.py": "tests/pure/test_body.py",
    "pure/metrics.py": "tests/test_deploy.py",
    "pure/multipart_reader.py": "tests/pure/test_multipart_body.py",
    "pure/suggesting.py": "tests/config/test_load.py",
    "pure/units.py": "tests/config/test_settings.py",
    "pure/xml_reader.py": "tests/pure/test_xml_body.py",
    "selecting.py": "tests/rules/test_places.py",
    "server/actions.py": "tests/server/test_admin_events.py",
    "server/edge.py": "tests/server/test_listener.py",
    "supervising/process.py": "tests/e2e/test_workers.py",
    "supervising/supervisor.py": "tests/e2e/test_workers.py",
    "supervising/worker.py": "tests/e2e/test_workers.py",
}
"""Modules whose promises are those of a larger thing, and where they are tested."""

ONLY_SHAPES = {
    "operations/audit.py": "records without a decision; every store's suite runs them",
    "operations/base.py": "records without a decision; every store's suite runs them",
    "operations/calls.py": "records without a decision; every store's suite runs them",
    "operations/deliveries.py": "records without a decision; every store's suite runs them",
    "operations/events.py": "records without a decision; every store's suite runs them",
    "operations/keys.py": "records without a decision; every store's suite runs them",
    "operations/payments.py": "records without a decision; every store's suite runs them",
    "key_ports.py": "Protocols, and nothing else",
    "operations/vault_keys.py": "records without a decision; every store's suite runs them",
    "operations/vault.py": "records without a decision; every store's suite runs them",
    "ports.py": "Protocols, and records without a decision",
    "pure/selecting.py": "Protocols, and a record without a decision",
    "rule.py": "what a rule is; each kind is one",
    "snapshot.py": "records that the builder fills",
    "verifying.py": "ports without a decision; whoever implements them is tested",
}


@pytest.mark.parametrize("kind", rule_kinds())
def test_a_kind_of_rule_has_its_test_and_its_section(kind: str) -> None:
    assert f"tests/rules/test_{kind}.py" in FILES
    assert f"\n## {kind}\n" in PAGES["docs/reference/rules.md"]


@pytest.mark.parametrize("provider", webhook_providers())
def test_a_webhook_provider_has_its_test_and_its_recorded_deliveries(provider: str) -> None:
    assert f"tests/webhooks/test_{provider}.py" in FILES
    assert f"tests/data/webhooks/{provider}.json" in FILES


def test_a_module_has_a_test_file_of_its_name() -> None:
    without = [path for path in MODULES if not path.endswith("__init__.py") and not has_test(path)]
    none_but(TESTED_ELSEWHERE | ONLY_SHAPES, without)
    assert [path for path in TESTED_ELSEWHERE.values() if path not in FILES] == []


def has_test(module: str) -> bool:
    """In the folder that mirrors the module's, or below it."""
    room, _, name = f"tests/{module}".rpartition("/")
    return any(path.startswith(f"{room}/") and path.endswith(f"/test_{name}") for path in FILES)


def test_every_reason_and_every_metric_is_used() -> None:
    used = set(re.findall(r"\b((?:Reason|Metric)\.[A-Z_0-9]+)", "\n".join(MODULES.values())))
    assert {str(member) for listed in (Reason, Metric) for member in listed} - used == set()


# --- sizes -----------------------------------------------------------------------------------------------------------

LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}


def test_no_file_is_long() -> None:
    none_but(LONG_FILES, (path for path, text in MODULES.items() if text.count("\n") > FILE_LINES_MAX))


def test_no_function_is_long() -> None:
    functions = (
        (f"{path}:{node.name}", (node.end_lineno or 0) - node.lineno + 1)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    none_but(LONG_FUNCTIONS, (name for name, lines in functions if lines > FUNCTION_LINES_MAX))


# --- exceptions ------------------------------------------------------------------------------------------------------


def classes_of_exceptions() -> set[str]:
    """Names, also of those that derive from another one of ours."""
    bases = [
        (node.name, {ast.unparse(base).rpartition(".")[2] for base in node.bases})
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    found = {name for name, each in vars(builtins).items() if isinstance(each, type) and issubclass(each, Exception)}
    while more := {name for name, known in bases if known & found} - found:
        found |= more
    return found


def called_once(node: ast.AST) -> Iterator[str]:
    """Of what a module calls when it is imported, the names: all but what stands in the body of a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from called_once(child.args)
        elif not isinstance(child, ast.Lambda):
            if isinstance(child, ast.Call):
                yield ast.unparse(child.func).rpartition(".")[2]
            yield from called_once(child)


def test_no_exception_is_made_once_for_all() -> None:
    """One that is raised again keeps the frames it was raised in, and the requests in them: a leak of card data."""
    ours = classes_of_exceptions()
    assert {"Refused", "UpstreamError", "ConfigError"} <= ours
    assert [(path, name) for path, tree in TREES.items() for name in called_once(tree) if name in ours] == []


@pytest.mark.parametrize("program", ["A = E(1)", "def f(a=E(1)): ...", "class C:\n    a = {1: m.E()}"])
def test_an_exception_that_is_made_at_import_is_seen(program: str) -> None:
    assert list(called_once(ast.parse(program))) == ["E"]


def test_an_exception_that_is_made_where_it_is_raised_is_not_meant() -> None:
    assert list(called_once(ast.parse("def f():\n    raise E(1)\ng = lambda: E(1)"))) == []


# --- banned calls ----------------------------------------------------------------------------------------------------

_ASK_THE_CLOCK = "time is asked of the Clock, so that tests can drive it"
_ASK_THE_CONFIGURATION = "what a process runs with stands in its configuration"
_KEEP_TASKS = "a task that nobody holds is lost, its exception too: each is made where it is kept and awaited"

BANNED = {
    "time.time": _ASK_THE_CLOCK,
    "time.monotonic": _ASK_THE_CLOCK,
    "time.perf_counter": _ASK_THE_CLOCK,
    "datetime.now": _ASK_THE_CLOCK,
    "time.sleep": "it stops every request",
    "print": "a log line is an event with fields; the command line uses click",
    "os.environ": _ASK_THE_CONFIGURATION,
    "os.getenv": _ASK_THE_CONFIGURATION,
    "create_task": _KEEP_TASKS,
    "ensure_future": _KEEP_TASKS,
}
EXCUSED = {
    "adapters/clock.py: time.time": "the Clock",
    "adapters/clock.py: time.monotonic": "the Clock",
    "adapters/dev_certificates.py: time.time": "a command, not the gateway; its tests give the time",
    "server/tls.py: datetime.now": "judges files when they are read, for `pangate check` too",
    "config/lifecycles.py: os.environ": "`${NAME}`",
    "config/mappings.py: os.environ": "`${NAME}`",
    "config/load.py: os.environ": "`${NAME}`",
    "adapters/keys.py: os.environ": "`env:NAME`",
    "app.py: create_task": "the workers, cancelled and awaited at the end",
    "upstreams.py: create_task": "one for each upstream that is looked after, cancelled with it",
    "adapters/keyrings.py: create_task": "one look for all who wait; ends by itself",
    "adapters/key_sets.py: create_task": "one fetch for all who wait; cancelled at the end",
    "adapters/postgres.py: create_task": "a task for each tenant that somebody waits for, awaited at the end",
    "adapters/redis_nodes.py: create_task": "a round trip for all who wait; a look after lost servers. Ended in close",
    "adapters/upstream_connection.py: create_task": "sends a body while the answer is read; ended with the call",
    "start.py: ensure_future": "reloads that signals ask for, cancelled at the end",
    "supervising/channel.py: create_task": "answers under way, each ends by itself",
    "supervising/process.py: ensure_future": "a worker's end, awaited by its supervisor",
    "supervising/supervisor.py: create_task": "one for each worker, cancelled at the end",
    "supervising/worker.py: ensure_future": "hears the supervisor, cancelled at the end",
    "server/acceptor.py: create_task": "handshakes under way, awaited at the end",
    "server/connection.py: create_task": "a task for each connection, ended with it",
    "adapters/publishers.py: create_task": "a task group",
    "workers/deliveries.py: create_task": "deliveries on their way, awaited at the end",
    "workers/relay.py: create_task": "events on their way, awaited at the end",
    "workers/resolver.py: create_task": "calls that are looked into, awaited at the end",
}


def names_used(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{imported.name}" for imported in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def banned_in(tree: ast.Module) -> set[str]:
    return {call for name in names_used(tree) for call in BANNED if name == call or name.endswith(f".{call}")}


def test_nothing_is_called_that_has_a_better_home() -> None:
    none_but(EXCUSED, (f"{path}: {call}" for path, tree in TREES.items() for call in banned_in(tree)))


@pytest.mark.parametrize(
    ("program", "call"),
    [
        ("import time\ntime.time()", "time.time"),
        ("from time import monotonic", "time.monotonic"),
        ("import datetime as dt\ndt.datetime.now(dt.UTC)", "datetime.now"),
        ("import asyncio\nasyncio.get_running_loop().create_task(x)", "create_task"),
        ("print(1)", "print"),
    ],
)
def test_a_banned_call_is_seen(program: str, call: str) -> None:
    assert banned_in(ast.parse(program)) == {call}


# --- what may be printed ---------------------------------------------------------------------------------------------

PRINTED = {
    "adapters/upstream_origin.py: Origin.authority": "an upstream's address",
    "exchange.py: Exchange.consumed": "names of fields",
    "exchange.py: Peer.certificate": "a certificate is public",
    "explaining.py: Question.certificate": "a certificate is public",
    "operations/audit.py: FindReveals.digest": "a keyed hash",
    "operations/calls.py: Call.key_scope": "a keyed hash",
    "operations/calls.py: RecordCall.key_scope": "a keyed hash",
    "operations/deliveries.py: PutDelivery.digest": "a keyed hash",
    "operations/keys.py: AskKey.scope": "a keyed hash",
    "operations/keys.py: ClaimKey.scope": "a keyed hash",
    "operations/keys.py: DoubtKey.scope": "a keyed hash",
    "operations/keys.py: FinishKey.scope": "a keyed hash",
    "exchange.py: Exchange.fingerprint": "a certificate is public",
    "operations/keys.py: KeyRow.fingerprint": "a keyed hash",
    "operations/keys.py: ReleaseKey.scope": "a keyed hash",
    "pure/audit.py: End.mac": "a seal",
    "pure/audit.py: Ends.base_seal": "a seal",
    "pure/audit.py: Ends.head_seal": "a seal",
    "pure/audit.py: Entry.token": "a keyed hash",
    "pure/audit.py: Linked.mac": "a seal",
    "pure/certificates.py: ClientCertificate.fingerprint": "a certificate is public",
    "pure/crls.py: RevokedCertificates.authorities": "certificates are public",
    "pure/crls.py: RevokedCertificates.until": "names of authorities",
    "pure/webhook_macs.py: TimedMac.separator": "a part of a scheme",
    "pure/xml_reader.py: Tag.name": "names of elements",
    "renewal.py: Fresh.digest": "of certificate files",
    "rule.py: Deny.headers": "written by the gateway",
    "contexts.py: Renewed.digest": "of files",
    "reaching.py: _Entrance.digest": "of files",
    "upstreams.py: _Made.made_from": "a digest of files",
}
"""Fields of records that hold bytes and are printed all the same, and why they may be."""
_HOLDS = re.compile(r"\b(?:bytes|bytearray|memoryview|Header)\b")


def printed_fields(tree: ast.Module) -> Iterator[str]:
    """Of dataclasses: fields of bytes that are part of the `repr`. A function is printed by its name."""
    for record in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        if not any("dataclass" in ast.unparse(decorator) for decorator in record.decorator_list):
            continue
        for field in (part for part in record.body if isinstance(part, ast.AnnAssign)):
            kind = ast.unparse(field.annotation)
            hidden = field.value is not None and "repr=False" in ast.unparse(field.value)
            if _HOLDS.search(kind) and not kind.startswith(("Callable", "ClassVar")) and not hidden:
                yield f"{record.name}.{ast.unparse(field.target)}"


def test_no_record_prints_bytes_that_may_be_a_body_a_value_or_a_key() -> None:
    """One that is printed whole, in a debugger or in a traceback with locals, would show them."""
    none_but(PRINTED, (f"{path}: {name}" for path, tree in TREES.items() for name in printed_fields(tree)))


def test_a_field_that_prints_a_body_is_seen() -> None:
    program = "@dataclass(frozen=True)\nclass Careless:\n    body: bytes\n    key: bytes = field(repr=False)"
    assert list(printed_fields(ast.parse(program))) == ["Careless.body"]


# --- pages -----------------------------------------------------------------------------------------------------------


def test_relative_links_lead_somewhere() -> None:
    broken = [
        f"{page}: {target}"
        for page, text in PAGES.items()
        for target in re.findall(r"\]\(([^)\s]+)\)", text)
        if not re.match(r"[a-z]+:", target) and not resolves(page, target)
    ]
    assert broken == []


def resolves(page: str, target: str) -> bool:
    path, _, anchor = target.partition("#")
    found = (ROOT / page).parent / path if path else ROOT / page
    if not anchor:
        return found.exists()
    return found.is_file() and anchor in map(slug, re.findall(r"^#+ (.+)$", found.read_text("utf-8"), re.MULTILINE))


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_files_that_a_page_names_exist() -> None:
    named = {
        (page, path)
        for page, text in PAGES.items()
        for path in re.findall(r"`((?:gateway|tests|docs|bench|deploy|examples)/[\w./-]+\.\w+)`", text)
    }
    assert named
    assert {(page, path) for page, path in named if not (ROOT / path).is_file()} == set()


def test_the_changelog_has_a_place_for_what_comes() -> None:
    assert "\n## [Unreleased]\n" in FILES["CHANGELOG.md"]


# --- what must not be in the repository ------------------------------------------------------------------------------

PUBLISHED = {
    "4242424242424242", "4000000000000002", "4000000000000341", "4111111111111111", "4222222222222",
    "5555555555554444", "2223003122003222", "378282246310005", "6011111111111117", "30569309025904",
    "3566002020360505", "6205500000000000004", "6759649826438453", "135410014004955",
}.union(*CARDS.values())  # fmt: skip
"""Test numbers that networks and their processors publish."""
OTHER_NUMBERS: dict[str, str] = {
    f"tests/data/webhooks/sns.json: {'0' * 16}": "of the id of a message that was tampered with",
    f"tests/data/webhooks/shopify.json: {820982_911946_154508}": "the id of an order in a published delivery",
}
_DIGITS = re.compile(r"(?<![\w.])[0-9](?:[ -]?[0-9]){12,18}(?!\w)")

_MACHINE = re.compile(r"(?<![\w.-])/(?:work|home|Users|tmp/bash_jobs)/")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|pangate-key-1:[A-Za-z0-9+/]{43}=")
_AUTHORS = "|".join(
    w[::-1] for w in ("ia", "mll", "tpg", "edualc", "ciporhtna", "ianepo", "tolipoc", "tnatsissa", "tnega")
)
"""Backwards, so that this file does not find itself."""
_AUTHOR = re.compile(rf"(?<![\w-])(?:{_AUTHORS})s?(?![\w-])", re.IGNORECASE)


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{number}"
        for path, text in FILES.items()
        if pattern.search(text)
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_card_number_but_published_test_numbers() -> None:
    numbers = ((path, re.sub("[ -]", "", found)) for path, text in FILES.items() for found in _DIGITS.findall(text))
    none_but(OTHER_NUMBERS, (f"{path}: {n}" for path, n in numbers if is_card_number(n) and n not in PUBLISHED))


def test_no_path_of_somebodys_machine() -> None:
    assert lines_with(_MACHINE) == []


def test_no_private_key() -> None:
    assert lines_with(_PRIVATE_KEY) == []


def test_no_word_of_who_or_what_wrote_it() -> None:
    assert lines_with(_AUTHOR) == []


def test_requirements_name_no_registry() -> None:
    files = [
        text for path, text in FILES.items() if path.startswith("requirements/") and path.endswith((".txt", ".in"))
    ]
    assert files
    assert [line for text in files for line in text.splitlines() if re.search(r"://|--(extra-)?index-url", line)] == []
