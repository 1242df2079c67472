"""Addresses to listen at: who reaches them, and why one cannot be had."""

from __future__ import annotations

import ipaddress
import re
import socket

_SYSTEM_ERROR = re.compile(r"\[(?:Errno|WinError) \d+\] ([^()]*)")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at `host`, under each of the addresses that it stands for.

    Raises:
        OSError, UnicodeError: it is no address.
    """
    found = {entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)


def reason_of(error: OSError) -> str:
    """What the system said: cheroot puts it into a text of its own and drops the number."""
    reason = _SYSTEM_ERROR.search(str(error))
    return reason.group(1) if reason else str(error)


def url_of(host: str, port: int) -> str:
    """`http://HOST:PORT/`."""
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
