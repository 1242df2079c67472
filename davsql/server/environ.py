"""The WSGI environ of a request (PEP 3333)."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import unquote_to_bytes

from davsql.server.body import Body
from davsql.server.head import RequestHead


def base_environ(address: tuple[str, int], scheme: str) -> dict[str, Any]:
    """What all requests of one server have in common."""
    host, port = address
    return {
        "SCRIPT_NAME": "",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_SOFTWARE": "davsql",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,  # read() ends at the end of the body, chunked ones too
    }


def make_environ(base: dict[str, Any], head: RequestHead, body: Body, peer: tuple[str, int]) -> dict[str, Any]:
    """The environ of one request.

    REQUEST_URI is the target as sent. PATH_INFO is percent-decoded; bytes that are no UTF-8 pass as latin-1, as WSGI
    wants it, and an escape that is none stays as it is: the application answers such paths.
    """
    environ = base | head.variables
    path = head.path
    environ["PATH_INFO"] = unquote_to_bytes(path.encode("latin-1")).decode("latin-1") if "%" in path else path
    environ["QUERY_STRING"] = head.query
    environ["REQUEST_METHOD"] = head.method
    environ["REQUEST_URI"] = head.target
    environ["SERVER_PROTOCOL"] = "HTTP/" + head.version
    environ["REMOTE_ADDR"] = peer[0]
    environ["REMOTE_PORT"] = str(peer[1])
    environ["wsgi.input"] = body
    return environ
