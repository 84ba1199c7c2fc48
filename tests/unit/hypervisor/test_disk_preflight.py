# SPDX-License-Identifier: Apache-2.0
"""What is said about each kind of disk before anything is copied."""

import re
import shlex
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from seedship.hypervisor import (
    Disk,
    DiskAt,
    ImageLayer,
    Place,
    Vm,
    describe,
    leave_out,
    preflight,
    quiesce_findings,
    rebuild,
)
from seedship.model import PreflightFinding
from seedship.model.remote import StorageAccess
from seedship.units import MiB
from seedship.workflows.host import disks_of

UUID = "11111111-2222-3333-4444-555555555555"


def described(disk: str) -> Vm:
    return describe(
        f"<domain type='kvm'><name>web 1</name><uuid>{UUID}</uuid><memory unit='KiB'>1024</memory><vcpu>1</vcpu>"
        f"<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{disk}</devices></domain>"
    )


def blockers(disk: str) -> dict[str, PreflightFinding]:
    found = preflight(described(disk))
    return {finding.code: finding for finding in found if finding.blocks and finding.code.startswith("disk.")}


def commands(finding: PreflightFinding) -> list[str]:
    return re.findall(r"`([^`]+)`", finding.clear)


@pytest.mark.parametrize(
    ("element", "code"),
    [("<transient/>", "disk.transient"), ("<shareable/>", "disk.shareable")],
)
def test_a_disk_whose_changes_cannot_be_tracked_is_refused_at_once(element: str, code: str) -> None:
    """libvirt accepts it, and each cut would fail."""
    disk = (
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/x'/>"
        f"<target dev='vdb' bus='virtio'/>{element}</disk>"
    )
    finding = blockers(disk)[code]
    assert element in finding.clear
    assert commands(finding)[0] == "virsh edit 'web 1'"


def test_encryption_of_an_image_below_is_encryption() -> None:
    """A cut of the disk is plaintext, and would arrive as such."""
    secret = (
        "<encryption format='luks'><secret type='passphrase' uuid='11111111-2222-3333-4444-555555555556'/></encryption>"
    )
    below = f"<backingStore type='file'><format type='raw'/><source file='/base'>{secret}</source></backingStore>"
    assert "disk.encrypted" in blockers(PLAIN.replace("</disk>", f"{below}</disk>"))


def test_a_read_only_disk_is_carried_unless_the_vm_has_no_other() -> None:
    """libvirt refuses a checkpoint of one, and nothing but somebody else's writes can change it."""
    vm = replace(
        described(PLAIN + PLAIN.replace("vda", "vdb").replace("</disk>", "<readonly/></disk>")), state="running"
    )
    findings = {finding.code: finding for finding in preflight(vm)}
    assert not findings["disk.read-only"].blocks
    assert "vm.no-disk" not in findings
    assert [spec.target for spec in disks_of(vm)] == ["vda", "vdb"]
    alone = replace(vm, disks=vm.disks[1:])
    assert "writes to none" in next(finding.what for finding in preflight(alone) if finding.code == "vm.no-disk")


@pytest.mark.parametrize(
    "level", ["{}<backingStore/>", "<source file='/top'/><backingStore type='file'>{}</backingStore>"]
)
def test_a_part_of_a_file_is_refused(level: str) -> None:
    """Offline, the whole file would be taken for the disk."""
    part = "<source file='/x'><slices><slice type='storage' offset='4096' size='1048576'/></slices></source>"
    disk = f"<disk type='file'><driver type='raw'/>{level.format(part)}<target dev='vdb' bus='virtio'/></disk>"
    finding = blockers(disk)["disk.slice"]
    assert commands(finding)[0].startswith("virsh blockcopy 'web 1' vdb ")


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        (
            "<source protocol='iscsi' name='iqn.2026-01.com.example:disks/2'><host name='192.0.2.7' port='3261'"
            " transport='rdma'/></source>",
            [
                "iscsiadm --mode node --targetname iqn.2026-01.com.example:disks --portal 192.0.2.7:3261 --login",
                "dev='/dev/disk/by-path/ip-192.0.2.7:3261-iscsi-iqn.2026-01.com.example:disks-lun-2'",
                "over the transport rdma",
            ],
        ),
        (
            "<source protocol='iscsi' name='iqn.2026-01.com.example:disks'><host name='192.0.2.7' transport='rdma'/></source>",
            ["dev='/dev/disk/by-path/ip-192.0.2.7:3260-iscsi-iqn.2026-01.com.example:disks-lun-0'"],
        ),
        ("<source protocol='gluster' name='x/y'><host name='192.0.2.7' port='1'/></source>", ["(gluster)"]),
        ("<source protocol='nbd' name='x' tls='yes'><host name='192.0.2.7'/></source>", ["(nbd, over TLS"]),
        (
            "<source protocol='rbd' name='vms/web 1'><host name='ceph1' port='6789'/></source>",
            ["rbd map 'vms/web 1'", "dev='/dev/rbd/vms/web 1'"],
        ),
        ("<source protocol='iscsi' name='/1'><host name='192.0.2.7'/></source>", ["under an incomplete name"]),
        ("<source protocol='nbd' name='a%41'><host name='192.0.2.7'/></source>", ["(nbd, under a name or at a place"]),
        (
            "<source protocol='nbd' name='x'><host transport='unix' socket='/run/a+b.sock'/></source>",
            ["(nbd, under a name or at a place with unusual characters)"],
        ),
        ("<source protocol='nbd' name='x'><host name='unix'/></source>", ["(nbd, "]),
        ("<source protocol='nbd' name='x'><host name='a?b'/></source>", ["at a place with unusual characters"]),
        (
            "<source protocol='iscsi' name='iqn.x:d/1'><host name='a#b'/></source>",
            ["at a place with unusual characters"],
        ),
    ],
)
def test_a_network_disk_that_seedship_does_not_open_is_refused_with_the_way_to_make_it_a_block_device(
    source: str, wanted: list[str]
) -> None:
    finding = blockers(
        f"<disk type='network' device='disk'><driver name='qemu' type='raw'/>{source}<target dev='vdb' bus='virtio'/></disk>"
    )["disk.kind"]
    for words in wanted:
        assert words in finding.clear + finding.what
    for command in commands(finding):
        shlex.split(command)
    assert commands(finding)[-1] == "virsh detach-disk 'web 1' vdb --persistent"


OPENED = [
    ("iscsi", "<source protocol='iscsi' name='iqn.2026-01.com.example:d/2'><host name='192.0.2.7'/></source>",
     "iscsi:192.0.2.7:3260/iqn.2026-01.com.example:d/2"),
    ("iscsi", "<source protocol='iscsi' name='iqn.2026-01.com.example:d'><host name='Store.Example.org' port='3260'/></source>",
     "iscsi:store.example.org:3260/iqn.2026-01.com.example:d/0"),
    ("nbd", "<source protocol='nbd' name='x'><host transport='unix' socket='/run/x.sock'/></source>",
     "nbd:unix:%2Frun%2Fx.sock/x"),
]  # fmt: skip


def _network(source: str, *, kind: str = "raw", more: str = "") -> str:
    return (
        f"<disk type='network' device='disk'><driver name='qemu' type='{kind}'/>{source}"
        f"<target dev='vdb' bus='virtio'/>{more}</disk>"
    )


@pytest.mark.parametrize(("protocol", "source", "name"), OPENED)
def test_a_network_disk_is_known_by_its_place(protocol: str, source: str, name: str) -> None:
    found = blockers(_network(source))
    assert not {code for code in found if code.startswith("disk.remote") or code == "disk.kind"}
    disk = describe(f"<domain><devices>{_network(source)}</devices></domain>").disk("vdb")
    assert disk is not None
    assert (disk.path, disk.format) == (name, "raw")


@pytest.mark.parametrize(("protocol", "source", "name"), OPENED)
@pytest.mark.parametrize(
    ("kind", "more", "code"),
    [("qcow2", "", "disk.remote-format"), ("raw", "<readonly/>", "disk.remote-read-only"), ("raw", "<encryption format='luks'/>", "disk.encrypted")],
)  # fmt: skip
def test_what_is_not_carried_of_a_network_disk(
    protocol: str, source: str, name: str, kind: str, more: str, code: str
) -> None:
    finding = blockers(_network(source, kind=kind, more=more))[code]
    for command in commands(finding):
        shlex.split(command)
        assert name not in command


def test_how_the_host_logs_in_is_read_wherever_libvirt_writes_it() -> None:
    auth = "<auth username='joe'><secret type='{}' {}/></auth>"
    host, uuid = "<host name='h'/>", "uuid='00000000-0000-0000-0000-000000000001'"
    first = f"{auth.format('iscsi', uuid)}<source protocol='iscsi' name='iqn.x:y/1'>{host}<initiator><iqn name='iqn.me'/></initiator></source>"
    below = (
        f"<source file='/o'/><backingStore type='network'><format type='raw'/><source protocol='iscsi' name='p/1'>{host}"
        + auth.format("iscsi", "usage='mine'")
        + "</source></backingStore>"
    )
    xml = f"<domain><devices>{_network(first)}<disk type='file'>{below}<target dev='vdc'/></disk></devices></domain>"
    vm = describe(xml)
    one, two = vm.disk("vdb"), vm.disk("vdc")
    assert one is not None
    assert two is not None
    assert one.chain[0].access == StorageAccess("joe", "00000000-0000-0000-0000-000000000001", "iqn.me")
    assert two.chain[1].access == StorageAccess("joe", "iscsi:mine", "iqn.2008-11.org.linux-kvm:")


@pytest.mark.parametrize(
    ("chain", "replica"),
    [
        (("qcow2", "vmdk"), "qcow2"),
        (("qcow2", "vpc"), "qcow2"),
        (("qcow2", "qcow2", "vdi"), "qcow2"),
        (("qcow2", ""), "qcow2"),
        (("qcow2", "raw"), "raw"),
        (("raw",), "raw"),
        (("qcow2",), "qcow2"),
    ],
)
def test_a_replica_is_qcow2_or_raw_whatever_the_images_below_are(chain: tuple[str, ...], replica: str) -> None:
    layers = tuple(ImageLayer(f"/{number}", name) for number, name in enumerate(chain))
    vm = Vm(UUID, "web1", (Disk("vda", "disk", "file", "virtio", layers, size=MiB),), "kvm", "pc", "", 0)
    assert [spec.format for spec in disks_of(vm)] == [replica]


CDROM = (
    "<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='/iso/seed 1.iso'/>"
    "<target dev='sda' bus='sata'/><readonly/></disk>"
)
FLOPPY = CDROM.replace("cdrom", "floppy").replace("sda", "fda").replace("sata", "fdc").replace("<readonly/>", "")
PLAIN = "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/x'/><target dev='vda' bus='virtio'/></disk>"


@pytest.mark.parametrize(
    ("state", "persistent", "flags"),
    [("running", True, "--live --config"), ("shut-off", True, "--config"), ("running", False, "--live")],
)
def test_a_medium_is_a_note_with_the_command_that_ejects_it(state: str, persistent: bool, flags: str) -> None:
    vm = replace(described(PLAIN + CDROM), state=state, persistent=persistent)  # type: ignore[arg-type]
    (note,) = [finding for finding in preflight(vm) if finding.code == "disk.medium"]
    assert not note.blocks
    assert commands(note)[0] == f"virsh change-media 'web 1' sda --eject --force {flags}"
    assert '[allow.media] "/iso/seed 1.iso" = "PATH"' in note.clear


def test_a_medium_arrives_where_the_destination_maps_it() -> None:
    text = described(PLAIN + CDROM + FLOPPY).xml
    disks = {"vda": DiskAt("/ours.qcow2", "qcow2")}
    mapped, dropped = rebuild(text, Place(disks, media={"/iso/seed 1.iso": "/there/seed.iso"}), expected_uuid=UUID)
    by_target = {disk.target: disk for disk in describe(mapped).disks}
    assert by_target["sda"].path == "/there/seed.iso"
    assert by_target["sda"].read_only
    assert by_target["fda"].path == ""
    assert [what for what in dropped if "in the" in what] == ["/iso/seed 1.iso in the floppy drive fda"]
    empty, dropped = rebuild(text, Place(disks), expected_uuid=UUID)
    assert describe(empty).disk("sda").path == ""
    assert "/iso/seed 1.iso in the cdrom drive sda" in dropped


def test_what_a_guest_knows_its_disk_by_stays() -> None:
    """Serial, WWN, address, vendor, product, sector sizes and the name, also beyond vdz."""
    disk = (
        "<disk type='block' device='disk'><driver name='qemu' type='raw' discard='unmap' queues='4'/>"
        "<source dev='/dev/vg/data'/><blockio logical_block_size='4096' physical_block_size='4096'/>"
        "<target dev='{}' bus='scsi' rotation_rate='1'/><serial>WD-1234 5678</serial><wwn>5000c50015ea71aa</wwn>"
        "<vendor>SEAGATE</vendor><product>ST3146707LC</product>"
        "<address type='drive' controller='0' bus='0' target='0' unit='{}'/></disk>"
    )
    names = ("sda", "sdz", "sdaa", "vdaa", "vdzz", "xvdb", "hdc")
    text = described("".join(disk.format(name, number) for number, name in enumerate(names))).xml
    rebuilt, _ = rebuild(text, Place({name: DiskAt(f"/r/{name}.raw", "raw") for name in names}), expected_uuid=UUID)

    def seen(xml: str) -> list[str]:
        disks = ET.fromstring(xml).findall("devices/disk")
        kept = [[part for part in disk if part.tag not in ("source", "driver")] for disk in disks]
        return [b"".join(sorted(ET.tostring(part) for part in parts)).decode() for parts in kept]

    assert seen(rebuilt) == seen(text)
    assert [disk.path for disk in describe(rebuilt).disks] == [f"/r/{name}.raw" for name in names]


def test_a_disk_that_is_left_out_blocks_nothing_and_is_not_in_the_definition() -> None:
    shared = PLAIN.replace("vda", "vdb").replace("</disk>", "<shareable/></disk>")
    vm, findings = leave_out(described(PLAIN + shared), {"vdb", "vdc"})
    assert [disk.target for disk in vm.disks] == ["vda"]
    assert {finding.code for finding in preflight(vm) if finding.code.startswith("disk.")} <= {"disk.size"}
    assert "vdb" not in vm.xml
    by_code = {finding.code: finding for finding in findings}
    assert by_code["disk.leave-out"].blocks  # there is no vdc
    assert not by_code["disk.left-out"].blocks
    assert commands(by_code["disk.left-out"]) == ["virsh detach-disk 'web 1' vdb --persistent"]
    rebuilt, dropped = rebuild(vm.xml, Place({"vda": DiskAt("/r/vda.qcow2", "qcow2")}), expected_uuid=UUID)
    assert "vdb" not in rebuilt
    assert dropped == []


def test_each_disk_that_blocks_can_be_left_out() -> None:
    shared = PLAIN.replace("</disk>", "<shareable/></disk>")
    assert blockers(shared)["disk.shareable"].clear.endswith("--leave-out vda")


def test_a_vm_without_a_channel_for_an_agent_cannot_be_frozen() -> None:
    channel = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
    assert quiesce_findings(described(PLAIN + channel)) == []
    both = quiesce_findings(described(PLAIN + channel), mirrored=True, with_memory=True)
    assert [(finding.code, finding.blocks) for finding in both] == [("vm.quiesce", False)] * 2
    assert ["--mirror" in both[0].what, "--memory-every" in both[1].what] == [True, True]
    (finding,) = quiesce_findings(described(PLAIN))
    assert (finding.code, finding.blocks) == ("vm.agent", False)
    assert channel in finding.clear
