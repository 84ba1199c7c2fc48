# SPDX-License-Identifier: Apache-2.0
"""What a qcow2 image is based on, by its header alone: nothing that it names is opened (QEMU, docs/interop/qcow2)."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from seedship.model import remote

_HEAD: Final = 104
_MAGIC: Final = b"QFI\xfb"
_LONGEST: Final = 1023
"""Bytes of a base's name."""
_FIRST: Final = 2 << 20
"""Bytes of the largest cluster; the name is in the first one."""
_DEEPEST: Final = 64
_FORMAT: Final = 0xE2792ACA
"""Header extension that names the base's format."""


def base_of(path: Path) -> tuple[str, str] | None:
    """Return the base of a qcow2 image, and its format (empty if the header does not say it). None if it has none.

    A remote base is returned by its name (``seedship.model.remote``). None also where that is no qcow2 image, or cannot
    be read.
    """
    try:
        # A header may name anything, and opening a pipe or some devices does something.
        if not (path.is_file() or path.is_block_device()):
            return None
        with path.open("rb") as file:
            head = file.read(_HEAD)
            if len(head) < _HEAD or head[:4] != _MAGIC:
                return None
            version, at, length = struct.unpack_from(">IQI", head, 4)
            if not at or at > _FIRST or length > _LONGEST:
                return None
            file.seek(at)
            named = remote.canonical(os.fsdecode(file.read(length)))
            if remote.is_remote(named):
                return named, "raw"
            file.seek(struct.unpack_from(">I", head, 100)[0] if version >= 3 else 72)
            base_format = _format(file.read(at))
    except (OSError, struct.error):
        return None
    if ":" in named.partition("/")[0]:
        return named, base_format
    return str(path.parent / named), base_format


def chain_of(
    path: Path,
    image_format: str,
    *,
    unstated: bool = False,
    base: Callable[[Path], tuple[str, str] | None] = base_of,
) -> list[tuple[str, str]]:
    """Return an image and those that it is based on with their formats, as far as headers of qcow2 images say it.

    Args:
        unstated: Follow an image whose format is stated nowhere as well. A guest may have written its header.
        base: Reads the base of each image.
    """
    chain = [(str(path), image_format)]
    while chain[-1][1] in ("qcow2", *[""] * unstated) and len(chain) < _DEEPEST:
        below = None if remote.is_remote(chain[-1][0]) else base(Path(chain[-1][0]))
        if below is None or below[0] in [name for name, _ in chain]:
            break
        chain.append(below)
    return chain


def _format(extensions: bytes) -> str:
    at = 0
    while at + 8 <= len(extensions):
        kind, length = struct.unpack_from(">II", extensions, at)
        if not kind:
            break
        if kind == _FORMAT:
            return extensions[at + 8 : at + 8 + length].decode(errors="replace")
        at += 8 + (length + 7) // 8 * 8
    return ""
