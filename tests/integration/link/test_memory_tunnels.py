# SPDX-License-Identifier: Apache-2.0
"""A tunnel of memory that refers to the far end's disks: over a real link, with misses, liars and broken ends."""

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest

from memory_streams import PAGE, noise, stream
from seedship import link
from seedship.errors import NbdFailed
from seedship.link import limit, pages, tunnel
from seedship.link.page_index import PageIndex
from seedship.link.pages import PageSender
from seedship.link.tunnel import Streams


async def free(_count: int) -> None:
    """No account."""


class Disk:
    """The far end's disk."""

    def __init__(self, content: Sequence[bytes]) -> None:
        self.content = list(content)
        self.closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def read(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        if any(disk or page >= len(self.content) for disk, page in places):
            raise NbdFailed("read", "it is not there")
        return [self.content[page] for _, page in places]

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self.closed.set)


class Ends:
    """Two paired sites, and what arrives behind the second one."""

    def __init__(self, folder: Path, content: list[bytes]) -> None:
        self.a, self.b = (link.load_or_create(folder / name, name) for name in "ab")
        self.book = link.PeerBook(folder / "a" / "peers.json")
        self.disk = Disk(content)
        self.index = PageIndex()
        self.index.add(0, 0, memoryview(b"".join(content)))
        self.index.seal()
        self.sent = 0
        self.inner: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.server = link.Server(
            self.b,
            link.PeerBook(folder / "b" / "peers.json"),
            "127.0.0.1:0",
            {},
            connect=self.connect,
            pages=lambda peer, attempt: self.disk,
            traffic=lambda peer: limit.WanLimit(),
        )

    async def __aenter__(self) -> "Ends":
        await self.server.start()
        await link.join(self.a, self.book, self.server.invite(), "127.0.0.1:1")
        self.client = link.Client(self.a, self.book.get("b"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        await self.server.stop()

    async def connect(self, _peer: link.Peer, _attempt: str, _kind: str) -> Streams:
        near, far = socket.socketpair()
        self.inner.put_nowait(await asyncio.open_connection(sock=far))
        return await asyncio.open_connection(sock=near)

    async def account(self, count: int) -> None:
        self.sent += count

    async def open(self) -> tuple[asyncio.StreamWriter, asyncio.Task[None]]:
        """Our end of a tunnel, and the task that carries it."""
        ours, theirs = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=ours)
        streams = await asyncio.open_connection(sock=theirs)
        carried = tunnel.carry(self.client.tunnel("memory", "x"), streams, self.account, sender=PageSender(self.index))
        return writer, asyncio.create_task(carried)

    async def arrived(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(20):
            return await self.inner.get()


@pytest.fixture
async def ends(tmp_path: Path):
    async with Ends(tmp_path, noise(3000)) as made:
        yield made


async def write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
    writer.write_eof()


async def carried(ends: Ends, data: bytes) -> bytes:
    """What arrives of a stream."""
    writer, task = await ends.open()
    writing = asyncio.create_task(write(writer, data))
    reader, answer = await ends.arrived()
    async with asyncio.timeout(60):
        got = await reader.read()
        answer.close()
        await asyncio.gather(writing, task)
    writer.close()
    return got


async def test_pages_of_the_disks_do_not_go_over_the_link(ends: Ends) -> None:
    data = stream([ends.disk.content + noise(100)], noise(100))
    assert await carried(ends, data) == data
    assert ends.sent < 300 * PAGE
    await asyncio.wait_for(ends.disk.closed.wait(), 10)


async def test_pages_that_are_different_there_are_sent_after_all(ends: Ends) -> None:
    data = stream([ends.disk.content], noise(100))
    for number in (0, 1000, 2000, 2999):
        ends.disk.content[number] = noise(1)[0]
    assert await carried(ends, data) == data
    assert ends.sent < 1000 * PAGE


async def test_disks_that_cannot_be_read_cost_nothing_but_bytes(ends: Ends) -> None:
    data = stream([ends.disk.content], noise(100))
    ends.disk.content.clear()
    assert await carried(ends, data) == data


async def test_a_stream_that_is_none_of_qemu_arrives(ends: Ends) -> None:
    data = b"".join(ends.disk.content[:500])
    assert await carried(ends, data) == data


async def test_both_ends_close_when_qemu_there_is_gone(ends: Ends) -> None:
    writer, task = await ends.open()
    writer.write(stream([ends.disk.content])[: 1000 * PAGE])
    reader, far = await ends.arrived()
    await reader.readexactly(100 * PAGE)
    far.transport.abort()
    async with asyncio.timeout(20):
        await task
        await ends.disk.closed.wait()
    writer.close()


async def test_what_is_here_closes_when_the_source_is_gone(ends: Ends) -> None:
    writer, task = await ends.open()
    data = stream([ends.disk.content])
    writer.write(data[: 1000 * PAGE])
    reader, far = await ends.arrived()
    await reader.readexactly(100 * PAGE)
    task.cancel()
    async with asyncio.timeout(20):
        rest = await reader.read()
        await ends.disk.closed.wait()
    assert data[100 * PAGE :].startswith(rest)
    writer.close()
    far.close()


async def test_nothing_of_a_lie_arrives(ends: Ends) -> None:
    """Data that are not those of the hash they come with."""
    honest = PageSender(ends.index)
    first, second = honest.pack(b"a" * 100), bytearray(honest.pack(b"b" * 100))
    second[-1] ^= 1
    call = ends.client.tunnel("memory", "x")
    await call.write(first)
    await call.write(bytes(second))
    reader, far = await ends.arrived()
    async with asyncio.timeout(20):
        assert await reader.read() == b"a" * 100
        with pytest.raises(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
    far.close()


class Liar:
    """A far end that answers what it likes."""

    def __init__(self, *answers: bytes) -> None:
        self.answers, self.cancelled = list(answers), asyncio.Event()

    async def write(self, message: bytes) -> None:
        pass

    async def read(self) -> bytes:
        if not self.answers:
            await self.cancelled.wait()
        return self.answers.pop(0)

    def cancel(self) -> None:
        self.cancelled.set()


@pytest.mark.parametrize(
    "answer",
    [
        pages.MISSING + bytes(8),
        pages.MISSING + b"\xff" * 100,
        b"\x02" + bytes(8),
        b"\x02" + pages.TAKEN.pack(1 << 40, 0, False),
        b"\x02",
    ],
)
async def test_a_destination_that_lies_breaks_its_tunnel(answer: bytes) -> None:
    index = PageIndex()
    index.seal()
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    liar = Liar(answer)
    streams = await asyncio.open_connection(sock=theirs)
    async with asyncio.timeout(20):
        await tunnel.carry(liar, streams, free, sender=PageSender(index))
        assert await reader.read() == b""
    assert liar.cancelled.is_set()
    writer.close()
