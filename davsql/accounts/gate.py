"""The gate that every request passes where there are accounts: credentials in, a principal or an error out.

Rule 1: what is remembered is used only while the generation of the account file is the same, which is read at each
        request: a change by any process counts at once.
Rule 2: who has to wait is told so before anything is hashed; a valid token never waits, for nobody can guess one.
Rule 3: an unknown name costs what a known one costs.
Threads: any. One for each process.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, NoReturn

from davsql.accounts import attempts, logins
from davsql.accounts.logins import Account, TokenUse, is_stale
from davsql.accounts.memory import MAX_AGE_S, Memory
from davsql.accounts.names import is_name, name_key
from davsql.accounts.options import AccountOptions
from davsql.accounts.passwords import Passwords
from davsql.accounts.tokens import TOKEN_PREFIX
from davsql.errors import LoginBlocked, LoginRefused, StoreDamaged, StoreError
from davsql.model import Principal
from davsql.networks import Networks, neighbourhood
from davsql.store.sidefile import SideFile
from davsql.store.transaction import WriteTx

log = logging.getLogger(__name__)

BLOCKED_LINE_S = 1.0  # between two lines of the log about one blocked address
CERTIFICATE_LINE_S = 60.0  # the same about one certificate of no account


class Credentials(NamedTuple):
    """What a client brought."""

    name: str | None  # None: the token alone says who it is (Bearer)
    secret: str  # password or token


class _Attempt(NamedTuple):
    """A login under way, and what decides whether it may go on."""

    credentials: Credentials
    address: str
    counted: str  # what the address is counted under
    account: Account | None  # None: no such account
    known_since: int | None
    subjects: tuple[attempts.Subject, ...]  # none: nothing is counted


class Gate:
    """Decides who may enter."""

    def __init__(
        self,
        file: SideFile,
        options: AccountOptions,
        passwords: Passwords | None = None,
        on_failure: Callable[[str, str], object] = lambda _name, _address: None,
    ) -> None:
        """Args: on_failure: is told of each failed login, with name ("-": none that may be shown) and address."""
        self._file = file
        self._on_failure = on_failure
        self._passwords = passwords or Passwords()
        self.options = options
        self._never_blocked = Networks(options.never_blocked)
        self._admitted: Memory[Principal] = Memory(options.cache_s)
        # A client that goes on sending an old password does not guess: it is refused and not counted again.
        self._refused: Memory[bool] = Memory()
        self._told: Memory[bool] = Memory()

    def recall(self, raw: str) -> Principal | None:
        """Who brought these credentials a moment ago; None: they must be looked at.

        Args:
            raw: the credentials as the client wrote them.

        Raises:
            LoginRefused: they were wrong, and no account has changed since.
        """
        generation = self._generation()
        principal = self._admitted.recall(raw, generation)
        if principal is None and self._refused.recall(raw, generation):
            raise LoginRefused("the same credentials were wrong a moment ago")
        return principal

    def admit(self, credentials: Credentials, raw: str, address: str) -> Principal:
        """Who brings these credentials; the answer is remembered for `recall` under `raw`.

        Raises:
            LoginRefused: they are wrong, or the account is disabled.
            LoginBlocked: there were too many failures before.
            LoginBusy: too many others are logging in.
            StoreError: the account file cannot be used.
        """
        generation = self._generation()
        attempt = self._attempt(credentials, address)
        try:
            if credentials.name is None or credentials.secret.startswith(TOKEN_PREFIX):
                use = self._with_token(attempt)
                principal, age_s = use.principal, use.left_s(time.time_ns())
            else:
                account = self._with_password(attempt)
                principal, age_s = Principal(account.name, account.groups), MAX_AGE_S
        except LoginRefused:
            self._refused.keep(raw, True, generation)  # noqa: FBT003  # the answer to remember
            raise
        self._admitted.keep(raw, principal, generation, age_s)
        return principal

    def vouched(self, name: str) -> Principal:
        """The principal of a name for which a trusted proxy vouches; without an account it is in no group.

        Raises:
            LoginRefused: it is no name, or its account is disabled.
            StoreError: the account file cannot be read.
        """
        if not is_name(name):
            raise LoginRefused("the proxy's name of the user is none")
        with self._file.snapshot() as tx:
            account = logins.account_of(tx, name)
        if account is None:
            return Principal(name)
        if account.is_disabled:
            raise LoginRefused("the account is disabled")
        return Principal(account.name, account.groups)

    def certified(self, names: Iterable[str], address: str) -> Principal:
        """The principal of the first of the names in a client's certificate that is an account's.

        Raises:
            LoginRefused: none is, or the account is disabled.
            StoreError: the account file cannot be read.
        """
        possible = [name for name in names if is_name(name)]
        with self._file.snapshot() as tx:
            found = (logins.account_of(tx, name) for name in possible)
            account = next((each for each in found if each is not None), None)
        if account is None or account.is_disabled:
            self._tell_of_certificate(possible[0] if possible else "-", address)
            raise LoginRefused("the certificate is of no account, or of one that is disabled")
        return Principal(account.name, account.groups)

    def _tell_of_certificate(self, name: str, address: str) -> None:
        """Once a minute: nobody guesses here, but a device goes on asking."""
        key = f"certificate {name} {address}"
        if not self._told.recall(key, 0):
            self._told.keep(key, True, 0, CERTIFICATE_LINE_S)  # noqa: FBT003  # the answer to remember
            log.warning("certificate refused: address=%s user=%s", address, name)
            self._on_failure(name, address)

    def _generation(self) -> int:
        row = self._file.row(logins.SELECT_GENERATION)
        if row is None:
            raise StoreDamaged(f"{self._file.file} is damaged: its state is missing")
        return int(row[0])

    def _attempt(self, credentials: Credentials, address: str) -> _Attempt:
        counted = neighbourhood(address)
        name = credentials.name or None  # Basic without a name: the token says it
        with self._file.snapshot() as tx:
            account = None if name is None else logins.account_of(tx, name)
            known_since = logins.known_since(tx, account, counted)
        key = None if name is None else name_key(name)
        subjects = attempts.subjects_of(key, counted, is_known=known_since is not None)
        if address in self._never_blocked:
            subjects = ()
        return _Attempt(credentials, address, counted, account, known_since, subjects)

    def _with_token(self, attempt: _Attempt) -> TokenUse:
        name, secret = attempt.credentials
        with self._file.snapshot() as tx:
            use = logins.token_use_of(tx, secret)
        is_right = (
            use is not None
            and not use.account.is_disabled
            and use.left_s(time.time_ns()) > 0
            and (not name or name_key(name) == name_key(use.account.name))
        )
        if use is None or not is_right:
            self._refuse_blocked(attempt)
            self._refuse(attempt)
        if is_stale(use.last_used_at, time.time_ns()):
            self._note(lambda tx: logins.note_token_use(tx, use.token_id))
        return use

    def _with_password(self, attempt: _Attempt) -> Account:
        account, secret = attempt.account, attempt.credentials.secret
        self._refuse_blocked(attempt)
        with self._passwords.turn(is_known=attempt.known_since is not None):
            self._refuse_blocked(attempt)  # others may have failed while this one waited
            is_right = self._passwords.verify(None if account is None else account.password_hash, secret)
            if account is None or not is_right or account.is_disabled:
                self._refuse(attempt)
            is_outdated = self._passwords.is_outdated(account.password_hash)
            new_hash = self._passwords.hash(secret) if is_outdated else None
        self._note_login(attempt, account, new_hash)
        return account

    def _refuse_blocked(self, attempt: _Attempt) -> None:
        if not attempt.subjects:
            return
        with self._file.snapshot() as tx:
            wait_s = attempts.waiting_s(tx, attempt.subjects)
        if wait_s > 0:
            if not self._told.recall(attempt.address, 0):  # a flood must not fill the log
                self._told.keep(attempt.address, True, 0, BLOCKED_LINE_S)  # noqa: FBT003  # the answer to remember
                log.warning("login blocked for %d s: address=%s user=%s", wait_s, attempt.address, _shown(attempt))
            raise LoginBlocked("too many logins have failed", wait_s)

    def _refuse(self, attempt: _Attempt) -> NoReturn:
        log.warning("login failed: address=%s user=%s", attempt.address, _shown(attempt))
        self._on_failure(_shown(attempt), attempt.address)
        if attempt.subjects:
            self._note(lambda tx: attempts.record_failure(tx, attempt.subjects))
        raise LoginRefused("name or password is wrong")

    def _note_login(self, attempt: _Attempt, account: Account, new_hash: str | None) -> None:
        now = time.time_ns()
        pair = attempt.subjects[:1]
        with self._file.snapshot() as tx:
            has_failed = any(attempts.has_failed(tx, subject) for subject in pair)
        if not (new_hash or has_failed or is_stale(account.last_login_at, now) or is_stale(attempt.known_since, now)):
            return

        def note(tx: WriteTx) -> None:
            logins.note_login(tx, account.user_id, attempt.counted)
            for subject in pair:
                attempts.forgive(tx, subject)
            if new_hash is not None:
                logins.replace_hash(tx, account, new_hash)

        self._note(note)

    def _note(self, change: Callable[[WriteTx], None]) -> None:
        """Bookkeeping: who may enter enters, and who may not does not, even if it cannot be written down."""
        try:
            with self._file.write() as tx:
                change(tx)
        except StoreError as error:
            log.warning("a login could not be noted in %s: %s", self._file.file, error)


def _shown(attempt: _Attempt) -> str:
    """The name for the log; what cannot be a name is not shown: it may be a password in the wrong field."""
    name = attempt.credentials.name or ""
    return name if is_name(name) else "-"
