"""Foreign XML, parsed without trust.

Rules:
 1. A document type declaration is refused before libxml2 sees it: no entities, no DTD, no network (RFC 4918 20.6).
 2. What a body within the size limit can make large is counted: tags, depth, attributes, namespace declarations.
 3. lxml keeps every name it ever saw in a dictionary of the thread until that thread ends: 100 bodies of new names cost
    90 MB for good. So a document is parsed and read in a thread of its own.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import TypeVar

from lxml import etree

from davsql.dav.responses import HttpError

MAX_DEPTH = 64
MAX_TAGS = 20_000  # opening and closing; 1 MiB could hold 260,000
MAX_ATTRIBUTES = 10_000
MAX_NAMESPACES = 1024  # declarations; serialising an element costs their number squared

# XML 1.0 4.3.3: the encodings every processor reads, and two that are parts of them or cannot hide a character.
_ENCODINGS = {"utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "ascii", "ascii": "ascii", "iso-8859-1": "latin-1"}
_DECLARATION = re.compile(r"<\?xml\s[^<>]{0,200}\?>")
_DECLARED_ENCODING = re.compile(rb"""<\?xml\s[^<>]{0,150}?\sencoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")

_Value = TypeVar("_Value")


def read_apart(read: Callable[[etree._Element], _Value], body: bytes) -> _Value:
    """What `read` makes of a parsed body, in a thread that ends afterwards (rule 3); `read` returns plain values.

    Raises:
        HttpError: 400, or what `read` raises.
    """
    values: list[_Value] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            values.append(read(parse(body)))
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=run, name="xml")
    thread.start()
    thread.join()
    if errors:
        raise errors[0].with_traceback(None) from None
    return values[0]


def parse(body: bytes) -> etree._Element:
    """Parse an XML body without trusting it; comments and processing instructions are dropped (RFC 4918 17).

    Raises:
        HttpError: 400.
    """
    text = _text_of(body)
    _refuse_doctype(text)
    if text.count("<") > MAX_TAGS or text.count("xmlns") > MAX_NAMESPACES:
        raise bad_body("the XML body has too many elements or namespaces")
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        collect_ids=False,
    )
    try:
        root = etree.fromstring(text.encode("utf-8"), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise bad_body("the XML body is not well-formed") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise bad_body("the XML body has a document type declaration")
    _check_shape(root)
    return root


def _text_of(body: bytes) -> str:
    """The characters of a body without its XML declaration; UTF-16 with or without a byte order mark (XML 1.0 F.1)."""
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif body.startswith(b"<\x00"):
        encoding = "utf-16-le"
    elif body.startswith(b"\x00<"):
        encoding = "utf-16-be"
    elif (found := _DECLARED_ENCODING.match(body)) is not None:
        encoding = _ENCODINGS.get(found[1].decode().lower(), "")
    else:
        encoding = "utf-8-sig"
    if not encoding:
        raise bad_body("an XML body must be encoded in UTF-8 or UTF-16")
    try:
        text = body.decode(encoding)
    except UnicodeError:
        raise bad_body("the XML body is not in its encoding") from None
    return text if (declaration := _DECLARATION.match(text)) is None else text[declaration.end() :]


def _refuse_doctype(text: str) -> None:
    # A document type declaration can stand between the declaration and the root element only (XML 1.0 2.8).
    position = 0
    while (position := text.find("<", position)) >= 0:
        if text.startswith("<!--", position):
            position = text.find("-->", position + 4)
        elif text.startswith("<?", position):
            position = text.find("?>", position + 2)
        elif text.startswith("<!", position):
            raise bad_body("the XML body has a document type declaration")
        else:
            return
        if position < 0:
            return  # unclosed: not well-formed


def _check_shape(root: etree._Element) -> None:
    depth, attributes = 0, 0
    level = [root]
    while level:
        depth += 1
        attributes += sum(len(element.attrib) for element in level)
        if depth > MAX_DEPTH or attributes > MAX_ATTRIBUTES:
            raise bad_body("the XML body is nested too deeply or has too many attributes")
        level = [child for element in level for child in element]


def bad_body(message: str) -> HttpError:
    """The error for a body that is not what RFC 4918 14 asks for."""
    return HttpError(400, message)
