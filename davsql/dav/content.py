"""Content types: what a file is said to be, and what a browser must not do with it."""

from __future__ import annotations

import re
from functools import lru_cache

from davsql.model import Node

DEFAULT_TYPE = "application/octet-stream"
_TYPE_MAX_CHARS = 255
_ESSENCE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")  # RFC 6838 4.2, in lower case

# Used where no Content-Type came with PUT. A table of our own: the same on every machine.
_TYPES = {
    "7z": "application/x-7z-compressed",
    "aac": "audio/aac",
    "avi": "video/x-msvideo",
    "avif": "image/avif",
    "bmp": "image/bmp",
    "bz2": "application/x-bzip2",
    "css": "text/css",
    "csv": "text/csv",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "epub": "application/epub+zip",
    "flac": "audio/flac",
    "gif": "image/gif",
    "gz": "application/gzip",
    "heic": "image/heic",
    "htm": "text/html",
    "html": "text/html",
    "ics": "text/calendar",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "js": "text/javascript",
    "json": "application/json",
    "m4a": "audio/mp4",
    "md": "text/markdown",
    "mkv": "video/x-matroska",
    "mov": "video/quicktime",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "pdf": "application/pdf",
    "png": "image/png",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "rtf": "application/rtf",
    "svg": "image/svg+xml",
    "tar": "application/x-tar",
    "tgz": "application/gzip",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "txt": "text/plain",
    "vcf": "text/vcard",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml",
    "xz": "application/x-xz",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "zip": "application/zip",
    "zst": "application/zstd",
}

# Types that no browser runs as a document. Everything else, unknown types too, is served in a sandbox.
_INERT_KINDS = ("image/", "audio/", "video/", "font/")
_INERT_TYPES = frozenset(
    kind
    for kind in (*_TYPES.values(), "application/x-bzip2", DEFAULT_TYPE)
    if not kind.endswith(("html", "xml", "javascript", "calendar"))
)

# A stored page is somebody's content, not part of this server: no script, no forms, no frames around it, an origin of
# its own (W3C CSP level 3, sandbox).
_SANDBOX = (
    "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
)
_NOSNIFF = ("X-Content-Type-Options", "nosniff")
# Pages of other sites can neither run nor frame it with the password that a browser remembers.
PRIVATE = (_NOSNIFF, ("Cross-Origin-Resource-Policy", "same-origin"))
# What a stored page may show of its neighbours; its sandbox is another origin, which the policy above would keep out.
_EMBEDDED_KINDS = (*_INERT_KINDS, "text/css")


def content_type_of(node: Node) -> str:
    """The media type of a file: as it was sent, else by the end of its name."""
    return _served_type(node.content_type) if node.content_type else type_of_name(node.name)


@lru_cache(maxsize=1024)
def _served_type(sent: str) -> str:
    # In multipart/x-mixed-replace each part has headers of its own: no policy of ours would hold for it.
    return DEFAULT_TYPE if sent.lower().lstrip().startswith("multipart/") else sent


def type_of_name(name: str) -> str:
    """The media type that the end of a name stands for."""
    _, dot, extension = name.rpartition(".")
    return _type_of_extension(extension) if dot else DEFAULT_TYPE


@lru_cache(maxsize=1024)
def _type_of_extension(extension: str) -> str:
    return _TYPES.get(extension.lower(), DEFAULT_TYPE)


def accepted_content_type(sent: str | None) -> str | None:
    """The Content-Type of a PUT if it is fit to be kept and sent again, parameters included; else None."""
    if sent is None or len(sent) > _TYPE_MAX_CHARS or not sent.isprintable():
        return None
    return sent.strip() or None


@lru_cache(maxsize=1024)
def content_headers(content_type: str) -> tuple[tuple[str, str], ...]:
    """Content-Type and what keeps a browser from taking the content for something else, or from running it."""
    safety = (_NOSNIFF,) if content_type.lower().startswith(_EMBEDDED_KINDS) else PRIVATE
    headers = (("Content-Type", content_type), *safety)
    return headers if _is_inert(content_type) else (*headers, ("Content-Security-Policy", _SANDBOX))


def _is_inert(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    if "," in content_type or not _ESSENCE.fullmatch(kind):  # browsers take the last one of a list, or guess
        return False
    return kind in _INERT_TYPES or (kind.startswith(_INERT_KINDS) and not kind.endswith("xml"))
