# SPDX-License-Identifier: Apache-2.0
"""The tap against plain disks: what is written through it, and what its log says."""

import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import nbd as libnbd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import processes
from seedship import clock, tap
from seedship.errors import NbdFailed, TapFailed
from seedship.nbd import Writer
from seedship.tap.process import plugin
from seedship.tap.state import FAILED, FULL, MARK_END, MARK_READY
from seedship.tap.supervisor import COMMAND, PATIENCE_S, SOCKET, begun

KB = 1024
MB = 1024 * KB
SIZES = {"vda": 8 * MB, "vdb": 4 * MB}


@pytest.fixture(params=["plugin.so", "plugin.py"])
def start(request, tmp_path):
    made: list[tap.TapProcess] = []
    by = Path(tap.__file__).with_name(request.param)

    numbers = itertools.count()

    def begin(limit=64 * MB, timeout=2.0):
        number = next(numbers)
        sockets = tmp_path / f"sockets-{number}"
        folder = tmp_path / f"tap-{number}"
        watch = tmp_path / "watch"
        found = tap.start(folder, sockets, SIZES, supervisor=watch, limit=limit, timeout=timeout, served_by=by)
        made.append(found)
        return found

    yield begin
    for one in made:
        one.stop()


def logged(found: tap.TapProcess, after: int = 0) -> list[tap.SpoolRecord]:
    tail = tap.Tail(found.spool, after)
    records = []
    while more := tail.read(MB):
        records += more
    return records


def played(records, disks):
    for r in records:
        if r.kind in (tap.Kind.DATA, tap.Kind.ZERO):
            disks[r.disk][r.offset : r.offset + r.length] = r.data or bytes(r.length)
    return disks


def test_what_is_written_by_many_at_once_is_in_the_log(start):
    found = start()
    disks = [bytearray(size) for size in SIZES.values()]

    def write(number: int) -> None:
        # Each writer has a stretch of its own: what a disk holds afterwards is certain.
        rng = random.Random(number)
        name = list(SIZES)[number % 2]
        base = (number // 2) * MB
        with Writer(found.socket, name) as writer:
            for _ in range(60):
                offset = base + rng.randrange(0, MB - 64 * KB, 512)
                length = rng.choice([512, 4096, 4608, 64 * KB])
                if rng.random() < 0.2:
                    writer.zero(offset, length)
                    disks[number % 2][offset : offset + length] = bytes(length)
                else:
                    data = rng.randbytes(length)
                    writer.write(data, offset)
                    disks[number % 2][offset : offset + length] = data

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = logged(found)
    assert [r.seq for r in records] == list(range(1, len(records) + 1))
    assert played(records, [bytearray(size) for size in SIZES.values()]) == disks


def test_a_record_that_is_not_whole_is_not_there_yet(start):
    found = start()
    with Writer(found.socket, "vda") as writer:
        writer.write(b"a" * 4096, 0)
        writer.write(b"b" * 4096, 4096)
    file = next(found.spool.glob("*.log"))
    whole = file.read_bytes()
    for cut in (1, 40, 4095, 4100):
        file.write_bytes(whole[:-cut])
        assert [r.seq for r in logged(found)] == [1]
    file.write_bytes(whole[:-10] + bytes(10))
    assert [r.seq for r in logged(found)] == [1]
    file.write_bytes(whole)
    assert [r.seq for r in logged(found, after=1)] == [2]


def test_a_reader_that_begins_far_on_finds_the_next_record_at_once(tmp_path):
    spool = tap.Spool(tmp_path, 16 * MB)
    for _ in range(100):
        spool.append(tap.Kind.DATA, 0, 0, 64 * KB, bytes(64 * KB), 0)
    tail = tap.Tail(tmp_path, 90)
    found = []
    while more := tail.read(4096):
        found += more
    assert [r.seq for r in found] == list(range(91, 101))


def test_a_full_spool_ends_the_tap_for_all_disks_at_a_whole_record(start):
    found = start(limit=MB)
    with Writer(found.socket, "vda") as writer, pytest.raises(NbdFailed):
        for number in range(40):
            writer.write(bytes([number]) * 64 * KB, number * 64 * KB)
    assert found.state.dead == FULL
    assert not found.healthy
    assert "full" in found.reason
    with Writer(found.socket, "vdb") as writer, pytest.raises(NbdFailed):
        writer.write(b"x" * 512, 0)
    kept = logged(found)
    assert [r.data[0] for r in kept] == list(range(len(kept)))
    assert 10 < len(kept) < 17


def test_what_is_acknowledged_makes_room(start):
    found = start(limit=20 * MB)
    trimmed = 0
    with Writer(found.socket, "vda") as writer:
        for number in range(60):
            writer.write(bytes([number]) * MB, 0)
            trimmed += tap.trim(found.spool, found.state.appended)
            found.acknowledge(found.state.appended, trimmed)
    assert found.healthy
    assert len(list(found.spool.glob("*.log"))) <= 3


def test_the_daemon_is_woken_only_while_it_listens(start):
    found = start()
    found.wait(0, 0)  # binds its socket; from here on it listens
    with Writer(found.socket, "vda") as writer:
        writer.write(b"a" * 512, 0)
        clock.wait_until(lambda: not found.state.listening, 5, "the call")
        writer.write(b"b" * 512, 0)
        found.wait(10, 1)  # what came before anyone waited is seen at once
        assert found.state.listening == 1
        found.wait(0.1, 2)  # takes the call of the first write
        later = threading.Timer(0.3, writer.write, (b"c" * 512, 0))
        begun = clock.monotonic()
        later.start()
        found.wait(10, 2)
        later.join()
        assert 0.2 < clock.monotonic() - begun < 5
        assert [r.seq for r in logged(found)] == [1, 2, 3]


def test_a_write_that_is_longer_than_what_was_offered_is_refused(start):
    found = start()
    handle = libnbd.NBD()
    handle.set_strict_mode(0)
    handle.set_export_name("vda")
    handle.connect_unix(found.socket)
    with pytest.raises(libnbd.Error) as refused:
        handle.pwrite(bytes(2 * MB), 0)
    assert refused.value.errno == "EINVAL"
    handle.pwrite(b"x" * MB, MB)
    handle.shutdown()
    assert found.healthy
    assert [(r.offset, r.length) for r in logged(found)] == [(MB, MB)]


def test_a_log_that_cannot_be_written_ends_the_tap(start):
    found = start()
    for number in range(2):  # where the next two files would begin
        (found.spool / f"{1 + number:016d}.log").mkdir()
    with Writer(found.socket, "vda") as writer, pytest.raises(NbdFailed):
        writer.write(b"x" * 512, 0)
    assert found.state.dead == FAILED
    assert "cannot be written" in found.reason


def test_marks_are_in_the_order_of_the_writes(start):
    found = start()
    with Writer(found.socket, "vda") as writer:
        writer.write(b"a" * 512, 0)
        assert found.mark(MARK_READY) == 2
        writer.write(b"b" * 512, 0)
        assert found.mark(MARK_END) == 4
        with pytest.raises(NbdFailed):
            writer.write(b"c" * 512, 0)
    kinds = [r.kind for r in logged(found)]
    assert kinds == [tap.Kind.DATA, tap.Kind.READY, tap.Kind.DATA, tap.Kind.END]


def timed(writer, offset: int) -> float:
    begun = clock.monotonic()
    writer.write(b"x" * 4096, offset)
    return clock.monotonic() - begun


def test_a_synchronous_write_waits_for_the_other_site_and_not_for_ever(start):
    found = start(timeout=0.5)
    found.mirror(True)
    found.mark(MARK_READY)
    clock.wait_until(lambda: found.state.synchronous == 1, 5, "synchronous mode")
    done = []
    with Writer(found.socket, "vda") as writer:

        def write() -> None:
            done.append(timed(writer, 0))

        thread = threading.Thread(target=write)
        thread.start()
        clock.wait_until(lambda: found.state.appended == 2, 5, "the write")
        time.sleep(0.2)  # the other site takes its time
        assert not done
        found.acknowledge(2, 0)
        thread.join()
        assert 0.2 <= done[0] < 0.45
        # It says nothing any more: one write waits its time, the next do not.
        assert 0.45 <= timed(writer, 4096) < 1.5
        assert found.state.falls == 1
        assert found.state.synchronous == 0
        assert all(timed(writer, 8192 + n * 4096) < 0.3 for n in range(10))
        found.acknowledge(found.state.appended, 0)
        clock.wait_until(lambda: found.state.synchronous == 1, 5, "synchronous mode again")
        found.mirror(False)
        clock.wait_until(lambda: found.state.synchronous == 0, 5, "asynchronous mode")
        assert timed(writer, 0) < 0.3


def test_a_tap_that_hangs_is_killed_by_its_supervisor_alone(start):
    found = start()
    with Writer(found.socket, "vda", patience=PATIENCE_S * 4) as writer:
        writer.write(b"x" * 4096, 0)
        processes.stop(found.pid)
        begun = clock.monotonic()
        with pytest.raises(NbdFailed):
            writer.write(b"x" * 4096, 0)
        assert clock.monotonic() - begun < PATIENCE_S * 2
    clock.wait_until(lambda: not found.alive, 5, "its end")
    assert not found.healthy


def test_a_supervisor_leaves_a_tap_alone_that_is_well(start):
    found = start()
    clock.wait_until(lambda: found.state.beat > time.monotonic_ns() - 1e9 and clock.monotonic() > 0, 5, "a beat")
    begun = clock.monotonic()
    clock.wait_until(lambda: clock.monotonic() - begun > PATIENCE_S + 0.5, 10, "its patience")
    assert found.healthy


def test_the_installation_has_the_compiled_plugin():
    assert plugin().name == "plugin.so"


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_taps_share_a_supervisor_and_end_with_it(start):
    first, second = start(), start()
    supervisor = parent(first.pid)
    assert parent(second.pid) == supervisor
    first.stop()
    assert second.healthy
    os.kill(supervisor, signal.SIGKILL)  # of our own taps
    clock.wait_until(lambda: not second.alive, 5, "the end of a tap that nobody watches")
    third = start()
    assert third.healthy
    assert parent(third.pid) != supervisor


def test_many_taps_that_start_at_once_have_one_supervisor(start):
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: start(), range(6)))
    assert all(one.healthy for one in found)
    assert len({parent(one.pid) for one in found}) == 1


def test_one_who_gave_up_is_not_served(start, tmp_path):
    """The supervisor stood still for longer than the daemon waited; a tap that nobody knows would stay for ever."""
    watch = tmp_path / "watch"
    supervisor = parent(start().pid)
    processes.stop(supervisor)
    folder = tmp_path / "late"
    folder.mkdir()
    (folder / COMMAND).write_text(json.dumps(["touch", str(folder / "started")]))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as out:
        out.connect(str(watch / SOCKET))
        out.send(os.fsencode(folder))
    os.kill(supervisor, signal.SIGCONT)
    assert start().healthy
    assert not (folder / "started").exists()


def test_a_tap_that_could_not_be_found_again_does_not_stay(start, tmp_path):
    first = start()
    (tmp_path / "tap-1" / "tap.json.new").mkdir(parents=True)  # as a full disk
    with pytest.raises(TapFailed, match=r"tap\.json\.new"):
        start()
    clock.wait_until(lambda: children(parent(first.pid)) == [first.pid], 5, "its end")
    assert first.healthy


def test_a_client_cannot_use_up_what_the_host_has(start):
    """As a QEMU that was taken over might: connections end somewhere, and so do the files that are written."""
    found = start()
    limits = Path(f"/proc/{found.pid}/limits").read_text()
    assert re.search(r"Max file size +16777216", limits)
    greeted = 0
    with ExitStack() as stack:
        for _ in range(200):
            out = stack.enter_context(socket.socket(socket.AF_UNIX))
            out.settimeout(1)
            try:
                out.connect(found.socket)
                greeted += out.recv(8) == b"NBDMAGIC"
            except OSError:
                break
    assert 2 < greeted < 100


def test_a_supervisor_ends_after_the_last_tap(start):
    found = start()
    supervisor = parent(found.pid)
    since = begun(supervisor)
    found.stop()
    clock.wait_until(lambda: begun(supervisor) != since, 15, "its end")
    assert start().healthy


def test_a_tap_outlives_the_process_that_started_it(tmp_path):
    script = (
        "import sys; from pathlib import Path; from seedship import tap;"
        " t = tap.start(Path(sys.argv[1]), Path(sys.argv[2]), {'vda': 1 << 20}, supervisor=Path(sys.argv[3]), limit=1 << 20,"
        " timeout=1.0); import os; os._exit(0)"
    )
    folder, sockets = tmp_path / "tap", tmp_path / "s"
    subprocess.run([sys.executable, "-c", script, folder, sockets, tmp_path / "watch"], check=True, timeout=60)
    found = tap.find(folder, sockets)
    assert found is not None
    try:
        assert found.healthy
        with Writer(found.socket, "vda") as writer:
            writer.write(b"x" * 4096, 0)
        assert found.state.appended == 1
    finally:
        found.stop()
    assert not found.alive
    assert tap.find(Path(tmp_path / "none"), sockets) is None


def test_one_that_cannot_start_says_why(tmp_path):
    sockets = tmp_path / ("long" * 30)
    with pytest.raises(TapFailed, match="path"):
        tap.start(tmp_path / "tap", sockets, SIZES, supervisor=tmp_path / "watch", limit=MB, timeout=1.0)


RECORD = st.one_of(
    st.tuples(st.just(tap.Kind.DATA), st.integers(0, 1), st.integers(0, 15), st.integers(1, 4)),
    st.tuples(st.just(tap.Kind.ZERO), st.integers(0, 1), st.integers(0, 15), st.integers(1, 4)),
)


@given(st.lists(RECORD, max_size=30), st.sampled_from([512, 4096]), st.randoms())
@settings(max_examples=200, deadline=None)
def test_condensed_pieces_leave_what_the_records_leave(drawn, unit, rng):
    records = []
    for seq, (kind, disk, first, count) in enumerate(drawn, 1):
        data = rng.randbytes(count * unit) if kind == tap.Kind.DATA else b""
        records.append(tap.SpoolRecord(seq, kind, disk, first * unit, count * unit, data))
    pieces = tap.condense(records)
    disks = [bytearray(20 * unit) for _ in range(2)]
    for piece in pieces:
        end = piece.offset + piece.length
        disks[piece.disk][piece.offset : end] = piece.data or bytes(piece.length)
    assert disks == played(records, [bytearray(20 * unit) for _ in range(2)])
    if unit == 4096 and all(r.kind == tap.Kind.DATA for r in records):
        places = [(p.disk, p.offset) for p in pieces]
        assert len(places) == len(set(places))  # nothing is written twice
