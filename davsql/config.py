"""The configuration file: TOML, checked key by key, as the options of each part.

Rule 1: a key's name, type and default stand in one place, the options class that uses it; none are repeated here.
Rule 2: what the file says is used or refused: unknown keys, wrong types and values out of bounds are a ConfigError
        that names file and key.
Rule 3: a relative path is relative to the configuration file.
"""

from __future__ import annotations

import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from davsql.accounts.options import AccountOptions
from davsql.audit.options import AuditOptions
from davsql.dav.access import RuleOptions, with_everything
from davsql.dav.peer import ProxyOptions
from davsql.dav.quotas import QuotaOptions
from davsql.dav.request import DavOptions
from davsql.errors import ConfigError, InvalidPath, NameTooLong
from davsql.keys.sources import KeySource
from davsql.maintenance.backup import BackupOptions
from davsql.maintenance.litestream import ReplicaOptions
from davsql.maintenance.thread import MaintenanceOptions
from davsql.paths import checked_name, lookup_key
from davsql.server.listening import default_workers
from davsql.server.options import AdminOptions, ServerOptions, TlsOptions
from davsql.store.options import StoreOptions

LogLevel = Literal["debug", "info", "warning", "error"]
AccessForm = Literal["off", "combined", "json"]


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """Where the server listens; part of the table [server]."""

    host: str = "127.0.0.1"
    port: int = 8080  # 0: any free one
    workers: int = field(default_factory=default_workers)  # processes


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What is logged, and where to."""

    level: LogLevel = "info"
    file: Path | None = None  # None: standard error
    access: AccessForm = "off"  # a line for each request
    access_file: Path | None = None  # None: standard error


@dataclass(frozen=True, slots=True)
class ShareOptions:
    """One table [[share]]: a store and the name under which it is served."""

    name: str  # one name of a path; "" for the root
    db: Path
    read_only: bool = False
    users: tuple[str, ...] = ()  # who may do everything here
    groups: tuple[str, ...] = ()
    quota_mb: int | None = None  # MiB of files; None: as much as there is room for
    quota_nodes: int | None = None  # files and folders
    rule: tuple[RuleOptions, ...] = ()
    quota: tuple[QuotaOptions, ...] = ()
    key_file: Path | None = None  # where the key of an encrypted store is
    key_command: str | None = None
    key_credential: str | None = None
    key_keyring: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError when it is said twice where the key is."""
        _ = self.key_source

    @property
    def key_source(self) -> KeySource:
        """Where the key is."""
        return KeySource(self.key_file, self.key_command, self.key_credential, self.key_keyring)

    @property
    def rules(self) -> tuple[RuleOptions, ...]:
        """All rules, that of `users` and `groups` too."""
        return (*with_everything(self.users, self.groups), *self.rule)

    @property
    def mount(self) -> str:
        """The path of the share: "/" or "/name"."""
        return "/" + self.name


@dataclass(frozen=True, slots=True)
class Config:
    """All that the configuration file can say."""

    listen: ListenOptions = field(default_factory=ListenOptions)
    server: ServerOptions = field(default_factory=ServerOptions)
    tls: TlsOptions = field(default_factory=TlsOptions)
    proxy: ProxyOptions = field(default_factory=ProxyOptions)
    accounts: AccountOptions = field(default_factory=AccountOptions)
    store: StoreOptions = field(default_factory=StoreOptions)
    dav: DavOptions = field(default_factory=DavOptions)
    maintenance: MaintenanceOptions = field(default_factory=MaintenanceOptions)
    backup: BackupOptions = field(default_factory=BackupOptions)
    replica: ReplicaOptions = field(default_factory=ReplicaOptions)
    admin: AdminOptions = field(default_factory=AdminOptions)
    audit: AuditOptions = field(default_factory=AuditOptions)
    log: LogOptions = field(default_factory=LogOptions)
    shares: tuple[ShareOptions, ...] = ()


# Table -> the fields of Config that it fills.
TABLES: Mapping[str, Sequence[str]] = {
    "server": ("listen", "server", "tls", "proxy"),
    "accounts": ("accounts",),
    "store": ("store",),
    "dav": ("dav",),
    "maintenance": ("maintenance",),
    "backup": ("backup",),
    "replica": ("replica",),
    "admin": ("admin",),
    "audit": ("audit",),
    "log": ("log",),
}
SHARE = "share"

# Keys of options classes that no table sets: they belong to each share, or to tests.
PER_SHARE = frozenset({"store.read_only", "store.leaves_checkpoints", "store.key", "store.vfs"})

# Numbers that make sense, where the least one is not 0 or there is a greatest one.
BOUNDS: Mapping[str, tuple[int, int | None]] = {
    "server.port": (0, 65535),
    "server.workers": (1, 256),
    "admin.port": (0, 65535),
    "audit.rotate_mb": (1, None),
    "store.cache_mb": (1, None),
    "store.readers": (1, 1024),
    "store.queue_size": (1, None),
    "store.max_depth": (1, None),
    "store.page_size": (512, 65536),
    "dav.xml_body_limit": (1024, None),
    "dav.lock_timeout_default_s": (1, None),
    "dav.lock_timeout_max_s": (1, None),
    "dav.ranges_limit": (1, None),
}

POWERS_OF_TWO = frozenset({"store.page_size"})

_Options = TypeVar("_Options")


def load(file: Path) -> Config:
    """Read a configuration file.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong.
    """
    try:
        document = tomllib.loads(file.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    return _Reader(file).config(document)


def option_classes() -> Mapping[str, type[Any]]:
    """The fields of Config that tables fill, with their options classes."""
    hints = get_type_hints(Config)
    return {name: hints[name] for names in TABLES.values() for name in names}


class _Reader:
    """Turns a parsed document into options; knows the file for the messages."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def config(self, document: Mapping[str, Any]) -> Config:
        self._refuse_unknown("", document, [*TABLES, SHARE])
        classes = option_classes()
        found: dict[str, Any] = {}
        for table, parts in TABLES.items():
            values = self._table(table, document.get(table, {}))
            settable = {part: self._settable(table, classes[part]) for part in parts}
            self._refuse_unknown(table, values, [key for keys in settable.values() for key in keys])
            for part in parts:
                of_part = {key: value for key, value in values.items() if key in settable[part]}
                found[part] = self._options(table, classes[part], of_part)
        config = Config(**found, shares=self._shares(document.get(SHARE, [])))
        self._refuse_mixed_backups(config)
        return config

    def _shares(self, tables: object) -> tuple[ShareOptions, ...]:
        if not isinstance(tables, list):
            raise self._error(SHARE, "expected tables [[share]]", tables)
        shares: list[ShareOptions] = []
        for number, table in enumerate(tables, start=1):
            key = f"{SHARE}[{number}]"
            values = self._table(key, table)
            for required in ("name", "db"):
                if required not in values:
                    raise ConfigError(f"{self._file}: {key}.{required} is missing")
            share = self._made(key, ShareOptions, values)
            shares.append(replace(share, name=self._share_name(key, share.name)))
        self._refuse_clashes(shares)
        return tuple(shares)

    def _share_name(self, key: str, name: str) -> str:
        if name in ("", "/"):
            return ""
        try:
            return checked_name(name)
        except (InvalidPath, NameTooLong) as error:
            raise ConfigError(
                f"{self._file}: {key}.name: {error}; expected one name of a path, or / for the root"
            ) from error

    def _refuse_clashes(self, shares: Sequence[ShareOptions]) -> None:
        names = [lookup_key(share.name) for share in shares]
        files = [share.db.resolve() for share in shares]
        for number, share in enumerate(shares):
            key = f"{self._file}: {SHARE}[{number + 1}]"
            if names[number] in names[:number]:
                raise ConfigError(f"{key}.name: another share is called {share.name or '/'!r} too")
            if files[number] in files[:number]:
                raise ConfigError(f"{key}.db: another share uses {share.db} too")
        if "" in names and len(names) > 1:
            raise ConfigError(f"{self._file}: {SHARE}.name: a share mounted at / must be the only one")

    def _refuse_mixed_backups(self, config: Config) -> None:
        """Backups bear the name of the store's file: those of two stores must not be taken for one another's."""
        stems = [share.db.stem for share in config.shares if not share.read_only]
        for stem in {each for each in stems if stems.count(each) > 1} if config.backup.folder else ():
            raise ConfigError(
                f"{self._file}: {SHARE}.db: the backups of several stores called {stem!r} would be mixed up in "
                f"{config.backup.folder}; give the files different names"
            )

    def _settable(self, table: str, options_class: type[Any]) -> list[str]:
        return [each.name for each in fields(options_class) if f"{table}.{each.name}" not in PER_SHARE]

    def _made(self, table: str, options_class: type[_Options], values: Mapping[str, Any]) -> _Options:
        """Options from a table of which there can be several."""
        self._refuse_unknown(table, values, [each.name for each in fields(options_class)])  # type: ignore[arg-type]
        return self._options(table, options_class, values)

    def _options(self, table: str, options_class: type[_Options], values: Mapping[str, Any]) -> _Options:
        hints = get_type_hints(options_class)
        checked = {key: self._value(f"{table}.{key}", value, hints[key]) for key, value in values.items()}
        try:
            return options_class(**checked)
        except ValueError as error:  # what an options class says itself begins with the key
            raise ConfigError(f"{self._file}: {table}.{error}") from error

    def _table(self, key: str, value: object) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self._error(key, "expected a table", value)
        return value

    def _value(self, key: str, value: object, wanted: Any) -> object:
        """`value` as the type that the options class wants."""
        if get_origin(wanted) in (types.UnionType, Union):  # X | None: TOML has no null, so a value is an X
            (wanted,) = (each for each in get_args(wanted) if each is not type(None))
        if get_origin(wanted) is Literal:
            if value not in get_args(wanted):
                raise self._error(key, "expected one of " + ", ".join(map(repr, get_args(wanted))), value)
            return value
        if get_origin(wanted) is tuple:  # of any length, of one type
            return self._tuple(key, value, get_args(wanted)[0])
        if wanted is Path:
            return self._path(key, value)
        if wanted in (int, float):
            return self._number(key, value, wanted)
        if type(value) is not wanted:
            raise self._error(key, "expected " + {bool: "true or false", str: "text in quotes"}[wanted], value)
        return value

    def _tuple(self, key: str, value: object, wanted: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise self._error(key, "expected tables" if is_dataclass(wanted) else "expected a list", value)
        if not (isinstance(wanted, type) and is_dataclass(wanted)):
            return tuple(self._value(key, each, wanted) for each in value)
        tables = {f"{key}[{number}]": each for number, each in enumerate(value, start=1)}
        return tuple(self._made(each, wanted, self._table(each, table)) for each, table in tables.items())

    def _path(self, key: str, value: object) -> Path:
        if not isinstance(value, str) or not value:
            raise self._error(key, "expected a path in quotes", value)
        return self._file.parent / Path(value).expanduser()

    def _number(self, key: str, value: object, wanted: type[int | float]) -> int | float:
        least, most = BOUNDS.get(key, (0, None))
        kind = "a whole number" if wanted is int else "a number"
        span = f"from {least} to {most}" if most is not None else f"of at least {least}"
        # bool is a subclass of int, but `port = true` is a mistake
        if isinstance(value, bool) or not isinstance(value, int if wanted is int else (int, float)):
            raise self._error(key, f"expected {kind} {span}", value)
        if not (least <= value < inf and (most is None or value <= most)):  # nan compares false
            raise self._error(key, f"expected {kind} {span}", value)
        if key in POWERS_OF_TWO and int(value).bit_count() != 1:
            raise self._error(key, "expected a power of two", value)
        return wanted(value)

    def _refuse_unknown(self, table: str, values: Mapping[str, Any], known: Sequence[str]) -> None:
        for key in values:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                remedy = f"did you mean {near[0]}?" if near else "known here: " + ", ".join(known)
                raise ConfigError(f"{self._file}: {table + '.' if table else ''}{key}: unknown key; {remedy}")

    def _error(self, key: str, expected: str, found: object) -> ConfigError:
        return ConfigError(f"{self._file}: {key}: {expected}, found {_as_toml(found)}")


def _as_toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "a table"
        case list():
            return "a list"
        case _:
            return repr(value)
