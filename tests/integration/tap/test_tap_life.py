# SPDX-License-Identifier: Apache-2.0
"""A tap's whole way against plain disks: many writers at once, a kill or a full spool, and a delivery that repeats and reorders.

The tap is the real one, and so is the replica. What the log says is held against what the writers saw; what the replica
holds, at each of its stops, against the log up to there.
"""

import os
import random
import signal
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import nbd as libnbd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from seedship import clock, failpoints, segment, tap
from seedship.errors import NbdFailed, StaleCut
from seedship.journal import Journal
from seedship.model import Close, DiskIndex, DiskSpec, KeyId, SegmentId
from seedship.model.books import DestinationBook
from seedship.model.books import destination as books
from seedship.nbd import Writer
from seedship.replica import Replica
from seedship.tap.state import ENDED, FULL, MARK_END, MARK_READY

SECTOR = 512
SIZES = {"vda": 640 * 1024, "vdb": 256 * 1024 + SECTOR}
LINEAGE, HASH_KEY = "a" * 32, b"h" * 32
KEY = segment.SegmentKey(KeyId("0f" * 16), b"k" * 32)
CUT = f"{1:032x}"
LENGTHS = [1, 1, 8, 8, 8, 9, 16, 128]  # in sectors: some fit into pages, some do not


@dataclass
class Write:
    """One request of a writer, and when it was begun and answered; ``end`` stays 0 where it failed."""

    disk: int
    offset: int
    length: int
    data: bytes
    """Of zeros: nothing."""
    begin: float = 0.0
    end: float = 0.0
    failed: float = 0.0

    @property
    def content(self) -> bytes:
        return self.data or bytes(self.length)

    def covers(self, disk: int, sector: int) -> bool:
        at = sector * SECTOR
        return disk == self.disk and self.offset <= at < self.offset + self.length


def drawn(rng: random.Random, writers: int, count: int, aligned: bool) -> list[list[Write]]:
    """What each writer does, one after the other; all over each other, half of it in a small place."""
    found: list[list[Write]] = []
    for _ in range(writers):
        mine = []
        for _ in range(count):
            disk = rng.randrange(2)
            size = list(SIZES.values())[disk]
            length = rng.choice([8, 16, 128] if aligned else LENGTHS) * SECTOR
            unit = 4096 if aligned else SECTOR
            span = size if rng.random() < 0.5 else 64 * 1024
            offset = min(rng.randrange(span) // unit * unit, (size - length) // unit * unit)
            stamp = struct.pack("<Q", rng.getrandbits(63)) * (SECTOR // 8)
            data = b"" if rng.random() < 0.25 else stamp * (length // SECTOR)
            mine.append(Write(disk, offset, length, data))
        found.append(mine)
    return found


def run(found: tap.TapProcess, work: Sequence[Sequence[Write]], kill_after: int = 0) -> None:
    """All writers at once; with ``kill_after`` the tap is killed behind so many answers."""
    answered = threading.Semaphore(0)

    def write(mine: Sequence[Write]) -> None:
        try:
            writers = [Writer(found.socket, name) for name in SIZES]
        except NbdFailed:
            return
        try:
            for number, one in enumerate(mine):
                one.begin = clock.monotonic()
                to = writers[one.disk]
                if one.data:
                    to.write(one.data, one.offset)
                else:
                    to.zero(one.offset, one.length)
                one.end = clock.monotonic()
                answered.release()
                if number % 5 == 4:
                    to.flush()
        except NbdFailed:
            one.failed = clock.monotonic()
        finally:
            for to in writers:
                to.close()

    threads = [threading.Thread(target=write, args=(mine,)) for mine in work]
    for thread in threads:
        thread.start()
    if kill_after:
        for _ in range(kill_after):
            answered.acquire(timeout=10)
        os.kill(found.pid, signal.SIGKILL)
    for thread in threads:
        thread.join()


def trimmed(found: tap.TapProcess) -> None:
    """A discard is no write that may be lost, nor one that may come out as zeros: it is not taken."""
    handle = libnbd.NBD()
    handle.set_strict_mode(0)
    handle.set_export_name("vda")
    handle.connect_unix(found.socket)
    assert not handle.can_trim()
    with pytest.raises(libnbd.Error):
        handle.trim(4096, 0)
    handle.shutdown()


def play(records: Sequence[tap.SpoolRecord], disks: list[bytearray]) -> None:
    for r in records:
        if r.kind in (tap.Kind.DATA, tap.Kind.ZERO):
            disks[r.disk][r.offset : r.offset + r.length] = r.data or bytes(r.length)


def judge(before: list[bytearray], now: list[bytearray], work: Sequence[Sequence[Write]]) -> None:
    """Each sector holds what it held or what a writer wrote, but nothing that an answered write came behind."""
    every = [one for mine in work for one in mine if one.begin]
    refused = min((one.failed for one in every if one.failed), default=0.0)
    # Behind the first that could not be kept none is: or the log would be no prefix of what happened.
    assert not refused or all(one.begin <= refused for one in every if one.end)
    for disk, content in enumerate(now):
        for sector in range(len(content) // SECTOR):
            over = [one for one in every if one.covers(disk, sector)]
            at = sector * SECTOR
            found = content[at : at + SECTOR]
            if not over:
                assert found == before[disk][at : at + SECTOR], (disk, sector)
                continue
            latest = max((one.begin for one in over if one.end), default=0.0)
            may = [w.content[:SECTOR] for w in over if not w.end or w.end >= latest]
            if not any(one.end for one in over):
                may.append(bytes(before[disk][at : at + SECTOR]))
            assert found in may, (disk, sector)


class Source:
    """The tap, its writers, and the plain disks as the log has them."""

    def __init__(self, folder: Path, limit: int, by: str) -> None:
        served_by = Path(tap.__file__).with_name(by)
        sockets = folder / "sockets"
        self.tap = tap.start(
            folder / "tap", sockets, SIZES, supervisor=folder / "watch", limit=limit, timeout=2.0, served_by=served_by
        )
        self.records: list[tap.SpoolRecord] = []
        self.disks = [bytearray(size) for size in SIZES.values()]
        self.trimmed = 0
        self.ready = 0

    def batch(self, work: list[list[Write]], kill_after: int = 0) -> None:
        run(self.tap, work, kill_after)
        self.read(work)

    def read(self, work: list[list[Write]]) -> None:
        tail = tap.Tail(self.tap.spool, len(self.records))
        fresh: list[tap.SpoolRecord] = []
        while more := tail.read(100_000):
            fresh += more
        first = len(self.records) + 1
        assert [r.seq for r in fresh] == list(range(first, first + len(fresh)))
        before = [bytearray(disk) for disk in self.disks]
        play(fresh, self.disks)
        judge(before, self.disks, work)
        self.records += fresh

    def settle(self) -> None:
        """All of it is durable elsewhere: it may go."""
        self.trimmed += tap.trim(self.tap.spool, len(self.records))
        self.tap.acknowledge(len(self.records), self.trimmed)


@dataclass
class Far:
    """The other site: a book, a journal and a replica of two raw disks."""

    folder: Path
    book: DestinationBook = field(init=False)

    def __post_init__(self) -> None:
        def close(epoch: int, **more: bool) -> Close:
            before = f"{epoch - 1:032x}" if epoch else ""
            return Close(LINEAGE, epoch, f"{epoch:032x}", before, tuple(SIZES.values()), (), epoch, **more)  # type: ignore[arg-type]

        self.journal = Journal(self.folder / "journal", reserve=0)
        specs = [DiskSpec(DiskIndex(n), name, size, "raw") for n, (name, size) in enumerate(SIZES.items())]
        names = [f"{name}.raw" for name in SIZES]
        self.replica = Replica.create(self.folder / "state", self.folder, specs, names, HASH_KEY)
        self.replica.adopted()
        book = books.seed_closed(books.closed(DestinationBook(LINEAGE), close(0)))  # type: ignore[arg-type]
        self.journal.close(close(1, tap=True))
        self.book = books.applied(books.closed(book, close(1, tap=True)), 1)

    def store(self, data: bytes) -> None:
        header = segment.peek(data)
        if books.admit_tapped(self.book, header.id):
            self.journal.keep_tapped(data, header)

    @property
    def stored(self) -> int:
        return self.journal.tapped(LINEAGE, 1, CUT, self.book.taps[0].applied)

    def replay(self, most: int, crash: str) -> int | None:
        """Some of what may be applied; returns how many segments are in the replica then."""
        due = books.to_replay(self.book, self.stored)
        if due is None:
            return None
        one, end = due
        end = min(end, max(one.applied + most, one.ready))
        names = [SegmentId(LINEAGE, 1, CUT, n) for n in range(one.applied, end)]  # type: ignore[arg-type]
        if crash:
            failpoints.arm(crash, "raise")
            try:
                self.replica.replay(names, self.journal.tapped_segment, KEY)
            except failpoints.InjectedFailure:
                pass
            finally:
                failpoints.disarm()
        self.replica.replay(names, self.journal.tapped_segment, KEY)
        self.book = books.replayed(self.book, CUT, end)
        self.journal.drop_tapped(LINEAGE, 1, CUT, end)
        return end

    def disks(self) -> list[bytes]:
        return [(self.folder / f"{name}.raw").read_bytes() for name in SIZES]


def sealed(number: int, records: Sequence[tap.SpoolRecord]) -> bytes:
    writer = segment.SegmentWriter(SegmentId(LINEAGE, 1, CUT, number), KEY, "tap", HASH_KEY)  # type: ignore[arg-type]
    for piece in tap.condense(records):
        if piece.data is None:
            writer.add_zero(piece.disk, piece.offset, piece.length)
        else:
            writer.add_data(piece.disk, piece.offset, piece.data)
    return bytes(writer.seal().data)


def deliver(rng: random.Random, folder: Path, records: Sequence[tap.SpoolRecord], ready: int) -> None:
    """In batches as they come, each of them late, twice, or sealed anew; the replica stops between any two."""
    inner = [n for n in range(1, len(records)) if n + 1 != ready and n != ready]
    ends = sorted({*rng.sample(inner, min(len(inner), rng.randint(1, 6))), ready, len(records)})
    starts = [0, *ends[:-1]]
    pieces = [records[a:b] for a, b in zip(starts, ends, strict=True)]
    far = Far(folder)
    waiting = [n for n in range(len(pieces)) for _ in range(rng.choice([1, 1, 2]))]
    waiting.sort(key=lambda n: n + rng.random() * 3)
    told = ends.index(ready) + 1
    while waiting or books.to_replay(far.book, far.stored):
        for number in waiting[: rng.randint(1, 3)]:
            far.store(sealed(number, pieces[number]))
            waiting.remove(number)
        if far.stored >= told or rng.random() < 0.2:
            far.book = books.tap_ready(far.book, CUT, told)
        crash = rng.choice(["", "", "replay.checked", "replica.write", "replica.flush"])
        before = far.disks()
        upto = far.replay(rng.randint(1, 3), crash)
        if upto is None:
            assert far.disks() == before
            continue
        assert ends[upto - 1] >= ready
        plain = [bytearray(size) for size in SIZES.values()]
        play(records[: ends[upto - 1]], plain)
        assert far.disks() == [bytes(disk) for disk in plain], upto
    far.book = books.tap_ended(far.book, CUT, far.stored)
    assert far.book.taps[0].applied == len(pieces)
    with pytest.raises(StaleCut):
        far.store(sealed(len(pieces), []))
    far.replica.close()


STEPS = st.lists(st.sampled_from(["many", "one", "aligned", "settle", "trim"]), min_size=1, max_size=5)  # fmt: skip


def live(steps: list[str], ends_by: str, seed: int, by: str) -> None:
    rng = random.Random(seed)
    with TemporaryDirectory() as name:
        folder = Path(name)
        source = Source(folder, (1 << 20) if ends_by == "full" else 64 << 20, by)
        try:
            for step in steps:
                if step == "settle":
                    source.settle()
                elif step == "trim":
                    trimmed(source.tap)
                else:
                    writers = 1 if step == "one" else 4
                    source.batch(drawn(rng, writers, 10, step == "aligned"))
            ready = source.tap.mark(MARK_READY) if source.tap.healthy else 0
            last = drawn(rng, 4, 30, rng.random() < 0.5)
            if ends_by == "kill":
                source.batch(last, kill_after=rng.randint(1, 60))
            else:
                source.batch(last)
            for _ in range(20 if ends_by == "full" else 0):
                if not source.tap.state.dead:
                    source.batch(drawn(rng, 4, 30, False))
            if ends_by == "full":
                assert source.tap.state.dead == FULL
                with Writer(source.tap.socket, "vdb") as late, pytest.raises(NbdFailed):
                    late.zero(0, SECTOR)
            elif ends_by == "mark":
                source.tap.mark(MARK_END)
                assert source.tap.state.dead == ENDED
            source.read([])
        finally:
            source.tap.stop()
        if ready:
            assert source.records[ready - 1].kind == tap.Kind.READY
            deliver(rng, folder / "far", source.records, ready)


BY = pytest.mark.parametrize("by", ["plugin.so", "plugin.py"])
ENDS = pytest.mark.parametrize("ends_by", ["kill", "full", "mark"])
FEW = settings(
    max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip


@pytest.mark.qemu
@BY
@ENDS
@given(STEPS, st.integers(0, 2**32))
@FEW
def test_what_writers_saw_is_what_the_replica_holds(ends_by, by, steps, seed) -> None:
    live(steps, ends_by, seed, by)


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.timeout(3600)
@BY
@ENDS
@given(STEPS, st.integers(0, 2**32))
@settings(FEW, max_examples=100)
def test_what_writers_saw_is_what_the_replica_holds_for_long(ends_by, by, steps, seed) -> None:
    live(steps, ends_by, seed, by)
