# SPDX-License-Identifier: Apache-2.0
"""Disks over NBD: the only door to libnbd, qemu-nbd and qemu-img.

Door: ``Reader``, ``Writer``, ``PlacedWriter``, ``serve``, ``serve_foreign``, ``uri``, ``image``,
``hash_disk``, ``flush``. It depends on the vocabulary only. ``tests/integration/nbd`` runs it
against real servers, working and faulty ones.
"""

from seedship.nbd import header, image, remote
from seedship.nbd.export import FlushHidden, flush
from seedship.nbd.handle import BASE_ALLOCATION, DEPTH, DIRTY, HOLE, ZERO, Extent, Reader, Writer
from seedship.nbd.hashing import Hashes, data_ranges, hash_disk
from seedship.nbd.locks import is_obstructed, is_open, is_written
from seedship.nbd.placed import Layout, PlacedWriter
from seedship.nbd.server import EXPORT, listens, serve, serve_foreign, uri

__all__ = [
    "BASE_ALLOCATION",
    "DEPTH",
    "DIRTY",
    "EXPORT",
    "HOLE",
    "ZERO",
    "Extent",
    "FlushHidden",
    "Hashes",
    "Layout",
    "PlacedWriter",
    "Reader",
    "Writer",
    "data_ranges",
    "flush",
    "hash_disk",
    "header",
    "image",
    "is_obstructed",
    "is_open",
    "is_written",
    "listens",
    "remote",
    "serve",
    "serve_foreign",
    "uri",
]
