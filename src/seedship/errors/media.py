# SPDX-License-Identifier: Apache-2.0
"""Damaged, foreign or failing drives and files. Exit 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seedship.errors.base import SeedshipError


class MediaError(SeedshipError):
    """A drive or file does not hold what was written to it."""

    code = "media"
    exit_code = 4
    status = 422


@dataclass(eq=False)
class SegmentDamaged(MediaError):
    """A segment's bytes differ from what was sealed."""

    code: ClassVar[str] = "media.segment-damaged"
    message: ClassVar[str] = "Segment {where} is damaged: {why}"
    remedy: ClassVar[str] = (
        "No action needed: nothing of it was used. The source is notified and sends its blocks again over the WAN"
    )

    where: str
    why: str


@dataclass(eq=False)
class LabelDamaged(MediaError):
    """A drive's label is damaged or not authentic."""

    code: ClassVar[str] = "media.label-damaged"
    message: ClassVar[str] = "The label of the drive at {path} is not valid: {why}"
    remedy: ClassVar[str] = (
        "Do not use it, and do not prepare it again. Check that "
        "this is the drive that was sent; the other drives of its"
        " shipment may suffice: `seedship shipment list`"
    )

    path: str
    why: str


@dataclass(eq=False)
class ManifestInvalid(MediaError):
    """A shipment's manifest is damaged or not authentic."""

    code: ClassVar[str] = "media.manifest-invalid"
    message: ClassVar[str] = "The manifest at {path} is not valid: {why}"
    remedy: ClassVar[str] = (
        "Do not use it, and do not prepare it again. Check that "
        "this is the drive that was sent; the other drives of its"
        " shipment may suffice: `seedship shipment list`"
    )

    path: str
    why: str


@dataclass(eq=False)
class ForeignDrive(MediaError):
    """The drive belongs to another shipment or site."""

    code: ClassVar[str] = "media.foreign-drive"
    message: ClassVar[str] = "The drive at {path} belongs to {found}, not {expected}"
    remedy: ClassVar[str] = "Attach the right drive. What this one holds: `seedship drive show {path!q}`"

    path: str
    found: str
    expected: str


@dataclass(eq=False)
class NotADrive(MediaError):
    """The path cannot be used as a drive."""

    code: ClassVar[str] = "media.not-a-drive"
    message: ClassVar[str] = "{path} cannot be used as a drive: {why}"
    remedy: ClassVar[str] = "{hint}"

    path: str
    why: str
    hint: str = "Mount the drive's file system there (check with `findmnt`), then repeat the command"


@dataclass(eq=False)
class DriveIncomplete(MediaError):
    """The drive was never finished, or a file of it is lost."""

    code: ClassVar[str] = "media.drive-incomplete"
    message: ClassVar[str] = "The drive at {path} is not complete: {why}"
    remedy: ClassVar[str] = (
        "Finish the export at the source, as `seedship replication show VM` there says, then bring the drive again"
    )

    path: str
    why: str


@dataclass(eq=False)
class DriveInUse(MediaError):
    """The drive cannot be removed now: something reads or writes it."""

    code: ClassVar[str] = "media.drive-in-use"
    message: ClassVar[str] = "The drive at {path} is in use: {why}"
    remedy: ClassVar[str] = "{hint}"
    status: ClassVar[int] = 409

    path: str
    why: str
    hint: str = "See which program it is (`fuser -vm` with the mount point), end it, and repeat the command"


@dataclass(eq=False)
class DriveFailed(MediaError):
    """A drive of a set no longer accepts or returns data."""

    code: ClassVar[str] = "media.drive-failed"
    message: ClassVar[str] = "The drive at {path} fails: {why}"
    remedy: ClassVar[str] = (
        "Bring it back and repeat the command. To continue an export without it, or with another drive in its place,"
        " name each drive to use with `--drive PATH`"
    )

    path: str
    why: str


@dataclass(eq=False)
class DriveSilent(MediaError):
    """The drive's device does not respond."""

    code: ClassVar[str] = "media.drive-silent"
    message: ClassVar[str] = "The drive at {path} has not responded for {seconds} s"
    remedy: ClassVar[str] = (
        "See the kernel's log for its device: `dmesg`. Attach the drive again, then repeat the command"
    )

    path: str
    seconds: int


@dataclass(eq=False)
class DepotSilent(MediaError):
    """A drive cannot be read now, because its depot does not answer."""

    code: ClassVar[str] = "media.depot-silent"
    message: ClassVar[str] = "The drive at {path} cannot be read, because its depot {depot} fails: {why}"
    remedy: ClassVar[str] = (
        "Check that seedship runs there and that its network is up: `seedship depot list`. The"
        " import then resumes"
        " automatically; the set's other drives are read meanwhile"
    )
    retry: ClassVar[bool] = True

    path: str
    depot: str
    why: str


@dataclass(eq=False)
class DriveUnreadable(MediaError):
    """A drive failed during an import, and the other drives cannot replace its data."""

    code: ClassVar[str] = "media.drive-unreadable"
    message: ClassVar[str] = "The drive at {path} failed during the import: {why}. {lacks} are missing"
    remedy: ClassVar[str] = (
        "Attach it again and run `seedship shipment import {path!q}`. To see the cost of"
        " continuing without it, run"
        " `seedship shipment repair {shipment!q} --dry-run`"
    )

    path: str
    why: str
    lacks: str
    shipment: str


@dataclass(eq=False)
class KeyMissing(MediaError):
    """The key that decrypts a segment is not at this site."""

    code: ClassVar[str] = "media.key-missing"
    message: ClassVar[str] = "{what} cannot be decrypted: the key {key_id} is not at this site"
    remedy: ClassVar[str] = "Keys arrive over the link. Check it: `seedship peer list`"

    key_id: str
    what: str
