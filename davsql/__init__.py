"""A network drive in one SQLite file: a WebDAV server."""

__version__ = "0.1.0"
