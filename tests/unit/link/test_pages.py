# SPDX-License-Identifier: Apache-2.0
"""Memory that refers to pages arrives exactly as it was, or not at all: with other disks, misses, liars."""

import asyncio
import random
import struct
from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_streams import PAGE, TAIL, noise, part, record, start, stream
from seedship.errors import NbdFailed, PeerRefused
from seedship.link import pages
from seedship.link.packing import CHUNK, pack
from seedship.link.page_index import PageIndex
from seedship.link.pages import PageReceiver, PageSender


class Disk:
    """One disk at both sites: what the index was made of, and what is read."""

    def __init__(self, content: list[bytes]) -> None:
        self.content = list(content)
        self.read_pages = 0
        self.closed = False

    def index(self) -> PageIndex:
        index = PageIndex()
        index.add(0, 0, memoryview(b"".join(self.content)))
        index.seal()
        return index

    def read(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        self.read_pages += len(places)
        if any(disk or page >= len(self.content) for disk, page in places):
            raise NbdFailed("read", "it is not there")
        return [self.content[page] for _, page in places]

    def close(self) -> None:
        self.closed = True


def taken(receiver: PageReceiver, message: bytes) -> tuple[bytes, int]:
    """What is handed on after a message."""
    receiver.put(message)
    data, came = b"", 0
    while (handed := receiver.next()) is not None:
        data, came = data + handed[0], came + handed[1]
    return data, came


class Ends:
    """Both ends of one stream, without a link between them."""

    def __init__(self, disk: Disk, sender: PageSender | None = None) -> None:
        self.sender = sender or PageSender(disk.index())
        self.receiver = PageReceiver(disk)
        self.out = b""
        self.sent = self.taken = self.again = 0

    def send(self, message: bytes) -> None:
        """Deliver a message; what the receiver misses comes at once."""
        while message:
            self.sent += len(message)
            data, came = taken(self.receiver, message)
            self.out += data
            self.taken += came
            self.sender.took(pages.TAKEN.pack(self.taken, self.receiver.count, self.receiver.slow))
            message = b""
            if self.receiver.missing is not None:
                self.again += 1
                message = self.sender.again(self.receiver.missing)

    def carry(self, data: bytes, size: int = 100_000) -> bytes:
        """What arrives of a stream."""
        for at in range(0, len(data), size):
            self.send(self.sender.pack(data[at : at + size]))
        self.send(self.sender.pack_rest())
        self.receiver.check_end()
        assert self.taken == self.sent
        return self.out


def test_pages_of_the_disk_are_not_sent() -> None:
    content, fresh = noise(100), noise(10)
    data = stream([content + fresh], fresh)
    ends = Ends(Disk(content))
    assert ends.carry(data, 20_000) == data
    assert ends.sender.referred > len(content) - 5
    assert ends.sent < (2 * len(fresh) + 5) * PAGE + len(content) * 40


def test_a_page_that_differs_is_sent_after_all() -> None:
    content = noise(100)
    disk = Disk(content)
    ends = Ends(disk)
    disk.content[50] = noise(1)[0]
    assert ends.carry(stream([content])) == stream([content])
    assert ends.again == 1


def test_a_disk_that_cannot_be_read_is_not_asked_for_ever() -> None:
    content = noise(400)
    disk = Disk(content)
    ends = Ends(disk)
    disk.content.clear()
    data = stream([content] * 2)
    assert ends.carry(data, 20_000) == data
    assert ends.again < 20


def test_nothing_is_referred_to_while_the_guest_is_paused() -> None:
    content = noise(50)
    disk = Disk(content)
    data = stream([], content)
    ends = Ends(disk)
    assert ends.carry(data) == data
    assert disk.read_pages == 0


def test_slow_disks_are_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    content = noise(400)
    disk = Disk(content)
    ends = Ends(disk)
    now = iter(range(0, 10_000_000, 10))
    monkeypatch.setattr("seedship.clock.monotonic", lambda: next(now))
    data = stream([content])
    assert ends.carry(data) == data
    assert ends.sender.referred < 50
    assert ends.again == 0


@given(st.integers(), st.integers(0, 40), st.integers(0, 3), st.integers(500, 60_000))
def test_any_stream_with_any_answers(seed: int, count: int, differing: int, most: int) -> None:
    """Messages are under way, some pages differ, and what is missed comes behind what was sent before."""
    dice = random.Random(seed)
    content = noise(12)
    disk = Disk(content)
    chosen = dice.choices([*content, bytes(PAGE), *noise(3)], k=count)
    memory = stream([chosen], chosen[:3])
    sender = PageSender(disk.index())
    for number in dice.sample(range(12), differing):
        disk.content[number] = noise(1)[0]
    receiver, way, out, at, passed, asked = PageReceiver(disk), deque[bytes](), b"", 0, 0, None
    while at < len(memory) or way:
        if way and (at >= len(memory) or dice.random() < 0.5):
            got, came = taken(receiver, way.popleft())
            out, passed = out + got, passed + came
            sender.took(pages.TAKEN.pack(passed, receiver.count, False))
            if receiver.missing not in (None, asked):
                asked = receiver.missing
                way.append(sender.again(asked))
            continue
        size = dice.randint(1, most)
        if message := sender.pack(memory[at : at + size]):
            way.append(message)
        at += size
        if at >= len(memory) and (message := sender.pack_rest()):
            way.append(message)
    receiver.check_end()
    assert out == memory


def head(content: bytes, *, length: int | None = None, count: int = 0) -> bytes:
    digest = pages.hashlib.blake2b(content, digest_size=32).digest()
    return pages.MESSAGE + struct.pack(">32sIH", digest, len(content) if length is None else length, count)


def reference(at: int, page: int = 0, disk: int = 0) -> bytes:
    return struct.pack(">IHQ", at, disk, page)


PAGE_0 = noise(1)[0]
LIES = {
    "no head": pages.MESSAGE + b"short",
    "another length": head(b"abc", length=4) + pack(b"abc"),
    "longer than any": head(b"x" * (CHUNK + 1)) + pack(b"x" * CHUNK),
    "fewer references": head(PAGE_0, count=2) + pack(reference(0)),
    "no references": head(PAGE_0, count=65535) + pack(b""),
    "other data": head(b"abc") + pack(b"abd"),
    "a page outside": head(PAGE_0 + b"x", count=1) + pack(reference(2) + b"x"),
    "pages out of order": head(PAGE_0 * 2, count=2) + pack(reference(PAGE) + reference(0)),
    "one page twice": head(PAGE_0 * 2, count=2) + pack(reference(0) + reference(0)),
    "unknown codec": head(b"abc") + b"\7abc",
    "plain": pack(b"abc"),
    "no room for its references": head(PAGE_0, count=1) + pack(b""),
    "again": pages.AGAIN + bytes(8) + pack(b"abc"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_sender_that_lies_is_refused(lie: str) -> None:
    with pytest.raises(PeerRefused):
        taken(PageReceiver(Disk([PAGE_0])), LIES[lie])


def test_a_sender_that_sends_something_else_for_what_was_missed_is_refused() -> None:
    receiver = PageReceiver(Disk([]))
    assert taken(receiver, head(PAGE_0, count=1) + pack(reference(0))) == (b"", 0)
    with pytest.raises(PeerRefused):
        taken(receiver, pages.AGAIN + bytes(8) + pack(noise(1)[0]))


def test_a_sender_that_never_sends_what_was_missed_fills_no_memory() -> None:
    receiver = PageReceiver(Disk([]))
    taken(receiver, head(PAGE_0, count=1) + pack(reference(0)))
    other = head(b"") + pack(b"".join(noise(50)))
    with pytest.raises(PeerRefused):
        for _ in range(1000):
            taken(receiver, other)


def test_what_waited_is_handed_on_one_message_at_a_time() -> None:
    """A small message may have 256 KiB: all that waits at once would be gigabytes."""
    receiver = PageReceiver(Disk([]))
    receiver.put(head(PAGE_0, count=1) + pack(reference(0)))
    assert receiver.next() is None
    zeros, content = bytes(CHUNK), PAGE_0
    for _ in range(20):
        content += zeros
        receiver.put(head(content, length=CHUNK) + pack(zeros))
    receiver.put(pages.AGAIN + bytes(8) + pack(PAGE_0))
    sizes = []
    while (handed := receiver.next()) is not None:
        sizes.append(len(handed[0]))
    assert sizes == [PAGE, *[CHUNK] * 20]


def test_only_the_first_pass_refers_to_anything() -> None:
    """QEMU measures the link by what it could write lately, and stops the guest by that."""
    content = noise(50)
    ends = Ends(Disk(content))
    data = stream([content, content, content[:3]], content)
    assert ends.carry(data) == data
    assert 45 <= ends.sender.referred <= 50  # a message with the beginning of the second pass refers to nothing


async def test_the_end_waits_for_what_may_be_missed() -> None:
    content = noise(6)
    sender = PageSender(Disk(content).index())
    await asyncio.wait_for(sender.settled(), 1)
    sender.pack(stream([content])[: 4 * PAGE])
    assert sender.referred >= 2
    waiting = asyncio.create_task(sender.settled())
    await asyncio.sleep(0)
    assert not waiting.done()
    sender.took(pages.TAKEN.pack(1, 1, False))
    await asyncio.wait_for(waiting, 1)


def test_a_store_that_fails_in_any_way_only_misses() -> None:
    class Broken(Disk):
        def read(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
            raise OSError(24, "no descriptors")

    receiver = PageReceiver(Broken([]))
    receiver.put(head(PAGE_0, count=1) + pack(reference(0)))
    assert receiver.next() is None
    assert receiver.missing == 0


def test_a_stream_that_ends_before_what_was_missed_has_not_arrived() -> None:
    receiver = PageReceiver(Disk([]))
    taken(receiver, head(PAGE_0, count=1) + pack(reference(0)))
    with pytest.raises(PeerRefused):
        receiver.check_end()


def test_a_receiver_that_lies_is_refused() -> None:
    content = noise(30)
    sender = PageSender(Disk(content).index())
    sender.pack(start() + part([record(1, content[0], block=b"pc.ram")]))
    sender.pack(part([record(1, noise(1)[0])]) + TAIL)
    for number in (1, 2, 1 << 60):
        with pytest.raises(PeerRefused):
            sender.again(number)
    assert sender.again(0)[:1] == pages.AGAIN
    with pytest.raises(PeerRefused):
        sender.again(0)
    with pytest.raises(PeerRefused):
        sender.took(b"short")


async def test_no_more_is_kept_than_may_be_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_KEPT", 10 * PAGE)
    content = noise(60)
    sender = PageSender(Disk(content).index())
    sender.pack(stream([content])[: 30 * PAGE])
    waiting = asyncio.create_task(sender.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    sender.took(pages.TAKEN.pack(1, 1, False))
    async with asyncio.timeout(10):
        await waiting
