# SPDX-License-Identifier: Apache-2.0
"""Files below a directory of a file system that belongs to somebody else: a drive, a lent folder.

``Held`` keeps the directory open and reaches everything through that descriptor with openat2(2): no
path leads out of it, no symbolic link is followed and no other mount is entered, also not while
somebody exchanges directories under us. Only regular files are opened; a device node or a pipe is
refused before it is opened, since opening alone may act on a device. What has been unmounted stays
the file system that it was, and ``check`` reports it: nothing is ever written below a bare mount
point.

Source: openat2(2), ``RESOLVE_*``; Linux 5.6 and later, there is no fallback. proc(5) for ``fdinfo`` and ``mountinfo``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

MOST_NAMES: Final = 200_000
"""Entries of one directory that are read; a drive's part has one file per GiB."""
DEEPEST: Final = 64
"""Directories inside each other that are deleted; ours are three deep."""
_OPENAT2: Final = 437
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_INSIDE: Final = _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS | _NO_XDEV
_TRIES: Final = 64
"""openat2 answers EAGAIN where a rename raced with it."""
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def give(path: Path, owner: os.stat_result, mode: int | None = None) -> None:
    """Give a file, folder or socket of ours to the owner and group of ``owner``, and set its permission bits.

    The folder may belong to QEMU's user, who can put a symbolic link in its place: what that leads to is never given.
    Without the right to change owners this process is QEMU's user already, and the owner stays.

    Raises:
        OSError: There is nothing, or a symbolic link.
    """
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_ISLNK(os.fstat(descriptor).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        through = f"/proc/self/fd/{descriptor}"
        with suppress(PermissionError):
            os.chown(through, owner.st_uid, owner.st_gid)
        if mode is not None:
            os.chmod(through, mode)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Mount:
    """A mounted file system, as ``/proc/self/mountinfo`` describes it."""

    point: str
    options: frozenset[str]
    kind: str
    source: str
    root: str
    """Directory of the file system that is mounted; not ``/`` for bind mounts and subvolumes."""
    device: str
    """``MAJOR:MINOR`` of the file system: the same for all its mounts, also where ``st_dev`` is a subvolume's."""
    number: str
    """Differs between mounts at the same point."""


def mounts(process: str = "self") -> Iterator[Mount]:
    """All mounts in the namespace of a process, by its number. Raises OSError."""
    with open(f"/proc/{process}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            fields, rest = left.split(), right.split()
            options = frozenset(fields[5].split(","))
            yield Mount(_plain(fields[4]), options, rest[0], _plain(rest[1]), _plain(fields[3]), fields[2], fields[0])


class Held:
    """A directory and everything below it, until ``close``; safe for many threads.

    All methods raise OSError.
    """

    descriptor = -1

    def __init__(self, path: Path) -> None:
        """Open a directory.

        Links on the way to it are resolved once, now, and none is followed afterwards.

        Raises:
            OSError: it is no directory, or something on the way was exchanged for a link meanwhile.
        """
        self.path = Path(os.path.realpath(path))
        self.descriptor = _openat2(-100, str(self.path), os.O_RDONLY | os.O_DIRECTORY, 0, _NO_SYMLINKS | _NO_MAGICLINKS)
        held = os.fstat(self.descriptor)
        # Device numbers come again: the next drive may have this one's.
        self.identity = (held.st_dev, held.st_ino, os.fstatvfs(self.descriptor).f_fsid)

    def __del__(self) -> None:
        self.close()  # nobody may keep a drive from being unmounted by forgetting it

    def check(self) -> None:
        """Raise OSError (ESTALE) if the path leads elsewhere by now.

        The file system was unmounted or covered.
        """
        try:
            now = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            now = None
        if now is None or (now.st_dev, now.st_ino) != self.identity[:2]:
            raise OSError(errno.ESTALE, "the file system was unmounted", str(self.path))

    def mount(self) -> Mount | None:
        """The mount that this directory lies in; None where it was unmounted."""
        with open(f"/proc/self/fdinfo/{self.descriptor}", encoding="ascii") as file:
            number = re.search(r"^mnt_id:\s*(\d+)$", file.read(), re.MULTILINE)
        return next((mount for mount in mounts() if number is not None and mount.number == number[1]), None)

    def is_mount_point(self) -> bool:
        """Whether this is where a file system is mounted, and no mere folder of one."""
        mount = self.mount()
        return mount is not None and mount.point == str(self.path)

    def free(self) -> int:
        """Bytes that may still be written."""
        space = os.fstatvfs(self.descriptor)
        return space.f_bavail * space.f_frsize

    def open(self, name: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        """A descriptor of a regular file; with ``O_CREAT`` it and its folders are made.

        Raises:
            OSError: EINVAL where the name leads away or it is no regular file; else as open(2).
        """
        with self._parent(name, make=bool(flags & os.O_CREAT)) as (folder, last):
            for _ in range(_TRIES):
                with suppress(FileNotFoundError):
                    return _regular(folder, last, flags & ~os.O_CREAT, name)
                if not flags & os.O_CREAT:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
                with suppress(FileExistsError):
                    return _openat2(folder, last, flags | os.O_EXCL | os.O_NOFOLLOW, mode, _INSIDE)
        raise OSError(errno.EAGAIN, "it is exchanged again and again", name)

    def stat(self, name: str) -> os.stat_result | None:
        """What is there under the name, a link not followed; None: nothing."""
        try:
            with self._parent(name) as (folder, last):
                return os.stat(last, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def names(self, name: str = "") -> list[str]:
        """What a folder holds, sorted; a missing folder raises FileNotFoundError."""
        with self._folder(name) as folder, os.scandir(folder) as entries:
            names = []
            for entry in entries:
                names.append(entry.name)
                if len(names) > MOST_NAMES:
                    raise OSError(errno.EOVERFLOW, f"it has more than {MOST_NAMES} entries", name)
        return sorted(names)

    def make(self, name: str) -> None:
        """Make a folder and those that it lies in."""
        with self._folder(name, make=True):
            pass

    def replace(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Replace a file at once and durably.

        What is there afterwards is the old or the new content, whole.
        """
        with self._parent(name, make=True) as (folder, last):
            fresh = f"{last}.new"
            _delete(folder, fresh, 0)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(_openat2(folder, fresh, flags, mode, _INSIDE), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(fresh, last, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def flush(self) -> None:
        """Write what is cached of the whole file system: only so is an error of that reported (syncfs(2))."""
        if _libc.syncfs(ctypes.c_int(self.descriptor)) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(self.path))

    def sync(self, name: str = "") -> None:
        """Make the names in a folder durable."""
        with self._folder(name) as folder:
            os.fsync(folder)

    def remove(self, name: str) -> None:
        """Delete a file, or a folder with all that it holds; none is fine.

        The directory itself is never deleted.
        """
        try:
            with self._parent(name) as (folder, last):
                _delete(folder, last, 0)
        except FileNotFoundError:
            return

    def close(self) -> None:
        """Let go of the directory; a file that is open stays open."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @contextmanager
    def _parent(self, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        parts = _parts(name)
        if not parts:
            raise OSError(errno.EINVAL, "it is no name of a file", name)
        with self._folder("/".join(parts[:-1]), make=make) as folder:
            yield folder, parts[-1]

    @contextmanager
    def _folder(self, name: str, *, make: bool = False) -> Iterator[int]:
        parts = _parts(name)
        flags = os.O_RDONLY | os.O_DIRECTORY
        try:
            folder = _openat2(self.descriptor, "/".join(parts) or ".", flags, 0, _INSIDE)
        except FileNotFoundError:
            if not make:
                raise
            folder = self._made(parts)
        try:
            yield folder
        finally:
            os.close(folder)

    def _made(self, parts: tuple[str, ...]) -> int:
        at = _openat2(self.descriptor, ".", os.O_RDONLY | os.O_DIRECTORY, 0, _INSIDE)
        for part in parts:
            try:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=at)
                below = _openat2(at, part, os.O_RDONLY | os.O_DIRECTORY, 0, _INSIDE)
            finally:
                os.close(at)
            at = below
        return at


def _regular(folder: int, name: str, flags: int, shown: str) -> int:
    """Open what is there if it is a regular file.

    The inode is held and judged before it is opened.
    """
    held = _openat2(folder, name, os.O_PATH | os.O_NOFOLLOW, 0, _INSIDE)
    try:
        if not stat.S_ISREG(os.fstat(held).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", shown)
        return os.open(f"/proc/self/fd/{held}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(held)


def _delete(folder: int, name: str, depth: int) -> None:
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            return
        if depth >= DEEPEST:
            raise OSError(errno.ELOOP, f"folders lie more than {DEEPEST} deep in each other", name)
        below = _openat2(folder, name, os.O_RDONLY | os.O_DIRECTORY, 0, _INSIDE)
        try:
            for inner in os.listdir(below):
                _delete(below, inner, depth + 1)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=folder)
    except FileNotFoundError:
        return


def _parts(name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise OSError(errno.EINVAL, "it is no name below this folder", name)
    return parts


def _openat2(folder: int, name: str, flags: int, mode: int, resolve: int) -> int:
    how = _How(flags | os.O_CLOEXEC, mode if flags & os.O_CREAT else 0, resolve)
    number = errno.EAGAIN
    for _ in range(_TRIES):
        descriptor: int = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(folder),
            ctypes.c_char_p(os.fsencode(name)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    if number == errno.ENOSYS:
        raise OSError(number, "the kernel has no openat2: Linux 5.6 or later is needed", name)
    if number == errno.ELOOP:
        raise OSError(number, "a symbolic link is in the way", name)
    raise OSError(number, os.strerror(number), name)


def _plain(field: str) -> str:
    """Undo mountinfo's octal escapes."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field)
