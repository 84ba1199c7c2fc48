# SPDX-License-Identifier: Apache-2.0
"""What threads of a site use to stop each other and to keep out of each other's way, by replication."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager


class Interrupts:
    """Requests to running steps to stop; safe for many threads."""

    def __init__(self) -> None:
        self._events: defaultdict[str, threading.Event] = defaultdict(threading.Event)

    def stopping(self, replication: str) -> threading.Event:
        """Set when the replication's running step shall stop soon."""
        return self._events[replication]

    def interrupt(self, replication: str) -> None:
        """Ask the replication's running step to stop."""
        self._events[replication].set()

    def detaching(self, replication: str) -> threading.Event:
        """Set while the sender of the replication's tapped writes shall let go of them."""
        return self._events[f"tap:{replication}"]

    def interrupt_all(self) -> None:
        """Ask every running step to stop."""
        for event in list(self._events.values()):
            event.set()


class Locks:
    """Locks of parts of replications; safe for many threads."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._urgent = Counter[str]()
        self._guard = threading.Lock()

    def of(self, replication: str, part: str) -> threading.RLock:
        """The lock of one part (``step``, ``journal``, ``change``) of a replication."""
        return self._locks[f"{part}:{replication}"]

    @contextmanager
    def urgently(self, *replications: str) -> Iterator[None]:
        """Hold the step locks for a change of the owner: what can be repeated later gives way until they are held."""
        with ExitStack() as held:
            with self._wanted(replications):
                for replication in sorted(replications):
                    held.enter_context(self.of(replication, "step"))
            yield

    @contextmanager
    def _wanted(self, replications: Sequence[str]) -> Iterator[None]:
        with self._guard:
            self._urgent.update(replications)
        try:
            yield
        finally:
            with self._guard:
                self._urgent.subtract(replications)
                self._urgent += Counter()  # Without those that nobody waits for.

    def is_urgent(self, replication: str) -> bool:
        """Whether a change of the owner waits for the step's lock."""
        return self._urgent[replication] > 0
