# SPDX-License-Identifier: Apache-2.0
"""Where everything of a site lies on this host, and the only way in which a folder of it is
deleted.

    <data>/replications/<id>/          own files of a replication: block maps, pending list, missing sets
    <data>/journal/<lineage>/          segments that wait (see ``journal``)
    <data>/spool/<drive>/              what a drive held, until its set is complete
    <data>/escrow/<shipment>/<cut>     envelopes
    <work>/<id>/                       scratch files, overlays and sockets; the first eight digits of the id
    <work>/<id>/<attempt>/             of one switchover
    <work>/<id>/trial/                 of a trial start before a failover
    <replicas>/<name>-<id>/            images of a replica or a clone
    <replicas>/<name>-<id>/memory-<id> memory of one instant
    <pool>/<name>-<id>-<disk>.<format> image of a replica or a clone in a storage pool: a volume of that pool
    <pool>/<name>-<id>/                the rest of it, with the list of those volumes
    <data>/taps/                       socket and lock of the process that watches the taps
    <data>/pools.json                  folders of pools that were ever used

Every path is made here, from ids that have the form of one: whatever else is given is an error, so
a text from outside never becomes a path. ``remove`` deletes strict descendants of a folder of ours
only, and follows no link. File systems that belong to somebody else (drives, lent folders) are not
reached from here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seedship import durable
from seedship.errors import InvalidRequest
from seedship.model.ids import is_id

_SHORT: Final = 8
"""Digits of an id in the name of a folder that people see."""
_NAME: Final = re.compile(r"\A[A-Za-z0-9_][A-Za-z0-9_.@:+-]{0,254}\Z")
_LONGEST: Final = 200
"""Characters of a name for people within a name of a folder."""
_LONGEST_VOLUME: Final = 150
"""The same in a storage pool, where the disk and its layer follow the name."""
_VOLUMES: Final = "volumes.json"
"""In the folder of a replica or a clone: the volumes beside it that were made for it."""
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_.-]")
MEMORY: Final = "memory-"
"""How folders beside a replica's images begin that hold memory."""
MEMORY_SUFFIX: Final = ".memory"
"""How files end that hold memory on its way to the destination."""
_WORK_SUFFIXES: Final = (".overlay", ".scratch", ".sock", MEMORY_SUFFIX)
_OURS: Final = re.compile(r"\A.+-[0-9a-f]{8}\Z", re.DOTALL)
"""Name of a folder of a replica or a clone."""


REMOVED: Final = ".removed-"
"""Prefix of a folder that is being removed, so that nothing finds it by its name."""

_remembering: Final = threading.Lock()


def checked(ident: str) -> str:
    """An id.

    Raises:
        InvalidRequest: it has not the form of one.
    """
    if not is_id(ident):
        raise InvalidRequest("id", f"{ident[:40]!r} is not 32 lowercase hexadecimal digits")
    return ident


def below(root: Path, *names: str) -> Path:
    """``root`` with names added, each of which is one component of a path and no other.

    Raises:
        InvalidRequest: a name is none.
    """
    for name in names:
        if not _NAME.match(name):
            raise InvalidRequest("name", f"{name[:40]!r} cannot be the name of a file here")
    return root.joinpath(*names)


def nearest(path: Path) -> tuple[Path, os.stat_result]:
    """Return a path that exists with its status: the given one, or the nearest above it.

    Raises:
        OSError: not even the root can be read.
    """
    while True:
        try:
            return path, os.stat(path)
        except OSError:
            if path == path.parent:
                raise
            path = path.parent


def mount_of(path: Path) -> str:
    """Return the folder that a path's file system is mounted at."""
    at = Path(os.path.realpath(path))
    return str(next((folder for folder in (at, *at.parents) if is_mounted(str(folder))), Path("/")))


def is_mounted(folder: str) -> bool:
    """Whether a file system other than that of the folder above is here.

    Not the kernel's list of mounts: systemd mounts folders that a service may write onto themselves
    (``ReadWritePaths`` in systemd.exec(5)).
    """
    return os.path.ismount(folder)


def remove(path: Path, root: Path) -> None:
    """Delete the folder ``path``, which lies below ``root``, with all that is in it.

    Gone already is fine.

    Raises:
        InvalidRequest: it is not a strict descendant of ``root``, or a link leads to it. Nothing
            was deleted.
    """
    path, root = Path(os.path.abspath(path)), Path(os.path.abspath(root))
    inside = _inside(path, root)
    if inside is None:
        raise InvalidRequest("path", f"{path} is not below {root}: it is not deleted")
    at = root
    for name in inside.parts:
        at = at / name
        if at.is_symlink():
            raise InvalidRequest("path", f"{at} is a link: nothing below it is deleted")
    shutil.rmtree(path, ignore_errors=True)


def _inside(path: Path, root: Path) -> Path | None:
    """``path`` relative to ``root``.

    None where it is not a strict descendant, by its text alone.
    """
    path, root = Path(os.path.abspath(path)), Path(os.path.abspath(root))
    if path == root or not path.is_relative_to(root) or root == Path(root.anchor):
        return None
    return path.relative_to(root)


@dataclass(frozen=True)
class Paths:
    """The folders of one site."""

    data: Path
    work_root: Path
    replicas: Path
    further: Sequence[Path] = ()
    """Folders in which replicas were made while the configuration named another one."""

    @property
    def in_use(self) -> tuple[Path, ...]:
        """Folders of this site: a drive is never made where one of them lies."""
        return self.data, self.replicas, self.work_root, *self.pools

    @property
    def pools(self) -> dict[Path, str]:
        """Folders of storage pools that replicas were ever made in, to the pools' names."""
        try:
            return {Path(path): name for path, name in json.loads(self._pools.read_bytes()).items()}
        except FileNotFoundError:
            return {}

    @property
    def _pools(self) -> Path:
        return self.data / "pools.json"

    def remember_pool(self, folder: Path, name: str) -> None:
        """Note that replicas are made in a pool's folder. It is remembered for good: images may stay there."""
        with _remembering:
            known = self.pools
            if known.get(folder) != name:
                written: Mapping[str, str] = {str(path): held for path, held in {**known, folder: name}.items()}
                durable.replace(self._pools, json.dumps(written).encode())

    @property
    def image_roots(self) -> tuple[Path, ...]:
        """Folders that hold the folders of replicas and clones, among images of others."""
        return tuple(dict.fromkeys((self.replicas, *self.further, *self.pools)))

    # Of a replication ------------------------------------------------------------------------

    def replication(self, replication: str) -> Path:
        """A replication's own files."""
        return self.data / "replications" / checked(replication)

    @property
    def taps(self) -> Path:
        """Folder of the process that watches the taps."""
        return self.data / "taps"

    def platform(self, replication: str, kind: str) -> Path:
        """The newest copy of what a VM's platform remembers."""
        return below(self.replication(replication), kind)

    def hashes(self, replication: str, disk: int) -> Path:
        """Block hashes of an adopted image."""
        return self.replication(replication) / "replica" / f"adopted-{int(disk)}"

    def work(self, replication: str) -> Path:
        """A replication's files that QEMU writes to."""
        return self.work_root / checked(replication)[:_SHORT]

    def attempt(self, replication: str, attempt: str) -> Path:
        """Files of one switchover."""
        return self.work(replication) / checked(attempt)[:_SHORT]

    def trial(self, replication: str) -> Path:
        """Files of a trial start, which go with it."""
        return self.work(replication) / "trial"

    def overlay(self, replication: str, attempt: str, target: str) -> Path:
        """The overlay that takes a disk's writes during a switchover, at its source."""
        return below(self.work(replication), f"{checked(attempt)[:_SHORT]}-{target}.overlay")

    def memory_file(self, replication: str, point: str, suffix: str) -> Path:
        """Memory of one instant on its way to the destination."""
        return below(self.work(replication), f"{checked(point)[:_SHORT]}{suffix}")

    # Of drives and shipments -------------------------------------------------------------------

    def spool(self, drive: str) -> Path:
        """Where what a drive held is kept, laid out as on the drive."""
        return self.data / "spool" / checked(drive)

    def envelopes(self, shipment: str) -> Path:
        """Escrow envelopes of a shipment."""
        return self.data / "escrow" / checked(shipment)

    def envelope(self, shipment: str, cut_id: str) -> Path:
        """The escrow envelope of one part."""
        return self.envelopes(shipment) / f"{checked(cut_id)}.escrow"

    # Of images ---------------------------------------------------------------------------------

    def replica(self, name: str, ident: str, pool: Path | None = None) -> Path:
        """Images of a replica or a clone; ``name`` is for people. ``pool``: the folder of a storage pool for them."""
        shown = _FOREIGN.sub("_", name)
        if pool is None:
            return self.replicas / f"{shown[:_LONGEST]}-{checked(ident)[:_SHORT]}"
        if shown.startswith("."):  # A hidden file is no volume that somebody finds.
            shown = f"_{shown[1:]}"
        return pool / f"{shown[:_LONGEST_VOLUME]}-{checked(ident)[:_SHORT]}"

    # Deleting ----------------------------------------------------------------------------------

    def remove(self, path: Path) -> None:
        """Delete a folder of ours with all that is in it; gone already is fine.

        Raises:
            InvalidRequest: it is no folder of ours. Nothing was deleted.
        """
        for root in (
            self.data / "replications",
            self.data / "spool",
            self.data / "escrow",
            self.data / "journal",
            self.work_root,
        ):
            if _inside(path, root) is not None:
                remove(path, root)
                return
        for root in self.image_roots:
            inside = _inside(path, root)
            # These hold images of others as well: ours have a name of ours.
            if inside is not None and _OURS.match(inside.parts[0]):
                remove(path, root)
                return
        raise InvalidRequest("path", f"{path} is not below a folder of this site: it is not deleted")

    def remove_images(self, folder: Path, named: Iterable[Path] = ()) -> None:
        """Delete the folder of a replica or a clone, and its volumes in a storage pool; gone already is fine.

        Args:
            named: Images that were made for it, of which those are deleted that are its volumes: the list of volumes
                may be lost.

        Raises:
            InvalidRequest: it is no folder of ours. Nothing was deleted.
        """
        if not any(_inside(folder, root) is not None for root in self.image_roots):
            raise InvalidRequest("path", f"{folder} is not below a folder of this site: it is not deleted")
        for path in {*volumes(folder), *(path for path in named if is_volume(folder, path))}:
            path.unlink(missing_ok=True)
        self.remove(folder)

    def remove_replication(self, replication: str) -> None:
        """Delete a replication's own files; gone already is fine.

        Another tool's snapshot of a disk of ours lies beside it, and may be in use.
        """
        self.remove(self.replication(replication))
        work = self.work(replication)
        for entry in self.contents(work):
            if entry.is_dir() and not entry.is_symlink():
                self.remove(entry)
            elif entry.suffix in _WORK_SUFFIXES:
                entry.unlink(missing_ok=True)
        with suppress(OSError):  # something else lies there
            work.rmdir()

    def contents(self, folder: Path) -> Iterator[Path]:
        """What a folder holds; nothing where it is none."""
        return iter(sorted(folder.iterdir())) if folder.is_dir() else iter(())


def arrived(folder: Path, cut_id: str) -> Path:
    """Which segments of a cut are in the replica whose state is in ``folder``."""
    return below(folder, f"arrived-{cut_id[:16]}")


def memory(folder: Path, point: str) -> Path:
    """Where the memory of one instant lies, beside the images of its replica in ``folder``."""
    return folder / f"{MEMORY}{checked(point)[:_SHORT]}"


def volume(folder: Path, target: str, image_format: str) -> Path:
    """Where a disk of the replica or clone in ``folder``, which lies in a storage pool, is a volume of the pool.

    libvirt lists the files of a pool's folder, and none of folders in it.
    """
    return folder.parent / f"{folder.name}-{target}.{image_format}"


def is_volume(folder: Path, path: Path) -> bool:
    """Whether a path is one that ``volume`` gives for this folder."""
    return path.parent == folder.parent and path.name.startswith(f"{folder.name.removeprefix(REMOVED)}-")


def volumes(folder: Path) -> list[Path]:
    """Return the volumes that were made for the replica or clone in ``folder``, also those that are gone."""
    try:
        names = json.loads((folder / _VOLUMES).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return []
    if not isinstance(names, list):
        return []
    paths = [folder.parent / name for name in names if isinstance(name, str) and Path(name).name == name]
    return [path for path in paths if is_volume(folder, path)]


def note_volumes(folder: Path, paths: Iterable[Path]) -> None:
    """Record, before they are made, which volumes are made for ``folder``. Paths that are none are left out."""
    known = {path.name for path in volumes(folder)}
    names = known | {path.name for path in paths if is_volume(folder, path)}
    if names != known:
        durable.replace(folder / _VOLUMES, json.dumps(sorted(names)).encode())
