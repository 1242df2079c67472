"""Addresses of clients and the networks that settings name."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_REMEMBERED = 4096  # to parse an address costs more than all else that a request does with it

IPV6_PREFIX = 64  # what one customer has at the least: an attacker there has 2^64 addresses to come from


class Networks:
    """A set of networks: `"10.1.2.3" in Networks(["10.0.0.0/8"])`. Threads: any."""

    __slots__ = ("_networks",)

    def __init__(self, texts: Iterable[str]) -> None:
        """Raises ValueError for what is neither an address nor a network."""
        self._networks = [ipaddress.ip_network(text, strict=False) for text in texts]

    def __contains__(self, text: str) -> bool:
        if not self._networks or (address := _parsed(text)) is None:
            return False
        return any(address in network for network in self._networks)


def checked_networks(key: str, texts: Iterable[str]) -> None:
    """Raise ValueError, beginning with the name of the setting, when one of its networks is none."""
    for text in texts:
        try:
            Networks([text])
        except ValueError:
            raise ValueError(f"{key}: expected addresses or networks like '10.0.0.0/8', found {text!r}") from None


@lru_cache(_REMEMBERED)
def plain_address(text: str) -> str | None:
    """An address in its one form, IPv4 inside IPv6 as IPv4; None when it is none."""
    address = _parsed(text)
    return None if address is None else str(address)


@lru_cache(_REMEMBERED)
def is_local(text: str) -> bool:
    """Whether it is a loopback address."""
    address = _parsed(text)
    return address is not None and address.is_loopback


def neighbourhood(text: str) -> str:
    """What to count an address under: itself, or its network where whoever has one has many."""
    address = _parsed(text)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
    return text if address is None else str(address)


@lru_cache(_REMEMBERED)
def _parsed(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
