"""Replays what clients that cannot run here send, from tests/clients/sequences, and compares the answers.

A sequence names its client and where the requests are known from. Its steps are requests in order; `${name}` stands for
a value that a step before kept from its answer, `${url}` for the server. What a step does not mention is not compared.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from davsql.dav.request import DavOptions
from davsql.store.store import Store
from tests.http_client import Client, Reply
from tests.live_server import serving_shares
from tests.store_steps import mkcol, put, tree

SEQUENCES = sorted((Path(__file__).parent / "sequences").glob("*.toml"))
_PROP = "{DAV:}response/{DAV:}propstat/{DAV:}prop/"


@dataclass(frozen=True, slots=True)
class Step:
    """One request, and what its answer must be."""

    request: str  # method and target
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)  # beside those of the sequence
    body: str | None = None
    chunked: bool = False
    answers: Mapping[str, str] = field(default_factory=dict)  # headers; "" where there must be none
    matches: Mapping[str, str] = field(default_factory=dict)  # headers in which a regular expression is found
    content: str | None = None  # the whole body of the answer
    properties: Mapping[str, str] = field(default_factory=dict)  # by Clark name; the text of the first that is found
    lacks: tuple[str, ...] = ()  # texts that must not be in the body
    members: tuple[str, ...] | None = None  # hrefs, sorted
    keeps: Mapping[str, str] = field(default_factory=dict)  # values of headers, by name of variable


@dataclass(frozen=True, slots=True)
class Sequence:
    """What one client does.

    Attributes:
        tree: what the store holds before and `leaves` after; collections end with a slash and have no content.
        dav: options of the server.
    """

    client: str
    version: str
    sources: tuple[str, ...]
    steps: tuple[Step, ...]
    leaves: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    tree: Mapping[str, str] = field(default_factory=dict)
    dav: Mapping[str, Any] = field(default_factory=dict)


def read_sequence(file: Path) -> Sequence:
    """The sequence of a file; TypeError where a key is none that is known."""
    document = tomllib.loads(file.read_text(encoding="utf-8"))
    return Sequence(steps=tuple(Step(**each) for each in document.pop("step")), **document)


def replay(sequence: Sequence, store: Store) -> None:
    """Send all requests over one connection, and compare every answer and what is left in the store."""
    for path, content in sequence.tree.items():
        if path.endswith("/"):
            mkcol(store, path)
        else:
            put(store, path, content.encode())
    with serving_shares({"/": store}, dav=DavOptions(**sequence.dav)) as server, server.client() as client:
        values = {"url": server.url}
        for number, step in enumerate(sequence.steps, start=1):
            reply = _send(client, sequence, step, values)
            try:
                _compare(step, reply, values)
            except AssertionError as error:
                error.add_note(f"step {number}: {step.request}\n{reply.status} {reply.headers}\n{reply.text}")
                raise
    assert {path: (content or b"").decode() for path, content in _slashed(tree(store)).items()} == sequence.leaves


def _send(client: Client, sequence: Sequence, step: Step, values: Mapping[str, str]) -> Reply:
    method, target = step.request.split(" ")
    headers = {name: Template(text).substitute(values) for name, text in {**sequence.headers, **step.headers}.items()}
    body = None if step.body is None else Template(step.body).substitute(values).encode()
    return client.request(method, target, iter([body[:3], body[3:]]) if step.chunked and body else body, headers)


def _compare(step: Step, reply: Reply, values: dict[str, str]) -> None:
    assert reply.status == step.status
    for name, expected in step.answers.items():
        assert (reply.header(name) or "") == Template(expected).substitute(values)
    for name, pattern in step.matches.items():
        assert re.search(pattern, reply.header(name) or "")
    if step.content is not None:
        assert reply.text == step.content
    for name, text in step.properties.items():
        assert reply.xml.findtext(_PROP + name) == Template(text).substitute(values)
    if step.members is not None:
        assert sorted(each.text or "" for each in reply.xml.findall("{DAV:}response/{DAV:}href")) == list(step.members)
    assert not [text for text in step.lacks if text in reply.text]
    for name, header in step.keeps.items():
        values[name] = (reply.header(header) or "").strip("<>")
        assert values[name]


def _slashed(found: Mapping[str, bytes | None]) -> dict[str, bytes | None]:
    return {path + "/" if content is None else path: content for path, content in found.items()}


def named_in(sequence: Sequence) -> list[str]:
    """The public places that a sequence names, each as project#number or as an address."""
    return [source for source in sequence.sources if re.search(r"#[0-9]+|https://|[.](md|ts|go|swift)\b", source)]
