# SPDX-License-Identifier: Apache-2.0
"""Journeys of small guests through the lab."""

from collections.abc import Iterator

import pytest

from remedied import Subject
from seedship.errors import SeedshipError
from seedship.lab import Journey, Lab, LabSite, wan
from support import plan, sweep

_LAST = 40
"""Number of events, and of lines of each daemon's log, that a failed journey shows."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function, call: pytest.CallInfo[None]):
    """A journey that failed shows what its sites recorded: its lab is gone afterwards."""
    report = yield
    if report.when == "call" and report.failed:
        lab = item.funcargs.get("lab")
        made = next((value for value in item.funcargs.values() if isinstance(value, Journey)), None)
        for site in lab.sites if isinstance(lab, Lab) else ():
            log = (site.root / "daemon.log").read_text(errors="replace").splitlines()[-_LAST:]
            report.sections.append((f"log of site {site.name}", "\n".join(log)))
            if made is not None:
                report.sections.append((f"events of site {site.name}", _events(made, site)))
    return report


def _events(made: Journey, site: LabSite) -> str:
    """The last events of a journey's replication at a site; why there are none, where it does not answer."""
    try:
        return "\n".join(f"{event['at']} {event['kind']} {event['data']}" for event in made.events(site)[-_LAST:])
    except SeedshipError as error:
        return str(error)


@pytest.fixture
def lab(whole_lab: Lab) -> Iterator[Lab]:
    """The lab with its daemons as they should be, before and after.

    libvirtd 9.0 crashes when a disk is detached at a bad moment: that is one failed test, and no more.
    """
    for site in whole_lab.sites:
        wan.heal(site)
        site.start_libvirt()
        site.start_daemon()
    yield whole_lab
    for site in whole_lab.sites:
        site.kill_daemon()
        wan.heal(site)
        site.start_libvirt()
        site.start_daemon()


@pytest.fixture
def journey(lab: Lab) -> Iterator[Journey]:
    made = Journey(lab, plan())
    yield made
    sweep(made)


@pytest.fixture
def subject(whole_lab: Lab) -> Iterator[Subject]:
    """A VM that remedies are tried on, not yet defined, with its disk."""
    made = Subject(whole_lab.a)
    made.image()
    yield made
    made.end()
