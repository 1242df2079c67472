"""Large files, whole trees, and a client that synchronises."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.benchmark import load, machine
from tests.benchmark.load import Wrong
from tests.benchmark.runs import DONE, Bench, Figures, delete, expect_file, expect_members, make_collection
from tests.benchmark.seed import BIG, BLOCK_BYTES, SEED, make_sync_source, write_big

MIB = 1024 * 1024
PARTS = 8
SYNC_TIMEOUT_S = 900.0


def get_big(bench: Bench) -> Figures:
    """MiB a second of a GET."""
    load.fetch(f"{bench.url}/{BIG}")  # what is read from the disk is not what is compared
    answer = load.fetch(f"{bench.url}/{BIG}")
    if (answer.status, answer.body_bytes) != (200, bench.size.big_bytes):
        raise Wrong(f"GET: {answer.status}, {answer.body_bytes} bytes")
    return Figures({"get_big": bench.size.big_bytes / MIB / answer.time_s})


def put_big(bench: Bench) -> Figures:
    """MiB a second of a PUT of content that was never sent before."""
    file = _fresh_file(bench, "big", 0, bench.size.big_bytes)
    return Figures({"put_big": _put_files(bench, "big", [file], bench.size.big_bytes)})


def put_again(bench: Bench) -> Figures:
    """The same of content that is stored already, under another name."""
    return Figures({"put_again": _put_files(bench, "again", [bench.tree / BIG], bench.size.big_bytes)})


def put_parts(bench: Bench) -> Figures:
    """MiB a second of eight PUTs at the same time."""
    files = [_fresh_file(bench, "part", index, bench.size.part_bytes) for index in range(PARTS)]
    return Figures({"put_parts": _put_files(bench, "parts", files, bench.size.part_bytes)})


def tree_steps(bench: Bench) -> Figures:
    """Milliseconds of a COPY of a tree, a MOVE of the copy and its DELETE."""
    folders, files, _ = bench.size.tree
    copied, moved = f"/copied-{bench.rep}", f"/moved-{bench.rep}"
    os.sync()
    copy_s = _send_to(bench, "COPY", "/tree/", f"{copied}/")
    _expect_tree(bench, copied, folders, files)
    move_s = _send_to(bench, "MOVE", f"{copied}/", f"{moved}/")
    _expect_tree(bench, moved, folders, files)
    delete_s = delete(bench, f"{moved}/")
    status = load.ask(f"{bench.url}{moved}/", "PROPFIND", {"Depth": "0"}).status
    if status != 404:
        raise Wrong(f"after DELETE: status {status}")
    parts_ms = {"tree_copy": copy_s * 1000, "tree_move": move_s * 1000, "tree_delete": delete_s * 1000}
    return Figures({"tree": sum(parts_ms.values()), **parts_ms})


def copy_big(bench: Bench) -> Figures:
    """Milliseconds of a COPY of a large file."""
    copied = f"/copied-{bench.rep}.bin"
    os.sync()
    _touch_memory(bench.folder, bench.size.big_bytes)
    copy_s = _send_to(bench, "COPY", f"/{BIG}", copied)
    expect_file(bench, copied, bench.size.big_bytes)
    delete(bench, copied)
    return Figures({"copy_big": copy_s * 1000})


def sync(bench: Bench) -> Figures:
    """CPU seconds of the server while rclone synchronises a folder to it, and again when nothing has changed.

    rclone's WebDAV client sends 100 requests a second at most, so how long it takes says nothing.
    """
    source = bench.folder / "source"
    remote = f":webdav:synced-{bench.rep}"
    first_s = _sync_once(bench, source, remote)
    again_s = _sync_once(bench, source, remote)
    seen = json.loads(_rclone(bench, "size", "--json", remote))
    wanted = [path.stat().st_size for path in source.rglob("*") if path.is_file()]
    if (seen["count"], seen["bytes"]) != (len(wanted), sum(wanted)):
        raise Wrong(f"sync: {seen} instead of {len(wanted)} files of {sum(wanted)} bytes")
    return Figures({"sync_cpu": first_s, "sync_again_cpu": again_s})


def prepare_sync(bench: Bench) -> None:
    """Make what is synchronised, once for all servers."""
    make_sync_source(bench.folder / "source", bench.size)


def _sync_once(bench: Bench, source: Path, remote: str) -> float:
    before = machine.cpu_of(bench.server.pids())
    _rclone(bench, "sync", "--transfers", "8", "--checkers", "16", "--retries", "1", str(source), remote)
    return machine.cpu_of(bench.server.pids()) - before


def _rclone(bench: Bench, *arguments: str) -> str:
    program = machine.find_program("rclone")
    if program is None:
        raise Wrong("rclone is missing")
    settings = {"RCLONE_CONFIG": "", "RCLONE_WEBDAV_URL": f"{bench.url}/", "RCLONE_WEBDAV_VENDOR": "other"}
    done = subprocess.run(
        [program, *arguments],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=SYNC_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise Wrong("rclone: " + " ".join(done.stderr.split())[:200])
    return done.stdout


def _fresh_file(bench: Bench, name: str, index: int, size_bytes: int) -> Path:
    """A file whose content no server has; made once in a repetition, each server gets it once."""
    path = bench.folder / f"{name}{index}.bin"
    if not path.exists():
        write_big(path, SEED + 1000 * bench.rep + 10 * len(name) + index, size_bytes)
    return path


def _put_files(bench: Bench, name: str, files: list[Path], size_bytes: int) -> float:
    base = f"/{name}-{bench.rep}"
    uploads = {f"{bench.url}{base}/{index}.bin": path for index, path in enumerate(files)}
    make_collection(bench, base)
    os.sync()
    _touch_memory(bench.folder, len(files) * size_bytes)
    statuses, elapsed_s = load.put_together(uploads)
    if len(statuses) != len(files) or not set(statuses) <= DONE:
        raise Wrong(f"PUT: statuses {statuses}")
    for index in range(len(files)):
        expect_file(bench, f"{base}/{index}.bin", size_bytes)
    delete(bench, f"{base}/")
    return len(files) * size_bytes / MIB / elapsed_s


def _touch_memory(folder: Path, size_bytes: int) -> None:
    """Let the system have so many free pages at hand: a virtual machine's host may have taken them back."""
    path = folder / "touched.tmp"
    with path.open("wb", buffering=0) as file:
        for _ in range(size_bytes // BLOCK_BYTES):
            file.write(bytes(BLOCK_BYTES))
    path.unlink()


def _send_to(bench: Bench, method: str, path: str, to: str) -> float:
    """COPY or MOVE; return its seconds."""
    headers = {"Destination": bench.url + to, "Overwrite": "F"}
    answer = load.ask(bench.url + path, method, headers)
    if answer.status not in DONE:
        raise Wrong(f"{method}: status {answer.status}")
    return answer.time_s


def _expect_tree(bench: Bench, path: str, folders: int, files: int) -> None:
    expect_members(bench, path, folders)
    for index in range(folders):
        expect_members(bench, f"{path}/d{index:02d}", files)
