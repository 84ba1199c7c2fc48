# SPDX-License-Identifier: Apache-2.0
"""Errors of libvirt, QEMU or the guest. Exit 5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seedship.errors.base import SeedshipError


class HypervisorError(SeedshipError):
    """libvirt, QEMU or the guest failed or refused."""

    code = "hypervisor"
    exit_code = 5
    status = 502


@dataclass(eq=False)
class HypervisorUnreachable(HypervisorError):
    """No connection to libvirt."""

    code: ClassVar[str] = "hypervisor.unreachable"
    message: ClassVar[str] = "libvirt at {uri} does not answer: {why}"
    remedy: ClassVar[str] = "Check that libvirtd runs and that seedship may use its socket: `systemctl status libvirtd`"
    retry: ClassVar[bool] = True

    uri: str
    why: str


@dataclass(eq=False)
class VmNotFound(HypervisorError):
    """The host knows no such VM."""

    code: ClassVar[str] = "hypervisor.vm-not-found"
    message: ClassVar[str] = "The host {uri} has no VM {name!r}"
    remedy: ClassVar[str] = "List the VMs: `seedship vm list`"
    status: ClassVar[int] = 404

    uri: str
    name: str


@dataclass(eq=False)
class VmNotRunning(HypervisorError):
    """The operation requires a running VM."""

    code: ClassVar[str] = "hypervisor.vm-not-running"
    message: ClassVar[str] = "The VM {name} is {state}"
    remedy: ClassVar[str] = "Start it: `virsh start {name!v}`. Steps that wait for it are retried automatically"
    retry: ClassVar[bool] = True
    status: ClassVar[int] = 409

    name: str
    state: str


@dataclass(eq=False)
class VmElsewhere(HypervisorError):
    """The VM was moved to another host of the site, or undefined."""

    code: ClassVar[str] = "hypervisor.vm-elsewhere"
    message: ClassVar[str] = "The VM {name} is not at this host: {why}"
    remedy: ClassVar[str] = (
        "Bring it back with `virsh migrate` or `virsh define`. The replication is kept, and a"
        " scan finds what changed"
        " meanwhile"
    )
    retry: ClassVar[bool] = True
    status: ClassVar[int] = 409

    name: str
    why: str


@dataclass(eq=False)
class VmSnapshots(HypervisorError):
    """The operation would lose another tool's snapshots of the VM."""

    code: ClassVar[str] = "hypervisor.snapshots"
    message: ClassVar[str] = "{name} has snapshots that would be lost: {names}"
    remedy: ClassVar[str] = (
        "Have libvirt forget them: `virsh snapshot-list {name!v} --name | grep . | xargs -d '\\n' -n 1"
        " virsh snapshot-delete {name!v} --metadata --snapshotname`. What they hold in the VM's own images stays there."
        " Nothing was changed."
        " A merge or an abort then resumes automatically; start a switchover again"
    )
    retry: ClassVar[bool] = True
    status: ClassVar[int] = 409

    name: str
    names: str


@dataclass(eq=False)
class VmStarted(HypervisorError):
    """A VM started while its disks were read offline; the data read is discarded."""

    code: ClassVar[str] = "hypervisor.vm-started"
    message: ClassVar[str] = "The disks of {name} were read while it was off, and {why}"
    remedy: ClassVar[str] = "No action needed: the disks are read again, from the running VM if it runs"
    retry: ClassVar[bool] = True
    status: ClassVar[int] = 409

    name: str
    why: str


@dataclass(eq=False)
class DiskUnsupported(HypervisorError):
    """A disk cannot be captured."""

    code: ClassVar[str] = "hypervisor.disk-unsupported"
    message: ClassVar[str] = "The disk {disk} of {name} cannot be captured: {why}"
    remedy: ClassVar[str] = "{hint}"
    status: ClassVar[int] = 409

    name: str
    disk: str
    why: str
    hint: str = "Exclude the disk, or move it to an image file"


@dataclass(eq=False)
class DisksChanged(HypervisorError):
    """The VM's disks are not the replicated ones."""

    code: ClassVar[str] = "hypervisor.disks-changed"
    message: ClassVar[str] = "The disks of {name} changed: {what}"
    remedy: ClassVar[str] = "{hint}"
    retry: ClassVar[bool] = True
    status: ClassVar[int] = 409

    name: str
    what: str
    hint: str


@dataclass(eq=False)
class DiskShrunk(HypervisorError):
    """A disk is smaller than its replica."""

    code: ClassVar[str] = "hypervisor.disk-shrunk"
    message: ClassVar[str] = "The disk {disk} of {name} has {now} bytes, but {before} bytes of it were replicated"
    remedy: ClassVar[str] = (
        "Resize it while the VM runs: `virsh blockresize {name!v} {disk!q} {before}B`; the replication then"
        " resumes automatically."
        " If the disk is to stay smaller, run `seedship replication abort {name!q}` and create"
        " the replication again"
    )
    retry: ClassVar[bool] = True
    status: ClassVar[int] = 409

    name: str
    disk: str
    now: int
    before: int


@dataclass(eq=False)
class HypervisorBusy(HypervisorError):
    """Another job holds the VM or disk."""

    code: ClassVar[str] = "hypervisor.busy"
    message: ClassVar[str] = "The VM {name} is busy: {why}"
    remedy: ClassVar[str] = "Wait for the other job, or end it: `virsh domjobabort {name!v}`"
    retry: ClassVar[bool] = True
    status: ClassVar[int] = 409

    name: str
    why: str


@dataclass(eq=False)
class ImageInUse(HypervisorError):
    """Another process has an image open that a VM is about to write to."""

    code: ClassVar[str] = "hypervisor.image-in-use"
    message: ClassVar[str] = "The VM {name} cannot run on {path}: another process has the image open"
    remedy: ClassVar[str] = "Find the process with `fuser -v {path!q}`, end it, then repeat the command"
    status: ClassVar[int] = 409

    name: str
    path: str


@dataclass(eq=False)
class TrialRefused(HypervisorError):
    """The trial start of a failover failed; the VM stays with its source."""

    code: ClassVar[str] = "hypervisor.trial-refused"
    message: ClassVar[str] = (
        "The failover of {name} was refused before anything was fenced or recorded,"
        " because a trial start at this site failed: {why}"
    )
    remedy: ClassVar[str] = (
        "Correct what the message names, then repeat `seedship replication failover {name!q}`."
        " The standby is unchanged. Details: /var/log/libvirt/qemu/{name}.log at this site"
    )
    status: ClassVar[int] = 409

    name: str
    why: str


@dataclass(eq=False)
class JobPhantom(HypervisorError):
    """libvirtd was killed while a backup began, and holds a job without a backup."""

    code: ClassVar[str] = "hypervisor.job-phantom"
    message: ClassVar[str] = (
        "libvirtd holds a backup job of {name} without a backup, because it was killed while one began"
    )
    remedy: ClassVar[str] = (
        "Run `systemctl restart libvirtd`. Its VMs keep running, and seedship's hook clears the"
        " job before libvirtd reads it"
    )
    retry: ClassVar[bool] = True
    status: ClassVar[int] = 409

    name: str


@dataclass(eq=False)
class MemoryNotTaken(HypervisorError):
    """A VM's memory could not be captured at the moment of a cut."""

    code: ClassVar[str] = "hypervisor.memory-not-taken"
    message: ClassVar[str] = "The memory of {name} was not captured: {why}"
    remedy: ClassVar[str] = "{hint}"
    status: ClassVar[int] = 409

    name: str
    why: str
    hint: str = "Run the command again. --max-pause allows a longer pause"


@dataclass(eq=False)
class CheckpointBroken(HypervisorError):
    """A dirty bitmap is gone or inconsistent; the next epoch is a scan."""

    code: ClassVar[str] = "hypervisor.checkpoint-broken"
    message: ClassVar[str] = "The checkpoint {checkpoint} of {name} is unusable: {why}"
    remedy: ClassVar[str] = "No action needed: the next epoch is a scan"

    name: str
    checkpoint: str
    why: str


@dataclass(eq=False)
class CommonCutFailed(HypervisorError):
    """The VMs of a group could not be cut at one common moment."""

    code: ClassVar[str] = "hypervisor.common-cut"
    message: ClassVar[str] = "The group {group} was not cut at one common moment: {why}"
    remedy: ClassVar[str] = (
        "Clear the cause at that VM. The cut is retried automatically; replicas stay current"
        " meanwhile, and the last common"
        " moment is kept"
    )
    retry: ClassVar[bool] = True

    group: str
    why: str


@dataclass(eq=False)
class NbdFailed(HypervisorError):
    """Reading or writing a disk over NBD failed."""

    code: ClassVar[str] = "hypervisor.nbd"
    message: ClassVar[str] = "NBD {what} failed: {why}"
    remedy: ClassVar[str] = (
        "Free or repair what the message names. The step is retried automatically where that can help"
    )
    retry: ClassVar[bool] = True

    what: str
    why: str


@dataclass(eq=False)
class TapFailed(HypervisorError):
    """The guest's writes cannot be mirrored; changes are still tracked."""

    code: ClassVar[str] = "hypervisor.tap"
    message: ClassVar[str] = "The guest's writes are not mirrored: {why}"
    remedy: ClassVar[str] = "No action needed: changes are tracked, and mirroring resumes automatically"
    retry: ClassVar[bool] = True

    why: str


@dataclass(eq=False)
class MigrationFailed(HypervisorError):
    """The memory migration failed; the source is still the owner."""

    code: ClassVar[str] = "hypervisor.migration-failed"
    message: ClassVar[str] = "The switchover of {name} failed: {why}"
    remedy: ClassVar[str] = "The VM continues at the source. Clear the cause, then start the switchover again"

    name: str
    why: str


@dataclass(eq=False)
class SwitchoverDeclined(HypervisorError):
    """A switchover was declined, or its approval timed out, before the point of no return."""

    code: ClassVar[str] = "hypervisor.declined"
    message: ClassVar[str] = "The switchover of {name} was declined"
    remedy: ClassVar[str] = "The VM continues at the source. Start the switchover again when the VM may move"

    name: str


@dataclass(eq=False)
class Diverging(HypervisorError):
    """Rounds do not get smaller, and the replication is set to ask the operator."""

    code: ClassVar[str] = "hypervisor.diverging"
    message: ClassVar[str] = (
        "The rounds of {name} do not get smaller, because it writes faster than the link carries."
        " Possible remedies: {helps}"
    )
    remedy: ClassVar[str] = (
        "Nothing is sent; changes are tracked. Continue with `seedship replication set {name!q}"
        " --on-divergence throttle`"
        " (or report), or put the rest on drives with `seedship replication ship {name!q}"
        " --drive PATH`"
    )

    name: str
    helps: str


@dataclass(eq=False)
class NotConverging(HypervisorError):
    """The guest writes faster than the link carries; the migration was canceled."""

    code: ClassVar[str] = "hypervisor.not-converging"
    message: ClassVar[str] = "The switchover of {name} was canceled, because it writes faster than the link carries"
    remedy: ClassVar[str] = (
        "The VM continues at the source. Repeat at a quieter hour, or run"
        " `seedship replication switchover {name!q} --throttle`: its writes then wait for the"
        " other site during the switchover"
    )

    name: str


@dataclass(eq=False)
class DefinitionRefused(HypervisorError):
    """A peer's VM definition contains something that this site does not allow."""

    code: ClassVar[str] = "hypervisor.definition-refused"
    message: ClassVar[str] = "The definition of {name} is refused: {why}"
    remedy: ClassVar[str] = "{hint}"
    status: ClassVar[int] = 422

    name: str
    why: str
    hint: str = (
        "libvirt writes no such definition. Check the versions at the source: `seedship --version`, `virsh version`"
    )


@dataclass(eq=False)
class GateRefused(HypervisorError):
    """The RPC gate refused a libvirt call."""

    code: ClassVar[str] = "hypervisor.gate-refused"
    message: ClassVar[str] = "The gate refused a libvirt call: {why}"
    remedy: ClassVar[str] = (
        "The VM continues at its source. If the sites' libvirt versions differ, upgrade the older"
        " one; otherwise check the peer"
    )

    why: str


@dataclass(eq=False)
class HypervisorFailed(HypervisorError):
    """libvirt or QEMU refused for another reason."""

    code: ClassVar[str] = "hypervisor.failed"
    message: ClassVar[str] = "libvirt refused for {name}: {why}"
    remedy: ClassVar[str] = "See `journalctl -u libvirtd` and /var/log/libvirt/qemu/{name}.log"

    name: str
    why: str
