"""Random operations on a store beside a plain dict that says what must come of them.

The dict model knows WebDAV, not SQLite. For each operation it names every error that may come of it; the store must
raise one of them, or succeed where there is none. Every so often tree, content, properties and locks are compared.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from davsql.errors import (
    AlreadyExists,
    DavsqlError,
    ForbiddenTarget,
    IsCollection,
    LockConflict,
    Locked,
    LockNotOwned,
    LockTokenMismatch,
    NotFound,
    OverwriteRefused,
    ParentMissing,
    PathTooDeep,
    PreconditionFailed,
)
from davsql.model import (
    ANYTHING,
    EntityTag,
    Guard,
    IfTarget,
    LockRequest,
    LockScope,
    Preconditions,
    PropertyUpdate,
    StateCondition,
    StateList,
)
from davsql.paths import DavPath, lookup_key
from davsql.store.blobs import CHUNK_BYTES
from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.store import Store

Key = tuple[str, ...]  # lookup forms, from the root down
Errors = set[type[DavsqlError]]

MAX_DEPTH = 5
OPTIONS = StoreOptions(max_depth=MAX_DEPTH, durability="normal", max_locks=1_000_000)
NAMES = ("a", "b", "c", "d", "caf\u00e9", "cafe\u0301")
PRINCIPALS = ("ann", "bob")
LOCK_TIMEOUT_S = 10 * 365 * 24 * 3600
COMPARE_EVERY = 50
CHECK_EVERY = 400
LARGE_EVERY = 40  # one content in so many has several chunks


@dataclass
class Entry:
    """What the model knows of a node."""

    inode: int
    sent_name: str
    content: bytes | None  # None for collections
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """What the model knows of a lock."""

    token: str
    root: Key
    scope: LockScope
    is_infinite: bool
    principal: str


def is_below(key: Key, top: Key) -> bool:
    return len(key) > len(top) and key[: len(top)] == top


class Model:
    """A tree in a dict, and locks in a list."""

    def __init__(self, prefix: Key) -> None:
        self.prefix = prefix
        self.nodes: dict[Key, Entry] = {}
        self.locks: list[Held] = []
        self.inodes_ever: set[int] = {1}

    def below(self, top: Key) -> list[Key]:
        return [key for key in self.nodes if is_below(key, top)]

    def is_collection(self, key: Key) -> bool:
        return not key or (key in self.nodes and self.nodes[key].content is None)

    def exists(self, key: Key) -> bool:
        return not key or key in self.nodes

    def add(self, key: Key, entry: Entry) -> None:
        assert entry.inode not in self.inodes_ever, f"inode {entry.inode} was used before"
        self.inodes_ever.add(entry.inode)
        self.nodes[key] = entry

    def remove_tree(self, top: Key) -> None:
        for key in [top, *self.below(top)]:
            del self.nodes[key]
        self.drop_locks(top)

    def drop_locks(self, top: Key) -> None:
        self.locks = [lock for lock in self.locks if lock.root != top and not is_below(lock.root, top)]

    # --- locks ------------------------------------------------------------------------------------------------------

    def covering(self, key: Key) -> list[Held]:
        return [lock for lock in self.locks if lock.root == key or (lock.is_infinite and is_below(key, lock.root))]

    def is_refused(self, groups: Iterable[list[Held]], guard: Guard) -> bool:
        tokens = guard.preconditions.tokens
        return any(
            group and not any(lock.token in tokens and lock.principal == guard.principal for lock in group)
            for group in groups
        )

    def content_errors(self, key: Key, guard: Guard) -> Errors:
        return {Locked} if self.is_refused([self.covering(key)], guard) else set()

    def membership_errors(self, key: Key, guard: Guard) -> Errors:
        groups = [self.covering(key), self.covering(key[:-1])]
        if self.exists(key):
            below = [lock for lock in self.locks if is_below(lock.root, key)]
            groups += [[lock for lock in below if lock.root == root] for root in {lock.root for lock in below}]
        return {Locked} if self.is_refused(groups, guard) else set()

    def conflict_errors(self, key: Key, request: LockRequest) -> Errors:
        rivals = self.covering(key)
        if request.is_depth_infinity:
            rivals = rivals + [lock for lock in self.locks if is_below(lock.root, key)]
        both = [{lock.scope, request.scope} for lock in rivals]
        return {LockConflict} if any(LockScope.EXCLUSIVE in scopes for scopes in both) else set()

    # --- conditions -------------------------------------------------------------------------------------------------

    def new_member_errors(self, key: Key, guard: Guard) -> Errors:
        if not self.is_collection(key[:-1]):
            return {ParentMissing}
        errors = self.membership_errors(key, guard)
        if len(key) + len(self.prefix) > MAX_DEPTH:
            errors.add(PathTooDeep)
        return errors

    def apart_errors(self, source: Key, destination: Key) -> Errors:
        if destination[: len(source)] == source or source[: len(destination)] == destination:
            return {ForbiddenTarget}
        return set()

    def destination_errors(self, key: Key, guard: Guard, *, overwrite: bool) -> Errors:
        if not self.is_collection(key[:-1]):
            return {ParentMissing}
        errors = self.membership_errors(key, guard)
        if self.exists(key) and not overwrite:
            errors.add(OverwriteRefused)
        return errors

    def height(self, top: Key) -> int:
        """Levels below `top` that are in use."""
        return max((len(key) - len(top) for key in self.below(top)), default=0)


class Walk:
    """One seeded sequence of operations below `prefix`, which exists."""

    def __init__(self, store: Store, seed: int, prefix: Key = ()) -> None:
        self.store = store
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311
        self.model = Model(prefix)
        self.steps = 0
        self.outcomes: Counter[str] = Counter()
        self.doing = ""
        self._contents = [
            b"",
            b"x",
            *(self.random.randbytes(size) for size in (10, 100, 1000, 5000)),
        ]
        self._large = [
            self.random.randbytes(CHUNK_BYTES) * 3,
            bytes(CHUNK_BYTES) * 17 + b"tail",
            self.random.randbytes(CHUNK_BYTES + 1),
            self.random.randbytes(CHUNK_BYTES),
        ]

    def run(self, steps: int) -> None:
        """Take `steps` steps; what goes wrong is told with the seed and the step.

        Raises:
            AssertionError: the store is not what the model says.
        """
        try:
            for _ in range(steps):
                self.step()
                self.steps += 1
                if self.steps % COMPARE_EVERY == 0:
                    self.compare()
                if self.steps % CHECK_EVERY == 0:
                    assert check(self.store) == []
            self.compare()
        except Exception as error:
            raise AssertionError(f"seed {self.seed}, step {self.steps}: {self.doing}") from error

    def step(self) -> None:
        actions: list[tuple[int, Callable[[], None]]] = [
            (30, self.put),
            (14, self.make_collection),
            (8, self.delete),
            (10, self.copy),
            (12, self.move),
            (8, self.set_property),
            (6, self.lock),
            (7, self.unlock),
            (2, self.refresh),
            (3, self.abandon_upload),
            (5, self.read),
        ]
        weights = [weight for weight, _ in actions]
        self.random.choices([action for _, action in actions], weights)[0]()

    # --- choosing ---------------------------------------------------------------------------------------------------

    def any_path(self, is_there: float = 0.5) -> DavPath:
        """Something that exists, as likely as `is_there` says; else mostly what could be a new member."""
        chance = self.random.random()
        keys = list(self.model.nodes)
        if keys and chance < is_there:
            names = list(self.random.choice(keys))
        elif chance < 0.94:
            parents = [key for key in keys if self.model.is_collection(key)]
            names = [*self.random.choice([(), *parents]), self.random.choice(NAMES)]
        else:
            pool = [*keys, ()]
            names = [*self.random.choice(pool), *self.random.choices(NAMES, k=self.random.randrange(3))]
        if self.random.random() < 0.2:
            names = ["cafe\u0301" if name == "caf\u00e9" else name for name in names]
        return DavPath((*self.model.prefix, *names))

    def key(self, path: DavPath) -> Key:
        return path.keys[len(self.model.prefix) :]

    def any_content(self) -> bytes:
        if self.random.randrange(LARGE_EVERY) == 0:
            return self.random.choice(self._large)
        return self.random.choice(self._contents)

    def any_tokens(self) -> list[str]:
        held = self.model.locks
        chance = self.random.random()
        if chance < 0.7:
            return [lock.token for lock in held]
        if chance < 0.85:
            return [lock.token for lock in held if self.random.random() < 0.5]
        return ["urn:uuid:nobody"] if chance < 0.9 else []

    def any_guard(self, key: Key, errors: Errors) -> Guard:
        """A guard whose If header always holds, sometimes with a condition; adds what that may cause to `errors`."""
        conditions = [StateCondition(negated=False, token=token, etag=None) for token in self.any_tokens()]
        conditions.append(StateCondition(negated=True, token="DAV:no-lock", etag=None))  # noqa: S106
        lists = tuple(StateList(IfTarget.REQUEST, (condition,)) for condition in conditions)
        etag = self.etag(key)
        match: tuple[EntityTag, ...] | None = None
        none_match: tuple[EntityTag, ...] | None = None
        chance = self.random.random()
        exists = self.model.exists(key)
        if chance < 0.05:
            match = (EntityTag(etag or '"x"', is_weak=False),)
            errors.update(() if etag else (PreconditionFailed,))
        elif chance < 0.07:
            match = (EntityTag('"x"', is_weak=False),)
            errors.add(PreconditionFailed)
        elif chance < 0.09:
            none_match = (EntityTag(etag or '"x"', is_weak=True),)
            errors.update((PreconditionFailed,) if etag else ())
        elif chance < 0.13:
            errors.update((PreconditionFailed,) if exists else ())
            return Guard(Preconditions(if_none_match=ANYTHING, state_lists=lists), self.random.choice(PRINCIPALS))
        preconditions = Preconditions(if_match=match, if_none_match=none_match, state_lists=lists)
        return Guard(preconditions, self.random.choices(PRINCIPALS, (4, 1))[0])

    def etag(self, key: Key) -> str | None:
        """The entity tag as the store tells it: what it is made of is another test's matter."""
        if not key or key not in self.model.nodes or self.model.nodes[key].content is None:
            return None
        return self.store.node(DavPath((*self.model.prefix, *key))).etag

    def expect(self, errors: Errors, action: Callable[[], object]) -> object | None:
        """Run an action that must raise one of `errors`, or succeed when there are none; None when it raised."""
        try:
            result = action()
        except DavsqlError as error:
            self.note(error, errors)
            return None
        assert not errors, f"it should have failed with one of {errors}"
        self.outcomes[f"{self.doing.split()[0]} done"] += 1
        return result if result is not None else True

    def note(self, error: DavsqlError, errors: Errors) -> None:
        """Count an error, which must be one of those expected."""
        if type(error) not in errors:
            raise AssertionError(f"{error!r} is none of {errors}") from error
        self.outcomes[f"{self.doing.split()[0]} {type(error).__name__}"] += 1

    # --- operations -------------------------------------------------------------------------------------------------

    def put(self) -> None:
        path, data, model = self.any_path(0.4), self.any_content(), self.model
        key = self.key(path)
        self.doing = f"put {path} {len(data)}"
        errors: Errors = set()
        guard = self.any_guard(key, errors)
        if model.is_collection(key):
            errors.add(IsCollection)
        elif model.exists(key):
            errors |= model.content_errors(key, guard)
        else:
            errors |= model.new_member_errors(key, guard)

        def action() -> int:
            with self.store.upload() as upload:
                for start in range(0, len(data), 100_000):
                    upload.write(data[start : start + 100_000])
                node, created = upload.commit(path, guard=guard)
            assert created is not model.exists(key)
            assert node.size == len(data)
            return node.inode

        inode = self.expect(errors, action)
        if inode is None:
            return
        if key in model.nodes:
            assert model.nodes[key].inode == inode
            model.nodes[key].content = data
        else:
            assert isinstance(inode, int)
            model.add(key, Entry(inode, path.name, data))

    def abandon_upload(self) -> None:
        self.doing = "abandon"
        with self.store.upload() as upload:
            upload.write(self.any_content())

    def make_collection(self) -> None:
        path, model = self.any_path(0.1), self.model
        key = self.key(path)
        self.doing = f"mkcol {path}"
        errors: Errors = set()
        guard = self.any_guard(key, errors)
        if model.exists(key):
            errors.add(AlreadyExists)
        else:
            errors |= model.new_member_errors(key, guard)
        inode = self.expect(errors, lambda: self.store.make_collection(path, guard).inode)
        if isinstance(inode, int):
            model.add(key, Entry(inode, path.name, None))

    def delete(self) -> None:
        path, model = self.any_path(0.8), self.model
        key = self.key(path)
        if model.below(key) and self.random.random() < 0.9:  # mostly what has no members, so that something grows
            return
        if not key:
            return
        self.doing = f"delete {path}"
        errors: Errors = set()
        guard = self.any_guard(key, errors)
        if not model.exists(key):
            errors.add(NotFound)
        else:
            errors |= model.membership_errors(key, guard)
        if self.expect(errors, lambda: self.store.delete(path, guard)):
            model.remove_tree(key)

    def copy(self) -> None:
        source, destination, model = self.any_path(0.9), self.any_path(0.15), self.model
        from_key, to_key = self.key(source), self.key(destination)
        overwrite, deep = self.random.random() < 0.8, self.random.random() < 0.8
        self.doing = f"copy {source} {destination} overwrite={overwrite} deep={deep}"
        errors: Errors = set()
        guard = self.any_guard(from_key, errors)
        errors |= {NotFound} if not model.exists(from_key) else model.apart_errors(from_key, to_key)
        if not errors & {ForbiddenTarget}:
            errors |= model.destination_errors(to_key, guard, overwrite=overwrite)
        height = model.height(from_key) if deep else 0
        if len(destination.names) + height > MAX_DEPTH:
            errors.add(PathTooDeep)
        created = self.expect(
            errors,
            lambda: (
                self.store.copy(source, destination, depth_infinity=deep, overwrite=overwrite, guard=guard)
                is not model.exists(to_key)
            ),
        )
        if created is None:
            return
        assert created is True
        if model.exists(to_key):
            model.remove_tree(to_key)
        for key in [from_key, *(model.below(from_key) if deep else [])]:
            old, new_key = model.nodes[key], to_key + key[len(from_key) :]
            sent_name = old.sent_name if key != from_key else destination.name
            model.add(new_key, Entry(self.inode_at(new_key), sent_name, old.content, dict(old.properties)))

    def move(self) -> None:
        source, destination, model = self.any_path(0.9), self.any_path(0.15), self.model
        from_key, to_key = self.key(source), self.key(destination)
        if not from_key:
            return
        overwrite = self.random.random() < 0.8
        self.doing = f"move {source} {destination} overwrite={overwrite}"
        errors: Errors = set()
        guard = self.any_guard(from_key, errors)
        is_in_place = from_key == to_key and source.names != destination.names
        if not model.exists(from_key):
            errors.add(NotFound)
        else:
            errors |= model.membership_errors(from_key, guard)
        if not is_in_place:
            errors |= model.apart_errors(from_key, to_key)
            if not errors & {ForbiddenTarget}:
                errors |= model.destination_errors(to_key, guard, overwrite=overwrite)
        if len(to_key) > len(from_key) and len(destination.names) + model.height(from_key) > MAX_DEPTH:
            errors.add(PathTooDeep)
        may_be_too_deep = (
            model.is_collection(from_key)
            and len(to_key) > len(from_key)
            and self.collection_height(from_key) + 1 + len(destination.names) > MAX_DEPTH
        )
        try:
            created = self.store.move(source, destination, overwrite=overwrite, guard=guard)
        except PathTooDeep:
            # A collection counts as if it had members: whether it has any is not looked for.
            assert may_be_too_deep or PathTooDeep in errors
            return
        except DavsqlError as error:
            self.note(error, errors)
            return
        assert not errors, f"it should have failed with one of {errors}"
        self.outcomes["move done"] += 1
        assert created is not model.exists(to_key)
        model.drop_locks(from_key)
        moved = {key: model.nodes.pop(key) for key in [from_key, *model.below(from_key)]}
        if model.exists(to_key):
            model.remove_tree(to_key)
        for key, entry in moved.items():
            model.nodes[to_key + key[len(from_key) :]] = entry
        model.nodes[to_key].sent_name = destination.name

    def collection_height(self, top: Key) -> int:
        below = [key for key in self.model.below(top) if self.model.is_collection(key)]
        return max((len(key) - len(top) for key in below), default=0)

    def set_property(self) -> None:
        path, model = self.any_path(0.8), self.model
        key = self.key(path)
        if not key:
            return
        name, value = self.random.choice("pqr"), self.random.choice(["<v>1</v>", "<v>2</v>", None])
        self.doing = f"proppatch {path} {name} {value}"
        errors: Errors = set()
        guard = self.any_guard(key, errors)
        if not model.exists(key):
            errors.add(NotFound)
        else:
            errors |= model.content_errors(key, guard)
        if self.expect(errors, lambda: self.store.set_properties(path, [PropertyUpdate("n:", name, value)], guard)):
            if value is None:
                model.nodes[key].properties.pop(name, None)
            else:
                model.nodes[key].properties[name] = value

    def lock(self) -> None:
        path, model = self.any_path(0.7), self.model
        key = self.key(path)
        scope = self.random.choice(list(LockScope))
        request = LockRequest(scope, self.random.random() < 0.4, None, LOCK_TIMEOUT_S)
        self.doing = f"lock {path} {scope} {request.is_depth_infinity}"
        errors: Errors = set()
        guard = self.any_guard(key, errors)
        errors |= model.conflict_errors(key, request)
        if not model.exists(key):
            errors |= model.new_member_errors(key, guard)
        token = self.expect(errors, lambda: self.store.lock(path, request, guard).lock.token)
        if not isinstance(token, str):
            return
        if not model.exists(key):
            model.add(key, Entry(self.inode_at(key), path.name, b""))
        model.locks.append(Held(token, key, scope, request.is_depth_infinity, guard.principal))

    def unlock(self) -> None:
        path, model = self.any_path(), self.model
        if model.locks and self.random.random() < 0.8:
            held = self.random.choice(model.locks)
            token, principal = held.token, held.principal
            if self.random.random() < 0.8:
                path = DavPath((*model.prefix, *held.root))
        else:
            token, principal = "urn:uuid:nobody", self.random.choice(PRINCIPALS)
        if self.random.random() < 0.1:
            principal = self.random.choice(PRINCIPALS)
        key = self.key(path)
        self.doing = f"unlock {path}"
        errors: Errors = set()
        found = [lock for lock in model.covering(key) if lock.token == token]
        if not model.exists(key):
            errors.add(NotFound)
        elif not found:
            errors.add(LockTokenMismatch)
        elif found[0].principal != principal:
            errors.add(LockNotOwned)
        if self.expect(errors, lambda: self.store.unlock(path, token, Guard(principal=principal))):
            model.locks.remove(found[0])

    def refresh(self) -> None:
        path, model = self.any_path(0.9), self.model
        if model.locks and self.random.random() < 0.8:
            path = DavPath((*model.prefix, *self.random.choice(model.locks).root))
        key = self.key(path)
        self.doing = f"refresh {path}"
        errors: Errors = set()
        guard = self.any_guard(key, errors)
        found = [lock for lock in model.covering(key) if lock.token in guard.preconditions.tokens]
        if not found:
            errors.add(PreconditionFailed)
        elif any(lock.principal != guard.principal for lock in found):
            with suppress(LockNotOwned, PreconditionFailed):  # which of several is meant is not said
                self.store.refresh_lock(path, LOCK_TIMEOUT_S, guard)
            return
        self.expect(errors, lambda: self.store.refresh_lock(path, LOCK_TIMEOUT_S, guard))

    def read(self) -> None:
        path, model = self.any_path(0.9), self.model
        key = self.key(path)
        self.doing = f"read {path}"
        errors: Errors = set()
        if not model.exists(key):
            errors.add(NotFound)
        elif model.is_collection(key):
            errors.add(IsCollection)
        data = self.expect(errors, lambda: self.content_of(path))
        if isinstance(data, bytes):
            assert data == model.nodes[key].content

    # --- looking ----------------------------------------------------------------------------------------------------

    def content_of(self, path: DavPath) -> bytes:
        with self.store.open_download(path) as download:
            return b"".join(download.chunks())

    def inode_at(self, key: Key) -> int:
        return self.store.node(DavPath((*self.model.prefix, *key))).inode

    def entries(self) -> Iterator[tuple[Key, Entry]]:
        """What the store has below the prefix."""
        prefix = self.model.prefix
        with self.store.snapshot() as view:
            top = view.node(DavPath(prefix))
            assert top is not None
            nodes = view.descendants(top.inode, 1_000_000)
            assert nodes is not None
            properties = view.dead_properties([node.inode for node in nodes])
            keys: dict[int, Key] = {top.inode: ()}
            found = []
            for node in nodes:
                assert node.parent_inode is not None
                keys[node.inode] = (*keys[node.parent_inode], lookup_key(node.name))
                found.append((keys[node.inode], node, properties.get(node.inode, [])))
        for key, node, dead in found:
            content = None if node.is_collection else self.content_of(DavPath((*prefix, *key)))
            yield key, Entry(node.inode, node.name, content, {each.name: each.xml for each in dead})

    def compare(self) -> None:
        """The store must be what the model says: names, content, inodes, properties, locks."""
        self.doing = f"compare after {self.doing}"
        assert dict(self.entries()) == self.model.nodes
        with self.store.snapshot() as view:
            for key in self.model.nodes:
                active = view.locks_covering(DavPath((*self.model.prefix, *key)))
                assert {lock.token for lock in active} == {lock.token for lock in self.model.covering(key)}
