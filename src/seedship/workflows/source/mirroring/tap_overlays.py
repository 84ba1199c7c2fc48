# SPDX-License-Identifier: Apache-2.0
"""The end of a tap's overlays: they are merged into the images below, also those of disks that were detached."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from seedship import hypervisor, nbd
from seedship.errors import HypervisorError, SeedshipError
from seedship.workflows.context import Context
from seedship.workflows.host import clear_leftovers
from seedship.workflows.source.snapshots import detached, foreign
from seedship.workflows.source.snapshots.detached import is_own_overlay
from seedship.workflows.source.snapshots.overlays import (
    commit_back,
    has_unmerged_content,
    merge_down,
    note_merging,
    without_overlays,
)


def merge(context: Context, replication: str, vm: str) -> None:
    """Merge the tap's overlays of the VM's disks into the images below them. Repeatable.

    Raises:
        HypervisorError: one could not be merged; repeat.
    """
    _, document = context.replications.source(replication)
    assert document.tap is not None
    if hypervisor.state(context.host, vm) not in ("running", "paused"):
        commit_back(context, replication, document)
        context.replications.change_source(replication, without_overlays)
        return
    clear_leftovers(context, replication)
    facts = hypervisor.inspect(context.host, vm)
    for target, below in document.tap.below.items():
        disk = facts.disk(target)
        path = document.tap.overlays[target]
        if disk is None:
            continue
        names = [layer.path for layer in disk.chain]
        if path in names:
            foreign.insist_not_needed(context.replications, context.host, replication, [path])
        if path in names and names[0] != path and not is_own_overlay(names[0], context.paths.work(replication)):
            # Another tool's snapshot is based on it, and stays.
            _begin(context, replication, target, [path])
            hypervisor.commit_between(context.host, vm, target, top=path, down_to=below)
            hypervisor.discard(context.host, vm, [path])
        elif path in names:
            _begin(context, replication, target, names[: names.index(below)] if below in names else [path])
            above = hypervisor.commit_overlay(
                context.host, vm, target, down_to=below, stop=context.interrupts.stopping(replication)
            )
            hypervisor.discard(context.host, vm, above)
        # Left by a push that a kill interrupted. One with content was taken out of the chain by somebody: it is kept.
        if not nbd.is_open(Path(path)) and not has_unmerged_content(document, path):
            with suppress(HypervisorError):
                hypervisor.discard(context.host, vm, [path])


def _begin(context: Context, replication: str, target: str, run: Sequence[str]) -> None:
    """Record durably that images of ours are being merged, which changes what is below them."""
    note_merging(context.replications, replication, run)
    detached.forget_remote(context, replication, [target])


def merge_detached(context: Context, replication: str, vm: str) -> SeedshipError | None:
    """Merge the tap's overlays of disks that the VM does not have any more; return what prevents it.

    That must not keep the tap open: the overlays of the other disks would grow until their file system is full. What is
    left is found by its name when the disk is left out, or the replication ends.
    """
    _, document = context.replications.source(replication)
    assert document.tap is not None
    try:
        if hypervisor.state(context.host, vm) in ("running", "paused"):
            facts = hypervisor.inspect(context.host, vm)
            for target in document.tap.below:
                if facts.disk(target) is None:
                    merge_down(context, replication, document, target)
    except SeedshipError as error:
        return error
    return None
