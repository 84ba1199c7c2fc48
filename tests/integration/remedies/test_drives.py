# SPDX-License-Identifier: Apache-2.0
"""What is said about drives: the remedy is run as it is printed, and what was refused works then."""

import shlex
import subprocess
from pathlib import Path

import pytest

from paired import Pair
from person import printed
from seedship import clock
from seedship.cli import waiting
from seedship.client import SiteClient


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
    pair.in_sync(vm)
    refusal = pair.b.refused(f"seedship shipment import {quoted(drive)}")
    (erase,) = printed(refusal["remedy"])
    pair.b.works(erase)
    assert pair.b.json(f"seedship drive show {quoted(drive)}")["shipment"] == ""


@pytest.mark.remedy("service.drives.Drives.erase: seedship shipment repair … --lost …")
def test_a_drive_that_is_needed_is_given_up_before_it_is_erased(pair: Pair) -> None:
    vm, (drive,) = pair.shipped()
    (repair,) = printed(pair.a.refused(f"seedship drive erase {quoted(drive)}")["remedy"])
    pair.a.works(repair)
    pair.in_sync(vm)
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
    pair.in_sync(vm)
    assert pair.b.show(vm)["waiting"] == []


@pytest.mark.remedy("service.replications.Replications.seed: seedship replication ship … --drive PATH")
def test_a_seed_that_is_written_is_followed_by_an_increment(pair: Pair) -> None:
    vm, drive = pair.adopted(), pair.drive()
    refusal = pair.a.refused(f"seedship replication seed {vm} --drive {quoted(drive)}")
    (ship,) = printed(refusal["remedy"])
    pair.a.works(named(ship, drive))
    clock.wait_until(lambda: pair.b.run(f"seedship shipment import {quoted(drive)}")[0] == 0, 60, "the increment", 0.1)
    pair.in_sync(vm)


@pytest.mark.remedy("service.drive_set.usable_set: seedship drive init …")
def test_a_drive_without_a_label_gets_one(pair: Pair) -> None:
    vm, drive = pair.checked(), pair.drive(prepared=False)
    seed = f"seedship replication seed {vm} --drive {quoted(drive)}"
    (init,) = printed(pair.a.refused(seed)["remedy"])
    pair.a.works(init)
    pair.a.works(seed)
    pair.a.until(vm, "shipped")


@pytest.mark.remedy(
    "errors.space.SetFull: seedship drive init PATH",
    "workflows.documents.repeating: seedship replication seed … --drive PATH",
)
def test_drives_that_are_full_are_joined_by_another(pair: Pair) -> None:
    vm, full, further = pair.checked(), pair.drive(size="1m"), pair.drive(prepared=False)
    pair.fill(vm)
    pair.a.works(f"seedship replication seed {vm} --drive {quoted(full)}")
    problem = pair.a.problem(vm, "space.set-full")
    init, _, seed = printed(problem["remedy"])
    pair.a.works(named(init, further))
    pair.a.works(f"{named(seed, further)} --drive {quoted(full)}")
    pair.a.until(vm, "shipped")
    pair.b.works(f"seedship shipment import {quoted(full)} {quoted(further)}")
    pair.in_sync(vm)


@pytest.mark.remedy("errors.space.PlainImageTooLarge: seedship replication seed VM --drive PATH")
def test_a_plain_image_that_does_not_fit_goes_onto_another_drive(pair: Pair) -> None:
    vm = pair.checked("--format", "plain")
    pair.fill(vm)
    pair.a.works(f"seedship replication seed {vm} --drive {quoted(pair.drive(size='1m'))}")
    problem = pair.a.problem(vm, "space.plain-image")
    seed = printed(problem["remedy"])[1]
    pair.a.works(named(seed, pair.drive()).replace("VM", vm))
    pair.a.until(vm, "shipped")


def test_a_drive_that_left_before_its_end_is_finished_first(pair: Pair) -> None:
    """The export was held up by another drive, and somebody has brought this one already."""
    vm, full, further = pair.checked(), pair.drive(size="1m"), pair.drive()
    pair.fill(vm)
    pair.a.works(f"seedship replication seed {vm} --drive {quoted(full)}")
    pair.a.problem(vm, "space.set-full")
    refusal = pair.b.refused(f"seedship shipment import {quoted(full)}")
    assert refusal["code"] == "media.drive-incomplete"
    (show,) = printed(refusal["remedy"])
    assert "replication seed" in " ".join(pair.a.works(show.replace("VM", vm)).split())
    seed = printed(pair.a.show(vm)["problem"]["remedy"])[-1]
    pair.a.works(f"{named(seed, further)} --drive {quoted(full)}")
    pair.a.until(vm, "shipped")
    pair.b.works(f"seedship shipment import {quoted(full)} {quoted(further)}")
    pair.in_sync(vm)


@pytest.mark.remedy("workflows.target.announcement._ended: seedship drive erase PATH")
@pytest.mark.parametrize("forgotten", [False, True])
def test_a_drive_of_a_replica_that_was_given_up_is_erased(pair: Pair, forgotten: bool) -> None:
    vm, (drive,) = pair.shipped(1, "--key-on-drive")
    pair.b.works(f"seedship replication abort {vm} --confirm-source-lost {vm}")
    clock.wait_until(lambda: pair.b.show(vm)["clean"], 60, "the end", 0.05)
    if forgotten:
        pair.b.works(f"seedship replication delete {vm}")
    (erase,) = printed(pair.b.refused(f"seedship shipment import {quoted(drive)}")["remedy"])
    pair.b.works(named(erase, drive) if forgotten else erase)
    assert pair.b.json(f"seedship drive show {quoted(drive)}")["shipment"] == ""


@pytest.mark.remedy("service.removal._at_source: seedship replication retry …")
def test_an_export_whose_drive_was_ejected_continues(pair: Pair) -> None:
    """It had stopped, as the drives were full. The drive is brought back with more room."""
    vm, drive = pair.checked(), pair.drive(size="1m")
    pair.fill(vm)
    pair.a.works(f"seedship replication seed {vm} --drive {quoted(drive)}")
    pair.a.problem(vm, "space.set-full")
    with SiteClient(pair.a.data) as client:
        (following,) = client.post("drives", "release", path=str(drive))["next"]
    (retry,) = printed(following)
    subprocess.run(["mount", "-o", "remount,size=32m", drive], check=True)
    pair.a.works(retry)
    pair.a.until(vm, "shipped")


@pytest.mark.remedy("workflows.documents.repeating: seedship replication ship … --drive PATH")
def test_an_increment_that_does_not_fit_gets_another_drive(pair: Pair) -> None:
    vm, full, further = pair.adopted(), pair.drive(size="1m"), pair.drive(prepared=False)
    pair.a.works(f"seedship replication hold {vm}")
    pair.fill(vm)
    pair.a.works(f"seedship replication ship {vm} --drive {quoted(full)}")
    init, _, ship = printed(pair.a.problem(vm, "space.set-full")["remedy"])
    pair.a.works(named(init, further))
    pair.a.works(f"{named(ship, further)} --drive {quoted(full)}")
    both = f"{quoted(full)} {quoted(further)}"
    clock.wait_until(lambda: pair.b.run(f"seedship shipment import {both}")[0] == 0, 60, "the increment", 0.1)
    pair.a.works(f"seedship replication resume {vm}")
    pair.in_sync(vm)
