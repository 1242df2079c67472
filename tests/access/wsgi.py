"""The application without a server: each request brings its principal along, as authentication would."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any

from davsql.dav.access import RuleOptions, ShareRules
from davsql.dav.application import make_application
from davsql.dav.quotas import ShareQuotas
from davsql.dav.request import PRINCIPAL_KEY, DavOptions
from davsql.model import Principal
from davsql.store.store import Store
from tests.dav.answers import responses
from tests.http_client import Reply

HOST = "drive.example"


@dataclass(frozen=True)
class Site:
    """Some shares under one application."""

    application: Any

    def ask(
        self,
        who: Principal,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request; the target is as in a request line."""
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "REQUEST_URI": target,
            "SCRIPT_NAME": "",
            "PATH_INFO": target,
            "QUERY_STRING": target.partition("?")[2],
            "SERVER_NAME": HOST,
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": HOST,
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
            PRINCIPAL_KEY: who,
        }
        environ |= {"HTTP_" + name.upper().replace("-", "_"): value for name, value in (headers or {}).items()}
        started: list[Any] = []
        answer = self.application(environ, lambda *arguments: started.append(arguments))
        content = b"".join(answer)
        close = getattr(answer, "close", None)
        if close is not None:
            close()
        status, pairs = started[-1][:2]
        return Reply(int(status.split()[0]), status[4:], _message(pairs), content)

    def listed(self, who: Principal, target: str, depth: str) -> set[str] | int:
        """The hrefs of a PROPFIND; the status when it is refused."""
        reply = self.ask(who, "PROPFIND", target, headers={"Depth": depth})
        return set(responses(reply)) if reply.status == 207 else reply.status

    def put(self, who: Principal, target: str, body: bytes = b"x") -> int:
        """The status of a PUT."""
        return self.ask(who, "PUT", target, body).status


def site(
    shares: Mapping[str, tuple[Store, tuple[RuleOptions, ...]]], quotas: Mapping[str, ShareQuotas] | None = None
) -> Site:
    """Args: shares: by mount path."""
    rules = {mount: ShareRules(mount.strip("/"), each) for mount, (_, each) in shares.items()}
    stores = {mount: store for mount, (store, _) in shares.items()}
    return Site(make_application(stores, DavOptions(), rules=rules, quotas=quotas))


def one_share(store: Store, *rules: RuleOptions) -> Site:
    """A share at the root of the server."""
    return site({"/": (store, rules)})


def user(name: str, *groups: str) -> Principal:
    """Somebody with a password."""
    return Principal(name, frozenset(groups))


def rule(path: str, who: str, allow: str) -> RuleOptions:
    """Args: who: names with spaces between them, groups begin with an @; allow: initials of rights."""
    names = who.split()
    users = tuple(name for name in names if not name.startswith("@"))
    groups = tuple(name[1:] for name in names if name.startswith("@"))
    known = {"r": "read", "w": "write", "d": "delete"}
    return RuleOptions(users, groups, path=path, allow=tuple(known[initial] for initial in allow))  # type: ignore[misc]


def _message(pairs: list[tuple[str, str]]) -> Any:
    message = Message()
    for name, value in pairs:
        message[name] = value
    return message
