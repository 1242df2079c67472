"""Pages of other origins that the configuration lets in (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol).

WsgiDAV has a middleware for this, which is not used: what ends in an exception below it, a 401 above all, would go out
without the headers, so that a page never learns why it failed; it leaves out Vary where an origin is not let in; and
it answers every preflight.
Passwords that a browser remembers are never let out to such a page (no Access-Control-Allow-Credentials): it logs in
with an Authorization header of its own, which needs a preflight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from davsql.dav.responses import Response

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

MAX_AGE_S = 600
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")  # RFC 6454 6.2
_FIELD_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")


class Cors:
    """Which origins are let in. Threads: any."""

    def __init__(self, origins: Sequence[str], methods: Sequence[str]) -> None:
        self._origins = frozenset(origins)
        self._methods = ", ".join(methods)

    def lets_in(self, environ: Mapping[str, Any]) -> bool:
        """Whether the request comes from a page of such an origin."""
        return environ.get("HTTP_ORIGIN") in self._origins

    def preflight(self, environ: Mapping[str, Any]) -> Response | None:
        """What a browser asks, without credentials, before it sends such a request; None: it is no such question."""
        if "HTTP_ACCESS_CONTROL_REQUEST_METHOD" not in environ or environ["REQUEST_METHOD"] != "OPTIONS":
            return None
        if not self.lets_in(environ):
            return None
        headers = [("Access-Control-Allow-Methods", self._methods), ("Access-Control-Max-Age", str(MAX_AGE_S))]
        asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "").strip()
        if _FIELD_NAMES.fullmatch(asked):
            headers.append(("Access-Control-Allow-Headers", asked))
        return Response(204, headers)

    def opened(self, environ: Mapping[str, Any], start_response: StartResponse) -> StartResponse:
        """A start_response that also tells the browser whether the page may see the answer."""
        if not self._origins:
            return start_response
        headers = [("Vary", "Origin")]
        if self.lets_in(environ):
            headers.append(("Access-Control-Allow-Origin", environ["HTTP_ORIGIN"]))
            headers.append(("Access-Control-Expose-Headers", "*"))

        def start(status: str, own: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*own, *headers], exc_info)

        return start


def checked_origins(origins: Sequence[str]) -> None:
    """Raise ValueError unless each is an origin as browsers write it."""
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise ValueError(f"cors_origins: expected origins like 'https://app.example.org', found {origin!r}")
