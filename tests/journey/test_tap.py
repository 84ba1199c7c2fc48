# SPDX-License-Identifier: Apache-2.0
"""Mirrored writes on real guests: before and after the import, and whatever dies or hangs meanwhile."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import uuid
from contextlib import suppress

import msgspec
import pytest

import processes
from seedship import clock, config, hypervisor, tap
from seedship.errors import LabFailed
from seedship.lab import Guest, check_image, wan
from seedship.lab.place import CACHE
from seedship.lab.shell import run as shell
from seedship.tap.state import MARK_READY
from support import assert_whole, events, finish, hits, kill_qemu, plan, same, supervised


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_writes_are_mirrored_from_before_the_import_to_the_switchover(journey, mode):
    a, b = journey.lab.sites
    journey.depart(0, "--mirror", mode)
    journey.until_tapped()
    journey.here.more(20)
    journey.arrive()
    journey.until(a, "in-sync")
    journey.until(b, "in-sync")
    assert journey.show(a)["tap"]["phase"] == "open"
    if mode == "sync":
        journey.here.more(20)
    finish(journey)
    assert_whole(journey.outcome())
    closed = events(journey, a, "tap-closed")
    assert [c["why"] for c in closed] == [""]
    assert closed[0]["complete"]


def slowest(made, since: float) -> float:
    """The longest that the guest's writes took since then, in seconds: a tick is two synchronous writes."""
    times = [since, *(at for at, _ in made.here.ticks() if at > since)]
    return max(b - a for a, b in itertools.pairwise(times))


@pytest.mark.failure_mode(
    "the tap, seedship, the other site or the WAN dies or hangs while writes are mirrored",
    "the guest waits at most a moment; mirroring begins again by itself",
    "nothing",
)
def test_the_guest_never_waits_long_whatever_dies_or_hangs(journey):
    a, b = journey.lab.sites
    journey.travel()
    journey.lab.a.seedship("replication", "mirror", journey.id, "sync", "--sync-timeout", "1s")

    def stop_and_go(site, words):
        pids = site.pids(words)
        assert pids
        for pid in pids:
            processes.stop(pid)
        journey.here.more(40)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                assert words == "nbdkit"  # its supervisor was there first

    def cut(_site, _words):
        wan.cut(a)
        journey.here.more(60)
        wan.heal(a)

    def kill(site, words):
        site.kill(words)
        journey.here.more(40)
        site.start_daemon()

    def both(site, words):
        stop_and_go(site, "site serve")
        kill(site, words)

    def hang_unwatched(site, _words):
        (supervisor,) = site.pids("tap.supervisor")
        processes.stop(supervisor)
        stop_and_go(site, "nbdkit")
        os.kill(supervisor, signal.SIGCONT)

    def everything(_site, _words):
        for site in (a, b):
            site.kill_daemon()
        wan.cut(a)
        for pid in a.pids("nbdkit"):
            processes.stop(pid)
        journey.here.more(40)
        wan.heal(a)
        for site in (a, b):
            site.start_daemon()

    for fault, site, words in [
        (kill, a, "nbdkit"),
        (stop_and_go, a, "nbdkit"),
        (kill, a, "site serve"),
        (stop_and_go, a, "site serve"),
        (kill, b, "site serve"),
        (stop_and_go, b, "site serve"),
        (cut, None, ""),
        (both, a, "nbdkit"),
        (hang_unwatched, a, ""),
        (everything, None, ""),
    ]:
        journey.until_tapped()
        clock.wait_until(lambda: journey.show(a)["state"] == "in-sync", 60, "in sync")
        begun = clock.monotonic()
        fault(site, words)
        # 1 s for the other site or 2 s for a tap that hangs, and what a busy machine takes besides.
        assert slowest(journey, begun) < 5, (fault.__name__, words)
    journey.until_tapped()
    journey.here.more(20)
    journey.lab.a.seedship("replication", "mirror", journey.id, "off")
    assert same(journey)
    finish(journey)
    assert_whole(journey.outcome())


@pytest.mark.failure_mode(
    "the spool of mirrored writes is full",
    "changes are tracked by rounds until it heals",
    "nothing",
)
def test_a_full_spool_falls_back_to_tracking_and_heals(journey):
    a = journey.lab.a
    journey.travel()
    settings = config.load(a.data)
    config.save(a.data, _with_spool(settings, "4M"))
    a.kill_daemon()
    a.start_daemon()
    try:
        a.seedship("replication", "mirror", journey.id, "async")
        journey.until_tapped()
        wan.cut(a)
        clock.wait_until(lambda: not journey.show(a)["tap"], 90, "the tap's end")
        journey.here.more(20)
        assert "spool is full" in events(journey, a, "tap-closed")[-1]["why"]
        wan.heal(a)
        journey.until(a, "in-sync", patient=True)
        journey.until_tapped()
        journey.here.more(20)
        finish(journey)
        assert_whole(journey.outcome())
    finally:
        config.save(a.data, settings)


def _with_spool(settings, size):
    return msgspec.structs.replace(settings, mirror=config.MirrorSection(spool=size))


def test_going_back_to_rounds_sends_next_to_nothing_again(journey):
    a, _ = journey.lab.sites
    journey.travel()
    a.seedship("replication", "mirror", journey.id, "async")
    journey.until_tapped()
    journey.here.more(60)
    before = journey.show(a)
    a.seedship("replication", "mirror", journey.id, "off")
    clock.wait_until(lambda: not journey.show(a)["tap"], 60, "the tap's end")
    after = journey.until(a, rounds=before["rounds"] + 1)
    closed = events(journey, a, "tap-closed")[0]
    assert closed["complete"]
    assert closed["blocks_known"] > 0
    # The tap touched regions of 1 MiB on both disks; of their blocks only those go again that changed since.
    assert after["last"]["changed"] < closed["blocks_known"] * 65536 / 4
    assert same(journey)


def test_every_prefix_of_the_log_is_one_instant_of_all_disks(lab, tmp_path):
    a = lab.a
    guest = Guest(a, plan(delay_ms=5), CACHE)
    watch = guest.start()
    host = hypervisor.Host(a.uri)
    name = f"oracle-{uuid.uuid4().hex[:6]}"
    inside = a.state / name
    outside = a.outside(inside)
    outside.mkdir()
    bases = {target: guest.disk(target) for target, *_ in guest.plan.disks}
    overlays = {target: inside / f"{target}.overlay" for target in bases}
    found = None
    try:
        watch.more(20)
        hypervisor.push_overlay(host, guest.name, overlays)
        watch.more(20)
        sizes = {target: size for target, _, size, _ in guest.plan.disks}
        found = tap.start(
            tmp_path / "tap", outside / "tap", sizes, supervisor=tmp_path / "watch", limit=1 << 30, timeout=2.0
        )
        hypervisor.begin_mirrors(host, guest.name, dict.fromkeys(sizes, str(inside / "tap/nbd.sock")))
        clock.wait_until(lambda: set(hypervisor.running_mirrors(host, guest.name).values()) == {"ready"}, 30, "ready")
        found.mark(MARK_READY)
        watch.more(300)
        shell("virsh", "-q", "-c", a.uri, "destroy", guest.name)  # in the middle of its writes
        last = watch.last
        records, tail = [], tap.Tail(found.spool)
        while more := tail.read(1 << 24):
            records += more
    finally:
        if found is not None:
            found.stop()
        host.close()
        watch.close()
        sweep_guest(a, guest.name)
        shutil.rmtree(outside, ignore_errors=True)
    copies = []
    for target, kind, _, _ in guest.plan.disks:
        copies.append(tmp_path / f"{target}.raw")
        shell("qemu-img", "convert", "-f", kind, "-O", "raw", bases[target], copies[-1])
    first = next(i for i, r in enumerate(records) if r.kind == tap.Kind.READY)
    assert len(records) - first > 600
    ends = sorted(random.Random(7).sample(range(first, len(records)), 200))
    done, gaps = 0, set()
    for end in [*ends, len(records)]:
        for record in records[done:end]:
            if record.length:
                with open(copies[record.disk], "r+b") as file:
                    file.seek(record.offset)
                    file.write(record.data or bytes(record.length))
        done = end
        (one, _, bad_one), (two, _, bad_two) = (check_image(path, "raw", number) for number, path in enumerate(copies))
        assert (bad_one, bad_two) == (0, 0), end
        gaps.add(one - two)
    assert gaps <= {0, 1}
    assert one >= last  # what the guest said it had written is in the log


def sweep_guest(site, name: str) -> None:
    for words in (["destroy", name], ["undefine", name]):
        subprocess.run(["virsh", "-q", "-c", site.uri, *words], capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.failure_mode(
    "seedship or QEMU is killed at any step of a tap",
    "the tap is closed cleanly and opened again",
    "nothing",
)
def test_a_kill_at_every_step_of_a_tap_loses_nothing(journey, tmp_path):
    a, b = journey.lab.sites
    journey.travel()
    here = ["overlays", "opened", "ready", "sent", "forgotten", "stopped", "learnt"]
    there = ["replay.checked", "replay.written"]
    points = [f"tap.{name}=once-kill" for name in here]
    with (
        supervised(a, tmp_path / "a", *points),
        supervised(b, tmp_path / "b", *(f"{name}=once-kill" for name in there)),
    ):
        a.seedship("replication", "mirror", journey.id, "async")
        wanted = {f"tap.{name}" for name in here[:5]}
        clock.wait_until(lambda: wanted <= hits(tmp_path / "a"), 90, "the kills")
        clock.wait_until(lambda: set(there) <= hits(tmp_path / "b"), 60, "the kills there")
        journey.until_tapped()
        journey.here.more(20)
        for _ in range(3):
            with suppress(LabFailed):  # it was just killed
                a.seedship("replication", "mirror", journey.id, "off")
        clock.wait_until(lambda: "tap.learnt" in hits(tmp_path / "a"), 60, "the last kill")
    clock.wait_until(lambda: not journey.show(a)["tap"], 60, "the tap's end")
    assert same(journey)
    # QEMU dies while its writes are mirrored, and comes back.
    a.seedship("replication", "mirror", journey.id, "sync")
    journey.until_tapped()
    kill_qemu(a, journey.plan.name)
    shell("virsh", "-q", "-c", a.uri, "start", journey.plan.name)
    journey.here.more(20)
    journey.until_tapped()
    journey.here.more(10)
    finish(journey)
    assert_whole(journey.outcome())
