# SPDX-License-Identifier: Apache-2.0
"""Numbers that a tap, its supervisor and the daemon share: one small file, mapped by each.

Every number but ``listening`` has one writer, and is written as 8 aligned bytes at once. A reader may therefore see
an old value, but never a torn one.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Final

_U64: Final = struct.Struct("<Q")
_SIZE: Final = 128
_FIELDS: Final = (
    "beat", "appended", "bytes", "ready", "end", "dead", "synchronous", "falls",  # the tap's
    "acked", "trimmed", "mirror", "marks", "listening",  # the daemon's
)  # fmt: skip

ALIVE, FULL, FAILED, ENDED = range(4)
"""Values of ``dead``: why a tap takes no more writes."""
MARK_READY, MARK_END = 1, 2
"""Values of ``marks``: marks that the daemon requests in the log."""


class SharedNumbers:
    """The numbers, as attributes.

    ``beat``: monotonic nanoseconds at which the tap was well. ``appended``: number of the last
    record; ``bytes``: bytes in the log since its beginning. ``ready``, ``end``: numbers of the
    marks; 0: not there. ``dead``: see ``ALIVE``. ``synchronous``: 1 while writes wait. ``falls``:
    how often they did not wait any longer. ``acked``: number of the last record that is durable at
    the other site; ``trimmed``: bytes deleted. ``mirror``: 1 if writes shall wait. ``marks``: see
    ``MARK_READY``. ``listening``: 1 while the daemon waits for news; the tap sets it to 0 when it sends them.
    """

    beat: int
    appended: int
    bytes: int
    ready: int
    end: int
    dead: int
    synchronous: int
    falls: int
    acked: int
    trimmed: int
    mirror: int
    marks: int
    listening: int

    def __init__(self, path: Path) -> None:
        """Map the file at ``path``; it is created with zeros if it does not exist."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(descriptor).st_size < _SIZE:
                os.ftruncate(descriptor, _SIZE)
            object.__setattr__(self, "_map", mmap.mmap(descriptor, _SIZE))
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()

    def __getattr__(self, name: str) -> int:
        try:
            at = _FIELDS.index(name)
        except ValueError:
            raise AttributeError(name) from None
        return int(_U64.unpack_from(self._map, at * 8)[0])

    def __setattr__(self, name: str, value: int) -> None:
        _U64.pack_into(self._map, _FIELDS.index(name) * 8, value)

    _map: mmap.mmap
