# SPDX-License-Identifier: Apache-2.0
"""Open and close the tap of a VM: how tapped writes and cuts take turns on its disks.

    overlays at T1, an epoch cut at T2 >= T1       as for a switchover
    an epoch opened at the destination             empty so far
    each overlay mirrored into the tap             first what it holds since T1, then every write
    READY in the log                               from here on, each prefix is one instant of the VM

To close: END in the log, mirrors off, the log's rest sent if the link is up, overlays merged. Then the hashes of
what the destination holds are taken over, so that the next epoch carries only real differences. The bitmap of T2
kept recording meanwhile: whatever happens to a tap, no write is lost.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np

from seedship import (
    capture,
    clock,
    durable,
    failpoints,
    hypervisor,
    link,
    nbd,
    segment,
    store,
    tap,
)
from seedship.errors import Conflict, NoSpace, PeerError, SeedshipError, TapFailed
from seedship.model import Close
from seedship.model.books import source as books
from seedship.runtime import Patience
from seedship.units import MiB
from seedship.workflows import messages
from seedship.workflows.context import Context, ReplicationStore
from seedship.workflows.documents import Coming, SourceDocument, Tap
from seedship.workflows.host import make_folder, written_disks
from seedship.workflows.source.epochs import attempt as attempts
from seedship.workflows.source.epochs import closing, rounds
from seedship.workflows.source.mirroring import mirroring, tap_overlays
from seedship.workflows.source.snapshots import offline
from seedship.workflows.source.snapshots.cut import guarded_space

log = logging.getLogger(__name__)

_READY_S: Final = 600.0
_DRAIN_S: Final = 20.0
_LEARN_S: Final = 60.0
_HASHES_S: Final = 600.0
_SMALL: Final = 64 * MiB
_ROUNDS: Final = 4
_ASK: Final = 16384
"""Maximum number of block hashes requested in one call."""


def begin_tap(context: Context, replication: str) -> None:
    """Change from rounds to a tap whose log is consistent.

    Raises:
        TapFailed, HypervisorError, PeerError, NoSpace: it could not be opened; ``return_to_rounds`` undoes what was
        begun.
    """
    row, document = context.replications.source(replication)
    if offline.is_off(
        context.replications, context.host, replication
    ):  # There is nothing to mirror before the VM runs.
        rounds.send_epoch(context, replication)
        closing.judge_round(context.replications, context.session, replication)
        return
    for _ in range(_ROUNDS):  # What is written while the tap opens is copied once more.
        done = rounds.send_epoch(context, replication)
        closing.judge_round(context.replications, context.session, replication)
        if done.changed <= _SMALL:
            break
    _, document = context.replications.source(replication)  # A round may have added disks.
    context.progress.begin(replication, "opening the tap")
    work = context.paths.work(replication)
    make_folder(work)
    vm = hypervisor.inspect(context.host, row.vm_uuid)
    written = written_disks(vm, document.disks)
    overlays = {d.target: str(work / f"tap-{d.target}.overlay") for d in written}
    if document.spec.capture == "child-disk":
        overlays = {}  # The child of the next cut serves as the overlay.
    below = {target: _top(vm, target) for target in overlays}
    context.replications.change_source(
        replication,
        lambda d: d.with_tap(Tap("opening", overlays=overlays, below=below)),
    )
    for path in map(Path, overlays.values()):
        if not nbd.is_open(path):
            path.unlink(missing_ok=True)  # Left by an attempt that never entered the chain.
    hypervisor.push_overlay(context.host, row.vm_uuid, {t: Path(p) for t, p in overlays.items()})
    failpoints.hit("tap.overlays")
    rounds.send_epoch(context, replication)
    _open_epoch(context, replication)
    failpoints.hit("tap.opened")
    try:
        with guarded_space(context, replication):
            _mirror(context, replication)
    except (TapFailed, NoSpace) as error:
        mirroring.note_broken(context.replications, replication, str(error), open_=False)
        raise


def _top(vm: hypervisor.Vm, target: str) -> str:
    disk = vm.disk(target)
    if disk is None or not disk.chain:
        raise TapFailed(f"{vm.name} has no disk {target}")
    return disk.path


def _open_epoch(context: Context, replication: str) -> None:
    """Open an epoch without content at both sites, to which tapped writes are added."""
    document = context.replications.change_source(replication, attempts.begin)
    attempt = document.book.attempt
    assert attempt is not None
    folder = context.paths.replication(replication)
    (folder / attempts.PENDING).unlink(missing_ok=True)
    capture.PendingList(folder / attempts.PENDING).close()
    close = Close(
        document.book.lineage,
        attempt.epoch,
        attempt.cut_id,
        attempt.predecessor,
        document.sizes,
        (),
        attempt.epoch,
        tap=True,
        disks=document.disks if document.plugged != "never" else (),
    )
    durable.replace(folder / attempts.CLOSE, msgspec.msgpack.encode(close))
    context.replications.change_source(
        replication,
        lambda d: msgspec.structs.replace(
            d,
            book=books.pending_durable(d.book),
            coming=Coming(d.tracked),
        ),
    )
    attempts.finish_attempt(context, replication)

    def change(d: SourceDocument) -> SourceDocument:
        assert d.tap is not None
        opened = msgspec.structs.replace(d.tap, cut_id=attempt.cut_id, epoch=attempt.epoch)
        return d.with_tap(opened)

    context.replications.change_source(replication, change)


def _mirror(context: Context, replication: str) -> None:
    row, document = context.replications.source(replication)
    folder = mirroring.tap_folder(context.paths, replication)
    context.paths.remove(folder)
    room = capture.free(context.paths.data) // 2
    process = tap.start(
        folder,
        context.paths.work(replication) / mirroring.SOCKETS,
        document.numbered,
        supervisor=context.paths.taps,
        limit=min(context.config.spool, room),
        timeout=document.spec.sync_timeout,
    )
    targets = [d.target for d in written_disks(hypervisor.inspect(context.host, row.vm_uuid), document.disks)]
    # A server that does not answer would block the guest: query it before QEMU does.
    nbd.Reader(process.socket, targets[0], patience=5.0).close()
    context.interrupts.detaching(replication).clear()
    _advance(context.replications, replication, "mirroring")
    hypervisor.begin_mirrors(context.host, row.vm_uuid, dict.fromkeys(targets, process.socket))
    deadline = clock.monotonic() + _READY_S
    while True:
        states = hypervisor.running_mirrors(context.host, row.vm_uuid)
        if all(states.get(target) == "ready" for target in targets):
            break
        if not process.healthy or len(states) < len(targets):
            raise TapFailed(process.reason if not process.healthy else "QEMU ended the mirror")
        if clock.monotonic() > deadline or context.interrupts.stopping(replication).wait(0.02):
            raise TapFailed("the mirror did not catch up in time")
    process.mark(tap.state.MARK_READY)
    failpoints.hit("tap.ready")
    _advance(context.replications, replication, "open")
    context.catalog.events.note(replication, "tap-open", {"mirror": document.spec.mirror})


def _advance(replications: ReplicationStore, replication: str, phase: Literal["mirroring", "open"]) -> None:
    def change(d: SourceDocument) -> SourceDocument:
        assert d.tap is not None
        return msgspec.structs.replace(d.with_tap(msgspec.structs.replace(d.tap, phase=phase)), problem=None)

    replications.change_source(replication, change)


def return_to_rounds(context: Context, replication: str) -> None:
    """Change from a tap, whatever its state, back to rounds. Repeatable.

    Raises:
        HypervisorError: an overlay could not be merged; repeat.
        DisksChanged: one of a disk that was detached could not. The tap is closed all the same.
    """
    row, document = context.replications.source(replication)
    if document.tap is None:
        return
    context.interrupts.detaching(replication).set()
    with context.locks.of(replication, "tap"):
        why = _stop(context, replication, row.vm_uuid, document, document.tap)
        failpoints.hit("tap.stopped")
        tap_overlays.merge(context, replication, row.vm_uuid)
        prevented = tap_overlays.merge_detached(context, replication, row.vm_uuid)
        learned = 0
        if document.tap.cut_id:
            with suppress(PeerError, Conflict):
                learned = _learn(context, replication, document.tap.cut_id)
        failpoints.hit("tap.learnt")
        context.paths.remove(mirroring.tap_folder(context.paths, replication))
        context.paths.remove(context.paths.work(replication) / mirroring.SOCKETS)
        context.replications.change_source(
            replication,
            # After a tap that broke, some rounds are made first: the cause may persist.
            lambda d: d.with_tap(None).with_rounds(
                tap_rest=d.book.epoch + (2 if why else 0), closed_at=clock.now().timestamp()
            ),
            along=store.Along(events=[("tap-closed", {"why": why, "complete": not why, "blocks_known": learned})]),
        )
        context.interrupts.detaching(replication).clear()
    if prevented is not None:
        raise prevented


def give_up_tap(context: Context, replication: str) -> None:
    """End the tap of a VM that another site owns now; nothing more is sent. Its disks stay as they are. Repeatable.

    Raises:
        HypervisorError: a mirror does not end; repeat.
    """
    row, document = context.replications.source(replication)
    if document.tap is None:
        return
    context.interrupts.detaching(replication).set()
    with context.locks.of(replication, "tap"):
        process = mirroring.process_of(context.paths, replication)
        if process is not None and not process.healthy:
            process.stop()  # A process that hangs would block QEMU.
        if hypervisor.state(context.host, row.vm_uuid) in ("running", "paused"):
            hypervisor.end_mirrors(context.host, row.vm_uuid, [d.target for d in document.disks])
        if process is not None:
            process.stop()
        context.paths.remove(mirroring.tap_folder(context.paths, replication))
        context.paths.remove(context.paths.work(replication) / mirroring.SOCKETS)
        context.replications.change_source(
            replication,
            lambda d: d.with_tap(None),
            along=store.Along(events=[("tap-closed", {"why": "the VM was given up", "complete": False})]),
        )
        context.interrupts.detaching(replication).clear()


def _stop(context: Context, replication: str, vm: str, document: SourceDocument, state: Tap) -> str:
    """Stop the tap; returns why the destination may lack some of its writes, empty if it has all."""
    process = mirroring.process_of(context.paths, replication)
    running = hypervisor.state(context.host, vm) in ("running", "paused")
    why = state.broken
    if not why and state.phase != "open":
        why = "it was not opened"
    if not why and not running:
        why = "the VM does not run"
    # It may have broken just now, before anybody noticed.
    why = why or mirroring.broken(context.host, vm, document, process)
    ended = False
    if process is not None and process.healthy and running:
        try:
            process.mark(tap.state.MARK_END)
            ended = True
        except TapFailed as error:
            why = why or error.why
    if process is not None and not ended:
        process.stop()  # Before libvirt is called: a tap that hangs blocks QEMU.
    if running:
        hypervisor.end_mirrors(context.host, vm, [spec.target for spec in document.disks])
    if process is not None:
        if ended and state.phase == "open":
            rest = _drain(context, replication, process)
            why = why or rest
        process.stop()
    return why


def _drain(context: Context, replication: str, process: tap.TapProcess) -> str:
    """Send the rest of the log up to its END; returns why that failed, empty if it succeeded."""
    stop = threading.Event()
    timer = threading.Timer(_DRAIN_S, stop.set)
    timer.start()
    try:
        mirroring.ship(context, replication, process, stop)
    except SeedshipError as error:
        log.info("the tap of %s ends with unsent writes: %s", replication[:8], error)
        return f"some writes were not sent: {error}"
    finally:
        timer.cancel()
    return f"some writes were not sent within {_DRAIN_S:g} s" if stop.is_set() else ""


def _learn(context: Context, replication: str, cut_id: str) -> int:
    """Ask the destination for the hashes of unknown blocks; returns how many blocks are known then.

    Raises:
        PeerError, Conflict: the destination does not answer, or cannot say.
    """
    row, document = context.replications.source(replication)
    state = context.session.call(row.peer, messages.TAP, messages.AskTap(replication, cut_id, "end"))
    far = context.session.call(row.peer, messages.STATUS, messages.AskStatus(replication))
    if far.seed != "closed":
        return 0
    patience = Patience(_LEARN_S)
    while state.total >= 0 and state.applied < state.total and patience.left(state.applied) > 0:
        if context.interrupts.stopping(replication).wait(0.1):
            return 0
        state = context.session.call(row.peer, messages.TAP, messages.AskTap(replication, cut_id, "look"))
    return learn_unknown_hashes(context, replication, document)


def learn_unknown_hashes(context: Context, replication: str, document: SourceDocument) -> int:
    """Ask the destination, which is at the book's epoch, for the hashes of unknown blocks.

    Returns:
        The number of blocks that are known then.

    Raises:
        PeerError, Conflict: the destination does not answer, or cannot say.
    """
    row, _ = context.replications.source(replication)
    known = 0
    for index, blockmap in attempts.maps(context.paths, replication, document).items():
        runs = [
            (first, min(_ASK, end - first))
            for run_first, end in blockmap.unknown_runs().tolist()
            for first in range(run_first, end, _ASK)
        ]
        while runs:
            ranges: list[tuple[int, int]] = []
            while runs and sum(count for _, count in ranges) + runs[0][1] <= _ASK:
                ranges.append(runs.pop(0))
            known += _take(context.session, row.peer, replication, document, index, ranges, blockmap)
        blockmap.flush()
    return known


def _take(
    session: link.LinkSession,
    peer: str,
    replication: str,
    document: SourceDocument,
    disk: int,
    runs: list[tuple[int, int]],
    blockmap: capture.BlockMap,
) -> int:
    request = messages.AskHashes(replication, document.book.epoch, disk, ranges=tuple(runs))
    answer = session.call(peer, messages.HASHES, request, _HASHES_S)
    known = 0
    for (first, count), data in zip(runs, answer.hashes, strict=True):
        if len(data) != count * segment.HASH_BYTES:
            continue
        hashes = np.frombuffer(data, dtype=np.uint8).reshape(count, segment.HASH_BYTES)
        blockmap.hashes[first : first + count] = hashes
        known += int(np.count_nonzero(hashes.any(axis=1)))
    return known
