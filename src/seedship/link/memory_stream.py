# SPDX-License-Identifier: Apache-2.0
"""Where the whole pages are in the byte stream that QEMU sends a VM's memory in.

Incremental, and without effect on the bytes: they come out as they went in. What is not recognized passes unseen
from then on. Nobody may rely on the positions to be right, since a guest can write anything into its memory.

Source of the format: QEMU 7.2 to 10.0, migration/ram.c (``RAM_SAVE_FLAG_*``, ``ram_save_setup``, ``ram_load_precopy``)
and migration/savevm.c (``save_section_header``, ``save_section_footer``); all numbers are big-endian.

    section start   01, section id (4), 03 "ram", instance (4, 0), version (4, 4), records
    section part    02, section id (4), records
    section end     03, section id (4), records: the guest is paused, and what follows is the devices' state
    section footer  7e, section id (4)
    record          a word (8): offset of the page, and flags in its lowest 12 bits; without the flag CONTINUE
                    the name of the block (1 and as many bytes) follows
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Final

from seedship.units import KiB, MiB

PAGE: Final = 4096
MOST_HELD: Final = 8 * KiB
"""More than any record has bytes, of which the beginning may wait for the rest."""
_ZERO, _MEM_SIZE, _WHOLE, _EOS, _CONTINUE, _XBZRLE = 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
_FLAGS: Final = 0xFFF
_ENDS: Final = 3
_FOOTER: Final = 0x7E
_START: Final = re.compile(rb"\x01(.{4})\x03ram\x00{4}\x00{3}\x04", re.DOTALL)
_LONGEST: Final = 20
"""Bytes of the longest text that is searched for."""
_SEARCH: Final = 4 * MiB
"""Other sections are passed over in this many bytes, or the rest of the stream is."""
_STRANGE: Final = -1
"""In place of the position after a token: it is not known."""
_word = struct.Struct(">Q")
_short = struct.Struct(">H")


class MemoryStream:
    """One stream, from its first byte on."""

    def __init__(self) -> None:
        self.ending = False
        """The section has begun whose pages are sent while the guest is paused."""
        self.repeats = False
        """A page has come that came before: what follows are other passes over the memory."""
        self._held = b""
        self._section = b""
        self._block_name = b""
        self._newest: dict[bytes, int] = {}
        """Offset of the last page of each block."""
        self._token: Callable[[bytes, int], int] = self._record
        self._pattern: re.Pattern[bytes] | None = _START
        self._seen = b""
        self._searched = 0
        self._unlisted = 0
        self._over = False
        self._pages: list[int] = []

    def take(self, data: bytes) -> tuple[bytes, list[int]]:
        """Return the next bytes of the stream, and the positions among them at which whole pages begin.

        The beginning of a record, which nobody can use without its rest, waits for that.
        """
        if self._over:
            return data, []
        buffer, self._held = self._held + data, b""
        self._pages, at = [], 0
        while at < len(buffer) and not self._over:
            if self._pattern is not None:
                at = self._search(buffer, at)
                continue
            try:
                after = self._token(buffer, at)
            except (struct.error, IndexError):
                after = len(buffer) + 1
            if after == _STRANGE:
                self._over = True
                break
            if after > len(buffer):
                self._held = buffer[at:]
                return buffer[:at], [page for page in self._pages if page < at]
            at = after
        return buffer, [page for page in self._pages if page + PAGE <= len(buffer)]

    def rest(self) -> bytes:
        """Return what still waits, at the end of the stream."""
        held, self._held, self._over = self._held, b"", True
        return held

    def _search(self, buffer: bytes, at: int) -> int:
        """Pass over everything up to the next section of memory."""
        assert self._pattern is not None
        window = self._seen + buffer[at:]
        match = self._pattern.search(window)
        if match is None:
            self._searched += len(buffer) - at
            self._seen = window[1 - _LONGEST :]
            self._over = self._searched > _SEARCH
            return len(buffer)
        after = at + match.end() - len(self._seen)
        if self._section:
            self._begin(match[1] == b"\x03")
        else:
            self._section = match[1]
            self._begin(False)
        return after

    def _begin(self, ends: bool) -> None:
        self._pattern, self._seen, self._searched = None, b"", 0
        self.ending = ends
        self._token = self._record

    def _record(self, buffer: bytes, at: int) -> int:
        (word,) = _word.unpack_from(buffer, at)
        flags = word & _FLAGS
        at += _word.size
        if word == _EOS:
            self._token = self._footer
            return at
        if flags == _MEM_SIZE:
            self._unlisted = word - flags
            self._token = self._block
            return at
        if not flags & _CONTINUE:
            name = buffer[at + 1 : at + 1 + buffer[at]]
            at += 1 + buffer[at]
            if at > len(buffer):
                return at
            self._block_name = name
        self._note(word - flags)
        kind = flags & ~_CONTINUE
        if kind == _ZERO:
            return at + 1
        if kind == _WHOLE:
            self._pages.append(at)
            return at + PAGE
        if kind == _XBZRLE:
            (length,) = _short.unpack_from(buffer, at + 1)
            return at + 3 + int(length) if length <= PAGE else _STRANGE
        return _STRANGE

    def _note(self, offset: int) -> None:
        """Note the page of a record; the beginning of a record may be seen twice."""
        newest = self._newest.get(self._block_name, -1)
        self.repeats = self.repeats or offset < newest
        self._newest[self._block_name] = max(offset, newest)

    def _block(self, buffer: bytes, at: int) -> int:
        at += 1 + buffer[at]
        (size,) = _word.unpack_from(buffer, at)
        self._unlisted -= size
        if self._unlisted < 0:
            return _STRANGE
        if not self._unlisted:
            self._token = self._record
        return at + _word.size

    def _footer(self, buffer: bytes, at: int) -> int:
        if len(buffer) < at + 5:
            return at + 5
        if buffer[at] != _FOOTER or buffer[at + 1 : at + 5] != self._section or self.ending:
            return _STRANGE
        self._token = self._between
        return at + 5

    def _between(self, buffer: bytes, at: int) -> int:
        if buffer[at] not in (2, _ENDS):
            return self._pass_over(at)
        if len(buffer) < at + 5:
            return at + 5
        if buffer[at + 1 : at + 5] != self._section:
            return self._pass_over(at)
        self._begin(buffer[at] == _ENDS)
        return at + 5

    def _pass_over(self, at: int) -> int:
        """Search for the next section of memory, which follows another section's footer."""
        self._pattern = re.compile(rb"\x7e.{4}([\x02\x03])" + re.escape(self._section), re.DOTALL)
        return at
