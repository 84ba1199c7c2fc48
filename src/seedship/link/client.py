# SPDX-License-Identifier: Apache-2.0
"""The calling end: calls, pushed segments and joining, each with a limit on every wait."""

from __future__ import annotations

import asyncio
import functools
import hmac
import math
import ssl
from collections.abc import Collection
from contextlib import suppress
from typing import Any, TypeVar

import grpc
import msgspec

from seedship import clock
from seedship.errors import (
    InvitationInvalid,
    PeerRefused,
    PeerUnreachable,
    PeerUntrusted,
    SeedshipError,
)
from seedship.link import identity, invitation, tunnel, wire
from seedship.link.limit import WanLimit
from seedship.link.peers import DEPOT, SITE, Card, Pairing, Peer, PeerBook, prove_same
from seedship.link.server import card
from seedship.model.text import printable
from seedship.planner import Width

Req = TypeVar("Req")
Res = TypeVar("Res")
_CALL = f"/{wire.SERVICE}/Call"
_PUSH = f"/{wire.SERVICE}/Push"
_PAIR = f"/{wire.SERVICE}/Pair"
_TUNNEL = f"/{wire.SERVICE}/Tunnel"
_RECONNECT_S = 2.0
_UNSENT = "failed to connect to all addresses"
_CUT = ("Socket closed", "Connection reset", "Broken pipe")
"""How gRPC describes a connection that ended during its handshake. A refused connection is none of these."""
_READY_S = 3.0
"""Maximum seconds for which a join waits until the inviter's port trusts a new invitation."""
_AGAIN_S = 0.05
_PAIR_S = 10.0
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""Codes for a connection that ended, or for a call that reached a server being replaced and was not handled."""


class Client:
    """Calls to one peer. Connects and reconnects automatically.

    Urgent traffic (calls, a guest's writes) has a separate connection, so that it never queues
    after segments or memory.
    """

    def __init__(
        self,
        me: identity.Identity,
        peer: Peer,
        traffic: WanLimit | None = None,
        width: Width | None = None,
    ) -> None:
        self._me, self.peer = me, peer
        self.traffic = traffic or WanLimit()
        self.width = width or Width(1)
        """Number of connections for segments."""
        self._calls = self._connect()
        self._memory: Any = None
        self._pushes: list[Any] = []

    async def close(self) -> None:
        """Close the connections."""
        for channel in (self._calls, self._memory, *self._pushes):
            if channel is not None:
                await channel.close()

    async def call(self, method: wire.Method[Req, Res], request: Req, limit_s: float = 30.0) -> Res:
        """Call the peer.

        Raises:
            PeerUnreachable: No answer; whether the call was handled is unknown.
            PeerUntrusted: The peer does not trust this site, or is not the one that was paired.
            SeedshipError: What the peer's handler raised.
        """
        body = msgspec.msgpack.encode(request)
        await self.traffic.take(len(body), "", "control")
        send = functools.partial(
            self._calls.unary_unary(_CALL),
            body,
            timeout=limit_s,
            metadata=(("seedship-method", method.name),),
        )
        try:
            try:
                answer = await send()
            except grpc.aio.AioRpcError as error:
                if not _is_cut(error):
                    raise
                await self.reconnect(_RECONNECT_S)
                answer = await send()
        except grpc.aio.AioRpcError as error:
            raise named(self.peer.name, error) from error
        return wire.decode(answer, method.response, f"the answer to {method.name}")

    async def reconnect(self, limit_s: float) -> None:
        """Wait at most ``limit_s`` seconds for a broken connection to come back. Returns in any case.

        After a peer's restart gRPC lets calls fail until its next attempt, up to a second later.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self._calls.channel_ready(), limit_s)

    async def hello(self) -> int:
        """Negotiate the link version that both sites speak.

        Raises:
            VersionMismatch: There is none.
            PeerError: As for ``call``.
        """
        mine = wire.Hello(self._me.site, self._me.name, wire.VERSIONS)
        theirs = await self.call(wire.HELLO, mine)
        return wire.common_version(self.peer.name, theirs.versions)

    async def probe(self, limit_s: float) -> tuple[int, float | None]:
        """Query the peer.

        Returns:
            The common version, and by how many seconds the peer's clock is ahead (None if not
                reported).

        Raises:
            SeedshipError: As for ``hello``.
        """
        mine = wire.Hello(self._me.site, self._me.name, wire.VERSIONS)
        sent = clock.now().timestamp()
        theirs = await self.call(wire.HELLO, mine, limit_s)
        middle = (sent + clock.now().timestamp()) / 2
        version = wire.common_version(self.peer.name, theirs.versions)
        known = theirs.at > 0 and math.isfinite(theirs.at)
        return version, theirs.at - middle if known else None

    def push(self, connection: int = 0) -> Any:
        """Open a stream of segments over one of the connections; see ``seedship.link.push``."""
        while len(self._pushes) <= connection:
            self._pushes.append(self._connect())
        return self._pushes[connection].stream_stream(_PUSH)()

    def tunnel(self, kind: str, attempt: str) -> Any:
        """Open a byte stream; see ``seedship.link.tunnel``."""
        metadata = ((tunnel.KIND_KEY, kind), (tunnel.OWNER_KEY, attempt))
        channel = self._calls
        if kind == tunnel.MEMORY:
            self._memory = channel = self._memory or self._connect()
        return channel.stream_stream(_TUNNEL)(metadata=metadata)

    def _connect(self) -> Any:
        credentials = grpc.ssl_channel_credentials(self.peer.trusted, self._me.key_pem, self._me.cert_pem)
        return _channel(self.peer.address, credentials, self.peer.site)


async def join(
    me: identity.Identity,
    book: PeerBook,
    code: str,
    address: str,
    *,
    drives: bool = False,
    name: str = "",
    reserved: Collection[str] = (),
) -> Peer:
    """Use an invitation. Afterwards both sites trust each other.

    Args:
        me: This site's identity.
        book: Where the peer is recorded.
        code: The invitation.
        address: host:port of this site, for the peer.
        drives: Expect an invitation to use drives; the inviter becomes a depot without rights here.
        name: As in ``Pairing``.
        reserved: As in ``Pairing``.

    Returns:
        The other site.

    Raises:
        InvitationInvalid: The invitation was mistyped, used, has expired or is of the other kind,
            or the site is not the inviter.
        PeerUnreachable: The inviter does not answer.
    """
    invited = invitation.parse(code)
    if invited.drives != drives:
        right = "seedship depot join" if invited.drives else "seedship peer join"
        raise InvitationInvalid(f"it is one for {right}")
    host, _, port = invited.address.rpartition(":")
    try:
        cert = await asyncio.to_thread(_server_certificate, host.strip("[]"), int(port))
    except (OSError, ValueError) as error:
        raise PeerUnreachable(invited.address, str(error)) from error
    if identity.fingerprint(cert) != invited.fingerprint:
        raise InvitationInvalid(f"the site at {invited.address} is not the one that invited")
    key, mine = invitation.joiner_certificate(invited)
    credentials = grpc.ssl_channel_credentials(cert, key, mine)
    my_card = card(me, address)
    request = wire.PairRequest(my_card, invited.prove(b"join", my_card), prove_same(me, my_card))
    body = msgspec.msgpack.encode(request)
    async with _channel(invited.address, credentials, _name_in(cert)) as channel:
        answer = await _pair(channel, body, invited.address)
    try:
        reply = wire.decode(answer, wire.PairReply, "the answer to Pair")
        shown = wire.decode(reply.card, Card, "the other site's card")
        seen = identity.fingerprint(shown.cert_pem)
    except (PeerRefused, ValueError) as error:
        raise InvitationInvalid("the other site's answer is malformed") from error
    if not hmac.compare_digest(invited.prove(b"invite", reply.card, my_card), reply.proof):
        raise InvitationInvalid("the other site does not know its secret")
    if seen != invited.fingerprint:
        raise InvitationInvalid("the other site presented another certificate")
    terms = Pairing(me, DEPOT if drives else SITE, (), name, reserved, reply.same)
    peer = book.pair(reply.card, terms, address=invited.address)
    await book.in_force()
    return peer


async def _pair(channel: Any, body: bytes, address: str) -> bytes:
    """Send the pairing request until the inviter handles it.

    The inviter reopens its port to trust an invitation. A connection that starts at that moment
    ends, or is never served. Sending again is safe: an invitation works once.
    """
    deadline = clock.monotonic() + _READY_S
    unserved = False
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(channel.channel_ready(), max(deadline - clock.monotonic(), 0.1))
        try:
            answer: bytes = await channel.unary_unary(_PAIR)(body, timeout=_PAIR_S)
            return answer
        except grpc.aio.AioRpcError as error:
            unreachable = named(address, error)
            if not isinstance(unreachable, PeerUntrusted | PeerUnreachable):
                raise unreachable from error
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and not unserved:
                unserved = True
                continue
            if error.code() in _GONE and clock.monotonic() < deadline:
                await asyncio.sleep(_AGAIN_S)
                continue
            why = "the other site does not accept it: it is unknown, used or expired"
            raise InvitationInvalid(why) from error


def named(peer: str, error: Any) -> SeedshipError:
    """Translate a failed gRPC call into an error of seedship."""
    for key, value in error.trailing_metadata() or ():
        if key == wire.ERROR_KEY:
            try:
                answered = wire.unpack_error(value)
            except PeerRefused as malformed:
                return malformed
            if isinstance(answered, PeerUntrusted) and answered.peer == wire.UNKNOWN:
                return PeerUntrusted(peer, "it does not know this site")
            return answered
    if error.code() == grpc.StatusCode.UNAUTHENTICATED:
        return PeerUntrusted(peer, "it does not know this site")
    details = printable(str(error.details()))
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return PeerUntrusted(peer, "its certificate is not the one that was pinned")
    return PeerUnreachable(peer, f"{error.code().name.lower()}: {details[:200]}")


def _is_cut(error: Any) -> bool:
    """Whether the connection ended before the call was handled, because the peer was reopening its port."""
    details = str(error.details())
    unsent = _UNSENT in details and any(cut in details for cut in _CUT)
    return unsent or error.code() == grpc.StatusCode.CANCELLED


def _channel(address: str, credentials: Any, site: str) -> Any:
    options = [*wire.OPTIONS, ("grpc.ssl_target_name_override", site)]
    # Otherwise channels to the same address would share a connection.
    options += [("grpc.use_local_subchannel_pool", 1)]
    options += [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1000)]
    return grpc.aio.secure_channel(address, credentials, options=options)


def _server_certificate(host: str, port: int) -> bytes:
    deadline = clock.monotonic() + _READY_S
    while True:
        try:
            return ssl.get_server_certificate((host, port), timeout=10).encode()
        except (ConnectionResetError, ssl.SSLError):  # The port was being reopened.
            if clock.monotonic() > deadline:
                raise


def _name_in(cert_pem: bytes) -> str:
    return identity.issuer(cert_pem)
