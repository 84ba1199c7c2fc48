# SPDX-License-Identifier: Apache-2.0
"""Switchovers that wait, or are in the way of something else: the remedy is run as it is printed."""

import threading

import pytest

from paired import Pair
from person import printed
from seedship import clock
from seedship.cli import waiting


@pytest.mark.remedy(
    "errors.order.NotAdmitted: seedship replication approve …",
    "service.replications.Replications.abort: seedship replication decline …",
    "workflows.control.exits: seedship replication decline …",
)
def test_an_admission_and_an_abort_that_comes_meanwhile(pair: Pair) -> None:
    vm = pair.adopted()
    switchover = f"seedship replication switchover {vm} --mode cold"
    refusal = pair.a.refused(switchover)
    assert "needs an approval at b" in refusal["message"]
    approve, *_ = printed(refusal["remedy"])
    pair.b.works(approve)
    pair.a.until(vm, "in-sync")
    pair.a.works(f"{switchover} --no-wait")
    gate = pair.a.gate()
    abort = f"seedship replication abort {vm}"
    (decline,) = printed(pair.a.refused(abort)["remedy"])

    def open_gate() -> None:
        clock.wait_until(lambda: pair.a.events(vm, "switchover-declined") != [], 60, "the decline", 0.05)
        gate.unlink()

    opener = threading.Thread(target=open_gate)
    opener.start()
    pair.a.works(decline)
    opener.join()
    pair.a.works(abort)
    clock.wait_until(lambda: pair.a.show(vm)["clean"], 60, "the end", 0.05)


@pytest.mark.remedy("cli.waiting.waits_for: seedship replication approve …")
def test_a_switchover_that_is_held_is_approved(pair: Pair) -> None:
    vm = pair.adopted()
    pair.a.works(f"seedship replication switchover {vm} --hold")
    clock.wait_until(lambda: waiting.waits_for(pair.a.show(vm))[0] != "", 60, "an approval is wanted", 0.05)
    (approve,) = printed(waiting.waits_for(pair.a.show(vm))[1])
    pair.a.works(approve)
    assert [event["kind"] for event in pair.a.events(vm, "switchover-approved")] != []
    assert "approval" not in waiting.waits_for(pair.a.show(vm))[0]


@pytest.mark.remedy(
    "workflows.groups.membership.refuse_alone: seedship group delete …",
    "workflows.switchover.orders.approve_order: seedship group approve …",
)
def test_a_member_of_a_group(pair: Pair) -> None:
    """Its order is approved with the group; alone it is switched over when the group is dissolved."""
    one, other = pair.adopted(), pair.adopted()
    group = f"{one}-and-{other}"
    pair.a.works(f"seedship group create {group} {one} {other} --interval 1s")
    alone = f"seedship replication switchover {one} --hold"
    _, delete = printed(pair.a.refused(alone)["remedy"])
    pair.a.works(f"seedship group switchover {group} --hold")
    clock.wait_until(lambda: pair.a.json(f"seedship group show {group}")["waits_for"] == "approval", 60, "it", 0.05)
    (approve,) = printed(pair.a.refused(f"seedship replication approve {one}")["remedy"])
    pair.a.works(approve)
    assert pair.a.json(f"seedship group show {group}")["waits_for"] != "approval"
    clock.wait_until(lambda: pair.a.run(delete)[0] == 0, 60, "the attempt is undone", 0.1)
    for vm in (one, other):
        pair.a.until(vm, "in-sync")
    pair.a.works(alone)
    pair.a.works(f"seedship replication decline {one}")
