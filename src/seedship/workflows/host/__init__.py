# SPDX-License-Identifier: Apache-2.0
"""What either side does with this host's libvirt and QEMU: disks, folders, and what killed daemons left in QEMU."""

from seedship.workflows.host.disks import (
    chain_of,
    content,
    disks_of,
    files_of,
    read_only_disks,
    with_chains,
    written_disks,
)
from seedship.workflows.host.folders import make_folder
from seedship.workflows.host.leftovers import clear_layers, clear_leftovers, own_nodes
from seedship.workflows.host.users import Identity, identity_of, insist_free_device, user_of

__all__ = [
    "Identity",
    "chain_of",
    "clear_layers",
    "clear_leftovers",
    "content",
    "disks_of",
    "files_of",
    "identity_of",
    "insist_free_device",
    "make_folder",
    "own_nodes",
    "read_only_disks",
    "user_of",
    "with_chains",
    "written_disks",
]
