"""A line for curl is the request that curl would send, or is refused with the option that is not understood."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading

import pytest

from gateway.pure.curl import read_curl

FILES = {"body.json": b'{"a":1}\n', "two\nlines": b"", "lines": b"a=1\r\nb=2\n"}


def sent(line: str) -> tuple[str, dict[str, str], bytes | None]:
    asked = read_curl(line, FILES.__getitem__)
    first, *lines = asked.head().decode().split("\r\n")[:-1]
    return first, dict(line.split(": ", 1) for line in lines), asked.body


@pytest.mark.parametrize(
    ("line", "first", "body", "fields"),
    [
        ("curl http://h:1/a", "GET /a HTTP/1.1", None, {"Host": "h:1", "Accept": "*/*"}),
        ("h/a?b=1#c", "GET /a?b=1 HTTP/1.1", None, {"Host": "h"}),
        ("curl -X DELETE https://h", "DELETE / HTTP/1.1", None, {}),
        ("curl -XPUT https://h -d a=1", "PUT / HTTP/1.1", b"a=1", {"Content-Length": "3"}),
        ("curl h -d a=1 -d b=2", "POST / HTTP/1.1", b"a=1&b=2", {"Content-Type": "application/x-www-form-urlencoded"}),
        ("curl h --data-urlencode 'a=b c&'", "POST / HTTP/1.1", b"a=b+c%26", {}),
        ("curl h -d @lines", "POST / HTTP/1.1", b"a=1b=2", {}),
        ("curl h --data-binary @body.json", "POST / HTTP/1.1", b'{"a":1}\n', {}),
        ("curl h --data-raw @body.json", "POST / HTTP/1.1", b"@body.json", {}),
        ("curl h --json '{}'", "POST / HTTP/1.1", b"{}", {"Content-Type": "application/json"}),
        ("curl h --json=@body.json", "POST / HTTP/1.1", b'{"a":1}\n', {}),
        ("curl h -H 'content-type: text/csv' -d x", "POST / HTTP/1.1", b"x", {"content-type": "text/csv"}),
        ("curl -G h/a -d b=1", "GET /a?b=1 HTTP/1.1", None, {}),
        ("curl -I h", "HEAD / HTTP/1.1", None, {}),
        ("curl h -u me:pw", "GET / HTTP/1.1", None, {"Authorization": "Basic bWU6cHc="}),
        ("curl h -b 'a=1' -A me", "GET / HTTP/1.1", None, {"Cookie": "a=1", "User-Agent": "me"}),
        ("curl -skS h --cacert x -o /dev/null", "GET / HTTP/1.1", None, {}),
        ("curl \\\n  h \\\n  -H 'X-A: 1'", "GET / HTTP/1.1", None, {"X-A": "1"}),
    ],
)  # fmt: skip
def test_a_line_is_the_request_that_it_would_send(
    line: str, first: str, body: bytes | None, fields: dict[str, str]
) -> None:
    begins, got, content = sent(line)
    assert (begins, content) == (first, body)
    assert got | fields == got


def test_a_certificate_is_named_without_its_password() -> None:
    assert read_curl("curl h --cert client.pem:secret", FILES.__getitem__).certificate == "client.pem"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("curl h --proxy http://p", "--proxy is not understood"),
        ("curl h -F a=b", "-F is not understood"),
        ("curl -sF h", "-s is not understood"),
        ("curl h --data-ascii", "needs a value"),
        ("curl", "no address"),
        ("curl a b", "one address"),
        ("curl h -H nothing", "NAME: VALUE"),
        ("curl 'h", "split into words"),
        ("curl h -H $'a: b'", "h"),
    ],
)
def test_what_is_not_understood_is_told(line: str, complaint: str) -> None:
    if complaint == "h":
        assert sent(line)[1]["$a"] == "b"
        return
    with pytest.raises(ValueError, match=complaint):
        read_curl(line, FILES.__getitem__)


@pytest.mark.parametrize("url", ["ftp://h/a", "http://", "http://me:pw@h/", "https:///a"])
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(ValueError):
        read_curl(f"curl {url}", FILES.__getitem__).head()


def test_a_header_cannot_break_out_of_its_line() -> None:
    with pytest.raises(ValueError, match="control character"):
        read_curl("curl h -H 'a: b\r\nc: d'", FILES.__getitem__).head()


LINES = ["-d a=1 -d b=2", "--json '{}' -X PUT", "-G -d a=1", "-H 'Accept: text/plain' -H 'X-A: 1'", "-u me:pw -A me",
         "--data-urlencode 'a=b c'", "-d a=1 -H 'Content-Type: application/json'", "--compressed", "-e http://x -b c=1",
         "-H 'Accept:'"]  # fmt: skip


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine: the table above is what it sends")
@pytest.mark.parametrize("options", LINES)
def test_curl_itself_sends_the_same(options: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = f"curl -s -m 20 http://127.0.0.1:{server.getsockname()[1]}/x {options}"
        got: list[bytes] = []

        def serve() -> None:
            client, _ = server.accept()
            with client:
                got.append(client.recv(65536))
                client.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        subprocess.run(["sh", "-c", line], check=True, timeout=30)
        thread.join(30)
    head, _, body = got[0].partition(b"\r\n\r\n")
    asked = read_curl(line, FILES.__getitem__)
    ignored = ("user-agent", "accept-encoding")  # its name, and what it can decompress, differ between versions

    def fields(raw: bytes) -> set[str]:
        lines = (line.lower() for line in raw.decode().split("\r\n") if line)
        return {line for line in lines if not line.startswith(ignored)}

    assert fields(head) == fields(asked.head())
    assert body == (asked.body or b"")
