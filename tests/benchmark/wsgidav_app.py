"""WsgiDAV over a folder on cheroot, with the threads that its own command line gives it."""

from __future__ import annotations

import sys

from cheroot import wsgi
from wsgidav.fs_dav_provider import FilesystemProvider
from wsgidav.wsgidav_app import WsgiDAVApp

THREADS = 50  # what `wsgidav --server cheroot` sets


def main(port: int, root: str) -> None:
    """Serve until killed."""
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "provider_mapping": {"/": FilesystemProvider(root)},
        "simple_dc": {"user_mapping": {"*": True}},
        "property_manager": True,
        "lock_storage": True,
        "logging": {"enable": False},
    }
    server = wsgi.Server(("127.0.0.1", port), WsgiDAVApp(settings), numthreads=THREADS)
    # cheroot's own (5 and 10) let clients beyond the tenth wait for seconds; that would be measured, not WsgiDAV.
    server.request_queue_size, server.keep_alive_conn_limit = 512, 1000
    server.start()


main(int(sys.argv[1]), sys.argv[2])
