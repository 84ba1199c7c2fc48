# SPDX-License-Identifier: Apache-2.0
"""How long a failover takes while 16 comparisons of whole disks run at both sites, beside the same on idle sites.

    .venv/bin/python benches/bench_failover.py [--runs 3] [--size 128M]

A real guest of the lab, in sync; its source is killed, and the destination is ordered to take it over. Timed are the order until the record
that makes the destination the owner, and until the guest's first number there (it boots, emulated). The comparisons are of VMs that are off,
with adopted images, ordered again as soon as they end. Idle and busy runs take turns.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from bench_move import guest
from seedship import clock
from seedship.client import SiteClient
from seedship.errors import SeedshipError
from seedship.hypervisor import Host
from seedship.lab import GuestPlan, Journey, Lab
from seedship.units import MiB, parse_size
from side_by_side import machine

BULK = 16
OFF = (
    "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>"
    "<devices><disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{path}'/><target dev='vda' bus='virtio'/></disk>"
    "</devices></domain>"
)


@dataclass
class Took:
    """Seconds from the order."""

    recorded: float
    runs: float


class Load:
    """The comparisons."""

    def __init__(self, lab: Lab, size: int) -> None:
        self._lab, self.ids = lab, list[str]()
        self.on = threading.Event()
        self._ended = threading.Event()
        for number in range(BULK):
            name = f"bulk{number}"
            image, copy = lab.a.storage / f"{name}.raw", lab.b.storage / f"{name}.raw"
            for path in (image, copy):
                path.write_bytes(random.Random(number).randbytes(size))
            with Host(lab.a.uri).calling() as connection:
                connection.defineXML(OFF.format(name=name, path=image))
            words = ["replication", "create", name, "--to", lab.b.name, "--interval", "1h", "-o", "json"]
            ident = json.loads(lab.a.seedship(*words))["id"]
            self.ids.append(ident)
            lab.b.seedship("replication", "adopt", ident, "--disk", f"vda={copy}")
        with SiteClient(lab.a.data) as client:
            clock.wait_until(lambda: all(self._state(client, one) == "in-sync" for one in self.ids), 600, "in sync", 1)
        self._thread = threading.Thread(target=self._order, daemon=True)
        self._thread.start()

    @staticmethod
    def _state(client: SiteClient, ident: str) -> str:
        return str(client.get("replications", ident)["state"])

    def _order(self) -> None:
        with SiteClient(self._lab.a.data) as client:
            while not self._ended.wait(0.2):
                for ident in self.ids if self.on.is_set() else ():
                    with suppress(SeedshipError):  # It is being compared.
                        client.post("replications", ident, "verify")

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@contextmanager
def busy(load: Load) -> Iterator[None]:
    """Comparisons run meanwhile."""
    load.on.set()
    time.sleep(5)
    try:
        yield
    finally:
        load.on.clear()


def failed_over(journey: Journey) -> Took:
    """Kill the source's guest, and take it over."""
    b, name = journey.lab.b, journey.plan.name
    with Host(journey.lab.a.uri).calling(journey.plan.uuid) as domain:
        domain.destroy()
    began = time.monotonic()
    with SiteClient(b.data) as client:
        client.post("replications", journey.id, "failover", confirm_source_down=name)
    clock.wait_until(lambda: bool(journey.events(b, "failed-over")), 120, "the record", 0.01)
    recorded = time.monotonic() - began
    journey.there.more(1, 300)
    return Took(recorded, journey.there.ticks()[0][0] - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--size", type=parse_size, default=128 * MiB)
    chosen = parser.parse_args()
    took: dict[str, list[Took]] = {"idle": [], f"{BULK} comparisons": []}
    with tempfile.TemporaryDirectory(prefix="fo", dir="/var/lib") as folder:
        Path(folder).chmod(0o755)
        lab = Lab(Path(folder) / "lab")
        try:
            lab.up()
            lab.pair()
            load = Load(lab, chosen.size)
            for run in range(chosen.runs):
                for kind, found in took.items():
                    disks = (("vda", "qcow2", 160 * MiB, 24 * MiB), ("vdb", "raw", 128 * MiB, 12 * MiB))
                    plan = GuestPlan(
                        name=f"{kind[:4].strip()}{run}", memory_mib=96, uuid=str(uuid.uuid4()), disks=disks
                    )
                    with guest(lab, plan) as journey:
                        journey.travel()
                        with busy(load) if kind != "idle" else nullcontext():
                            found.append(failed_over(journey))
                    print(kind, found[-1], flush=True)
            load.end()
        finally:
            lab.down()
    print("| sites | record, median (all), s | first number there, median (all), s |\n|---|---|---|")
    for kind, found in took.items():
        print(f"| {kind} | {shown([one.recorded for one in found])} | {shown([one.runs for one in found])} |")
    print(f"\n{machine()}")


def shown(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({', '.join(f'{one:.2f}' for one in seconds)})"


if __name__ == "__main__":
    main()
