"""Fault campaign: for every fault between store and volume, the right model or none, with the reason reported.

`make test` tries each fault once, on shapes and stores by turns; `make faults` tries each on every shape and store.
"""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from itertools import product

import pytest

from testkit.stores import GCSServer, S3Server, Store
from testkit.warm_process import start_warm_process
from tests.faults.all_faults import FAULTS
from tests.faults.campaign_report import Ledger
from tests.faults.fault import Fault
from tests.faults.fault_campaign import Campaign, FaultCase, FaultOutcome
from tests.faults.stored_models import SHAPES, StoredModel, store_model

TITLE = "Faults on the way"
WORKERS = 6  # mostly waiting

Outcomes = Callable[[Fault], list[FaultOutcome]]


@pytest.fixture(scope="module")
def campaign(
    s3: S3Server, gcs: GCSServer, toxiproxy: str, tmp_path_factory: pytest.TempPathFactory, ledger: Ledger, full: bool
) -> Iterator[Campaign]:
    """Start the campaign: models of each shape on every server, pulled undisturbed first."""
    with ExitStack() as stack:
        work = tmp_path_factory.mktemp("campaign")
        forker = stack.enter_context(start_warm_process(tmp_path_factory.mktemp("warm")))
        stores: dict[str, S3Server | GCSServer] = {"s3": s3, "gcs": gcs}
        shelf: dict[tuple[str, str], StoredModel] = {}
        for name, server in stores.items():
            bucket: AbstractContextManager[Store] = server.new_bucket()
            store = stack.enter_context(bucket)
            shelf |= {(name, shape): store_model(store, shape) for shape in SHAPES}
        campaign = Campaign(stores, shelf, toxiproxy, forker, work, thorough=full)
        campaign.measure_undisturbed_pulls()
        for row in campaign.undisturbed_rows():
            ledger.add_row(TITLE, row)
        yield campaign


def select_cases(fault: Fault, campaign: Campaign, *, full: bool) -> list[FaultCase]:
    """Return all cases of a fault, or a single case in the short form."""
    places = list(product(fault.stores, fault.shapes))
    found = [
        FaultCase(fault, store, shape, nth)
        for store, shape in places
        for nth in range(fault.variants(campaign.models[store, shape]))
    ]
    number = FAULTS.index(fault)
    store, shape = places[number * 5 % len(places)]  # 5: reaches every place, as places number 1, 2, 3, 4 or 6
    here = [case for case in found if (case.store, case.shape) == (store, shape)]
    return found if full else [random.Random(number).choice(here)]


@pytest.fixture(scope="module")
def pending_outcomes(request: pytest.FixtureRequest, campaign: Campaign, full: bool) -> Iterator[Outcomes]:
    """Start the chosen cases in the order of the tests; return a function from fault to outcomes."""
    names = {item.name for item in request.session.items}
    chosen = [fault for fault in FAULTS if any(name.endswith(f"[{fault.name}]") for name in names)]
    with ThreadPoolExecutor(WORKERS) as pool:
        runs: dict[str, list[Future[FaultOutcome]]] = {
            fault.name: [pool.submit(campaign.run_case, case) for case in select_cases(fault, campaign, full=full)]
            for fault in chosen
        }
        yield lambda fault: [run.result() for run in runs[fault.name]]
        pool.shutdown(cancel_futures=True)


@pytest.mark.timeout(3600)  # includes the wait in the queue
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_model_is_right_or_the_failure_clean(fault: Fault, pending_outcomes: Outcomes, ledger: Ledger) -> None:
    """The receipt and every byte are right, or the exit code is documented and nothing published; a next pull heals."""
    outcomes = pending_outcomes(fault)
    for outcome in outcomes:
        ledger.add_row(TITLE, outcome.report_row)

    wrong = [str(outcome) for outcome in outcomes if outcome.flaws]
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)
