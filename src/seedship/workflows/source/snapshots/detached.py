# SPDX-License-Identifier: Apache-2.0
"""Whether the images below ours are as the VM left them, for a disk that the VM does not have any more.

Such an image may be another VM's disk by now. Our overlay would be merged into what that VM wrote, which destroys both.
So the files below our images are recorded while the VM has the disk: nothing writes to them then. They are compared
before a merge that the VM takes no part in.

QEMU has them open for reading only from the moment on at which our image is above them, and libvirt changes no more
than their owner and label when the disk is detached. So inode, size and time of modification are as they were. The
time of the last status change is not (libvirt, security_dac.c), nor is the number of the file system after a reboot.
A block device shows no writes of other hosts, and so is never believed to be unchanged.
"""

from __future__ import annotations

import logging
import os
import shlex
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from seedship import hypervisor
from seedship.errors import DisksChanged, NbdFailed
from seedship.hypervisor import ImageLayer
from seedship.model.images import Image
from seedship.model.remote import backing, is_remote, parse
from seedship.workflows.context import Context, ReplicationStore
from seedship.workflows.documents import Base, SourceDocument
from seedship.workflows.host import files_of
from seedship.workflows.source.snapshots.witness import witness

log = logging.getLogger(__name__)
OVERLAY_SUFFIX: Final = ".overlay"
"""Suffix of the file names of all images that seedship puts above disks."""


def is_own_overlay(path: str, work: Path) -> bool:
    """Return whether we put this image above a disk. Another tool's snapshot of the disk may be stored beside it."""
    return Path(path).is_relative_to(work) and path.endswith(OVERLAY_SUFFIX)


def record(context: Context, replication: str) -> None:
    """Record the files below our images of a VM that runs. Call it after our images or theirs were changed.

    Raises:
        HypervisorError: libvirt did not answer.
    """
    row, document = context.replications.source(replication)
    if not document.images.bases:
        return
    vm = hypervisor.inspect(context.host, row.vm_uuid)
    if vm.state not in ("running", "paused"):
        return  # libvirt does not report chains then.
    work, used = context.paths.work(replication), {layer.path for disk in vm.disks for layer in disk.chain}
    if used & set(document.images.merging):  # Their merge was given up: they have the newest writes again.
        context.replications.change_source(
            replication, lambda d: d.with_images(merging=tuple(p for p in d.images.merging if p not in used))
        )
    fresh: dict[str, Base] = {}
    for target, base in document.images.bases.items():
        disk = vm.disk(target)
        below = [] if disk is None else _below(disk.chain, base.path, work)
        if below and (now := Base(base.path, base.format, files(below))) != base:
            fresh[target] = now
    if fresh:
        context.replications.change_source(replication, lambda d: d.with_images(bases=d.images.bases | fresh))


def _below(chain: Sequence[ImageLayer], base: str, work: Path) -> list[ImageLayer]:
    """Return the images of others from our highest one down to ``base``; empty if none of ours is above it."""
    paths = [layer.path for layer in chain]
    if base not in paths:
        return []
    upto = chain[: paths.index(base) + 1]
    first = next((n for n, layer in enumerate(upto) if is_own_overlay(layer.path, work)), None)
    return [] if first is None else [layer for layer in upto[first:] if not is_own_overlay(layer.path, work)]


def files(layers: Sequence[ImageLayer]) -> tuple[Image, ...]:
    """Return the present state of images, and of the files that hold their content."""
    return tuple(_state(file.path) for layer in layers for file in files_of(layer))


def _state(path: str) -> Image:
    if is_remote(path):
        try:
            size, content = witness(path)
        except NbdFailed as error:
            log.info("%s is not compared before a merge without the VM: %s", path, error)
            return Image(path, False, inode=0, block=True)
        return Image(path, False, inode=0, size=size, mtime=content, block=True)
    try:
        # Opened first: NFS asks its server for the times then, and not before (nfs(5), close-to-open).
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        return Image(path, False)
    return Image(
        path,
        False,
        inode=status.st_ino,
        size=status.st_size,
        mtime=status.st_mtime_ns,
        block=stat.S_ISBLK(status.st_mode),
    )


def insist_unchanged(
    replications: ReplicationStore, replication: str, stacks: Mapping[str, Sequence[str]], work: Path
) -> None:
    """Check the images that our images are about to be merged into, and record that the merge begins.

    From then on their content changes by our doing, so that a merge that a kill interrupted is repeated.

    Args:
        stacks: By target, the images above the disk's base, newest first.

    Raises:
        DisksChanged: somebody wrote to one of them, or that cannot be excluded. Nothing was changed.
    """
    if not stacks:
        return
    row, document = replications.source(replication)
    for target, stack in stacks.items():
        base = document.images.bases[target]
        if not base.merging and (why := _change(base, stack, work)):
            what = f"{target} was taken from it with the newest writes in {stack[0]}, and {why}"
            raise DisksChanged(row.vm_name, what, _remedy(row.vm_name, stack, base, work))

    def change(d: SourceDocument) -> SourceDocument:
        begun = {target: msgspec.structs.replace(d.images.bases[target], merging=True) for target in stacks}
        return d.with_images(bases=d.images.bases | begun)

    replications.change_source(replication, change)


@contextmanager
def begun(
    replications: ReplicationStore, replication: str, stacks: Mapping[str, Sequence[str]], work: Path
) -> Iterator[None]:
    """Take back that a merge has begun if it fails in the block before it changed anything.

    Somebody may have the image open, and write to it before the next try.
    """
    try:
        yield
    except NbdFailed:
        _, document = replications.source(replication)
        same = {
            target: msgspec.structs.replace(document.images.bases[target], merging=False)
            for target, stack in stacks.items()
            if not _change(document.images.bases[target], stack, work)
        }
        replications.change_source(replication, lambda d: d.with_images(bases=d.images.bases | same))
        raise


def forget(replications: ReplicationStore, replication: str, target: str) -> None:
    """Forget what is recorded of the images below ours: there are none of ours above them any more."""

    def change(d: SourceDocument) -> SourceDocument:
        base = d.images.bases[target]
        return d.with_images(bases=d.images.bases | {target: Base(base.path, base.format)})

    replications.change_source(replication, change)


def _is_other(was: Image, now: Image) -> bool:
    """Whether a remote image has another size or other samples than it had. Where one was not read, it has not."""
    known = is_remote(was.path) and min(was.mtime, now.mtime) >= 0
    return known and (was.size, was.mtime) != (now.size, now.mtime)


def insist_same_remote(context: Context, replication: str, targets: Collection[str]) -> None:
    """Check that the remote images below ours are those that the VM had, before they are used without it.

    Raises:
        DisksChanged: one is not. Nothing was changed.
        NbdFailed: one cannot be read.
    """
    if not targets:
        return
    row, document = context.replications.source(replication)
    for target in sorted(set(targets) & document.images.bases.keys()):
        base = document.images.bases[target]
        was = next((image for image in base.below if image.path == base.path), None)
        if was is None or was.mtime < 0 or not is_remote(base.path):
            continue
        size, content = witness(base.path)
        if (was.size, was.mtime) != (size, content):
            raise DisksChanged(
                row.vm_name,
                f"{base.path} has other content than when the VM ran: {target} may be another unit or export now, or"
                " something else wrote to it",
                "Have its server show the right one under this name again. If it is the right one, start the VM: the"
                " next round takes it as it is. If the VM is not defined here any more and what it wrote last does not"
                f" matter, move its overlays out of {context.paths.work(replication)}",
            )


def forget_remote(context: Context, replication: str, targets: Collection[str]) -> None:
    """Forget what remote images were like, durably: our images are merged into them now."""
    _, document = context.replications.source(replication)
    for target in sorted(set(targets) & document.images.bases.keys()):
        if document.images.bases[target].below and is_remote(document.images.bases[target].path):
            forget(context.replications, replication, target)


def _change(base: Base, stack: Sequence[str], work: Path) -> str:
    """Why the images below ours may have been written since they were recorded; empty if they were not."""
    theirs = [ImageLayer(path, "qcow2") for path in stack if not is_own_overlay(path, work)]
    known = {image.path: image for image in base.below}
    try:
        now = files([*theirs, ImageLayer(base.path, base.format)])
    except NbdFailed as error:
        return str(error)
    for image in now:
        was = known.get(image.path)
        if was is None or was.inode < 0:
            return f"it is not recorded how {image.path} was then"
        if image.block and _is_other(was, image):
            return f"{image.path} has other content than then"
        if image.block:
            return f"{image.path} is a device, which does not show whether another VM or host wrote to it since"
        if image.inode != was.inode:
            return f"{image.path} is another file than then"
        if (image.size, image.mtime) != (was.size, was.mtime):
            return f"{image.path} was written by something else since"
    return ""


def _remedy(vm: str, stack: Sequence[str], base: Base, work: Path) -> str:
    """Return what an operator does with images that were not merged: keep the base as it is, or merge by hand."""
    ours = [path for path in stack if is_own_overlay(path, work)]
    delete = "rm " + " ".join(map(shlex.quote, ours))
    if is_remote(base.path) and parse(base.path).protocol == "iscsi":  # No command can log in as the VM.
        return (
            f"If nothing else uses {base.path} and its new content does not matter, define the VM again with a disk"
            f" on {stack[0]} (qcow2), above its unit as <backingStore>: what {vm} wrote last is merged then."
            f" If its present content is the right one, discard what {vm} wrote last: `{delete}`."
            f" Then `seedship replication retry {shlex.quote(vm)}`"
        )
    left, commands = [*stack, base.path], list[str]()
    for path in ours:
        at = left.index(path)
        commands.append(f"qemu-img commit -f qcow2 -d {shlex.quote(path)}")
        if at:
            below = left[at + 1]
            kind = base.format if below == base.path else "qcow2"
            if is_remote(below):
                below = backing(below)
            commands.append(
                f"qemu-img rebase -u -f qcow2 -b {shlex.quote(below)} -F {kind} {shlex.quote(left[at - 1])}"
            )
        left.remove(path)
    return (
        f"If nothing else uses {base.path} and its new content does not matter, merge what {vm} wrote last:"
        f" `{' && '.join([*commands, delete])}`. If its present content is the right one, discard what {vm} wrote last:"
        f" `{delete}`. Then `seedship replication retry {shlex.quote(vm)}`"
    )
