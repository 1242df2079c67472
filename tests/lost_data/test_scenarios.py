"""Each scenario passes on davsql and fails on WsgiDAV's FilesystemProvider on cheroot."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import pytest

from davsql.store.check import check
from davsql.store.store import Store
from tests.lost_data.scenario import SCENARIOS, Scenario
from tests.lost_data.site import BROKEN, our_site, site_of_workers, stock_site

for _module in ("bodies", "trees", "conditional", "locking", "describing", "ranges", "races"):
    import_module(f"tests.lost_data.{_module}")

# Scenarios that WsgiDAV 4.4.0 with cheroot 11.1.2 passes too, and why they stay: davsql must pass them as well.
NOT_REPRODUCED = {
    "lock_by_another_during_put__protects": "WsgiDAV locks a file while a PUT writes to it",
    "move_into_the_own_tree__is_refused_and_nothing_gone": "only ancestors are taken for other resources",
    "copy_into_the_own_tree__is_refused_and_nothing_gone": "only ancestors are taken for other resources",
    "move_of_a_parent__locked_member_stays": "only DELETE overlooks locks of members",
    "copy_over_a_parent__locked_member_stays": "only DELETE overlooks locks of members",
    "move_over_a_parent__locked_member_stays": "only DELETE overlooks locks of members",
    "destination_with_an_encoded_hash__is_what_it_says": "a fragment is not looked for after decoding",
    "encoded_percent_sign__is_decoded_once": "names are decoded too early, but not twice",
    "if_with_a_path__is_evaluated": "only absolute URIs and other resources are overlooked",
    "if_with_a_token_nobody_holds__is_false": "the If header counts where the resource exists",
    "joplins_if_none_match__is_ignored": "the value matches nothing; to refuse it would be the fault",
    "lock_of_what_is_locked__names_the_lock_in_the_way": "the element is wrong for other methods only",
    "proppatch_with_one_refusal__changes_nothing": "protected names are looked for before anything is set",
    "twenty_lock_and_unlock_one_resource__without_any_error": "its lock storage fails only where locks expire",
}


OF_SEVERAL_CLIENTS = ("tests.lost_data.races",)
ATTEMPTS = 5  # the stock server may win a race by luck


def each(scenarios: Iterable[Scenario]) -> pytest.MarkDecorator:
    found = list(scenarios)
    return pytest.mark.parametrize("scenario", found, ids=[scenario.name for scenario in found])


@each(SCENARIOS)
def test_scenario__passes_here(scenario: Scenario, tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    with our_site(file) as site:
        scenario.play(site)
    with Store.open(file) as store:
        assert check(store) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux spreads connections over processes")
@each(scenario for scenario in SCENARIOS if scenario.play.__module__ in OF_SEVERAL_CLIENTS)
def test_scenario__passes_with_four_workers(scenario: Scenario, tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    with site_of_workers(file) as site:
        scenario.play(site)
    with Store.open(file) as store:
        assert check(store) == []


@each(scenario for scenario in SCENARIOS if scenario.name not in NOT_REPRODUCED)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_control__fails_on_stock_wsgidav(scenario: Scenario, tmp_path: Path) -> None:
    for number in range(ATTEMPTS):
        folder = tmp_path / str(number)
        folder.mkdir()
        failure = _failure_on_stock(scenario, folder)
        gc.collect()  # files that WsgiDAV has left open: here, and not in the next test
        if failure is not None:
            break
    else:
        pytest.fail(f"WsgiDAV passes; if it always does, {scenario.name} belongs into NOT_REPRODUCED")
    if isinstance(failure, AssertionError):  # else the connection broke
        assert scenario.stock in str(failure), "WsgiDAV fails, but in another way than the scenario says"


def _failure_on_stock(scenario: Scenario, folder: Path) -> Exception | None:
    with stock_site(folder) as site:
        try:
            scenario.play(site)
        except (AssertionError, *BROKEN) as error:
            return error
    return None


def test_control__table_names_scenarios() -> None:
    assert NOT_REPRODUCED.keys() <= {scenario.name for scenario in SCENARIOS}
