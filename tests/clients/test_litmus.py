"""The WebDAV conformance suites of litmus, each whole, at the root of the server and below a name.

Every test must pass, and without a warning; a warning that is right to be there would be named here, with its reason.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from davsql.store.store import Store
from tests.clients.programs import find_program

# suite -> tests in litmus 0.13; later versions have more
SUITES = {"basic": 16, "copymove": 13, "props": 30, "locks": 41, "http": 4}

HEADING = re.compile(r"-> running `(\w+)':")
RESULT = re.compile(r" *(\d+)\. (\w+)\.* pass")
SUMMARY = re.compile(r"<- summary for `(\w+)': of (\d+) tests run: (\d+) passed, 0 failed\. 100\.0%")


def read_report(suite: str, report: str) -> list[str]:
    """The names of the tests that passed, in order; anything else in the report fails."""
    # Each result is written over its heading, as on a terminal: what was last written counts.
    first, *results, last = (line.rpartition("\r")[2] for line in report.split("\n") if line)
    heading, summary = HEADING.fullmatch(first), SUMMARY.fullmatch(last)
    assert heading is not None, report
    assert heading[1] == suite, report
    passed: list[str] = []
    for line in results:
        result = RESULT.fullmatch(line)
        assert result is not None, report
        assert int(result[1]) == len(passed), report
        passed.append(result[2])
    assert summary is not None, report
    assert summary.groups() == (suite, str(len(passed)), str(len(passed))), report
    return passed


@pytest.mark.parametrize("suite", SUITES)
def test_litmus__passes(suite: str, share_url: str, folder: Path, store: Store) -> None:
    litmus = find_program("litmus", folder, {"TESTS": suite})
    finished = litmus.run(f"{share_url}/")
    passed = read_report(suite, finished.out)
    assert len(passed) >= SUITES[suite]
    assert passed[-1] == "finish"
    assert (finished.code, finished.err) == (0, "")
    assert store.stats().locks == 0


GOOD_REPORT = (
    "-> running `http':",
    " 0. init..................\r 0. init.................. pass",
    " 1. a_name_with_22_letters\r 1. a_name_with_22_letters pass",
    " 2. finish................\r 2. finish................ pass",
    "<- summary for `http': of 3 tests run: 3 passed, 0 failed. 100.0%",
)


def test_read_report__names_what_passed() -> None:
    assert read_report("http", "\n".join((*GOOD_REPORT, ""))) == ["init", "a_name_with_22_letters", "finish"]


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        (0, "-> running `basic':"),
        (1, None),
        (2, " 1. begin................. FAIL (no reason)"),
        (2, " 1. begin................. SKIPPED"),
        (2, " 1. begin................. WARNING: it is late\n\r 1. begin................. pass (with 1 warning)"),
        (2, "ERROR: Could not find /usr/libexec/litmus/http"),
        (4, None),
        (4, "<- summary for `http': of 3 tests run: 2 passed, 1 failed. 66.7%"),
        (4, GOOD_REPORT[4] + "\n-> 1 warning was issued."),
    ],
)
def test_read_report__refuses_all_but_a_clean_pass(line: int, instead: str | None) -> None:
    changed = [instead if number == line else text for number, text in enumerate(GOOD_REPORT)]
    with pytest.raises(AssertionError):
        read_report("http", "\n".join(text for text in changed if text is not None))
