# SPDX-License-Identifier: Apache-2.0
"""A disk of a VM under replication is replaced by another image: its replica is overwritten by the operator's word only."""

from pathlib import Path

import pytest

from plugging import at_destination, content, detach, order, waits_for, with_vdc
from seedship import clock, nbd
from seedship.lab import Journey, Lab
from seedship.units import MiB
from support import (
    assert_whole,
    disk_paths,
    events,
    finish,
    hits,
    plan,
    same,
    supervised,
    sweep,
    virsh,
)

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(600)]
WAITS = "vdc is another image"


@pytest.fixture
def plugged(lab: Lab):
    """A guest with free ports for more disks."""
    made = Journey(lab, plan(ports=3))
    yield made
    sweep(made)


def give(made: Journey, image: Path, kind: str) -> None:
    """Attach an image as vdc."""
    words = ("--subdriver", kind, "--targetbus", "virtio", "--live", "--persistent")
    virsh(made, "attach-disk", made.plan.name, image, "vdc", *words)
    clock.wait_until(lambda: len(disk_paths(made)) == 3, 60, f"{image} attached")


def replaced(made: Journey, kind: str, size: int = 48 * MiB) -> tuple[Path, Path]:
    """Attach another image in vdc's place; returns the old one and the new one."""
    old = made.guest.folder / f"vdc.{kind}"
    new = made.guest.folder / f"other.{kind}"
    detach(made)
    nbd.image.create(new, kind, size)
    give(made, new, kind)
    return old, new


@pytest.mark.failure_mode(
    "A disk of the running VM is replaced by another image",
    "The rounds wait and name the command that accepts the image. With the old image again, they continue without it",
    "Nothing before the command. After it, recovery points from before have the old disk, and so has its image at the source",
)
@pytest.mark.remedy("workflows.source.snapshots.replaced.insist_accepted: seedship replication set … --accept-image …")
def test_rounds_wait_and_the_old_image_may_come_back(plugged):
    a, b = plugged.lab.sites
    with_vdc(plugged, "raw")
    epoch = plugged.show(b)["epoch"]
    old, new = replaced(plugged, "raw")
    command = waits_for(plugged, WAITS)
    assert command.endswith(f" --accept-image vdc={new}")
    plugged.switch_over()
    clock.wait_until(lambda: events(plugged, a, "switchover-undone") != [], 60, "the refusal")
    (undone,) = events(plugged, a, "switchover-undone")
    assert WAITS in undone["why"]
    assert plugged.running() == ["a"]
    assert plugged.show(b)["epoch"] <= epoch + 2  # rounds that ended before the disk was detached
    detach(plugged)
    give(plugged, old, "raw")
    plugged.until(a, "in-sync", patient=True)
    assert same(plugged)
    assert events(plugged, a, "alarm") == []
    detach(plugged)
    give(plugged, new, "raw")
    order(plugged, waits_for(plugged, WAITS))
    clock.wait_until(
        lambda: any(f"vdc is {new} now" in e["what"] for e in events(plugged, a, "disks-changed")), 60, "it"
    )
    plugged.until(a, "in-sync", patient=True)
    assert same(plugged)
    assert events(plugged, a, "alarm") == []
    written = content(old)
    assert (written["magic"], written["disk"]) == (b"PIHSDEES", 2)
    finish(plugged)
    assert [Path(path).name for path in disk_paths(plugged, b)] == ["vda.qcow2", "vdb.raw", "vdc.raw"]
    assert_whole(plugged.outcome())


@pytest.mark.slow
@pytest.mark.failure_mode(
    "The source is lost while rounds wait because a disk was replaced",
    "The failover starts the VM with the disk as it was replicated last",
    "What was written after the last epoch",
)
def test_a_failover_before_the_word_has_the_old_disk(plugged):
    a, b = plugged.lab.sites
    with_vdc(plugged, "qcow2")
    plugged.until(a, rounds=plugged.show(a)["rounds"] + 2, patient=True)
    replaced(plugged, "qcow2", 32 * MiB)
    waits_for(plugged, WAITS)
    a.kill_daemon()
    virsh(plugged, "destroy", plugged.plan.name)
    b.seedship("replication", "failover", plugged.id, "--confirm-source-down", plugged.plan.name)
    plugged.there.more(5)
    assert plugged.there.bad() == []
    assert [Path(path).name for path in disk_paths(plugged, b)] == ["vda.qcow2", "vdb.raw", "vdc.qcow2"]
    # The guest continues after the lowest number of its disks: an empty one would let it begin anew.
    assert plugged.there.ticks()[0][1] > 5
    a.start_daemon()


AT_SOURCE = ("disk.replaced", "epoch.captured", "epoch.sent", "epoch.acknowledged", "epoch.merged")
AT_DESTINATION = ("close.durable", "replica.flush", "apply.written")


@pytest.mark.slow
@pytest.mark.failure_mode(
    "seedship is killed at any step of taking a replaced disk's new image in, at either site",
    "The step is taken up again when it is back",
    "Nothing",
)
def test_kills_while_another_image_is_taken_in(plugged, tmp_path):
    a, b = plugged.lab.sites
    with_vdc(plugged, "raw")
    replaced(plugged, "raw")
    command = waits_for(plugged, WAITS)
    fa, fb = tmp_path / "a", tmp_path / "b"
    with (
        supervised(a, fa, *(f"{name}=once-kill" for name in AT_SOURCE)),
        supervised(b, fb, *(f"{name}=once-kill" for name in AT_DESTINATION)),
    ):
        order(plugged, command)
        clock.wait_until(lambda: hits(fa) == set(AT_SOURCE) and hits(fb) == set(AT_DESTINATION), 240, "the kills")
    plugged.until(a, "in-sync", patient=True)
    assert same(plugged)
    finish(plugged)
    assert_whole(plugged.outcome())


@pytest.mark.slow
@pytest.mark.failure_mode(
    "A disk is replaced by a smaller image, in a running VM under replication",
    "The rounds wait for the operator's word. Then the old disk is left out, and the new one is added; nothing starts anew",
    "Nothing: the old image has all that was written to it",
)
def test_a_disk_is_replaced_by_a_smaller_image_and_the_vm_moves(plugged):
    a, b = plugged.lab.sites
    with_vdc(plugged, "raw")
    old, _ = replaced(plugged, "raw", 32 * MiB)
    command = waits_for(plugged, WAITS)
    at_destination(plugged, "vda", "vdb", "vdc")
    assert [disk["size"] for disk in plugged.show(b)["disks"] if disk["target"] == "vdc"] == [48 * MiB]
    order(plugged, command)
    clock.wait_until(
        lambda: [disk["size"] for disk in plugged.show(b)["disks"] if disk["target"] == "vdc"] == [32 * MiB],
        120,
        "the other image at the destination",
    )
    plugged.until(a, "in-sync", patient=True)
    assert same(plugged)
    assert content(old)["disk"] == 2
    finish(plugged)
    assert [Path(path).name for path in disk_paths(plugged, b)] == ["vda.qcow2", "vdb.raw", "vdc-3.raw"]
    assert_whole(plugged.outcome())
