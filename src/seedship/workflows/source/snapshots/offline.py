# SPDX-License-Identifier: Apache-2.0
"""A cut of a VM that is off: its images are read as they are, and nothing in them is changed.

No lock is taken, since a lock could make the VM's start fail. Instead, the cut proves afterwards that nobody wrote
meanwhile: the VM is still off, no QEMU anywhere has an image open for writing, and the files are unchanged.
Otherwise, everything that was read is discarded.

The state of the files is the cut's identity: while it stays the same, there is nothing new.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from seedship import clock, failpoints, hypervisor, nbd
from seedship.errors import DiskUnsupported, VmElsewhere, VmNotFound, VmStarted
from seedship.hypervisor import Host, ImageLayer, Vm
from seedship.model import NOTHING, CutDisk
from seedship.model.images import Stand, doubt
from seedship.model.remote import is_remote
from seedship.workflows.context import Context, ReplicationStore
from seedship.workflows.documents import SourceDocument
from seedship.workflows.host import chain_of, files_of, read_only_disks
from seedship.workflows.source.snapshots import detached, fingerprint

_LOOK_S: Final = 0.5
_KIND: Final = "off:"


def is_off(replications: ReplicationStore, host: Host, replication: str) -> bool:
    """Return whether the VM is shut off, so that its disks can be read from their images.

    Raises:
        VmElsewhere: the host does not know the VM.
        HypervisorUnreachable: libvirt does not answer, so nothing is known.
    """
    row, _ = replications.source(replication)
    state = hypervisor.state(host, row.vm_uuid)
    if state is None:
        raise VmElsewhere(row.vm_name, "libvirt has no such VM")
    return state == "shut-off"


def offline_identity(replications: ReplicationStore, host: Host, replication: str) -> str:
    """Return the identity of the images of a VM that is off: a different string after anything was written.

    A block device does not reveal whether it was written to. The identity is random then, so that it equals no
    other.
    """
    row, document = replications.source(replication)
    return _identity(_chains(hypervisor.inspect(host, row.vm_uuid), document))


def stopped_identity(replications: ReplicationStore, host: Host, replication: str) -> str:
    """Return the identity of the images of a VM that is kept off: a different string after anything was written.

    As ``offline_identity``, but it also holds for block devices, as long as this host runs, and for remote images, as
    long as the VM is not started here: what another host writes to one is not seen.
    """
    row, document = replications.source(replication)
    vm = hypervisor.inspect(host, row.vm_uuid)
    started = hypervisor.start_trace(vm.name) or (secrets.token_hex(16),)
    return _identity(_chains(vm, document), steady=False, counted=True, started=started)


def trusted(replications: ReplicationStore, host: Host, replication: str, document: SourceDocument) -> str | None:
    """Return the last closed epoch's cut if what changed since is known: nothing, or what its child disks hold."""
    if not document.checkpoint:
        return None
    row, _ = replications.source(replication)
    vm = hypervisor.inspect(host, row.vm_uuid)
    chains, still = _chains(vm, document), read_only_disks(vm)
    if document.identity == _identity(chains):
        return document.checkpoint
    if all(t in still or _depth(layers, document.checkpoint, t) for t, layers in chains.items()):
        return document.checkpoint
    return None


def doubts(context: Context, replication: str, document: SourceDocument) -> str:
    """Return why the changes tracked since the last closed epoch cannot be trusted for a VM that is off; else empty."""
    row, _ = context.replications.source(replication)
    vm = hypervisor.inspect(context.host, row.vm_uuid)
    chains, still = _chains(vm, document), read_only_disks(vm)
    if document.identity == _identity(chains):
        return ""
    work = context.paths.work(replication)
    images = {target: fingerprint.images(layers, work, still=target in still) for target, layers in chains.items()}
    return doubt(document.tracked.stand, Stand(_KIND, images), list(images), still)


def left(document: SourceDocument, checkpoint: str, since: str | None) -> str:
    """Return what the next cut may start from. While the VM is off, a child disk stays that of the last cut."""
    return since if since is not None and document.spec.capture == "child-disk" else checkpoint


@contextmanager
def open_cut(
    context: Context, replication: str, checkpoint: str, since: str | None
) -> Iterator[tuple[list[CutDisk], Callable[[], None]]]:
    """Open a cut as ``cut.open_cut`` does, of a VM that is shut off. It makes no ``checkpoint``.

    Args:
        since: The result of ``trusted``.

    The end of the block raises an error if what was read cannot be trusted.

    Raises:
        VmStarted: the VM did not stay off, or something wrote to its disks; discard what was read and repeat.
        VmElsewhere: a QEMU, perhaps at another host, has the disks open for writing.
        NbdFailed: an image cannot be read.
    """
    row, document = context.replications.source(replication)
    vm = hypervisor.inspect(context.host, row.vm_uuid)
    chains, still = _chains(vm, document), read_only_disks(vm)
    for layers in chains.values():
        if _is_written(layers):
            raise VmElsewhere(vm.name, f"it is off, but something writes to {layers[0].path}")
    detached.insist_same_remote(context, replication, [t for t, at in chains.items() if len(at) > 1])
    before, started = _identity(chains, steady=False), hypervisor.start_trace(vm.name)
    if started is None and (far := next((at[0].path for at in chains.values() if is_remote(at[0].path)), "")):
        why = "nothing shows whether the VM is started meanwhile: libvirt keeps no logs of VMs on this host"
        raise VmStarted(vm.name, f"is off, and {far} is read over the network, but {why}")
    unchanged = document.identity == before
    checked_at = clock.monotonic()

    def check(*, now: bool = False) -> None:
        nonlocal checked_at
        if not now and clock.monotonic() - checked_at < _LOOK_S:
            return
        checked_at = clock.monotonic()
        try:
            state = hypervisor.state(context.host, row.vm_uuid)
        except VmNotFound:
            state = None
        if state != "shut-off":
            raise VmStarted(vm.name, f"is {state or 'undefined'} now")
        if hypervisor.start_trace(vm.name) != started:  # Nor do network images and block devices show a write.
            raise VmStarted(vm.name, "was started and stopped meanwhile")
        written = any(_is_written(layers) for layers in chains.values())
        if written or _identity(chains, steady=False) != before:
            raise VmStarted(vm.name, "something wrote to its disks")

    with ExitStack() as stack:
        disks = []
        for spec in document.disks:
            layers = chains[spec.target]
            path, kind = Path(layers[0].path), layers[0].format
            size = nbd.image.info(path, image_format=kind, force_share=True).virtual_size
            socket = stack.enter_context(
                nbd.serve(path, kind, read_only=True, force_share=True, depth=since is not None)
            )
            depth = 0
            if since is not None:
                depth = NOTHING if unchanged or spec.target in still else _depth(layers, since, spec.target) or 0
            metadata = nbd.DEPTH if depth else None
            disks.append(CutDisk(spec.index, size, socket, nbd.EXPORT, metadata, depth))
        with context.barriers.at_once(replication):
            pass  # The state compared before must hold until the end of the block, or the cut fails.
        yield disks, check
        failpoints.hit("offline.read")
        check(now=True)


def _chains(vm: Vm, document: SourceDocument) -> dict[str, list[ImageLayer]]:
    """Return the images of each disk, by target, newest first. libvirt names only the first while the VM is off."""
    chains = {}
    for spec in document.disks:
        disk = vm.disk(spec.target)
        if disk is None or not disk.chain:
            raise DiskUnsupported(vm.name, spec.target, "it is not a disk of the VM")
        if disk.kind not in ("file", "block") and not disk.is_remote:
            raise DiskUnsupported(vm.name, spec.target, f"it lies on {disk.kind} storage")
        layers = chain_of(disk.chain[0])
        chains[spec.target] = layers
    return chains


def _depth(layers: list[ImageLayer], cut: str, target: str) -> int | None:
    """Return how many images hold what changed since a cut's child disk was added; None if the chain lacks it."""
    names = [Path(layer.path).name for layer in layers]
    child = f"{cut}-{target}.overlay"
    return names.index(child) + 1 if child in names else None


def _is_written(layers: list[ImageLayer]) -> bool:
    return any(nbd.is_written(Path(file.path)) for layer in layers for file in files_of(layer))


def _identity(
    chains: dict[str, list[ImageLayer]], *, steady: bool = True, counted: bool = False, started: object = None
) -> str:
    """Return the identity of the images' files.

    Args:
        steady: True if the identity must hold until the next cut. False if it must hold only while the VM is
            watched, as far as file attributes show.
        counted: True to have it show writes to block devices as well; such an identity equals only its like.
        started: With ``counted``, what differs after each start of the VM here.
    """
    facts: list[tuple[object, ...]] = []
    for target, layers in sorted(chains.items()):
        for file in (file for layer in layers for file in files_of(layer)):
            if is_remote(file.path):
                if steady:
                    return f"{_KIND}{secrets.token_hex(16)}"
                # The guest writes to it only where none of our images is above it.
                facts.append((target, file.path, file.format, started if file is layers[0] and counted else None))
                continue
            try:
                status = os.stat(file.path)
            except OSError as error:
                raise DiskUnsupported(target, file.path, str(error)) from error
            facts.append(
                (
                    target,
                    file.path,
                    file.format,
                    status.st_dev,
                    status.st_ino,
                    status.st_rdev,
                    status.st_size,
                    status.st_mtime_ns,
                    status.st_ctime_ns,
                )
            )
            if stat.S_ISBLK(status.st_mode):
                if steady:
                    return f"{_KIND}{secrets.token_hex(16)}"
                if counted:
                    facts.append(_writes(file.path, status.st_rdev))
    return f"{_KIND}{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}"


def _writes(path: str, device: int) -> tuple[object, ...]:
    """Return what shows writes to a block device. Where the kernel does not count them, it equals no other result."""
    return (path, *(fingerprint.device_writes(path, device) or (secrets.token_hex(16),)))
