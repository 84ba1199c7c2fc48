# SPDX-License-Identifier: Apache-2.0
"""A day of rounds every ten seconds by a simulated clock: what points hold, how long the chain is, what merging costs.

The layers, their bookkeeping and the rules are the real ones; an image is a table of blocks.
"""

import bisect
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from seedship import clock, durable
from seedship.model import retention
from seedship.model.spec import Retention
from seedship.nbd import image
from seedship.replica import Layers
from seedship.replica.layers import Stack
from seedship.workflows.target import points

ROUND_S = 10
BLOCKS, HOT, WRITES = 4000, 40, 20
"""Blocks of the disk, those that half of all writes go to, and writes of a round."""


class Images:
    """Images as tables, by path: the epoch that wrote a block last."""

    def __init__(self, base: Path) -> None:
        self.tables: dict[Path, dict[int, int]] = {base: {}}
        self.below: dict[Path, Path] = {}
        self.merged: list[int] = []
        """Blocks that each merge copied."""

    def create(self, path: Path, _kind: str, _size: int, *, backing: Path, backing_format: str) -> None:
        assert backing_format
        path.touch()
        self.tables[path], self.below[path] = {}, backing

    def commit(self, path: Path, *, stop: object) -> bool:
        assert stop is None
        self.tables[self.below[path]].update(self.tables[path])
        self.merged.append(len(self.tables[path]))
        return True

    def rebase(self, path: Path, backing: Path, _format: str) -> None:
        self.below[path] = backing

    def content(self, path: Path | None) -> dict[int, int]:
        """What is read through a chain."""
        chain = []
        while path is not None:
            chain.append(self.tables[path])
            path = self.below.get(path)
        return {block: epoch for table in reversed(chain) for block, epoch in table.items()}


class Host:
    """A host with a libvirt of this version."""

    def __init__(self, libvirt: int) -> None:
        self._libvirt = libvirt

    def version(self) -> tuple[int, int]:
        return self._libvirt, 10_000_000


class History:
    """A replica whose points are kept by a rule, and what its guest wrote."""

    def __init__(self, folder: Path, rule: str, libvirt: int) -> None:
        self.layers = Layers.adopt(folder / "layers.json", folder, Stack(("vda.qcow2",), ("qcow2",), (1 << 30,)))
        self.images = Images(self.layers.path(0))
        self.rule, self.host = Retention(rule=rule), Host(libvirt)
        self.rng = random.Random(rule)
        self.writes: dict[int, list[int]] = defaultdict(list)
        self.costs: list[int] = []
        """Blocks that were merged after each round."""
        self.longest = 0

    def round(self, epoch: int) -> None:
        self.layers.writable()
        table = self.images.tables[self.layers.path(0)]
        for _ in range(WRITES):
            block = self.rng.randrange(HOT if self.rng.random() < 0.5 else BLOCKS)
            table[block] = epoch
            self.writes[block].append(epoch)
        self.layers.pin(points._name(self.layers, epoch))
        before = len(self.images.merged)
        for name in points._expired(self.host, self.layers, self.rule):  # type: ignore[arg-type]
            self.layers.unpin(name, merge=False)
        self.layers.thin()
        self.costs.append(sum(self.images.merged[before:]))
        self.longest = max(self.longest, len(self.layers.stack.layers))

    def insist_content(self) -> list[int]:
        """Each point holds what the guest had written up to its epoch; returns the points' epochs."""
        found = []
        for name, layer in points._points(self.layers):
            epoch = points._epoch(name)
            expected = {}
            for block, times in self.writes.items():
                at = bisect.bisect_right(times, epoch)
                if at:
                    expected[block] = times[at - 1]
            assert self.images.content(self.layers.path(0, layer)) == expected, epoch
            found.append(epoch)
        return found


@pytest.mark.parametrize(
    ("rule", "libvirt", "hours"),
    [
        ("all 5m, hourly 24h, daily 30d", 9_000_000, 3),
        ("all 1m, hourly 12h", 11_000_000, 3),
        pytest.param("all 5m, hourly 24h, daily 30d", 9_000_000, 50, marks=pytest.mark.slow),
        pytest.param("all 1h, hourly 24h, daily 30d", 9_000_000, 50, marks=pytest.mark.slow),
        pytest.param("all 1m, hourly 12h, daily 7d", 11_000_000, 50, marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(1200)
def test_chains_are_short_and_merging_costs_a_small_multiple_of_what_was_written(
    rule: str, libvirt: int, hours: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = History(tmp_path, rule, libvirt)
    monkeypatch.setattr(image, "create", made.images.create)
    monkeypatch.setattr(image, "commit", made.images.commit)
    monkeypatch.setattr(image, "rebase", made.images.rebase)
    monkeypatch.setattr(durable, "replace", lambda path, content: path.write_bytes(content))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rounds = hours * 3600 // ROUND_S
    for epoch in range(1, rounds + 1):
        monkeypatch.setattr(clock, "now", lambda epoch=epoch: start + timedelta(seconds=epoch * ROUND_S))
        made.round(epoch)
        if epoch % (rounds // 4) == 0:
            assert made.insist_content()[-1] == epoch
    most = retention.REPLICA_POINTS if libvirt < retention.NESTED_SINCE else retention.NESTED_POINTS
    assert made.longest <= most + 1
    # Each clause moves what was written once more into an older point, and thinning a chain that is full once again.
    assert sum(made.costs) <= 4 * rounds * WRITES
    assert max(made.costs) <= BLOCKS
    print(  # noqa: T201
        f"{rule} ({most} points at most): {rounds} rounds; merged {sum(made.costs) / rounds / WRITES:.2f} times what was"
        f" written, in one round at most {max(made.costs)} blocks; {sorted(made.costs)[len(made.costs) * 99 // 100]} in 99 %"
    )
