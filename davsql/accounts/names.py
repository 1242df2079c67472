"""What an account, a group and a token may be called."""

from __future__ import annotations

import re
import unicodedata

from davsql.errors import AccountError

MAX_NAME_CHARACTERS = 64

# A letter or digit first: then a name is no option, no hidden file and no `..` where it becomes a folder's name, and
# rules are free to give signs a meaning. No colon, which ends the name in Basic (RFC 7617 2).
_NAME = re.compile(r"[^\W_][\w.@+-]*")


def name_key(name: str) -> str:
    """The form under which a name is looked up: phones write the first letter large."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_name(name: str) -> bool:
    """Whether something may be called so."""
    return len(name) <= MAX_NAME_CHARACTERS and _NAME.fullmatch(name) is not None


def checked_name(name: str, noun: str) -> str:
    """`name` in NFC if a `noun` (account, group, token) may be called so.

    Raises:
        AccountError.
    """
    if not is_name(name):
        raise AccountError(
            f"{name!r} is no name for {noun}: letters, digits and . _ @ + - are possible, a letter or digit first, "
            f"at most {MAX_NAME_CHARACTERS} characters"
        )
    return unicodedata.normalize("NFC", name)
