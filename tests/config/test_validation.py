from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from gateway.config.complaints import Complaint
from gateway.config.reader import read
from gateway.config.validation import label, settings_at, validate
from gateway.pure.units import Duration, FileOrUrl, Files, PathRef, SecretRef, Size


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    depth: int = Field(0, ge=1, lt=10)
    kind_of: Literal["slow", "fast"] = Field("slow", alias="class")


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = ""
    flag: bool = False
    number: float = 0.0
    wait: Duration = 0.0
    bound: Size = 0
    secret: SecretRef | None = None
    one_or_many: Annotated[str, Field(min_length=1)] | tuple[str, ...] = ""
    inner: Inner | None = None
    named: dict[str, Inner] = Field(default_factory=dict)
    listed: tuple[Inner, ...] = ()
    needed: int


def complaints(content: str, subject: str = "") -> list[str]:
    found: list[Complaint] = []
    source = read("f", content.encode(), {}, found)
    assert source is not None
    validate(Outer, source.data, source, (), Files(""), found, subject)
    return [str(complaint) for complaint in sorted(found)]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("text: 5", "f:2:7: text: expected text; put it in quotes"),
        ("text: [a]", "f:2:7: text: expected text"),
        ("text:", "f:2:1: text: expected text"),
        ("flag: maybe", "f:2:7: flag: expected true or false"),
        ("number: much", "f:2:9: number: expected a number"),
        ("wait: 5", "f:2:7: wait: expected a duration such as 250ms, 2s, 5m, 24h or 30d"),
        ("bound: 5MB", "f:2:8: bound: expected a size such as 512B, 64KiB or 1MiB"),
        ("secret: hunter2", "f:2:9: secret: expected env:NAME or file:PATH; a secret is never written in clear"),
        ("one_or_many: 5", "f:2:14: one_or_many: expected text; put it in quotes, or a list"),
        ("inner: {depth: 0}", "f:2:16: inner.depth: must be at least 1"),
        ("inner: {depth: 10}", "f:2:16: inner.depth: must be less than 10"),
        ("inner: {depth: 1.5}", "f:2:16: inner.depth: expected a whole number"),
        ("inner: {class: fats}", "f:2:16: inner.class: expected slow or fast (did you mean 'fast'?)"),
        ("inner: {clas: fast}", "f:2:9: inner.clas: no such setting (did you mean 'class'?)"),
        ("inner: 5", "f:2:8: inner: expected a mapping of keys to values"),
        ("named: {x: {dept: 3}}", "f:2:13: named.x.dept: no such setting (did you mean 'depth'?)"),
        ("listed: [{dept: 3}]", "f:2:11: listed[0].dept: no such setting (did you mean 'depth'?)"),
        ("listed: 5", "f:2:9: listed: expected a list"),
        ("neded: 5", "f:2:1: neded: no such setting (did you mean 'needed'?)"),
    ],
)
def test_what_is_wrong_is_said_in_our_words_at_its_place(line: str, complaint: str) -> None:
    assert complaints(f"needed: 1\n{line}\n") == [complaint]


def test_a_missing_setting_is_said_where_it_should_stand() -> None:
    assert complaints("text: x\n", "rate_limit") == ["f:1:1: rate_limit: needs needed"]


def test_all_complaints_come_at_once() -> None:
    assert len(complaints("text: 1\nflag: 2\ninner: {depth: 0}\nother: 1\n")) == 5


def test_a_value_that_could_not_be_read_gets_no_second_complaint() -> None:
    assert complaints("needed: *x\n") == ["f:1:9: an alias is not supported; write the value out"]


@pytest.mark.parametrize("value", ["hunter2", "file", "env:", "${x", {"value": "hunter2"}, ["hunter2"]])
def test_a_secret_in_clear_is_never_repeated(value: Any) -> None:
    assert "hunter2" not in "".join(complaints(json.dumps({"needed": 1, "secret": value})))


def test_the_keys_of_a_place_are_those_that_a_user_writes() -> None:
    assert settings_at(Outer, ("named", "x")) == ["depth", "class"]
    assert settings_at(Outer, ("text",)) == []


def test_a_path_is_spelled_as_in_the_file() -> None:
    assert label(("routes", 0, "match", "path")) == "routes[0].match.path: "
    assert label(()) == ""
    assert label(("a\x1b",)) == "'a\\x1b': "


class Referring(BaseModel):
    ca: PathRef
    key: SecretRef
    jwks: FileOrUrl


@pytest.mark.parametrize(
    ("directory", "ca", "key", "jwks"),
    [
        ("/etc", "/etc/c.pem", "file:/etc/k", "file:/etc/j.json"),
        ("", "c.pem", "file:k", "file:j.json"),
    ],
)
def test_files_are_below_the_directory_of_the_configuration_and_noted(
    directory: str, ca: str, key: str, jwks: str
) -> None:
    files = Files(directory)
    data = {"ca": "c.pem", "key": "file:k", "jwks": "file:j.json"}
    assert Referring.model_validate(data, context=files) == Referring.model_construct(ca=ca, key=key, jwks=jwks)
    assert sorted(files.named.values()) == ["c.pem", "j.json", "k"]


def test_what_is_no_file_is_left_alone() -> None:
    files = Files("/etc")
    data = {"ca": "/abs/c.pem", "key": "env:KEY", "jwks": "https://idp.example/jwks"}
    assert Referring.model_validate(data, context=files).model_dump() == data
    assert files.named == {"/abs/c.pem": "/abs/c.pem"}


def test_settings_made_without_files_stay_as_they_are_written() -> None:
    data = {"ca": "c.pem", "key": "file:k", "jwks": "file:j"}
    assert Referring.model_validate(data).model_dump() == data
