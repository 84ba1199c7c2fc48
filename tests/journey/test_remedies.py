# SPDX-License-Identifier: Apache-2.0
"""What preflight says to do works: each command is run as it is printed, in real libvirt, and the finding is gone."""

import uuid
from collections.abc import Callable, Iterator

import libvirt
import msgspec
import pytest

from remedied import NAME, Subject, commands, shell
from seedship import clock, config
from seedship.client import SiteClient
from seedship.hypervisor import offered
from seedship.lab import Guest, Journey, Lab
from seedship.lab.place import CACHE

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(600)]
CDROM = (
    "<disk type='file' device='cdrom'><source file='{}/medium.iso'/><target dev='sda' bus='sata'/><readonly/></disk>"
)
SECOND = "<disk type='network' device='disk'><source protocol='gluster' name='x/y'><host name='127.0.0.1' port='1'/></source><target dev='vdb' bus='virtio'/></disk>"


@pytest.fixture
def subject(whole_lab: Lab) -> Iterator[Subject]:
    made = Subject(whole_lab.a)
    yield made
    made.end()


def off(of: Subject) -> None:
    of.define(start=False)


def paused(of: Subject) -> None:
    of.define()
    with of.host.calling(of.uuid) as domain:
        domain.suspend()


def transient(of: Subject) -> None:
    with of.host.calling() as connection:
        connection.createXML(of.xml())


def snapshots(of: Subject) -> None:
    of.define()
    # libvirt 10 and newer make the name a part of the name of a job of QEMU's, which has rules of its own.
    odd = of.host.version()[0] < 10_000_000
    with of.host.calling(of.uuid) as domain:
        for name in ("before it's late", "$(later)") if odd else ("before-late", "later"):
            domain.snapshotCreateXML(f"<domainsnapshot><name>{name}</name></domainsnapshot>")


def medium(of: Subject) -> None:
    (of.folder / "medium.iso").write_bytes(bytes(1 << 20))
    of.define(CDROM.format(of.folder).replace("it's", "it&apos;s"))


def copied(of: Subject) -> None:
    of.define()
    with of.host.calling(of.uuid) as domain:
        target = f"<disk type='file'><source file=\"{of.folder}/copy\"/><driver type='qcow2'/></disk>"
        domain.blockCopy("vda", target, {}, libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)


def managed(of: Subject) -> None:
    of.define()
    with of.host.calling(of.uuid) as domain:
        domain.managedSave()


def foreign_base(of: Subject) -> None:
    base = of.folder / "base.vmdk"
    of.site.run("qemu-img", "create", "-q", "-f", "vmdk", base, "16M")
    (of.folder / "disk.qcow2").unlink()
    of.image("disk.qcow2", "-b", str(base), "-F", "vmdk")
    of.define()


def old(of: Subject) -> None:
    of.image("disk.qcow2", "-o", "compat=0.10")
    of.define()


def elsewhere(of: Subject) -> None:
    of.define(SECOND, start=False)


CASES: dict[str, tuple[Callable[[Subject], None], Callable[[list[str]], list[str]]]] = {
    "vm.off": (off, lambda words: words),
    "vm.paused": (paused, lambda words: words),
    "vm.transient": (transient, lambda words: words),
    "vm.snapshots": (snapshots, lambda words: words),
    "disk.medium": (medium, lambda words: words[:1]),
    "disk.job": (copied, lambda words: words),  # the first looks at it, the second ends it
    "vm.managed-save": (managed, lambda words: words[:1]),
    "vm.managed-save, discarded": (managed, lambda words: words[1:]),
    "disk.never-live": (foreign_base, lambda words: words),
    "disk.kind": (elsewhere, lambda words: words[-1:]),  # it is off, and its server is gone: a copy is not possible
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.remedy(
    "hypervisor.preflight._state_of: virsh start …",
    "hypervisor.preflight._state_of: virsh resume …",
    "hypervisor.preflight._whole: virsh dumpxml --inactive … | virsh define /dev/stdin",
    "hypervisor.preflight._whole: virsh snapshot-list … --name | grep . | xargs -d '\\n' -n 1 virsh snapshot-delete … --metadata --snapshotname",
    "hypervisor.disk_preflight._medium: virsh change-media … … --eject --force …",
    "hypervisor.disk_preflight._disk: virsh blockjob … … --abort",
    "hypervisor.preflight._whole: virsh start …",
    "hypervisor.preflight._whole: virsh managedsave-remove …",
    "hypervisor.disk_preflight._disk: virsh blockpull … … --wait",
    "errors.quoting.virsh_detach: virsh detach-disk … … --persistent",
)
def test_a_finding_at_the_source_is_cleared_by_its_commands(subject: Subject, case: str) -> None:
    make, chosen = CASES[case]
    code = case.partition(",")[0]
    subject.image()
    make(subject)
    (finding,) = [finding for finding in subject.findings() if finding.code == code]
    for command in chosen(commands(finding.clear)):
        shell(subject.site, command)
    clock.wait_until(lambda: code not in {f.code for f in subject.findings()}, 30, f"{code} to be gone")


@pytest.mark.remedy("workflows.provisioning.preflight.image_findings: qemu-img amend -f qcow2 -o compat=1.1 …")
def test_an_image_of_version_2_keeps_no_bitmap_until_it_is_amended(subject: Subject) -> None:
    old(subject)
    checkpoint = "<domaincheckpoint><name>tool</name></domaincheckpoint>"
    with pytest.raises(Exception, match="qcow2 v2"), subject.host.calling(subject.uuid) as domain:
        domain.checkpointCreateXML(checkpoint)
    (finding,) = [finding for finding in subject.findings() if finding.code == "disk.compat"]
    assert not finding.blocks  # it gets an overlay
    (amend,) = commands(finding.clear)
    with subject.host.calling(subject.uuid) as domain:
        domain.destroy()
    shell(subject.site, amend)
    assert "disk.compat" not in {finding.code for finding in subject.findings()}
    with subject.host.calling(subject.uuid) as domain:
        domain.create()
        domain.checkpointCreateXML(checkpoint)


@pytest.mark.parametrize(
    ("devices", "code", "change"),
    [
        ("<shmem name='x'><model type='ivshmem-plain'/></shmem>", "vm.passthrough", "/<shmem/,/<.shmem>/d"),
        ("<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>", "vm.tpm",
         "/<tpm/,/<.tpm>/d"),
    ],
)  # fmt: skip
@pytest.mark.remedy(
    "hypervisor.refusals.edit: virsh edit …",
    "hypervisor.refusals.edit: virsh start …",
)
def test_what_is_edited_away_is_gone(subject: Subject, devices: str, code: str, change: str) -> None:
    subject.image()
    subject.define(devices, start=False)
    (finding,) = [finding for finding in subject.findings() if finding.code == code]
    edit, _, start = commands(finding.clear)
    shell(subject.site, edit, EDITOR=f"sed -i '{change}'")
    shell(subject.site, start)
    assert subject.codes() == set()


@pytest.mark.parametrize(
    ("code", "was", "now"),
    [
        ("there.machine", "machine='pc'", "machine='pc-q35-99.0'"),
        ("there.virtual", "type='qemu'", "type='kvm'"),
        ("there.cpu", "<devices>", "<cpu mode='custom'><model>Bogus</model></cpu><devices>"),
        ("there.arch", "arch='x86_64'", "arch='vax'"),
        ("there.libvirt", "<devices>", "<devices><sound model='bogus'/>"),
        ("there.host-memory", "'MiB'>32<", "'TiB'>90<"),
    ],
)
def test_what_libvirt_there_does_not_offer(subject: Subject, code: str, was: str, now: str) -> None:
    """Asked of the definition of a VM that is defined nowhere, with disks that are not there."""
    text = subject.xml()
    assert offered(subject.host, text) == []
    (finding,) = offered(subject.host, text.replace(was, now))
    assert (finding.code, finding.blocks) == (code, True)
    for command in commands(finding.clear):
        program = command.split()[0]
        if program in ("virsh", "apt", "systemctl"):
            assert program != "virsh" or NAME.split("'")[0] in command or "domcapabilities" in command
        else:
            subject.site.run("sh", "-c", f"{command} || [ {program} = virt-host-validate ]")
    assert offered(subject.host, text) == []


def test_all_that_libvirt_there_does_not_offer_is_named_at_once(subject: Subject) -> None:
    nic = "<interface type='network'><source network='it&apos;s'/></interface>"
    text = subject.xml(nic).replace("type='qemu'", "type='kvm'", 1).replace("machine='pc'", "machine='none-1'")
    text = text.replace("'MiB'>32<", "'TiB'>90<").replace("</os>", "<kernel>/no/kernel</kernel></os>")
    text = text.replace("<devices>", "<cpu mode='custom'><model>Bogus</model></cpu><devices>")
    assert {finding.code for finding in offered(subject.host, text)} == {
        "there.virtual",
        "there.machine",
        "there.cpu",
        "there.network",
        "there.host-memory",
        "there.file",
    }


NETWORK = "<network><name>in'ner</name><forward mode='bridge'/><bridge name='br7'/></network>"


@pytest.mark.remedy(
    "hypervisor.lacking._bridges: ip link add … type bridge && ip link set … up",
    "hypervisor.offered._networks: virsh net-define FILE",
    "hypervisor.offered._networks: virsh net-start …",
    "hypervisor.offered._networks: virsh net-autostart …",
)
def test_what_the_destination_would_refuse_is_cleared_by_its_commands(lab: Lab, journey: Journey) -> None:
    a, b = lab.sites
    guest = Guest(a, journey.plan, CACHE)
    guest.folder.mkdir(parents=True)
    for target, image_format, size, _ in journey.plan.disks:
        a.run("qemu-img", "create", "-q", "-f", image_format, guest.disk(target), size)
    nics = (
        "<interface type='network'><source network='lan'/></interface>"
        "<interface type='bridge'><source bridge='br0'/></interface>"
    )
    text = guest.xml().replace("<memballoon model='none'/>", f"{nics}<memballoon model='none'/>")
    memory = f"<memory unit='MiB'>{journey.plan.memory_mib}</memory>"
    assert memory in text
    for site, written in (
        (a, text.replace(memory, "<memory unit='TiB'>90</memory>")),
        (b, guest.xml().replace(journey.plan.uuid, str(uuid.uuid4()))),
    ):
        path = site.storage / "definition.xml"
        path.write_text(written)
        site.run("virsh", "define", path)
    before = config.load(b.data)
    allow = msgspec.structs.replace(
        before.allow, networks={"network:lan": "network:in'ner", "bridge:br0": "bridge:br7"}
    )
    config.save(b.data, msgspec.structs.replace(before, allow=allow))
    b.kill_daemon()
    b.start_daemon()

    def blockers() -> dict[str, list[str]]:
        with SiteClient(a.data) as client:
            found = client.get("vms", journey.plan.name, "check", peer="b")["findings"]
        return {f["code"]: commands(f["clear"]) for f in found if f["blocks"]}

    try:
        named = blockers()
        assert set(named) == {
            "there.network",
            "there.bridge",
            "there.host-memory",
            "there.exists",
        }
        network = b.storage / "network.xml"
        network.write_text(NETWORK)
        make, up = named["there.bridge"][0], named["there.network"]
        shell(b, make)
        for command in up[:2]:
            shell(b, command.replace("FILE", str(network)))
        shell(b, named["there.exists"][0].replace("NEW-NAME", f"{journey.plan.name}-old"))
        shell(a, named["there.host-memory"][0], EDITOR="sed -i '/<memory /s/>[0-9]*</>98304</'")
        assert set(blockers()) == set()
        b.run("virsh", "net-destroy", "in'ner")
        for command in blockers()["there.network"]:
            shell(b, command)
        assert set(blockers()) == set()
    finally:
        config.save(b.data, before)
        b.kill_daemon()
        b.start_daemon()
        shell(b, 'virsh net-destroy "in\'ner" || true; virsh net-undefine "in\'ner" || true')
        shell(b, f"virsh undefine {journey.plan.name}-old || virsh undefine {journey.plan.name}")
        shell(b, "ip link delete br7 || true")
