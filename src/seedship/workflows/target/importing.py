# SPDX-License-Identifier: Apache-2.0
"""The destination's step that imports drives: seeds into the replica, later epochs into the journal.

Nothing that a drive says is trusted. A segment is used if it has the digest that the close names, which came over
the link. An image is used if it has the checksum that the source signed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import msgspec

from seedship import drives, failpoints, link, segment, store
from seedship.errors import (
    Conflict,
    DepotSilent,
    DriveFailed,
    DriveIncomplete,
    DriveUnreadable,
    ForeignDrive,
    LabelDamaged,
    ManifestInvalid,
    MediaError,
    NotADrive,
    NotInState,
    SegmentDamaged,
)
from seedship.journal import Journal
from seedship.model import SegmentSource, lifecycle
from seedship.replica import PlainImage
from seedship.runtime import Stopped
from seedship.units import format_size
from seedship.workflows.context import Context, ReplicationStore
from seedship.workflows.documents import (
    DestinationDocument,
    Part,
    missing_of,
    outstanding,
    with_part,
)
from seedship.workflows.protocol import fill_replica, note_damage
from seedship.workflows.target import borrowed, spool
from seedship.workflows.target.parts import close_parts, decided
from seedship.workflows.target.receiving import open_replica


def check_drive(context: Context, replication: str, path: str) -> None:
    """Check that a drive has something for this replication, before anything is done with it.

    Raises:
        NotADrive, LabelDamaged, ManifestInvalid, ForeignDrive, DriveIncomplete: it has nothing usable.
        Conflict: all that it carries is imported already, or its close has not come over the link.
    """
    row, document = context.replications.destination(replication)
    if row.state in lifecycle.ENDED:
        raise NotInState(
            f"The replication of {row.vm_name}",
            f"is {row.state}: nothing more is imported for it",
            f"The drive may be erased: seedship drive erase {shlex.quote(str(path))}",
        )
    peer = context.peers.get(row.peer)
    with closing(context.volumes.open(path)) as volume:
        label = drives.read_label(volume, peer.signing_public)
        if label.site != peer.site:
            raise ForeignDrive(path, f"site {label.site[:8]}", f"site {peer.site[:8]}")
        parts = [part for part in document.parts if part.shipment == label.shipment]
        if not parts:
            written = drives.cuts(volume, label.shipment)
            if not written:
                raise DriveIncomplete(path, "nothing of the export is on it")
            for cut in written:
                drives.read_manifest(volume, f"{label.shipment}/{cut}", peer.signing_public)
            raise Conflict(
                "The seed",
                "has not been announced by its source",
                "Check the link: seedship peer list",
            )
        if all(part.closed for part in parts):
            raise Conflict(
                f"What the drive at {path} carries",
                "is imported already, or was sent again",
                f"It may be erased: seedship drive erase {shlex.quote(str(path))}",
            )
        for part in parts:
            if not part.closed and label.drive in part.drives:
                drives.open_part(volume, label.shipment, part.cut_id, peer.site, peer.signing_public)
                return
        held = ", ".join(name[:8] for name in drives.cuts(volume, label.shipment)) or "nothing"
        wanted = ", ".join(part.cut_id[:8] for part in parts if not part.closed)
        raise ForeignDrive(path, f"cut {held}", f"cut {wanted}")


def import_drives(context: Context, replication: str) -> None:
    """Import everything that the attached drives carry for the replication; close the parts that are complete.

    A drive that fails ends nothing. The others are read to their end, and their content either suffices or not.

    Raises:
        MediaError: a drive failed, and something that it carries is missing.
        DepotSilent: the same, for a drive whose depot does not answer; repeat.
        NoSpace, NbdFailed: there is no room; repeat.
    """
    row, document = context.replications.destination(replication)
    context.replications.change_destination(
        replication, lambda d: d, event="import-started" if row.state == "shipped" else None
    )
    arrived = document.arrived
    failed: dict[str, MediaError] = {}
    with borrowed.opened(context, arrived, failed) as opened:
        for part in document.parts:
            if part.closed:
                continue
            with spool.holding(context.paths, context.peers, row.peer, part, opened, failed) as here:
                if here:
                    _import_part(context, replication, part, here, failed)
    close_parts(context, replication)
    _, document = context.replications.destination(replication)
    lacks = [part for part in document.parts if not part.closed]
    silent = {p: e for p, e in failed.items() if isinstance(e, DepotSilent)} if lacks else {}
    ended = {path: error for path, error in failed.items() if path not in silent}
    read = [path for path in arrived if path not in silent]
    context.replications.change_destination(
        replication,
        lambda d: msgspec.structs.replace(
            d,
            arrived=tuple(path for path in d.arrived if path not in read),
            problem=d.problem if silent else None,
        ),
        along=store.Along(events=_events(document, ended, waits=bool(silent))),
    )
    if silent:
        raise next(iter(silent.values()))
    if ended and lacks:
        raise _failure(ended, document, lacks)


def _events(
    document: DestinationDocument, failed: Mapping[str, MediaError], *, waits: bool
) -> list[tuple[str, dict[str, object]]]:
    """Return the events about failed drives, and about the drives that are awaited now.

    Args:
        waits: The import waits for a depot and is repeated, so awaited drives are not reported yet.
    """
    events: list[tuple[str, dict[str, object]]] = []
    if failed:
        why = {path: str(error) for path, error in failed.items()}
        events.append(("drives-failed", {"drives": why}))
    if waits:
        return events
    events += [
        (
            "drives-awaited",
            {
                "epoch": remaining.epoch,
                "shipment": remaining.shipment,
                "drives": list(remaining.drives),
                "missing": remaining.missing,
                "bytes": remaining.sealed,
            },
        )
        for remaining in outstanding(document)
    ]
    return events


def _failure(failed: Mapping[str, MediaError], document: DestinationDocument, parts: Sequence[Part]) -> MediaError:
    """Return the error that says what to do about failed drives, where the others do not suffice."""
    first = next(iter(failed.values()))
    if isinstance(first, (ForeignDrive, LabelDamaged, ManifestInvalid, DriveIncomplete)):
        return first
    why = first.why if isinstance(first, NotADrive | DriveFailed) else str(first)
    path, *further = failed
    if further:
        why += f" (so did {', '.join(further)})"
    lacks = format_size(sum(missing_of(document, part)[0] for part in parts))
    return DriveUnreadable(path, why, lacks, parts[0].shipment[:8])


def _import_part(
    context: Context,
    replication: str,
    part: Part,
    here: list[spool.Here],
    failed: dict[str, MediaError],
) -> None:
    damaged: list[str] = []
    if part.plain:
        key = context.keys.shipment_key(replication, part.shipment).secret if part.luks else b""
        lacks = _Lacks(0, _import_images(context, replication, here, key, damaged))
    elif part.epoch == 0:
        lacks = _import_seed(context, replication, part, here, damaged)
    else:
        lacks = _import_epoch(context.replications, context.journal, replication, part, here, damaged)
    failpoints.hit("import.written")
    whole = []
    for volume, manifest in here:
        try:
            if not spool.is_kept(context.paths, volume):
                _still_there(volume)
            whole.append((volume, manifest))
        except MediaError as error:
            failed[volume.path] = error
    document = _note(
        context.replications, context.identity, replication, part, [m.drive for _, m in whole], lacks, damaged
    )
    now = next(p for p in document.parts if (p.epoch, p.cut_id) == (part.epoch, part.cut_id))
    if not decided(document, now):
        spool.keep(context.catalog, context.paths, replication, part, whole)


@dataclass(frozen=True)
class _Lacks:
    """What is still missing after an import."""

    segments: int
    blocks: int | None = None
    """Number of missing blocks; None for an epoch in the journal, which has none before it is applied."""


def _import_seed(context: Context, replication: str, part: Part, here: list[spool.Here], damaged: list[str]) -> _Lacks:
    """Import segments into the replica; then recover the missing ones from the stripes."""
    row, document = context.replications.destination(replication)
    close = context.journal.close_of(document.book.lineage, part.epoch, part.cut_id)
    digests = context.journal.listing(close).digests
    key = context.keys.shipment_key(replication, part.shipment)
    stop = context.interrupts.stopping(replication)
    reader = drives.SetReader(here)
    with closing(open_replica(context, row, document)) as replica:
        fill_replica(
            replica,
            reader,
            _located(reader, damaged),
            close.cut_id,
            key,
            digests,
            damaged,
            progress=lambda done, total: context.progress.report(replication, done, total),
            stop=stop,
        )
        lacking = replica.arrived(close.cut_id, len(digests))
        segments = sum(1 for number in lacking if digests[number])
        return _Lacks(segments, replica.missing_count)


def _import_epoch(
    replications: ReplicationStore,
    journal: Journal,
    replication: str,
    part: Part,
    here: list[spool.Here],
    damaged: list[str],
) -> _Lacks:
    """Import segments into the journal; then recover the missing ones from the stripes."""
    _, document = replications.destination(replication)
    close = journal.close_of(document.book.lineage, part.epoch, part.cut_id)
    digests = journal.listing(close).digests
    reader = drives.SetReader(here)
    lacking = set(journal.damaged(close))
    _into_journal(journal, digests, _located(reader, damaged), lacking, damaged)
    recovered = reader.recover(sorted(lacking), digests)
    _into_journal(journal, digests, iter(recovered), lacking, damaged)
    return _Lacks(len(lacking))


def _located(reader: drives.SetReader, damaged: list[str]) -> Iterator[SegmentSource]:
    for source in reader.locate():
        if isinstance(source, drives.Damaged):
            note_damage(damaged, f"{source.where}: {source.why}")
        else:
            yield source


def _import_images(
    context: Context, replication: str, here: list[spool.Here], passphrase: bytes, damaged: list[str]
) -> int:
    """Copy plain images that match the signed checksums into the missing blocks; returns how many are still missing."""
    row, document = context.replications.destination(replication)
    stop = context.interrupts.stopping(replication)
    disks = {drives.image_name(spec.index): spec.index for spec in document.disks}
    with closing(open_replica(context, row, document)) as replica:
        for volume, manifest in here:
            drive = volume if isinstance(volume, drives.Folder | drives.Patient) else context.volumes.local(volume.path)
            done = 0
            for file in manifest.files:
                disk = disks.get(file.name)
                progress = partial(_report, context, replication, done, manifest.size)
                done += file.size
                if disk is None:
                    continue
                try:
                    at = drive.handed(f"{manifest.part.folder}/{file.name}")
                    with PlainImage(at, f"{volume.path}: {file.name}") as plain:
                        if not plain.verify(file.size, file.blake3, progress):
                            damaged.append(f"{volume.path}: {file.name}")
                            continue
                        replica.import_image(disk, plain, passphrase, stop=stop)
                except (MediaError, OSError) as error:
                    damaged.append(f"{volume.path}: {file.name}: {error}")
        if stop.is_set():
            raise Stopped
        return replica.missing_count


def _report(context: Context, replication: str, before: int, total: int, done: int) -> None:
    context.progress.report(replication, before + done, total)


def _into_journal(
    journal: Journal,
    digests: Sequence[bytes],
    sources: Iterator[SegmentSource],
    lacking: set[int],
    damaged: list[str],
) -> None:
    """Store the segments that are in ``lacking``, and remove them from it."""
    buffer = memoryview(bytearray(segment.MAX_SEGMENT))
    for source in sources:
        if source.number not in lacking:
            continue
        try:
            data = source.read(buffer)
            if segment.digest(data) != digests[source.number]:
                raise SegmentDamaged(source.where, "it does not match the digest in the close")
        except SegmentDamaged as error:
            note_damage(damaged, str(error))
            continue
        failpoints.hit("import.segment")
        journal.store([data], late=True)
        lacking.discard(source.number)


def _still_there(volume: drives.Volume) -> None:
    """Check that the drive still answers: one that was pulled out meanwhile was not read to its end.

    Raises:
        MediaError: it does not answer.
    """
    volume.forget("label")
    if not volume.read("label", 0, 1):
        raise DriveFailed(volume.path, "its label is gone")


def _note(
    replications: ReplicationStore,
    identity: link.Identity,
    replication: str,
    part: Part,
    ids: list[str],
    lacks: _Lacks,
    damaged: list[str],
) -> DestinationDocument:
    def change(d: DestinationDocument) -> DestinationDocument:
        known = next(p for p in d.parts if (p.epoch, p.cut_id) == (part.epoch, part.cut_id))
        imported = tuple(sorted({*known.imported, *ids}))
        return msgspec.structs.replace(
            d,
            parts=with_part(d.parts, part.epoch, part.cut_id, imported=imported, lacking=lacks.segments),
            missing=d.missing if lacks.blocks is None else lacks.blocks,
        )

    facts = {"epoch": part.epoch, "drives": ids, "damaged": damaged[:20]}
    return replications.change_destination(
        replication,
        change,
        along=store.Along(
            events=[("drives-read", facts)],
            custody=[(part.shipment, identity.site, "imported", {"drive": drive}) for drive in ids],
        ),
    )
