"""Random requests of several users under random rules, beside a plain model that says what each may see and change.

The model looks at every node of a tree, one by one; it knows nothing of how davsql judges trees by a few paths.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from davsql.dav.access import RuleOptions
from davsql.model import ROOT_INODE, Principal
from davsql.paths import DavPath
from davsql.store.store import Store
from tests.access.wsgi import Site, one_share, rule, user
from tests.dav.answers import Properties, lock_body, propfind_body, responses, set_body, token_of
from tests.store_steps import at, read

Path = tuple[str, ...]
Tree = dict[Path, bytes | None]  # None: a collection

NAMES = ("a", "b", "home", "ann", "bob")
USERS = (user("ann"), user("bob", "staff"), user("cyd", "staff", "guests"))
PRINCIPALS = (
    *USERS,
    *USERS,
    replace(USERS[0], is_read_only=True),
    replace(USERS[1], path=DavPath(("a",))),
    replace(USERS[2], share="elsewhere"),
)
_LINK = re.compile(r'<td><a href="([^"]*)">(?!\.\./)')
ASKED = propfind_body("current-user-privilege-set")
COLOUR = set_body('<x:colour xmlns:x="urn:x">blue</x:colour>')


def random_rules(rng: random.Random) -> tuple[RuleOptions, ...]:
    who = ("ann", "bob", "cyd", "@staff", "@guests", "*", "ann @staff", "bob cyd")
    allow = ("", "", "r", "rw", "rwd", "rwd", "w", "rd")
    paths = ["/", *("/" + "/".join(rng.choices(NAMES, k=rng.randint(1, 3))) for _ in range(4)), "/home/{user}"]
    rules = [rule(rng.choice(paths), rng.choice(who), rng.choice(allow)) for _ in range(rng.randint(2, 7))]
    return (*rules, rule("/", rng.choice(("*", "ann", "@staff")), "rwd"))


class Model:
    """Who may do what, and the tree."""

    def __init__(self, rules: tuple[RuleOptions, ...]) -> None:
        self.rules = rules
        self.tree: Tree = {(): None}

    # --- rules ------------------------------------------------------------------------------------------------------

    def rights(self, who: Principal, path: Path) -> frozenset[str]:
        if who.share is not None or (who.path is not None and path[: len(who.path.names)] != who.path.names):
            return frozenset()
        for length in range(len(path), -1, -1):
            found = self._rights_at(who, path[:length])
            if found is not None:
                return found & {"r"} if who.is_read_only else found
        return frozenset()

    def _rights_at(self, who: Principal, path: Path) -> frozenset[str] | None:
        at = [each for each in self.rules if self.place(each, who) == path]
        kinds = (
            [each for each in at if who.name in each.users],
            [each for each in at if who.groups & set(each.groups)],
            [each for each in at if "*" in each.users],
        )
        for kind in kinds:
            if kind:
                return frozenset(name[0] for each in kind for name in each.allow or ())
        is_home_of_homes = any(each.path == f"{href(path)}/{{user}}" for each in self.rules)
        return frozenset() if is_home_of_homes else None

    @staticmethod
    def place(each: RuleOptions, who: Principal) -> Path:
        return tuple(name for name in each.path.replace("{user}", who.name or "").split("/") if name)

    def is_passage(self, who: Principal, path: Path) -> bool:
        marks = {self.place(each, who) for each in self.rules} | ({who.path.names} if who.path else set())
        return any(is_below(mark, path) and "r" in self.rights(who, mark) for mark in marks)

    def is_seen(self, who: Principal, path: Path) -> bool:
        if path not in self.tree:
            return False
        return "r" in self.rights(who, path) or (self.tree[path] is None and self.is_passage(who, path))

    def may(self, who: Principal, right: str, paths: Iterable[Path]) -> bool:
        return all(right in self.rights(who, path) for path in paths)

    # --- the tree ---------------------------------------------------------------------------------------------------

    def whole(self, top: Path) -> list[Path]:
        """The node and all below it."""
        return [path for path in self.tree if path[: len(top)] == top]

    def has_parent(self, path: Path) -> bool:
        return self.tree.get(path[:-1], b"") is None

    def remove(self, top: Path) -> None:
        for path in self.whole(top):
            del self.tree[path]


def is_below(path: Path, top: Path) -> bool:
    return len(path) > len(top) and path[: len(top)] == top


def href(path: Path) -> str:
    return "/" + "/".join(path)


def rights_of(properties: Properties) -> frozenset[str]:
    """What a current-user-privilege-set means."""
    (element,) = properties.values()
    names = {str(privilege[0].tag).removeprefix("{DAV:}") for privilege in element}
    told = {"read": "r", "write-content": "w", "unbind": "d", "write": "d"}
    return frozenset(told[name] for name in names & told.keys())


class Walk:
    """One store, one set of rules, many requests."""

    def __init__(self, store: Store, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311
        self.model = Model(random_rules(self.rng))
        self.store = store
        self.site: Site = one_share(store, *self.model.rules)
        self.statuses: Counter[tuple[str, int]] = Counter()

    def run(self, steps: int) -> None:
        for top in ("/a", "/home", "/a/b", "/home/ann", "/home/bob", "/home/cyd"):
            path = at(top).names
            self.store.make_collection(at(top))
            self.model.tree[path] = None
        methods = (
            *(self.get, self.propfind, self.put, self.put, self.mkcol, self.mkcol, self.delete),
            *(self.copy, self.copy, self.move, self.move, self.proppatch, self.lock),
        )
        for _ in range(steps):
            who = self.rng.choice(PRINCIPALS)
            method = self.rng.choice(methods)
            path = self.path()
            expected, found = method(who, path)
            assert found == expected, f"{method.__name__} {href(path)} by {who}: {found}, expected {expected}"
            self.statuses[method.__name__, found if isinstance(found, int) else 207] += 1
            self.compare()

    def path(self) -> Path:
        if self.rng.random() < 0.6:
            return self.rng.choice(list(self.model.tree))
        return tuple(self.rng.choices(NAMES, k=self.rng.randint(1, 3)))

    def compare(self) -> None:
        """No change but those that the model knows of."""
        with self.store.snapshot() as view:
            nodes = view.descendants(ROOT_INODE, 100_000)
            assert nodes is not None
            found = {view.path_of(node.inode).names: node.is_collection for node in nodes}
        assert found == {path: content is None for path, content in self.model.tree.items() if path}
        files = [path for path, is_collection in found.items() if not is_collection]
        for path in files:
            assert read(self.store, href(path)) == self.model.tree[path]

    # --- methods: what must come, and what came ---------------------------------------------------------------------

    def get(self, who: Principal, path: Path) -> tuple[int, int]:
        reply = self.site.ask(who, "GET", href(path))
        if not self.model.is_seen(who, path):
            assert self.site.ask(who, "HEAD", href(path)).status == 404
            return 404, reply.status
        content = self.model.tree[path]
        if content is not None:
            assert reply.body == content
        else:
            linked = {link.rstrip("/").rpartition("/")[2] for link in _LINK.findall(reply.text)}
            members = {other[-1] for other in self.model.tree if other and other[:-1] == path}
            assert linked == {name for name in members if self.model.is_seen(who, (*path, name))}
        return 200, reply.status

    def propfind(self, who: Principal, path: Path) -> tuple[object, object]:
        depth = self.rng.choice(("0", "1", "infinity"))
        reply = self.site.ask(who, "PROPFIND", href(path), ASKED, {"Depth": depth})
        if not self.model.is_seen(who, path):
            return 404, reply.status
        reach = {"0": 0, "1": 1, "infinity": 100}[depth]
        listed = [each for each in self.model.whole(path) if len(each) <= len(path) + reach]
        seen = {each for each in listed if self.model.is_seen(who, each)}
        expected = {self.listed_href(each): self.told(who, each) for each in seen}
        return expected, {target: rights_of(found[200]) for target, found in responses(reply).items()}

    def told(self, who: Principal, path: Path) -> frozenset[str]:
        """The rights that current-user-privilege-set tells: that alone of deleting is about members (RFC 3744 3.10)."""
        rights = self.model.rights(who, path)
        return rights if self.model.tree[path] is None or rights >= {"w", "d"} else rights - {"d"}

    def listed_href(self, path: Path) -> str:
        return href(path) + ("/" if path and self.model.tree[path] is None else "")

    def put(self, who: Principal, path: Path) -> tuple[int, int]:
        content = self.rng.randbytes(8)
        found = self.site.put(who, href(path), content)
        if not self.model.may(who, "w", [path]):
            return 403, found
        if path in self.model.tree and self.model.tree[path] is None:
            return 405, found
        if not self.model.has_parent(path):
            return 409, found
        expected = 204 if path in self.model.tree else 201
        self.model.tree[path] = content
        return expected, found

    def mkcol(self, who: Principal, path: Path) -> tuple[int, int]:
        found = self.site.ask(who, "MKCOL", href(path)).status
        if not self.model.is_seen(who, path) and not self.model.may(who, "w", [path]):
            return 403, found
        if path in self.model.tree:
            return 405, found
        if not self.model.has_parent(path):
            return 409, found
        self.model.tree[path] = None
        return 201, found

    def delete(self, who: Principal, path: Path) -> tuple[int, int]:
        found = self.site.ask(who, "DELETE", href(path)).status
        if not self.model.is_seen(who, path):
            return 404, found
        if not path or not self.model.may(who, "d", self.model.whole(path)):
            return 403, found
        self.model.remove(path)
        return 204, found

    def copy(self, who: Principal, path: Path) -> tuple[int, int]:
        return self.transfer("COPY", who, path, depth=self.rng.choice(("0", "infinity", "infinity")))

    def move(self, who: Principal, path: Path) -> tuple[int, int]:
        return self.transfer("MOVE", who, path, depth="infinity")

    def transfer(self, method: str, who: Principal, source: Path, depth: str) -> tuple[int, int]:
        destination, overwrite = self.path(), self.rng.choice("TTF")
        headers = {"Destination": href(destination), "Overwrite": overwrite, "Depth": depth}
        found = self.site.ask(who, method, href(source), headers=headers).status
        expected = self.judge(method, who, source, destination, depth, overwrite)
        if expected in (201, 204):
            taken = self.model.whole(source) if depth == "infinity" else [source]
            kept = {(*destination, *path[len(source) :]): self.model.tree[path] for path in taken}
            self.model.remove(destination)
            if method == "MOVE":
                self.model.remove(source)
            self.model.tree |= kept
        return expected, found

    def judge(self, method: str, who: Principal, source: Path, destination: Path, depth: str, overwrite: str) -> int:
        model = self.model
        if not model.is_seen(who, source):
            return 404
        taken = model.whole(source) if depth == "infinity" else [source]
        placed = [(*destination, *path[len(source) :]) for path in taken]
        needed = "rd" if method == "MOVE" else "r"
        if not all(model.may(who, right, taken) for right in needed) or not model.may(who, "w", placed):
            return 403
        if destination[: len(source)] == source or source[: len(destination)] == destination:
            return 403
        if destination not in model.tree:
            return 201 if model.has_parent(destination) else 409
        if overwrite == "F":
            return 412
        return 204 if model.may(who, "d", model.whole(destination)) else 403

    def proppatch(self, who: Principal, path: Path) -> tuple[int, int]:
        found = self.site.ask(who, "PROPPATCH", href(path), COLOUR).status
        if not self.model.is_seen(who, path):
            return 404, found
        return 207 if self.model.may(who, "w", [path]) else 403, found

    def lock(self, who: Principal, path: Path) -> tuple[int, int]:
        """Take a lock, see that nobody else can use or end it, and end it."""
        depth = self.rng.choice(("0", "infinity"))
        reply = self.site.ask(who, "LOCK", href(path), lock_body(), {"Depth": depth})
        covered = self.model.whole(path) if depth == "infinity" else []
        if not self.model.may(who, "w", [path, *covered]):
            return 403, reply.status
        if path not in self.model.tree and not self.model.has_parent(path):
            return 409, reply.status
        expected = 200 if path in self.model.tree else 201
        self.model.tree.setdefault(path, b"")
        token = token_of(reply)
        other = self.rng.choice([each for each in USERS if each.name != who.name])
        assert token not in self.site.ask(other, "PROPFIND", href(path), headers={"Depth": "0"}).text
        by_other = self.site.ask(other, "UNLOCK", href(path), headers={"Lock-Token": f"<{token}>"}).status
        assert by_other == 403
        if self.model.tree[path] is not None:
            put = self.site.ask(other, "PUT", href(path), b"x", {"If": f"(<{token}>)"}).status
            assert put == (423 if self.model.may(other, "w", [path]) else 403)
        ended = self.site.ask(who, "UNLOCK", href(path), headers={"Lock-Token": f"<{token}>"}).status
        assert ended == 204
        return expected, reply.status
