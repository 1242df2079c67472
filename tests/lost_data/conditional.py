"""Conditional headers (RFC 9110 13, RFC 4918 10.4): a change that its condition forbids does not happen."""

from __future__ import annotations

from email.utils import formatdate, parsedate_to_datetime

from tests.lost_data.scenario import scenario
from tests.lost_data.site import Site, expect, expect_one_of

OLD = b"old"
NEW = b"newer"
NO_LOCK = "urn:uuid:00000000-0000-4000-8000-000000000000"


def _refused(site: Site, method: str, target: str, headers: dict[str, str], status: int = 412) -> None:
    body = NEW if method == "PUT" else None
    expect(f"{method} {target} with {headers}", site.status(method, target, body, headers), status)


# --- where there is nothing ---------------------------------------------------------------------------------------


@scenario(stock="201 instead of 412")
def if_match_on_an_unmapped_url__is_false(site: Site) -> None:
    for value in ("*", '"some-tag"'):
        _refused(site, "PUT", "/f", {"If-Match": value})
        _refused(site, "MKCOL", "/f", {"If-Match": value})
        expect("content", site.content("/f"), 404)


@scenario(stock="201 instead of 412")
def if_on_an_unmapped_url__is_false(site: Site) -> None:
    for value in (f"(<{NO_LOCK}>)", '(["some-tag"])'):
        _refused(site, "PUT", "/f", {"If": value})
        _refused(site, "MKCOL", "/f", {"If": value})
        expect("content", site.content("/f"), 404)


@scenario(stock="201 instead of 412")
def if_match_with_the_tag_of_what_was_deleted__is_false(site: Site) -> None:
    etag = site.put("/f", OLD)
    site.prepared("DELETE", "/f")
    _refused(site, "PUT", "/f", {"If-Match": etag})
    expect("content", site.content("/f"), 404)


# --- dates --------------------------------------------------------------------------------------------------------


def _last_modified(site: Site, target: str) -> str:
    return str(site.prepared("HEAD", target).header("Last-Modified"))


def _moved(date: str, seconds: int) -> str:
    return formatdate(parsedate_to_datetime(date).timestamp() + seconds, usegmt=True)


@scenario(stock="GET: 200 instead of 304")
def if_modified_since_the_same_date__gives_304(site: Site) -> None:
    site.put("/f", OLD)
    date = _last_modified(site, "/f")
    expect("GET", site.status("GET", "/f", None, {"If-Modified-Since": date}), 304)
    expect("GET", site.status("GET", "/f", None, {"If-Modified-Since": _moved(date, -10)}), 200)


@scenario(stock="GET: 304 instead of 200")
def if_modified_since_a_future_date__proves_nothing(site: Site) -> None:
    site.put("/f", OLD)
    future = _moved(_last_modified(site, "/f"), 24 * 3600)
    expect("GET", site.status("GET", "/f", None, {"If-Modified-Since": future}), 200)


@scenario(stock="PUT: 304 instead of 204")
def if_modified_since__means_nothing_to_put(site: Site) -> None:
    site.put("/f", OLD)
    date = _moved(_last_modified(site, "/f"), 24 * 3600)
    expect("PUT", site.status("PUT", "/f", NEW, {"If-Modified-Since": date}), 204)
    expect("content", site.content("/f"), NEW)


@scenario(stock="412 instead of 304")
def if_none_match_with_if_modified_since__the_tag_decides(site: Site) -> None:
    etag = site.put("/f", OLD)
    for date in (_last_modified(site, "/f"), formatdate(0, usegmt=True), _moved(_last_modified(site, "/f"), 3600)):
        headers = {"If-None-Match": etag, "If-Modified-Since": date}
        expect(f"GET with {date}", site.status("GET", "/f", None, headers), 304)
        headers["If-None-Match"] = '"another"'
        expect(f"GET with {date} and another tag", site.status("GET", "/f", None, headers), 200)


# --- entity tags --------------------------------------------------------------------------------------------------


@scenario(stock="204 instead of 412")
def if_match_with_a_weak_tag__is_false(site: Site) -> None:
    etag = site.put("/f", OLD)
    _refused(site, "PUT", "/f", {"If-Match": f"W/{etag}"})
    expect("content", site.content("/f"), OLD)


@scenario(stock="204 instead of 412")
def if_match_with_commas_in_a_tag__is_one_tag(site: Site) -> None:
    etag = site.put("/f", OLD)
    _refused(site, "PUT", "/f", {"If-Match": f'"a,{etag[1:-1]},b"'})
    expect("content", site.content("/f"), OLD)
    headers = {"If-None-Match": f'"a,{etag[1:-1]},b", "c"'}
    expect("PUT if another is not there", site.status("PUT", "/f", NEW, headers), 204)


@scenario(stock="GET: (304, None)")
def not_modified__has_the_entity_tag(site: Site) -> None:
    etag = site.put("/f", OLD)
    reply = site.request("GET", "/f", None, {"If-None-Match": etag})
    expect("GET", (reply.status, reply.header("ETag")), (304, etag))


# --- the If header ------------------------------------------------------------------------------------------------


@scenario(stock="204 instead of 412")
def if_with_an_absolute_uri__is_evaluated(site: Site) -> None:
    site.put("/f", OLD)
    host, port = site.address
    _refused(site, "PUT", "/f", {"If": f'<http://{host}:{port}/f> (["another"])'})
    expect("content", site.content("/f"), OLD)


@scenario()
def if_with_a_path__is_evaluated(site: Site) -> None:
    etag = site.put("/f", OLD)
    _refused(site, "PUT", "/f", {"If": '</f> (["another"])'})
    _refused(site, "PUT", "/f", {"If": f"</f> (Not [{etag}])"})
    expect("content", site.content("/f"), OLD)
    expect("PUT", site.status("PUT", "/f", NEW, {"If": f"</f> ([{etag}])"}), 204)


@scenario(stock="204 instead of 412")
def if_about_another_resource__is_evaluated(site: Site) -> None:
    site.put("/f", OLD)
    other = site.put("/other", b"other content")
    host, port = site.address
    for tag in ("/other", f"http://{host}:{port}/other"):
        _refused(site, "PUT", "/f", {"If": f'<{tag}> (["another"])'})
        expect("content", site.content("/f"), OLD)
    expect("PUT", site.status("PUT", "/f", NEW, {"If": f"</other> ([{other}])"}), 204)


@scenario()
def if_with_a_token_nobody_holds__is_false(site: Site) -> None:
    site.put("/f", OLD)
    _refused(site, "PUT", "/f", {"If": f"(<{NO_LOCK}>)"})
    expect("content", site.content("/f"), OLD)


# --- clients in the field -----------------------------------------------------------------------------------------


@scenario()
def joplins_if_none_match__is_ignored(site: Site) -> None:
    for number in (1, 2):
        headers = {"If-None-Match": f"JoplinIgnore-{number}"}
        expect_one_of("PUT", site.status("PUT", "/f", NEW, headers), 201, 204)
        expect("MKCOL", site.status("MKCOL", f"/c{number}/", None, headers), 201)
    expect("content", site.content("/f"), NEW)
