# SPDX-License-Identifier: Apache-2.0
"""Pages are found in QEMU's stream wherever it is cut, and nothing of the stream is lost, changed or kept back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import memory_streams as made
from memory_streams import FOOTER, OTHER, noise, part, record, start, stream, word
from seedship.link.memory_stream import MOST_HELD, PAGE, MemoryStream


def taken(pieces: list[bytes]) -> tuple[bytes, list[bytes], list[bool]]:
    """The stream as it comes out, its pages, and whether each was sent while the guest was paused."""
    parser, out = MemoryStream(), b""
    pages: list[bytes] = []
    paused: list[bool] = []
    for piece in pieces:
        content, positions = parser.take(piece)
        pages += [content[at : at + PAGE] for at in positions]
        paused += [parser.ending] * len(positions)
        out += content
    return out + parser.rest(), pages, paused


def halves(data: bytes, at: int) -> list[bytes]:
    return [data[:at], data[at:]]


def test_it_is_the_same_wherever_it_is_cut() -> None:
    pages, last = [*noise(1), bytes(PAGE), *noise(1)], noise(1)
    data = stream([pages], last)
    wanted = [pages[0], pages[2], last[0]]
    for at in range(len(data) + 1):
        assert taken(halves(data, at))[:2] == (data, wanted), at
    assert taken([data[n : n + 1] for n in range(len(data))])[:2] == (data, wanted)


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(1, 9000), min_size=1))
def test_any_pages_in_any_pieces(kinds: list[int], sizes: list[int]) -> None:
    page = noise(1)[0]
    records = [
        record(n, (page, bytes(PAGE), page, b"")[kind], block=(b"", b"", b"pc.ram", b"")[kind])
        if kind < 3
        else made.delta(n, b"changes" * 20)
        for n, kind in enumerate(kinds)
    ]
    data = start() + part(records) + part([], ends=True) + made.TAIL
    pieces, at = list[bytes](), 0
    while at < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[at : at + size])
        at += size
    assert taken(pieces)[:2] == (data, [page for kind in kinds if kind in (0, 2)])


def test_what_is_sent_in_the_pause_is_known_to_be() -> None:
    data = stream([noise(2), noise(1)], noise(2))
    cut = data.index(b"\x03" + made.SECTION + word(made.WHOLE))
    assert taken(halves(data, cut))[2] == [False] * 3 + [True] * 2


def test_sections_of_other_things_are_passed_over() -> None:
    page, after = noise(2)
    begin = start()
    data = begin + OTHER + part([record(1, page)]) + OTHER + OTHER + part([record(2, after)]) + part([], ends=True)
    for at in range(len(begin), len(begin) + 2 * len(OTHER) + 60):
        assert taken(halves(data, at))[:2] == (data, [page, after]), at


@pytest.mark.parametrize(
    "strange",
    [
        word(0x1000 | 0x200),  # the threads of multifd are in step
        word(0x1000 | 0x100 | made.CONTINUE),
        word(0x80),
        word(made.EOS) + b"\x7e\0\0\0\x09",
        word(made.MEM_SIZE | 1 << 20) + b"\x01a" + word(1 << 30),
    ],
)
def test_what_is_not_known_passes_and_so_does_all_that_follows(strange: bytes) -> None:
    page, after = noise(2)
    data = start() + b"\x02" + made.SECTION + record(1, page) + strange + record(2, after) + word(made.EOS) + FOOTER
    for size in (1, 4096, len(data)):
        out, pages, _ = taken([data[at : at + size] for at in range(0, len(data), size)])
        assert (out, pages) == (data, [page])


@given(st.lists(st.binary(max_size=3000), max_size=8))
def test_junk_passes_at_once(pieces: list[bytes]) -> None:
    parser = MemoryStream()
    for piece in pieces:
        assert parser.take(piece) == (piece, [])


@given(st.binary(max_size=12000), st.integers(1, 5000))
def test_junk_among_pages_is_never_lost(junk: bytes, size: int) -> None:
    data = start() + b"\x02" + made.SECTION + junk
    parser, out = MemoryStream(), 0
    for at in range(0, len(data), size):
        out += len(parser.take(data[at : at + size])[0])
        assert at + size - out < MOST_HELD + size
    assert taken([data[at : at + size] for at in range(0, len(data), size)])[0] == data


def test_only_the_beginning_of_a_page_waits() -> None:
    parser, data = MemoryStream(), start() + b"\x02" + made.SECTION + record(1, noise(1)[0])
    whole = len(data) - PAGE - 8
    assert parser.take(data[:-1]) == (data[:whole], [])
    assert parser.take(data[-1:]) == (data[whole:], [8])
