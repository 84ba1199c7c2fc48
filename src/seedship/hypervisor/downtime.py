# SPDX-License-Identifier: Apache-2.0
"""The pause that QEMU may predict before it stops the guest: short at first, longer if the end does not come.

QEMU stops the guest as soon as the rest fits into the permitted pause, even if another pass over
the memory would leave next to nothing. So the permitted pause starts as a fraction of the maximum,
and doubles from the end of the first pass on. It grows fast enough that a guest which keeps writing
is not slowed in the meantime (QEMU's auto-converge checks once per second, and acts the second
time: migration/ram.c, ``migration_trigger_throttle``).

QEMU predicts from what it could write in the last 0.1 s (migration/migration.c,
``migration_update_counters``). The first pass may refer to pages of the disks instead of sending them; then that is
far more than the link carries, and next to nothing is permitted until QEMU has measured again.
"""

from __future__ import annotations

from typing import Final

_PART: Final = 10
_LEAST_MS: Final = 20
_DOUBLE_S: Final = 0.5
_MEASURED_S: Final = 0.4
"""Time after the first pass in which QEMU has measured again, more than once."""
_NOTHING_MS: Final = 1


class Downtime:
    """The permitted pause of one migration, at most ``most_ms`` milliseconds."""

    def __init__(self, most_ms: int, *, refers: bool = False) -> None:
        self._most = most_ms
        self._refers = refers
        self._first = min(most_ms, max(_LEAST_MS, most_ms // _PART))
        self._since: float | None = None

    def at(self, iteration: int, now: float) -> int:
        """Return the milliseconds that QEMU may predict now.

        Args:
            iteration: QEMU's passes over the memory, from 1.
            now: Seconds.
        """
        if self._since is None and iteration > 1:
            self._since = now
        if self._refers and (self._since is None or now - self._since < _MEASURED_S):
            return _NOTHING_MS
        doubled = 0 if self._since is None else int((now - self._since) / _DOUBLE_S)
        return min(self._most, self._first << min(doubled, 32))
