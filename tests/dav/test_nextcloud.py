"""Nextcloud's paths and its uploads in parts."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import pytest

from davsql.access import Access, Right
from davsql.dav.nextcloud import locate
from davsql.dav.quotas import ShareQuotas
from davsql.dav.request import DavOptions, Share
from davsql.errors import NotAllowed, NotFound
from davsql.maintenance.gc import PIN_EXPIRY_NS, collect_garbage
from davsql.model import NO_GUARD, Guard, Limit, Principal
from davsql.store.assembly import AHEAD_NS, Assembly
from davsql.store.blobs import CHUNK_BYTES
from davsql.store.check import check
from davsql.store.store import Store
from tests.dav.locking import lock_of
from tests.http_client import Reply
from tests.live_server import LiveServer, serving_shares
from tests.store_steps import at, mkcol, put, read, tree

FILES, UPLOADS = "/remote.php/dav/files/ann", "/remote.php/dav/uploads/ann"
LARGE = random.Random(7).randbytes(5 * CHUNK_BYTES + 1000)  # noqa: S311  # content, no secret
OPTIONS = DavOptions(nextcloud_paths=True)


@pytest.fixture
def cloud(store: Store) -> Iterator[LiveServer]:
    with serving_shares({"/": store}, dav=OPTIONS) as server:
        yield server


def send_parts(server: LiveServer, data: bytes, step: int, top: str = UPLOADS + "/u1", *, ranges: bool = False) -> None:
    assert server.request("MKCOL", top).status == 201
    for number, start in reversed(list(enumerate(range(0, len(data), step), 1))):  # in any order
        part = data[start : start + step]
        name = f"{start:015d}-{start + len(part) - 1:015d}" if ranges else str(number)
        assert server.request("PUT", f"{top}/{name}", part).status == 201


def assemble(server: LiveServer, target: str, top: str = UPLOADS + "/u1", **more: str) -> Reply:
    headers = {"Destination": target} | {name.replace("_", "-"): text for name, text in more.items()}
    return server.request("MOVE", f"{top}/.file", headers=headers)


def test_files__are_the_share_under_another_name(cloud: LiveServer, store: Store) -> None:
    for top in (FILES, "/dav/files/ann", "/remote.php/webdav"):
        assert cloud.request("MKCOL", f"{top}/c").status == 201
        assert cloud.request("PUT", f"{top}/c/a", b"x").status == 201
        listed = cloud.request("PROPFIND", f"{top}/c", headers={"Depth": "1"}).body.decode()
        assert f">{top}/c/a<" in listed
        assert cloud.request("MOVE", f"{top}/c/a", headers={"Destination": cloud.url + f"{top}/c/b"}).status == 201
        assert tree(store) == {"/c": None, "/c/b": b"x"}
        assert cloud.request("DELETE", f"{top}/c").status == 204


def test_files__are_ordinary_folders_unless_asked_for(server: LiveServer, store: Store) -> None:
    for path in ("/remote.php", "/remote.php/dav", "/remote.php/dav/files"):
        assert server.request("MKCOL", path).status == 201
    assert server.request("PUT", "/remote.php/dav/files/ann", b"x").status == 201
    assert read(store, "/remote.php/dav/files/ann") == b"x"


@pytest.mark.parametrize("ranges", [False, True])
@pytest.mark.parametrize("step", [100_000, CHUNK_BYTES, 3 * CHUNK_BYTES, 700_001, len(LARGE)])
def test_parts__become_the_file(cloud: LiveServer, store: Store, step: int, ranges: bool) -> None:
    send_parts(cloud, LARGE, step, ranges=ranges)
    assert tree(store) == {}
    reply = assemble(cloud, FILES + "/a", X_OC_Mtime="1700000000", OC_Total_Length=str(len(LARGE)))
    assert (reply.status, reply.header("X-OC-Mtime")) == (201, "accepted")
    assert read(store, "/a") == LARGE
    assert cloud.request("HEAD", "/a").header("Last-Modified") == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert reply.header("ETag") == put(store, "/b", LARGE).node.etag
    assert cloud.request("PROPFIND", UPLOADS + "/u1").status == 404
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    assert read(store, "/a") == LARGE
    assert check(store, deep=True) == []


def test_parts__are_shared_not_written_again(cloud: LiveServer, store: Store) -> None:
    send_parts(cloud, LARGE, 2 * CHUNK_BYTES)
    with store.read() as tx:
        before = tx.value("SELECT count(*) FROM chunk_data")
    assert assemble(cloud, FILES + "/a").status == 201
    with store.read() as tx:
        assert tx.value("SELECT count(*) FROM chunk_data") <= before + 1  # the small end


def test_part__may_be_sent_again(cloud: LiveServer, store: Store) -> None:
    top = UPLOADS + "/u1"
    send_parts(cloud, b"abcdef", 2, top)
    assert cloud.request("PUT", top + "/2", b"XYZ").status == 204
    listed = cloud.request("PROPFIND", top, headers={"Depth": "1"}).body.decode()
    assert [f"{top}/{number}<" in listed for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert "<D:getcontentlength>3<" in listed
    assert assemble(cloud, FILES + "/a").status == 201
    assert read(store, "/a") == b"abXYZef"


def test_upload__can_be_given_up(cloud: LiveServer, store: Store) -> None:
    send_parts(cloud, LARGE, CHUNK_BYTES)
    assert cloud.request("MKCOL", UPLOADS + "/u1").status == 405
    assert cloud.request("DELETE", UPLOADS + "/u1").status == 204
    assert cloud.request("DELETE", UPLOADS + "/u1").status == 404
    assert assemble(cloud, FILES + "/a").status == 404
    assert cloud.request("PUT", UPLOADS + "/u1/1", b"x").status == 409
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    with store.read() as tx:
        assert tx.value("SELECT count(*) FROM chunk_data") == 0
    assert check(store, deep=True) == []


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (400, {"OC_Total_Length": "5"}),
        (400, {"OC_Checksum": "SHA1:" + hashlib.sha1(b"other", usedforsecurity=False).hexdigest()}),
        (412, {"Overwrite": "F"}),
        (412, {"If_Match": '"other"'}),
        (400, {"X_OC_Mtime": "soon"}),
    ],
)
def test_move__refused_changes_nothing_and_may_be_tried_again(
    cloud: LiveServer, store: Store, status: int, headers: dict[str, str]
) -> None:
    put(store, "/a", b"old")
    send_parts(cloud, b"abcdef", 2)
    assert assemble(cloud, FILES + "/a", **headers).status == status
    assert read(store, "/a") == b"old"
    sums = {"OC_Checksum": "SHA1:" + hashlib.sha1(b"abcdef", usedforsecurity=False).hexdigest()}
    assert assemble(cloud, FILES + "/a", **sums).status == 204
    assert read(store, "/a") == b"abcdef"


def test_move__onto_a_locked_file_needs_the_token(cloud: LiveServer, store: Store) -> None:
    put(store, "/a", b"old")
    lock = lock_of(store, "/a")
    send_parts(cloud, LARGE, CHUNK_BYTES)
    refused = assemble(cloud, FILES + "/a")
    assert refused.status == 423
    assert f">{FILES}/a<" in refused.body.decode()
    assert f">{FILES}/a<" in cloud.request("PUT", FILES + "/a", b"x").body.decode()
    assert assemble(cloud, FILES + "/a", If=f"<{FILES}/a> (<{lock.token}>)").status == 204
    assert read(store, "/a") == LARGE


@pytest.mark.parametrize("missing", ["1", "2"])
def test_move__a_missing_part_is_400(cloud: LiveServer, store: Store, missing: str) -> None:
    assert cloud.request("MKCOL", UPLOADS + "/u1").status == 201
    for name in {"1", "2", "3"} - {missing}:
        assert cloud.request("PUT", f"{UPLOADS}/u1/{name}", b"x").status == 201
    assert assemble(cloud, FILES + "/a").status == 400
    assert cloud.request("PUT", f"{UPLOADS}/u1/{missing}", b"x").status == 201
    assert assemble(cloud, FILES + "/a").status == 201


def test_move__a_gap_between_ranges_is_400(cloud: LiveServer) -> None:
    assert cloud.request("MKCOL", UPLOADS + "/u1").status == 201
    for name in ("000-001", "004-005"):
        assert cloud.request("PUT", f"{UPLOADS}/u1/{name}", b"xy").status == 201
    assert assemble(cloud, FILES + "/a").status == 400


def test_move__goes_to_the_files_of_the_same_share_only(cloud: LiveServer, store: Store) -> None:
    send_parts(cloud, b"abc", 3)
    assert assemble(cloud, "/a").status == 502
    assert assemble(cloud, FILES + "/no/a").status == 409
    mkcol(store, "/c")
    assert assemble(cloud, FILES + "/c").status == 405
    assert tree(store) == {"/c": None}


def test_parts__count_once_against_the_quota(store: Store) -> None:
    with serving_shares({"/": store}, dav=OPTIONS, quotas={"/": ShareQuotas(Limit(size_bytes=len(LARGE)))}) as server:
        send_parts(server, LARGE, CHUNK_BYTES)
        assert server.request("PUT", UPLOADS + "/u1/7", b"x").status == 507
        assert assemble(server, FILES + "/a").status == 201
    assert read(store, "/a") == LARGE


def test_part__of_unknown_length_ends_where_the_quota_does(store: Store) -> None:
    parts = (bytes([number]) * CHUNK_BYTES for number in range(24))
    with serving_shares({"/": store}, dav=OPTIONS, quotas={"/": ShareQuotas(Limit(size_bytes=CHUNK_BYTES))}) as server:
        assert server.request("MKCOL", UPLOADS + "/u1").status == 201
        assert server.request("PUT", UPLOADS + "/u1/1", parts).status == 507
    with store.read() as tx:
        assert tx.value("SELECT coalesce(sum(size), 0) FROM chunks") < 12 * CHUNK_BYTES


def test_upload__is_kept_a_day_without_parts(cloud: LiveServer, store: Store) -> None:
    send_parts(cloud, LARGE, CHUNK_BYTES)
    age = "UPDATE pins SET touched_at = touched_at - ?"
    store.write(lambda tx: tx.change(age, (AHEAD_NS,)))
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    assert cloud.request("PUT", UPLOADS + "/u1/1", LARGE[:CHUNK_BYTES]).status == 204
    store.write(lambda tx: tx.change(age, (AHEAD_NS + PIN_EXPIRY_NS + 1,)))
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    assert cloud.request("PUT", UPLOADS + "/u1/1", b"x").status == 409
    with store.read() as tx:
        assert tx.value("SELECT count(*) FROM chunk_data") == 0
    assert check(store, deep=True) == []


def test_upload__survives_a_restart(store: Store) -> None:
    with serving_shares({"/": store}, dav=OPTIONS) as server:
        send_parts(server, LARGE, CHUNK_BYTES)
    store.close()
    with Store.open(store.file, store.options) as again, serving_shares({"/": again}, dav=OPTIONS) as server:
        assert assemble(server, FILES + "/a").status == 201
        assert read(again, "/a") == LARGE


@pytest.mark.parametrize("name", ["a", ".file", "1-", "-1", "1-2-3"])
def test_part__has_a_number(cloud: LiveServer, name: str) -> None:
    assert cloud.request("MKCOL", UPLOADS + "/u1").status == 201
    assert cloud.request("PUT", f"{UPLOADS}/u1/{name}", b"x").status == 400


@pytest.mark.parametrize("method", ["GET", "COPY", "LOCK", "PROPPATCH", "PATCH"])
def test_upload__other_methods_are_405(cloud: LiveServer, method: str) -> None:
    reply = cloud.request(method, UPLOADS + "/u1/1", headers={"Destination": FILES + "/a"})
    assert reply.status == 405
    assert "MKCOL" in (reply.header("Allow") or "")


def test_locate__keeps_users_apart(store: Store) -> None:
    share = Share("", store, OPTIONS)
    for path in ("/remote.php/dav/files/ann/a", "/dav/uploads/ann/u1"):
        assert locate(share, at(path), Principal("Ann")) is not None
        with pytest.raises(NotFound):
            locate(share, at(path), Principal("bob"))
    assert locate(share, at("/dav/other/ann"), Principal("bob")) is None


def test_uploads__of_one_name_are_each_users_own(store: Store) -> None:
    ann, bob = Assembly("ann", "u1"), Assembly("bob", "u1")
    store.begin_assembly(ann, NO_GUARD)
    with pytest.raises(NotFound):
        store.parts(bob)
    store.begin_assembly(bob, NO_GUARD)


def test_upload__is_not_touched_by_who_may_only_read(store: Store) -> None:
    ann, reader = Assembly("ann", "u1"), Guard(access=Access({(): Right.READ}))
    with pytest.raises(NotAllowed):
        store.begin_assembly(ann, reader)
    store.begin_assembly(ann, NO_GUARD)
    with pytest.raises(NotAllowed):
        store.check_part(ann, "1", reader, 0)
    with store.upload() as upload, pytest.raises(NotAllowed):
        upload.commit_part(ann, "1", reader)
    with pytest.raises(NotAllowed):
        store.drop_assembly(ann, reader)
    assert store.parts(ann)[1] == []
