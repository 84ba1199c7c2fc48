# SPDX-License-Identifier: Apache-2.0
"""Serves an image file over NBD with qemu-nbd, for the duration of a ``with`` block."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

import msgspec

from seedship import clock
from seedship.errors import NbdFailed
from seedship.model.remote import without_secrets
from seedship.native import tool
from seedship.nbd import remote
from seedship.nbd.export import GREETING
from seedship.nbd.secret import inherited

EXPORT = "disk"
"""Export name that ``serve`` uses."""
_GREETING_S: Final = 1.0
KEY: Final = "key"
"""Id of QEMU's object that has an image's passphrase."""
_SECRET: Final = f"secret,id={KEY},file={tool.SECRET_PATH}"


@contextmanager
def serve(
    path: Path,
    image_format: str,
    *,
    read_only: bool,
    force_share: bool = False,
    bitmap: str | None = None,
    depth: bool = False,
    passphrase: bytes = b"",
) -> Iterator[str]:
    """Serve ``path`` on a private unix socket. Yields the socket's path.

    The server ends with the block, and the kernel kills it when this process dies.

    Args:
        force_share: Read an image that another process has open (a frozen base below a guest's
            overlay).
        bitmap: Export this bitmap of the image.
        depth: Export which image of the chain holds the data.
        passphrase: Open an image that LUKS encrypts.

    Raises:
        NbdFailed: qemu-nbd does not start.
    """
    with tempfile.TemporaryDirectory(prefix="seedship-nbd-") as folder:
        at = Path(folder) / "nbd.sock"
        words = ["qemu-nbd", "--socket", str(at), "--persistent", "--shared=4"]
        words += ["--export-name", EXPORT, "--discard=unmap", "--detect-zeroes=off"]
        words += ["--read-only"] if read_only else []
        words += ["--bitmap", bitmap] if bitmap else []
        words += ["--allocation-depth"] if depth else []
        opened = None if passphrase else remote.opened(path, image_format, share=force_share)
        if opened is not None:
            image = [opened.name]
        elif force_share:
            image = ["--image-opts", _shared(path, image_format)]
        elif passphrase:
            image = ["--image-opts", _encrypted(path, image_format)]
        else:
            image = ["--format", image_format, str(path)]
        with tempfile.TemporaryFile() as errors:
            # setpriv makes the server die with this process, also when it is killed.
            with inherited(KEY, passphrase) if opened is None else opened.secret() as (secret, descriptors):
                server = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *words, *secret, *image],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    pass_fds=descriptors,
                )
            with _ended_after(server):
                _await(server, at, str(path), errors)
                yield str(at)


@contextmanager
def serve_foreign(image: int, name: str, *, passphrase: bytes = b"") -> Iterator[str]:
    """Serve another site's qcow2 image read-only, given a descriptor, by a server without rights.

    Yields the socket's path. The server opens this file and no other, whatever the image names.

    Raises:
        NbdFailed: qemu-nbd does not start.
    """
    with (
        tempfile.TemporaryDirectory(prefix="seedship-nbd-") as folder,
        socket.socket(socket.AF_UNIX) as listening,
        tempfile.TemporaryFile() as errors,
    ):
        at = Path(folder) / "nbd.sock"
        listening.bind(str(at))
        listening.listen(4)
        words = ["qemu-nbd", "--persistent", "--shared=4", "--export-name", EXPORT, "--read-only"]
        words += ["--object", _SECRET] if passphrase else []
        words += [foreign(passphrase)]
        server = tool.start(
            words,
            image,
            output=subprocess.DEVNULL,
            errors=errors,
            passphrase=passphrase,
            listening=listening,
        )
        # Otherwise a client would wait for a server that has ended.
        listening.close()
        with _ended_after(server):
            _await(server, at, name, errors)
            yield str(at)


def uri(served: str) -> str:
    """Return the NBD URI of what ``serve`` serves at this socket.

    Source: NBD URI specification (doc/uri.md of the NBD protocol's repository).
    """
    return f"nbd+unix:///{EXPORT}?socket={quote(served)}"


def foreign(passphrase: bytes) -> str:
    """Return the name under which a confined program opens another site's image.

    Its format is fixed, and it has no backing image.
    """
    words = {
        "driver": "qcow2",
        "backing": None,
        "file": {"driver": "file", "filename": tool.IMAGE_PATH, "read-only": True},
        "read-only": True,
    }
    if passphrase:
        words["encrypt"] = {"format": "luks", "key-secret": KEY}
    return "json:" + msgspec.json.encode(words).decode()


def _await(server: subprocess.Popen[bytes], at: Path, name: str, errors: IO[bytes]) -> None:
    try:
        clock.wait_until(lambda: _greets(at) or server.poll() is not None, 20, "qemu-nbd")
    except TimeoutError as error:
        raise NbdFailed(f"serving {name}", str(error)) from error
    if server.poll() is not None:
        errors.seek(0)
        why = without_secrets(errors.read().decode(errors="replace").strip())
        raise NbdFailed(f"serving {name}", why or f"qemu-nbd ended {server.poll()}")


@contextmanager
def _ended_after(server: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def listens(at: str) -> bool:
    """Whether the server of a socket still runs, even if it accepts no more clients."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_GREETING_S)
        try:
            probe.connect(at)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True


def _greets(at: Path) -> bool:
    """Whether an NBD server answers at a socket.

    qemu-nbd listens before it has opened its image, and may still fail to open it.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_GREETING_S)
        try:
            probe.connect(str(at))
            return probe.recv(len(GREETING), socket.MSG_WAITALL) == GREETING
        except OSError:
            return False


def _encrypted(path: Path, image_format: str) -> str:
    name = str(path).replace(",", ",,")
    return f"driver={image_format},file.driver=file,file.filename={name},encrypt.format=luks,encrypt.key-secret={KEY}"


def _shared(path: Path, image_format: str) -> str:
    name = str(path).replace(",", ",,")
    return f"driver={image_format},force-share=on,file.driver=file,file.filename={name},file.locking=off"
