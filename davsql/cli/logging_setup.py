"""Where log records go: one line an event, with nothing in it that a terminal or a log reader might act upon."""

from __future__ import annotations

import logging
import logging.handlers
import os
import time
from io import TextIOWrapper

from davsql.cli.printing import printable
from davsql.config import LogOptions
from davsql.requestid import current

# Loggers of libraries: they tell of every request and every client that went away.
_LIBRARIES = ("wsgidav", "cheroot")


class OneLine(logging.Formatter):
    """`2026-11-23T12:00:00.123Z WARNING davsql.store.writer: message`; line ends of a traceback as `\\n`.

    What is logged while a request is served ends with ` [ID]`, the request's id.
    """

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        request_id = current()
        line = printable(super().format(record))
        return f"{line} [{request_id}]" if request_id else line


def set_up_logging(options: LogOptions) -> None:
    """Send the records of the whole process to standard error, or to the file that the options name.

    Raises:
        OSError: the file cannot be opened.
    """
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    handler = _handler(options)
    handler.setFormatter(OneLine())
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[options.level.upper()]
    root.setLevel(level)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(level if level <= logging.DEBUG else logging.ERROR)


def _handler(options: LogOptions) -> logging.Handler:
    if options.file is None:
        return logging.StreamHandler()
    if os.name == "nt":  # an open file cannot be renamed there, so there is no rotation to notice
        return logging.FileHandler(options.file, encoding="utf-8")
    return _PrivateFile(options.file, encoding="utf-8")


class _PrivateFile(logging.handlers.WatchedFileHandler):
    """A log that is made for its owner only: it has names of people and of their files."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return os.fdopen(descriptor, "a", encoding=self.encoding)
