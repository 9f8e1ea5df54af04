"""`pangate explain`: what would become of a request, without sending it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway import explaining
from gateway.commands.base import CONFIG, complain
from gateway.config.complaints import ConfigError
from gateway.config.load import load
from gateway.explaining import Explanation, Question, RuleNote, choose_listener
from gateway.pure.curl import Asked, read_curl
from gateway.pure.errors import Refused
from gateway.pure.framing import Chunked

_CHUNKED_MAX = 16 * 1024 * 1024
_END_OF_HEAD = b"\r\n\r\n"


@click.command()
@CONFIG
@click.argument("url", required=False)
@click.option("-X", "--request", "method", default="", help="The method; else GET, or POST with a body.")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME: VALUE", help="A header field; may come again.")
@click.option("-d", "--data", "body", help="The body; @FILE reads it from a file, its bytes as they are.")
@click.option("--curl", "line", help="The request as a line for curl, in quotes; - reads it from standard input.")
@click.option("--raw", type=click.Path(path_type=Path, exists=True), help="A file with the request as it is sent.")
@click.option("--listener", help="Which listener is asked, if the port of the address does not say so.")
@click.option("--cert", type=click.Path(path_type=Path, exists=True), help="The client certificate (PEM).")
@click.option("--address", default="127.0.0.1", show_default=True, help="From where it is asked.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def explain(
    path: Path,
    url: str | None,
    method: str,
    headers: tuple[str, ...],
    body: str | None,
    line: str | None,
    raw: Path | None,
    listener: str | None,
    cert: Path | None,
    address: str,
    *,
    as_json: bool,
) -> None:
    """Say which route a request takes and why no other, what each rule of its policy says, and what would be done.

    Nothing is sent, written, counted or used up. Exit code 0 if the request would be sent on, 1 if it would be refused,
    2 if it cannot be said.
    """
    try:
        config = load(path)
        ip_address(address)
        if sum(given is not None for given in (url, line, raw)) != 1:
            raise ValueError("give one request: an address, --curl or --raw")
        if raw is not None:
            (head, content), port = _read_raw(raw.read_bytes()), None
        else:
            asked = _of_flags(url, method, headers, body) if url is not None else _of_line(line or "")
            head, content, port = asked.head(), asked.body or b"", asked.destination().port
            cert = cert or (None if asked.certificate is None else Path(asked.certificate))
        if listener is not None and listener not in config.settings.listeners:
            raise ValueError(f"no listener is called {listener}: there are {', '.join(config.settings.listeners)}")
        question = Question(
            head, content, listener or choose_listener(config, port), address, None if cert is None else _der(cert)
        )
        explanation = asyncio.run(explaining.explain(config, question))
    except ConfigError as error:
        complain(error.complaints)
        sys.exit(2)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        click.echo(json.dumps(asdict(explanation)))
    else:
        click.echo("\n".join(_lines(explanation)))
    sys.exit(not explanation.admitted)


# --- the request -----------------------------------------------------------------------------------------------------


def _of_flags(url: str, method: str, headers: tuple[str, ...], body: str | None) -> Asked:
    asked = Asked(url, method)
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon:
            raise ValueError("-H is written NAME: VALUE")
        asked.headers.append((name, value.strip()))
    if body is not None:
        asked.body = _read_file(body[1:]) if body.startswith("@") else os.fsencode(body)
    return asked


def _of_line(line: str) -> Asked:
    return read_curl(sys.stdin.read() if line == "-" else line, _read_file)


def _read_file(name: str) -> bytes:
    return Path(name).read_bytes()


def _read_raw(content: bytes) -> tuple[bytes, bytes]:
    """Head and content. Lines may end as in a text file where none ends as HTTP's do. Raises ValueError."""
    if b"\r\n" not in content:
        head, _, body = content.partition(b"\n\n")
        content = head.replace(b"\n", b"\r\n") + _END_OF_HEAD + body
    head, end, body = content.partition(_END_OF_HEAD)
    if not end:
        raise ValueError("the request has no empty line behind its head")
    head += b"\r\n"
    fields = [line.partition(b":") for line in head.lower().split(b"\r\n")[1:]]
    if any(name == b"transfer-encoding" for name, _, _ in fields):
        return head, _unchunked(body)
    if body and not any(name == b"content-length" for name, _, _ in fields):
        raise ValueError(f"the request has a body, and no header says so: Content-Length: {len(body)}")
    return head, body


def _unchunked(body: bytes) -> bytes:
    framing = Chunked(_CHUNKED_MAX)
    try:
        content, taken = framing.take(body)
    except Refused as refused:
        raise ValueError(refused.detail) from None
    if not framing.done or taken != len(body):
        raise ValueError("the chunked body does not end where the file does")
    return content


def _der(path: Path) -> bytes:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
    except ValueError:
        raise ValueError(f"{path} holds no certificate in PEM") from None


# --- the answer ------------------------------------------------------------------------------------------------------


def _lines(explanation: Explanation) -> Iterator[str]:
    yield f"{explanation.method or 'request'} on listener {explanation.listener}"
    if explanation.routes:
        yield "routes"
        yield from _columns([(note.name, note.why or "takes it") for note in explanation.routes])
    if explanation.rules:
        yield "rules"
        yield from _columns([(note.place, note.kind, _said(note)) for note in explanation.rules])
    would = [(note.kind, would) for note in explanation.rules for would in note.would]
    if would and explanation.admitted:
        yield "and then"
        yield from _columns(would)
    if explanation.admitted:
        yield "admitted"
    else:
        yield f"refused: {explanation.status} {explanation.reason}: {explanation.detail}"


def _said(note: RuleNote) -> str:
    reason = f": {note.reason}: {note.detail}" if note.reason else ""
    return f"{note.said}{reason}"


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()
