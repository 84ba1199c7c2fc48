# SPDX-License-Identifier: Apache-2.0
"""How a live VM arrives at the destination: tunnels to libvirt's gate, and to QEMU for memory and disks.

QEMU mirrors the newest disk writes here. Each flush would cost a round trip, most of them during
the guest's pause. No flush is needed while the source owns the VM. So the source's QEMU is not
offered the flush command, and this site makes the data durable: periodically, so that little
remains at the end, and once more before libvirt may finish the migration. A copy that is whole is
durable, or there is no copy.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from seedship import clock, failpoints, link, nbd, store
from seedship.errors import GateRefused, NbdFailed, PeerRefused
from seedship.hypervisor import Gate, Passage
from seedship.workflows.context import Context
from seedship.workflows.documents import DestinationDocument

log = logging.getLogger(__name__)

_EVERY_S: Final = 1.0
_SHARE: Final = 20
"""Flushes take at most 1/20 of the time."""
_LIMIT_S: Final = 20.0
"""The guest is paused during the last flush, and the source's libvirt gives up after 30 s without a sign of life."""


async def connect_tunnel(context: Context, peer: link.Peer, attempt: str, kind: str) -> link.Streams:
    """Open the inner end of a tunnel, only for the prepared attempt and only to its own sockets.

    Raises:
        PeerRefused: No such attempt is prepared.
    """
    row, document = await asyncio.to_thread(prepared, context, peer, attempt)
    folder = context.paths.attempt(row.id, attempt)
    if kind in ("memory", "overlay"):
        try:
            reader, writer = await asyncio.open_unix_connection(str(folder / f"{kind}.sock"))
        except OSError as error:
            raise PeerRefused(f"QEMU does not listen for {kind}: {error}") from error
        return (_Unflushed(reader) if kind == "overlay" else reader), writer
    if kind != "gate":
        raise PeerRefused(f"there is no tunnel {kind!r}")
    passage = Passage(
        row.vm_name,
        row.vm_uuid,
        document.incoming,
        tuple(spec.target for spec in document.disks),
        str(folder / "memory.sock"),
        str(folder / "overlay.sock"),
    )
    disks = _Disks(row.vm_name, passage.disks_socket)
    gate = Gate(
        passage,
        Path(context.config.hypervisor.socket),
        on_frame=lambda way, procedure, moment: failpoints.hit(f"gate.{way}.{procedure}.{moment}"),
        before_finish=disks.settle,
    )
    ours, theirs = socket.socketpair()
    streams = await asyncio.open_unix_connection(sock=ours)
    inner = await asyncio.open_unix_connection(sock=theirs)
    task = asyncio.create_task(_run(context, row.id, gate, disks, inner))
    _gates.add(task)
    task.add_done_callback(_gates.discard)
    return streams


class _Unflushed:
    """Reader of our QEMU's NBD server that hides its offer to flush from the mirroring peer."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader, self._hidden = reader, nbd.FlushHidden()

    async def read(self, most: int) -> bytes:
        """Return the next bytes, or none at the end."""
        return self._hidden.passed(await self._reader.read(most))


class _Disks:
    """The mirrored disk writes of one attempt, which a flush makes durable."""

    def __init__(self, name: str, at: str) -> None:
        self._name, self._socket = name, at
        self._turn = asyncio.Lock()

    async def tend(self) -> None:
        """Flush periodically, for ever. A failed flush shows at the last one: QEMU keeps failing once data was lost."""
        while True:
            began = clock.monotonic()
            with suppress(NbdFailed):
                await self._flush()
            await asyncio.sleep(max(_EVERY_S, (clock.monotonic() - began) * _SHARE))

    async def settle(self) -> None:
        """Return when everything is durable.

        Raises:
            GateRefused: It cannot be made durable. The VM then has not arrived.
        """
        try:
            await self._flush()
        except NbdFailed as error:
            why = f"the disks of {self._name} cannot be made durable: {error}"
            raise GateRefused(why) from error
        failpoints.hit("takeover.durable")

    async def _flush(self) -> None:
        async with self._turn:
            await asyncio.to_thread(nbd.flush, self._socket, patience=_LIMIT_S)


_gates: set[asyncio.Task[None]] = set()
"""References that keep running gates from being garbage-collected."""


async def _run(
    context: Context,
    replication: str,
    gate: Gate,
    disks: _Disks,
    inner: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    tending = asyncio.create_task(disks.tend())
    try:
        await gate.run(*inner)
    except GateRefused as error:
        # The source only sees that libvirt's connection broke.
        log.warning("%s", error)
        await asyncio.to_thread(context.catalog.events.note, replication, "gate-refused", {"why": error.why})
    finally:
        tending.cancel()


def prepared(context: Context, peer: link.Peer, attempt: str) -> tuple[store.Replication, DestinationDocument]:
    """Return the replication whose live attempt is prepared here.

    Raises:
        PeerRefused: No such attempt is.
    """
    for row in context.catalog.replications.all():
        if row.role == "destination" and row.peer == peer.site and row.state == "switching-over":
            row, document = context.replications.destination(row.id)
            now = document.handover
            if now is not None and (now.attempt, now.phase, now.mode) == (
                attempt,
                "prepared",
                "live",
            ):
                return row, document
    raise PeerRefused("no such switchover is prepared")
