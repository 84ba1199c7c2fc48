# SPDX-License-Identifier: Apache-2.0
"""Cleanup of what a killed libvirtd or daemon left in libvirt and QEMU, before the next job on a VM starts."""

from __future__ import annotations

import logging
from pathlib import Path

from seedship import beneath, durable, hypervisor, nbd, store
from seedship.errors import HypervisorBusy
from seedship.model import blockgraph, lifecycle
from seedship.model.remote import is_remote
from seedship.paths import Paths
from seedship.workflows.context import Context
from seedship.workflows.documents import Base, SourceDocument

log = logging.getLogger(__name__)


def own_nodes(paths: Paths, replication: str) -> blockgraph.Ours:
    """Return the marks by which objects in QEMU are known to belong to a replication."""
    return blockgraph.Ours(*_marks(paths, replication))


def _marks(paths: Paths, replication: str) -> tuple[str, str]:
    return str(paths.work(replication)), f"{hypervisor.PREFIX}{replication[:8]}-"


def clear_leftovers(context: Context, replication: str, *, insist: bool = False) -> None:
    """End a cut that was left open, and remove the replication's objects that QEMU has and libvirt does not know.

    QEMU is asked only if libvirt may have forgotten something. With ``insist`` it is always asked,
    and nothing may remain.

    Raises:
        HypervisorBusy: A job does not end, or another tool's job runs; or QEMU does not release
            what the guest writes to, or (``insist``) anything else.
        HypervisorError: libvirt or QEMU does not answer. Call again.
    """
    row, _ = context.replications.source(replication)
    hypervisor.recover(context.host, row.vm_uuid)
    if not insist and not hypervisor.may_have_forgotten(context.host, row.vm_uuid):
        return
    held = _clean(context, row, own_nodes(context.paths, replication))
    if held and insist:
        raise HypervisorBusy(row.vm_name, f"QEMU does not let go of {'; '.join(held)}")


def clear_layers(context: Context, row: store.Replication, layers: frozenset[str]) -> None:
    """At the destination: end and undo a merge of these replica layers that QEMU has and libvirt does not know.

    The layers are below the VM that runs on them. QEMU is asked only if libvirt may have forgotten
    something, and then nothing may remain.

    Raises:
        HypervisorBusy: A job does not end, or QEMU does not release an object.
        HypervisorError: libvirt or QEMU does not answer. Call again.
    """
    if not hypervisor.may_have_forgotten(context.host, row.vm_uuid):
        return
    if held := _clean(context, row, blockgraph.Ours(*_marks(context.paths, row.id), layers)):
        hypervisor.doubt(context.host, row.vm_uuid)
        raise HypervisorBusy(row.vm_name, f"QEMU does not let go of {'; '.join(held)}")


def _clean(context: Context, row: store.Replication, of: blockgraph.Ours) -> list[str]:
    done, held = hypervisor.clean(
        context.host, row.vm_uuid, of, _Disks(context, row), context.interrupts.stopping(row.id)
    )
    merged = [act.file for act in done if act.verb == "fold"]
    if merged and row.role == "source":
        context.replications.change_source(row.id, lambda d: d.with_images(merging=(*d.images.merging, *merged)))
    if done or held:
        removed = [act.shown for act in done]
        log.warning("%s: QEMU had objects that libvirt had forgotten; removed %s, kept %s", row.vm_name, removed, held)
        context.catalog.events.note(row.id, "qemu-cleared", {"removed": removed, "held": held})
    return held


def _distrusted(document: SourceDocument) -> SourceDocument:
    """Return the document without what it says of images below ours: what is merged into them changes them."""
    bases = {
        target: Base(base.path, base.format) if is_remote(base.path) else base
        for target, base in document.images.bases.items()
    }
    return document.with_stand(None).with_images(bases=bases)


class _Disks:
    """The disks of a VM that runs here, as ``hypervisor.clean`` needs them."""

    def __init__(self, context: Context, row: store.Replication) -> None:
        self._context, self._of = context, row

    def distrust(self) -> None:
        """Require a scan for the next epoch: the guest wrote to unrecorded images, or recorded ones are removed."""
        for row in self._context.catalog.replications.all():
            here = row.role == "source" and row.vm_uuid == self._of.vm_uuid
            if here and (row.id == self._of.id or row.state not in lifecycle.ENDED):
                self._context.replications.change_source(row.id, _distrusted)

    def empty(self, overlay: Path, base: Path, image_format: str) -> None:
        """Replace an overlay by an empty one, with the same owner as before."""
        fresh = overlay.with_name(f"{overlay.name}.new")
        fresh.unlink(missing_ok=True)
        size = nbd.image.info(base, image_format=image_format, force_share=True).virtual_size
        nbd.image.create(fresh, "qcow2", size, backing=base, backing_format=image_format)
        owner = (overlay if overlay.exists() else overlay.parent).stat()
        beneath.give(fresh, owner, owner.st_mode & 0o777 if overlay.exists() else None)
        durable.sync(fresh)
        fresh.replace(overlay)
        durable.sync(overlay.parent)
