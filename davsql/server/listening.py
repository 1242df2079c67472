"""Listening sockets of several processes on one port (SO_REUSEPORT): Linux spreads connections over them.

Each worker has a socket of its own, which the supervisor keeps: connections that came while a worker was being replaced
wait in it for the next one. A socket that all share would wake all of them for each connection.
Source: socket(7), SO_REUSEPORT.
"""

from __future__ import annotations

import os
import socket
import sys

IS_SPREAD = sys.platform == "linux"  # elsewhere the last socket gets all connections, or there is no such option

WORKERS_USUALLY = 4


def default_workers() -> int:
    """As many processes as there are processors to use, up to four; one where connections are not spread."""
    return min(WORKERS_USUALLY, len(os.sched_getaffinity(0))) if sys.platform == "linux" else 1


def bind(host: str, port: int) -> socket.socket:
    """A socket for the first worker, bound and not listening yet; it tells the port where `port` is 0.

    Raises:
        OSError: the address cannot be used, or another program listens there.
    """
    errors: list[OSError] = []
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            if port:
                with _socket(family, kind, protocol) as probe:
                    probe.bind(address)  # fails where somebody listens, also a davsql that would share the port
            return _bound(_socket(family, kind, protocol), address)
        except OSError as error:
            errors.append(error)
    raise errors[0]


def bind_beside(first: socket.socket) -> socket.socket:
    """Another one at the same address.

    Raises:
        OSError: it cannot be had.
    """
    return _bound(_socket(first.family, first.type, first.proto), first.getsockname())


def _socket(family: int, kind: int, protocol: int) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _bound(made: socket.socket, address: object) -> socket.socket:
    try:
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)  # type: ignore[arg-type]
    except OSError:
        made.close()
        raise
    return made
