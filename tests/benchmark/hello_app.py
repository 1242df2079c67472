"""cheroot as it comes, with an application that does nothing: 4 KiB for each GET, 201 for each PUT."""

from __future__ import annotations

import sys
from wsgiref.types import StartResponse, WSGIEnvironment

from cheroot import wsgi

BODY = bytes(4096)


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """The application (PEP 3333)."""
    left = int(environ.get("CONTENT_LENGTH") or 0)
    while left > 0:
        block = environ["wsgi.input"].read(min(left, 262144))
        if not block:
            break
        left -= len(block)
    status, body = ("200 OK", BODY) if environ["REQUEST_METHOD"] in {"GET", "HEAD"} else ("201 Created", b"")
    start_response(status, [("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


server = wsgi.Server(("127.0.0.1", int(sys.argv[1])), hello, request_queue_size=512)
server.keep_alive_conn_limit = 1000
server.start()
