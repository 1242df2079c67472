from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from davsql.store.check import check
from davsql.store.store import Store
from tests.cli.conftest import RunDavsql
from tests.http_client import request
from tests.store_steps import put, read, tree

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 30

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@contextmanager
def serving(folder: Path, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], list[tuple[str, int]], str]]:
    """`davsql serve` in `folder`: the process, the addresses that it told, and all that it said first."""
    command = [sys.executable, "-m", "davsql", "serve", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        try:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if "Ctrl-C" in line:
                    break
            addresses = [(host, int(port)) for host, port in re.findall(r"serving .* on http://([\d.]+):(\d+)/", said)]
            yield process, addresses, said
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve__makes_a_store_serves_it_and_stops_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as (process, [address], said):
        assert "making a new store: davsql.db\n" in said
        assert "only this machine can reach it" in said
        url = f"http://127.0.0.1:{address[1]}/"
        for hint in (f"net use Z: {url}", f"Cmd-K, {url}", f"dav://127.0.0.1:{address[1]}/", "rclone", "curl -T"):
            assert hint in said
        assert request(address, "PUT", "/a.txt", b"content").status == 201
        process.send_signal(number)
        out, err = process.communicate(timeout=STOP_TIMEOUT_S)
    assert (process.returncode, out.splitlines()[-1]) == (0, "davsql stopped"), err
    assert "Traceback" not in err
    assert [file.name for file in tmp_path.iterdir()] == ["davsql.db"], "the store was not closed"
    with Store.open(tmp_path / "davsql.db") as store:
        assert read(store, "/a.txt") == b"content"
        assert check(store) == []


def test_serve__second_start_keeps_the_content(tmp_path: Path) -> None:
    with Store.open(tmp_path / "davsql.db", create=True) as store:
        put(store, "/a.txt", b"content")
    with serving(tmp_path) as (_, [address], said):
        assert "making a new store" not in said
        assert request(address, "GET", "/a.txt").body == b"content"


def test_serve__read_only_refuses_changes(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db", create=True) as store:
        put(store, "/a.txt", b"content")
    with serving(tmp_path, "--db", "a.db", "--read-only") as (_, [address], said):
        assert "(read-only)" in said
        assert request(address, "GET", "/a.txt").body == b"content"
        assert request(address, "PUT", "/b.txt", b"x").status == 403
        assert request(address, "DELETE", "/a.txt").status == 403


def test_serve__several_shares_under_their_names(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        '[[share]]\nname = "one"\ndb = "1.db"\n[[share]]\nname = "zw\u00f6i 2"\ndb = "2.db"\n[server]\nport = 1\n'
        "[log]\nfile = 'log.txt'\n",
        encoding="utf-8",
    )
    with serving(tmp_path, "--config", "c.toml") as (process, addresses, said):
        assert said.count("serving ") == 2
        assert "/zw%C3%B6i%202/\n" in said
        assert request(addresses[0], "PUT", "/one/a", b"1").status == 201
        assert request(addresses[0], "PUT", "/zw%C3%B6i%202/a", b"2").status == 201
        assert request(addresses[0], "PUT", "/three/a", b"3").status in (403, 404, 409)
        process.terminate()
        _, err = process.communicate(timeout=STOP_TIMEOUT_S)
    assert (process.returncode, err) == (0, "")
    assert "SIGTERM" in (tmp_path / "log.txt").read_text()
    for name, content in (("1.db", b"1"), ("2.db", b"2")):
        with Store.open(tmp_path / name) as store:
            assert tree(store) == {"/a": content}


def test_serve__a_part_of_a_site_is_announced_with_its_path(tmp_path: Path) -> None:
    config = tmp_path / "davsql.toml"
    share = "[[share]]\nname = 'photos'\ndb = 'a.db'\n"
    config.write_text(f"[server]\npublic_url = 'https://example.org/my%20files'\n{share}", encoding="utf-8")
    with serving(tmp_path, "--config", config) as (_, [address], said):
        path = "/my%20files/photos/"
        assert f"on http://127.0.0.1:{address[1]}{path}\n" in said
        assert f"net use Z: http://127.0.0.1:{address[1]}{path}" in said
        assert request(address, "PUT", f"{path}a.txt", b"content").status == 201
        assert request(address, "GET", "/photos/a.txt").status == 404


def test_serve__two_processes_may_serve_one_store(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, [first], _), serving(tmp_path) as (_, [second], _):
        assert request(first, "PUT", "/a", b"1").status == 201
        assert request(second, "GET", "/a").body == b"1"
        assert request(second, "PUT", "/a", b"2").status == 204
        assert request(first, "GET", "/a").body == b"2"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "0"])  # noqa: S104  # must be refused
def test_serve__refuses_addresses_that_others_reach(davsql: RunDavsql, tmp_path: Path, host: str) -> None:
    outcome = davsql("serve", "--host", host, "--port", "0")
    assert outcome.code == 1
    assert f"refusing to listen on '{host}'" in outcome.err
    assert "use --host 127.0.0.1" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["", "no such host", "x" * 300])
def test_serve__refuses_what_is_no_address(davsql: RunDavsql, host: str) -> None:
    outcome = davsql("serve", "--host", host, "--port", "0")
    assert outcome.code == 1
    assert "is no address" in outcome.err


def test_serve__port_in_use_is_named_with_the_remedy(tmp_path: Path) -> None:
    # In a process of its own: cheroot leaves the socket that it could not bind to the garbage collector.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "davsql", "serve", "--port", str(port)]
        outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert outcome.returncode == 1
    assert outcome.stderr.startswith(f"davsql: cannot listen on 127.0.0.1:{port}: Address already in use; stop the ")
    assert len(outcome.stderr.splitlines()) == 1


def test_serve__db_beside_shares_is_wrong_usage(davsql: RunDavsql, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[[share]]\nname = "one"\ndb = "1.db"\n')
    assert davsql("serve", "--config", "c.toml", "--db", "x.db").code == 2


def test_serve__second_signal_does_not_wait_for_a_slow_client(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, [address], _), socket.create_connection(address) as slow:
        slow.sendall(b"PUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        time.sleep(0.3)  # until the request is being read
        process.terminate()
        time.sleep(0.3)
        process.terminate()
        process.communicate(timeout=5)
    with Store.open(tmp_path / "davsql.db") as store:
        assert tree(store) == {}
        assert check(store) == []


def test_logging__is_one_line_an_event(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    program = (
        "import logging, pathlib, sys\n"
        "from davsql.cli.logging_setup import set_up_logging\n"
        "from davsql.config import LogOptions\n"
        "set_up_logging(LogOptions('info', pathlib.Path(sys.argv[1])))\n"
        "logging.getLogger('davsql.x').info('a\\nb\\x1b[31m %s', 'caf\\u00e9')\n"
        "logging.getLogger('davsql.x').debug('not wanted')\n"
        "logging.getLogger('wsgidav').warning('not wanted')\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    logging.getLogger('davsql.x').exception('oh')\n"
    )
    subprocess.run([sys.executable, "-c", program, file], check=True)
    first, second = file.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO davsql\.x: a\\nb\\x1b\[31m caf\u00e9", first)
    assert " ERROR davsql.x: oh\\nTraceback" in second
    assert second.endswith("ZeroDivisionError: division by zero")


def test_serve__makes_no_empty_store_where_there_are_backups_of_one(tmp_path: Path, davsql: RunDavsql) -> None:
    backups = tmp_path / "backups"
    backups.mkdir()
    config = tmp_path / "davsql.toml"
    config.write_text('[backup]\nfolder = "backups"\n[[share]]\nname = ""\ndb = "drive.db"\n')
    with Store.open(tmp_path / "drive.db", create=True) as store:
        put(store, "/f", b"x")
    assert davsql("backup", backups, "--config", config).code == 0
    (tmp_path / "drive.db").unlink()  # as if its disk were not mounted
    outcome = davsql("serve", "--port", 0, "--config", config)
    assert outcome.code == 1
    assert "davsql restore" in outcome.err
    assert not (tmp_path / "drive.db").exists()
