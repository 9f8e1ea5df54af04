"""Keys come from one file, are separate by tenant and purpose, and open only what they sealed."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from gateway.adapters.keys import FileKeys, generate_key, read_secret
from gateway.ports import Unavailable


def write_key(path: Path, text: str | None = None, mode: int = 0o600) -> Path:
    path.write_text(generate_key() if text is None else text)
    path.chmod(mode)
    return path


@pytest.fixture
def keys(tmp_path: Path) -> FileKeys:
    return FileKeys(write_key(tmp_path / "vault.key"))


def test_what_was_sealed_opens(keys: FileKeys) -> None:
    sealed = keys.seal("shop", "vault", b"4242424242424242", b"row")
    assert b"4242" not in sealed
    assert keys.open("shop", "vault", sealed, b"row") == b"4242424242424242"


def test_sealing_twice_gives_two_values(keys: FileKeys) -> None:
    assert keys.seal("shop", "vault", b"x", b"") != keys.seal("shop", "vault", b"x", b"")


@pytest.mark.parametrize(
    ("tenant", "purpose", "associated"),
    [("other", "vault", b"row"), ("shop", "replay", b"row"), ("shop", "vault", b"other row")],
)
def test_a_sealed_value_opens_for_its_tenant_purpose_and_row_alone(
    keys: FileKeys, tenant: str, purpose: str, associated: bytes
) -> None:
    sealed = keys.seal("shop", "vault", b"4242424242424242", b"row")
    with pytest.raises(Unavailable, match="keys"):
        keys.open(tenant, purpose, sealed, associated)


def test_no_byte_of_a_sealed_value_can_be_changed(keys: FileKeys) -> None:
    sealed = keys.seal("shop", "vault", b"4242424242424242", b"row")
    for at in range(len(sealed)):
        damaged = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(Unavailable, match="keys"):
            keys.open("shop", "vault", damaged, b"row")


@pytest.mark.parametrize("length", [0, 1, 12, 13, 20])
def test_a_value_cut_short_does_not_open(keys: FileKeys, length: int) -> None:
    sealed = keys.seal("shop", "vault", b"4242424242424242", b"row")
    with pytest.raises(Unavailable, match="keys"):
        keys.open("shop", "vault", sealed[:length], b"row")


def test_another_root_key_opens_nothing(keys: FileKeys, tmp_path: Path) -> None:
    other = FileKeys(write_key(tmp_path / "other.key"))
    with pytest.raises(Unavailable, match="keys"):
        other.open("shop", "vault", keys.seal("shop", "vault", b"x", b""), b"")


def test_keys_are_the_same_after_a_restart_and_separate_by_tenant_and_purpose(tmp_path: Path) -> None:
    path = write_key(tmp_path / "vault.key")
    first, again = FileKeys(path), FileKeys(path)
    names = [("a", "bc"), ("ab", "c"), ("a", "b"), ("", "abc"), ("abc", ""), ("ä", "vault"), ("shop", "vault")]
    assert [first.mac(*name) for name in names] == [again.mac(*name) for name in names]
    assert len({first.mac(*name) for name in names}) == len(names)
    assert all(len(first.mac(*name)) == 32 for name in names)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "pangate-key-1:\n",
        base64.b64encode(bytes(32)).decode(),
        "pangate-key-2:" + base64.b64encode(bytes(32)).decode(),
        "pangate-key-1:" + base64.b64encode(bytes(31)).decode(),
        "pangate-key-1:" + base64.b64encode(bytes(33)).decode(),
        "pangate-key-1:" + base64.b64encode(bytes(32)).decode() + "\n\n",
        "pangate-key-1: " + base64.b64encode(bytes(32)).decode(),
        "pangate-key-1:" + "é" * 44,
        "pangate-key-1:" + "A" * 5000,
    ],
)
def test_a_file_that_is_no_key_file_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="is not one line of pangate-key-1:") as caught:
        FileKeys(write_key(tmp_path / "vault.key", text))
    assert "AAAA" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o601])
def test_a_key_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ValueError, match="chmod 600"):
        FileKeys(write_key(tmp_path / "vault.key", mode=mode))


@pytest.mark.parametrize("name", ["missing.key", "."])
def test_a_key_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        FileKeys(tmp_path / name)


def test_generated_keys_differ() -> None:
    assert generate_key() != generate_key()


def test_secrets_are_read_by_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_bytes(b"\xffwhsec\n\n")
    monkeypatch.setenv("PANGATE_TEST_SECRET", "whsec")
    assert read_secret("file:secret", tmp_path) == b"\xffwhsec\n"
    assert read_secret(f"file:{tmp_path / 'secret'}", Path("/nowhere")) == b"\xffwhsec\n"
    assert read_secret("env:PANGATE_TEST_SECRET", tmp_path) == b"whsec"


@pytest.mark.parametrize("reference", ["env:PANGATE_TEST_SECRET", "file:empty", "file:missing", "file:."])
def test_a_secret_that_is_not_there_is_an_error_that_names_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    (tmp_path / "empty").write_bytes(b"\n")
    monkeypatch.setenv("PANGATE_TEST_SECRET", "")
    with pytest.raises(ValueError, match=reference):
        read_secret(reference, tmp_path)


def test_a_secret_in_clear_is_refused_and_not_quoted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="env:NAME or file:PATH") as caught:
        read_secret("whsec_clear", tmp_path)
    assert "whsec_clear" not in str(caught.value)
