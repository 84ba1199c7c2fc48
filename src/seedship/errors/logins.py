# SPDX-License-Identifier: Apache-2.0
"""How this host logs in to storage that QEMU opens over the network. Exit and status as in ``hypervisor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seedship.errors.hypervisor import NbdFailed


@dataclass(eq=False)
class SeveralLogins(NbdFailed):
    """VMs of this host log in to a unit of one name in different ways: it may be several units."""

    code: ClassVar[str] = "hypervisor.several-logins"
    message: ClassVar[str] = "NBD {what} failed: {why}"
    remedy: ClassVar[str] = (
        "If it is one unit, detach it from all VMs but one. If the target shows each VM another unit under this name,"
        " let it show them under different numbers or target names, and name those in the definitions of the VMs"
        " (while they are off). Then repeat the command; a step is retried automatically"
    )
