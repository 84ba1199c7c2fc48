# SPDX-License-Identifier: Apache-2.0
"""Cuts: all disks of a running VM at one instant, served over NBD.

A cut is libvirt's backup in pull mode together with a new checkpoint, in one QEMU transaction. The
guest keeps running; scratch files save what it overwrites. If the checkpoint of the last closed
epoch is named, a bitmap of the changes since then comes with the cut. A broken checkpoint is
removed, and the caller scans.

At most one job runs on a VM, and libvirt waits 30 s before it refuses a second one. So every
function here checks for a job first. ``recover`` clears what a killed process of seedship left.
"""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import libvirt

from seedship import beneath, clock
from seedship.errors import (
    CheckpointBroken,
    DiskUnsupported,
    HypervisorBusy,
    HypervisorFailed,
    InvalidRequest,
    JobPhantom,
    VmNotFound,
    VmNotRunning,
)
from seedship.hypervisor import hook
from seedship.hypervisor.checkpoints import delete, require_ours, sweep
from seedship.hypervisor.connection import STATE_FOLDER, Host, backup_of, job_stats
from seedship.hypervisor.inventory import Vm, describe
from seedship.hypervisor.volumes import xml_of
from seedship.model import NOTHING, CutDisk, DiskSpec

CUT_FOLDER: Final = STATE_FOLDER / "seedship"
"""Default parent of cuts' folders: below libvirt's own state, where QEMU may write."""
CUT_SOCKET: Final = "seedship.sock"
"""This name also marks a backup job, and QEMU's NBD server, as ours."""
_LONGEST_SOCKET: Final = 107
_END_S: Final = 60.0
_PHANTOM_S: Final = 5.0
_BROKEN: Final = (
    libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT,
    libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
)
_UNEQUAL: Final = "different sizes"
"""QEMU refuses to merge such bitmaps.

A disk was resized after another tool gave its image a child.
"""


@dataclass(frozen=True, slots=True)
class CutJob:
    """The backup job of an open cut."""

    ours: bool
    scratch_used: int
    """Bytes in the scratch files."""
    scratch_total: int
    """Bytes to which they could grow."""
    phantom: bool = False
    """The job has no backup: libvirtd was killed while a backup began or ended."""


def begin_cut(
    host: Host,
    vm: str,
    disks: Sequence[DiskSpec],
    folder: Path,
    *,
    checkpoint: str,
    since: Mapping[str, str] | str | None = None,
) -> list[CutDisk]:
    """Open a cut of ``disks`` at one instant and start ``checkpoint`` at that same instant.

    The cut lasts until ``end_cut``.

    A read-only disk has no part in ``checkpoint``: libvirt refuses it. With ``since``, nothing of it has changed.

    Args:
        folder: This cut's own folder. It is created, with its parent's owner and group.
        since: The trusted checkpoint of the last closed epoch, for all disks or by target. Disks
            without one get no bitmap and are scanned.

    Raises:
        CheckpointBroken: A named checkpoint is unusable. All named ones were removed; begin again
            without.
        DiskUnsupported: A disk is not there, or its top image is not qcow2 (give a raw one that the guest
            writes to an overlay first).
        VmNotRunning: Only a running VM can be cut.
        HypervisorBusy: Another job runs; or libvirt did not answer in time, and ``recover`` must
            run.
    """
    require_ours(checkpoint)
    named = {d.target: since for d in disks} if isinstance(since, str) else dict(since or {})
    for name in named.values():
        require_ours(name)
    socket = folder / CUT_SOCKET
    if len(str(socket)) > _LONGEST_SOCKET:
        raise InvalidRequest("folder", f"the path of a socket in {folder} is too long")
    with host.calling(vm) as domain:
        facts = _ready(domain, disks)
        still = {disk.target: named.pop(disk.target, None) for disk in facts.disks if disk.read_only}
        with suppress(HypervisorFailed):  # ``site doctor`` reports it.
            hook.install()
        sweep(folder)  # A cut that ended with its host left its files.
        _make(folder)
        backup, record = _orders(facts, disks, folder, socket, checkpoint, named)
        before = _sizes(domain, disks)
        try:
            domain.backupBegin(backup, record, 0)
        except libvirt.libvirtError as error:
            if _job(domain) is None:
                sweep(folder)
            resized = [t for t, size in _sizes(domain, disks).items() if size != before[t]]
            if resized:  # The scratch file, or a bitmap, had another size than the disk.
                raise HypervisorBusy(facts.name, f"{', '.join(resized)} was resized while a cut began") from error
            if named and (error.get_error_code() in _BROKEN or _UNEQUAL in str(error)):
                for name in set(named.values()):
                    delete(host, domain, name)
                names = ", ".join(sorted(set(named.values())))
                raise CheckpointBroken(facts.name, names, str(error)) from error
            raise
        # While the cut is open QEMU refuses to resize, so these are the sizes of the cut.
        sizes = _sizes(domain, disks)
    return [
        CutDisk(
            disk.index,
            sizes[disk.target],
            str(socket),
            disk.target,
            f"qemu:dirty-bitmap:backup-{disk.target}" if disk.target in named else None,
            NOTHING if still.get(disk.target) else 0,
        )
        for disk in disks
    ]


def _sizes(domain: Any, disks: Sequence[DiskSpec]) -> dict[str, int]:
    """Return the size of each disk in bytes, by target."""
    return {disk.target: int(domain.blockInfo(disk.target)[0]) for disk in disks}


def end_cut(host: Host, vm: str, folder: Path) -> None:
    """End an open cut of ours, and return when the job has really ended. Repeatable.

    The scratch files and the socket are removed. The checkpoint stays.

    Raises:
        HypervisorBusy: The job does not end, or is not ours.
    """
    try:
        _clear(host, vm)
    except (VmNotFound, VmNotRunning):
        pass  # The process that held the cut is gone.
    sweep(folder)


def recover(host: Host, vm: str) -> bool:
    """Clear a cut that a killed process of ours, or a restarted libvirtd, left.

    Backup jobs of others are not touched. Returns whether there was such a cut.

    Raises:
        HypervisorBusy: The job does not end.
        JobPhantom: Only a restart of libvirtd ends the job.
        VmNotFound: The host has no such VM.
    """
    with host.calling(vm) as domain:
        if not domain.isActive():
            return False
        job = _job(domain)
        if job is None or not job.ours:
            return False
    _clear(host, vm)
    return True


def cut_job(host: Host, vm: str) -> CutJob | None:
    """Return the VM's backup job and the fill level of its scratch files, or None.

    Raises:
        VmNotFound: The host has no such VM.
        VmNotRunning: It does not run, so the cut has ended.
    """
    with host.calling(vm) as domain:
        return _job(domain)


def _ready(domain: Any, disks: Sequence[DiskSpec]) -> Vm:
    facts = describe(xml_of(domain))
    if not domain.isActive():
        raise VmNotRunning(facts.name, "not running")
    stats = job_stats(domain)
    if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) != libvirt.VIR_DOMAIN_JOB_NONE:
        raise HypervisorBusy(facts.name, f"a job (operation {stats.get('operation')}) runs")
    for spec in disks:
        disk = facts.disk(spec.target)
        if disk is None or disk.device != "disk" or not disk.chain:
            raise DiskUnsupported(facts.name, spec.target, "it is not a disk of the VM")
        if disk.job:
            raise HypervisorBusy(facts.name, f"a block job runs on {spec.target}")
        if disk.format != "qcow2" and not disk.read_only:
            raise DiskUnsupported(
                facts.name,
                spec.target,
                f"its image is {disk.format}, which cannot record changes",
                "Give it a qcow2 overlay first",
            )
    return facts


def _orders(
    facts: Vm,
    disks: Sequence[DiskSpec],
    folder: Path,
    socket: Path,
    checkpoint: str,
    since: Mapping[str, str],
) -> tuple[str, str]:
    """Return the XML of the backup and of the checkpoint."""
    backup = ET.Element("domainbackup", {"mode": "pull"})
    ET.SubElement(backup, "server", {"transport": "unix", "socket": str(socket)})
    parts = ET.SubElement(backup, "disks")
    record = ET.Element("domaincheckpoint")
    ET.SubElement(record, "name").text = checkpoint
    marks = ET.SubElement(record, "disks")
    wanted = {disk.target for disk in disks}
    for disk in facts.disks:
        if disk.target not in wanted:
            ET.SubElement(parts, "disk", {"name": disk.target, "backup": "no"})
            ET.SubElement(marks, "disk", {"name": disk.target, "checkpoint": "no"})
            continue
        part = ET.SubElement(parts, "disk", {"name": disk.target, "backup": "yes", "type": "file"})
        if disk.target in since:
            part.set("backupmode", "incremental")
            part.set("incremental", since[disk.target])
        else:
            part.set("backupmode", "full")
        ET.SubElement(part, "driver", {"type": "qcow2"})
        ET.SubElement(part, "scratch", {"file": str(folder / f"{disk.target}.scratch")})
        ET.SubElement(marks, "disk", {"name": disk.target, "checkpoint": "no" if disk.read_only else "bitmap"})
    return ET.tostring(backup, encoding="unicode"), ET.tostring(record, encoding="unicode")


def _make(folder: Path) -> None:
    """Create the cut's folder with the owner of its nearest existing parent.

    QEMU must be able to write there.
    """
    missing = []
    parent = folder
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    owner = parent.stat()
    for path in reversed(missing):
        path.mkdir(mode=0o750)
        beneath.give(path, owner)


def _job(domain: Any) -> CutJob | None:
    stats = job_stats(domain)
    if (
        stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE
        or stats.get("operation") != libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP
    ):
        return None
    text = backup_of(domain)
    server = ET.fromstring(text).find("server") if text else None  # noqa: S314 - libvirt's
    socket = "" if server is None else server.get("socket", "")
    # A phantom job has no owner who could lose it.
    ours = not text or Path(socket).name == CUT_SOCKET
    used, total = stats.get("disk_temp_used", 0), stats.get("disk_temp_total", 0)
    return CutJob(ours, used, total, phantom=not text)


def _clear(host: Host, vm: str) -> None:
    begun, why = clock.monotonic(), "libvirt took the order"
    while True:
        with host.calling(vm) as domain:
            if not domain.isActive():
                return
            job = _job(domain)
            if job is None:
                return
            if not job.ours:
                raise HypervisorBusy(domain.name(), "a backup that is not ours runs")
            waited = clock.monotonic() - begun
            if job.phantom and waited > _PHANTOM_S:
                hook.install()
                raise JobPhantom(domain.name())
            if waited > _END_S:
                raise HypervisorBusy(domain.name(), f"the backup did not end in {_END_S:g} s: {why}")
            # Ending is asynchronous, and a second request while it ends is refused.
            try:
                domain.abortJob()
            except libvirt.libvirtError as error:
                why = str(error)
        time.sleep(0.01)
