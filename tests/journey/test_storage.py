# SPDX-License-Identifier: Apache-2.0
"""VMs as people have them: old images, images of other programs; off, paused, with snapshots and checkpoints."""

import os
import re
import shlex
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path

import pytest

from seedship import clock
from seedship.errors import LabFailed
from seedship.lab import Guest, Journey, Lab, LabSite
from seedship.lab.place import CACHE
from seedship.lab.shell import run
from seedship.units import MiB
from support import again, assert_whole, disk_paths, events, finish, insist, plan, refused, same, sweep, virsh

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(600)]
PLAN = (("vda", "qcow2", 160 * MiB, 24 * MiB), ("vdb", "qcow2", 128 * MiB, 12 * MiB))
POOL = "it's a pool"


class Various(Guest):
    """vda is qcow2 of version 2; vdb is qcow2 on a vmdk; vdc is a raw volume of a pool."""

    def xml(self) -> str:
        text = super().xml()
        named = f"<source pool=\"{POOL}\" volume='vdc.raw'/>"
        disk = f"<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none' discard='unmap'/><source file='{self.disk('vdc')}'/>"
        assert disk in text
        virsh = ("virsh", "-q", "-c", self.site.uri)
        run(*virsh, "pool-create-as", POOL, "dir", "--target", self.folder)
        return text.replace(
            disk, disk.replace("type='file'", "type='volume'").replace(f"<source file='{self.disk('vdc')}'/>", named)
        )

    def _create(self, target: str, image_format: str, size: int, filled: int) -> None:
        path = self.disk(target)
        if target == "vdc":
            super()._create(target, image_format, size, filled)
            return
        if target == "vda":
            run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", path, size)
            return
        below = self.folder / f"{target}.vmdk"
        content = self.folder / f"{target}.content"
        content.write_bytes(os.urandom(filled))
        run("qemu-img", "convert", "-q", "-f", "raw", "-O", "vmdk", content, below)
        content.unlink()
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "vmdk", path, size)


@pytest.mark.failure_mode(
    "A VM is off when its replication is created, and started while the seed is read; its disks are old or foreign images",
    "What was read while it was off is compared again; old images get overlays, images below others are merged into one",
    "nothing",
)
def test_old_images_those_of_other_programs_and_volumes_of_pools_travel(lab: Lab) -> None:
    journey = Journey(lab, plan(disks=(*PLAN, ("vdc", "raw", 96 * MiB, 8 * MiB))))
    journey.guest = Various(lab.a, journey.plan, CACHE)
    try:
        journey.start()
        virsh(journey, "destroy", journey.plan.name, "--graceful")
        journey.request(0, "--export-rate", "4M")
        journey.until(lab.a, "seeding")
        virsh(journey, "start", journey.plan.name)
        journey.here.more(5)
        journey.until(lab.a, "shipped", patient=True)
        journey.leave()
        journey.arrive()
        for site in lab.sites:
            journey.until(site, "in-sync", patient=True)
        assert same(journey)
        folder = Path(journey.show(lab.b)["folder"])
        assert sorted(path.name for path in folder.glob("vd*")) == ["vda.qcow2", "vdb.qcow2", "vdc.raw"]
        assert {"vm.off", "disk.compat", "disk.never-live"} <= codes(journey)
        insist(journey, "--mode", "cold")
        journey.there.more(10)
        assert_whole(journey.outcome())
        assert "compat: 0.10" in run("qemu-img", "info", journey.guest.disk("vda"))
    finally:
        sweep(journey)
        with suppress(LabFailed):
            virsh(journey, "pool-destroy", POOL)


def codes(journey: Journey) -> set[str]:
    """What preflight noted when the replication was requested."""
    (requested,) = events(journey, journey.lab.a, "requested")
    return {finding["code"] for finding in requested["findings"]}


@pytest.mark.slow
def test_a_vm_that_is_off_is_seeded_and_started_meanwhile(journey: Journey) -> None:
    """Its images are read as they are; what it writes once it runs belongs to the seed or to a later round."""
    a = journey.lab.a
    journey.start()
    virsh(journey, "destroy", journey.plan.name, "--graceful")
    journey.request(0, "--export-rate", "4M")
    assert "vm.off" in codes(journey)
    journey.until(a, "seeding")
    virsh(journey, "start", journey.plan.name)
    journey.here.more(5)
    journey.until(a, "shipped", patient=True)
    journey.leave()
    journey.arrive()
    for site in journey.lab.sites:
        journey.until(site, "in-sync", patient=True)
    assert same(journey)
    finish(journey)
    assert_whole(journey.outcome())


@pytest.mark.slow
def test_a_vm_stays_off_until_it_is_needed(journey: Journey) -> None:
    """Seeded and in sync without ever having run here; a cold switchover starts it at the destination."""
    journey.start()
    virsh(journey, "destroy", journey.plan.name, "--graceful")
    journey.request()
    journey.until(journey.lab.a, "shipped")
    journey.leave()
    journey.arrive()
    for site in journey.lab.sites:
        journey.until(site, "in-sync")
    assert same(journey)
    insist(journey, "--mode", "cold")
    journey.there.more(10)
    assert journey.running() == ["b"]
    assert_whole(journey.outcome())


@pytest.mark.slow
@pytest.mark.remedy(
    "errors.hypervisor.VmSnapshots: virsh snapshot-list … --name | grep . | xargs -d '\\n' -n 1 virsh snapshot-delete … --metadata --snapshotname"
)
def test_a_vm_with_snapshots_and_checkpoints_of_others(lab: Lab, tmp_path: Path) -> None:
    """Replicated while it is paused, as it is now; the snapshots and the other tool's chain stay, up to the move."""
    journey = Journey(lab, plan(disks=PLAN))
    name = journey.plan.name
    try:
        journey.start()
        virsh(journey, "destroy", name, "--graceful")
        virsh(journey, "snapshot-create-as", name, "inside")
        virsh(journey, "start", name)
        journey.here.more(5)
        virsh(journey, "checkpoint-create-as", name, "theirs-1")
        virsh(journey, "snapshot-create-as", name, "outside", "--disk-only", "--atomic")
        journey.here.more(5)
        virsh(journey, "suspend", name)
        journey.request()
        assert {"vm.paused", "vm.snapshots", "vm.foreign-checkpoints"} <= codes(journey)
        journey.until(lab.a, "shipped")
        virsh(journey, "resume", name)
        journey.leave()
        journey.arrive()
        for site in lab.sites:
            journey.until(site, "in-sync")
        assert same(journey)
        folder = Path(journey.show(lab.b)["folder"])
        assert sorted(path.name for path in folder.glob("vd*")) == ["vda.qcow2", "vdb.qcow2"]
        assert set(virsh(journey, "snapshot-list", name, "--name").split()) == {"inside", "outside"}
        _incremental(journey, tmp_path)
        journey.switch_over()
        clock.wait_until(lambda: events(journey, lab.a, "switchover-undone") != [], 60, "the refusal")
        (refusal,) = events(journey, lab.a, "switchover-undone")
        assert refusal["code"] == "hypervisor.snapshots"
        for command in re.findall(r"`([^`]+)`", refusal["remedy"]):
            lab.a.run("sh", "-ec", command)
        finish(journey)
        outcome = journey.outcome()
        outcome.left = [left for left in outcome.left if "theirs-1" not in left]  # the other tool's bitmaps
        assert_whole(outcome)
    finally:
        sweep(journey)


def _incremental(journey: Journey, folder: Path) -> None:
    """The other tool's next backup: QEMU and libvirt find its bitmap whole."""
    order = folder / "backup.xml"
    disks = "".join(
        f"<disk name='{target}' type='file'><target file='{journey.guest.folder}/{target}.backup'/></disk>"
        for target in ("vda", "vdb")
    )
    order.write_text(f"<domainbackup><incremental>theirs-1</incremental><disks>{disks}</disks></domainbackup>")
    again("their backup", "backup-begin", journey.plan.name, order, made=journey)
    clock.wait_until(lambda: "Backup" not in virsh(journey, "domjobinfo", journey.plan.name), 60, "their backup")
    written = journey.guest.folder / "vda.backup"
    assert written.stat().st_blocks
    for target in ("vda", "vdb"):
        (journey.guest.folder / f"{target}.backup").unlink()


def _changed(journey: Journey, *words: object) -> None:
    """Have virsh change the definition while the VM is off."""
    virsh(journey, "destroy", journey.plan.name, "--graceful")
    virsh(journey, *words, "--config")
    virsh(journey, "start", journey.plan.name)
    journey.here.more(3)


def _attach(journey: Journey, target: str, *options: str) -> None:
    """Give the VM a further disk, which the lab's writer does not use."""
    image = journey.guest.folder / f"{target}.raw"
    run("qemu-img", "create", "-q", "-f", "raw", image, 16 * MiB)
    os.chown(image, *journey.lab.a.owner)
    words = ["attach-disk", journey.plan.name, image, target, "--targetbus", "scsi", "--subdriver", "raw"]
    _changed(journey, *words, *options)


@pytest.mark.slow
@pytest.mark.failure_mode(
    "A VM has disks that are not to be replicated: shared, or added later",
    "With --leave-out they block nothing; while one is attached a switchover must be cold, and says so before it begins",
    "the disks that are left out, at the destination",
)
@pytest.mark.remedy("workflows.source.snapshots.shape.problem_of: seedship replication set … --leave-out …")
def test_disks_are_left_out_by_choice(journey: Journey) -> None:
    a, b = journey.lab.sites
    name = journey.plan.name
    journey.start()
    _attach(journey, "sdc", "--mode", "shareable")
    said = refused(a, "replication", "create", name, "--to", "b")
    assert "sdc is shared with other VMs" in said.message
    assert "--leave-out sdc" in said.remedy
    journey.request(0, "--leave-out", "sdc")
    assert "disk.left-out" in codes(journey)
    journey.until(a, "shipped")
    journey.leave()
    journey.arrive()
    for site in journey.lab.sites:
        journey.until(site, "in-sync")
    _attach(journey, "sdd", "--mode", "shareable")
    clock.wait_until(lambda: (journey.show(a)["problem"] or {}).get("code") == "hypervisor.disks-changed", 60, "sdd")
    (command,) = re.findall(r"`(seedship replication set [^`]+)`", journey.show(a)["problem"]["remedy"])
    assert shlex.split(command)[-1] == "sdc,sdd"
    a.seedship(*shlex.split(command)[1:])
    clock.wait_until(lambda: journey.show(a)["problem"] is None, 60, "no problem")
    journey.until(a, "in-sync", patient=True)
    journey.switch_over()
    clock.wait_until(lambda: events(journey, a, "switchover-undone") != [], 60, "the refusal")
    (refusal,) = events(journey, a, "switchover-undone")
    assert "sdc, sdd" in refusal["why"]
    assert "--mode cold" in refusal["remedy"]
    _changed(journey, "detach-disk", name, "sdd")
    insist(journey, "--mode", "cold")
    journey.there.more(10)
    assert [Path(path).name for path in disk_paths(journey, b)] == ["vda.qcow2", "vdb.raw"]
    assert_whole(journey.outcome())


class WithReadOnly(Guest):
    """It has a read-only disk with sectors of 4096 bytes, which the lab's writer does not use."""

    @property
    def image(self) -> Path:
        return self.folder / "sdc.raw"

    def xml(self) -> str:
        self.image.write_bytes(os.urandom(16 * MiB))
        os.chown(self.image, *self.site.owner)
        disk = (
            f"<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none' io='native'/><source"
            f" file='{self.image}'/><blockio logical_block_size='4096' physical_block_size='4096'/><target dev='sdc'"
            " bus='scsi'/><readonly/><serial>TOOLS 7</serial></disk>"
        )
        return super().xml().replace("<controller type='usb'", f"{disk}<controller type='usb'", 1)


@pytest.mark.slow
@pytest.mark.failure_mode(
    "A VM has a read-only disk, and somebody replaces its content while the VM runs",
    "It is read once, and compared after the change; nothing of seedship is put above it; it arrives read-only",
    "nothing",
)
@pytest.mark.parametrize("options", [(), ("--capture", "child-disk"), ("--mirror", "async")], ids=" ".join)
def test_a_read_only_disk_is_copied_once(lab: Lab, options: tuple[str, ...]) -> None:
    a, b = lab.sites
    journey = Journey(lab, plan())
    journey.guest = guest = WithReadOnly(a, journey.plan, CACHE)
    try:
        journey.depart(0, *options)
        journey.arrive()
        for site in lab.sites:
            journey.until(site, "in-sync", patient=True)
        assert "disk.read-only" in codes(journey)
        if "--mirror" not in options:
            scans = sum(event["scanned"] for event in events(journey, a, "epoch-closed"))
            journey.until(a, rounds=journey.show(a)["rounds"] + 2, patient=True)
            assert sum(event["scanned"] for event in events(journey, a, "epoch-closed")) == scans
        assert str(guest.image) in disk_paths(journey)
        content = os.urandom(MiB)
        with guest.image.open("r+b") as file:
            file.write(content)
        insist(journey)
        journey.there.more(10)
        (path,) = [path for path in disk_paths(journey, b) if Path(path).name.startswith("sdc")]
        assert Path(path).read_bytes() == guest.image.read_bytes()
        assert guest.image.read_bytes()[:MiB] == content
        disks = ET.fromstring(virsh(journey, "dumpxml", journey.plan.name, site=b)).findall("devices/disk")
        (disk,) = [disk for disk in disks if disk.findtext("serial") == "TOOLS 7"]
        driver, sectors = disk.find("driver"), disk.find("blockio")
        assert disk.find("readonly") is not None
        assert driver is not None
        assert sectors is not None
        assert driver.get("io") == "native"
        assert sectors.attrib == {"logical_block_size": "4096", "physical_block_size": "4096"}
        assert_whole(journey.outcome())
    finally:
        sweep(journey)


@pytest.mark.slow
def test_a_read_only_disk_is_cloned_and_goes_cold(lab: Lab) -> None:
    b = lab.b
    journey = Journey(lab, plan())
    journey.guest = WithReadOnly(lab.a, journey.plan, CACHE)
    try:
        journey.travel()
        name = f"{journey.plan.name}-copy"
        b.seedship("clone", "create", journey.id, "--name", name)
        assert is_read_only(b, name)
        insist(journey, "--mode", "cold")
        journey.there.more(10)
        assert is_read_only(b, journey.plan.name)
    finally:
        sweep(journey)


def is_read_only(site: LabSite, name: str) -> bool:
    disks = ET.fromstring(run("virsh", "-q", "-c", site.uri, "dumpxml", name)).findall("devices/disk")
    (disk,) = [disk for disk in disks if disk.findtext("serial") == "TOOLS 7"]
    return disk.find("readonly") is not None and disk.find("source") is not None


class WithMedium(Guest):
    """It has a CD-ROM drive with a medium in it, as VMs of cloud images do, and an empty one."""

    def xml(self) -> str:
        medium = self.folder / "seed.iso"
        medium.write_bytes(bytes(MiB))
        os.chown(medium, *self.site.owner)
        full = f"<disk type='file' device='cdrom'><source file='{medium}'/><target dev='sda' bus='sata'/><readonly/></disk>"
        empty = "<disk type='file' device='cdrom'><target dev='sdb' bus='sata'/><readonly/></disk>"
        return super().xml().replace("<controller type='usb'", f"{full}{empty}<controller type='usb'", 1)


@pytest.mark.slow
def test_a_vm_goes_live_and_its_medium_stays(lab: Lab) -> None:
    """It is said at creation, with what to do; the drive is empty at the destination."""
    journey = Journey(lab, plan())
    journey.guest = WithMedium(lab.a, journey.plan, CACHE)
    try:
        journey.travel()
        assert "disk.medium" in codes(journey)
        finish(journey)
        drives = virsh(journey, "domblklist", journey.plan.name, site=lab.b).splitlines()
        assert {tuple(line.split()) for line in drives} >= {("sda", "-"), ("sdb", "-")}
        assert_whole(journey.outcome())
    finally:
        sweep(journey)
