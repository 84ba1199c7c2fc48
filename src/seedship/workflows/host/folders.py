# SPDX-License-Identifier: Apache-2.0
"""Folders that QEMU writes to."""

from __future__ import annotations

from pathlib import Path

from seedship import beneath


def make_folder(path: Path) -> None:
    """Create a folder for QEMU, with its parent's owner and group."""
    path.mkdir(mode=0o770, exist_ok=True)
    beneath.give(path, path.parent.stat())
