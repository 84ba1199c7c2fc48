# SPDX-License-Identifier: Apache-2.0
"""The command that leaves a state in any case (docs/reference/exits.md), run in that state; and what ``site doctor`` says."""

import shlex
import subprocess
from collections.abc import Callable

import pytest

from paired import Pair
from person import printed
from seedship import clock
from seedship.workflows.control import exits


def requested(pair: Pair) -> str:
    return pair.checked()


def seeding(pair: Pair) -> str:
    vm, drive = pair.checked(), pair.drive(size="1m")
    pair.fill(vm)
    pair.a.works(f"seedship replication seed {vm} --drive {shlex.quote(str(drive))}")
    pair.a.problem(vm, "space.set-full")
    return vm


def shipped(pair: Pair) -> str:
    return pair.shipped()[0]


def importing(pair: Pair) -> str:
    vm, (drive, _) = pair.shipped(2)
    pair.b.works(f"seedship shipment import {shlex.quote(str(drive))}")
    pair.b.until(vm, "importing")
    return vm


def in_sync(pair: Pair) -> str:
    return pair.adopted()


STATES = {"checked": requested, "seeding": seeding, "shipped": shipped, "importing": importing, "in-sync": in_sync}


@pytest.mark.remedy(
    "workflows.control.exits: seedship replication abort …",
    "workflows.control.exits: seedship replication delete …",
)
@pytest.mark.parametrize("state", STATES)
def test_the_way_out_at_the_source(pair: Pair, state: str) -> None:
    vm = STATES[state](pair)
    for name in (pair.a.show(vm)["state"], "aborted"):
        pair.a.works(exits.SOURCE_EXITS[name].by_hand.format(vm=vm))
        clock.wait_until(lambda: not listed(pair.a, vm) or pair.a.show(vm)["clean"], 60, "the end", 0.05)
    assert not listed(pair.a, vm)
    clock.wait_until(lambda: pair.b.show(vm)["clean"], 60, "the end there", 0.05)
    pair.b.works(exits.DESTINATION_EXITS["aborted"].by_hand.format(vm=vm))
    assert not listed(pair.b, vm)


def listed(site, vm: str) -> bool:
    return any(row["vm"] == vm for row in site.json("seedship replication list"))


@pytest.mark.remedy("workflows.control.exits: seedship replication abort … --confirm-source-lost …")
@pytest.mark.parametrize("make", [shipped, importing, in_sync], ids=lambda make: make.__name__)
def test_the_way_out_at_the_destination(pair: Pair, make: Callable[[Pair], str]) -> None:
    vm = make(pair)
    way = exits.DESTINATION_EXITS[pair.b.show(vm)["state"]].by_hand.format(vm=vm)
    (abort,) = [command for command in printed(way) if "--confirm-source-lost" in command]
    pair.b.works(abort)
    clock.wait_until(lambda: pair.b.show(vm)["clean"], 60, "the end", 0.05)
    assert pair.b.show(vm)["state"] == "aborted"


def found(pair: Pair, check: str) -> list[dict]:
    """What ``site doctor`` finds at the source, apart from what is well."""
    _, out, _ = pair.a.run("seedship site doctor -o json")
    return [
        one for one in pair.a.parsed(out)["checks"] if one["check"] == check and one["state"] not in ("ok", "mended")
    ]


@pytest.mark.remedy("observe.remnants._left: seedship site doctor --repair")
def test_leftovers_are_removed_by_the_doctor(pair: Pair) -> None:
    vm = pair.checked()
    name = pair.a.show(vm)["id"][:8]
    pair.a.works(f"seedship replication abort {vm}")
    clock.wait_until(lambda: pair.a.show(vm)["clean"], 60, "the end", 0.05)
    folder = pair.folder / "a-work" / name
    folder.mkdir(exist_ok=True)
    (folder / "left.scratch").write_bytes(b"left")
    (finding,) = [one for one in found(pair, "work-files") if name in one["what"] and "folder" not in one["what"]]
    (repair,) = printed(finding["remedy"])
    pair.a.run(repair)
    assert not (folder / "left.scratch").exists()
    assert [one for one in found(pair, "work-files") if "left.scratch" in one["what"]] == []


@pytest.mark.remedy("observe.doctor.Doctor._drives: seedship replication seed VM --drive PATH")
def test_a_drive_that_is_away_is_replaced(pair: Pair) -> None:
    vm = seeding(pair)
    (drive,) = pair.a.show(vm)["drives"]
    subprocess.run(["umount", "--lazy", drive], check=True)
    (finding,) = [one for one in found(pair, "drive") if one["what"].endswith(f"needed by {vm}, is not available")]
    (seed,) = printed(finding["remedy"])
    pair.a.works(seed.replace("VM", vm).replace("PATH", shlex.quote(str(pair.drive()))))
    pair.a.until(vm, "shipped")
    assert [one for one in found(pair, "drive") if vm in one["what"]] == []
