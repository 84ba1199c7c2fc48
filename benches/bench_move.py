# SPDX-License-Identifier: Apache-2.0
"""A switchover beside what libvirt itself does over the same link. Prints tables in Markdown.

    .venv/bin/python benches/bench_move.py pause [--runs 5]       pause and bytes, beside ``virsh migrate --live`` with shared disks
    .venv/bin/python benches/bench_move.py total [--size 8G]      seconds and bytes of all of it, beside ``--copy-storage-all``

Both go through a link of the same rate (tbf at its ends) and delay (a relay before the port). libvirt's goes to a second host that
has the same disks, or to copies that it makes. The pause is the longest time without a number on the guest's consoles.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from seedship.errors import LabFailed
from seedship.lab import GuestPlan, Journey, Lab, Watch, wan
from seedship.lab.shell import run as shell
from seedship.units import GiB, MiB, format_size, parse_size
from side_by_side import machine

LINKS = (("155mbit", 30), ("1gbit", 5))
GUESTS = (("idle", 4, 20, 0), ("busy", 16, 10, 0), ("warm", 4, 20, 96))
"""(kind, MiB of memory that it goes on changing, milliseconds between changes of 128 KiB, MiB of its first disk in its page
cache); what stock libvirt still gets moved.
"""
PORT, DISKS_PORT = 49160, 49161
NEAR, FAR = "10.79.0.1", "10.79.0.2"


@dataclass
class Found:
    """One move."""

    pause: float
    sent: int
    seconds: float
    memory: int = 0


class Stock:
    """A second host that libvirt moves to over a link like the WAN."""

    def __init__(self, lab: Lab, rate: str, round_trip_ms: int) -> None:
        self.a, self.far = lab.a, lab.host()
        self._lab = lab
        tag = f"mv{round_trip_ms}"
        shell("ip", "link", "add", f"{tag}a", "type", "veth", "peer", "name", f"{tag}b")
        for site, name, address in ((self.a, f"{tag}a", NEAR), (self.far, f"{tag}b", FAR)):
            shell("ip", "link", "set", name, "netns", site.pid, "name", "move")
            site.run("ip", "address", "add", f"{address}/24", "dev", "move")
            site.run("ip", "link", "set", "move", "up")
            shape = ["rate", rate, "burst", "256kb", "latency", "50ms"]
            site.run("tc", "qdisc", "replace", "dev", "move", "root", "tbf", *shape)
        self._relays = [
            subprocess.Popen(
                self.far.enter(
                    sys.executable,
                    "-m",
                    "seedship.lab.relay",
                    f"{FAR}:{port}",
                    f"127.0.0.1:{port}",
                    round_trip_ms / 2,
                )
            )
            for port in (PORT, DISKS_PORT)
        ]

    def close(self) -> None:
        for relay in self._relays:
            relay.kill()
            relay.wait()
        self.a.run("ip", "link", "delete", "move")

    def _sent(self) -> int:
        (link,) = json.loads(self.a.run("ip", "-json", "-s", "link", "show", "dev", "move"))
        return int(link["stats64"]["tx"]["bytes"])

    def move(self, name: str, watch: Watch, *options: str) -> Found:
        """There, as ``virsh migrate`` does it by default."""
        before, began = self._sent(), time.monotonic()
        words = ["migrate", "--live", name, self.far.uri, f"tcp://{FAR}:{PORT}"]
        words += ["--unsafe", "--listen-address", "127.0.0.1", *options]
        shell("virsh", "-c", self.a.uri, *words, limit=3600)
        seconds = time.monotonic() - began
        watch.more(10)
        return Found(gap(began, watch), self._sent() - before, seconds)

    def back(self, name: str, watch: Watch) -> None:
        """Home, over no link at all."""
        words = ["migrate", "--live", name, self.a.uri, "--unsafe"]
        shell("virsh", "-c", self.far.uri, *words, "--migrateuri", f"unix://{self._lab.root}/back")
        watch.more(5)


def gap(since: float, *watches: Watch) -> float:
    """The longest time without a number since then, which both consoles together show."""
    times = sorted(at for watch in watches for at, _ in watch.ticks())
    last = max((at for at in times if at <= since), default=since)
    times = [last, *(at for at in times if at > since)]
    return max((b - a for a, b in itertools.pairwise(times)), default=0.0)


def ours(journey: Journey) -> Found:
    """A live switchover, from in sync to done at both sites."""
    a, b = journey.lab.sites
    before, began = wan.sent(a), time.monotonic()
    journey.switch_over()
    try:
        journey.until(a, "done", limit=120)
        journey.until(b, "done", limit=120)
    except LabFailed:  # why is gone with the lab
        for site in (a, b):
            print(site.seedship("event", "list", journey.id), file=sys.stderr)
            print((site.root / "daemon.log").read_text()[-8000:], file=sys.stderr, flush=True)
        raise
    seconds = time.monotonic() - began
    journey.there.more(10)
    facts = journey.show(a)["bytes"]
    memory = int(facts.get("memory", 0))
    return Found(gap(began, journey.here, journey.there), wan.sent(a) - before, seconds, memory)


@contextmanager
def guest(lab: Lab, plan: GuestPlan) -> Iterator[Journey]:
    """One of the lab, gone afterwards wherever it is then."""
    journey = Journey(lab, plan)
    try:
        yield journey
    finally:
        for site in (*lab.sites, *lab.hosts):
            for words in (("destroy",), ("undefine", "--checkpoints-metadata")):
                with suppress(LabFailed):
                    shell("virsh", "-c", site.uri, words[0], plan.name, *words[1:])
        if journey.id:
            for site in lab.sites:
                with suppress(LabFailed):
                    site.seedship("replication", "abort", journey.id)
        for drive in journey.drives:
            for site in lab.sites:
                with suppress(LabFailed):
                    drive.unmount(site)


def pause(runs: int, links: str, guests: str) -> None:
    """Pause and bytes, for each link and an idle and a busy guest, as far as they are named (all: empty)."""
    print("| link | guest | | pause, median | pause, most | ratio | sent | of that memory |")
    print("|---|---|---|---|---|---|---|---|")
    for rate, delay in LINKS:
        if rate not in (links or rate):
            continue
        with tempfile.TemporaryDirectory(prefix="mv", dir="/var/lib") as folder:
            Path(folder).chmod(0o755)  # QEMU is nobody in particular at the destination
            lab = Lab(Path(folder) / "lab")
            try:
                lab.up(rate=rate, round_trip_ms=delay)
                lab.pair()
                stock = Stock(lab, rate, delay)
                for guest_plan in GUESTS:
                    if guest_plan[0] not in (guests or guest_plan[0]):
                        continue
                    _pauses(lab, stock, f"{rate}, {delay} ms", *guest_plan, runs)
                stock.close()
            finally:
                lab.down()


def _pauses(lab: Lab, stock: Stock, link: str, kind: str, dirty: int, rest: int, cached: int, runs: int) -> None:
    theirs: list[Found] = []
    mine: list[Found] = []
    for number in range(runs):
        filled = max(24, cached)
        disks = (("vda", "qcow2", (136 + filled) * MiB, filled * MiB), ("vdb", "raw", 128 * MiB, 12 * MiB))
        plan = GuestPlan(
            name=f"{kind}{number}",
            memory_mib=256,
            dirty_mib=dirty,
            delay_ms=rest,
            cached_mib=cached,
            uuid=str(uuid.uuid4()),
            disks=disks,
        )
        with guest(lab, plan) as journey:
            journey.start()
            peer = stock.move(plan.name, journey.here)
            stock.back(plan.name, journey.here)
            journey.request(0)
            journey.until(lab.a, "shipped")
            journey.leave()
            journey.arrive()
            for site in lab.sites:
                journey.until(site, "in-sync")
            try:
                mine.append(ours(journey))
            except LabFailed as error:
                print(f"{link} {kind} {number} was no switchover: {error}", flush=True)
                continue
            theirs.append(peer)
        print(f"{link} {kind} {number}: {theirs[-1]} {mine[-1]}", file=sys.stderr, flush=True)
    base = statistics.median(one.pause for one in theirs)
    for who, found in (("virsh migrate", theirs), ("seedship", mine)):
        middle = statistics.median(one.pause for one in found)
        sent = statistics.median(one.sent for one in found)
        memory = statistics.median(one.memory or one.sent for one in found)
        print(
            f"| {link} | {kind} | {who} | {middle * 1000:.0f} ms | {max(one.pause for one in found) * 1000:.0f} ms"
            f" | {middle / base:.2f} | {format_size(int(sent))} | {format_size(int(memory))} |",
            flush=True,
        )


def total(size: int) -> None:
    """From the request to done without the courier, beside a migration with all storage."""
    rate, delay = LINKS[0]
    with tempfile.TemporaryDirectory(prefix="mv", dir="/var/lib") as folder:
        Path(folder).chmod(0o755)
        lab = Lab(Path(folder) / "lab")
        try:
            lab.up(rate=rate, round_trip_ms=delay)
            lab.pair()
            stock = Stock(lab, rate, delay)
            plan = GuestPlan(
                name="whole",
                memory_mib=256,
                dirty_mib=4,
                delay_ms=50,
                uuid=str(uuid.uuid4()),
                disks=(("vda", "qcow2", size, size * 9 // 10), ("vdb", "raw", 128 * MiB, 12 * MiB)),
            )
            with guest(lab, plan) as journey:
                journey.start()
                before, began = wan.sent(lab.a), time.monotonic()
                journey.request(2 * size)
                journey.until(lab.a, "shipped", limit=3600)
                journey.leave()
                arrived = time.monotonic()
                journey.arrive()
                for site in lab.sites:
                    journey.until(site, "in-sync", limit=3600)
                ours(journey)
                ended = time.monotonic()
                sent = wan.sent(lab.a) - before
            with guest(lab, plan) as journey:
                shell("rm", "-rf", journey.guest.folder)
                journey.start()
                theirs = stock.move(plan.name, journey.here, *_copies(lab, stock, journey))
        finally:
            lab.down()
    print("| | seconds | from the arrival of the drives | sent |\n|---|---|---|---|")
    print(f"| virsh migrate --copy-storage-all | {theirs.seconds:.0f} | | {format_size(theirs.sent)} |")
    print(
        f"| seedship | {ended - began:.0f} ({theirs.seconds / (ended - began):.1f}x) | {ended - arrived:.0f}"
        f" ({theirs.seconds / (ended - arrived):.1f}x) | {format_size(sent)} ({sent / theirs.sent:.3f}) |"
    )


def _copies(lab: Lab, stock: Stock, journey: Journey) -> list[str]:
    """Empty images for libvirt to copy into, and the definition that names them."""
    folder = lab.root / "copies"
    folder.mkdir()
    xml = shell("virsh", "-c", lab.a.uri, "dumpxml", "--migratable", journey.plan.name)
    for target, kind, size, _ in journey.plan.disks:
        found = journey.guest.disk(target)
        shell("qemu-img", "create", "-q", "-f", kind, folder / found.name, size)
        xml = xml.replace(str(found), str(folder / found.name))
    (folder / "xml").write_text(xml)
    words = ["--copy-storage-all", "--xml", str(folder / "xml"), "--disks-port", str(DISKS_PORT)]
    return words


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("pause", "total"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--links", default="", help="155mbit, 1gbit")
    parser.add_argument("--guests", default="", help="idle, busy, warm")
    parser.add_argument("--size", type=parse_size, default=8 * GiB)
    chosen = parser.parse_args()
    if chosen.what == "pause":
        pause(chosen.runs, chosen.links, chosen.guests)
    else:
        total(chosen.size)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
