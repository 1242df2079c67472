"""Ranges (RFC 9110 14): the bytes that were asked for, told apart from the whole."""

from __future__ import annotations

from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP

from tests.http_client import Reply
from tests.lost_data.scenario import scenario
from tests.lost_data.site import Site, expect

CONTENT = bytes(range(256)) * 4


def _get(site: Site, value: str, method: str = "GET") -> Reply:
    site.put("/f", CONTENT)
    return site.request(method, "/f", None, {"Range": value})


def _parts(reply: Reply) -> list[tuple[str, bytes]]:
    """Content-Range and bytes of each part."""
    head = f"Content-Type: {reply.header('Content-Type')}\r\n\r\n".encode()
    message = BytesParser(EmailMessage, policy=HTTP).parsebytes(head + reply.body)
    if not message.is_multipart():
        return [(str(reply.header("Content-Range")), reply.body)]
    return [(str(part["Content-Range"]), part.get_content()) for part in message.iter_parts()]


@scenario(stock="parts: [('bytes 1019-1023/1024'")
def several_ranges__are_all_sent(site: Site) -> None:
    reply = _get(site, "bytes=0-9,200-219,-5")
    expect("GET", reply.status, 206)
    wanted = [
        ("bytes 0-9/1024", CONTENT[:10]),
        ("bytes 200-219/1024", CONTENT[200:220]),
        ("bytes 1019-1023/1024", CONTENT[-5:]),
    ]
    expect("parts", _parts(reply), wanted)


@scenario(stock="GET: (416, ")
def unsatisfiable_range_among_others__does_not_spoil_them(site: Site) -> None:
    reply = _get(site, "bytes=5000-5010,10-19")
    expect("GET", (reply.status, reply.header("Content-Range")), (206, "bytes 10-19/1024"))
    expect("content", reply.body, CONTENT[10:20])


@scenario(stock="GET: (206, ")
def last_zero_bytes__are_unsatisfiable(site: Site) -> None:
    reply = _get(site, "bytes=-0")
    expect("GET", (reply.status, reply.header("Content-Range")), (416, "bytes */1024"))


@scenario(stock="HEAD: (206, '10')")
def range_of_head__means_nothing(site: Site) -> None:
    reply = _get(site, "bytes=0-9", "HEAD")
    expect("HEAD", (reply.status, reply.header("Content-Length")), (200, "1024"))
