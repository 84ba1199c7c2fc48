# SPDX-License-Identifier: Apache-2.0
"""The spool: the log of a tap, in files of about 8 MiB named for their first record.

    offset  size  field
         0     4  magic "TAPR"
         4     4  CRC-32 of all that follows, data included
         8     8  sequence number, from 1, without gaps
        16     8  offset on the disk, bytes
        24     4  length, bytes
        28     2  disk
        30     1  kind: 1 data, 2 zeros, 3 READY (consistent from here), 4 END
        31     1  0
        32   ...  the data, of kind 1

All numbers little-endian. One writer appends, one reader follows and deletes what is durable
elsewhere. Nothing is synced: a host that loses power loses the guest as well, and what left here
before is noted durably elsewhere.
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from seedship.native import isal

HEAD: Final = struct.Struct("<4sIQQIHBB")
_MAGIC: Final = b"TAPR"
FILE_BYTES: Final = 8 << 20
_LARGEST: Final = 2 << 20
"""Larger than any record: QEMU is configured to write at most 1 MiB."""


class Kind(IntEnum):
    """The kind of a record."""

    DATA = 1
    ZERO = 2
    READY = 3
    END = 4


@dataclass(frozen=True, slots=True)
class SpoolRecord:
    """One write, or a mark."""

    seq: int
    kind: Kind
    disk: int
    offset: int
    length: int
    data: bytes = b""


class SpoolFull(Exception):
    """The spool is at its limit, or its file system is full."""


class Spool:
    """The writing end. The caller makes sure that only one thread appends at a time."""

    def __init__(self, folder: Path, limit: int) -> None:
        """Start an empty log in ``folder`` that may use ``limit`` bytes."""
        self._folder, self._limit = folder, limit
        self.seq = 0
        """Number of the last record."""
        self.appended = 0
        """Bytes appended since the start."""
        self._size = FILE_BYTES
        self._file = -1

    def append(self, kind: Kind, disk: int, offset: int, length: int, data: bytes | bytearray, trimmed: int) -> int:
        """Append a record, whole or not at all; returns its number.

        Args:
            trimmed: Bytes deleted so far.

        Raises:
            SpoolFull: it does not fit.
            OSError: it cannot be written.
        """
        size = HEAD.size + len(data)
        if self.appended - trimmed + size > self._limit:
            raise SpoolFull
        if self._size >= FILE_BYTES:
            self._rotate()
        head = HEAD.pack(_MAGIC, 0, self.seq + 1, offset, length, disk, kind, 0)
        crc = zlib.crc32(data, zlib.crc32(head[8:]))
        head = head[:4] + crc.to_bytes(4, "little") + head[8:]
        try:
            written = os.writev(self._file, (head, data) if data else (head,))
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        if written != size:
            os.ftruncate(self._file, self._size)
            raise SpoolFull
        self.seq += 1
        self._size += size
        self.appended += size
        return self.seq

    def _rotate(self) -> None:
        path = self._folder / _name(self.seq + 1)
        fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._size = fresh, 0


class Tail:
    """The reading end: follows the log after a record."""

    def __init__(self, folder: Path, after: int = 0) -> None:
        """Start after record ``after``."""
        self._folder = folder
        self.seq = after
        """Number of the last record that was read."""
        self._path: Path | None = None
        self._at = 0

    def read(self, most: int) -> list[SpoolRecord]:
        """Return the next complete records, about ``most`` bytes of them; empty when there are none yet."""
        records: list[SpoolRecord] = []
        size = 0
        while size < most:
            if self._path is None and not self._open():
                break
            assert self._path is not None
            try:
                with open(self._path, "rb") as file:
                    file.seek(self._at)
                    chunk = file.read(max(most, _LARGEST))
            except FileNotFoundError:
                # Trimmed: it was read to its end, and the log continued in the next file.
                self._path = None
                continue
            taken = self._parse(chunk, records)
            size += taken if records else 0  # Records that were read before are skipped, however long they are.
            self._at += taken
            if not taken and not self._next_file():
                break
        return records

    def _parse(self, chunk: bytes, records: list[SpoolRecord]) -> int:
        at = 0
        while at + HEAD.size <= len(chunk):
            magic, crc, seq, offset, length, disk, kind, _ = HEAD.unpack_from(chunk, at)
            end = at + HEAD.size + (length if kind == Kind.DATA else 0)
            if magic != _MAGIC or end > len(chunk):
                break
            if isal.crc32(chunk, at + 8, end) != crc:
                break  # Being written, or torn: it never counted.
            if seq > self.seq:
                data = chunk[at + HEAD.size : end]
                records.append(SpoolRecord(seq, Kind(kind), disk, offset, length, data))
                self.seq = seq
            at = end
        return at

    def _open(self) -> bool:
        """Open the file that has, or will have, the next record."""
        files = _files(self._folder)
        before = [path for path in files if _first(path) <= self.seq + 1]
        if not before:
            return False
        self._path, self._at = before[-1], 0
        return True

    def _next_file(self) -> bool:
        """Continue in the next file, once the present one was read to its end."""
        following = self._folder / _name(self.seq + 1)
        if self._path == following or not following.exists():
            return False
        self._path, self._at = following, 0
        return True


def trim(folder: Path, upto: int) -> int:
    """Delete the files that hold no record after ``upto``; returns the number of bytes deleted."""
    gone = 0
    files = _files(folder)
    for path, following in itertools.pairwise(files):
        if _first(following) > upto + 1:
            break
        gone += path.stat().st_size
        path.unlink()
    return gone


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


def _first(path: Path) -> int:
    return int(path.stem)


def _name(seq: int) -> str:
    return f"{seq:016d}.log"
