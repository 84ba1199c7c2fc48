# SPDX-License-Identifier: Apache-2.0
"""The link for blocking code: worker threads call, push and tunnel through one event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from seedship import beneath
from seedship.errors import InvalidRequest, LinkPaused, SeedshipError
from seedship.link import tunnel, wire
from seedship.link.client import Client, join
from seedship.link.identity import Identity
from seedship.link.limit import WanLimit
from seedship.link.pages import Lookup, PageSender
from seedship.link.peers import BORROWER, DEPOT, SITE, Peer, PeerBook, PeerLimit
from seedship.link.push import PushSink, Trouble
from seedship.link.valve import TunnelGate
from seedship.planner import PAUSED, Schedule, Width, parse_schedule
from seedship.runtime import spawn

T = TypeVar("T")
Req = TypeVar("Req")
Res = TypeVar("Res")


class LinkSession:
    """A site's end of the link to all its peers.

    Every method may be called from any thread except the loop's.
    """

    def __init__(
        self,
        me: Identity,
        book: PeerBook,
        loop: asyncio.AbstractEventLoop,
        *,
        limit: PeerLimit | None = None,
        streams: int = 1,
    ) -> None:
        """Create a session.

        Args:
            limit: Limit for peers without one in the book.
            streams: Maximum connections to each peer for segments.

        Raises:
            InvalidRequest: The limit is invalid.
        """
        self._me, self._book, self._loop = me, book, loop
        self._limit, self._streams = limit or PeerLimit(), streams
        _parsed(self._limit)
        self._clients: dict[str, Client] = {}
        self._traffic: dict[str, WanLimit] = {}

    def call(self, peer: str, method: wire.Method[Req, Res], request: Req, limit_s: float = 30.0) -> Res:
        """Call the peer with this site id. Raises as ``Client.call`` does."""

        async def work() -> Res:
            return await self._client(peer).call(method, request, limit_s)

        return self._wait(work())

    def reconnect(self, peer: str, limit_s: float) -> None:
        """Wait for a broken connection to a peer to come back, as ``Client.reconnect`` does."""

        async def work() -> None:
            await self._client(peer).reconnect(limit_s)

        self._wait(work())

    def hello(self, peer: str) -> int:
        """Return the version that both sites speak. Raises as ``Client.hello`` does."""

        async def work() -> int:
            return await self._client(peer).hello()

        return self._wait(work())

    def show_certificate(self) -> None:
        """Call each peer once, in the background.

        At peers that expect a new certificate this retires the old one.
        """

        def work() -> None:
            for peer in self._book.everyone():
                with suppress(SeedshipError):  # A peer that does not answer sees it with the next call.
                    self.hello(peer.site)

        spawn("certificate", work)

    def probe(self, peer: str, limit_s: float) -> tuple[int, float | None]:
        """Return a peer's version and clock offset, as ``Client.probe`` does."""

        async def work() -> tuple[int, float | None]:
            return await self._client(peer).probe(limit_s)

        return self._wait(work())

    def join(
        self,
        code: str,
        address: str,
        *,
        drives: bool = False,
        name: str = "",
        reserved: Collection[str] = (),
    ) -> Peer:
        """Use an invitation. Raises as ``seedship.link.join`` does."""
        book = self._book
        return self._wait(join(self._me, book, code, address, drives=drives, name=name, reserved=reserved))

    @contextmanager
    def sink(
        self,
        peer: str,
        owner: str,
        stop: threading.Event,
        *,
        kind: str = "epochs",
        trouble: Trouble | None = None,
    ) -> Iterator[PushSink]:
        """Open a sink for segments to the peer.

        Segments of a tap arrive in the order in which they were put.

        Args:
            owner, kind: What the traffic is counted as.
            stop: Ends every wait when set.
            trouble: As for ``PushSink``.
        """

        async def made() -> PushSink:
            client = self._client(peer)
            return PushSink(
                client,
                self._loop,
                owner=owner,
                stop=stop,
                kind=kind,
                trouble=trouble,
                width=None if kind == "tap" else client.width,
            )

        sink = self._wait(made())
        try:
            yield sink
        finally:
            sink.close()

    def traffic(self, peer: Peer) -> WanLimit:
        """Return the account of what is sent to a peer. Its limit applies to the WAN."""
        traffic = self._traffic.get(peer.site)
        if traffic is None:
            traffic = WanLimit()
            if peer.role == SITE:
                traffic.schedule = _parsed(self.limit(peer))
            self._traffic[peer.site] = traffic
        return traffic

    def limit(self, peer: Peer) -> PeerLimit:
        """Return the limit of what is sent to a peer."""
        return self._book.limit(peer.site) or self._limit

    def set_limit(self, peer: Peer, limit: PeerLimit | None) -> None:
        """Set the limit of what is sent to a peer, also for waiting bytes. None: the configuration's limit.

        Raises:
            InvalidRequest: The limit is invalid. Nothing was changed.
        """
        schedule = _parsed(limit or self._limit)
        self._book.set_limit(peer.site, limit)
        self.traffic(peer).schedule = schedule

    def check_open(self, peer: str) -> None:
        """Refuse to start what would have to wait for the end of a pause.

        Raises:
            LinkPaused: The peer's schedule allows no traffic now.
        """
        peer_entry = self._book.get(peer)
        if self.traffic(peer_entry).rate == PAUSED:
            raise LinkPaused(peer_entry.name)

    @contextmanager
    def tunnels(
        self,
        peer: str,
        attempt: str,
        sockets: Mapping[str, Path],
        mode: int = 0o660,
        hear: Mapping[str, tunnel.Hear] | None = None,
        valves: Mapping[str, TunnelGate] | None = None,
        index: Lookup | None = None,
    ) -> Iterator[None]:
        """Carry every connection to each socket (by kind) to the peer, while the block lasts.

        Data that comes back on a kind is passed to its ``hear`` callback, on the loop. Sent data
        waits for its valve. With ``index``, memory refers to pages that the peer has on its disks; the
        peer must know such messages.

        Each socket gets its folder's owner. Leaving the block breaks open connections.
        """
        servers, tasks = self._wait(self._listen(peer, attempt, sockets, mode, hear or {}, valves or {}, index))
        try:
            yield
        finally:
            self._wait(self._unlisten(servers, tasks))
            for path in sockets.values():
                path.unlink(missing_ok=True)

    async def close(self) -> None:
        """Close all connections. Called on the loop."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    async def _listen(
        self,
        peer: str,
        attempt: str,
        sockets: Mapping[str, Path],
        mode: int,
        hear: Mapping[str, tunnel.Hear],
        valves: Mapping[str, TunnelGate],
        index: Lookup | None,
    ) -> tuple[list[asyncio.Server], set[asyncio.Task[None]]]:
        client = self._client(peer)
        servers: list[asyncio.Server] = []
        tasks: set[asyncio.Task[None]] = set()

        def acceptor(kind: str) -> Any:
            async def account(count: int) -> None:
                await client.traffic.take(count, attempt, kind)

            async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = asyncio.current_task()
                assert task is not None
                tasks.add(task)
                try:
                    stream = client.tunnel(kind, attempt)
                    sender = PageSender(index) if index is not None and kind == tunnel.MEMORY else None
                    await tunnel.carry(stream, (reader, writer), account, hear.get(kind), valves.get(kind), sender)
                finally:
                    tasks.discard(task)

            return accepted

        for kind, path in sockets.items():
            path.unlink(missing_ok=True)
            servers.append(await asyncio.start_unix_server(acceptor(kind), str(path)))
            beneath.give(path, path.parent.stat(), mode)
        return servers, tasks

    async def _unlisten(self, servers: list[asyncio.Server], tasks: set[asyncio.Task[None]]) -> None:
        for server in servers:
            server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _client(self, site: str) -> Client:
        """On the loop only: a gRPC channel belongs to its loop."""
        peer = self._book.get(site, SITE, DEPOT, BORROWER)
        client = self._clients.get(peer.site)
        if client is None or client.peer != peer:  # The site may have been paired again.
            client = self._clients[peer.site] = Client(self._me, peer, self.traffic(peer), Width(self._streams))
        return client

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result()


def _parsed(limit: PeerLimit) -> Schedule:
    try:
        return parse_schedule(limit.limit, limit.schedule)
    except ValueError as error:
        raise InvalidRequest("limit", str(error)) from error
