# SPDX-License-Identifier: Apache-2.0
"""Further remedies, each run as it is printed, in real libvirt: VMs that are in the way, jobs, images, pools, filters."""

import uuid
from collections.abc import Callable

import libvirt
import pytest

from remedied import NAME, Subject, commands, shell
from seedship import clock, hypervisor
from seedship.hypervisor import refusals
from seedship.lab import Lab
from seedship.lab.shell import run
from seedship.workflows.host import with_chains
from seedship.workflows.provisioning import preflight

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(600)]
OTHER = str(uuid.uuid4())
KEPT = libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA


def nothing(_of: Subject) -> None:
    pass


def snapshot(of: Subject) -> None:
    with of.host.calling(of.uuid) as domain:
        domain.snapshotCreateXML("<domainsnapshot><name>it's before</name></domainsnapshot>")


def checkpoint(of: Subject) -> None:
    with of.host.calling(of.uuid) as domain:
        domain.create()
        domain.checkpointCreateXML("<domaincheckpoint><name>theirs</name></domaincheckpoint>")
        domain.destroy()


def saved(of: Subject) -> None:
    with of.host.calling(of.uuid) as domain:
        domain.create()
        domain.managedSave()


@pytest.mark.parametrize("has", [nothing, snapshot, checkpoint, saved])
@pytest.mark.parametrize("kind", ["name", "UUID"])
@pytest.mark.remedy(
    "workflows.provisioning.preflight.name_findings: virsh domrename … NEW-NAME",
    "workflows.provisioning.preflight.name_findings: virsh undefine … …",
)
def test_a_vm_that_is_in_the_way_there_is_put_out_of_it(
    subject: Subject, kind: str, has: Callable[[Subject], None]
) -> None:
    """By its name: renamed. By its UUID: removed, whatever libvirt keeps of it, and its disks stay."""
    subject.define(start=False)
    has(subject)
    asked = (NAME, OTHER) if kind == "name" else ("another", subject.uuid)
    (finding,) = preflight.name_findings(subject.host, *asked)
    assert finding.code == "there.exists"
    for command in commands(finding.clear):
        shell(subject.site, command.replace("NEW-NAME", '"it\'s renamed"'))
    try:
        assert preflight.name_findings(subject.host, *asked) == []
        assert (subject.folder / "disk.qcow2").exists()
    finally:
        with subject.host.calling() as connection:
            for domain in connection.listAllDomains():
                if domain.name() == "it's renamed":
                    domain.undefineFlags(KEPT)


def codes(of: Subject) -> set[str]:
    return {finding.code for finding in of.findings()}


@pytest.mark.remedy("hypervisor.preflight.preflight: virsh attach-disk … PATH vda --subdriver qcow2 --persistent")
def test_a_vm_without_a_disk_gets_one(subject: Subject) -> None:
    text = subject.xml()
    disk = text[text.index("<disk") : text.index("</disk>") + 7]
    with subject.host.calling() as connection:
        connection.defineXML(text.replace(disk, ""))
    (finding,) = [finding for finding in subject.findings() if finding.code == "vm.no-disk"]
    (attach,) = commands(finding.clear)
    shell(subject.site, attach.replace("PATH", f'"{subject.folder}/disk.qcow2"'))
    assert "vm.no-disk" not in codes(subject)


@pytest.mark.remedy("hypervisor.preflight._whole: virsh domjobabort …")
def test_a_job_of_another_tool_is_seen_and_ended(subject: Subject) -> None:
    subject.define()
    with subject.host.calling(subject.uuid) as domain:
        domain.suspend()
        server = f'<server transport="unix" socket="{subject.site.state}/theirs.sock"/>'
        domain.backupBegin(f'<domainbackup mode="pull">{server}</domainbackup>', None)
    (finding,) = [finding for finding in subject.findings() if finding.code == "vm.job"]
    look, end = commands(finding.clear)
    assert "Backup" in shell(subject.site, look)
    shell(subject.site, end)
    clock.wait_until(lambda: "vm.job" not in codes(subject), 30, "the job's end")


def test_an_image_that_is_missing_is_named(subject: Subject) -> None:
    base = subject.folder / "it's the base"
    (subject.folder / "disk.qcow2").rename(base)
    subject.image("disk.qcow2", "-b", str(base), "-F", "qcow2")
    subject.define(start=False)
    base.rename(away := base.with_suffix(".away"))
    (finding,) = [finding for finding in subject.findings() if finding.code == "disk.chain-unreadable"]
    (see,) = commands(finding.clear)
    assert str(base) in shell(subject.site, f"{see} 2>&1 || true")
    away.rename(base)
    (subject.folder / "disk.qcow2").rename(away)
    (finding,) = [finding for finding in subject.findings() if finding.code == "disk.size"]
    (see,) = commands(finding.clear)
    assert f"{subject.folder}/disk.qcow2" in shell(subject.site, f"{see} 2>&1 || true")
    away.rename(subject.folder / "disk.qcow2")
    assert not {"disk.chain-unreadable", "disk.size"} & codes(subject)


@pytest.mark.remedy(
    "hypervisor.disk_preflight._disk: qemu-img convert -O qcow2 … …",
    "hypervisor.disk_preflight._disk: virsh edit …",
)
def test_an_image_of_another_format_is_converted(subject: Subject) -> None:
    subject.site.run("qemu-img", "create", "-q", "-f", "vmdk", subject.folder / "disk.vmdk", "16M")
    text = subject.xml().replace("disk.qcow2", "disk.vmdk").replace("type='qcow2'", "type='vmdk'")
    with subject.host.calling() as connection:
        connection.defineXML(text)
    (finding,) = [finding for finding in subject.findings() if finding.code == "disk.format"]
    convert, edit = commands(finding.clear)
    shell(subject.site, convert)
    change = "s/disk\\.vmdk/disk.vmdk.qcow2/; s/type=.vmdk./type=\\x27qcow2\\x27/"
    shell(subject.site, edit, EDITOR=f'sed -i "{change}"')
    assert subject.codes() == set()


@pytest.mark.remedy("hypervisor.disk_preflight._elsewhere: virsh pool-start …")
def test_a_pool_that_is_not_started_is_started(subject: Subject) -> None:
    pool = subject.folder.parent / "it's a pool.xml"
    pool.write_text(f'<pool type="dir"><name>it\'s a pool</name><target><path>{subject.folder}</path></target></pool>')
    virsh = ("virsh", "-q", "-c", subject.site.uri)
    run(*virsh, "pool-define", pool)
    try:
        text = subject.xml().replace("type='file' device", "type='volume' device")
        source = f'<source file="{subject.folder}/disk.qcow2"/>'
        assert source in text
        with subject.host.calling() as connection:
            connection.defineXML(text.replace(source, '<source pool="it\'s a pool" volume="disk.qcow2"/>'))
        (finding,) = [finding for finding in subject.findings() if finding.code == "disk.kind"]
        start, look = commands(finding.clear)[:2]
        shell(subject.site, start)
        assert "disk.qcow2" in shell(subject.site, look)
        assert "disk.kind" not in codes(subject)
    finally:
        run("sh", "-c", f'virsh -c "{subject.site.uri}" pool-destroy "it\'s a pool" || true')
        run(*virsh, "pool-undefine", "it's a pool")
        pool.unlink()


@pytest.mark.remedy("hypervisor.refusals.allow_filter: virsh nwfilter-define FILE")
def test_a_packet_filter_is_carried_by_its_commands(whole_lab: Lab) -> None:
    a, b = whole_lab.sites
    name = "a $filter; really"  # libvirt 9.0 writes the name of a filter between apostrophes, and cannot read one with them
    made = a.storage / "filter.xml"
    made.write_text(f'<filter name="{name}"><rule action="drop" direction="inout"/></filter>')
    run("virsh", "-q", "-c", a.uri, "nwfilter-define", made)
    try:
        define, dump, listing = commands(refusals.allow_filter("site.toml", name))[:3]
        file = b.storage / "filter.xml"
        file.write_text(shell(a, dump))
        shell(b, define.replace("FILE", str(file)))
        assert name in shell(b, listing.split(" (")[0])
    finally:
        for site in (a, b):
            run("virsh", "-q", "-c", site.uri, "nwfilter-undefine", name)


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.remedy("hypervisor.refusals.merging: virsh blockcommit … …")
def test_an_overlay_that_a_vm_still_uses_is_merged_and_nothing_else(subject: Subject, above: bool) -> None:
    """As ``doctor`` names it of an ended replication. The lowest image may be a template of other VMs."""
    template, overlay, theirs = (subject.folder / f"it's {name}" for name in ("a template", "ours.overlay", "theirs"))
    (subject.folder / "disk.qcow2").rename(template)
    disk = subject.image("disk.qcow2", "-b", str(template), "-F", "qcow2")
    for path, byte in ((template, 1), (disk, 2)):
        subject.site.run("qemu-io", "-c", f"write -P {byte} 0 64k", path)
    subject.define()
    before = template.read_bytes()
    for path in (overlay, theirs)[: 1 + above]:
        with subject.host.calling(subject.uuid) as domain:
            domain.snapshotCreateXML(
                f'<domainsnapshot><disks><disk name="vda"><source file="{path}"/></disk></disks></domainsnapshot>',
                libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA,
            )
    layers = chain(subject)
    assert layers == [*map(str, [theirs][:above]), *map(str, (overlay, disk, template))]
    shell(subject.site, hypervisor.merging(NAME, subject.uuid, "vda", layers, str(overlay)))
    assert chain(subject) == [path for path in layers if path != str(overlay)]
    assert template.read_bytes() == before


def chain(of: Subject) -> list[str]:
    (disk,) = with_chains(hypervisor.inspect(of.host, of.uuid)).disks
    return [layer.path for layer in disk.chain]
