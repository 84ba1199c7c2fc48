# SPDX-License-Identifier: Apache-2.0
"""The tap beside ``qemu-nbd``: writes a second and bytes a second of the same fio job, in turns.

    python benches/bench_tap.py --seconds 5 --runs 3

``qemu-nbd`` writes a raw file with ``cache=writeback``: like the tap's log, what is written is in the page cache of the
host. Behind the tap a process reads the log, acknowledges, and deletes what it has read, as the daemon does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seedship import clock, tap
from seedship.units import GiB, MiB
from side_by_side import machine

SIZE = 256 * MiB
LIMIT = 4 * GiB
JOBS = {
    "4 KiB, depth 1": ("4k", 1),
    "4 KiB, depth 32": ("4k", 32),
    "64 KiB, depth 16": ("64k", 16),
    "1 MiB, depth 8": ("1m", 8),
}
AIM = 0.8


def fio(uri: str, block: str, depth: int, seconds: int) -> float:
    """Writes a second."""
    words = [
        "fio", "--name=writes", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", f"--bs={block}",
        f"--iodepth={depth}", f"--size={SIZE}", "--time_based", f"--runtime={seconds}", "--randseed=7",
        "--norandommap", "--output-format=json",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout[done.stdout.index("{") :])
    return float(found["jobs"][0]["write"]["iops"])


@contextmanager
def peer(folder: Path) -> Iterator[str]:
    """``qemu-nbd`` with a raw file."""
    image, at = folder / "disk.raw", folder / "qemu.sock"
    with open(image, "wb") as file:
        file.truncate(SIZE)
    words = ["qemu-nbd", "-f", "raw", "--cache=writeback", "-t", "-k", str(at), "-x", "vda", str(image)]
    process = subprocess.Popen(words)
    try:
        clock.wait_until(at.exists, 10, "qemu-nbd")
        yield f"nbd+unix:///vda?socket={at}"
    finally:
        process.terminate()
        process.wait()


def consume(folder: str, sockets: str) -> None:
    """Read the log to its end, again and again, acknowledge and delete it, until the tap has ended."""
    found = tap.find(Path(folder), Path(sockets))
    assert found is not None
    tail, trimmed = tap.Tail(found.spool), 0
    while found.alive:
        found.wait(0.1, tail.seq)
        while tail.read(8 * MiB):
            trimmed += tap.trim(found.spool, tail.seq)
            found.acknowledge(tail.seq, trimmed)


@contextmanager
def tapped(folder: Path) -> Iterator[str]:
    """A tap, and what reads its log."""
    made = tap.start(
        folder / "tap", folder / "sockets", {"vda": SIZE}, supervisor=folder / "watch", limit=LIMIT, timeout=2.0
    )
    reader = multiprocessing.get_context("spawn").Process(target=consume, args=(str(made.folder), str(made.sockets)))
    reader.start()
    try:
        yield f"nbd+unix:///vda?socket={made.socket}"
        if not made.healthy:
            sys.exit(f"the tap ended: {made.reason}")
    finally:
        made.stop()
        reader.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    kinds = {"qemu-nbd": peer, "tap": tapped}
    print("| fio | `qemu-nbd` | tap | ratio | aim |\n|---|---|---|---|---|")
    for name, (block, depth) in JOBS.items():
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(chosen.runs):
            for kind, served in kinds.items():
                with (
                    tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary,
                    served(Path(temporary)) as uri,
                ):
                    rates[kind].append(fio(uri, block, depth, chosen.seconds))
                with suppress(OSError):
                    os.sync()
        middle = {kind: statistics.median(found) for kind, found in rates.items()}
        ratio = statistics.median(b / a for a, b in zip(rates["qemu-nbd"], rates["tap"], strict=True))
        print(
            f"| {name} | {middle['qemu-nbd']:.0f}/s | {middle['tap']:.0f}/s | {ratio:.2f} | at least {AIM} |",
            flush=True,
        )
    print(f"\nMedians of {chosen.runs} in turns; {machine()}.")


if __name__ == "__main__":
    main()
