# SPDX-License-Identifier: Apache-2.0
"""The memory of a guest whose page cache is full of its disks: what the replica has is not sent over the WAN."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from seedship import clock
from seedship.lab import Journey, Lab
from seedship.units import MiB
from support import assert_whole, events, hits, insist, plan, supervised, sweep

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(900), pytest.mark.slow]
DISKS = (("vda", "qcow2", 256 * MiB, 96 * MiB), ("vdb", "raw", 128 * MiB, 12 * MiB))


@pytest.fixture
def warm(lab: Lab) -> Iterator[Journey]:
    """A guest that has read 96 MiB of its first disk through its page cache."""
    made = Journey(lab, plan(memory_mib=256, cached_mib=96, disks=DISKS))
    yield made
    sweep(made)


def test_a_quarter_of_the_memory_goes_over_the_wan(warm: Journey) -> None:
    a, b = warm.lab.sites
    warm.travel()
    warm.switch_over()
    for site in (a, b):
        warm.until(site, "done")
    (moved,) = events(warm, a, "migrated")
    assert moved["memory"] > 130 * MiB
    assert moved["on_disks"] > 60 * MiB
    assert warm.show(a)["bytes"]["memory"] <= moved["memory"] * 0.25
    warm.there.more(20)
    assert_whole(warm.outcome())


@pytest.mark.failure_mode(
    "seedship is killed while the memory is sent, at either site",
    "the VM continues at the source; the switchover can be asked for again",
    "nothing",
)
def test_kills_while_the_memory_is_sent(warm: Journey, tmp_path: Path) -> None:
    a, b = warm.lab.sites
    warm.travel()
    with supervised(b, tmp_path / "b", "takeover.page-read@20=once-kill"):
        warm.switch_over()
        warm.until(a, "catching-up", "in-sync", patient=True)
    assert hits(tmp_path / "b") == {"takeover.page-read"}
    assert warm.running() == ["a"]
    warm.here.more(5)
    warm.until(a, "in-sync", patient=True)
    held = tmp_path / "held" / "held-takeover.page-read"
    with supervised(b, held.parent, "takeover.page-read@20=once-hold"), supervised(a, tmp_path / "a"):
        warm.switch_over()
        clock.wait_until(held.exists, 120, "the memory to be under way")
        a.kill_daemon()
        warm.until(a, "catching-up", "in-sync", patient=True)
        held.unlink()
    assert warm.running() == ["a"]
    warm.here.more(5)
    insist(warm)
    warm.there.more(20)
    assert_whole(warm.outcome())
