"""Where a key comes from: a file or descriptor, systemd, a command, the system's keyring, the environment, a person.

A key is never taken from the command line, which everybody on the machine can read.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from davsql.errors import BadKey, KeyMissing
from davsql.keys.secret import MAX_TEXT_BYTES, GivenKey

COMMAND_TIMEOUT_S = 120  # it may ask somebody
ENVIRONMENT = "DAVSQL_KEY"
CREDENTIALS = "CREDENTIALS_DIRECTORY"  # systemd.exec(5), LoadCredential=
KEYRING_SERVICE = "davsql"


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the key of a store is; one of them at most."""

    file: Path | None = None
    command: str | None = None
    credential: str | None = None  # name of one of systemd's
    keyring: str | None = None  # user name under which the keyring has it

    def __post_init__(self) -> None:
        """Raise ValueError when there are several."""
        given = [each.name for each in fields(self) if getattr(self, each.name) is not None]
        if len(given) > 1:
            raise ValueError(f"key_{given[0]} and key_{given[1]} say both where the key is; choose one")

    @property
    def is_given(self) -> bool:
        """Whether it names a place."""
        return any(getattr(self, each.name) is not None for each in fields(self))


def fetch_key(source: KeySource, warn: Callable[[str], None], ask: Callable[[], str] | None) -> GivenKey:
    """Get the key.

    Args:
        warn: told when the key comes from where others may see it.
        ask: asks a person for a passphrase; None: nobody is there.

    Raises:
        KeyMissing: no place is named and nobody is there; or nothing is at that place.
        BadKey: what is there is no key, or others can read it.
    """
    try:
        return GivenKey(_text(source, warn, ask))
    except BadKey as error:
        raise BadKey(f"{_place(source)}: {error}") from None


def read_key_file(file: Path, *, is_private: bool = True) -> str:
    """What a key file holds.

    Args:
        is_private: refuse one that others can read. Credentials of systemd are private by their folder, and may have an
            access list that looks like a mode.

    Raises:
        KeyMissing: there is none.
        BadKey: others can read it, or it is too large.
    """
    try:
        with file.open("rb") as opened:  # looked at after it was opened: nobody can exchange it in between
            found = os.fstat(opened.fileno())
            is_open = stat.S_ISREG(found.st_mode) and found.st_mode & 0o077
            if is_private and is_open and os.name != "nt":
                raise BadKey(f"others can read it; take that from them (chmod 600 {file}), and use another key")
            return _decoded(opened.read(MAX_TEXT_BYTES + 1))
    except FileNotFoundError:
        raise KeyMissing(f"there is no key file {file}; is its disk mounted?") from None
    except OSError as error:
        raise BadKey(f"it cannot be read: {error.strerror}") from error


def _text(source: KeySource, warn: Callable[[str], None], ask: Callable[[], str] | None) -> str:
    if source.file is not None:
        return read_key_file(source.file)
    if source.command is not None:
        return _said_by(source.command)
    if source.credential is not None:
        return _credential(source.credential)
    if source.keyring is not None:
        return _from_keyring(source.keyring)
    if ENVIRONMENT in os.environ:
        warn(f"the key comes from the environment ({ENVIRONMENT}), which other programs may see; a key file is safer")
        return os.environ[ENVIRONMENT]
    if ask is None:
        raise KeyMissing("the store is encrypted: say where its key is, with --key-file FILE or --key-command CMD")
    return ask()


def _place(source: KeySource) -> str:
    """Where the key was looked for, for messages."""
    if source.file is not None:
        return f"key file {source.file}"
    if source.command is not None:
        return "key command"
    if source.credential is not None:
        return f"credential {source.credential}"
    if source.keyring is not None:
        return f"keyring entry {source.keyring}"
    return "the key"


def _said_by(command: str) -> str:
    """The first line that a command writes; it may talk to the person at the terminal."""
    try:
        arguments = shlex.split(command)
        if not arguments:
            raise BadKey("the command is empty")
        done = subprocess.run(arguments, stdout=subprocess.PIPE, check=False, timeout=COMMAND_TIMEOUT_S)  # noqa: S603
    except (OSError, ValueError) as error:
        raise BadKey(f"it cannot be run: {error}") from error
    except subprocess.TimeoutExpired:
        raise BadKey(f"it gave no key within {COMMAND_TIMEOUT_S} s") from None
    if done.returncode:
        raise BadKey(f"it failed with exit code {done.returncode}")
    return _decoded(done.stdout)


def _credential(name: str) -> str:
    folder = os.environ.get(CREDENTIALS)
    if folder is None:
        raise KeyMissing(f"systemd has handed over no credentials; LoadCredential={name}:FILE in the unit does so")
    if Path(name).name != name:
        raise BadKey("it is no name of a credential")
    return read_key_file(Path(folder) / name, is_private=False)


def _from_keyring(user: str) -> str:
    try:
        import keyring  # noqa: PLC0415  # an extra
    except ImportError:
        raise KeyMissing("the keyring needs a package more: pip install 'davsql[keyring]'") from None
    try:
        found = keyring.get_password(KEYRING_SERVICE, user)
    except keyring.errors.KeyringError as error:
        raise BadKey(f"the keyring cannot be used: {error}") from error
    if found is None:
        raise KeyMissing(f"the keyring has no entry: keyring set {KEYRING_SERVICE} {user}")
    return str(found)


def _decoded(content: bytes) -> str:
    if len(content) > MAX_TEXT_BYTES:
        raise BadKey("it is no key: too long")
    try:
        lines = content.decode("utf-8-sig").strip().splitlines()  # editors of Windows begin a file with a mark
    except UnicodeDecodeError:
        raise BadKey("it is no key: not text") from None
    return lines[0] if lines else ""
