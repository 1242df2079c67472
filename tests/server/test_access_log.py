"""The access log: a line a request, with nothing in it that is secret or that could pass for another line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from davsql.server import access_log
from davsql.server.access_log import AccessLog, Form
from tests.server.raw import request, served

COMBINED = re.compile(
    r'(\S+) - (\S+) \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "(\S+) (\S+) (HTTP/1\.\d)" (\d{3}) (\d+) '
    r'"([^"]*)" "([^"]*)" \d+\.\d{6} (\S+)'
)
CLOSE = "Connection: close"


def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    environ["REMOTE_USER"] = 'a "b\\'
    environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [b"12345"]


def written(file: Path, form: Form, *requests: bytes) -> list[str]:
    """The lines that requests leave."""
    with served(answer) as live:
        live.http.access_log = AccessLog(form, file)
        for each in requests:
            live.exchange(each)
    return file.read_text(encoding="ascii").splitlines()


def test_combined__is_one_line_with_everything_escaped(tmp_path: Path) -> None:
    hostile = (
        'User-Agent: x\\" 200\xc3\xa9\t[]',
        "Referer: http://u:secret@h/p?token=secret",
        "Authorization: Basic secret",
    )
    [line, other] = written(
        tmp_path / "log", "combined", request("GET /a%0Ab?password=secret", CLOSE, *hostile), request("HEAD /", CLOSE)
    )
    found = COMBINED.fullmatch(line)
    assert found is not None, line
    agent = "x\\x5c\\x22 200\\xc3\\x83\\xc2\\xa9\\x09[]"
    expected = ("127.0.0.1", "a\\x20\\x22b\\x5c", "GET", "/a%0Ab", "HTTP/1.1", "200", "5", "http://h/p", agent)
    assert found.groups()[:-1] == expected
    assert "secret" not in line
    assert '"HEAD / HTTP/1.1" 200 0 "-" "-"' in other


def test_json__has_the_id_of_the_answer(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with served(answer) as live:
        live.http.access_log = AccessLog("json", file)
        reply = live.exchange(request("PUT /a", CLOSE, "Content-Length: 3", "Expect: 100-continue") + b"abc")
    found = json.loads(file.read_text(encoding="ascii"))
    request_id = re.search(rb"\r\nX-Request-ID: (\S+)\r\n", reply)
    assert request_id is not None
    assert found["request_id"] == request_id[1].decode()
    assert (found["method"], found["path"], found["status"], found["bytes"]) == ("PUT", "/a", 200, 5)
    assert found["user"] == 'a "b\\'
    assert found["duration_s"] >= 0


def test_file__is_made_anew_when_it_was_renamed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(access_log, "LOOK_INTERVAL_S", -1)
    file = tmp_path / "log"
    with served(answer) as live:
        live.http.access_log = AccessLog("json", file)
        live.exchange(request("GET /1", CLOSE))
        while not file.stat().st_size:
            pass
        file.rename(tmp_path / "log.1")
        live.exchange(request("GET /2", CLOSE))
    assert json.loads((tmp_path / "log.1").read_text(encoding="ascii"))["path"] == "/1"
    assert json.loads(file.read_text(encoding="ascii"))["path"] == "/2"


def test_request_id__is_another_for_each_request() -> None:
    with served(answer) as live:
        reply = live.exchange(request("GET /1") + request("GET /2", CLOSE))
    assert len(set(re.findall(rb"X-Request-ID: (\S+)\r\n", reply))) == 2
