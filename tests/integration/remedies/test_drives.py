# SPDX-License-Identifier: Apache-2.0
"""What is said about drives: the remedy is run as it is printed, and what was refused works then."""

import shlex
from pathlib import Path

import pytest

from paired import Pair, printed
from seedship import clock
from seedship.cli import waiting


def quoted(path: Path) -> str:
    return shlex.quote(str(path))


def named(command: str, path: Path) -> str:
    """A command with the place that only the operator knows."""
    assert "PATH" in command
    return command.replace("PATH", quoted(path))


@pytest.mark.remedy(
    "cli.waiting.waits_for: seedship replication seed … --drive PATH",
    "cli.waiting.waits_for: seedship shipment import PATH",
    "service.drives.Drives.erase: seedship shipment repair … --lost …",
    "workflows.target.importing.check_drive: seedship drive erase …",
)
def test_the_way_of_a_seed_on_a_drive(pair: Pair) -> None:
    vm, drive = pair.checked(), pair.drive()
    (seed, _) = printed(waiting.waits_for(pair.a.show(vm))[1])
    pair.a.works(named(seed, drive))
    pair.a.until(vm, "shipped")

    there, here = (printed(waiting.waits_for(site.show(vm))[1]) for site in (pair.a, pair.b))
    assert there == here
    pair.b.works(named(here[0], drive))
    for site in pair.sites:
        site.until(vm, "in-sync")
    refusal = pair.b.refused(f"seedship shipment import {quoted(drive)}")
    (erase,) = printed(refusal["remedy"])
    pair.b.works(erase)
    assert pair.b.json(f"seedship drive show {quoted(drive)}")["shipment"] == ""


@pytest.mark.remedy("service.drives.Drives.erase: seedship shipment repair … --lost …")
def test_a_drive_that_is_needed_is_given_up_before_it_is_erased(pair: Pair) -> None:
    vm, (drive,) = pair.shipped()
    (repair,) = printed(pair.a.refused(f"seedship drive erase {quoted(drive)}")["remedy"])
    pair.a.works(repair)
    for site in pair.sites:
        site.until(vm, "in-sync")
    pair.a.works(f"seedship drive erase {quoted(drive)}")


@pytest.mark.remedy(
    "service.views.waiting: seedship shipment import PATH",
    "service.views.waiting: seedship shipment repair …",
)
@pytest.mark.parametrize("way", ["it arrives", "it is lost"])
def test_a_drive_that_is_waited_for(pair: Pair, way: str) -> None:
    vm, (one, other) = pair.shipped(2)
    pair.b.works(f"seedship shipment import {quoted(one)}")
    pair.b.until(vm, "importing")
    (waits,) = pair.b.show(vm)["waiting"]
    bring, repair = printed(waits["remedy"])
    pair.b.works(named(bring, other) if way == "it arrives" else repair)
    for site in pair.sites:
        site.until(vm, "in-sync")
    assert pair.b.show(vm)["waiting"] == []


@pytest.mark.remedy("service.replications.Replications.seed: seedship replication ship … --drive PATH")
def test_a_seed_that_is_written_is_followed_by_an_increment(pair: Pair) -> None:
    vm, drive = pair.adopted(), pair.drive()
    refusal = pair.a.refused(f"seedship replication seed {vm} --drive {quoted(drive)}")
    (ship,) = printed(refusal["remedy"])
    pair.a.works(named(ship, drive))
    clock.wait_until(lambda: pair.b.run(f"seedship shipment import {quoted(drive)}")[0] == 0, 60, "the increment", 0.1)
    for site in pair.sites:
        site.until(vm, "in-sync")
