"""Quotas: what is over them is refused whole, what is deleted makes room, and what is shown agrees."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest

from davsql.dav import properties
from davsql.dav.quotas import QuotaOptions, ShareQuotas
from davsql.dav.request import DavOptions
from davsql.errors import QuotaExceeded
from davsql.maintenance.gc import collect_garbage
from davsql.model import NO_LIMITS, Guard, Limit, Limits, Principal
from davsql.store import trees
from davsql.store.check import check
from davsql.store.store import Store
from tests.access.wsgi import Site, rule, site, user
from tests.dav.answers import lock_body, only_response, propfind_body
from tests.http_client import Reply
from tests.live_server import serving_shares
from tests.store_steps import at, mkcol, put, tree

ANN, BOB = user("ann"), user("bob", "staff", "guests")
MIB = 1024 * 1024


def drive(store: Store, quotas: ShareQuotas) -> Site:
    """A share in which ann and bob may do everything."""
    return site({"/": (store, (rule("/", "ann bob", "rwd"),))}, {"/": quotas})


def holding(size_bytes: int | None = None, nodes: int | None = None) -> Guard:
    """What ann asks with, when she may hold so much."""
    return Guard(principal="ann", limits=Limits(Limit(nodes, size_bytes)))


def usage(store: Store) -> dict[str, tuple[int, int]]:
    """Nodes and bytes of each owner who has any."""
    with store.read() as tx:
        return {owner: (nodes, size) for owner, nodes, size in tx.rows("SELECT * FROM usage") if nodes or size}


def shown(site: Site, who: Principal) -> dict[str, int]:
    reply = site.ask(who, "PROPFIND", "/", propfind_body(*properties.QUOTA), {"Depth": "0"})
    return {name.removeprefix("{DAV:}quota-"): int(each.text or "") for name, each in only_response(reply)[200].items()}


def refused(reply: Reply) -> None:
    assert (reply.status, reply.xml[0].tag) == (507, "{DAV:}quota-not-exceeded")


# --- which quota --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quotas", "user_limit"),
    [
        ([], Limit()),
        ([QuotaOptions(("*",), mb=1)], Limit(None, MIB)),
        ([QuotaOptions(("*",), mb=1), QuotaOptions(("bob",), nodes=3)], Limit(3, None)),
        ([QuotaOptions(("*",), mb=9), QuotaOptions(groups=("staff",), mb=1)], Limit(None, MIB)),
        ([QuotaOptions(groups=("staff",), mb=1), QuotaOptions(groups=("guests",), mb=2, nodes=5)], Limit(5, 2 * MIB)),
        ([QuotaOptions(("ann",), mb=1)], Limit()),
        ([QuotaOptions(("bob",), mb=0)], Limit(None, 0)),
    ],
)
def test_share_quotas__of_those_that_name_a_user_best_the_largest_counts(
    quotas: list[QuotaOptions], user_limit: Limit
) -> None:
    share = Limit(nodes=100)
    assert ShareQuotas(share, quotas).limits_of(BOB) == Limits(user_limit, share)


def test_share_quotas__without_any_nothing_is_looked_up() -> None:
    assert ShareQuotas().limits_of(BOB) is NO_LIMITS


# --- what counts --------------------------------------------------------------------------------------------------


def test_usage__follows_who_made_what(store: Store) -> None:
    ann, bob = Guard(principal="ann"), Guard(principal="bob")
    store.make_collection(at("/c"), ann)
    put(store, "/c/a", b"12345", guard=ann)
    put(store, "/c/b", b"12345", guard=bob)
    assert usage(store) == {"ann": (2, 5), "bob": (1, 5)}
    put(store, "/c/b", b"123", guard=ann)  # whose content it is now
    assert usage(store) == {"ann": (3, 8)}
    store.copy(at("/c"), at("/d"), guard=bob)
    assert usage(store) == {"ann": (3, 8), "bob": (3, 8)}
    store.move(at("/d"), at("/c/d"), guard=ann)
    assert usage(store) == {"ann": (3, 8), "bob": (3, 8)}
    store.move(at("/c/d/a"), at("/c/b"), guard=bob)
    assert usage(store) == {"ann": (2, 5), "bob": (3, 8)}
    store.delete(at("/c/b"))
    assert usage(store) == {"ann": (2, 5), "bob": (2, 3)}
    store.delete(at("/c"))
    assert check(store) == []
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    assert usage(store) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda store, guard: put(store, "/new", b"12", guard=guard),
        lambda store, guard: put(store, "/f", b"123456789ab", guard=guard),
        lambda store, guard: store.copy(at("/f"), at("/g"), guard=guard),
        lambda store, guard: store.copy(at("/c"), at("/d"), guard=guard),
    ],
    ids=["put", "replace", "copy", "copy of a tree"],
)
def test_quota__too_many_bytes_change_nothing(store: Store, change: object) -> None:
    put(store, "/f", b"123456789", guard=Guard(principal="ann"))
    mkcol(store, "/c")
    put(store, "/c/bobs", b"123", guard=Guard(principal="bob"))
    before = tree(store), usage(store)
    with pytest.raises(QuotaExceeded):
        change(store, holding(10))  # type: ignore[operator]
    assert (tree(store), usage(store)) == before


def test_quota__too_many_nodes_change_nothing(store: Store) -> None:
    drive_ = drive(store, ShareQuotas(quotas=[QuotaOptions(("ann",), nodes=3)]))
    assert drive_.ask(ANN, "MKCOL", "/c").status == 201
    assert drive_.put(ANN, "/c/f") == 201
    assert drive_.put(ANN, "/g") == 201
    before = tree(store)
    refused(drive_.ask(ANN, "MKCOL", "/d"))
    refused(drive_.ask(ANN, "PUT", "/h", b"x"))
    refused(drive_.ask(ANN, "PUT", "/h", b"x" * 100_000))
    refused(drive_.ask(ANN, "LOCK", "/h", lock_body()))
    refused(drive_.ask(ANN, "COPY", "/c", headers={"Destination": "/d"}))
    assert tree(store) == before
    assert drive_.put(ANN, "/g", b"other") == 204
    assert drive_.ask(ANN, "MOVE", "/c", headers={"Destination": "/d"}).status == 201
    assert drive_.ask(ANN, "COPY", "/g", headers={"Destination": "/d/f"}).status == 204
    assert drive_.put(BOB, "/bobs") == 201


def test_quota__what_makes_it_no_worse_is_possible_beyond_it(store: Store) -> None:
    put(store, "/f", b"123456789", guard=Guard(principal="ann"))
    put(store, "/g", b"123456789", guard=Guard(principal="ann"))
    guard = holding(5, 1)
    put(store, "/f", b"12345678", guard=guard)
    put(store, "/f", b"87654321", guard=guard)
    store.move(at("/g"), at("/h"), guard=guard)
    with pytest.raises(QuotaExceeded):
        put(store, "/f", b"123456789", guard=guard)
    store.copy(at("/f"), at("/h"), guard=guard)
    assert usage(store) == {"ann": (2, 16)}


def test_quota__of_the_share_counts_what_all_hold(store: Store) -> None:
    share = drive(store, ShareQuotas(Limit(size_bytes=10)))
    assert share.put(ANN, "/a", b"12345") == 201
    assert share.put(BOB, "/b", b"12345") == 201
    refused(share.ask(BOB, "PUT", "/c", b"1"))
    refused(share.ask(ANN, "PUT", "/a", b"123456"))
    assert share.put(BOB, "/a", b"54321") == 204
    assert shown(share, ANN) == {"used-bytes": 10, "available-bytes": 0}


def test_quota__two_uploads_that_fit_one_by_one_do_not_both_fit(store: Store) -> None:
    statuses: list[bool] = []
    together = threading.Barrier(4)

    def upload(name: str) -> None:
        with store.upload() as each:
            each.write(name.encode() * 60)
            together.wait()
            try:
                each.commit(at(name), guard=holding(100))
                statuses.append(True)
            except QuotaExceeded:
                statuses.append(False)

    threads = [threading.Thread(target=upload, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [False, False, False, True]
    assert usage(store) == {"ann": (1, 60)}


# --- room again ---------------------------------------------------------------------------------------------------


def test_quota__deleting_makes_room_at_once(store: Store) -> None:
    ann = holding(10_000, 40)
    mkcol(store, "/kept")
    store.make_collection(at("/c"), ann)
    for number in range(20):
        put(store, f"/c/{number}", b"x" * 500, guard=ann)
    store.delete(at("/c/0"), ann)
    put(store, "/f", b"y" * 500, guard=ann)
    store.delete(at("/c"), ann)  # its members count until they are taken apart
    put(store, "/g", b"z" * 9500, guard=ann)
    assert usage(store) == {"": (1, 0), "ann": (2, 10_000)}
    with pytest.raises(QuotaExceeded):
        put(store, "/h", b"1", guard=ann)


def test_quota__is_asked_before_a_large_body_with_deleted_trees_out_of_the_way(store: Store) -> None:
    ann = holding(1000)
    store.make_collection(at("/c"), ann)
    put(store, "/c/f", b"x" * 1000, guard=ann)
    with pytest.raises(QuotaExceeded):
        store.check_put(at("/g"), ann, 1)
    assert store.check_put(at("/c/f"), ann, 1000) == 1000
    with pytest.raises(QuotaExceeded):
        store.check_put(at("/c/f"), ann, 1001)
    store.delete(at("/c"), ann)
    assert store.check_put(at("/g"), ann, 1000) == 1000


def test_quota__a_long_copy_ends_where_it_is_used_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "STEP_NODES", 3)
    monkeypatch.setattr(trees, "AT_ONCE_NODES", 3)
    mkcol(store, "/c")
    for number in range(10):
        put(store, f"/c/{number}", b"12345", guard=Guard(principal="bob"))
    before = tree(store)
    for guard in (holding(49), holding(None, 10)):
        with pytest.raises(QuotaExceeded):
            store.copy(at("/c"), at("/d"), guard=guard)
        assert tree(store) == before
    store.copy(at("/c"), at("/d"), guard=holding(50, 11))
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    assert usage(store) == {"": (1, 0), "ann": (11, 50), "bob": (10, 50)}


# --- over HTTP ----------------------------------------------------------------------------------------------------


def test_quota__properties_agree_with_it(store: Store) -> None:
    share = drive(store, ShareQuotas(quotas=[QuotaOptions(("ann",), mb=1)]))
    assert shown(share, ANN) == {"used-bytes": 0, "available-bytes": MIB}
    assert share.put(ANN, "/f", b"x" * 1000) == 201
    assert shown(share, ANN) == {"used-bytes": 1000, "available-bytes": MIB - 1000}
    refused(share.ask(ANN, "PUT", "/g", b"x" * (MIB - 999)))
    assert share.put(ANN, "/g", b"x" * (MIB - 1000)) == 201
    assert shown(share, ANN) == {"used-bytes": MIB, "available-bytes": 0}
    assert shown(share, BOB)["available-bytes"] > MIB


def blocks(count: int) -> Iterable[bytes]:
    return (b"x" * MIB for _ in range(count))


def test_quota__ends_a_chunked_upload_on_its_way(store: Store) -> None:
    quotas = {"/": ShareQuotas(Limit(size_bytes=2 * MIB))}
    with serving_shares({"/": store}, quotas=quotas) as server:
        refused(server.request("PUT", "/f", blocks(4), {}))
        assert server.request("PUT", "/f", blocks(2), {}).status == 201
    assert usage(store) == {"": (1, 2 * MIB)}


def test_quota__is_told_before_the_body_is_sent(store: Store) -> None:
    quotas = {"/": ShareQuotas(Limit(size_bytes=10))}
    with serving_shares({"/": store}, quotas=quotas) as server:
        reply = server.exchange(
            b"PUT /f HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 11\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
    assert reply.startswith(b"HTTP/1.1 507 ")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_max_file_size__is_a_413_and_keeps_what_was_there(store: Store, *, is_chunked: bool) -> None:
    put(store, "/f", b"old")
    with serving_shares({"/": store}, dav=DavOptions(max_file_size_mb=1)) as server:
        body = blocks(2) if is_chunked else b"x" * (MIB + 1)
        assert server.request("PUT", "/f", body).status == 413
        assert tree(store) == {"/f": b"old"}
        assert server.request("PUT", "/f", b"x" * MIB).status == 204
