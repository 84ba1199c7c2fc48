# SPDX-License-Identifier: Apache-2.0
"""This site's own daemon or setup. Exit 9."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seedship.errors.base import SeedshipError


class SiteError(SeedshipError):
    """This site's own daemon or setup."""

    code = "site"
    exit_code = 9
    status = 503


@dataclass(eq=False)
class SiteUnreachable(SiteError):
    """The site's daemon does not answer."""

    code: ClassVar[str] = "site.unreachable"
    message: ClassVar[str] = "The site's daemon at {where} does not answer: {why}"
    remedy: ClassVar[str] = (
        "Start it with `systemctl start seedship` (or `seedship site serve`), or name the right folder with --data"
    )
    retry: ClassVar[bool] = True

    where: str
    why: str


@dataclass(eq=False)
class SiteMissing(SiteError):
    """The folder does not hold a site."""

    code: ClassVar[str] = "site.missing"
    message: ClassVar[str] = "There is no site in {where}: {why}"
    remedy: ClassVar[str] = (
        "Set one up with `seedship --data {where!q} site init --name NAME`, or name the right folder with --data"
    )

    where: str
    why: str


@dataclass(eq=False)
class SiteFailed(SiteError):
    """The daemon met an unexpected error."""

    code: ClassVar[str] = "site.failed"
    message: ClassVar[str] = "The site's daemon failed: {why}"
    remedy: ClassVar[str] = "This is a defect. Please report it with the daemon's log: `journalctl -u seedship`"
    status: ClassVar[int] = 500

    why: str


@dataclass(eq=False)
class Interrupted(SiteError):
    """The operation was interrupted before it was done."""

    code: ClassVar[str] = "site.interrupted"
    message: ClassVar[str] = "The operation was interrupted: {why}"
    remedy: ClassVar[str] = "Check the present state with `seedship replication list`, then repeat the command"
    retry: ClassVar[bool] = True

    why: str


@dataclass(eq=False)
class FolderSilent(SiteError):
    """A file system does not answer, so nothing was changed."""

    code: ClassVar[str] = "site.folder-silent"
    message: ClassVar[str] = "{path} cannot be checked: the file system at {mount} has not answered for {seconds} s"
    remedy: ClassVar[str] = (
        "Bring its server or device back (`dmesg` names what the kernel waits for), then repeat the command"
    )
    retry: ClassVar[bool] = True

    path: str
    mount: str
    seconds: int


@dataclass(eq=False)
class PoolUnavailable(SiteError):
    """The storage pool with a replica's images cannot be reached."""

    code: ClassVar[str] = "site.pool"
    message: ClassVar[str] = "The images of {vm} in the storage pool {pool} cannot be reached: {why}"
    remedy: ClassVar[str] = "{hint}. Replication then resumes automatically; changes are tracked meanwhile"
    retry: ClassVar[bool] = True

    vm: str
    pool: str
    why: str
    hint: str
