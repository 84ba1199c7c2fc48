# SPDX-License-Identifier: Apache-2.0
"""A file system whose server does not answer, as of a dead file server: FUSE, with its server stopped."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seedship import clock


class SilentFolder:
    """A mounted folder with a file ``nbd`` in it. It answers until ``stop``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        words = ["nbdfuse", str(path), "--command", "nbdkit", "-s", "--exit-with-parent", "memory", "64M"]
        self._server = subprocess.Popen(words)
        clock.wait_until(lambda: os.path.ismount(path), 30, "nbdfuse")

    def stop(self) -> None:
        """From now on every call to it hangs."""
        self._server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """It answers again, also to those who wait."""
        self._server.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Unmount it."""
        self.go_on()
        subprocess.run(["fusermount3", "-u", "-z", str(self.path)], check=True)
        self._server.wait()


@contextmanager
def silent_folder(path: Path) -> Iterator[SilentFolder]:
    """Have such a folder for the time of the block."""
    made = SilentFolder(path)
    try:
        yield made
    finally:
        made.end()
