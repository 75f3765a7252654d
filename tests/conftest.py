"""What all tests share: no time limit for hypothesis; a run ends with the figures, and with why a test ran twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

settings.register_profile("ubcp", deadline=None, print_blob=True)  # machines differ; pytest-timeout guards the whole
settings.register_profile("long", settings.get_profile("ubcp"), max_examples=2000)  # `make properties`, `make fuzz`
settings.load_profile("ubcp")

FIGURES = pytest.StashKey[list[str]]()
FAILED = pytest.StashKey[bool]()
RERUN_CHARS_MAX = 6_000


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """figure("median 0.2 s"): a line under "figures" at the end of the run. Times are printed, not asserted on."""
    lines = request.config.stash.setdefault(FIGURES, [])
    return lambda text: lines.append(f"{request.node.name}: {text}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(FIGURES, [])
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"why {report.nodeid} ran again: {report.when}")
        terminalreporter.write_line(report.longreprtext)
        for name, text in report.sections:
            terminalreporter.write_line(f"--- {name}\n{text[-RERUN_CHARS_MAX:]}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that are `long` first; otherwise in the order in which they were found."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None]:  # a generator: pytest types the hook by what it returns
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.failed:
        item.stash[FAILED] = True
    return report  # type: ignore[return-value]
