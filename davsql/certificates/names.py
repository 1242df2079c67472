"""By which names and addresses other machines may call this one."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress

from davsql.networks import plain_address

_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
# Where the way to the whole world leads; nothing is sent there. Documentation addresses (RFC 5737, RFC 3849).
_FAR_AWAY = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def names_of_machine() -> list[str]:
    """Its names, the one of multicast DNS too (RFC 6762), and its addresses, those of loopback too."""
    names = {"localhost", "127.0.0.1", "::1"}
    for name in (socket.gethostname(), socket.getfqdn()):
        names.add(name.lower())
    short = socket.gethostname().lower().partition(".")[0]
    names |= {short, f"{short}.local"}
    return checked({*names, *_addresses()})


def checked(names: Iterable[str]) -> list[str]:
    """Those that can stand in a certificate, each once, in its one form, in order."""
    found = set()
    for name in names:
        bare = name.lower().strip("[]").rstrip(".")
        address = plain_address(bare)
        if address is not None:
            if not ipaddress.ip_address(address).is_unspecified:
                found.add(address)
        elif _NAME.fullmatch(bare) and not bare.endswith(".arpa"):
            found.add(bare)
    return sorted(found)


def _addresses() -> Iterator[str]:
    with suppress(OSError):
        for entry in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM):
            yield _without_zone(str(entry[4][0]))
    for family, address in _FAR_AWAY:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            yield _without_zone(str(probe.getsockname()[0]))


def _without_zone(address: str) -> str:
    return address.partition("%")[0]
