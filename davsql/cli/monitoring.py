"""The admin port of `davsql serve`: where it listens, and what is said when it cannot."""

from __future__ import annotations

import logging

from davsql.errors import ListenError
from davsql.server.addresses import is_loopback, reason_of, url_of
from davsql.server.admin import AdminServer, Observed
from davsql.server.options import AdminOptions

_log = logging.getLogger(__name__)


def require_local(options: AdminOptions) -> None:
    """Refuse an address that others reach: nobody is asked for a password there.

    Raises:
        ListenError: it is such an address and `allow_remote` is false, or no address at all.
    """
    if not options.is_on or options.allow_remote:
        return
    try:
        is_local = is_loopback(options.host)
    except (OSError, UnicodeError) as error:
        raise ListenError(f"[admin] host = {options.host!r} is no address of this machine ({error})") from error
    if not is_local:
        raise ListenError(
            f"refusing to answer /health and /metrics on {options.host!r}: everybody who reaches it could read them; "
            'set [admin] host = "127.0.0.1", or allow_remote = true'
        )


def start_admin(options: AdminOptions, observed: Observed) -> AdminServer | None:
    """Listen for monitoring; None when it is off, or when no port was asked for and the usual one is taken.

    Raises:
        ListenError: the address that the configuration names cannot be used.
    """
    if not options.is_on:
        return None
    admin = AdminServer((options.host, options.wanted_port), observed)
    try:
        admin.start()
    except OSError as error:
        message = f"cannot answer /health and /metrics on {options.host}:{options.wanted_port}: {reason_of(error)}"
        if options.port is None:
            _log.warning("%s; set [admin] port to another one, or to 0 for none", message)
            return None
        raise ListenError(f"{message}; stop the program that uses the port, or set [admin] port") from error
    return admin


def announcement(admin: AdminServer) -> str:
    """Where monitoring finds what."""
    return f"health and metrics: {url_of(*admin.address)}health/ready, {url_of(*admin.address)}metrics"
