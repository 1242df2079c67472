"""Requests that no sane client sends, from strategies: mostly right, so that they come deep, and wrong somewhere."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

from davsql.dav import provider

METHODS = (*provider.METHODS, "POST", "PATCH", "TRACE", "M-SEARCH")
# fmt: off
SEGMENTS = [
    "a", "b", "c", "a", "b", "c", "d.html", "%C3%A4", "a%CC%88", "e%20f", "%2e%2e", "..", ".", "%2F", "%5c", "%00",
    "%0d%0a", "%", "%zz", "%ff", "%C0%AE", "%ED%A0%80", ";v=1", "~", "con", "*", "'", '"',
]
PROPERTIES = [
    "getetag", "displayname", "resourcetype", "lockdiscovery", "quota-used-bytes", "getcontentlength", "x",
]
ELEMENTS = [
    "propfind", "propertyupdate", "lockinfo", "prop", "allprop", "propname", "include", "set", "remove", "lockscope",
    "locktype", "exclusive", "shared", "write", "owner", "href", *PROPERTIES,
]
# fmt: on
NAMESPACES = ["", "urn:x", "http://www.w3.org/XML/1998/namespace", "dav:", "\u20ac"]
NUMBERS = ["0", "1", "2", "5", "00", "-1", "+1", "1_0", "0x1", "99999999999999999999999999999999999", "", " ", "\u0661"]

Bytes = st.SearchStrategy[bytes]
Text = st.SearchStrategy[str]


def pick(*choices: str) -> Text:
    """One of these."""
    return st.sampled_from(choices)


def joined(separator: str, parts: Text, *, least: int = 0, most: int = 4) -> Text:
    """Some of these in a row."""
    return st.lists(parts, min_size=least, max_size=most).map(separator.join)


def mostly(good: Text, bad: Text) -> Text:
    """Eleven times the first, once the second: of many parts that are right nearly all must be, to come deep."""
    return st.sampled_from((*(good,) * 11, bad)).flatmap(lambda strategy: strategy)


number = st.sampled_from(NUMBERS) | st.integers(0, 2**70).map(str)
junk = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=20)
known_path = pick("/a", "/a", "/b", "/b", "/b/", "/b/c", "/b/c", "/c", "/b/d", "/")
path = mostly(
    known_path,
    joined("/", st.sampled_from(SEGMENTS) | pick("", "n" * 300, "n/" * 200), most=6).map("/{}".format),
)
url = mostly(
    path,
    st.one_of(
        st.builds(
            "{}://{}{}".format, pick("http", "https", "ftp"), pick("127.0.0.1", "other", "u@test", "[::1", ""), path
        ),
        pick("", "::::", "//test/a", "a", "*", "http:", "/a?b", "/a#b", "urn:x"),
        junk,
    ),
)
token = pick(
    "<urn:uuid:1>", "<urn:uuid:>", "<DAV:no-lock>", "<>", "<a", "urn:x>", '["e"]', '[W/"e"]', "[e]", '["', "[]"
)
condition = st.builds("{}{}".format, pick("", "", "Not ", "not", "Not Not "), token)
state_list = st.builds("({}{}".format, joined(" ", condition, least=1), mostly(pick(")"), pick("", "))")))
state_header = joined(" ", mostly(state_list, st.one_of(url.map("<{}>".format), junk)), least=1, most=3)
position = st.integers(0, 400_000).map(str) | pick("", "0")
range_spec = mostly(
    st.builds("{}-{}".format, position, position),
    st.one_of(st.builds("{}-{}".format, number, number), number, pick("-", "--", "a-b", "0-0;q", "5-1")),
)
range_header = mostly(
    joined(",", range_spec, least=1, most=3).map("bytes={}".format), junk | pick("bytes", "BYTES=0-0", "=", "x=1-")
)
tags = joined(", ", pick('"e"', 'W/"e"', "*", '"', "e", '"a,b"', "", '"\x80"'), most=4)
when = pick("Mon, 23 Nov 2026 12:00:00 GMT", "Mon, 99 Nov 2026 99:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "0", "")

FIELDS: Mapping[str, Text] = {
    "If": state_header,
    "Destination": url,
    "Range": range_header,
    "If-Match": tags,
    "If-None-Match": tags,
    "If-Range": tags | when,
    "If-Modified-Since": when | junk,
    "If-Unmodified-Since": when | junk,
    "Depth": mostly(pick("0", "1", "infinity"), pick("Infinity", "2", "1,noroot", "", "-1")),
    "Overwrite": mostly(pick("T", "F"), pick("t", "X", "")),
    "Timeout": joined(", ", st.one_of(number.map("Second-{}".format), pick("Infinite", "Infinite, Second-1")) | junk),
    "Lock-Token": token | junk,
    "Content-Type": pick("text/html", "multipart/form-data; boundary=x", "a/b; c=\xff", "image/svg+xml", "") | junk,
    "Content-Encoding": pick("gzip", "identity", "") | junk,
    "Content-Range": pick("bytes 0-1/2", ""),
    "X-Expected-Entity-Length": number,
    "Expect": mostly(pick("100-continue"), pick("200-ok", "")),
    "Origin": pick("null", "http://test", "https://evil.example", "app://x", "http://[") | junk,
    "Sec-Fetch-Site": pick("cross-site", "same-origin", "none"),
    "Access-Control-Request-Method": pick("PUT", "") | junk,
    "Authorization": pick("Basic", "Basic YTpi", "Basic =", "Bearer x", "Digest x") | junk,
    "X-Forwarded-For": pick("1.2.3.4", "::1, x", "unknown") | junk,
    "Forwarded": pick('for="[::1]:1";host=x', "for=") | junk,
    "Connection": pick("close", "keep-alive", "upgrade, close", "host"),
    "Upgrade": pick("h2c", "websocket"),
    "TE": junk,
    "User-Agent": junk,
}
FRAMING = [
    *[["Content-Length: {length}"]] * 12, *[["Transfer-Encoding: chunked"]] * 4, [], ["Transfer-Encoding: gzip"],
    ["Content-Length: 0"], ["Content-Length: 5"], ["Content-Length: -1"],
    ["Content-Length: {length}", "Content-Length: 1"], ["Content-Length: {length}", "Transfer-Encoding: chunked"],
]  # fmt: skip


def a_field(name: str) -> Text:
    """A header line."""
    return FIELDS[name].map((name + ": {}").format)


any_field = st.sampled_from(sorted(FIELDS)).flatmap(a_field)


few_fields = st.sampled_from([[], [], ["If-None-Match: *"], ["If: (Not <DAV:no-lock>)"], ["Timeout: Second-1"]])
more_fields = st.sampled_from([few_fields, few_fields, st.lists(any_field, max_size=3)]).flatmap(lambda fields: fields)


@st.composite
def mutated(draw: st.DrawFn, plain: Bytes, most: int = 3) -> bytes:
    """A few bytes of it removed, replaced, doubled or new."""
    data = bytearray(draw(plain))
    for _ in range(draw(st.integers(0, most))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 8)))
        fresh = draw(
            st.sampled_from([b"", b"\0", b"\r", b"\n", b"\xff", b"<", b">", b"&", b'"', b" ", b":", b",", b"%"])
        )
        data[start:stop] = fresh + bytes(data[start:stop]) * draw(st.integers(0, 2))
    return bytes(data)


@st.composite
def request(draw: st.DrawFn, method: Text, target: Text, fields: list[Text], body: Bytes) -> bytes:
    """A request with these fields and a few more; its framing is usually right."""
    content = draw(body)
    framing = draw(st.sampled_from(FRAMING))
    if any("chunked" in line for line in framing):
        content = draw(
            mutated(st.just(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content) if content else b"0\r\n\r\n"), most=1)
        )
    lines = [f"{draw(method)} {draw(target)} HTTP/1.1", "Host: 127.0.0.1", *map(draw, fields)]
    lines += draw(more_fields) + [line.format(length=len(content)) for line in framing]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1", "replace") + content


# --- XML ----------------------------------------------------------------------------------------------------------

_text = st.text(max_size=8).map(lambda text: text.replace("&", "&amp;").replace("<", "&lt;"))
_noise = _text | pick("<!-- -->", "<?pi x?>", "<![CDATA[<x>]]>", "&amp;", "&x;", "&#0;", "&#x1F600;", "]]>", "<", "&")


def _element(inside: Text) -> Text:
    attributes = joined(
        " ", pick('a="1"', 'xml:lang="x"', 'D:a=""', 'xmlns="urn:y"', 'xmlns:D="urn:z"', "a='<'"), most=2
    )
    prefix, name = pick("D:", "D:", "D:", "", "n:", "q:"), st.sampled_from(ELEMENTS)
    return st.builds("<{0}{1} {2}>{3}</{0}{1}>".format, prefix, name, attributes, inside)


_property = st.sampled_from(PROPERTIES).flatmap(lambda name: pick(f"<D:{name}/>", f"<n:{name}>v</n:{name}>"))
_good_xml = joined("", _property, least=1)
_any_xml = st.recursive(_noise, lambda inside: _element(joined("", inside)), max_leaves=12)
_many = st.integers(1, 400).map(
    lambda count: "<D:propfind {}><D:prop>" + "".join(f"<n{i}/>" for i in range(count)) + "</D:prop></D:propfind>"
)
_deep = st.integers(1, 100).map(
    lambda depth: "<D:propfind {}><D:prop/>" + "<a>" * depth + "</a>" * depth + "</D:propfind>"
)
_properties = mostly(_good_xml, _any_xml)
_odd = st.one_of(_many, _deep, st.builds("<D:x {{}}>{}</D:x>".format, _any_xml))

DOCUMENTS: Mapping[str, Text] = {
    "PROPFIND": st.one_of(
        st.builds("<D:propfind {{}}><D:prop>{}</D:prop></D:propfind>".format, _properties),
        st.builds("<D:propfind {{}}><D:allprop/><D:include>{}</D:include></D:propfind>".format, _properties),
        pick("<D:propfind {}><D:propname/></D:propfind>", "<D:propfind {}/>"),
        _odd,
    ),
    "PROPPATCH": mostly(
        st.builds(
            "<D:propertyupdate {{}}><D:{0}><D:prop>{1}</D:prop></D:{0}></D:propertyupdate>".format,
            pick("set", "remove"),
            _properties,
        ),
        _odd,
    ),
    "LOCK": mostly(
        st.builds(
            "<D:lockinfo {{}}><D:locktype><D:write/></D:locktype><D:lockscope><D:{}/></D:lockscope>{}</D:lockinfo>"
            "".format,
            mostly(pick("exclusive", "shared"), pick("x")),
            mostly(pick("<D:owner>me</D:owner>", ""), _any_xml),
        ),
        _odd,
    ),
}
_prologue = mostly(
    pick("", '<?xml version="1.0"?>', '<?xml version="1.0" encoding="{encoding}"?>'),
    pick("<!DOCTYPE x>", '<!DOCTYPE x [<!ENTITY x "y">]>', '<!DOCTYPE x SYSTEM "file:///etc/passwd">', "\ufeff", "\n"),
)


@st.composite
def document(draw: st.DrawFn, method: str) -> bytes:
    """An XML body, usually one that the method knows, in some encoding."""
    encoding = draw(mostly(pick("utf-8"), pick("utf-16", "utf-16-le", "latin-1", "utf-32", "utf-7")))
    namespaces = f'xmlns:D="{draw(mostly(pick("DAV:"), st.sampled_from(NAMESPACES)))}" xmlns:n="urn:n"'
    text = draw(DOCUMENTS[method]).replace("{}", namespaces, 1)
    return (draw(_prologue).replace("{encoding}", draw(pick(encoding, "utf-8", "x"))) + text).encode(
        encoding, "replace"
    )


# --- what is sent -------------------------------------------------------------------------------------------------

_method = st.sampled_from(METHODS)
_small = st.binary(max_size=40)
_any_document = st.sampled_from(sorted(DOCUMENTS)).flatmap(document)
_body = st.one_of(st.just(b""), _small, _any_document)

ATTACKS: Mapping[str, Bytes] = {
    "heads": mutated(request(mostly(_method, junk), mostly(path, url), [], _small), most=2),
    "XML": st.sampled_from(sorted(DOCUMENTS)).flatmap(
        lambda method: request(st.just(method), path, [a_field("Depth")], document(method) | mutated(document(method)))
    ),
    "If": request(pick("PUT", "DELETE", "LOCK", "PROPFIND", "GET", "MOVE"), path, [a_field("If")], _body),
    "Destination": request(pick("COPY", "MOVE"), path, [a_field("Destination"), a_field("Overwrite")], st.just(b"")),
    "Range": request(pick("GET", "GET", "HEAD", "PUT"), pick("/a", "/b", "/"), [a_field("Range")], st.just(b"")),
    "pipelines": st.lists(request(_method, path, [], _body), min_size=2, max_size=4).map(b"".join),
}
