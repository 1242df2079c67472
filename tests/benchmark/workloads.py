"""What is measured: each workload, what it is called, and what a right answer is."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable

from tests.benchmark import bulk, load
from tests.benchmark.load import Step, Wrong
from tests.benchmark.runs import Bench, Figures, Row, Workload, expect_file, make_folders
from tests.benchmark.seed import BIG, SMALL_BYTES, Size

LISTINGS_MOST = 200  # in one run
MIB = 1024 * 1024
FEW_PROPERTIES = (
    b'<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:getlastmodified/>'
    b"<D:getcontentlength/><D:creationdate/><D:resourcetype/></D:prop></D:propfind>"
)


def _rate(key: str, connections: int, plan: Callable[[Bench], list[Step]]) -> Callable[[Bench], Figures]:
    def run(bench: Bench) -> Figures:
        rate = load.run_wrk(bench.url, plan(bench), connections, bench.seconds, bench.folder)
        return Figures({key: rate.per_s}, rate.requests)

    return run


def _get(bench: Bench) -> list[Step]:
    return [Step("GET", "/small/f%05d.bin", 200, count=bench.size.small_files, length=SMALL_BYTES)]


def _not_modified(bench: Bench) -> list[Step]:
    path = "/small/f00007.bin"
    lines = load.ask(bench.url + path, "HEAD").body.decode("latin-1").splitlines()
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "etag" in fields:
        condition = {"If-None-Match": fields["etag"]}
    else:  # sabre/dav has none for the files of a folder
        condition = {"If-Modified-Since": fields.get("last-modified", "")}
    return [Step("GET", path, 304, headers=condition, length=0)]


def _head(key: str, connections: int) -> Callable[[Bench], Figures]:
    def run(bench: Bench) -> Figures:
        url = f"{bench.url}/small/f00007.bin"
        rate = load.run_ab_head(url, connections, bench.seconds, SMALL_BYTES)
        return Figures({key: rate.per_s}, rate.requests)

    return run


def _put_new(key: str, connections: int) -> Callable[[Bench], Figures]:
    def run(bench: Bench) -> Figures:
        base = f"/{key}-{bench.rep}"
        make_folders(bench, base)
        os.sync()
        plan = [Step("PUT", base + "/%02d/%02d-%07d.bin", 201, count=0, body=SMALL_BYTES)]
        rate = load.run_wrk(bench.url, plan, connections, bench.seconds, bench.folder)
        expect_file(bench, f"{base}/02/00-0000002.bin", SMALL_BYTES)  # wrk asks its script for one that it never sends
        return Figures({key: rate.per_s}, rate.requests)

    return run


def _overwrite(bench: Bench) -> list[Step]:
    status = load.ask(f"{bench.url}/over/f00000.bin", "PUT", upload=os.urandom(SMALL_BYTES)).status
    if status not in {200, 201, 204}:  # nginx says 204, others 200 or even 201
        raise Wrong(f"PUT: status {status}")
    return [Step("PUT", "/over/f%05d.bin", status, count=bench.size.small_files, body=SMALL_BYTES)]


def _describe(bench: Bench) -> list[Step]:
    return [Step("PROPFIND", "/small/f%05d.bin", 207, count=bench.size.small_files, headers={"Depth": "0"}, members=1)]


def _list_often(bench: Bench) -> list[Step]:
    members = bench.size.members[0]
    return [Step("PROPFIND", f"/list{members}/", 207, headers={"Depth": "1"}, members=members + 1)]


def _listing(key: str, which: int, body: bytes) -> Callable[[Bench], Figures]:
    def run(bench: Bench) -> Figures:
        members = bench.size.members[which]
        return _time_listing(bench, key, f"/list{members}/", "1", body, members + 1)

    return run


def _deep(bench: Bench) -> Figures:
    folders, files = bench.size.deep
    return _time_listing(bench, "deep", "/deep/", "infinity", b"", 1 + folders + folders * files)


def _time_listing(bench: Bench, key: str, path: str, depth: str, body: bytes, members: int) -> Figures:
    """Milliseconds until the last byte of a PROPFIND, the median of several."""
    headers = {"Depth": depth, **({"Content-Type": "application/xml"} if body else {})}
    first = load.ask(bench.url + path, "PROPFIND", headers, upload=body or None)
    if first.status != 207 or load.count_members(first.body) != members:
        raise Wrong(f"PROPFIND: {first.status}, {load.count_members(first.body)} members instead of {members}")
    times = max(2, min(LISTINGS_MOST, int(bench.seconds / first.time_s)))
    answers = load.ask_again(bench.url + path, times, "PROPFIND", headers, body)
    if any((each.status, each.body_bytes) != (first.status, first.body_bytes) for each in answers):
        raise Wrong("PROPFIND: another answer than the first")
    return Figures({key: statistics.median(each.time_s for each in answers) * 1000}, times + 1)


def _mixed(bench: Bench) -> Figures:
    base = f"/mixed-{bench.rep}"
    make_folders(bench, base)
    os.sync()
    get, put = _get(bench)[0], Step("PUT", base + "/%02d/%02d-%07d.bin", 201, count=0, body=SMALL_BYTES)
    describe, listing = _describe(bench)[0], _list_often(bench)[0]
    plan = [*[get] * 5, describe, *[get] * 5, listing, *[get] * 3, put, *[get] * 3, describe]  # 80, 15 and 5 %
    rate = load.run_wrk(bench.url, plan, 16, bench.seconds, bench.folder)
    expect_file(bench, f"{base}/01/00-0000001.bin", SMALL_BYTES)
    return Figures({"mixed": rate.per_s, "mixed_p99": rate.p99_ms}, rate.requests)


def _ranges(bench: Bench) -> list[Step]:
    return [Step("GET", f"/{BIG}", 206, span=bench.size.big_bytes, length=load.RANGE_BYTES)]


REQUESTS = "req/s"


def _listings(key: str, which: int) -> tuple[Workload, Workload]:
    """A collection with all properties (what a client gets that sends no body) and with the few that clients want."""
    title = f"PROPFIND 1, {{list{which}}} members"
    return (
        Workload((Row(f"{key}_all", f"{title}, allprop", "ms"),), _listing(f"{key}_all", which, b"")),
        Workload((Row(f"{key}_few", f"{title}, 4 properties", "ms"),), _listing(f"{key}_few", which, FEW_PROPERTIES)),
    )


def _small(kind: str, title: str, connections: int) -> Workload:
    """A rate of requests that are about 4 KiB, over so many connections."""
    key = f"{kind}_{connections}"
    rate: dict[str, Callable[[Bench], list[Step]]] = {
        "get": _get,
        "not_modified": _not_modified,
        "overwrite": _overwrite,
        "describe": _describe,
    }
    makers = {"head": _head, "put": _put_new}
    run = makers[kind](key, connections) if kind in makers else _rate(key, connections, rate[kind])
    row = Row(key, f"{title}, {connections} connection{'s' if connections > 1 else ''}", REQUESTS)
    return Workload((row,), run, writes=kind in {"put", "overwrite"}, hello=kind in {"get", "head", "put"})


WORKLOADS = (
    *(_small("get", "GET 4 KiB", connections) for connections in (1, 8, 32)),
    *(_small("head", "HEAD", connections) for connections in (8, 32)),
    *(_small("not_modified", "GET, 304", connections) for connections in (8, 32)),
    *(_small("put", "PUT 4 KiB, new", connections) for connections in (1, 8, 32)),
    _small("overwrite", "PUT 4 KiB, overwriting", 8),
    _small("describe", "PROPFIND 0", 8),
    Workload((Row("list_8", "PROPFIND 1, {list0} members, 8 connections", REQUESTS),), _rate("list_8", 8, _list_often)),
    *_listings("list0", 0),
    *_listings("list1", 1),
    *_listings("list2", 2),
    Workload((Row("deep", "PROPFIND infinity, {deep} resources", "ms"),), _deep),
    Workload(
        (
            Row("mixed", "mixed 80/15/5, 16 connections", REQUESTS),
            Row("mixed_p99", "the same, 99th percentile", "ms"),
        ),
        _mixed,
        writes=True,
    ),
    Workload((Row("range", "GET random 64 KiB of {big}, 8 connections", REQUESTS),), _rate("range", 8, _ranges)),
    Workload((Row("get_big", "GET {big}", "MiB/s"),), bulk.get_big),
    Workload((Row("put_big", "PUT {big}", "MiB/s"),), bulk.put_big, writes=True),
    Workload((Row("put_parts", "8 x PUT {part} at once", "MiB/s"),), bulk.put_parts, writes=True),
    Workload((Row("put_again", "PUT {big} that is stored already", "MiB/s"),), bulk.put_again, writes=True, ours=True),
    Workload(
        (
            Row("tree", "COPY, MOVE, DELETE of a tree of {tree} files", "ms"),
            Row("tree_copy", "the COPY of it", "ms"),
            Row("tree_move", "the MOVE of it", "ms"),
            Row("tree_delete", "the DELETE of it", "ms"),
        ),
        bulk.tree_steps,
        writes=True,
    ),
    Workload((Row("copy_big", "COPY of {big}", "ms"),), bulk.copy_big, writes=True),
    Workload(
        (
            Row("sync_cpu", "rclone sync of {sync} files", "CPU s"),
            Row("sync_again_cpu", "the same, nothing changed", "CPU s"),
        ),
        bulk.sync,
        writes=True,
        all_at_once=True,
    ),
)
ROWS = {row.key: row for workload in WORKLOADS for row in workload.rows}


def title_of(row: Row, size: Size) -> str:
    """The title, with the sizes that were used."""
    folders, files, _ = size.tree
    names = {f"list{index}": f"{members:,}" for index, members in enumerate(size.members)}
    return row.title.format(
        **names,
        big=_size_text(size.big_bytes),
        part=_size_text(size.part_bytes),
        deep=f"{1 + size.deep[0] * (1 + size.deep[1]):,}",
        tree=f"{folders * files:,}",
        sync=f"{size.sync_files:,}",
    )


def _size_text(size_bytes: int) -> str:
    return f"{size_bytes // MIB // 1024} GiB" if size_bytes >= 1024 * MIB else f"{size_bytes // MIB} MiB"
