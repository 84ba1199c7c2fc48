# SPDX-License-Identifier: Apache-2.0
"""The blocks of a VM that differ from what the destination holds, as sealed segments. Runs at the source.

Public interface: ``BlockMap`` (what the destination holds), ``PendingList`` and ``merge`` (an attempt's durable
record), ``run`` (the pipeline) and ``Watermark``.

It builds on segment and nbd. It knows no hypervisor, drive or link: the caller passes open cuts and a sink.
``tests/integration/capture`` compares it with full copies.
"""

from seedship.capture.blockmap import BlockMap, disk_path, forget_disk
from seedship.capture.epoch import run
from seedship.capture.pages import Pages
from seedship.capture.pending import Chunk, PendingList, PendingRun, merge
from seedship.capture.plain import copy
from seedship.capture.plan import Plan, Stats
from seedship.capture.read_limit import ReadLimit, give_way
from seedship.capture.sent import Sent
from seedship.capture.space import Watermark, free, reserve

__all__ = [
    "BlockMap",
    "Chunk",
    "Pages",
    "PendingList",
    "PendingRun",
    "Plan",
    "ReadLimit",
    "Sent",
    "Stats",
    "Watermark",
    "copy",
    "disk_path",
    "forget_disk",
    "free",
    "give_way",
    "merge",
    "reserve",
    "run",
]
