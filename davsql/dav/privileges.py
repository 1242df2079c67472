"""Rights in the words of RFC 3744, for current-user-privilege-set, and in the letters of ownCloud."""

from __future__ import annotations

from functools import lru_cache

from davsql.access import Right


@lru_cache
def privilege_set(rights: Right, *, is_collection: bool) -> str:
    """The DAV:current-user-privilege-set of a resource (RFC 3744 3, 5.4).

    Binding and unbinding are about members of a collection. Rights to them are those to the collection, but for
    members with rights of their own.
    """
    names = []
    if Right.READ in rights:
        names += ["read", "read-current-user-privilege-set"]
    if Right.WRITE | Right.DELETE in rights:
        names.append("write")
    if Right.WRITE in rights:
        names += ["write-content", "write-properties", "unlock"]
        names += ["bind"] if is_collection else []
    if Right.DELETE in rights and is_collection:
        names.append("unbind")
    inside = "".join(f"<D:privilege><D:{name}/></D:privilege>" for name in names)
    return f"<D:current-user-privilege-set>{inside}</D:current-user-privilege-set>"


@lru_cache
def permission_letters(rights: Right, *, is_collection: bool) -> str:
    """The value of oc:permissions: G may be read, D deleted, N renamed, V moved, W written, C and K have new members.

    Source: the server API of Nextcloud's and ownCloud's developer manuals.
    """
    letters = "G" if Right.READ in rights else ""
    letters += "D" if Right.DELETE in rights else ""
    letters += "NV" if Right.WRITE | Right.DELETE in rights else ""
    if Right.WRITE in rights:
        letters += "CK" if is_collection else "W"
    return letters
