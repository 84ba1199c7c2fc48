# SPDX-License-Identifier: Apache-2.0
"""What a replication takes and leaves: space, memory, keys; and the end by an abort."""

import subprocess
from pathlib import Path

import pytest

from seedship import clock, nbd
from seedship.lab import Journey, Lab, check_image, wan
from seedship.lab.leftovers import leftovers
from seedship.lab.shell import run as shell
from seedship.units import MiB
from support import assert_whole, disk_paths, events, insist, kill_qemu, plan, sweep

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(600)]


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def assert_as_found(journey: Journey) -> None:
    """The guest runs on its own images, and nothing of ours is left but the running VM itself."""
    a = journey.lab.a
    assert disk_paths(journey) == [str(journey.guest.disk(t)) for t, *_ in journey.plan.disks]
    kept = [journey.guest.disk(t) for t, f, _, _ in journey.plan.disks if f == "qcow2"]
    found = leftovers(a, journey.plan.name, kept)
    assert found == [f"the VM {journey.plan.name} is defined"]
    journey.here.more(5)


def test_what_arrives_takes_what_it_took(journey: Journey) -> None:
    """Holes stay holes, keys go with their purpose, and no daemon grows with the disks."""
    a, b = journey.lab.sites
    journey.travel()
    folder = Path(journey.show(b)["folder"])
    for target, image_format, size, _ in journey.plan.disks:
        there = sum(allocated(path) for path in folder.glob(f"{target}*"))
        here = allocated(journey.guest.disk(target))
        assert there <= here + 16 * MiB, f"{target} {image_format}"
        assert there < size / 2
    for site in (a, b):
        status = Path(f"/proc/{site.daemon_pid()}/status").read_text()
        (peak,) = [int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line]
        assert peak < 400 * 1024, f"{site.name}: {peak} KiB"


def test_a_switchover_without_a_comparison(lab: Lab) -> None:
    """It is the operator's word: the first one would compare everything else.

    Of its memory, what the replica has is not sent.
    """
    journey = Journey(lab, plan(cached_mib=24))
    try:
        _switch_over_without_a_comparison(journey)
    finally:
        sweep(journey)


def _switch_over_without_a_comparison(journey: Journey) -> None:
    a, b = journey.lab.sites
    journey.travel()
    journey.switch_over("--no-verify")
    journey.until(a, "done")
    journey.until(b, "done")
    assert events(journey, a, "verified") == []
    assert not journey.show(a)["verified"]
    # Nor does the overlay that a switchover puts above an image cast doubt on what was tracked in it: no disk is read whole.
    assert events(journey, a, "scanned") == []
    (moved,) = events(journey, a, "migrated")
    assert moved["on_disks"] > 12 * MiB  # a third of what it has read is zeros
    assert journey.show(a)["bytes"]["memory"] < (moved["memory"] - moved["on_disks"]) * 0.6
    journey.there.more(5)
    assert_whole(journey.outcome())


def test_an_abort_leaves_both_sites_as_they_were(journey: Journey) -> None:
    a, b = journey.lab.sites
    journey.travel()
    folder = Path(journey.show(b)["folder"])
    assert folder.exists()
    a.seedship("replication", "abort", journey.id)
    assert_as_found(journey)
    journey.until(b, "aborted")
    found = journey.show(b)
    while not found["clean"]:
        found = journey.show(b)
    assert not folder.exists()
    assert list((b.data / "replications").iterdir()) == []
    for site in (a, b):
        site.seedship("replication", "delete", journey.id)


@pytest.mark.parametrize("gone", [False, True], ids=["off", "undefined"])
def test_an_abort_while_the_guest_is_off(journey: Journey, gone: bool) -> None:
    """Its newest writes are in overlays: they are merged, not deleted."""
    a = journey.lab.a
    journey.travel()
    kill_qemu(a, journey.plan.name)
    last = journey.here.last
    if gone:
        shell("virsh", "-c", a.uri, "undefine", journey.plan.name, "--checkpoints-metadata")
    a.seedship("replication", "abort", journey.id)
    for index, (target, image_format, _, _) in enumerate(journey.plan.disks):
        image = journey.guest.disk(target)
        newest, _, bad = check_image(image, image_format, index)
        assert newest >= last
        assert bad == 0
        assert image_format == "raw" or nbd.image.info(image).bitmaps == ()
    assert a.run("find", a.state, "-type", "f").strip() == ""
    if gone:
        shell("virsh", "-c", a.uri, "define", journey.guest.folder / "definition.xml")
    shell("virsh", "-c", a.uri, "start", journey.plan.name)
    assert_as_found(journey)


def test_an_abort_during_the_export(journey: Journey) -> None:
    a = journey.lab.a
    journey.start()
    journey.request()
    a.seedship("replication", "abort", journey.id)
    assert_as_found(journey)


def test_an_abort_does_not_wait_for_the_other_site(journey: Journey) -> None:
    """It is told when the WAN is back."""
    a, b = journey.lab.sites
    journey.travel()
    wan.cut(b)
    a.seedship("replication", "abort", journey.id)
    assert_as_found(journey)
    assert journey.show(b)["state"] != "aborted"
    wan.heal(b)
    journey.until(b, "aborted")


@pytest.mark.slow
def test_a_guest_that_writes_faster_than_the_wan(lab: Lab) -> None:
    """It is said, and it goes on at the source; asked for, its writes wait for the other side."""
    a = lab.a
    journey = Journey(lab, plan(delay_ms=1))
    try:
        journey.travel()
        wan.narrow(a, "8mbit")
        journey.switch_over("--no-throttle")
        found = journey.until(a, "catching-up", "done", patient=True)
        assert found["state"] == "catching-up"
        (undone,) = events(journey, a, "switchover-undone")
        assert undone["code"] == "hypervisor.not-converging"
        assert "--throttle" in undone["remedy"]
        assert journey.running() == ["a"]
        journey.here.more(10)
        wan.narrow(a, "20mbit")  # so that rounds come to an end, and memory hardly does
        insist(journey, "--throttle")
        journey.there.more(10)
        assert journey.running() == ["b"]
        assert_whole(journey.outcome())
    finally:
        wan.narrow(a, "155mbit")
        sweep(journey)


def test_a_guest_whose_mirrors_are_never_level(lab: Lab) -> None:
    """It writes little, but again before a write was there and back: its writes wait by themselves.

    Its memory goes as changes of pages; how large their cache is tells only QEMU.
    """
    a, b = lab.sites
    journey = Journey(lab, plan(delay_ms=5))
    caches: set[str] = set()

    def told() -> bool:
        words = ["virsh", "-c", a.uri, "domjobinfo", journey.plan.name]
        found = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        caches.update(line for line in found.splitlines() if "Compression cache:" in line)
        return bool(caches) or journey.show(a)["state"] == "done"

    try:
        journey.travel()
        journey.switch_over("--xbzrle", "--no-auto-converge")
        clock.wait_until(told, 60, "the migration's figures")
        assert [cache.split()[-2:] for cache in caches] == [["16.000", "MiB"]]  # of 96 MiB
        for site in (a, b):
            journey.until(site, "done", patient=True)
        (said,) = events(journey, a, "switchover-throttled")
        assert said["writes"] > 50
        assert not events(journey, a, "switchover-undone")
        journey.there.more(10)
        assert_whole(journey.outcome())
    finally:
        sweep(journey)


def resize(journey: Journey, target: str, size: int) -> None:
    """Grow a disk of the running guest; QEMU refuses it while a cut is open."""
    words = ["blockresize", journey.plan.name, target, f"{size}B"]
    virsh = ["virsh", "-c", journey.lab.a.uri, *words]
    clock.wait_until(lambda: subprocess.run(virsh, capture_output=True).returncode == 0, 30, "a gap")


@pytest.mark.slow
def test_disks_that_grow_on_the_way(journey: Journey) -> None:
    """Before and after the import; what the destination runs has the new size, and so has what is left."""
    a, b = journey.lab.sites
    grown = {}
    journey.start()
    journey.request()
    journey.until(a, "shipped")
    for number, (target, _, size, _) in enumerate(journey.plan.disks, 1):
        grown[target] = size + number * 32 * MiB
        resize(journey, target, grown[target])
        rounds = journey.show(a)["rounds"]
        journey.until(a, rounds=rounds + 2, patient=True)
        if number == 1:
            journey.drive.unmount(a)
            journey.arrive()
            journey.until(a, "in-sync")
    journey.until(b, "in-sync")
    insist(journey)
    journey.there.more(10)
    folder = Path(journey.show(b)["folder"])
    assert_whole(journey.outcome())
    for target, image_format, _, _ in journey.plan.disks:
        image = folder / f"{target}.{image_format}"
        assert nbd.image.info(image, image_format=image_format).virtual_size == grown[target]
        assert nbd.image.info(journey.guest.disk(target)).virtual_size == grown[target]
