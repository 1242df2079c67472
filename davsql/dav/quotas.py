"""How much may be held in a share, by each user and by all together (RFC 4331)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from davsql.dav.access import Kind, Named
from davsql.model import NO_LIMITS, Limit, Limits, Principal

MIB = 1024 * 1024
_CACHED_PRINCIPALS = 4096


@dataclass(frozen=True, slots=True)
class QuotaOptions(Named):
    """One table [[share.quota]]: how much each of these users may hold."""

    mb: int | None = None  # MiB of files
    nodes: int | None = None  # files and folders

    def __post_init__(self) -> None:
        """Raises: ValueError: it says nothing, or about nobody; the message begins with the key."""
        self.require_names()
        if self.mb is None and self.nodes is None:
            raise ValueError("mb or nodes is missing")


class ShareQuotas:
    """All quotas of one share. Threads: any."""

    def __init__(self, share: Limit = NO_LIMITS.share, quotas: Sequence[QuotaOptions] = ()) -> None:
        """Args: share: for all users together."""
        self._share = share
        self._quotas = tuple(quotas)
        self._has_some = bool(share.is_limited or quotas)
        self._known = lru_cache(_CACHED_PRINCIPALS)(self._limits_of)

    def limits_of(self, principal: Principal) -> Limits:
        """What applies to the principal: of the quotas that name a user best, the largest numbers."""
        return self._known(principal) if self._has_some else NO_LIMITS

    def _limits_of(self, principal: Principal) -> Limits:
        kinds = {quota: quota.kind_for(principal) for quota in self._quotas}
        best = max(kinds.values(), default=Kind.NOBODY)
        if best is Kind.NOBODY:
            return Limits(share=self._share)
        chosen = [quota for quota, kind in kinds.items() if kind is best]
        sizes = [None if quota.mb is None else quota.mb * MIB for quota in chosen]
        return Limits(Limit(_largest([quota.nodes for quota in chosen]), _largest(sizes)), self._share)


def _largest(limits: Sequence[int | None]) -> int | None:
    """None is what a quota does not speak of."""
    return max((limit for limit in limits if limit is not None), default=None)


def limit_of(mb: int | None, nodes: int | None) -> Limit:
    """The limit of a whole share."""
    return Limit(nodes, None if mb is None else mb * MIB)
