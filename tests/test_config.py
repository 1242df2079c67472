from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from davsql.config import BOUNDS, PER_SHARE, TABLES, Config, ShareOptions, load, option_classes
from davsql.dav.access import RuleOptions
from davsql.dav.quotas import QuotaOptions
from davsql.errors import ConfigError

SHARE = "[[share]]\nname = 'a'\ndb = 'a.db'\n"
RULE = SHARE + "[[share.rule]]\n"
QUOTA = SHARE + "[[share.quota]]\n"
ALLOW = RULE + "users = ['a']\nallow = []\n"
EXAMPLE = Path(__file__).parent.parent / "config" / "davsql.example.toml"


def keys_of_table(table: str) -> list[str]:
    """Every key that a table of the file may have."""
    classes = option_classes()
    keys = [each.name for part in TABLES[table] for each in fields(classes[part])]
    return [key for key in keys if f"{table}.{key}" not in PER_SHARE]


def text_of_table(table: str) -> str:
    found = re.search(rf"(?ms)^\[{table}\]$(.*?)(?=^\[|\Z)", EXAMPLE.read_text(encoding="utf-8"))
    assert found is not None, f"the example has no table [{table}]"
    return found.group(1)


def load_text(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "davsql.toml"
    file.write_text(text, encoding="utf-8")
    return load(file)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "davsql.toml"))
    return message.removeprefix(str(tmp_path / "davsql.toml") + ": ")


def test_example__says_the_true_defaults() -> None:
    assert load(EXAMPLE) == Config()


@pytest.mark.parametrize("table", TABLES)
def test_example__documents_every_key(table: str) -> None:
    text = text_of_table(table)
    assert [key for key in keys_of_table(table) if not re.search(rf"(?m)^(# )?{key} = ", text)] == []


def test_example__its_commented_keys_can_be_set(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^# (?=\w+ = |\[\[share(?:\.rule|\.quota)?\]\]$)", "", EXAMPLE.read_text(encoding="utf-8"))
    config = load_text(tmp_path, text)
    assert config.store.readers == 8
    assert config.log.file == tmp_path / "davsql.log"
    assert config.shares == (
        ShareOptions(
            "photos",
            tmp_path / "photos.db",
            users=("ann",),
            groups=("family",),
            quota_mb=100_000,
            key_file=tmp_path / "photos.key",
        ),
        ShareOptions(
            "documents",
            Path("/srv/documents.db"),
            quota_nodes=1_000_000,
            quota=(
                QuotaOptions(("*",), mb=1000),
                QuotaOptions(("bob",), ("staff",), mb=20_000, nodes=100_000),
            ),
            rule=(
                RuleOptions(("*",), path="/", allow=("read",)),
                RuleOptions(("bob",), ("staff",), path="/projects", allow=("read", "write", "delete")),
                RuleOptions(("bob",), path="/projects/secret", allow=()),
                RuleOptions(("*",), path="/home/{user}", allow=("read", "write", "delete")),
            ),
        ),
    )


def test_bounds__are_about_keys_that_exist() -> None:
    assert [key for key in BOUNDS if key.partition(".")[2] not in keys_of_table(key.partition(".")[0])] == []


def test_load__empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_text(tmp_path, "") == Config()


def test_load__sets_what_the_file_says_and_leaves_the_rest(tmp_path: Path) -> None:
    config = load_text(tmp_path, '[server]\nport = 0\nthreads = 3\ntimeout_s = 9\n[store]\ndurability = "normal"\n')
    assert (config.listen.port, config.listen.host) == (0, Config().listen.host)
    assert (config.server.threads, config.server.backlog) == (3, Config().server.backlog)
    assert config.server.timeout_s == 9.0
    assert isinstance(config.server.timeout_s, float)
    assert config.store.durability == "normal"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sever]\n", "sever: unknown key; did you mean server?"),
        ("[server]\nprot = 1\n", "server.prot: unknown key; did you mean port?"),
        ("[log]\nxyzzy = 1\n", "log.xyzzy: unknown key; known here: level, file"),
        ("server = 1\n", "server: expected a table, found 1"),
        ("[server]\nport = '80'\n", "server.port: expected a whole number from 0 to 65535, found '80'"),
        ("[server]\nport = 65536\n", "server.port: expected a whole number from 0 to 65535, found 65536"),
        ("[server]\nport = true\n", "server.port: expected a whole number from 0 to 65535, found true"),
        ("[server]\nport = 80.0\n", "server.port: expected a whole number from 0 to 65535, found 80.0"),
        ("[server]\nhost = 1\n", "server.host: expected text in quotes, found 1"),
        ("[server]\nworkers = 0\n", "server.workers: expected a whole number from 1 to 256, found 0"),
        ("[backup]\nverify = 1\n", "backup.verify: expected true or false, found 1"),
        ("[server]\ntimeout_s = -1\n", "server.timeout_s: expected a number of at least 0, found -1"),
        ("[server]\ntimeout_s = nan\n", "server.timeout_s: expected a number of at least 0, found nan"),
        ("[server]\ntimeout_s = inf\n", "server.timeout_s: expected a number of at least 0, found inf"),
        (
            "[server]\ntrusted_proxies = '::1'\n",
            "server.trusted_proxies: expected a list, found '::1'",
        ),
        (
            "[server]\ntrusted_proxies = [1]\n",
            "server.trusted_proxies: expected text in quotes, found 1",
        ),
        ("[server]\ntrusted_proxies = ['x']\n", "server.trusted_proxies: expected addresses or networks like"),
        ("[server]\npublic_url = 'x'\n", "server.public_url: expected something like 'https://dav.example.org'"),
        ("[server]\npublic_url = 'http://x/..'\n", "server.public_url: expected something like"),
        ("[accounts]\nnever_blocked = ['x']\n", "accounts.never_blocked: expected addresses or networks like"),
        ("[accounts]\ntrusted_user_header = 'a b'\n", "accounts.trusted_user_header: expected the name of a header"),
        ("[store]\ndurability = 'none'\n", "store.durability: expected one of 'full', 'normal', found 'none'"),
        ("[store]\nread_only = true\n", "store.read_only: unknown key"),
        ("[store]\npage_size = 5000\n", "store.page_size: expected a power of two, found 5000"),
        ("[log]\nfile = ''\n", "log.file: expected a path in quotes, found ''"),
        ("[backup]\nschedule = 'often'\n", "backup.schedule: expected hourly, daily, weekly or five fields of cron"),
        ("[backup]\nschedule = '61 * * * *'\n", "backup.schedule: Bad minute"),
        ("share = 1\n", "share: expected tables [[share]], found 1"),
        ("[[share]]\nname = 'a'\n", "share[1].db is missing"),
        ("[[share]]\nname = 'a'\ndb = 'a.db'\nsize = 1\n", "share[1].size: unknown key"),
        ("[[share]]\nname = 'a/b'\ndb = 'a.db'\n", "share[1].name: a name cannot hold the character U+002F"),
        ("[[share]]\nname = '..'\ndb = 'a.db'\n", "share[1].name: a name cannot be '..'"),
        (SHARE + "users = 'ann'\n", "share[1].users: expected a list, found 'ann'"),
        (SHARE + "users = [1]\n", "share[1].users: expected text in quotes, found 1"),
        (SHARE + "rule = 1\n", "share[1].rule: expected tables, found 1"),
        (RULE + "users = ['a']\n", "share[1].rule[1].allow is missing; an empty list allows nothing"),
        (RULE + "allow = []\n", "share[1].rule[1].users or groups is missing: it is about nobody"),
        (
            RULE + "users = ['a']\nallow = ['all']\n",
            "share[1].rule[1].allow: expected one of 'read', 'write', 'delete'",
        ),
        (RULE + "user = ['a']\n", "share[1].rule[1].user: unknown key; did you mean users?"),
        (QUOTA + "users = ['a']\n", "share[1].quota[1].mb or nodes is missing"),
        (QUOTA + "mb = 1\n", "share[1].quota[1].users or groups is missing: it is about nobody"),
        (QUOTA + "users = ['a']\nmb = -1\n", "share[1].quota[1].mb: expected a whole number of at least 0, found -1"),
        (ALLOW + "path = 'a'\n", "share[1].rule[1].path: expected a path in the share that begins with a slash"),
        (ALLOW + "path = '/a/../b'\n", "share[1].rule[1].path: a name cannot be '..'"),
        (ALLOW + "path = '/home/x-{user}'\n", "share[1].rule[1].path: {user} must be one whole name"),
    ],
)
def test_load__refuses_and_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("name='a'\ndb='1'", "name='a'\ndb='2'", "share[2].name: another share is called 'a' too"),
        ("name='\u00e9'\ndb='1'", "name='e\u0301'\ndb='2'", "share[2].name: another share is called"),
        ("name='a'\ndb='1'", "name='b'\ndb='./1'", "share[2].db: another share uses"),
        ("name='/'\ndb='1'", "name='b'\ndb='2'", "share.name: a share mounted at / must be the only one"),
    ],
)
def test_load__refuses_shares_that_clash(tmp_path: Path, first: str, second: str, message: str) -> None:
    assert refusal(tmp_path, f"[[share]]\n{first}\n[[share]]\n{second}\n").startswith(message)


def test_load__refuses_backups_that_would_be_mixed_up(tmp_path: Path) -> None:
    shares = "[[share]]\nname='a'\ndb='1/s.db'\n[[share]]\nname='b'\ndb='2/s.db'\n"
    assert len(load_text(tmp_path, shares).shares) == 2
    message = refusal(tmp_path, f"[backup]\nfolder='b'\n{shares}")
    assert message.startswith("share.db: the backups of several stores called 's' would be mixed up in ")


def test_load__root_share(tmp_path: Path) -> None:
    (share,) = load_text(tmp_path, "[[share]]\nname = '/'\ndb = '/srv/a.db'\nread_only = true\n").shares
    assert (share.mount, share.db, share.read_only) == ("/", Path("/srv/a.db"), True)


def test_load__missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'no.toml'}: No such file or directory")):
        load(tmp_path / "no.toml")


def test_load__syntax_error_is_named_with_its_place(tmp_path: Path) -> None:
    assert "line 2" in refusal(tmp_path, "[server]\nport =\n")
