# SPDX-License-Identifier: Apache-2.0
"""Disks that shrink, go, come, or become other images: nothing wrong is sent, and each ends in sync."""

import shutil
import subprocess
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path

import pytest

from plugging import order, waits_for
from remedied import commands, shell
from seedship import clock, nbd
from seedship.errors import LabFailed
from seedship.lab import Journey
from seedship.units import MiB
from support import assert_whole, disk_paths, events, finish, refused, same, travelled, virsh


def stop(made: Journey) -> None:
    with suppress(LabFailed):
        virsh(made, "destroy", made.plan.name, "--graceful")


def problem(made: Journey, code: str) -> dict:
    """Wait until it stands in the way; returns the replication."""
    found: dict = {}

    def look() -> bool:
        found.clear()
        found.update(made.show(made.lab.a))
        return bool(found["problem"]) and found["problem"]["code"] == code

    try:
        clock.wait_until(look, 60, code)
    except TimeoutError as error:
        raise AssertionError(f"{code}: {found.get('problem')}") from error
    return found


def settled(made: Journey) -> None:
    """In sync, and equal without a comparison that would have mended it."""
    a, b = made.lab.sites
    rounds = made.show(a)["rounds"]
    made.until(a, rounds=rounds + 2, patient=True)
    for site in (a, b):
        made.until(site, "in-sync", patient=True)
    assert same(made)
    assert events(made, a, "alarm") == []


@pytest.mark.slow
@pytest.mark.failure_mode(
    "A disk is made smaller, or taken from the VM",
    "The rounds wait and say what to do; they resume by themselves when the disk is there in its size again",
    "Nothing",
)
@pytest.mark.timeout(600)
@pytest.mark.remedy("errors.hypervisor.DiskShrunk: virsh blockresize … … …B")
def test_a_disk_shrinks_and_a_disk_is_gone(journey):
    a, _ = journey.lab.sites
    travelled(journey)
    disk = journey.guest.disk("vda")
    stop(journey)
    whole = journey.plan.disks[0][2]
    words = ["qemu-img", "resize", "-q", "-f", "qcow2"]
    subprocess.run([*words, "--shrink", disk, str(whole - 16 * MiB)], check=True)
    virsh(journey, "start", journey.plan.name, "--paused")
    stuck = problem(journey, "hypervisor.disk-shrunk")
    resize, _ = commands(stuck["problem"]["remedy"])
    epoch = stuck["epoch"]
    shell(a, resize)
    virsh(journey, "resume", journey.plan.name)
    journey.here.more(5)
    settled(journey)
    stop(journey)
    definition = virsh(journey, "dumpxml", "--inactive", journey.plan.name)
    virsh(journey, "detach-disk", journey.plan.name, "vdb", "--config")
    virsh(journey, "start", journey.plan.name, "--paused")
    stuck = problem(journey, "hypervisor.disks-changed")
    assert "vdb is gone" in stuck["problem"]["message"]
    assert stuck["epoch"] >= epoch
    stop(journey)
    # Given back, but as it was found: without the overlay that has its newest writes.
    overlay = pointed(journey, definition, "vdb", journey.guest.disk("vdb"))
    virsh(journey, "start", journey.plan.name, "--paused")
    clock.wait_until(lambda: overlay in (journey.show(a)["problem"] or {}).get("remedy", ""), 60, "the overlay")
    assert a.outside(overlay).exists()
    stop(journey)
    define(journey, definition)
    virsh(journey, "start", journey.plan.name)
    journey.here.more(5)
    settled(journey)
    kinds = [e["what"] for e in events(journey, a, "disks-changed")]
    assert any("gone" in what for what in kinds)
    assert kinds[-1] == "the disks are those that are replicated"
    finish(journey)
    assert_whole(journey.outcome())


def define(made: Journey, definition: str) -> None:
    path = made.guest.folder / "changed.xml"
    path.write_text(definition)
    virsh(made, "define", path)


def pointed(made: Journey, definition: str, target: str, image: Path) -> str:
    """Let a disk of the guest be a raw image; returns what it was."""
    root = ET.fromstring(definition)
    disk = next(d for d in root.iter("disk") if d.find("target").get("dev") == target)
    for below in disk.findall("backingStore"):
        disk.remove(below)
    was = disk.find("source").attrib["file"]
    disk.find("source").set("file", str(image))
    disk.find("driver").set("type", "raw")
    define(made, ET.tostring(root, encoding="unicode"))
    return was


@pytest.mark.failure_mode(
    "A disk that cannot be replicated is added to the VM, and one becomes another image",
    "The first: the others continue, not in sync, with what to do. Another image: the rounds wait for the operator's word",
    "Nothing",
)
@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_disk_is_added_and_one_becomes_another_image(journey):
    a, _ = journey.lab.sites
    travelled(journey)
    stop(journey)
    more = journey.guest.folder / "vdc.raw"
    nbd.image.create(more, "raw", 8 * MiB)
    old = journey.guest.disk("vdb")
    new = journey.guest.folder / "new.raw"
    overlay = next(p for p in disk_paths(journey) if p.endswith("vdb.overlay"))
    words = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw"]
    subprocess.run([*words, a.outside(overlay), new], check=True, cwd=journey.guest.folder)
    with new.open("r+b") as file:
        file.seek(70 * MiB)
        file.write(b"another image" * 10000)
    definition = virsh(journey, "dumpxml", "--inactive", journey.plan.name)
    before = shutil.copy(new, journey.guest.folder / "expected.raw")
    pointed(journey, definition, "vdb", new)
    virsh(
        journey, "attach-disk", journey.plan.name, more, "vdc", "--config", "--subdriver", "raw", "--mode", "shareable"
    )
    virsh(journey, "start", journey.plan.name, "--paused")
    order(journey, waits_for(journey, "vdb is another image"))
    clock.wait_until(lambda: "vdc" in (journey.show(a)["problem"] or {}).get("message", ""), 60, "vdc")
    found = problem(journey, "hypervisor.disks-changed")
    assert "vdc is not replicated" in found["problem"]["message"]
    assert "vdc is shared with other VMs" in found["problem"]["message"]
    journey.until(a, "catching-up")
    journey.until(a, rounds=journey.show(a)["rounds"] + 2)  # the others go on
    assert refused(a, "replication", "switchover", journey.id, "--no-wait").code
    assert any(str(new) in e["what"] for e in events(journey, a, "disks-changed"))
    assert not a.outside(overlay).exists() or disk_paths(journey)[1] == overlay
    # What the guest wrote last went back into the image that it was written above.
    left, right = (Path(p).read_bytes() for p in (old, before))
    assert left[: 70 * MiB] == right[: 70 * MiB]
    stop(journey)
    virsh(journey, "detach-disk", journey.plan.name, "vdc", "--config")
    virsh(journey, "start", journey.plan.name)
    journey.here.more(5)
    settled(journey)
    a.seedship("replication", "abort", journey.id)
    clock.wait_until(lambda: disk_paths(journey)[1] == str(new), 60, "the new image alone")
