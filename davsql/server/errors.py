"""A request that the server answers by itself, before or instead of the application."""

from __future__ import annotations


class RequestError(Exception):
    """The request breaks HTTP or a limit. It is answered with `status`, and the connection is closed: after broken
    framing nobody can know where the next request would start.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def bad_request(reason: str) -> RequestError:
    """A 400 with a reason that the client may read."""
    return RequestError("400 Bad Request", reason)
