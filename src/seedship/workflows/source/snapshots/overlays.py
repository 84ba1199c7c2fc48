# SPDX-License-Identifier: Apache-2.0
"""Our images above a VM's disks: which images are ours, and how they are merged back, for a VM that runs or is off."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from seedship import failpoints, hypervisor, nbd
from seedship.errors import (
    DisksChanged,
    HypervisorBusy,
    SeedshipError,
    VmElsewhere,
    VmNotFound,
)
from seedship.hypervisor import Host
from seedship.model.remote import is_remote
from seedship.workflows.context import Context, ReplicationStore
from seedship.workflows.documents import Base, SourceDocument
from seedship.workflows.host import with_chains
from seedship.workflows.source.snapshots import detached, foreign
from seedship.workflows.source.snapshots.detached import is_own_overlay

log = logging.getLogger(__name__)
KEPT_SUFFIX = ".kept"
"""Ends the name of an overlay that was set aside."""


def without_overlays(document: SourceDocument) -> SourceDocument:
    """Return the document without overlays, and so without a bitmap that could be trusted."""
    return document.with_images(overlays={}).untracked()


def commit_back(context: Context, replication: str, document: SourceDocument) -> None:
    """Merge our images so that the VM's disks use their original images again. Does nothing if none are above.

    Only our own images are merged and deleted. Images that another tool put above or between stay, with their
    content. A VM that is off, or that somebody undefined, is merged offline: its newest writes are in the overlays.

    Raises:
        DisksChanged: an image that the VM does not have any more may have been written by something else.
        HypervisorError: a merge failed; repeat it.
    """
    row, _ = context.replications.source(replication)
    vm = row.vm_uuid
    # A merged image is no longer in any chain, and so does not block anything.
    context.replications.change_source(replication, lambda d: d.with_stand(None))
    state = hypervisor.state(context.host, vm)
    if state in (None, "shut-off"):
        commit_offline(context, replication, document, defined=state is not None)
        return
    for target, base in document.images.bases.items():
        merge_own(context, replication, target, base.path)
    merge_detached(context, replication, document)  # Last: what prevents it must not keep the guest from its space.
    discard_unused_overlays(context.replications, context.host, replication, document.images.overlays.values())


def discard_unused_overlays(replications: ReplicationStore, host: Host, replication: str, paths: Iterable[str]) -> None:
    """Delete overlays that never entered a chain, and merged ones whose removal a kill interrupted.

    An overlay outside every chain may have been removed from one: an older definition was restored, or a snapshot
    reverted. It may then hold a disk's newest writes. So an overlay with content is deleted only if it was merged.
    An overlay that QEMU has open stays: libvirt may not know of it.
    """
    row, document = replications.source(replication)
    for path in paths:
        file = Path(path)
        if not file.exists() or nbd.is_open(file):
            continue
        if has_unmerged_content(document, path):
            log.warning("%s: %s is in no chain but holds data, so it is kept", row.vm_name, path)
            continue
        with suppress(SeedshipError):  # The VM would start from it.
            hypervisor.discard(host, row.vm_uuid, [path])


def has_unmerged_content(document: SourceDocument, path: str) -> bool:
    """Whether an overlay outside every chain may have a disk's newest writes: it is not blank, and was not merged."""
    file = Path(path)
    return bool(path) and path not in document.images.merging and file.exists() and not nbd.image.is_blank(file)


def reattached_without(target: str, left: Sequence[str]) -> tuple[str, str]:
    """Return what is wrong, and the remedy, for a disk whose newest writes are in overlays that the VM does not use."""
    return (
        f"{target} was reattached without {left[0]}, which has its newest writes",
        f"Shut the VM down and make {target} use {left[0]} (qcow2) again;"
        f" or, to keep its present content, delete {' and '.join(left)}",
    )


def insist_unused(context: Context, replication: str) -> None:
    """Check that no disk of the VM uses an image of ours any more, and that none has writes that nothing else has.

    They can be deleted then.

    Raises:
        DisksChanged: one does, for example because the image below it is not the one that it was put on; or one was
            taken out of its chain, for example by an older definition, and has a disk's newest writes.
    """
    row, _ = context.replications.source(replication)
    work = context.paths.work(replication)
    try:
        vm = with_chains(hypervisor.inspect(context.host, row.vm_uuid))
    except VmNotFound:
        _insist_all_found(context, replication, ())
        return
    for disk in vm.disks:
        if used := next((layer.path for layer in disk.chain if is_own_overlay(layer.path, work)), ""):
            layers = [layer.path for layer in disk.chain]
            raise DisksChanged(
                vm.name,
                f"{disk.target} still uses {used}, which has its newest writes",
                "Start the VM if it is off, then merge the image into the one below it:"
                f" `{hypervisor.merging(vm.name, vm.uuid, disk.target, layers, used)}`",
            )
    _insist_all_found(context, replication, (), defined=True)


def _insist_all_found(context: Context, replication: str, merged: Collection[str], *, defined: bool = False) -> None:
    """Check that each overlay of ours with content is one that is merged next.

    It is deleted afterwards, and may hold a disk's newest writes.

    Args:
        defined: The VM is defined, and none of its disks uses one.

    Raises:
        DisksChanged: one is above nothing that is known. Nothing was changed.
    """
    row, _ = context.replications.source(replication)
    for path in _unfound(context, replication, merged):
        where = "it is not in the longest chain above an image that the VM is known to have had"
        again = "define the VM again with the disk as it was"
        if defined:
            where, again = "no disk of the VM uses it", "shut the VM down and make the disk use it (qcow2) again"
        raise DisksChanged(
            row.vm_name,
            f"{path} has writes to a disk, perhaps its newest, and {where}",
            f"See what it is based on: `qemu-img info -f qcow2 {shlex.quote(path)}`, and {again}."
            " Or, if a disk does not need these writes, move the file to a safe place:"
            f" `mv {shlex.quote(path)} /var/tmp/`",
        )


def set_aside(context: Context, replication: str, merged: Collection[str] = ()) -> None:
    """Keep what ``_insist_all_found`` would refuse, under another name: the VM runs at the other site. Repeatable."""
    row, _ = context.replications.source(replication)
    for path in _unfound(context, replication, merged):
        kept = Path(path + KEPT_SUFFIX)
        Path(path).rename(kept)
        log.warning("%s: %s is kept: it has writes to a disk, and is based on no image of the VM", row.vm_name, kept)


def _unfound(context: Context, replication: str, merged: Collection[str]) -> list[str]:
    _, document = context.replications.source(replication)
    files = sorted(context.paths.work(replication).glob(f"*{detached.OVERLAY_SUFFIX}"))
    return [path for path in map(str, files) if path not in merged and has_unmerged_content(document, path)]


def merge_own(
    context: Context, replication: str, target: str, base: str, *, keep: str = "", leave: bool = False
) -> None:
    """Merge our images of a running VM's disk into those right below them, except ``keep``.

    Args:
        leave: Keep an image that holds another tool's snapshots, instead of raising VmSnapshots.

    Raises:
        VmSnapshots: an image of ours holds another tool's snapshots.
        HypervisorError: as ``commit_overlay``; repeat it.
    """
    row, _ = context.replications.source(replication)
    vm, work = row.vm_uuid, context.paths.work(replication)
    kept = {keep}
    while True:
        disk = hypervisor.inspect(context.host, vm).disk(target)
        names = [] if disk is None else [layer.path for layer in disk.chain]
        next_run = own_run(names, base, work, kept)
        if next_run is None:
            return
        run, below = next_run
        if leave and (needed_by := foreign.needed(context.replications, context.host, replication, run)):
            kept |= set(needed_by)
            continue
        foreign.insist_not_needed(context.replications, context.host, replication, run)
        note_merging(context.replications, replication, run)
        detached.forget_remote(context, replication, [target])
        if run[0] == names[0]:
            hypervisor.commit_overlay(context.host, vm, target, down_to=below, stop=context.stop)
        else:
            hypervisor.commit_between(context.host, vm, target, top=run[0], down_to=below)
        hypervisor.discard(context.host, vm, run)


def note_merging(replications: ReplicationStore, replication: str, run: Sequence[str]) -> None:
    """Record that these images of ours are being merged: what a kill leaves of them seems to have newest writes."""

    def change(d: SourceDocument) -> SourceDocument:
        left = [path for path in d.images.merging if path not in run and Path(path).exists()]
        return d.with_images(merging=(*left, *run))

    replications.change_source(replication, change)


def own_run(chain: Sequence[str], base: str, work: Path, keep: Collection[str] = ()) -> tuple[list[str], str] | None:
    """Return the highest contiguous run of our images (except ``keep``) above ``base``, and the image below the run."""
    if base not in chain:
        return None
    run: list[str] = []
    for path in chain[: chain.index(base) + 1]:
        if path != base and is_own_overlay(path, work) and path not in keep:
            run.append(path)
        elif run:
            return run, path
    return None


def merge_detached(context: Context, replication: str, document: SourceDocument) -> None:
    """Merge our images above disks that the VM does not have any more, or has another image for.

    Raises as ``merge_down``.
    """
    row, _ = context.replications.source(replication)
    vm, work = with_chains(hypervisor.inspect(context.host, row.vm_uuid)), context.paths.work(replication)
    for target, base in document.images.bases.items():
        if not _is_above(vm.disk(target), base.path, work):
            merge_down(context, replication, document, target)


def _is_above(disk: hypervisor.Disk | None, base: str, work: Path) -> bool:
    """Whether a disk is the one that was found with the image ``base``, or has images of ours."""
    paths = [layer.path for layer in disk.chain] if disk is not None else []
    return base in paths or any(is_own_overlay(path, work) for path in paths)


def merge_down(context: Context, replication: str, document: SourceDocument, target: str) -> None:
    """Merge our images above a disk that the VM does not have into the image that the disk was found with.

    They hold the newest writes to the disk. Does nothing if that image is gone. Images of other tools between them
    stay.

    Raises:
        DisksChanged: that image may have been written by something else since. Nothing was changed.
        HypervisorBusy: a process has one of them, or that image, open.
        VmSnapshots: an image of ours holds another tool's snapshots.
        NbdFailed: it cannot be merged; repeat.
    """
    row, _ = context.replications.source(replication)
    base = document.images.bases.get(target)
    if base is None or not (is_remote(base.path) or Path(base.path).exists()):
        return
    work = context.paths.work(replication)
    stack = stack_of(context, replication, document, target)
    if not stack:
        return
    if taken := [path for path in (*stack, base.path) if nbd.is_open(Path(path))]:
        raise HypervisorBusy(row.vm_name, f"something has {taken[0]} open")
    ours = [path for path in stack if is_own_overlay(path, work)]
    foreign.insist_not_needed(context.replications, context.host, replication, ours)
    detached.insist_unchanged(context.replications, replication, {target: stack}, work)
    failpoints.hit("detached.checked")
    with detached.begun(context.replications, replication, {target: stack}, work):
        left = _commit_own(context, replication, stack, base)
    if hypervisor.defined_image(context.host, row.vm_uuid, target) in ours:  # It comes back at the next start.
        top = base.format if left[0] == base.path else "qcow2"
        hypervisor.redefine_disks(context.host, row.vm_uuid, {target: (left[0], top)}, document.images.access)
    for path in ours:
        Path(path).unlink()
    detached.forget(context.replications, replication, target)


def _commit_own(context: Context, replication: str, stack: Sequence[str], base: Base) -> list[str]:
    """Merge our images of a stack that nobody has open; return those that are left, newest first, with the base."""
    left, work = [*stack, base.path], context.paths.work(replication)
    while next_run := own_run(left, base.path, work):
        run, below = next_run
        for path in run:
            nbd.image.commit(Path(path))
        note_merging(context.replications, replication, run)  # They leave the chain, and are deleted at the end.
        at = left.index(run[0])
        if at:
            nbd.image.rebase(Path(left[at - 1]), Path(below), base.format if below == base.path else "qcow2")
        left = [path for path in left if path not in run]
        log.info("merged %s into %s", ", ".join(run), below)
    return left


def commit_offline(
    context: Context, replication: str, document: SourceDocument, *, defined: bool, released: bool = False
) -> None:
    """Merge our images into the disks' original ones, for a VM that is off or no longer ``defined``.

    Files are deleted last, when the definition uses the image that has their content, and only while nothing uses
    them: a VM may start at any time.

    Args:
        released: seedship itself undefined the VM, just now: nobody else can have used its disks.

    Raises:
        DisksChanged: the VM is not defined, and an original image may have been written by something else since.
        VmElsewhere: something, perhaps at another host, has an image open for writing. Nothing was changed.
        HypervisorBusy: the VM started meanwhile; repeat.
    """
    row, _ = context.replications.source(replication)
    vm, work = row.vm_uuid, context.paths.work(replication)
    stacks = {
        target: stack
        for target in document.images.bases
        if (stack := stack_of(context, replication, document, target, defined=defined))
    }
    for target, stack in stacks.items():
        if any(nbd.is_written(Path(path)) for path in (*stack, document.images.bases[target].path)):
            raise VmElsewhere(row.vm_name, f"it is off, but something writes to {stack[0]}")
        if defined:
            foreign.insist_not_needed(
                context.replications, context.host, replication, [p for p in stack if is_own_overlay(p, work)]
            )
    if not defined:
        settle = set_aside if released else _insist_all_found
        settle(context, replication, [path for stack in stacks.values() for path in stack])
    insisted = {} if defined or released else stacks
    detached.insist_same_remote(context, replication, [target for target, stack in stacks.items() if stack])
    detached.insist_unchanged(context.replications, replication, insisted, work)
    detached.forget_remote(context, replication, stacks)
    merged: list[str] = []
    tops: dict[str, tuple[str, str]] = {}
    for target, stack in stacks.items():
        base = document.images.bases[target]
        with detached.begun(context.replications, replication, insisted, work):
            left = _commit_own(context, replication, stack, base)
        merged += [path for path in stack if path not in left]
        if left[0] != stack[0]:
            tops[target] = (left[0], base.format if left[0] == base.path else "qcow2")
    if defined and tops:
        before = {t: (stacks[t][0], "qcow2") for t in tops}
        hypervisor.redefine_disks(context.host, vm, tops, document.images.access)
        failpoints.hit("offline.redefined")
        if hypervisor.state(context.host, vm) != "shut-off":
            # The VM started in between, on the images that were on top: what it writes goes there.
            live = hypervisor.inspect(context.host, vm)
            used = {t: at for t, at in before.items() if (d := live.disk(t)) and d.path == at[0]}
            if used:
                hypervisor.redefine_disks(context.host, vm, used)
            raise HypervisorBusy(row.vm_name, "it started while its overlays were merged")
    if defined:
        hypervisor.discard(context.host, vm, merged)
    else:
        for path in merged:
            Path(path).unlink(missing_ok=True)
    if defined:
        merge_detached(context, replication, document)
    drop_bitmaps(document)


def stack_of(
    context: Context, replication: str, document: SourceDocument, target: str, *, defined: bool = False
) -> list[str]:
    """Return the images above the disk's base, newest first. Without a definition, our highest stack is taken."""
    base = document.images.bases[target].path
    if defined:
        row, _ = context.replications.source(replication)
        disk = with_chains(hypervisor.inspect(context.host, row.vm_uuid)).disk(target)
        if disk is None or not _is_above(disk, base, context.paths.work(replication)):
            return []
        return _above(disk.path, base)
    files = context.paths.work(replication).glob(f"*{target}.overlay")
    return max((_above(str(path), base) for path in files), key=len, default=[])


def _above(top: str, base: str) -> list[str]:
    """Return the images from ``top`` down to ``base``, exclusive; empty if ``base`` does not back ``top``."""
    images: list[str] = []
    path = top
    while path and path != base:
        if not Path(path).exists():
            return []
        images.append(path)
        path = nbd.image.info(Path(path), image_format="qcow2", force_share=True).backing or ""
    return images if path == base else []


def drop_bitmaps(document: SourceDocument) -> None:
    """Remove our bitmaps from the images of a VM that is off."""
    for base in document.images.bases.values():
        if base.format == "qcow2" and Path(base.path).exists():
            for bitmap in nbd.image.info(Path(base.path), image_format="qcow2").bitmaps:
                if bitmap.name.startswith(hypervisor.PREFIX):
                    nbd.image.remove_bitmap(Path(base.path), bitmap.name)
