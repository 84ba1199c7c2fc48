# SPDX-License-Identifier: Apache-2.0
"""Ownership of replications: the only place where an id that a peer names becomes a replication of this site.

A handler of a peer's call or message gets ``Theirs`` (the peer is the source, this site the
destination) or ``ReplicationToPeer`` (the reverse), never an id. Lineages, shipments, cuts, attempts, envelopes
and memory points are looked up in that replication's document, so they cannot belong to another
peer. ``insist_new`` rejects ids of new objects that collide with existing ones.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from seedship import link, store
from seedship.errors import Conflict, Fenced, PeerUntrusted
from seedship.runtime import answered
from seedship.workflows import messages
from seedship.workflows.context import Context, ReplicationStore
from seedship.workflows.documents import DestinationDocument, SourceDocument

_SHORT = 8
"""Length of the id prefix that names folders (see ``places``)."""


class Theirs(NamedTuple):
    """A replication whose source is the peer."""

    peer: link.Peer
    row: store.Replication
    document: DestinationDocument

    def now(self, context: Context) -> Theirs:
        """Return its present state, for a caller that waited for a lock."""
        return theirs(context.replications, self.peer, self.row.id)


class ReplicationToPeer(NamedTuple):
    """A replication whose source is this site and whose destination is the peer."""

    peer: link.Peer
    row: store.Replication
    document: SourceDocument


class _Named(Protocol):
    """A request that names its replication."""

    @property
    def replication(self) -> str: ...


class _Closing(Protocol):
    """A request that names its lineage."""

    @property
    def lineage(self) -> str: ...


Req = TypeVar("Req")
Res = TypeVar("Res")
N = TypeVar("N", bound=_Named)
C = TypeVar("C", bound=_Closing)


def theirs(replications: ReplicationStore, peer: link.Peer, replication: str) -> Theirs:
    """Return a replication of this peer. Raises as ``ReplicationStore.of_peer`` does."""
    return Theirs(peer, *replications.of_peer(peer, replication))


def our_replication(replications: ReplicationStore, peer: link.Peer, replication: str) -> ReplicationToPeer:
    """Return a replication of this site whose destination is the peer.

    Raises:
        NotFound, Conflict: There is none, or it is another peer's.
    """
    row, document = replications.source(replication)
    if row.peer != peer.site or row.id != replication:
        raise Conflict(f"The replication {replication[:_SHORT]}", "is not this peer's")
    return ReplicationToPeer(peer, row, document)


def replication_by_lineage(
    catalog: store.Catalog, replications: ReplicationStore, peer: link.Peer, lineage: str
) -> Theirs:
    """Return the replication of this peer that has a lineage.

    Raises:
        Fenced: It was taken over.
        Conflict: It was given up here, or there is none.
        SiteRestored: As for ``theirs``.
    """
    for row in catalog.replications.with_lineage(lineage):
        if row.role == "destination" and row.peer == peer.site:
            if row.state == "done":  # The VM was taken over, so nothing may arrive any more.
                raise Fenced(f"The VM {row.vm_name}", row.generation, row.generation - 1)
            if row.state == "aborted":  # An operator here aborted it and confirmed that the source is lost.
                raise Conflict(
                    f"The replica of {row.vm_name}",
                    "was given up at the destination",
                    f"seedship replication abort {shlex.quote(row.vm_name)}, then create it anew",
                )
            return theirs(replications, peer, row.id)
    raise Conflict(
        "The replica",
        "is not known at the destination, which has no such lineage",
        "To replicate the VM again: `seedship replication abort VM`, then create it anew",
    )


def of_source(
    handler: Callable[[Context, Theirs, N], Res],
) -> Callable[[Context, link.Peer, N], Res]:
    """Wrap a handler of calls that a replication's source makes."""

    def handle(context: Context, peer: link.Peer, request: N) -> Res:
        return handler(context, theirs(context.replications, peer, request.replication), request)

    return handle


def of_closing(
    handler: Callable[[Context, Theirs, C], Res],
) -> Callable[[Context, link.Peer, C], Res]:
    """Wrap a handler of a close, or of a part of it, which names its lineage, as ``of_source`` does."""

    def handle(context: Context, peer: link.Peer, request: C) -> Res:
        return handler(
            context, replication_by_lineage(context.catalog, context.replications, peer, request.lineage), request
        )

    return handle


def from_source(
    kind: type[N], handler: Callable[[Context, Theirs, N], object]
) -> Callable[[Context, link.Peer, bytes], None]:
    """Wrap a handler of a message that a replication's source delivers."""

    def handle(context: Context, peer: link.Peer, body: bytes) -> None:
        message = link.wire.decode(body, kind, f"the message {kind.__name__}")
        handler(context, theirs(context.replications, peer, message.replication), message)

    return handle


def from_destination(
    kind: type[N], handler: Callable[[Context, ReplicationToPeer, N], object]
) -> Callable[[Context, link.Peer, bytes], None]:
    """Wrap a handler of a message that a replication's destination delivers."""

    def handle(context: Context, peer: link.Peer, body: bytes) -> None:
        message = link.wire.decode(body, kind, f"the message {kind.__name__}")
        handler(context, our_replication(context.replications, peer, message.replication), message)

    return handle


def insist_new(context: Context, peer: link.Peer, request: messages.Request) -> None:
    """Check that the ids a request gives to new objects are free, or that the same request created them before.

    An id is 128 random bits, so a collision of whole ids is no accident. The first digits, which
    name folders, collide once in a few million. The source then tries again with another id.

    Raises:
        Conflict: An id belongs to something else.
    """
    taken = _taken()
    short, known = request.replication[:_SHORT], False
    for row, document in context.known.all():
        clones = document.clones if isinstance(document, DestinationDocument) else ()
        if any(clone.id.startswith(short) for clone in clones):
            raise taken
        if row.id == request.replication:
            if (row.role, row.peer, row.lineage) != ("destination", peer.site, request.lineage):
                raise taken
            known = True
        elif row.lineage == request.lineage or row.id.startswith(short):
            raise taken
    if not known and any(ident.startswith(short) for ident in context.catalog.events.forgotten()):
        raise taken
    insist_shipment(context.catalog, peer, request.shipment)


def insist_no_folder(context: Context, request: messages.Request, pool: Path | None) -> None:
    """Check that no folder of images has the digits that a new replication's folder would have.

    Args:
        pool: Folder of the storage pool that its images would be made in, if any.

    Raises:
        Conflict: One has, also where its replication is not known any more.
        FolderSilent: The file system of images does not answer.
    """
    if context.catalog.replications.some([request.replication]):
        return
    for root in {*context.paths.image_roots, *(() if pool is None else (pool,))}:
        if answered(root, lambda root=root: any(root.glob(f"*-{request.replication[:_SHORT]}"))):  # type: ignore[misc]
            raise _taken()


def _taken() -> Conflict:
    return Conflict("The replication", "was given an id that is in use here", "Repeat: another one is chosen")


def insist_shipment(catalog: store.Catalog, peer: link.Peer, shipment: str) -> store.Shipment:
    """Return a peer's shipment to this site, known or new.

    Raises:
        PeerUntrusted: It is another peer's, or it goes the other way.
    """
    held = catalog.shipments.find(shipment) or store.Shipment(shipment, peer.site, "destination")
    if (held.peer, held.role) != (peer.site, "destination"):
        raise PeerUntrusted(peer.name, "the shipment is another one's")
    return held


def insist_drives(
    catalog: store.Catalog, peers: link.PeerBook, shipment: store.Shipment, drives: tuple[str, ...]
) -> None:
    """Check that no drive belongs to another peer's shipment.

    Raises:
        PeerUntrusted: One does.
    """
    named = set(drives)
    for other in catalog.shipments.all():
        if other.peer != shipment.peer and named & set(other.drives):
            raise PeerUntrusted(peers.name_of(shipment.peer), "a drive is another one's")


Handlers = dict[link.Method[Any, Any], Callable[[Context, link.Peer, Any], Any]]
