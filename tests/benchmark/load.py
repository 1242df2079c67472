"""The load: wrk for rates, ab for HEAD (wrk waits for a body after it), curl for single and large transfers.

Each figure is void unless the answers were right. curl checks each transfer. wrk and ab are too fast for that, so one
answer of each kind is looked at first; then no answer may have a status of 400 or more, none may be broken, and the
bytes that came back must be those of so many right answers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SCRIPT = Path(__file__).with_name("load.lua")
THREADS = 2  # of wrk, and processes of ab: half of four processors
TIMEOUT_S = 300.0
RANGE_BYTES = 65536  # as in load.lua
AB_HEADER_PART = 0.7  # HTTP/1.0 may get a shorter header than curl
SLACK = 0.03  # of the bytes of an answer: lengths of quotas, entity tags and names differ a little
CURL = ("curl", "--silent", "--show-error", "--globoff", "--path-as-is", "--noproxy", "*", "--header", "Expect:")
WRITE_OUT = "%{stderr}%{http_code} %{size_header} %{size_download} %{time_total}\n"
PROGRAMS = {"wrk": "wrk", "ab": "apache2-utils", "curl": "curl"}
RESPONSE = re.compile(rb"<(?:[A-Za-z][\w.-]*:)?response[ >]")


class Wrong(Exception):
    """An answer was not right, so nothing that was measured counts."""


@dataclass(frozen=True, slots=True)
class Step:
    """A request of a plan, and its right answer."""

    method: str
    path: str  # with %0Nd for numbers: see load.lua
    status: int
    count: int = 1  # of paths; 0: each one new
    body: int = 0  # bytes to send
    headers: Mapping[str, str] = field(default_factory=dict)
    span: int = 0  # a random range of 64 KiB below so many bytes
    length: int | None = None  # of the answer's body
    members: int | None = None  # responses in the multistatus


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as curl saw it."""

    status: int
    header_bytes: int
    body_bytes: int
    time_s: float
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a generator counted."""

    requests: int
    per_s: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0


def ask(
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    *,
    upload: Path | bytes | None = None,
    raw: bool = False,
) -> Answer:
    """One request on a connection of its own. With `raw` the body keeps its chunks' sizes."""
    done = subprocess.run(
        [*_curl(method, headers, upload), *(["--raw"] if raw else []), url],
        input=upload if isinstance(upload, bytes) else b"",
        capture_output=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    answers = _answers(done.stderr.decode(errors="replace"))
    if done.returncode != 0 or len(answers) != 1:
        raise Wrong(f"{method}: curl ended with {done.returncode}: {done.stderr.decode(errors='replace')[:200]}")
    each = answers[0]
    return Answer(each.status, each.header_bytes, each.body_bytes, each.time_s, done.stdout)


def ask_again(url: str, times: int, method: str, headers: Mapping[str, str], body: bytes = b"") -> list[Answer]:
    """The same request several times on one connection; bodies are counted and dropped."""
    command = [*_curl(method, headers, body or None), *([url] * times)]
    done = subprocess.run(
        command, input=body, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, timeout=TIMEOUT_S
    )
    answers = _answers(done.stderr.decode(errors="replace"))
    if done.returncode != 0 or len(answers) != times:
        raise Wrong(f"{method}: {len(answers)} of {times} answers")
    return answers


def fetch(url: str) -> Answer:
    """GET of a large file, whose bytes are dropped."""
    return ask_again(url, 1, "GET", {})[0]


def put_together(uploads: Mapping[str, Path]) -> tuple[list[int], float]:
    """PUT each file to its URL, all at the same time; return the statuses and the seconds until the last answer."""
    started = time.perf_counter()
    running = [
        subprocess.Popen(
            [*_curl("PUT", None, path), url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for url, path in uploads.items()
    ]
    ended = [each.communicate(timeout=TIMEOUT_S)[1].decode(errors="replace") for each in running]
    elapsed_s = time.perf_counter() - started
    return [answer.status for text in ended for answer in _answers(text)], elapsed_s


def run_wrk(url: str, plan: Sequence[Step], connections: int, seconds: int, folder: Path) -> Rate:
    """Send the plan over `connections` for `seconds`.

    Raises:
        Wrong: an answer was not right.
    """
    sizes = [_sample(url, step) for step in plan]
    lua = folder / "plan.lua"
    lua.write_text("return {" + ",\n".join(_lua_of(step) for step in plan) + "}\n", encoding="utf-8")
    threads = min(THREADS, connections)
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(SCRIPT)]
    seen = json.loads(_output_of([*command, url, "--", str(lua)]).strip().splitlines()[-1])
    if seen["bad_status"] or seen["broken"] or not seen["requests"]:
        raise Wrong(f"{seen['requests']} answers, {seen['bad_status']} of them errors, {seen['broken']} broken")
    expected = seen["requests"] * sum(sizes) / len(sizes)
    # What is under way at the end is counted in bytes and not in requests, and a plan may end in its middle.
    loose = 2 * connections * max(sizes) + threads * sum(sizes)
    if abs(seen["bytes"] - expected) > SLACK * expected + loose:
        raise Wrong(f"{seen['bytes']} bytes came back instead of {expected:.0f}")
    per_s = seen["requests"] / (seen["duration_us"] / 1e6)
    return Rate(seen["requests"], per_s, seen["p50_us"] / 1e3, seen["p99_us"] / 1e3)


def run_ab_head(url: str, connections: int, seconds: int, length: int) -> Rate:
    """HEAD of one URL, whose answers name `length`, over `connections` for `seconds`.

    ab speaks HTTP/1.0 with keep-alive. It is one thread, so that there are two of it.

    Raises:
        Wrong: an answer was not right.
    """
    first = ask(url, "HEAD")
    if first.status != 200 or f"content-length: {length}\r\n".encode() not in first.body.lower():
        raise Wrong(f"HEAD: {first.status}, {first.body[:200]!r}")
    each = connections // THREADS
    # -n comes after -t, which sets it to 50,000
    command = ["ab", "-q", "-k", "-i", f"-c{each}", f"-t{seconds}", f"-n{seconds * 400_000}", url]
    running = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(THREADS)
    ]
    outputs = [process.communicate(timeout=TIMEOUT_S)[0] for process in running]
    requests, per_s = 0, 0.0
    for output in outputs:
        counts = dict(re.findall(r"^(.+?): +([0-9.]+)", output, re.MULTILINE))
        complete = int(counts.get("Complete requests", "0"))
        if not complete or int(counts["Failed requests"]) or "Non-2xx responses" in counts:
            raise Wrong(f"HEAD: {complete} answers, {counts.get('Non-2xx responses', 0)} of them errors")
        if float(counts["Total transferred"]) < complete * first.header_bytes * AB_HEADER_PART:
            raise Wrong(f"HEAD: {counts['Total transferred']} bytes came back")
        requests += complete
        per_s += complete / float(counts["Time taken for tests"])
    return Rate(requests, per_s)


def count_members(body: bytes) -> int:
    """Responses in a multistatus."""
    return len(RESPONSE.findall(body))


def _output_of(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    if done.returncode != 0:
        raise Wrong(f"{command[0]}: {done.stderr.strip()[:200] or done.returncode}")
    return done.stdout


def _sample(url: str, step: Step) -> int:
    """Ask for one answer of a step, look whether it is right, and return its bytes, header and all."""
    path = step.path
    if step.count == 0:
        path = step.path % (0, 99, 0)
    elif "%" in path:
        path = step.path % 0
    headers = {**step.headers, **({"Range": f"bytes=1-{RANGE_BYTES}"} if step.span else {})}
    answer = ask(url + path, step.method, headers, upload=os.urandom(step.body) if step.body else None)
    if answer.status != step.status:
        raise Wrong(f"{step.method}: status {answer.status} instead of {step.status}")
    if step.length is not None and answer.body_bytes != step.length:
        raise Wrong(f"{step.method}: {answer.body_bytes} bytes instead of {step.length}")
    if step.members is not None and count_members(answer.body) != step.members:
        raise Wrong(f"{step.method}: {count_members(answer.body)} members instead of {step.members}")
    if step.method != "PUT":
        answer = ask(url + path, step.method, headers, raw=True)
    return answer.header_bytes + answer.body_bytes


def _lua_of(step: Step) -> str:
    headers = ", ".join(f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in step.headers.items())
    fields = [
        f"method = {json.dumps(step.method)}",
        f"path = {json.dumps(step.path)}",
        f"count = {step.count}",
        f"headers = {{{headers}}}",
    ]
    fields += [f"{name} = {value}" for name, value in (("body", step.body), ("span", step.span)) if value]
    return "{" + ", ".join(fields) + "}"


def _curl(method: str, headers: Mapping[str, str] | None, upload: Path | bytes | None) -> list[str]:
    command = [*CURL, "--write-out", WRITE_OUT]
    command += ["--head"] if method == "HEAD" else ["--request", method]
    if isinstance(upload, Path):
        command += ["--upload-file", str(upload)]
    elif upload is not None:
        command += ["--data-binary", "@-"]
        headers = {"Content-Type": "application/octet-stream", **(headers or {})}
    for name, value in (headers or {}).items():
        command += ["--header", f"{name}: {value}"]
    return command


def _answers(text: str) -> list[Answer]:
    lines = (re.fullmatch(r"(\d+) (\d+) (\d+) ([\d.]+)", line) for line in text.splitlines())
    return [Answer(int(m[1]), int(m[2]), int(m[3]), float(m[4])) for m in lines if m is not None]
