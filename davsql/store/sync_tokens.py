"""The tokens of sync-collection: which part of the journal a client has still to be told of, and from where on."""

from __future__ import annotations

import hashlib
import json
import re
from typing import NamedTuple
from urllib.parse import quote, unquote

from davsql.access import Access, Keys, Right
from davsql.errors import SyncTokenInvalid
from davsql.model import Inode
from davsql.store.journal import BEGINNING, Entry, have_arrived, is_known, newest
from davsql.store.migrate import GET_META
from davsql.store.nodes import Chain
from davsql.store.transaction import ReadTx

PREFIX = "http://davsql/ns/sync/"

_ENTRY = r"(\d{1,19})-(\d{1,19})"
_TOKEN = re.compile(
    rf"([0-9a-f-]{{1,64}})/(\d{{1,19}})/([0-9a-f]{{16}})/{_ENTRY}(?:_{_ENTRY}_(\d{{1,19}})(/[!-~]*)?)?", re.ASCII
)
_INTEGER_MAX = 2**63 - 1


class Position(NamedTuple):
    """Up to where something was told.

    Attributes:
        inode: of a single node, or of the top of a tree.
        keys: where in that tree, relative to its top; None: no tree was begun.
    """

    inode: int = 0
    keys: Keys | None = None

    def __str__(self) -> str:
        return str(self.inode) if self.keys is None else f"{self.inode}/{'/'.join(quote(key, '') for key in self.keys)}"

    @classmethod
    def parse(cls, inode: str, path: str | None) -> Position:
        """As it is written."""
        keys = None if path is None else tuple(unquote(each) for each in path.split("/") if each)
        return cls(int(inode), keys)


class Window(NamedTuple):
    """A part of the journal.

    Attributes:
        start: the last entry before it; BEGINNING: all there is, is told.
        end: its last entry; None: still to be found.
        after: up to here it was told already; None: nothing was.
    """

    start: Entry
    end: Entry | None = None
    after: Position | None = None

    def __str__(self) -> str:
        return str(self.start) if self.end is None else f"{self.start}_{self.end}_{self.after}"


class Tokens:
    """The tokens of what one principal sees of a store."""

    def __init__(self, tx: ReadTx, access: Access) -> None:
        self._store_id = tx.value(GET_META, ("store_id",))
        # Where rights have changed, what is seen changed without an entry in the journal.
        readable = sorted((keys, Right.READ in rights) for keys, rights in access.by_path.items())
        self._view = hashlib.sha256(repr(readable).encode()).hexdigest()[:16]
        self.newest = newest(tx)

    def current(self, inode: Inode) -> str:
        """The token of a collection as it is now."""
        return self.written(inode, Window(self.newest))

    def written(self, inode: Inode, window: Window) -> str:
        """The token that leads to a window."""
        return f"{PREFIX}{self._store_id}/{inode}/{self._view}/{window}"

    def read(self, tx: ReadTx, chain: Chain, token: str) -> Window:
        """The window that a token leads to.

        Raises:
            SyncTokenInvalid: it is too old, of another history of the store, of another collection, or no token.
        """
        found = _TOKEN.fullmatch(token.removeprefix(PREFIX)) if token.startswith(PREFIX) else None
        inodes = chain.inodes
        if found is None or (found[1], found[2], found[3]) != (self._store_id, str(inodes[-1]), self._view):
            raise SyncTokenInvalid("the sync-token is not of this collection, or the rights have changed")
        numbers = [int(each) for each in found.groups()[3:8] if each is not None]
        window = Window(Entry(*numbers[:2]))
        if len(numbers) > 2:
            window = Window(window.start, Entry(*numbers[2:4]), Position.parse(found[8], found[9]))
        known = [each for each in window[:2] if each not in (None, BEGINNING)]
        if not known or max(numbers) > _INTEGER_MAX or not all(is_known(tx, each) for each in known):
            raise SyncTokenInvalid("the sync-token is too old, or of another history of the store")
        # The journal does not say what was in a collection that was replaced, this one or one above it.
        if have_arrived(tx, json.dumps(inodes[1:]), known[0].change_id):
            raise SyncTokenInvalid("the collection was moved or replaced since the sync-token was given")
        return window
