# SPDX-License-Identifier: Apache-2.0
"""Use a copy that the destination already has as the seed: choose it, hash it, and hand out its hashes.

The adopted images are used in place; nothing is copied. ``source.epochs.adopted_seed`` uses the hashes.
"""

from __future__ import annotations

import os
import shlex
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from seedship import durable, hypervisor, nbd, store
from seedship.errors import Conflict, FolderSilent, HypervisorError, InvalidRequest
from seedship.hypervisor import Vm
from seedship.model import DiskSpec, PreflightFinding, lifecycle
from seedship.model.text import printable
from seedship.replica import Replica
from seedship.runtime import Stopped, answered
from seedship.workflows import messages
from seedship.workflows.context import Context
from seedship.workflows.documents import DestinationDocument
from seedship.workflows.host import Identity, identity_of, insist_free_device, user_of
from seedship.workflows.protocol import Theirs
from seedship.workflows.provisioning import (
    given_up_images,
    insist_images,
    is_given_up_here,
    silent,
    take_replica_folder,
)
from seedship.workflows.target import replica_files


class Adopted(NamedTuple):
    """Images that become a replica, in the order of its disks."""

    disks: tuple[DiskSpec, ...]
    names: tuple[str, ...]


def adopt_images(context: Context, replication: str, images: Mapping[str, str]) -> None:
    """Choose images as the replica. Only the catalog is changed.

    Args:
        images: Path of the image for each disk, by target.

    Raises:
        Conflict: the seed is under way already, or an image is in use.
        FolderSilent: a file system does not answer, so it is not known which images are in use.
        HypervisorUnreachable: libvirt does not answer, so neither is it.
        InvalidRequest: an image cannot be the disk.
    """
    row, document = context.replications.destination(replication)
    if document.book.seed != "absent" or document.parts or document.adopted:
        raise Conflict(
            f"The replication of {row.vm_name}",
            "has its seed on the way already",
            "Abort it, and start anew without drives",
        )
    if set(images) != {spec.target for spec in document.disks}:
        names = ", ".join(spec.target for spec in document.disks)
        raise InvalidRequest("--disk", f"an image is needed for each of {names}")
    take_adopted(context, replication, checked(context, row.id, row.vm_uuid, row.peer, document.disks, images))


def take_adopted(context: Context, replication: str, adopted: Adopted) -> None:
    """Record images that were checked as those of a replication that exists."""
    context.replications.change_destination(replication, lambda d: with_adopted(d, adopted))


def with_adopted(document: DestinationDocument, adopted: Adopted) -> DestinationDocument:
    """Return a document whose replica are these images."""
    disks, names = adopted
    return msgspec.structs.replace(document, disks=disks, names=names, adopted="chosen", problem=None)


def left_here(
    context: Context, peer: str, request: messages.Request
) -> tuple[Adopted | None, tuple[PreflightFinding, ...]]:
    """Return the disks that a VM left here when it was given up, as the seed of its return, or what is against it.

    A disk that grew at the peer grows here, before it is hashed. A disk that was left out, or was detached at the peer
    since, stays as it is. Nothing is changed.
    """
    try:
        old = given_up_images(context.catalog, context.host, request.vm_uuid, peer)
        images = {disk.target: old[disk.target] for disk in request.disks if disk.target in old}
        if len(images) < len(request.disks):
            return None, ()  # ``home_findings`` says which.
        old_disks = checked(context, request.replication, request.vm_uuid, peer, request.disks, images, grow=True)
    except FolderSilent as error:
        return None, (silent(error),)
    except (Conflict, HypervisorError, InvalidRequest) as error:
        return None, (PreflightFinding("there.no-home-image", True, printable(str(error)), printable(error.advice())),)
    return old_disks, ()


def checked(
    context: Context,
    replication: str,
    vm: str,
    peer: str,
    disks: Sequence[DiskSpec],
    images: Mapping[str, str],
    *,
    grow: bool = False,
) -> Adopted:
    """Check images of a VM's disks, and return them as disks of its replica.

    Args:
        grow: Accept images that are smaller than the disks. Only for images that are known to be the VM's: where an
            operator names them, a wrong size reveals a wrong image.

    Raises: as ``adopt_images``.
    """
    vms = [
        other
        for other in hypervisor.inventory(context.host)
        if other.uuid != vm or not is_given_up_here(context.catalog, context.host, vm, peer)
    ]
    specs, names = [], []
    for spec in disks:
        path = Path(images[spec.target])
        specs.append(answered(path, lambda spec=spec, path=path: _adoptable(spec, path, grow=grow)))  # type: ignore[misc]
        _insist_unused(context, replication, path, vms)
        names.append(str(path))
    if len({identity_of(name) for name in names}) < len(names):
        raise InvalidRequest("--disk", "two disks cannot have one image")
    return Adopted(tuple(specs), tuple(names))


def _insist_unused(context: Context, replication: str, path: Path, vms: Sequence[Vm]) -> None:
    """Check that an image is no other replica's or clone's, nor one of these VMs'.

    Raises:
        Conflict: it is.
    """
    real = Path(answered(path, lambda: os.path.realpath(path)))
    identity = identity_of(path)
    for other, document in context.known.destinations():
        ended = other.state in lifecycle.ENDED and (document.clean or other.state == "done")
        folder = Path(document.folder)
        inside = real.is_relative_to(answered(folder, lambda folder=folder: os.path.realpath(folder)))  # type: ignore[misc]
        based = inside and any(not clone.full for clone in document.clones)
        if other.id != replication and (based or (inside and not ended)):
            raise _taken(path, f"the replication of {other.vm_name}")
    for other_id, image_path in replica_files.named_images(context.known):
        if other_id != replication and identity_of(image_path) == identity and _is_live(context, other_id, identity):
            raise _taken(path, f"the replication {other_id[:8]} or a clone of it")
    if (user := user_of(vms, path)) is not None:
        raise _taken(path, f"the VM {user.name}")


def _is_live(context: Context, replication: str, identity: Identity) -> bool:
    """Whether an image is a clone's, or one of a replica whose VM was not taken over."""
    row, document = context.replications.destination(replication)
    return row.state != "done" or all(identity_of(Path(document.folder, n)) != identity for n in document.names)


def _taken(path: Path, user: str) -> Conflict:
    return Conflict(f"The image {path}", f"is in use by {user}", "Name a copy of it: `cp --sparse=always`")


def _adoptable(spec: DiskSpec, path: Path, *, grow: bool) -> DiskSpec:
    if not path.is_absolute() or not path.exists():
        raise InvalidRequest(spec.target, f"there is no {path}")
    if path.is_block_device():
        insist_free_device(path)
    # A copy of a raw disk begins with whatever its guest wrote there: qemu-img would follow any path in it.
    kind, elsewhere = ("raw", False) if path.is_block_device() else nbd.image.read_header(path)
    if elsewhere:
        raise InvalidRequest(spec.target, f"{path} is based on another file. Flatten it first (qemu-img convert)")
    image = nbd.image.info(path, image_format=kind)
    if image.backing or image.external_data:
        raise InvalidRequest(spec.target, f"{path} is based on another file")
    size = image.virtual_size
    if size > spec.size or (size < spec.size and not (grow and not path.is_block_device())):
        how = (
            f"`qemu-img resize -f {image.format} "
            f"{'--shrink ' if size > spec.size else ''}{shlex.quote(str(path))} {spec.size}`"
        )
        why = f"If it is the right image, resize it first ({'extend the device' if path.is_block_device() else how})"
        raise InvalidRequest(spec.target, f"{path} has {size} bytes, the disk {spec.size}. {why}")
    return msgspec.structs.replace(spec, format=image.format)


def hash_adopted_images(context: Context, replication: str) -> None:
    """Hash the chosen images, and notify the source that they are ready. Repeatable.

    Raises:
        NbdFailed: an image cannot be read, or is in use.
        PoolUnavailable: its folder in a storage pool cannot be reached.
    """
    row, document = context.replications.destination(replication)
    folder = context.paths.replication(row.id) / "replica"
    insist_images(row.vm_name, document, made=False)
    take_replica_folder(context.paths, row.id, Path(document.folder), parents=document.pool is None)
    for spec, name in zip(document.disks, document.names, strict=True):
        path = Path(name)
        if not path.is_block_device() and (nbd.image.info(path, image_format=spec.format).virtual_size < spec.size):
            nbd.image.resize(path, spec.format, spec.size)
    replica = Replica.adopt(
        folder,
        Path(document.folder),
        list(document.disks),
        list(document.names),
        context.keys.hash_key(row.id),
    )
    try:
        for spec in document.disks:
            data = replica.hashes(spec.index, stop=context.interrupts.stopping(replication)).tobytes()
            if context.interrupts.stopping(replication).is_set():
                raise Stopped
            durable.replace(context.paths.hashes(row.id, spec.index), data)
        replica.adopted()
    finally:
        replica.close()
    message = msgspec.msgpack.encode(messages.Word(replication))
    context.replications.change_destination(
        replication,
        lambda d: msgspec.structs.replace(d, adopted="hashed", missing=0, problem=None),
        along=store.Along(events=[("adopted", {})], messages=[("adopted", message)]),
    )


def adopted_hashes(context: Context, theirs: Theirs, request: messages.AskAdopted) -> messages.AdoptedHashes:
    """Return the hashes of a range of blocks.

    Raises:
        Conflict: nothing was adopted, or the replica is past its seed.
        InvalidRequest: there are no such blocks.
    """
    _, row, document = theirs
    if document.adopted != "hashed" or document.book.epoch >= 0:
        raise Conflict(f"The replica of {row.vm_name}", "was not adopted, or is past its seed")
    if not 0 <= request.disk < len(document.disks) or not 0 < request.count <= messages.HASHES_A_CALL:
        raise InvalidRequest("blocks", "there are no such blocks")
    with context.paths.hashes(row.id, request.disk).open("rb") as file:
        data = os.pread(file.fileno(), request.count * 16, max(0, request.first) * 16)
    return messages.AdoptedHashes(zlib.compress(data, 1))
