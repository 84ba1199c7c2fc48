# SPDX-License-Identifier: Apache-2.0
"""A disk is detached from a VM under replication, and the operator leaves it out: the replication goes on with the others."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from plugging import at_destination, content, detach, is_gone, order, with_vdc
from seedship import clock, nbd
from seedship.lab import Journey, Lab
from support import (
    assert_whole,
    disk_paths,
    events,
    finish,
    hits,
    plan,
    refused,
    same,
    supervised,
    sweep,
    virsh,
)

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(600)]


@pytest.fixture
def plugged(lab: Lab):
    """A guest with free ports for more disks."""
    made = Journey(lab, plan(ports=3))
    yield made
    sweep(made)


@pytest.mark.failure_mode(
    "A disk is detached from the running VM",
    "The rounds wait and name the command that leaves it out; after that the others are replicated, and nothing starts anew",
    "Nothing: its image at the source has all of it, and earlier recovery points keep it",
)
@pytest.mark.parametrize("kind", [pytest.param("qcow2", marks=pytest.mark.slow), "raw"])
def test_a_disk_is_detached_and_left_out_and_the_vm_moves(plugged, kind):
    a, b = plugged.lab.sites
    image = with_vdc(plugged, kind)
    still = refused(a, "replication", "set", plugged.id, "--leave-out", "vdc")
    assert "is attached, and replicated" in str(still)
    detach(plugged)
    command = is_gone(plugged)
    epoch = plugged.show(a)["epoch"]
    order(plugged, command)
    at_destination(plugged, "vda", "vdb")
    assert plugged.show(a)["epoch"] > epoch
    plugged.until(a, "in-sync", patient=True)
    assert same(plugged)
    assert events(plugged, a, "alarm") == []
    assert [e["disk"] for e in events(plugged, a, "disk-left-out")] == ["vdc"]
    written = content(image)
    assert (written["magic"], written["disk"]) == (b"PIHSDEES", 2)
    assert 0 < written["number"] <= plugged.here.last
    assert not any("seedship" in bitmap.name for bitmap in nbd.image.info(image, image_format=kind).bitmaps)
    finish(plugged)
    assert [Path(path).name for path in disk_paths(plugged, b)] == ["vda.qcow2", "vdb.raw"]
    assert_whole(plugged.outcome())


AT_SOURCE = ("disk.merged", "disk.left-out", "epoch.captured", "epoch.sent", "epoch.acknowledged", "epoch.merged")
AT_DESTINATION = ("close.durable", "replica.flush", "apply.written")


@pytest.mark.slow
@pytest.mark.failure_mode(
    "seedship is killed at any step of leaving a disk out, at either site",
    "The step is taken up again when it is back",
    "Nothing",
)
def test_kills_while_a_disk_is_left_out(plugged, tmp_path):
    a, b = plugged.lab.sites
    with_vdc(plugged, "raw")
    detach(plugged)
    command = is_gone(plugged)
    fa, fb = tmp_path / "a", tmp_path / "b"
    with (
        supervised(a, fa, *(f"{name}=once-kill" for name in AT_SOURCE)),
        supervised(b, fb, *(f"{name}=once-kill" for name in AT_DESTINATION)),
    ):
        order(plugged, command)
        clock.wait_until(lambda: hits(fa) == set(AT_SOURCE) and hits(fb) == set(AT_DESTINATION), 240, "the kills")
    at_destination(plugged, "vda", "vdb")
    plugged.until(a, "in-sync", patient=True)
    assert same(plugged)
    finish(plugged)
    assert_whole(plugged.outcome())


@pytest.mark.slow
@pytest.mark.failure_mode(
    "The source is lost, and the VM is failed over to a point from before a disk was left out",
    "It starts with the disks and the definition that it had then",
    "What was written after that point",
)
def test_a_point_from_before_has_the_disk_that_was_left_out(plugged):
    a, b = plugged.lab.sites
    with_vdc(plugged, "qcow2", "--retention", "30")
    had = plugged.show(b)["epoch"]
    plugged.until(a, rounds=plugged.show(a)["rounds"] + 2, patient=True)
    detach(plugged)
    order(plugged, is_gone(plugged))
    at_destination(plugged, "vda", "vdb")
    plugged.until(a, "in-sync", patient=True)
    points = [point["epoch"] for point in json.loads(b.seedship("point", "list", plugged.id, "-o", "json"))]

    def opened(epoch: int) -> list[str]:
        return sorted(json.loads(b.seedship("point", "open", plugged.id, "--point", epoch, "-o", "json"))["sockets"])

    before = max(epoch for epoch in points if epoch <= had)
    assert opened(before) == ["vda", "vdb", "vdc"]
    assert opened(max(points)) == ["vda", "vdb"]
    b.seedship("point", "close", plugged.id)
    a.kill_daemon()
    virsh(plugged, "destroy", plugged.plan.name)
    b.seedship("replication", "failover", plugged.id, "--point", before, "--confirm-source-down", plugged.plan.name)
    plugged.there.more(5)
    assert plugged.there.bad() == []
    assert [Path(path).name for path in disk_paths(plugged, b)] == ["vda.qcow2", "vdb.raw", "vdc.qcow2"]
    a.start_daemon()


@pytest.mark.slow
@pytest.mark.parametrize("way", [("--capture", "child-disk"), ("--mirror", "async")], ids=["child-disk", "mirror"])
@pytest.mark.remedy(
    "service.settings._insist_detached: seedship replication set … --mirror off",
    "workflows.source.snapshots.shape._gone: seedship replication set … --leave-out …",
)
def test_a_disk_is_left_out_whatever_tracks_changes(plugged, way):
    a, _ = plugged.lab.sites
    image = with_vdc(plugged, "raw", *way)
    if "--mirror" in way:  # QEMU keeps a disk that it mirrors.
        remedy = refused(a, "replication", "set", plugged.id, "--leave-out", "vdc").remedy
        (end, _) = re.findall(r"`([^`]+)`", remedy)
        order(plugged, end)
    detach(plugged)
    order(plugged, is_gone(plugged))
    at_destination(plugged, "vda", "vdb")
    plugged.until(a, "in-sync", patient=True)
    assert content(image)["disk"] == 2
    if "--mirror" in way:
        a.seedship("replication", "set", plugged.id, *way)
        plugged.until_tapped()
        plugged.here.more(5)
    finish(plugged)
    assert_whole(plugged.outcome())


@pytest.mark.slow
@pytest.mark.failure_mode(
    "A disk is detached, and another VM writes to its image before the replication is aborted",
    "Nothing is merged into that image; the remedy has a command that merges, and one that discards",
    "Nothing, until the operator decides",
)
def test_an_image_that_another_vm_writes_to_is_left_as_it_is(plugged):
    a, _ = plugged.lab.sites
    image = with_vdc(plugged, "raw")
    a.seedship("replication", "set", plugged.id, "--hold")
    overlay = next(path for path in disk_paths(plugged) if "vdc" in path)
    detach(plugged)
    subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 9 40M 64k", str(image)], check=True, capture_output=True)
    before = image.read_bytes()
    a.seedship("replication", "abort", plugged.id, "--no-wait")
    found: dict = {}

    def look() -> bool:
        found.update(plugged.show(a)["problem"] or {})
        return "was written by something else" in found.get("message", "")

    clock.wait_until(look, 120, "the refusal")
    assert image.read_bytes() == before
    assert a.outside(overlay).exists()
    assert plugged.running() == ["a"]
    _, discard, _ = re.findall(r"`([^`]+)`", found["remedy"])
    assert overlay in discard
    a.run("sh", "-c", discard)
    clock.wait_until(
        lambda: plugged.show(a)["state"] == "aborted" and plugged.show(a)["problem"] is None, 120, "aborted"
    )
    assert image.read_bytes() == before


@pytest.mark.slow
def test_a_disk_is_left_out_while_the_vm_is_off_and_comes_back_as_another(plugged):
    a, b = plugged.lab.sites
    image = with_vdc(plugged, "raw")
    virsh(plugged, "destroy", plugged.plan.name, "--graceful")
    virsh(plugged, "detach-disk", plugged.plan.name, "vdc", "--config")
    order(plugged, is_gone(plugged))
    at_destination(plugged, "vda", "vdb")
    virsh(plugged, "start", plugged.plan.name)
    plugged.here.more(5)
    plugged.until(a, "in-sync", patient=True)
    a.seedship("replication", "set", plugged.id, "--leave-out", "")
    virsh(
        plugged, "attach-disk", plugged.plan.name, image, "vdc", "--subdriver", "raw", "--targetbus", "virtio", "--live",
        "--persistent",
    )  # fmt: skip
    at_destination(plugged, "vda", "vdb", "vdc")
    plugged.until(a, "in-sync", patient=True)
    assert same(plugged)
    finish(plugged)
    assert [Path(path).name for path in disk_paths(plugged, b)] == ["vda.qcow2", "vdb.raw", "vdc-3.raw"]
    assert_whole(plugged.outcome())
