# SPDX-License-Identifier: Apache-2.0
"""Running qemu-img: for as long as it does something, or until it is asked to stop."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from seedship.errors import NbdFailed
from seedship.model.remote import without_secrets
from seedship.nbd import remote
from seedship.runtime import Patience

_STILL_S: Final = 600.0
"""Seconds in which qemu-img must have read, written or computed something."""
_CHECK_S: Final = 1.0


class ProgramStopped(Exception):
    """The program was ended because the caller asked for it."""


def run_on(
    path: Path,
    image_format: str,
    words: list[str],
    *after: str,
    share: bool = False,
    limit: float | None = None,
    stop: Callable[[], bool] | None = None,
) -> bytes:
    """Run qemu-img on an image, which may be remote or based on a remote one; returns its output.

    Args:
        after: Arguments after the image.
        share: Others may have the image open.
        limit: Seconds that it may take; by default as long as it does something.
        stop: Queried about once a second; True ends it.

    Raises:
        NbdFailed: It failed.
        ProgramStopped: ``stop`` asked for its end.
    """
    opened = remote.opened(path, image_format, share=share)
    if opened is None:
        return run([*words, *(["-U"] if share else []), "-f", image_format, str(path), *after], stop=stop)
    with opened.secret() as (secret, descriptors):
        try:
            return run([*words, *secret, opened.name, *after], limit, descriptors, stop)
        except NbdFailed as error:
            raise NbdFailed(error.what, error.why.replace(opened.name, str(path))) from error


def run(
    words: list[str],
    limit: float | None = None,
    descriptors: tuple[int, ...] = (),
    stop: Callable[[], bool] | None = None,
) -> bytes:
    """Run qemu-img with these arguments; returns its output. Arguments and errors are as for ``run_on``.

    Args:
        descriptors: Open files that it inherits.
    """
    what = f"qemu-img {words[0]}"
    try:
        with subprocess.Popen(
            ["qemu-img", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=descriptors
        ) as program:
            try:
                out, errors = _awaited(program, stop) if limit is None else program.communicate(timeout=limit)
            except BaseException:
                program.kill()
                raise
    except subprocess.TimeoutExpired as error:
        raise NbdFailed(what, f"it did not end in {limit:g} s") from error
    except (OSError, TimeoutError) as error:
        raise NbdFailed(what, str(error)) from error
    if program.returncode:
        raise NbdFailed(what, without_secrets(errors.decode(errors="replace").strip()))
    return out


def _awaited(program: subprocess.Popen[bytes], stop: Callable[[], bool] | None) -> tuple[bytes, bytes]:
    """Return what a program wrote, however long it works.

    Raises:
        ProgramStopped: ``stop`` asked for its end.
        TimeoutError: it neither read, wrote nor computed for ``_STILL_S`` seconds.
    """
    patience = Patience(_STILL_S)
    while True:
        try:
            return program.communicate(timeout=_CHECK_S)
        except subprocess.TimeoutExpired:
            if stop is not None and stop():
                raise ProgramStopped from None
            if patience.left(_activity(program.pid)) <= 0:
                raise TimeoutError(f"it has not read or written anything for {_STILL_S:g} s") from None


def _activity(pid: int) -> tuple[str, ...]:
    """Return what changes while a process works: its counts of bytes, and its processor time (proc(5))."""
    seen = []
    for name in ("io", "stat"):
        try:
            text = Path(f"/proc/{pid}/{name}").read_text()
        except OSError:  # It ends at this moment.
            continue
        seen.append(text if name == "io" else " ".join(text.rpartition(")")[2].split()[11:13]))
    return tuple(seen)
