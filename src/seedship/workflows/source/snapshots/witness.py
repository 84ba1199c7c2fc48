# SPDX-License-Identifier: Apache-2.0
"""Whether a remote image below ours is the one that was there: by its size and samples of its content.

Nothing identifies the unit that an iSCSI name or an export leads to: a target that was set up anew may have another
one there, of the same size. The image below our overlay is not written to, so its content is as when the VM ran.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from seedship import nbd
from seedship.units import KiB

_HEAD: Final = 64 * KiB
"""Partition table, boot sector or superblock."""
_SAMPLES: Final = 32
_SAMPLE: Final = 4 * KiB


def witness(name: str) -> tuple[int, int]:
    """Return the size of a remote image, and a number that samples of its content give.

    Raises:
        NbdFailed: it cannot be read.
    """
    size = nbd.image.info(Path(name)).virtual_size
    digest, room = hashlib.blake2b(digest_size=8), bytearray(_HEAD)
    spans = [(0, min(_HEAD, size))]
    spans += [(size * n // _SAMPLES // _SAMPLE * _SAMPLE, _SAMPLE) for n in range(1, _SAMPLES)]
    with (
        nbd.serve(Path(name), "raw", read_only=True, force_share=True) as socket,
        nbd.Reader(socket, nbd.EXPORT) as reader,
    ):
        for at, length in spans:
            view = memoryview(room)[: min(length, size - at)]
            reader.read_into(view, at)
            digest.update(view)
    return size, int.from_bytes(digest.digest()) >> 1
