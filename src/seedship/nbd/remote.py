# SPDX-License-Identifier: Apache-2.0
"""Opens images that lie on a remote image (``seedship.model.remote``) by QEMU's options.

The header of an overlay names its base without what it takes to log in. So the images of such a chain are named
explicitly, and a secret is passed in memory (``seedship.nbd.secret``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import msgspec

from seedship.errors import NbdFailed
from seedship.model import remote
from seedship.model.remote import StorageAccess
from seedship.nbd import header
from seedship.nbd.secret import inherited

_KEY: Final = "remote"
"""Id of QEMU's object that has the secret."""


class StorageLogin(msgspec.Struct, frozen=True):
    """What it takes to log in."""

    access: StorageAccess
    secret: bytes = b""


Lookup = Callable[[str], StorageLogin | None]
_lookups: dict[str, Lookup] = {}


def provide(site: str, lookup: Lookup) -> None:
    """Have a site's ``lookup`` asked how to log in to an image. It returns None where it does not know the image."""
    _lookups[site] = lookup


def withdraw(site: str) -> None:
    """Have a site's look-up not asked any more: the site has ended."""
    _lookups.pop(site, None)


class OpenedChain(msgspec.Struct, frozen=True):
    """How a QEMU program opens a chain."""

    name: str
    """In place of a file name; without an option for the format."""
    key: bytes = b""
    """The secret."""

    def secret(self) -> AbstractContextManager[tuple[list[str], tuple[int, ...]]]:
        """Yield the options before the name, and the descriptors to inherit; see ``secret.inherited``."""
        return inherited(_KEY, self.key)


def opened(path: Path, image_format: str | None, *, share: bool = False) -> OpenedChain | None:
    """Return how to open an image that is remote, or is based on one; None if all of it is local.

    Args:
        share: Another process has the images open.

    Raises:
        NbdFailed: Nobody knows how to log in, or in which of several ways.
    """
    layers = chain(path, image_format)
    if not layers:
        return None
    lowest = layers.pop()
    login = next(filter(None, (lookup(str(lowest)) for lookup in list(_lookups.values()))), None)
    if login is None:
        if remote.parse(lowest).protocol == "iscsi":  # As another initiator, it may be another unit.
            raise NbdFailed(f"open {lowest}", "no VM and no replication of this host says how to log in to it")
        login = StorageLogin(StorageAccess())
    node: dict[str, Any] = remote.options(lowest, login.access, _KEY if login.secret else "")
    if layers and remote.parse(lowest).protocol == "nbd":
        # The header says all of it. QEMU takes the options and the header, and its driver of NBD refuses options beside
        # a URI (QEMU's block.c ``bdrv_open_backing_file``, block/nbd.c ``nbd_parse_filename``).
        node = {}
    for layer in reversed(layers):
        file_node: dict[str, Any] = {"driver": "file", "filename": str(layer)} | ({"locking": "off"} if share else {})
        node = {"driver": "qcow2", "file": file_node} | ({"backing": node} if node else {})
    if share:
        node["force-share"] = True
    return OpenedChain("json:" + json.dumps(node), login.secret)


def chain(path: Path, image_format: str | None) -> list[Path]:
    """Return an image and those that it is based on down to the remote one; empty if all of them are local."""
    if not remote.is_remote(path) and image_format != "qcow2":
        return []
    layers = [Path(name) for name, _ in header.chain_of(path, "qcow2")]
    return layers if remote.is_remote(layers[-1]) else []
