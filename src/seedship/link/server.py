# SPDX-License-Identifier: Apache-2.0
"""The receiving end: one TCP port, mutual TLS, no call without a pinned certificate.

The port's trusted certificates follow the peer book (``listener``), so a pairing takes effect
immediately. The sender is looked up at every call and pushed segment, so nothing that a removed peer
sends has an effect, also on open connections. Those are closed within about a second (``connections``).
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import logging
import resource
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

import grpc
import msgspec

from seedship import clock, logs
from seedship.errors import (
    InvitationInvalid,
    PeerRefused,
    PeerUntrusted,
    SeedshipError,
)
from seedship.link import identity, invitation, rotation, tunnel, wire
from seedship.link.connections import Connections
from seedship.link.limit import WanLimit
from seedship.link.listener import LinkListener
from seedship.link.pages import PageStore
from seedship.link.peers import SITE, Pairing, Peer, PeerBook, prove_same
from seedship.model import bounds
from seedship.model.decoding import unpack
from seedship.model.text import printable

log = logging.getLogger(__name__)
_CHECK_S = 1.0
"""Seconds between checks of a tunnel that its peer is still paired."""
Handler = Callable[[Peer, Any], Any]
"""Handles a call. A blocking function, run on a thread."""
Store = Callable[[Peer, bytes], None]
"""Makes a pushed segment durable before it returns, or raises. Run on a thread."""


class Server:
    """One site's link port."""

    def __init__(
        self,
        me: identity.Identity,
        book: PeerBook,
        address: str,
        methods: dict[wire.Method[Any, Any], Handler],
        store: Store | None = None,
        connect: tunnel.Connect | None = None,
        pages: Callable[[Peer, str], PageStore] | None = None,
        *,
        advertised: str = "",
        traffic: Callable[[Peer], WanLimit] | None = None,
        reserved: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """Create the server; ``start`` makes it listen.

        Args:
            me: This site's identity.
            book: The paired machines.
            address: host:port to listen on (port 0: any).
            methods: The handlers of calls.
            store: Stores pushed segments. None: accept none.
            connect: Opens the inner ends of tunnels. None: accept none.
            pages: Returns the disks that memory may refer to, for a peer's attempt. None: it may not.
            advertised: host:port that peers use, if it differs from ``address``.
            traffic: Returns the account for what tunnels send back.
            reserved: Names that a joiner cannot give itself (see ``Pairing``).
        """
        self._reserved = reserved
        self._calls: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(bounds.CALLS_A_PEER))
        self._me, self._book, self._store, self._connect = me, book, store, connect
        self._pages = pages
        self._listen, self.address = address, advertised or address
        self._traffic = traffic or (lambda _peer: WanLimit())
        self._methods = {method.name: (method, handler) for method, handler in methods.items()}
        self._methods["Hello"] = (wire.HELLO, self._hello)
        self._methods["Rotate"] = (rotation.NOTICE, functools.partial(rotation.heard, book))
        self._listener: LinkListener | None = None
        self._authorities: dict[str, bytes] = {}
        """Certificates of the open invitations, by invitation name."""
        self._connections = Connections(lambda: {peer.site for peer in book.everyone()})

    async def start(self) -> int:
        """Listen. Returns the port.

        Raises:
            Conflict: Another process listens there.
        """
        identity_pair = (self._me.key_pem, self._me.cert_pem)
        listener = LinkListener(self._built, identity_pair, self._trusted)
        port = await listener.start(self._listen)
        self._listener = listener
        self._book.follow(listener.changed, listener.in_force)
        host, _, given = self.address.rpartition(":")
        if given == "0":
            self.address = f"{host}:{port}"
        self._watching = asyncio.create_task(self._connections.watch(port))
        return port

    def _built(self) -> Any:
        server = grpc.aio.server(options=[*wire.OPTIONS, *_options()])
        handlers = {
            "Call": grpc.unary_unary_rpc_method_handler(self._call),
            "Push": grpc.stream_stream_rpc_method_handler(self._push),
            "Tunnel": grpc.stream_stream_rpc_method_handler(self._tunnel),
            "Pair": grpc.unary_unary_rpc_method_handler(self._pair),
        }
        generic = grpc.method_handlers_generic_handler(wire.SERVICE, handlers)
        server.add_generic_rpc_handlers((generic,))
        return server

    @property
    def listening(self) -> bool:
        """Whether peers are served."""
        return self._listener is not None

    async def stop(self) -> None:
        """Stop listening, and end calls under way."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            self._watching.cancel()
            await listener.stop(0.2)

    def invite(self, lifetime_s: float = 24 * 3600, folders: Sequence[str] = (), name: str = "") -> str:
        """Create an invitation.

        Args:
            lifetime_s: Seconds until it expires.
            folders: The joiner may use the drives mounted below them, and nothing else.
            name: The joiner's name here. Empty: the name that it gives itself.

        Returns:
            The code, which works once.
        """
        made = invitation.create(self.address, self._me.fingerprint, drives=bool(folders))
        self._book.invite(made, lifetime_s, tuple(folders), name)
        return made.code()

    def _trusted(self) -> frozenset[bytes]:
        # Created once per invitation: each new signature would differ, and only real changes may
        # replace the server.
        self._authorities = {
            made.name: self._authorities.get(made.name) or invitation.authority_certificate(made)
            for made in self._book.open_invitations()
        }
        trusted = (*(peer.trusted for peer in self._book.everyone()), *self._authorities.values())
        # With nobody to trust the port trusts itself: an empty list would mean the system's roots.
        return frozenset((*trusted, self._me.cert_pem)) - {b""}

    async def _peer(self, context: Any, role: str = SITE) -> Peer:
        before = self._book.version
        peer = self._book.by_certificate(_certificate(context))
        if peer is not None:
            self._connections.mark(context.peer(), peer.site)
        await self._in_force(before)
        try:
            return _admitted(peer, role)
        except SeedshipError as error:
            await self._refuse(context, error)
            raise AssertionError("unreachable") from error

    async def _in_force(self, before: int) -> None:
        """If a call changes whom the port trusts, the change is in force before the reply."""
        if self._book.version != before:
            await self._book.in_force()

    async def _call(self, body: bytes, context: Any) -> bytes:
        name = dict(context.invocation_metadata()).get("seedship-method", "")
        if name not in self._methods:
            await self._peer(context, "")
            await self._refuse(context, wire.unknown_method(name))
        method, handler = self._methods[name]
        peer = await self._peer(context, method.role)
        before = self._book.version
        try:
            async with self._calls[peer.site]:
                answer = await self._answer(method, handler, peer, _certificate(context), body)
            await self._in_force(before)
            return answer
        except SeedshipError as error:
            await self._refuse(context, error)
            raise AssertionError("unreachable") from error

    async def _answer(
        self, method: wire.Method[Any, Any], handler: Handler, peer: Peer, cert: bytes, body: bytes
    ) -> bytes:
        """Handle a call.

        Raises:
            SeedshipError: The call is refused or malformed, or failed unexpectedly.
        """
        name = method.name
        if len(body) > method.most:
            raise PeerRefused(f"{name}: a request of {len(body)} bytes, at most {method.most}")
        try:
            request = unpack(body, method.request)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _malformed(name, error) from error

        def handle() -> Any:
            # The peer may be removed while the call waits for its turn, and then for a thread.
            return handler(_admitted(self._book.by_certificate(cert), method.role), request)

        with logs.about(peer=peer.name, call=name):
            try:
                answer = await asyncio.to_thread(handle)
            except SeedshipError:
                raise
            except msgspec.DecodeError as error:  # Raised for data inside the request.
                raise _malformed(name, error) from error
            except Exception as error:  # A defect ends one call only.
                log.exception("the call %s from %s failed", name, peer.name)
                raise SeedshipError from error
        return msgspec.msgpack.encode(answer)

    async def _push(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await self._peer(context)
        if self._store is None:
            await self._refuse(context, PeerRefused("it takes no segments"))
            return
        store, cert = self._store, _certificate(context)

        def keep(data: bytes) -> None:
            # The peer may be removed while it pushes, or while the segment waits for a thread.
            store(_admitted(self._book.by_certificate(cert), SITE), data)

        async for data in requests:
            try:
                await asyncio.to_thread(keep, data)
            except SeedshipError as error:
                await self._refuse(context, error)
            yield b"\x01"

    async def _tunnel(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        peer = await self._peer(context)
        metadata = dict(context.invocation_metadata())
        kind, attempt = metadata.get(tunnel.KIND_KEY, ""), metadata.get(tunnel.OWNER_KEY, "")
        try:
            if self._connect is None:
                raise PeerRefused("it takes no tunnels")
            streams = await self._connect(peer, attempt, kind)
        except SeedshipError as error:
            await self._refuse(context, error)
            return
        traffic = self._traffic(peer)
        store = functools.partial(self._pages, peer, attempt) if self._pages and kind == tunnel.MEMORY else None
        checked = clock.monotonic()

        async def heard() -> AsyncIterator[bytes]:
            nonlocal checked
            async for message in requests:
                if clock.monotonic() - checked > _CHECK_S:
                    if self._book.by_certificate(_certificate(context)) is None:
                        raise PeerRefused("it is not paired any longer")
                    checked = clock.monotonic()
                yield message

        async def account(count: int) -> None:
            await traffic.take(count, attempt, kind)

        try:
            async for message in tunnel.serve(heard(), streams, account, store):
                yield message
        except (OSError, PeerRefused) as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the tunnel broke: {error}")

    async def _pair(self, body: bytes, context: Any) -> bytes:
        name = identity.issuer(_certificate(context))
        try:
            if not name.startswith(invitation.PREFIX):
                raise InvitationInvalid("the call does not come from an invitation")
            request = unpack(body, wire.PairRequest)
            used = self._book.use_invitation(name)
            code = used.invitation
            if not hmac.compare_digest(code.prove(b"join", request.card), request.proof):
                raise InvitationInvalid("the joiner does not know its secret")
            terms = Pairing(self._me, used.role, used.folders, used.name, self._reserved(), request.same)
            joiner = self._book.pair(request.card, terms)
            await self._book.in_force()
        except SeedshipError as error:
            await self._refuse(context, error)
            raise AssertionError("unreachable") from error
        except msgspec.DecodeError as error:
            await self._refuse(context, InvitationInvalid("malformed request"))
            raise AssertionError("unreachable") from error
        mine = card(self._me, self.address)
        log.info("paired with %s (%s)", joiner.name, joiner.site)
        proof = code.prove(b"invite", mine, request.card)
        return msgspec.msgpack.encode(wire.PairReply(mine, proof, prove_same(self._me, mine)))

    def _hello(self, peer: Peer, request: wire.Hello) -> wire.Hello:
        wire.common_version(peer.name, request.versions)
        return wire.Hello(self._me.site, self._me.name, wire.VERSIONS, clock.now().timestamp())

    async def _refuse(self, context: Any, error: SeedshipError) -> None:
        """End the call: raises inside grpc."""
        context.set_trailing_metadata(((wire.ERROR_KEY, wire.pack_error(error)),))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, error.code)


def _options() -> list[tuple[str, int]]:
    """Return the gRPC options that bound unauthenticated connections, which count from accept on."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return [
        ("grpc.max_allowed_incoming_connections", min(bounds.LINK_CONNECTIONS, files // 4)),
        ("grpc.server_handshake_timeout_ms", int(bounds.LINK_HANDSHAKE_S * 1000)),
    ]


def card(me: identity.Identity, address: str) -> bytes:
    """Return the card that a site presents at pairing, msgpack."""
    return msgspec.msgpack.encode(Peer(me.site, me.name, address, me.cert_pem, me.signing_public, me.recipient_public))


def _admitted(peer: Peer | None, role: str) -> Peer:
    """Return the peer of a certificate if it is paired in this role. An empty role means any.

    Raises:
        PeerUntrusted: The certificate is not pinned, or no longer.
        PeerRefused: The peer is paired in another role.
    """
    if peer is None:
        raise PeerUntrusted(wire.UNKNOWN, "its certificate is not pinned")
    if role and peer.role != role:
        raise PeerRefused(f"{peer.name} is paired as a {peer.role}, and may not ask for this")
    return peer


def _malformed(name: str, error: Exception) -> PeerRefused:
    return PeerRefused(f"{name}: malformed request ({printable(str(error), 300)})")


def _certificate(context: Any) -> bytes:
    certificates = context.auth_context().get("x509_pem_cert") or [b""]
    return bytes(certificates[0])
