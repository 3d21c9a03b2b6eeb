"""Hostile campaign: hostile keys, responses and archives, through the command line.

`make test` tries a case of each fault and store; `make faults` tries all.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testkit.scripted_server import ScriptedServer
from testkit.warm_process import WarmProcess, start_warm_process
from tests.faults import hostile_archives, hostile_keys, hostile_responses
from tests.faults.campaign_report import Ledger
from tests.faults.hostile_trial import HostileCase, try_hostile_case

TITLE = "Hostile input"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


@pytest.fixture(scope="module")
def forker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmProcess]:
    """Run `modelfetch` without a start-up each time."""
    with start_warm_process(tmp_path_factory.mktemp("warm")) as running:
        yield running


def select_cases(cases: list[HostileCase], *, full: bool) -> list[HostileCase]:
    """Return all cases, or the first fast case of each fault and store."""
    if full:
        return cases
    firsts = {(case.fault, case.scheme): case for case in reversed(cases) if not case.full_form_only}
    return [case for case in cases if case in firsts.values()]


@pytest.mark.parametrize(
    "cases",
    [hostile_keys.make_cases, hostile_responses.make_cases, hostile_archives.make_cases],
    ids=["keys", "replies", "archives"],
)
def test_hostile_input_is_refused_or_harmless(
    cases: Callable[[], Iterator[HostileCase]],
    scripted_server: ScriptedServer,
    forker: WarmProcess,
    ledger: Ledger,
    full: bool,
    tmp_path: Path,
) -> None:
    """Hostile input gives the right model or a documented exit code with a reason; no stray file, little memory."""
    verdicts = []
    for number, case in enumerate(select_cases(list(cases()), full=full)):
        verdicts.append(try_hostile_case(case, scripted_server, forker, tmp_path / str(number)))
        ledger.add_row(TITLE, verdicts[-1].report_row)

    assert [str(verdict) for verdict in verdicts if verdict.flaws] == []


def test_campaign_reports_wrong_outcomes(scripted_server: ScriptedServer, forker: WarmProcess, tmp_path: Path) -> None:
    """The campaign can fail: wrong codes, contents, extra files and messages are found."""
    files = {"p/good": b"x"}
    right = HostileCase("f", "right", "file", files, (0,), model={"good": b"x"})
    assert try_hostile_case(right, scripted_server, forker, tmp_path / "0").flaws == ()
    for number, wrong in enumerate(
        [
            HostileCase("f", "code", "file", files),
            HostileCase("f", "content", "file", files, (0,), model={"good": b"y"}),
            HostileCase("f", "file too many", "file", {**files, "p/more": b""}, (0,), model={"good": b"x"}),
            HostileCase("f", "message", "file", {"p/a\\b": b"x"}, message_part="something else"),
        ]
    ):
        assert try_hostile_case(wrong, scripted_server, forker, tmp_path / f"wrong{number}").flaws
