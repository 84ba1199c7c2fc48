# SPDX-License-Identifier: Apache-2.0
"""Calls to a file system whose server may not answer: the caller waits for a limited time.

A call that hangs in the kernel cannot be ended. It is made by a thread that is given up after the limit. Until that
thread returns, further calls to the same file system fail at once, so that hanging threads do not become many.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from seedship import beneath
from seedship.errors import FolderSilent
from seedship.runtime.task import spawn

ANSWER_S: Final = 10.0
"""Seconds. A server of NFS that is up but busy answers within some of them."""
_LONGEST: Final = 4096
"""Components of a path, with those of links."""
_T = TypeVar("_T")
_lock = threading.Lock()
_silent: dict[str, list[Future[object]]] = {}
"""By mount point: calls that were given up."""


def mounts() -> dict[str, str]:
    """Return the mount points with their devices (``MAJOR:MINOR``). The kernel answers without the file systems."""
    return {mount.point: mount.device for mount in beneath.mounts()}


def mount_of(path: str | Path, points: dict[str, str] | None = None) -> str:
    """Return the mount point of an absolute path by its text, without asking a file system. Links are not followed."""
    text = str(path)
    known = sorted(mounts() if points is None else points, key=len, reverse=True)
    return next((point for point in known if text == point or text.startswith(f"{point.rstrip('/')}/")), "/")


def answered(path: str | Path, call: Callable[[], _T], limit_s: float | None = None) -> _T:
    """Make a call to what is at an absolute path, and wait for its answer for at most ``limit_s`` (``ANSWER_S``).

    Raises:
        FolderSilent: It does not answer. Whatever the call raises otherwise.
    """
    seconds, reached = ANSWER_S if limit_s is None else limit_s, list[str]()
    answer: Future[_T] = Future()

    def work() -> None:
        try:
            _follow(str(path), reached, seconds)
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised to whoever waits
            answer.set_exception(error)

    spawn("folder-call", work)
    try:
        return answer.result(seconds)
    except NotYet as error:
        if answer.done():  # The call itself raised it, or it has just answered.
            return answer.result()
        mount = reached[-1] if reached else "/"
        with _lock:
            _silent.setdefault(mount, []).append(answer)  # type: ignore[arg-type]
        raise FolderSilent(str(path), mount, round(seconds)) from error


def _follow(path: str, reached: list[str], seconds: float) -> None:
    """Note each mount point that a path leads over, also by links, before the file system there is asked.

    Raises:
        FolderSilent: One of them did not answer before, and still does not.
    """
    points, left, at = mounts(), path.split("/"), "/"
    for _ in range(_LONGEST):
        if not left:
            return
        name = left.pop(0)
        if name in ("", "."):
            continue
        at = os.path.normpath(os.path.join(at, name))
        mount = mount_of(at, points)
        if not reached or mount != reached[-1]:
            _insist_answers(path, mount, seconds)
            reached.append(mount)
        with suppress(OSError):  # It is no link, or is not there.
            to = os.readlink(at)
            at, left = os.path.dirname(at), [*to.split("/"), *left]
            at = "/" if to.startswith("/") else at


def _insist_answers(path: str, mount: str, seconds: float) -> None:
    with _lock:
        left = [given_up for given_up in _silent.pop(mount, ()) if not given_up.done()]
        if left:
            _silent[mount] = left
            raise FolderSilent(path, mount, round(seconds))
