# SPDX-License-Identifier: Apache-2.0
"""The index finds what was added, and takes no more than it may."""

from memory_streams import PAGE, noise
from seedship.link.page_index import PageIndex


def test_pages_are_found_where_they_are() -> None:
    a, b, c = noise(3)
    index = PageIndex()
    index.add(0, 7, memoryview(a + bytes(PAGE) + b))
    index.add(3, 1 << 40, memoryview(c + b"the end of a disk that is no whole page"))
    index.seal()
    wanted = [memoryview(page) for page in (c, b, noise(1)[0], a, bytes(PAGE))]
    assert index.find(wanted) == [(3, 1 << 40), (0, 9), None, (0, 7), None]
    assert len(index) == 3


def test_it_is_bounded() -> None:
    pages = noise(5)
    index = PageIndex(3)
    index.add(0, 0, memoryview(b"".join(pages[:2])))
    assert not index.is_full
    index.add(0, 2, memoryview(b"".join(pages[2:])))
    assert index.is_full
    index.add(0, 5, memoryview(noise(1)[0]))
    index.seal()
    assert index.find([memoryview(page) for page in pages]) == [(0, 0), (0, 1), (0, 2), None, None]


def test_an_index_of_nothing_finds_nothing() -> None:
    index = PageIndex()
    index.seal()
    assert index.find([memoryview(noise(1)[0])]) == [None]
