# SPDX-License-Identifier: Apache-2.0
"""Where the images of a replica are made: the folder of the site, or a libvirt storage pool that is one.

In a pool the image of each disk is a volume: a file of the pool's folder. libvirt lists no files of folders in it.
What is above it (layers of recovery points and rounds, memory, UEFI variables) is in a folder beside it, on the same
file system. The destination's configuration names the pools; a peer's text is only compared with those names.

libvirt takes a folder for its pool also where the file system that belongs there is not mounted. So the mount point is
recorded when a replication is accepted, and whatever makes files insists that something is mounted there.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seedship import hypervisor, link, paths
from seedship.errors import FolderSilent, HypervisorError, PoolUnavailable
from seedship.hypervisor import StoragePool
from seedship.model import PreflightFinding, lifecycle
from seedship.runtime import answered
from seedship.workflows import messages
from seedship.workflows.context import Context
from seedship.workflows.documents import DestinationDocument, PoolPlace

SILENT: Final = "there.storage-silent"


@dataclass(frozen=True, slots=True)
class ImagePlace:
    """Where a replica's images are, or would be."""

    folder: Path
    names: tuple[str, ...]
    """Of the disks, as in the document."""
    pool: PoolPlace | None = None
    findings: tuple[PreflightFinding, ...] = ()
    """What keeps images from being made there."""


def silent(error: FolderSilent) -> PreflightFinding:
    """Return the finding of a file system that does not answer."""
    return _finding(SILENT, str(error), error.advice())


def image_place(context: Context, peer: link.Peer, request: messages.Request) -> ImagePlace:
    """Return where the images of a requested replication are made. One of the peer that exists keeps its place.

    Raises:
        FolderSilent: the file system there does not answer.
    """
    rows = context.catalog.replications.some([request.replication])
    if any((row.role, row.peer) == ("destination", peer.site) for row in rows):
        _, document = context.replications.destination(request.replication)
        return ImagePlace(Path(document.folder), document.names_for(request.disks), document.pool)
    wanted = request.pool or context.config.storage.pool
    plain = tuple(f"{spec.target}.{spec.format}" for spec in request.disks)
    here = ImagePlace(context.paths.replica(request.vm_name, request.replication), plain)
    if not wanted:
        parent = context.config.replicas
        if answered(parent, parent.is_dir):
            return here
        missing = _finding(
            "there.storage", f"{parent} does not exist there", f"mkdir --parents {shlex.quote(str(parent))}"
        )
        return ImagePlace(here.folder, plain, findings=(missing,))
    offered = (context.config.storage.pool, *context.config.storage.pools)
    if wanted not in offered:
        return ImagePlace(here.folder, plain, findings=(_not_offered(context, wanted),))
    try:
        pool, obstacle = pool_obstacle(context, wanted, there=" there")
    except HypervisorError as error:
        return ImagePlace(here.folder, plain, findings=(_finding("there.hypervisor", str(error), error.advice()),))
    if obstacle is not None or pool is None:
        return ImagePlace(here.folder, plain, findings=(obstacle,) if obstacle else ())
    folder = context.paths.replica(request.vm_name, request.replication, pool.path)
    names = tuple(str(paths.volume(folder, spec.target, str(spec.format))) for spec in request.disks)
    taken = tuple(
        _finding(
            "there.volume",
            f"The pool {pool.name} there has a file {Path(name).name} already",
            f"Move it away there: `mv {shlex.quote(str(name))} {shlex.quote(str(name))}.old`",
        )
        for name in names
        if answered(name, lambda name=name: os.path.lexists(name))  # type: ignore[misc]
    )
    return ImagePlace(folder, names, PoolPlace(pool.name, pool.kind, paths.mount_of(pool.path)), taken)


def _not_offered(context: Context, wanted: str) -> PreflightFinding:
    offered = [name for name in (context.config.storage.pool, *context.config.storage.pools) if name]
    has = f"it offers {', '.join(dict.fromkeys(offered))}" if offered else "it offers none"
    return _finding(
        "there.pool",
        f"{context.identity.name} offers no storage pool {wanted!r} for replicas: {has}",
        "Choose another --pool, or have it offered there: pools in [storage] of its site.toml, then"
        f" {hypervisor.RESTART}",
    )


def pool_obstacle(
    context: Context, name: str, *, there: str = ""
) -> tuple[StoragePool | None, PreflightFinding | None]:
    """Return a pool of this host, and what keeps images from being made in it: None if nothing does.

    Args:
        there: Follows the names of places, for a peer: " there".

    Raises:
        FolderSilent: the pool's file system does not answer.
        HypervisorError: libvirt does not answer.
    """
    pool = hypervisor.find_pool(context.host, name)
    if pool is None:
        return None, _obstacle(context, name, pool, there)
    return pool, answered(pool.path, lambda: _obstacle(context, name, pool, there))


def _obstacle(context: Context, name: str, pool: StoragePool | None, there: str) -> PreflightFinding | None:
    quoted = shlex.quote(str(name))
    if pool is None:
        return _finding(
            "there.pool",
            f"libvirt{there} has no storage pool {name}",
            f"Define it{there}, or name another one (`virsh pool-list --all`) in [storage] of its site.toml, then"
            f" {hypervisor.RESTART}",
        )
    if pool.kind not in hypervisor.FOLDERS:
        return _finding(
            "there.pool",
            f"The storage pool {name}{there} is of type {pool.kind}: replicas are made in pools of type dir, fs and"
            " netfs only",
            f"Name such a pool in [storage] of its site.toml, then {hypervisor.RESTART}. To put a replica on volumes of"
            f" this pool, make them{there} (`virsh vol-create-as`) and name them with the import:"
            " `seedship shipment import DRIVE --disk TARGET=VOLUME-PATH`",
        )
    if not pool.active:
        autostart = "" if pool.autostart else f". Have it started at boot: `virsh pool-autostart {quoted}`"
        return _finding(
            "there.pool",
            f"The storage pool {name}{there} is not active",
            f"Start it{there}: `virsh pool-start {quoted}`{autostart}",
        )
    if pool.kind in hypervisor.MOUNTED and not paths.is_mounted(os.path.realpath(pool.path)):
        return _finding(
            "there.pool",
            f"No file system is mounted at {pool.path}{there}, though libvirt takes the storage pool {name} for active",
            f"Start it anew{there}: `virsh pool-destroy {quoted}`, then `virsh pool-start {quoted}`",
        )
    if (gone := _unmounted(context, pool)) is not None:
        return _finding(
            "there.pool",
            f"No file system is mounted at {gone}{there}, where the storage pool {name} was",
            f"Mount it{there}: `mount {shlex.quote(str(gone))}`",
        )
    if not pool.path.is_dir():
        return _finding(
            "there.pool",
            f"{pool.path}, the folder of the storage pool {name}{there}, does not exist",
            f"Make it{there}: `mkdir --parents {shlex.quote(str(pool.path))}`",
        )
    if not os.access(pool.path, os.W_OK | os.X_OK):
        return _finding(
            "there.pool",
            f"The daemon cannot write to {pool.path}, the folder of the storage pool {name}{there}",
            "If the pool is new, let the service see it: `systemctl daemon-reload`, then"
            f" {hypervisor.RESTART}. NFS must be exported with no_root_squash",
        )
    return None


def _unmounted(context: Context, pool: StoragePool) -> str | None:
    """Return where a file system was mounted when a replica of this pool was accepted, and is not now."""
    for row, document in context.known.destinations():
        place = document.pool
        if (
            place
            and row.state not in lifecycle.ENDED
            and Path(document.folder).parent == pool.path
            and not paths.is_mounted(place.mount)
        ):
            return place.mount
    return None


def insist_mounted(vm: str, document: DestinationDocument, *, to_delete: bool = False) -> None:
    """Check that the file system of a replica in a storage pool is mounted: what is not there is gone then.

    Args:
        to_delete: Its images are about to be deleted.

    Raises:
        PoolUnavailable: it is not.
    """
    pool = document.pool
    if pool is None or paths.is_mounted(pool.mount):
        return
    hint = f"Mount it: `mount {shlex.quote(str(pool.mount))}`"
    if pool.kind in hypervisor.MOUNTED:
        quoted = shlex.quote(str(pool.name))
        hint = (
            f"Start the pool: `virsh pool-start {quoted}`. If libvirt takes it for active, first"
            f" `virsh pool-destroy {quoted}`"
        )
    if to_delete:
        hint += (
            ". If its file system is lost for good, mount an empty one there until this has ended:"
            f" `mount -t tmpfs none {shlex.quote(str(pool.mount))}`"
        )
    raise PoolUnavailable(vm, pool.name, f"no file system is mounted at {pool.mount}", hint)


def insist_images(vm: str, document: DestinationDocument, *, made: bool = True) -> None:
    """Check that a replica's images in a storage pool can be reached, before anything is written beside them.

    Args:
        made: Its folder was made already.

    Raises:
        FolderSilent: the file system does not answer.
        PoolUnavailable: the file system is not mounted, or the folder is gone.
    """
    if document.pool is not None:
        answered(document.folder, lambda: _insist_images(vm, document, made=made))


def _insist_images(vm: str, document: DestinationDocument, *, made: bool) -> None:
    insist_mounted(vm, document)
    if (pool := document.pool) is None:
        return
    folder = Path(document.folder)
    if not (folder if made else folder.parent).is_dir():
        why = f"{folder if made else folder.parent} does not exist"
        raise PoolUnavailable(
            vm, pool.name, why, "Bring the folder back as it was. A replica that is lost is begun anew"
        )


def _finding(code: str, what: str, clear: str) -> PreflightFinding:
    return PreflightFinding(code, True, what, clear)
