"""`davsql serve` and its admin port."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import RunDavsql
from tests.cli.test_serve import serving
from tests.http_client import request

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def configure(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "davsql.toml"
    file.write_text(f'[admin]\n{text}\n[[share]]\nname = "/"\ndb = "davsql.db"\n', encoding="utf-8")
    return file


def test_serve__answers_monitoring_and_says_where(tmp_path: Path) -> None:
    port = free_port()
    config = configure(tmp_path, f"port = {port}")
    with serving(tmp_path, "--config", config) as (process, [address], said):
        assert f"health and metrics: http://127.0.0.1:{port}/health/ready, http://127.0.0.1:{port}/metrics\n" in said
        admin = ("127.0.0.1", port)
        assert request(address, "PUT", "/a", b"content").status == 201
        ready = request(admin, "GET", "/health/ready")
        assert (ready.status, json.loads(ready.body)["status"]) == (200, "healthy")
        metrics = request(admin, "GET", "/metrics").text
        assert re.search(r'^davsql_uploads_stored_total\{share="/"\} 1\.0$', metrics, re.MULTILINE)
        assert request(admin, "GET", "/a").status == 404
        assert request(address, "GET", "/metrics").status == 404
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in err


def test_serve__port_0_turns_it_off(tmp_path: Path) -> None:
    with serving(tmp_path, "--config", configure(tmp_path, "port = 0")) as (_, [address], said):
        assert "health" not in said
        assert request(address, "GET", "/").status == 200


def test_serve__port_in_use_names_the_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = configure(tmp_path, f"port = {port}")
        command = [sys.executable, "-m", "davsql", "serve", "--port", "0", "--config", str(config)]
        outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert outcome.returncode == 1
    assert outcome.stderr == (
        f"davsql: cannot answer /health and /metrics on 127.0.0.1:{port}: Address already in use; "
        "stop the program that uses the port, or set [admin] port\n"
    )
    assert not (tmp_path / "davsql.db-wal").exists(), "the store was not closed"


def test_serve__refuses_to_answer_everybody(davsql: RunDavsql, tmp_path: Path) -> None:
    outcome = davsql("serve", "--port", "0", "--config", configure(tmp_path, 'host = "0.0.0.0"'))
    assert outcome.code == 1
    assert "refusing to answer /health and /metrics on '0.0.0.0'" in outcome.err
    assert "allow_remote = true" in outcome.err
    assert not (tmp_path / "davsql.db").exists()
