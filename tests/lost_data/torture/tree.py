"""What one client knows of its own folder: nobody else changes it, so it is known exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.lost_data.torture.content import Content

Place = tuple[str, ...]  # names from the client's folder down; () is the folder itself

SOME_TOKEN = "?"  # of a LOCK without an answer: the lock may be there, and its token is not known  # noqa: S105


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or collection."""

    content: Content | None = None  # None: a collection
    number: str | None = None  # the value of two dead properties, always set together
    token: str | None = None  # of an exclusive lock of depth 0

    @property
    def is_collection(self) -> bool:
        return self.content is None


Tree = dict[Place, Entry]  # never changed in place: an operation makes another one

FOLDER: Tree = {(): Entry()}


def is_within(place: Place, top: Place) -> bool:
    """True when `place` is `top` or below it."""
    return place[: len(top)] == top


def tokens_in(tree: Tree, *tops: Place) -> dict[Place, str]:
    """The locks on what lies at or below the places."""
    return {
        place: entry.token
        for place, entry in tree.items()
        if entry.token is not None and any(is_within(place, top) for top in tops)
    }


def with_entry(tree: Tree, place: Place, entry: Entry) -> Tree:
    """With another entry at a place."""
    return {**tree, place: entry}


def without(tree: Tree, top: Place) -> Tree:
    """Without what lies at or below a place."""
    return {place: entry for place, entry in tree.items() if not is_within(place, top)}


def copied(tree: Tree, source: Place, destination: Place, *, is_deep: bool = True) -> Tree:
    """With a copy in place of what was at the destination; locks are not copied (RFC 4918 7.6)."""
    found = {
        destination + place[len(source) :]: replace(entry, token=None)
        for place, entry in tree.items()
        if (is_within(place, source) if is_deep else place == source)
    }
    return {**without(tree, destination), **found}


def moved(tree: Tree, source: Place, destination: Place) -> Tree:
    """With a tree at another place; locks do not move (RFC 4918 7.6)."""
    return without(copied(tree, source, destination), source)
