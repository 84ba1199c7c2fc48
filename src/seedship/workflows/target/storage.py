# SPDX-License-Identifier: Apache-2.0
"""Choose where the disks of a replica that does not exist yet are stored: new files, or unused block devices."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from seedship import hypervisor
from seedship.errors import AlreadyExists, Conflict, InvalidRequest
from seedship.model import DiskSpec
from seedship.runtime import answered
from seedship.workflows.context import Context
from seedship.workflows.host import identity_of, insist_free_device, user_of
from seedship.workflows.target.replica_files import named_images


def choose_storage(context: Context, replication: str, storage: Mapping[str, str]) -> None:
    """Store disks of a replica that does not exist yet in these new files or block devices.

    Args:
        storage: Path for each disk, by target.

    Raises:
        Conflict: the replica exists, a device is in use, also by a VM that is off, or a path is that of another disk.
        FolderSilent: a file system does not answer, so it is not known what is in use.
        HypervisorUnreachable: libvirt does not answer, so it is not known which devices VMs have.
        AlreadyExists: the file exists.
        InvalidRequest: there is no such disk, or the path cannot be used.
    """
    replications = context.replications
    _, document = replications.destination(replication)
    if (context.paths.replication(replication) / "replica").exists():
        raise Conflict("The replica", "has its storage already", "Abort, and start anew")
    specs, names = list(document.disks), list(document.names)
    kinds = {path: identity_of(path) for path in storage.values()}
    vms = hypervisor.inventory(context.host)
    for target, path in storage.items():
        at = next((n for n, spec in enumerate(specs) if spec.target == target), None)
        if at is None:
            raise InvalidRequest(target, "the VM has no such disk")
        if (vm := user_of(vms, path)) is not None:
            raise Conflict(f"The path {path}", f"is a disk of the VM {vm.name}", f"Name another one for {target}")
        names[at] = path
        spec = specs[at]
        kind = answered(path, lambda target=target, path=path, spec=spec: _place_for(target, Path(path), spec))  # type: ignore[misc]
        specs[at] = msgspec.structs.replace(spec, format=kind)
    used = [path for other, path in named_images(context.known) if other != replication]
    for target, path in storage.items():
        others = [*used, *(Path(document.folder, name) for at, name in enumerate(names) if specs[at].target != target)]
        if any(identity_of(other) == kinds[path] for other in others):
            raise Conflict(f"The path {path}", "is that of another disk", f"Name another one for {target}")
    replications.change_destination(
        replication,
        lambda d: msgspec.structs.replace(d, disks=tuple(specs), names=tuple(names)),
    )


def _place_for(target: str, path: Path, spec: DiskSpec) -> str:
    """Return the image format for a disk at a path."""
    if not path.is_absolute() or not path.parent.is_dir():
        raise InvalidRequest(target, f"{path} is not an absolute path in an existing folder")
    if not path.exists():
        return {".qcow2": "qcow2", ".raw": "raw", ".img": "raw"}.get(path.suffix, str(spec.format))
    if not path.is_block_device():
        raise AlreadyExists(f"The file {path}", "exists", "Name a new file or a block device")
    insist_free_device(path)
    device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    size = os.lseek(device, 0, os.SEEK_END)
    os.close(device)
    if size < spec.size:
        raise InvalidRequest(target, f"{path} has {size} bytes, the disk {spec.size}")
    return "raw"
