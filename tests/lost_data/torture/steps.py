"""What a client does next: one request, and what is true before and after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from urllib.parse import quote

from tests.dav.answers import set_body
from tests.http_client import Body
from tests.lost_data.site import LOCKINFO
from tests.lost_data.torture.content import EMPTY, Bodies, Content, data_of
from tests.lost_data.torture.history import SharedWrite
from tests.lost_data.torture.tree import (
    SOME_TOKEN,
    Entry,
    Place,
    Tree,
    copied,
    is_within,
    moved,
    tokens_in,
    with_entry,
    without,
)

# Each of them needs encoding somewhere, or must not be decoded twice.
NAMES = (
    "plain", "a b", "100%", "a#b", "q?z", "x;y", "a&b", "<t>", "a+b", "it's", '"q"', "\u00fc", "e\u0301t\u00e9",
    "\u65e5\u672c", "\U0001f600", "%41", "back\\slash", "~t", "dot.", "[1]",
)  # fmt: skip
SHARED = tuple(f"common {number}" for number in range(8))
PROPERTY_SPACE = "urn:torture"
NODES_MAX = 24  # of one client: above it, more goes than comes
DEPTH_MAX = 4
MISSING_TAG = '"nobody-has-this-tag"'

SLOW_PIECES = 10
SLOW_PAUSE_S = 0.02

KIB, MIB = 1024, 1024 * 1024
# How often bodies are how long: most are of one chunk, some of several, few of several batches of the store.
LENGTHS = ((55, 200, 20 * KIB), (25, 100 * KIB, 400 * KIB), (16, MIB, 3 * MIB), (4, 4 * MIB, 9 * MIB))


@dataclass(frozen=True, slots=True)
class Step:
    """One request.

    Attributes:
        done: the statuses that mean that it has happened.
        refused: those that mean that nothing has changed, where that is possible or intended.
        after: what is true of the client's folder once it has happened.
        write: what it does to a shared name.
        read: the place, or shared name, that it reads.
    """

    method: str
    target: str
    done: tuple[int, ...]
    after: Tree
    body: Callable[[], Body] = lambda: None
    headers: dict[str, str] = field(default_factory=dict)
    refused: tuple[int, ...] = ()
    write: SharedWrite | None = None
    read: Place | str | None = None


class Steps:
    """Chooses steps for one client, from its seed alone as far as the server answers the same."""

    def __init__(self, folder: str, random: Random, bodies: Bodies) -> None:
        self.folder = folder
        self._random = random
        self._bodies = bodies
        self._numbers = 0
        self._kinds = {
            self._put: 30,
            self._put_again: 4,
            self._put_refused: 3,
            self._mkcol: 8,
            self._delete: 8,
            self._copy: 8,
            self._move: 10,
            self._lock: 6,
            self._unlock: 4,
            self._refresh: 2,
            self._proppatch: 6,
            self._get: 8,
            self._put_shared: 6,
            self._delete_shared: 2,
            self._move_to_shared: 4,
            self._copy_to_shared: 4,
            self._get_shared: 6,
        }

    def href(self, place: Place) -> str:
        """The request target of a place."""
        return "/" + "/".join(quote(name, safe="") for name in (self.folder, *place))

    def next(self, tree: Tree) -> Step:
        """What to do where this is the state of the client's folder."""
        if len(tree) > NODES_MAX and self._random.random() < 0.5:
            step = self._delete(tree)
            if step is not None:
                return step
        while True:
            (kind,) = self._random.choices(list(self._kinds), list(self._kinds.values()))
            step = kind(tree)
            if step is not None:
                return step

    # --- choosing ------------------------------------------------------------------------------------------------

    def _one(self, places: list[Place]) -> Place | None:
        return self._random.choice(places) if places else None

    def _file(self, tree: Tree) -> Place | None:
        return self._one([place for place, entry in tree.items() if not entry.is_collection])

    def _any(self, tree: Tree) -> Place | None:
        return self._one([place for place in tree if place])

    def _free_or_file(self, tree: Tree) -> Place:
        """A place for a file."""
        while True:
            place = self._new(tree)
            if place not in tree or not tree[place].is_collection:
                return place

    def _new(self, tree: Tree) -> Place:
        """A place in a collection that is there; something may be there."""
        parents = [place for place, entry in tree.items() if entry.is_collection and len(place) < DEPTH_MAX]
        return (*self._random.choice(parents), self._random.choice(NAMES))

    def _length(self) -> int:
        (_, least, most) = self._random.choices(LENGTHS, [each[0] for each in LENGTHS])[0]
        return self._random.randint(least, most)

    def _sent(self, content: Content) -> Callable[[], Body]:
        """How a body goes out: whole, in chunks, or slowly."""
        way = self._random.random()
        if way < 0.6:
            return lambda: data_of(content)
        if way < 0.95:
            size = self._random.choice((1000, 64 * KIB, 300 * KIB)) if content.length < MIB else 200 * KIB
            return lambda: _pieces(data_of(content), size)
        return lambda: _pieces(data_of(content), content.length // SLOW_PIECES + 1, SLOW_PAUSE_S)

    def _submitted(self, tokens: dict[Place, str]) -> dict[str, str]:
        """The If header with these tokens (RFC 4918 10.4)."""
        if not tokens:
            return {}
        return {"If": " ".join(f"<{self.href(place)}> (<{token}>)" for place, token in tokens.items())}

    # --- the client's own folder -----------------------------------------------------------------------------------

    def _put(self, tree: Tree, content: Content | None = None) -> Step:
        place = self._free_or_file(tree)
        content = content or self._bodies.new("/".join((self.folder, *place)), self._length())
        old = tree.get(place)
        headers = {} if old is None else self._submitted(tokens_in(tree, place))
        if self._random.random() < 0.2:
            headers |= {"If-None-Match": "*"} if old is None else {"If-Match": "*"}
        after = with_entry(tree, place, replace(old or Entry(), content=content))
        status = 201 if old is None else 204
        return Step("PUT", self.href(place), (status,), after, self._sent(content), headers)

    def _put_again(self, tree: Tree) -> Step | None:
        """The same bytes in another place."""
        source = self._file(tree)
        return None if source is None else self._put(tree, tree[source].content)

    def _put_refused(self, tree: Tree) -> Step | None:
        """One that a condition or a lock forbids."""
        place = self._file(tree)
        if place is None:
            return None
        content = self._bodies.new("refused", self._length())
        if tree[place].token is not None:
            headers, status = {}, 423
        else:
            headers, status = self._random.choice(({"If-None-Match": "*"}, {"If-Match": MISSING_TAG})), 412
        return Step("PUT", self.href(place), (), tree, self._sent(content), headers, refused=(status,))

    def _mkcol(self, tree: Tree) -> Step:
        place = self._new(tree)
        if place in tree:
            return Step("MKCOL", self.href(place), (), tree, refused=(405,))
        return Step("MKCOL", self.href(place) + "/", (201,), with_entry(tree, place, Entry()))

    def _delete(self, tree: Tree) -> Step | None:
        place = self._any(tree)
        if place is None:
            return None
        tokens = tokens_in(tree, place)
        if tokens and self._random.random() < 0.3:
            return Step("DELETE", self.href(place), (), tree, refused=(423,))
        return Step("DELETE", self.href(place), (204,), without(tree, place), headers=self._submitted(tokens))

    def _copy(self, tree: Tree) -> Step | None:
        source = self._any(tree)
        if source is None:
            return None
        is_deep = self._random.random() < 0.8
        destination = self._new(tree)
        if is_within(source, destination) or is_within(destination, source):
            return self._to(tree, "COPY", source, destination, None)
        return self._to(tree, "COPY", source, destination, copied(tree, source, destination, is_deep=is_deep), is_deep)

    def _move(self, tree: Tree) -> Step | None:
        source = self._any(tree)
        if source is None:
            return None
        destination = self._new(tree)
        if is_within(source, destination) or is_within(destination, source):
            return self._to(tree, "MOVE", source, destination, None)
        return self._to(tree, "MOVE", source, destination, moved(tree, source, destination))

    def _to(
        self, tree: Tree, method: str, source: Place, destination: Place, after: Tree | None, is_deep: bool = True
    ) -> Step:
        tops = (source, destination) if method == "MOVE" else (destination,)
        headers = {"Destination": self.href(destination), **self._submitted(tokens_in(tree, *tops))}
        if not is_deep:
            headers["Depth"] = "0"
        if after is None:  # onto an ancestor, a descendant or itself
            return Step(method, self.href(source), (), tree, headers=headers, refused=(403,))
        if self._random.random() < 0.2:
            headers["Overwrite"] = "F"
            if destination in tree:
                return Step(method, self.href(source), (), tree, headers=headers, refused=(412,))
        status = 204 if destination in tree else 201
        return Step(method, self.href(source), (status,), after, headers=headers)

    def _lock(self, tree: Tree) -> Step:
        place = self._free_or_file(tree)
        old = tree.get(place)
        if old is not None and old.token is not None:
            return Step("LOCK", self.href(place), (), tree, lambda: LOCKINFO, {"Depth": "0"}, refused=(423,))
        after = with_entry(tree, place, replace(old or Entry(EMPTY), token=SOME_TOKEN))
        headers = {"Depth": "0", "Timeout": "Second-3600"}
        return Step("LOCK", self.href(place), (201 if old is None else 200,), after, lambda: LOCKINFO, headers)

    def _unlock(self, tree: Tree) -> Step | None:
        tokens = tokens_in(tree, ())
        place = self._one(list(tokens))
        if place is None:
            return None
        after = with_entry(tree, place, replace(tree[place], token=None))
        return Step("UNLOCK", self.href(place), (204,), after, headers={"Lock-Token": f"<{tokens[place]}>"})

    def _refresh(self, tree: Tree) -> Step | None:
        tokens = tokens_in(tree, ())
        place = self._one(list(tokens))
        if place is None:
            return None
        headers = {"If": f"(<{tokens[place]}>)", "Timeout": "Second-1800"}
        return Step("LOCK", self.href(place), (200,), tree, headers=headers)

    def _proppatch(self, tree: Tree) -> Step | None:
        place = self._any(tree)
        if place is None:
            return None
        self._numbers += 1
        number = str(self._numbers)
        body = set_body(*(f'<T:{name} xmlns:T="{PROPERTY_SPACE}">{number}</T:{name}>' for name in ("a", "b")))
        after = with_entry(tree, place, replace(tree[place], number=number))
        headers = self._submitted({at: token for at, token in tokens_in(tree, place).items() if at == place})
        return Step("PROPPATCH", self.href(place), (207,), after, lambda: body, headers)

    def _get(self, tree: Tree) -> Step | None:
        place = self._file(tree)
        return None if place is None else Step("GET", self.href(place), (200,), tree, read=place)

    # --- names that all clients write ------------------------------------------------------------------------------

    def _put_shared(self, tree: Tree) -> Step:
        name = self._random.choice(SHARED)
        content = self._bodies.new(name, self._length())
        return Step("PUT", _shared(name), (201, 204), tree, self._sent(content), write=SharedWrite(name, content))

    def _delete_shared(self, tree: Tree) -> Step:
        name = self._random.choice(SHARED)
        return Step("DELETE", _shared(name), (204,), tree, refused=(404,), write=SharedWrite(name, None))

    def _move_to_shared(self, tree: Tree) -> Step | None:
        place = self._file(tree)
        if place is None:
            return None
        name = self._random.choice(SHARED)
        headers = {"Destination": _shared(name), **self._submitted(tokens_in(tree, place))}
        write = SharedWrite(name, tree[place].content)
        return Step("MOVE", self.href(place), (201, 204), without(tree, place), headers=headers, write=write)

    def _copy_to_shared(self, tree: Tree) -> Step | None:
        place = self._file(tree)
        if place is None:
            return None
        name = self._random.choice(SHARED)
        write = SharedWrite(name, tree[place].content)
        return Step("COPY", self.href(place), (201, 204), tree, headers={"Destination": _shared(name)}, write=write)

    def _get_shared(self, tree: Tree) -> Step:
        name = self._random.choice(SHARED)
        return Step("GET", _shared(name), (200, 404), tree, read=name)


def _shared(name: str) -> str:
    return "/" + quote(name, safe="")


def _pieces(data: bytes, size: int, pause_s: float = 0.0) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        if pause_s:
            time.sleep(pause_s)
        yield data[start : start + size]
