# SPDX-License-Identifier: Apache-2.0
"""Which page of which disk has a given content: a bounded index by short hashes.

It only suggests: what it finds is right if the content there is still the same, and no two pages had one hash.
"""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections.abc import Sequence
from typing import Final

import numpy as np

from seedship.link.memory_stream import PAGE

PAGES: Final = 2 * 1024 * 1024
"""Pages that an index takes by default: 8 GiB of content, in 32 MiB of memory."""
_PLACE_BITS: Final = 48


class PageIndex:
    """Filled by one thread, then sealed, then searched."""

    def __init__(self, most: int = PAGES) -> None:
        """Create an index of at most ``most`` pages."""
        self._most = most
        self._key = secrets.token_bytes(16)
        self._filling = (array("Q"), array("Q"))
        self._hashes = self._places = np.empty(0, np.uint64)
        self.hits = 0
        """Pages that were found."""

    def __len__(self) -> int:
        return max(len(self._hashes), len(self._filling[0]))

    @property
    def is_full(self) -> bool:
        """Whether it takes no more pages."""
        return len(self._filling[0]) >= self._most

    def add(self, disk: int, first: int, content: memoryview) -> None:
        """Add the pages of a disk from page ``first`` on, as far as there is room. Pages of zeros are left out."""
        hashes, places = self._filling
        count = len(content) // PAGE
        words = np.frombuffer(content[: count * PAGE], np.uint64).reshape(count, -1)
        for number in np.flatnonzero(words.any(axis=1)).tolist()[: self._most - len(hashes)]:
            hashes.append(self._hash(content[number * PAGE : (number + 1) * PAGE]))
            places.append(disk << _PLACE_BITS | first + number)

    def seal(self) -> None:
        """Sort it. Nothing is added afterwards."""
        hashes, places = (np.frombuffer(part, np.uint64) for part in self._filling)
        order = np.argsort(hashes)
        self._hashes, self._places = hashes[order], places[order]
        del hashes, places
        self._filling = (array("Q"), array("Q"))

    def find(self, pages: Sequence[memoryview]) -> list[tuple[int, int] | None]:
        """Return disk and page number for each page; None for one that is not known."""
        if not len(self._hashes) or not pages:
            return [None] * len(pages)
        wanted = np.array([self._hash(page) for page in pages], np.uint64)
        at = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        equal = self._hashes[at] == wanted
        self.hits += int(equal.sum())
        return [
            (place >> _PLACE_BITS, place & (1 << _PLACE_BITS) - 1) if hit else None
            for place, hit in zip(self._places[at].tolist(), equal.tolist(), strict=True)
        ]

    def _hash(self, page: memoryview) -> int:
        return int.from_bytes(hashlib.blake2b(page, digest_size=8, key=self._key).digest(), "little")
