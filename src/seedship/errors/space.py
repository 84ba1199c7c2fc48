# SPDX-License-Identifier: Apache-2.0
"""A file system or drive is too small. Exit 7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seedship.errors.base import SeedshipError


class SpaceError(SeedshipError):
    """A file system or drive is too small."""

    code = "space"
    exit_code = 7
    status = 507


@dataclass(eq=False)
class NoSpace(SpaceError):
    """A file system has too little free space; found before the guest runs into it."""

    code: ClassVar[str] = "space.none"
    message: ClassVar[str] = "{where} has {have} free, but {what} needs {need}"
    remedy: ClassVar[str] = "Free space at {where}, or choose another place. See: `df -h {where!q}`"

    where: str
    have: str
    need: str
    what: str


@dataclass(eq=False)
class DestinationShort(SpaceError):
    """The destination refuses segments to keep its reserve free."""

    code: ClassVar[str] = "space.destination"
    message: ClassVar[str] = "The destination {site} accepts no data: {where} has {have} free, and {need} are reserved"
    remedy: ClassVar[str] = (
        "Free space at {where} there, or lower `reserve` in [storage] of its configuration."
        " Replication then resumes"
        " automatically; changes are tracked meanwhile"
    )
    retry: ClassVar[bool] = True

    site: str
    where: str
    have: str
    need: str


@dataclass(eq=False)
class PlainImageTooLarge(SpaceError):
    """A plain image, which is one file on one drive, does not fit."""

    code: ClassVar[str] = "space.plain-image"
    message: ClassVar[str] = "The plain image {image} needs up to {need} in one file: {why}"
    remedy: ClassVar[str] = (
        "Use a drive that takes it, with ext4, XFS, exFAT or NTFS. Or create the replication without"
        " `--format plain`: sealed data is spread over all drives, in files of 1 GiB. Continue an export with"
        " another drive: `seedship replication seed VM --drive PATH`"
    )

    image: str
    need: str
    why: str


@dataclass(eq=False)
class SetFull(SpaceError):
    """The drives of a set are full before all data is on them."""

    code: ClassVar[str] = "space.set-full"
    message: ClassVar[str] = "The drives {paths} are full, and the export is not complete"
    remedy: ClassVar[str] = (
        "Attach another drive, prepare it with `seedship drive init PATH`, and continue with `--drive PATH` for each of"
        " them and the new one"
    )

    paths: str
