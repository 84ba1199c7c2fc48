# SPDX-License-Identifier: Apache-2.0
"""Image files, through qemu-img. Never used on an image that a running guest writes to."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from seedship.errors import NbdFailed
from seedship.model.remote import backing as backing_name
from seedship.model.remote import canonical, is_remote
from seedship.native import tool
from seedship.nbd import placed, qemu_img, remote, server
from seedship.nbd.secret import inherited

_HEAD: Final = 104
_FOREIGN_S: Final = 60.0
"""Timeout for inspecting an image's header and tables."""
_REMOTE_S: Final = 30.0
"""Timeout for the facts of an image that is opened over the network."""
_TRIES: Final = 5
_UNSURE: Final = "Unable to get accurate CPU usage"
"""QEMU measures how fast the machine derives keys. On a busy machine the clock of a thread may be paused meanwhile
(QEMU, crypto/pbkdf.c)."""
_MAGIC: Final = b"QFI\xfb"
_EXTERNAL_DATA: Final = 1 << 2
"""A bit of qcow2's incompatible features (QEMU, docs/interop/qcow2)."""


class Bitmap(msgspec.Struct, frozen=True):
    """A dirty bitmap stored in a qcow2 image."""

    name: str
    flags: list[str] = []
    granularity: int = 0


class ImageInfo(msgspec.Struct, frozen=True):
    """Facts about an image, as qemu-img reports them."""

    format: str
    virtual_size: int
    actual_size: int
    backing: str | None = None
    backing_format: str | None = None
    bitmaps: tuple[Bitmap, ...] = ()
    data_file: str = ""
    """The file that holds its content, if that is another one."""
    encrypted: bool = False

    @property
    def external_data(self) -> bool:
        """Whether another file holds its content."""
        return bool(self.data_file)


class _Raw(msgspec.Struct, rename="kebab"):
    format: str
    virtual_size: int
    actual_size: int = 0
    encrypted: bool = False
    full_backing_filename: str | None = None
    backing_filename_format: str | None = None
    format_specific: dict[str, object] | None = None


class _Specific(msgspec.Struct, rename="kebab"):
    bitmaps: list[Bitmap] = []
    data_file: str = ""


def info(path: Path, *, image_format: str | None = None, force_share: bool = False) -> ImageInfo:
    """Return facts about an image. ``force_share`` inspects one that a guest has open.

    Pass the format whenever it is known: it must never be guessed from content that a guest wrote.

    Raises:
        NbdFailed: qemu-img cannot read the image.
    """
    words = ["info", "--output=json"]
    if is_remote(path):
        return _parsed(qemu_img.run_on(path, "raw", words, limit=_REMOTE_S))
    if force_share:
        words.append("-U")
    if image_format:
        words += ["-f", image_format]
    return _parsed(qemu_img.run([*words, str(path)]))


def _parsed(output: bytes) -> ImageInfo:
    raw = msgspec.json.decode(output, type=_Raw)
    data = (raw.format_specific or {}).get("data", {})
    specific = msgspec.convert(data, _Specific, strict=False)
    return ImageInfo(
        raw.format,
        raw.virtual_size,
        raw.actual_size,
        None if raw.full_backing_filename is None else canonical(raw.full_backing_filename),
        raw.backing_filename_format,
        tuple(specific.bitmaps),
        specific.data_file,
        raw.encrypted,
    )


def data_file(path: Path, image_format: str) -> Path | None:
    """Return the file that holds the content of one of this host's images, or None for the image itself.

    An image without such a file costs one read of its header. QEMU resolves a relative name against
    its working directory, which is the root directory under libvirt (QEMU, block/qcow2.c; libvirt,
    qemu_command.c).

    Raises:
        OSError: The image cannot be read.
        NbdFailed: The image does not name the file.
    """
    if image_format != "qcow2":
        return None
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if len(head) < _HEAD or head[:4] != _MAGIC or int.from_bytes(head[4:8]) < 3:
        return None
    if not int.from_bytes(head[72:80]) & _EXTERNAL_DATA:
        return None
    named = info(path, image_format=image_format, force_share=True).data_file
    if not named:
        raise NbdFailed(f"read {path}", "it does not name the file that holds its content")
    return Path("/", named)


def foreign(image: int, name: str) -> ImageInfo:
    """Return facts about another site's qcow2 image, given a descriptor of it.

    qemu-img inspects it without rights.

    Raises:
        NbdFailed: It is not qcow2, or it names another file as its backing image or its content.
    """
    kind, elsewhere = _by_header(os.pread(image, _HEAD, 0))
    if kind != "qcow2" or elsewhere:
        raise NbdFailed(f"read {name}", "it is no self-contained qcow2 image")
    words = ["qemu-img", "info", "--output=json", server.foreign(b"")]
    program = tool.start(words, image, output=subprocess.PIPE, errors=subprocess.PIPE)
    try:
        out, errors = program.communicate(timeout=_FOREIGN_S)
    except subprocess.TimeoutExpired as error:
        program.kill()
        program.wait()
        raise NbdFailed(f"read {name}", f"qemu-img did not end in {_FOREIGN_S:g} s") from error
    if program.returncode:
        why = errors.decode(errors="replace").strip() or f"qemu-img ended {program.returncode}"
        raise NbdFailed(f"read {name}", why)
    return _parsed(out)


def read_header(path: Path) -> tuple[str, bool]:
    """Return (``qcow2`` or ``raw``, whether it names another file) for an image that a guest may have written.

    Only the header's first bytes are read. Unlike with qemu-img, no file that the header names is
    opened.

    Raises:
        NbdFailed: The image cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise NbdFailed(f"read {path}", error.strerror or str(error)) from error
    return _by_header(head)


def is_version_2(path: Path) -> bool:
    """Whether a qcow2 image has ``compat=0.10``.

    Such an image cannot store bitmaps (QEMU, docs/interop/qcow2).

    Raises:
        OSError: The image cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(8)
    return head[:4] == _MAGIC and int.from_bytes(head[4:8]) == 2


def is_blank(path: Path) -> bool:
    """Whether a qcow2 image has no cluster and no snapshot of its own.

    This also holds for an image whose creation was interrupted by a kill.

    Raises:
        OSError: The image cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if head[:4] != _MAGIC or len(head) < _HEAD:
            return not any(head)
        entries, at = struct.unpack_from(">IQ", head, 36)
        file.seek(at)
        return not any(file.read(8 * entries)) and not any(head[60:64])


def _by_header(head: bytes) -> tuple[str, bool]:
    if head[:4] != _MAGIC:
        return "raw", False
    version, backing = struct.unpack_from(">IQ", head.ljust(_HEAD, b"\0"), 4)
    (needs,) = struct.unpack_from(">Q", head.ljust(_HEAD, b"\0"), 72)
    return "qcow2", bool(backing) or (version >= 3 and bool(needs & _EXTERNAL_DATA))


def create(
    path: Path,
    image_format: str,
    size: int,
    *,
    backing: Path | None = None,
    backing_format: str | None = None,
    passphrase: bytes = b"",
    laid_out: bool = False,
    over: bool = False,
) -> None:
    """Create a sparse image of ``size`` bytes, a qcow2 overlay on ``backing``, or a LUKS-encrypted image.

    Args:
        laid_out: Allocate a place in the file for every byte of a qcow2 image at once; the file
            stays sparse (see ``layout``).
        over: Replace an empty file that exists.

    Raises:
        NbdFailed: The image cannot be created, or the path exists.
    """
    if path.exists() and not over:
        raise NbdFailed(f"create {path}", "the file exists")
    words = ["create", "-q", "-f", image_format]
    if backing is not None:
        words += ["-b", _named(backing), "-F", backing_format or "qcow2"]
        words += ["-u"] if remote.chain(backing, backing_format or "qcow2") else []
    if passphrase:
        words += ["-o", f"encrypt.format=luks,encrypt.key-secret={server.KEY}"]
    elif laid_out and image_format == "qcow2":
        words += ["-o", "preallocation=metadata"]
    for left in reversed(range(_TRIES)):
        with inherited(server.KEY, passphrase) as (secret, descriptors):
            try:
                qemu_img.run([*words, *secret, str(path), str(size)], descriptors=descriptors)
                return
            except NbdFailed as error:
                if not left or not passphrase or _UNSURE not in error.why:
                    raise


def layout(path: Path, image_format: str, size: int) -> placed.Layout | None:
    """Return where the bytes of an image are in its file, or None if they were not laid out. Nobody may have it
    open.

    Raises:
        NbdFailed: qemu-img cannot read the image.
    """
    if not path.is_file():
        return None
    if image_format == "raw":
        return ((0, size, 0),)
    return placed.layout(qemu_img.run(["map", "--output=json", "-f", image_format, str(path)]), size)


def resize(path: Path, image_format: str, size: int) -> None:
    """Grow an image. The new tail reads as zeros.

    Raises:
        NbdFailed: The image cannot be grown.
    """
    qemu_img.run(["resize", "-q", "-f", image_format, str(path), str(size)])


def commit(path: Path, image_format: str = "qcow2", *, stop: Callable[[], bool] | None = None) -> bool:
    """Merge an overlay that nobody has open into its backing image.

    Args:
        stop: Queried about once a second; True ends it early. The chain reads as before, and it can be repeated.

    Returns:
        Whether it was merged.

    Raises:
        NbdFailed: It cannot be merged. Both images are as they were.
    """
    try:
        qemu_img.run_on(path, image_format, ["commit", "-q", "-d"], stop=stop)
    except qemu_img.ProgramStopped:
        return False
    return True


def rebase(path: Path, onto: Path, onto_format: str) -> None:
    """Change the backing image of an image that nobody has open. Both backing images must read the same.

    Raises:
        NbdFailed: The image cannot be changed.
    """
    qemu_img.run(["rebase", "-u", "-f", "qcow2", "-b", _named(onto), "-F", onto_format, str(path)])


def copy(source: Path, source_format: str, target: Path, target_format: str) -> None:
    """Create an image that reads as ``source``, which others may have open for reading. Holes stay holes.

    Raises:
        NbdFailed: The copy cannot be created; a part of it may exist.
    """
    qemu_img.run_on(source, source_format, ["convert", "-q", "-O", target_format], str(target), share=True)


def repair_leaks(path: Path) -> None:
    """Release clusters that nothing refers to, in a qcow2 image that nobody has open.

    Raises:
        NbdFailed: The image has other damage.
    """
    qemu_img.run(["check", "-q", "-f", "qcow2", "-r", "leaks", str(path)])


def remove_bitmap(path: Path, name: str) -> None:
    """Remove a stored bitmap from a qcow2 image that nobody has open.

    Raises:
        NbdFailed: The bitmap cannot be removed.
    """
    qemu_img.run(["bitmap", "--remove", "-f", "qcow2", str(path), name])


def _named(base: Path) -> str:
    return backing_name(base) if is_remote(base) else str(base)
