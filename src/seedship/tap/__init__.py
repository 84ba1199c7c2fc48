# SPDX-License-Identifier: Apache-2.0
"""The tap: every write of a VM's guest as it happens, in one total order over all its disks.

Public interface: ``start``, ``find`` and ``TapProcess`` (the process that takes the writes), ``Tail`` and
``SpoolRecord`` (its log), ``condense`` (the disk content after a range of the log). One nbdkit process per VM runs
``plugin.c``, or its twin ``plugin.py`` where that was not compiled. It outlives this site's daemon, and
``supervisor`` ends it when it hangs.

Only the standard library and ISA-L are used here: nbdkit runs the system's Python. ``tests/integration/tap`` writes
through both plugins and compares their logs with plain disks.
"""

from seedship.tap.condense import CondensedRun, condense
from seedship.tap.process import TapProcess, find, start
from seedship.tap.spool import Kind, Spool, SpoolFull, SpoolRecord, Tail, trim
from seedship.tap.state import SharedNumbers

__all__ = [
    "CondensedRun",
    "Kind",
    "SharedNumbers",
    "Spool",
    "SpoolFull",
    "SpoolRecord",
    "Tail",
    "TapProcess",
    "condense",
    "find",
    "start",
    "trim",
]
