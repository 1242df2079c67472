"""Rights in the words of RFC 3744: what current-user-privilege-set says."""

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
