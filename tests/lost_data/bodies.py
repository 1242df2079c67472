"""PUT: the new content whole, or the old content as it was, whatever happens to the body on its way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tests.lost_data.scenario import scenario
from tests.lost_data.site import LOCKINFO, Site, Unfinished, expect, expect_one_of

OLD = b"old content, which somebody still needs"
NEW = b"new content " * 1000
HALF = NEW[: len(NEW) // 2]
SETTLE_S = 0.15  # a server that stores what it must not has done so by then

Cut = Callable[[Site, Unfinished], int | None]  # the status of the answer, None when there is none


def by_fin(_site: Site, put: Unfinished) -> int | None:
    put.end()
    return put.status()


def by_reset(_site: Site, put: Unfinished) -> None:
    put.reset()


def by_stop(site: Site, _put: Unfinished) -> None:
    site.restart()


def by_bad_chunk_size(site: Site, put: Unfinished) -> int | None:
    put.send(b"no number\r\n")
    return by_fin(site, put)


def by_fin_within_a_chunk(site: Site, put: Unfinished) -> int | None:
    put.send(b"ffff\r\nonly a few bytes")
    return by_fin(site, put)


def by_last_chunk(_site: Site, put: Unfinished) -> int | None:
    put.send(b"0\r\n\r\n")
    return put.status()


def _cut(site: Site, target: str, cut: Cut, *, is_chunked: bool, fields: Sequence[str]) -> int | None:
    """Send half of a body and make an end of it."""
    put = site.begun_chunked_put(target, *fields) if is_chunked else site.begun_put(target, len(NEW), *fields)
    with put:
        if is_chunked:
            put.send_chunk(HALF)
        else:
            put.send(HALF)
        time.sleep(0.05)  # let the server begin with it
        return cut(site, put)


def _keeps_old(site: Site, cut: Cut, *fields: str, is_chunked: bool = False) -> None:
    etag = site.put("/f", OLD)
    status = _cut(site, "/f", cut, is_chunked=is_chunked, fields=fields)
    _stays(site, "/f", OLD)
    expect("entity tag", site.etag("/f"), etag)
    expect_one_of("cut PUT", status, 400, None)


def _stays_absent(site: Site, cut: Cut, *fields: str, is_chunked: bool = False) -> None:
    status = _cut(site, "/f", cut, is_chunked=is_chunked, fields=fields)
    _stays(site, "/f", 404)
    expect_one_of("cut PUT", status, 400, None)


def _stays(site: Site, target: str, wanted: bytes | int) -> None:
    """The content is what it must be, and is so still when the server has done with the broken request."""
    expect(f"content of {target}", site.content(target), wanted)
    time.sleep(SETTLE_S)
    expect(f"content of {target}", site.content(target), wanted)


# --- a body that ends early ---------------------------------------------------------------------------------------


@scenario(stock="content of /f: b'new content")
def put_cut_by_fin__old_content_stays(site: Site) -> None:
    _keeps_old(site, by_fin)


@scenario(stock="content of /f: b'new content")
def put_cut_by_fin__new_name_stays_absent(site: Site) -> None:
    _stays_absent(site, by_fin)


@scenario(stock="content of /f: b'' instead of b'old content")
def put_cut_by_reset__old_content_stays(site: Site) -> None:
    _keeps_old(site, by_reset)


@scenario(stock="content of /f: b'' instead of 404")
def put_cut_by_reset__new_name_stays_absent(site: Site) -> None:
    _stays_absent(site, by_reset)


@scenario(stock="content of /f: b'")
def put_cut_by_stop_of_the_server__old_content_stays(site: Site) -> None:
    _keeps_old(site, by_stop)


@scenario(stock="content of /f: b'")
def put_cut_by_stop_of_the_server__new_name_stays_absent(site: Site) -> None:
    _stays_absent(site, by_stop)


@scenario(stock="content of /f: b'' instead of b'old content")
def chunked_put_without_last_chunk__old_content_stays(site: Site) -> None:
    _keeps_old(site, by_fin, is_chunked=True)


@scenario(stock="content of /f: b'' instead of 404")
def chunked_put_without_last_chunk__new_name_stays_absent(site: Site) -> None:
    _stays_absent(site, by_fin, is_chunked=True)


@scenario(stock="content of /f: b'' instead of b'old content")
def chunked_put_cut_by_reset__old_content_stays(site: Site) -> None:
    _keeps_old(site, by_reset, is_chunked=True)


@scenario(stock="content of /f: b'")
def chunked_put_cut_by_stop_of_the_server__old_content_stays(site: Site) -> None:
    _keeps_old(site, by_stop, is_chunked=True)


@scenario(stock="content of /f: b'' instead of b'old content")
def chunked_put_with_broken_framing__old_content_stays(site: Site) -> None:
    _keeps_old(site, by_bad_chunk_size, is_chunked=True)


@scenario(stock="content of /f: b'' instead of b'old content")
def chunked_put_cut_within_a_chunk__old_content_stays(site: Site) -> None:
    _keeps_old(site, by_fin_within_a_chunk, is_chunked=True)


@scenario(stock="content of /f: b'new content")
def chunked_put_shorter_than_finder_announced__old_content_stays(site: Site) -> None:
    _keeps_old(site, by_last_chunk, f"X-Expected-Entity-Length: {len(NEW)}", is_chunked=True)


@scenario(stock="content of /f: b'new content")
def chunked_put_shorter_than_finder_announced__new_name_stays_absent(site: Site) -> None:
    _stays_absent(site, by_last_chunk, f"X-Expected-Entity-Length: {len(NEW)}", is_chunked=True)


# --- what others see meanwhile ------------------------------------------------------------------------------------


@scenario(stock="meanwhile: ")
def reader_during_put__sees_old_content_whole(site: Site) -> None:
    etag = site.put("/f", OLD)
    with site.begun_put("/f", len(NEW)) as put:
        for start in range(0, len(NEW), 1000):
            put.send(NEW[start : start + 1000])
            if start + 1000 < len(NEW):
                expect("content meanwhile", site.content("/f"), OLD)
                expect("entity tag meanwhile", site.etag("/f"), etag)
        expect("PUT", put.status(), 204)
    expect("content afterwards", site.content("/f"), NEW)


@scenario(stock="content meanwhile: b'' instead of 404")
def reader_during_put_of_a_new_name__sees_nothing(site: Site) -> None:
    site.mkcol("/d/")
    with site.begun_put("/d/f", len(NEW)) as put:
        put.send(HALF)
        time.sleep(SETTLE_S)
        expect("content meanwhile", site.content("/d/f"), 404)
        expect("members meanwhile", site.members("/d/"), set())
        put.send(NEW[len(HALF) :])
        expect("PUT", put.status(), 201)
    expect("content afterwards", site.content("/d/f"), NEW)


# --- what others do meanwhile: conditions, locks and places are looked at again when the content is put in place ---


def _finish(put: Unfinished) -> int | None:
    put.send(NEW[len(HALF) :])
    return put.status()


@scenario(stock="the other PUT: 412 instead of 204")
def put_if_match_while_another_writes__second_is_refused(site: Site) -> None:
    etag = site.put("/f", OLD)
    with site.begun_put("/f", len(NEW), f"If-Match: {etag}") as put:
        put.send(HALF)
        time.sleep(SETTLE_S)
        expect("the other PUT", site.status("PUT", "/f", b"other", {"If-Match": etag}), 204)
        expect("PUT that ends later", _finish(put), 412)
    expect("content", site.content("/f"), b"other")


@scenario(stock="the other PUT: 412 instead of 201")
def put_if_none_match_while_another_creates__second_is_refused(site: Site) -> None:
    with site.begun_put("/f", len(NEW), "If-None-Match: *") as put:
        put.send(HALF)
        time.sleep(SETTLE_S)
        expect("the other PUT", site.status("PUT", "/f", b"other", {"If-None-Match": "*"}), 201)
        expect("PUT that ends later", _finish(put), 412)
    expect("content", site.content("/f"), b"other")


@scenario(stock="content: 404 instead of b'new content")
def delete_during_put__acknowledged_content_is_there(site: Site) -> None:
    site.put("/f", OLD)
    with site.begun_put("/f", len(NEW)) as put:
        put.send(HALF)
        time.sleep(SETTLE_S)
        expect("DELETE", site.status("DELETE", "/f"), 204)
        is_acknowledged = _finish(put) in (201, 204)
    expect("content", site.content("/f"), NEW if is_acknowledged else 404)


@scenario(stock="PUT that ends later: 204 instead of 412")
def delete_during_put_if_match__stays_deleted(site: Site) -> None:
    etag = site.put("/f", OLD)
    with site.begun_put("/f", len(NEW), f"If-Match: {etag}") as put:
        put.send(HALF)
        time.sleep(SETTLE_S)
        expect("DELETE", site.status("DELETE", "/f"), 204)
        expect("PUT that ends later", _finish(put), 412)
    expect("content", site.content("/f"), 404)


@scenario(stock="content: 404 instead of b'new content")
def delete_of_the_collection_during_put__acknowledged_content_is_there(site: Site) -> None:
    site.mkcol("/d/")
    with site.begun_put("/d/f", len(NEW)) as put:
        put.send(HALF)
        time.sleep(SETTLE_S)
        expect("DELETE", site.status("DELETE", "/d/"), 204)
        is_acknowledged = _finish(put) in (201, 204)
    expect("content", site.content("/d/f"), NEW if is_acknowledged else 404)


@scenario()
def lock_by_another_during_put__protects(site: Site) -> None:
    site.put("/f", OLD)
    with site.begun_put("/f", len(NEW)) as put:
        put.send(HALF)
        time.sleep(SETTLE_S)
        is_locked = site.status("LOCK", "/f", LOCKINFO, {"Depth": "0"}) == 200
        expect("PUT that ends later", _finish(put), 423 if is_locked else 204)
    expect("content", site.content("/f"), OLD if is_locked else NEW)
