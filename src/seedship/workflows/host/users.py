# SPDX-License-Identifier: Apache-2.0
"""Which VM of this host uses an image, running or off, by whatever path, link or device node it names it.

A file system whose server does not answer is waited for only briefly.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from seedship import nbd
from seedship.errors import Conflict, FolderSilent, NbdFailed
from seedship.hypervisor import ImageLayer, Vm
from seedship.runtime import answered

Identity = tuple[object, ...]


def identity_of(path: str | Path) -> Identity:
    """Return what is equal for two paths of one image: a file by whatever link, a block device by whatever node.

    A path where nothing is yet is known by its text, with links resolved.

    Raises:
        FolderSilent: Its file system does not answer.
    """
    if not os.path.isabs(path):
        return "elsewhere", str(path)  # QEMU opens it over the network.
    return answered(path, lambda: _identity(path))


def _identity(path: str | Path) -> Identity:
    try:
        status = os.stat(path)
    except OSError:
        return "nothing", os.path.realpath(path)
    if stat.S_ISBLK(status.st_mode):
        return "device", status.st_rdev
    return "file", status.st_dev, status.st_ino


def insist_free_device(path: Path) -> None:
    """Check that the kernel does not use a block device: it refuses O_EXCL if it is mounted, or part of something.

    Raises:
        Conflict: it does.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        raise Conflict(
            f"The device {path}", f"is in use ({error.strerror})", f"See by what: `lsblk {shlex.quote(str(path))}`"
        ) from error


def user_of(vms: Sequence[Vm], path: str | Path) -> Vm | None:
    """Return a VM with an image among those of its disks, at any depth of their chains. None if no VM has it.

    Raises:
        FolderSilent: The images of a VM cannot be read, so that it may have it.
    """
    wanted = identity_of(path)
    return next((vm for vm in vms if any(_is(image, wanted, vm) for image in _images(vm))), None)


def _is(image: str, wanted: Identity, vm: Vm) -> bool:
    try:
        return identity_of(image) == wanted
    except FolderSilent:
        if vm.state == "shut-off":
            raise
        return False  # libvirt names all images of a VM that runs, and this one is on another file system.


def _images(vm: Vm) -> Iterator[str]:
    for disk in vm.disks:
        layers = list(disk.chain)
        if vm.state == "shut-off" and layers:  # libvirt reports only the first one then.
            layers += _below(layers[-1])
        for layer in layers:
            yield layer.path
            with suppress(OSError, NbdFailed, FolderSilent):
                held = answered(layer.path, lambda of=layer: nbd.image.data_file(Path(of.path), of.format))  # type: ignore[misc]
                if held is not None:
                    yield str(held)


def _below(layer: ImageLayer) -> list[ImageLayer]:
    """Return the images that one is based on. Each may be on a file system of its own."""
    chain = nbd.header.chain_of(
        Path(layer.path),
        layer.format,
        unstated=True,
        base=lambda path: answered(path, lambda: nbd.header.base_of(path)),
    )
    return [ImageLayer(path, image_format) for path, image_format in chain[1:]]
