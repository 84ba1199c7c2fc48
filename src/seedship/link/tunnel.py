# SPDX-License-Identifier: Apache-2.0
"""Byte tunnels: a unix socket's connection carried to a socket at the other site.

There is one gRPC stream per connection. Its metadata name the kind of tunnel and its attempt, and
the other site connects only if it expects that attempt. A message is one byte of codec, followed by
data. An empty message ends that direction, so that half-closed connections stay half-closed. The
far end acknowledges each message with the total bytes of messages that it has passed on. The near
end keeps no more in flight than the path needs. Messages of memory may refer to pages of the
destination's disks (``pages``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import grpc

from seedship.errors import PeerRefused
from seedship.link import pages
from seedship.link.packing import CHUNK, pack, unpack
from seedship.link.pages import PageReceiver, PageSender, PageStore
from seedship.link.valve import TunnelGate
from seedship.link.window import FlowWindow
from seedship.units import KiB

MEMORY: Final = "memory"
"""The kind of tunnel that is never empty while it lasts."""
KIND_KEY: Final = "seedship-tunnel"
OWNER_KEY: Final = "seedship-attempt"
_TOOK = b"\x02"


class Source(Protocol):
    """The source of a tunnel's bytes."""

    async def read(self, most: int, /) -> bytes:
        """Return the next bytes, or none at the end."""


Streams = tuple[Source, asyncio.StreamWriter]
Connect = Callable[[Any, str, str], Awaitable[Streams]]
"""Returns the inner connection for (peer, attempt, kind). Raises if none is expected."""
Account = Callable[[int], Awaitable[None]]
Hear = Callable[[bytes], None]


async def outgoing(
    reader: Source,
    account: Account,
    valve: TunnelGate | None = None,
    window: FlowWindow | None = None,
    sender: PageSender | None = None,
) -> AsyncIterator[bytes]:
    """Yield messages of the reader's data, including its end. A reset is raised."""
    async for message in _messages(reader, valve, sender):
        await account(len(message))
        if window is not None:
            await window.send(len(message))
        yield message
    if sender is not None:
        await sender.settled()
    yield b""


async def _messages(reader: Source, valve: TunnelGate | None, sender: PageSender | None) -> AsyncIterator[bytes]:
    packed, most = (pack, CHUNK) if sender is None else (sender.pack, pages.READ)
    while True:
        if sender is not None:
            await sender.room()
        data = await reader.read(most)
        if not data:
            break
        if valve is not None:
            await valve.take(data)
        message = packed(data) if len(data) < 16 * KiB else await asyncio.to_thread(packed, data)
        if message:
            yield message
    if sender is not None and (message := sender.pack_rest()):
        yield message


async def serve(
    requests: AsyncIterator[bytes],
    streams: Streams,
    account: Account,
    store: Callable[[], PageStore] | None = None,
) -> AsyncIterator[bytes]:
    """Serve the far end of a tunnel until both directions have ended, or one broke.

    ``store`` returns the disks whose pages its messages may refer to.
    """
    reader, writer = streams
    answers: asyncio.Queue[bytes | None] = asyncio.Queue(1)

    async def there() -> None:
        total = 0
        async for message in requests:
            if not message:
                _end(writer)
                return
            if message[:1] == pages.MESSAGE and store is not None and not total:
                await _serve_pages(message, requests, writer, store(), answers)
                return
            writer.write(unpack(message))
            await writer.drain()
            total += len(message)
            await answers.put(_TOOK + total.to_bytes(8))
        raise ConnectionResetError("the tunnel broke")

    async def back() -> None:
        async for message in outgoing(reader, account):
            await answers.put(message)

    both = [asyncio.create_task(there()), asyncio.create_task(back())]

    async def end() -> None:
        try:
            await asyncio.gather(*both)
        finally:
            await answers.put(None)

    ended = asyncio.create_task(end())
    try:
        while (message := await answers.get()) is not None:
            yield message
        await ended
    finally:
        # A broken peer must not leave the inner side waiting.
        for task in (*both, ended):
            task.cancel()
        writer.close()


async def _serve_pages(
    first: bytes,
    requests: AsyncIterator[bytes],
    writer: asyncio.StreamWriter,
    store: PageStore,
    answers: asyncio.Queue[bytes | None],
) -> None:
    """Hand on what comes in messages that may refer to pages, the first of which is here."""
    receiver, total = PageReceiver(store), 0
    message: bytes | None = first
    loop = asyncio.get_running_loop()
    # Its own: those that all calls share may be waiting for disks and locks, while a guest is paused.
    reading = ThreadPoolExecutor(1, "pages")
    try:
        while message:
            asked = receiver.missing
            receiver.put(message)
            while True:
                taken = await loop.run_in_executor(reading, receiver.next) if receiver.reads else receiver.next()
                if taken is None:
                    break
                data, came = taken
                writer.write(data)
                await writer.drain()
                total += came
                await answers.put(_TOOK + pages.TAKEN.pack(total, receiver.count, receiver.slow))
            if receiver.missing not in (None, asked):
                await answers.put(pages.MISSING + receiver.missing.to_bytes(8))
            message = await anext(requests, None)
    finally:
        await loop.run_in_executor(reading, store.close)
        reading.shutdown(wait=False)
    if message is None:
        raise ConnectionResetError("the tunnel broke")
    receiver.check_end()
    _end(writer)


async def carry(
    stream: Any,
    streams: Streams,
    account: Account,
    hear: Hear | None = None,
    valve: TunnelGate | None = None,
    sender: PageSender | None = None,
) -> None:
    """Carry the near end of a tunnel until both directions have ended, or one broke.

    ``hear`` receives what comes back. Sent data waits for ``valve``. With ``sender``, messages refer
    to pages of the far end's disks.
    """
    reader, writer = streams
    window = FlowWindow()
    turn = asyncio.Lock()
    missed: asyncio.Queue[bytes] = asyncio.Queue()

    async def send() -> None:
        async for message in outgoing(reader, account, valve, window, sender):
            async with turn:
                await stream.write(message)

    async def repeat() -> None:
        """Send again what the far end misses. It hands on nothing before that, so this never waits for the window."""
        while True:
            message = await missed.get()
            await account(len(message))
            window.sent(len(message))
            async with turn:
                await stream.write(message)

    async def receive() -> None:
        # The far end acknowledges also after the end of its own data. It ends the stream once both
        # directions have ended.
        ended = False
        while (message := await stream.read()) is not grpc.aio.EOF:
            if message[:1] == _TOOK:
                window.took(int.from_bytes(message[1:9]))
                if sender is not None:
                    sender.took(message[1:])
            elif message[:1] == pages.MISSING and sender is not None:
                missed.put_nowait(sender.again(int.from_bytes(message[1:])))
            elif not message:
                ended = True
                _end(writer)
            else:
                data = unpack(message)
                writer.write(data)
                if hear is not None:
                    hear(data)
                await writer.drain()
        if not ended:
            raise ConnectionResetError("the tunnel broke")

    sending, receiving, repeating = (asyncio.create_task(work()) for work in (send, receive, repeat))
    try:
        await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            sending.result()
        await receiving
    except (grpc.aio.AioRpcError, OSError, asyncio.InvalidStateError, PeerRefused):
        pass  # Both ends are closed below, which is how their users notice.
    finally:
        for task in (sending, receiving, repeating):
            task.cancel()
        stream.cancel()
        writer.close()


def _end(writer: asyncio.StreamWriter) -> None:
    if writer.can_write_eof():
        writer.write_eof()
