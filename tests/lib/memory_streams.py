# SPDX-License-Identifier: Apache-2.0
"""QEMU's stream of a VM's memory, as it would send it: see ``seedship.link.memory_stream``."""

import os
import struct
from collections.abc import Iterable, Sequence

PAGE = 4096
HEAD = b"QEVM\x00\x00\x00\x03\x07\x00\x00\x00\x0apc-q35-7.2"
TAIL = (
    b"\x04\x00\x00\x00\x00\x05timer\x00\x00\x00\x00\x00\x00\x00\x02" + bytes(24) + b"\x7e\x00\x00\x00\x00" + bytes(90)
)
BLOCKS = {b"pc.ram": 1 << 24, b"/rom@etc/acpi/tables": 1 << 17}
SECTION = b"\x00\x00\x00\x02"
FOOTER = b"\x7e" + SECTION
OTHER = b"\x02\x00\x00\x00\x07dirty bitmaps\x7e\x00\x00\x00\x07"
"""A part of a section of something else."""
ZERO, MEM_SIZE, WHOLE, EOS, CONTINUE, XBZRLE = 2, 4, 8, 16, 32, 64


def word(value: int) -> bytes:
    return struct.pack(">Q", value)


def record(number: int, content: bytes, *, block: bytes = b"") -> bytes:
    """One page: whole, or only said to be zero."""
    flags = (WHOLE if any(content) else ZERO) | (0 if block else CONTINUE)
    name = bytes([len(block)]) + block if block else b""
    return word(number * PAGE | flags) + name + (content if any(content) else b"\0")


def delta(number: int, changes: bytes) -> bytes:
    """A page that came before, as its changes."""
    return word(number * PAGE | XBZRLE | CONTINUE) + b"\1" + struct.pack(">H", len(changes)) + changes


def start() -> bytes:
    """Everything before the first page."""
    blocks = b"".join(bytes([len(name)]) + name + word(size) for name, size in BLOCKS.items())
    section = b"\x01" + SECTION + b"\x03ram" + bytes(4) + b"\0\0\0\4"
    return HEAD + section + word(sum(BLOCKS.values()) | MEM_SIZE) + blocks + word(EOS) + FOOTER


def part(records: Iterable[bytes], *, ends: bool = False) -> bytes:
    """A section with these records."""
    return (b"\x03" if ends else b"\x02") + SECTION + b"".join(records) + word(EOS) + FOOTER


def stream(rounds: Sequence[Sequence[bytes]], last: Sequence[bytes] = ()) -> bytes:
    """A stream of these pages: rounds while the guest runs, and what is sent while it is paused."""
    parts = [start()]
    for pages, ends in [*((pages, False) for pages in rounds), (last, True)]:
        records = [record(n, page, block=b"" if n else b"pc.ram") for n, page in enumerate(pages)]
        parts.append(part(records, ends=ends))
    return b"".join(parts) + TAIL


def noise(count: int) -> list[bytes]:
    """Pages that cannot be compressed, each different."""
    return [os.urandom(PAGE) for _ in range(count)]
