"""What rules give to whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from davsql.access import Right
from davsql.dav.access import RuleOptions, ShareRules, with_everything
from davsql.model import ANONYMOUS, Principal
from tests.access.wsgi import rule, user
from tests.store_steps import at

ANN, BOB = user("ann"), user("bob", "staff", "guests")


def rights(rules: list[RuleOptions], who: Principal, path: str) -> str:
    """Initials of the rights."""
    found = ShareRules("drive", rules).access_of(who).rights(at(path))
    return "".join(name[0].lower() for name in ("READ", "WRITE", "DELETE") if Right[name] in found)


def test_rules__nobody_who_is_not_named_has_rights() -> None:
    rules = [rule("/", "ann @staff", "rwd")]
    assert rights(rules, user("eve"), "/") == ""
    assert rights(rules, ANONYMOUS, "/") == ""
    assert rights([rule("/", "*", "rwd")], ANONYMOUS, "/") == ""
    assert rights([], ANN, "/") == ""


def test_rules__the_longest_path_that_names_somebody_decides() -> None:
    rules = [
        rule("/", "ann @staff", "rwd"),
        rule("/a", "@staff", "r"),
        rule("/a/b", "bob", ""),
        rule("/a/b/c", "ann", "w"),
    ]
    assert [rights(rules, ANN, path) for path in ("/a", "/a/b", "/a/b/c/d", "/x")] == ["rwd", "rwd", "w", "rwd"]
    assert [rights(rules, BOB, path) for path in ("/", "/a", "/a/b", "/a/b/c/d")] == ["rwd", "r", "", ""]


def test_rules__at_one_path_users_come_before_groups_and_these_before_everybody() -> None:
    rules = [rule("/", "*", "rwd"), rule("/", "@staff", "r"), rule("/", "bob", "")]
    assert rights(rules, BOB, "/") == ""
    assert rights(rules[:2], BOB, "/") == "r"
    assert rights(rules[:1], BOB, "/") == "rwd"
    assert rights([rule("/", "@staff", "r"), rule("/", "@guests", "w"), rule("/", "@others", "d")], BOB, "/") == "rw"


def test_rules__are_about_whole_names_in_lookup_form() -> None:
    rules = [rule("/caf\u00e9", "ann", "r"), rule("/share", "bob", "rwd")]
    assert rights(rules, ANN, "/cafe\u0301/x") == "r"
    assert rights(rules, ANN, "/Caf\u00e9") == ""
    assert rights(rules, BOB, "/share_evil") == ""
    assert rights([rule("/", "jose\u0301", "r")], user("jos\u00e9"), "/") == "r"


def test_rules__find_users_and_groups_in_any_letter_case() -> None:
    """As logins do; a rule that takes something away must not miss `Bob`."""
    rules = [rule("/", "*", "rwd"), rule("/a", "bob", ""), rule("/b", "@staff", "")]
    assert [rights(rules, user("Bob"), path) for path in ("/", "/a")] == ["rwd", ""]
    assert rights(rules, user("eve", "Staff"), "/b") == ""


@pytest.mark.parametrize("name", ["bob, eve", "", "@staff", "@*", "b:b"])
def test_rules__name_nobody_by_what_can_be_no_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"^users: .* is no name"):
        RuleOptions((name,), allow=())
    with pytest.raises(ValueError, match=r"^groups: .* is no name"):
        RuleOptions(("*",), (name,), allow=())


def test_rules__a_home_is_its_users_and_closes_where_homes_are() -> None:
    rules = [rule("/", "*", "rwd"), rule("/home/{user}", "*", "rw")]
    assert [rights(rules, ANN, path) for path in ("/", "/home", "/home/bob/x", "/home/ann/x")] == ["rwd", "", "", "rw"]
    keeper = [*rules, rule("/home", "ann", "r")]
    assert [rights(keeper, ANN, path) for path in ("/home/bob", "/home/ann")] == ["r", "rw"]
    assert rights(keeper, BOB, "/home/ann") == ""


@pytest.mark.parametrize("name", ["..", ".", "a/b", "\x00", "n" * 300])
def test_rules__whoever_has_a_name_that_is_none_in_a_path_has_no_home(name: str) -> None:
    access = ShareRules("", [rule("/home/{user}", "*", "rwd")]).access_of(user(name))
    assert access.homes == ()
    assert not access.may_anywhere(Right.READ)


def test_rules__homes_are_those_that_may_be_written() -> None:
    rules = ShareRules("", [rule("/home/{user}/in", "ann", "rw"), rule("/box/{user}", "ann", "r")])
    assert rules.access_of(ANN).homes == ()
    rules = ShareRules("", [rule("/home/{user}", "ann", "rw")])
    assert rules.access_of(ANN).homes == (at("/home/ann"),)
    assert rules.access_of(replace(ANN, is_read_only=True)).homes == ()
    assert rules.access_of(replace(ANN, path=at("/other"))).homes == ()


def test_rules__the_limits_of_a_token_are_within_them() -> None:
    rules = [rule("/", "ann", "rwd"), rule("/a/b", "ann", "r")]
    assert rights(rules, replace(ANN, is_read_only=True), "/a") == "r"
    assert rights(rules, replace(ANN, share="drive"), "/a") == "rwd"
    assert rights(rules, replace(ANN, share="other"), "/a") == ""
    limited = replace(ANN, path=at("/a"))
    assert [rights(rules, limited, path) for path in ("/", "/x", "/a", "/a_b", "/a/b")] == ["", "", "rwd", "", "r"]
    below = replace(ANN, path=at("/a/b/c"))
    assert [rights(rules, below, path) for path in ("/a/b", "/a/b/c", "/a/b/c/d")] == ["", "r", "r"]


def test_rules__who_may_do_everything_costs_nothing() -> None:
    assert ShareRules("", with_everything(["ann"], [])).access_of(ANN).is_full
    assert ShareRules("", [rule("/", "ann", "rwd"), rule("/a", "ann", "rwd")]).access_of(ANN).is_full
    assert not ShareRules("", [rule("/", "ann", "rwd"), rule("/a", "ann", "rw")]).access_of(ANN).is_full
    assert with_everything([], []) == ()
