"""Folders to send around: names that spoil URLs, XML, shells and file systems."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from davsql.store.store import Store
from tests import store_steps

BRIEF_BYTES = 250

# One spelling of each name: NFC and NFD of a name are the same name to the server.
ODD_NAMES = (
    "plain.txt",
    "two words.txt",
    " leading space",
    "trailing space ",
    "100%.txt",
    "%41 is not A.txt",
    "%2F.txt",
    "hash#tag.txt",
    "what?.txt",
    "semi;colon.txt",
    "plus+plus.txt",
    "this & that.txt",
    "it's.txt",
    'say "hello".txt',
    "<angle>.txt",
    "&amp;.txt",
    "]]>.txt",
    "comma, equals= at@ colon:.txt",
    "[square]{curly}(round).txt",
    "tilde~caret^tick`pipe|.txt",
    "dollar$bang!star*.txt",
    "back\\slash.txt",
    ".hidden",
    "...three dots",
    "trailing dot.",
    "~user",
    "-dash",
    "CON",
    "no extension",
    "é in NFC.txt",
    "e\u0301 in NFD.txt",
    "日本語.txt",
    "עברית.txt",
    "emoji 🎉👩‍👩‍👧.txt",
    "long " + "x" * 200 + ".txt",
)
BIG_BYTES = 5 * 1024 * 1024
DEPTH = 15


def make_odd_tree(top: Path) -> None:
    """Odd names for files and folders, a deep path, empty files and folders, a file of some megabytes."""
    (top / "files").mkdir(parents=True)
    for number, name in enumerate(ODD_NAMES):
        (top / "files" / name).write_text(f"{number}: {name}")
    deep = top
    for level in range(DEPTH):
        deep /= f"level {level} é%"
    deep.mkdir(parents=True)
    (deep / "at the end.txt").write_bytes(b"deep")
    (top / "empty.txt").touch()
    (top / "empty #1" / "empty; too").mkdir(parents=True)
    (top / "big.bin").write_bytes(random.Random(5).randbytes(BIG_BYTES))  # noqa: S311  # content, no secret


def put_tree(store: Store, top: Path, to: str) -> None:
    """Put all that is below a folder into a collection that is there."""
    for path in sorted(top.rglob("*")):
        target = f"{to}/{path.relative_to(top)}"
        if path.is_dir():
            store_steps.mkcol(store, target)
        else:
            store_steps.put(store, target, path.read_bytes())


def brief(content: bytes) -> bytes:
    """Short content as it is, long content as a digest: a failed comparison must stay readable."""
    return content if len(content) <= BRIEF_BYTES else f"SHA-256 {hashlib.sha256(content).hexdigest()}".encode()


def tree_in_store(store: Store, prefix: str = "/") -> dict[str, bytes | None]:
    """Everything whose path begins with `prefix`: the brief content of files, None for collections."""
    whole = store_steps.tree(store).items()
    return {path: None if content is None else brief(content) for path, content in whole if path.startswith(prefix)}


def tree_on_disk(top: Path, prefix: str = "") -> dict[str, bytes | None]:
    """The same of a folder; `prefix` comes before each path."""
    return {
        f"{prefix}/{path.relative_to(top)}": None if path.is_dir() else brief(path.read_bytes())
        for path in top.rglob("*")
    }
