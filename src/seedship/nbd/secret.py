# SPDX-License-Identifier: Apache-2.0
"""Secrets for QEMU's programs. They are in memory, read by an inherited descriptor: a killed daemon leaves no file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def inherited(ident: str, value: bytes) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """Yield the options that give a program a secret, and the descriptors that it inherits.

    Start the program within the block. Without a secret both are empty.

    Args:
        ident: Id of QEMU's object that has the secret.
    """
    if not value:
        yield [], ()
        return
    descriptor = os.memfd_create("seedship-secret", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as written:
            written.write(value)
        yield ["--object", f"secret,id={ident},file=/proc/self/fd/{descriptor}"], (descriptor,)
    finally:
        os.close(descriptor)
