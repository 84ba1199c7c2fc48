# SPDX-License-Identifier: Apache-2.0
"""Remedies of errors and of ``site doctor`` about VMs and pools, each run as it is printed, in real libvirt."""

from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from contexts import alone
from remedied import NAME, Subject, commands, shell
from seedship import clock, config, hypervisor
from seedship.errors import HypervisorBusy, VmNotRunning
from seedship.hypervisor import refusals
from seedship.lab import Lab
from seedship.lab.shell import run
from seedship.model import DiskIndex, DiskSpec
from seedship.observe import pools
from seedship.observe.remnants import Remnants
from seedship.workflows import Context

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(600)]
DISKS = (DiskSpec(DiskIndex(0), "vda", 16 << 20, "qcow2"),)


@pytest.fixture
def site(whole_lab: Lab, tmp_path: Path) -> Iterator[Context]:
    """The parts of a site at the first libvirt of the lab; its pool has a name that the shell must not read."""
    made = alone(
        tmp_path,
        config.Config(
            "here",
            hypervisor=config.HypervisorSection(whole_lab.a.uri),
            storage=config.StorageSection(str(tmp_path / "replicas"), pool="it's a $pool"),
        ),
    )
    yield made
    made.end()
    made.catalog.close()


def cut(of: Subject) -> None:
    """Open a cut, and end it."""
    folder = of.site.storage / "cut"
    hypervisor.begin_cut(of.host, of.uuid, DISKS, folder, checkpoint="seedship-0f0f0f0f-1")
    hypervisor.end_cut(of.host, of.uuid, folder)


@pytest.mark.remedy("errors.hypervisor.VmNotRunning: virsh start …")
def test_a_vm_that_does_not_run_is_started(subject: Subject) -> None:
    subject.define(start=False)
    with pytest.raises(VmNotRunning) as error:
        cut(subject)
    (start,) = commands(error.value.advice())
    shell(subject.site, start)
    cut(subject)


@pytest.mark.remedy("errors.hypervisor.HypervisorBusy: virsh domjobabort …")
def test_a_job_that_is_in_the_way_is_ended(subject: Subject) -> None:
    subject.define()
    with subject.host.calling(subject.uuid) as domain:
        server = f'<server transport="unix" socket="{subject.site.state}/theirs.sock"/>'
        domain.backupBegin(f'<domainbackup mode="pull">{server}</domainbackup>', None)
    with pytest.raises(HypervisorBusy) as error:
        cut(subject)
    (end,) = commands(error.value.advice())
    shell(subject.site, end)

    def free() -> bool:
        with subject.host.calling(subject.uuid) as domain:
            return bool(domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE)

    clock.wait_until(free, 30, "the job's end")
    cut(subject)


@pytest.mark.remedy("observe.remnants.Remnants.checkpoints: virsh checkpoint-delete … …")
def test_a_checkpoint_of_an_unknown_replication_is_deleted_by_hand(subject: Subject, site: Context) -> None:
    subject.define()
    cut(subject)

    def found() -> list[str]:
        return [one.remedy for one in Remnants(site, hypervisor.inventory(subject.host)).checkpoints()]

    (remedy,) = found()
    (delete,) = commands(remedy)
    shell(subject.site, delete)
    assert found() == []


@pytest.mark.remedy("hypervisor.refusals.rename: virsh domrename … NEW-NAME")
def test_a_vm_whose_name_cannot_be_carried_is_renamed(subject: Subject) -> None:
    subject.define(start=False)
    rename = commands(refusals.rename(NAME, subject.uuid))[-1]
    shell(subject.site, rename.replace("NEW-NAME", '"it\'s renamed"'))
    try:
        with subject.host.calling(subject.uuid) as domain:
            assert domain.name() == "it's renamed"
    finally:
        with subject.host.calling(subject.uuid) as domain:
            domain.undefine()


@pytest.mark.remedy("observe.pools.findings: virsh pool-autostart …")
def test_a_pool_is_started_at_boot(subject: Subject, site: Context) -> None:
    definition = subject.site.state / "pool.xml"
    definition.write_text(
        f"<pool type='dir'><name>it&apos;s a $pool</name><target><path>{subject.site.storage}</path></target></pool>"
    )
    virsh = ("virsh", "-q", "-c", subject.site.uri)
    run(*virsh, "pool-define", definition)
    try:
        run(*virsh, "pool-start", "it's a $pool")
        (finding,) = pools.findings(site)
        assert finding.state == "warn"
        (autostart,) = commands(finding.remedy)
        shell(subject.site, autostart.removeprefix("Run "))
        assert [one.state for one in pools.findings(site)] == ["ok"]
    finally:
        run("sh", "-c", f'virsh -c "{subject.site.uri}" pool-destroy "it\'s a \\$pool" || true')
        run(*virsh, "pool-undefine", "it's a $pool")
