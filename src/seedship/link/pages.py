# SPDX-License-Identifier: Apache-2.0
"""Memory without the pages that the far end has on its disks: a message refers to these.

Both ends keep a hash of the whole stream. Each message carries the sender's, and the receiver hands on nothing
before its own is the same, so no wrong byte gets into a guest. If a page has another content there, or cannot be
read, the receiver asks for the message again, and hands on nothing after it meanwhile.

Only the first pass over the memory refers to anything. While the guest is paused an answer would cost it a round trip;
and QEMU measures the link by what it could write lately, which has to be the link again before it decides to stop
the guest.

    message   03, hash of the stream up to its end (32), length (4), number of references (2), packed: the
              references, and the bytes between them
    reference position in the message's data (4), disk (2), page (8)
    again     05, number of the message from 0 (8), packed: its data
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from seedship import clock
from seedship.errors import PeerRefused, SeedshipError
from seedship.link.memory_stream import MOST_HELD, PAGE, MemoryStream
from seedship.link.packing import CHUNK, pack, unpack
from seedship.units import MiB

MESSAGE, MISSING, AGAIN = b"\x03", b"\x04", b"\x05"
READ: Final = CHUNK - MOST_HELD
"""Bytes that are packed at once, so that a message with what was held back is not longer than others."""
_HEAD: Final = struct.Struct(">32sIH")
_REFERENCE: Final = struct.Struct(">IHQ")
_NUMBER: Final = struct.Struct(">Q")
TAKEN: Final = struct.Struct(">QQ?")
"""What the receiver answers: bytes and messages handed on, and whether its disks are too slow."""
_KEPT: Final = 4 * MiB
"""Data of messages with references that the receiver has not handed on yet."""
_WAITING: Final = 64 * MiB
"""Bytes of messages that a receiver keeps after one that it misses."""
_MISSES: Final = 8
"""After this many the disks are not what the index says, and nothing is referred to any more."""
_FREE_S: Final = 1.0
_RATE: Final = 8 * MiB
"""A receiver that reads pages at less than this rate, after the first second, wants the pages themselves."""
_SLOW_S: Final = 0.5
"""So does one that takes this long for the pages of one message."""


class PageStore(Protocol):
    """The disks that references refer to."""

    def read(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the pages at (disk, page number), 4 KiB each. Runs on a thread.

        Raises:
            SeedshipError: One cannot be read.
        """

    def close(self) -> None:
        """End the reading."""


class Lookup(Protocol):
    """Where pages probably are (``PageIndex``)."""

    def find(self, pages: Sequence[memoryview]) -> list[tuple[int, int] | None]:
        """Return disk and page number for each page; None for one that is not known."""


class PageSender:
    """The near end of one stream. ``pack`` may run on a thread, one call at a time; the rest is used on the loop."""

    def __init__(self, index: Lookup) -> None:
        self.referred = 0
        """Pages that were not sent."""
        self._index = index
        self._stream = MemoryStream()
        self._hash = hashlib.blake2b(digest_size=32)
        self._refers = True
        self._misses = 0
        self._packed = 0
        self._lock = threading.Lock()
        self._kept: dict[int, bytes] = {}
        """Messages with references that were not handed on yet; without content once they were sent again."""
        self._bytes_kept = 0
        self._moved = asyncio.Event()

    async def settled(self) -> None:
        """Return when the receiver has handed on every message that it might ask for."""
        while self._kept:
            self._moved.clear()
            await self._moved.wait()

    async def room(self) -> None:
        """Return when another message may be packed."""
        while self._bytes_kept > _KEPT and self._refers:
            self._moved.clear()
            await self._moved.wait()

    def pack(self, data: bytes) -> bytes:
        """Return a message with the next data of the stream; none if all of it waits for what follows."""
        content, pages = self._stream.take(data)
        return self._message(content, pages)

    def pack_rest(self) -> bytes:
        """Return a message with the stream's last data, or none."""
        return self._message(self._stream.rest(), [])

    def _message(self, content: bytes, pages: list[int]) -> bytes:
        if not content:
            return b""
        self._hash.update(content)
        view = memoryview(content)
        references, between, end = bytearray(), bytearray(), 0
        if pages and self._refers and not self._stream.ending and not self._stream.repeats:
            places = self._index.find([view[at : at + PAGE] for at in pages])
            for at, place in zip(pages, places, strict=True):
                if place is not None:
                    references += _REFERENCE.pack(at, *place)
                    between += view[end:at]
                    end = at + PAGE
        count = len(references) // _REFERENCE.size
        with self._lock:
            if count:
                self.referred += count
                self._kept[self._packed] = content
                self._bytes_kept += len(content)
            self._packed += 1
        packed = pack(bytes(references + between + view[end:]))
        return MESSAGE + _HEAD.pack(self._hash.digest(), len(content), count) + packed

    def took(self, answer: bytes) -> None:
        """Record what the receiver handed on (``TAKEN``).

        Raises:
            PeerRefused: It is no such answer.
        """
        try:
            _, count, slow = TAKEN.unpack(answer)
        except struct.error as error:
            raise PeerRefused("its answer is none for messages with pages") from error
        with self._lock:
            for number in [number for number in self._kept if number < count]:
                self._bytes_kept -= len(self._kept.pop(number))
        self._refers = self._refers and not slow
        self._moved.set()

    def again(self, number: int) -> bytes:
        """Return the answer to a receiver that misses a message.

        Raises:
            PeerRefused: It was not sent, referred to nothing, or was asked for or handed on before.
        """
        with self._lock:
            content = self._kept.get(number, b"")
            if content:
                self._kept[number] = b""
            self._bytes_kept -= len(content)
        if not content:
            raise PeerRefused("it asks for a message that it cannot miss")
        self._misses += 1
        self._refers = self._refers and self._misses < _MISSES
        self._moved.set()
        return AGAIN + _NUMBER.pack(number) + pack(content)


class PageReceiver:
    """The far end of one stream. ``put`` takes a message, and ``next`` returns the data of one: never more at once."""

    def __init__(self, store: PageStore) -> None:
        self.missing: int | None = None
        """Number of the message to ask for."""
        self.slow = False
        self.count = 0
        """Messages handed on."""
        self._store = store
        self._hash = hashlib.blake2b(digest_size=32)
        self._waiting: deque[bytes] = deque()
        self._answered: tuple[bytes, int] | None = None
        """What was missed, and has come."""
        self._bytes_waiting = 0
        self._seconds, self._read = 0.0, 0

    @property
    def reads(self) -> bool:
        """Whether ``next`` would read a disk."""
        head = self._waiting[0] if self._waiting and self.missing is None and not self._answered else b""
        return len(head) > _HEAD.size and _HEAD.unpack_from(head, 1)[2] > 0

    def put(self, message: bytes) -> None:
        """Take a message.

        Raises:
            PeerRefused: It is not a message of such a stream, or not what was missed.
        """
        if message[:1] == AGAIN:
            if self.missing is None or message[1:9] != _NUMBER.pack(self.missing):
                raise PeerRefused("a message comes again that was not asked for")
            head = self._next()
            self._answered = self._checked(unpack(message[9:]), head) or _refuse(), len(head) + len(message)
            self.missing = None
        elif message[:1] != MESSAGE:
            raise PeerRefused("a message of another kind is among those with pages")
        else:
            self._bytes_waiting += len(message)
            if self._bytes_waiting > _WAITING:
                raise PeerRefused("more messages come than may be under way")
            self._waiting.append(message)

    def next(self) -> tuple[bytes, int] | None:
        """Return the next data to hand on, and the bytes of messages that they came in; None if there are none now.

        Raises:
            PeerRefused: They are not what the sender had.
        """
        if self._answered is not None:
            answer, self._answered = self._answered, None
            return answer
        if not self._waiting or self.missing is not None:
            return None
        content = self._rebuilt(self._waiting[0])
        if content is None:
            self.missing = self.count
            return None
        return content, len(self._next())

    def check_end(self) -> None:
        """Check that nothing is missing when the stream ends.

        Raises:
            PeerRefused: A message that is asked for has not come.
        """
        if self._waiting:
            raise PeerRefused("the stream ends before what it lacks has come")

    def _next(self) -> bytes:
        message = self._waiting.popleft()
        self._bytes_waiting -= len(message)
        self.count += 1
        return message

    def _rebuilt(self, message: bytes) -> bytes | None:
        """Return a message's data, or None if a page differs here or cannot be read."""
        try:
            _, length, count = _HEAD.unpack_from(message, 1)
        except struct.error as error:
            raise PeerRefused("a message with pages has no head") from error
        body = memoryview(unpack(message[1 + _HEAD.size :]))
        between = body[count * _REFERENCE.size :]
        if len(body) < count * _REFERENCE.size:
            raise PeerRefused("a message with pages has fewer references than it says")
        if length > CHUNK or len(between) + count * PAGE != length:
            raise PeerRefused("a message with pages has another length than it says")
        references = [_REFERENCE.unpack_from(body, at * _REFERENCE.size) for at in range(count)]
        data, taken = bytearray(), 0
        pages = self._pages([(disk, page) for _, disk, page in references])
        if pages is None:
            return None
        for (at, _, _), page in zip(references, pages, strict=True):
            step = at - len(data)
            if not 0 <= step <= len(between) - taken:
                raise PeerRefused("a message with pages has one outside of it")
            data += between[taken : taken + step]
            data += page
            taken += step
        data += between[taken:]
        content = self._checked(bytes(data), message)
        return content if content is not None or count else _refuse()

    def _pages(self, places: list[tuple[int, int]]) -> list[bytes] | None:
        if not places:
            return []
        began = clock.monotonic()
        try:
            pages = self._store.read(places)
        except (SeedshipError, OSError):  # No memory or descriptors, for example: then the page is sent.
            return None
        took = clock.monotonic() - began
        self._seconds += took
        self._read += len(places) * PAGE
        self.slow = self.slow or (took > _SLOW_S and self._read > 0) or self._seconds > _FREE_S + self._read / _RATE
        return pages

    def _checked(self, data: bytes, message: bytes) -> bytes | None:
        """Return data that are what the sender had, else None."""
        there = self._hash.copy()
        there.update(data)
        if there.digest() != _HEAD.unpack_from(message, 1)[0]:
            return None
        self._hash = there
        return data


def _refuse() -> bytes:
    raise PeerRefused("the memory that came is not what was sent")
