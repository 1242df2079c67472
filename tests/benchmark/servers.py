"""davsql and its peers: what each needs, how it is started, where it is and what it uses."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from tests.benchmark import machine

HERE = Path(__file__).parent
TEMPLATES = HERE / "peers"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
NGINX_DAV = "/usr/lib/nginx/modules/ngx_http_dav_ext_module.so"
SABRE = "/usr/share/php/Sabre/autoload.php"
APACHE_DAV = "/usr/lib/apache2/modules/mod_dav_fs.so"

Command = list[str]


class NotStarted(Exception):
    """A server that ended, or did not listen in time."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a server finds what it serves and what it may write beside it."""

    run: Path  # its configuration, logs and temporary files
    root: Path  # the folder it serves; for davsql the store's file
    port: int


@dataclass(frozen=True, slots=True)
class Peer:
    """A kind of server."""

    key: str
    title: str
    commands: Callable[[Site], list[Command]]
    needs: tuple[str, ...] = ()  # programs, by name, and files, by path
    package: str = ""  # of Debian
    version: tuple[str, ...] = ()  # the command that tells it
    owner: str | None = None  # the user that it works as when root starts it

    def missing(self) -> list[str]:
        """What of `needs` is not here."""
        return [each for each in self.needs if not _is_there(each)]

    @property
    def stores(self) -> bool:
        """Whether it keeps files at all."""
        return self.key != HELLO

    @property
    def is_ours(self) -> bool:
        """Whether it is davsql."""
        return self.key.startswith("davsql")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    peer: Peer
    port: int
    processes: tuple[subprocess.Popen[bytes], ...]

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def pids(self) -> list[int]:
        """All its processes."""
        return [pid for process in self.processes for pid in machine.processes_below(process.pid)]

    def is_alive(self) -> bool:
        """Whether all that were started still run."""
        return all(process.poll() is None for process in self.processes)

    def stop(self) -> None:
        """End it, and what it started."""
        pids = self.pids()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        started = {process.pid for process in self.processes}
        for pid in set(pids) - started:
            _kill(pid)


def start(peer: Peer, run: Path, root: Path) -> Server:
    """Start `peer` on a free port and wait until it listens.

    Raises:
        NotStarted: with the end of its log.
    """
    run.mkdir(parents=True)
    run.chmod(0o777)  # servers that give up root write here as well
    site = Site(run, root, _free_port())
    log = run / "log.txt"
    with log.open("ab") as output:
        processes = tuple(
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            for command in peer.commands(site)
        )
    server = Server(peer, site.port, processes)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _listens(site.port):
        if time.monotonic() > deadline or not server.is_alive():
            server.stop()
            raise NotStarted(log.read_text(encoding="utf-8", errors="replace")[-500:].strip() or "no message")
        time.sleep(0.02)
    return server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_there(need: str) -> bool:
    return Path(need).exists() if need.startswith("/") else _program(need) != ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _program(name: str) -> str:
    """The path of a program; php-fpm bears its version in its name."""
    if name == "php-fpm":
        return str(next(iter(sorted(Path("/usr/sbin").glob("php-fpm*"))), ""))
    return machine.find_program(name) or ""


def _fill(site: Site, template: str, more: Mapping[str, object] | None = None) -> str:
    """Write a configuration into the server's folder; return its path."""
    as_root = os.geteuid() == 0
    values = {
        "run": site.run,
        "root": site.root,
        "port": site.port,
        "apps": TEMPLATES,
        "processors": os.cpu_count() or 1,
        "user_line": "user root;" if as_root else "",
        "user": "www-data",
        **(more or {}),
    }
    path = site.run / template
    path.write_text(Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
    return str(path)


def _davsql(durability: str) -> Callable[[Site], list[Command]]:
    def commands(site: Site) -> list[Command]:
        config = _fill(site, "davsql.toml", {"durability": durability})
        return [[sys.executable, "-m", "davsql", "serve", "--config", config]]

    return commands


def _apache(site: Site) -> list[Command]:
    return [[_program("apache2"), "-D", "FOREGROUND", "-f", _fill(site, "apache.conf")]]


def _nginx_with(site: Site, template: str) -> Command:
    return [_program("nginx"), "-p", str(site.run), "-e", str(site.run / "error.log"), "-c", _fill(site, template)]


def _nginx(site: Site) -> list[Command]:
    return [_nginx_with(site, "nginx.conf")]


def _sabre(site: Site) -> list[Command]:
    as_root = os.geteuid() == 0
    pool = {"pool_user": "user = root\ngroup = root" if as_root else "", "php_processes": 2 * (os.cpu_count() or 1)}
    php = [_program("php-fpm"), "--nodaemonize", "--fpm-config", _fill(site, "sabre.php-fpm.conf", pool)]
    return [[*php, "--allow-to-run-as-root"] if as_root else php, _nginx_with(site, "sabre.nginx.conf")]


def _lighttpd(site: Site) -> list[Command]:
    return [[_program("lighttpd"), "-D", "-f", _fill(site, "lighttpd.conf")]]


def _rclone(site: Site) -> list[Command]:
    where = ["--addr", f"127.0.0.1:{site.port}", "--config", "", "--cache-dir", str(site.run)]
    return [[_program("rclone"), "serve", "webdav", str(site.root), *where, "--log-level", "ERROR"]]


def _python(app: str) -> Callable[[Site], list[Command]]:
    return lambda site: [[sys.executable, str(HERE / app), str(site.port), str(site.root)]]


HELLO = "hello"
PEERS = (
    Peer("davsql", "davsql", _davsql("full")),
    Peer("davsql-normal", "davsql, normal", _davsql("normal")),
    Peer(
        "apache",
        "Apache mod_dav",
        _apache,
        ("apache2", APACHE_DAV),
        "apache2-bin",
        ("apache2", "-v"),
        "www-data",
    ),
    Peer("nginx", "nginx dav-ext", _nginx, ("nginx", NGINX_DAV), "nginx libnginx-mod-http-dav-ext", ("nginx", "-v")),
    Peer(
        "lighttpd",
        "lighttpd",
        _lighttpd,
        ("lighttpd", "/usr/lib/lighttpd/mod_webdav.so"),
        "lighttpd lighttpd-mod-webdav",
        ("lighttpd", "-v"),
    ),
    Peer("rclone", "rclone serve", _rclone, ("rclone",), "rclone", ("rclone", "version")),
    Peer(
        "sabre",
        "sabre/dav",
        _sabre,
        ("php-fpm", "nginx", SABRE),
        "php-sabre-dav php-fpm php-xml php-mbstring php-sqlite3 nginx",
        ("dpkg-query", "--show", "--showformat=sabre/dav ${Version}", "php-sabre-dav"),
    ),
    Peer("wsgidav", "WsgiDAV", _python("wsgidav_app.py")),
    Peer(HELLO, "cheroot, hello", _python("hello_app.py")),
)


def version_of(peer: Peer) -> str:
    """What `peer` says of its version, or where it comes from."""
    if not peer.version:
        return "this version" if peer.is_ours else "as locked for davsql"
    program = _program(peer.version[0])
    return machine.first_line_of(program, *peer.version[1:]) if program else "unknown"


def remove_folder(folder: Path) -> None:
    """Remove what servers wrote, whoever owns it."""
    shutil.rmtree(folder, ignore_errors=True)
