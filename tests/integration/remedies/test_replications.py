# SPDX-License-Identifier: Apache-2.0
"""What commands on a replication are refused with: the remedy is run as it is printed, and the command works then."""

import json
from pathlib import Path

import pytest

from paired import Pair, Site
from person import printed
from seedship import clock
from seedship.cli import waiting


def ended(site: Site, vm: str) -> None:
    clock.wait_until(lambda: site.show(vm)["clean"], 60, f"{vm} is cleaned up", 0.05)


@pytest.mark.remedy("service.replications.Replications.forget: seedship replication … …")
def test_one_that_has_not_ended_is_aborted_before_it_is_deleted(pair: Pair) -> None:
    vm = pair.checked()
    (abort,) = printed(pair.a.refused(f"seedship replication delete {vm}")["remedy"])
    pair.a.works(abort)
    ended(pair.a, vm)
    pair.a.works(f"seedship replication delete {vm}")
    assert vm not in pair.a.works("seedship replication list")


@pytest.mark.remedy(
    "service.replications.Replications._abort_here: seedship replication abort … --confirm-source-lost …",
    "workflows.protocol.ownership.replication_by_lineage: seedship replication abort …",
)
def test_one_whose_source_is_lost_is_given_up_at_its_destination(pair: Pair) -> None:
    """And the source, which is not lost after all, is told what ends it there."""
    vm = pair.adopted()
    (abort,) = printed(pair.b.refused(f"seedship replication abort {vm}")["remedy"])
    folder = pair.b.show(vm)["folder"]
    pair.b.works(abort)
    ended(pair.b, vm)
    assert pair.b.show(vm)["state"] == "aborted"
    assert not Path(folder).exists()

    def told() -> str:
        problem = pair.a.show(vm)["problem"]
        return problem["remedy"] if problem and "given up at the destination" in problem["message"] else ""

    clock.wait_until(lambda: bool(told()), 60, "the source hears of it", 0.05)
    (abort,) = printed(told())
    pair.a.works(abort)
    ended(pair.a, vm)
    pair.a.works(f"seedship replication create {vm} --to b")
    pair.a.until(vm, "checked")


@pytest.mark.remedy("workflows.protocol.ownership.replication_by_lineage: seedship replication abort VM")
def test_one_that_the_destination_has_forgotten_is_aborted_by_what_the_source_says(pair: Pair) -> None:
    vm = pair.adopted()
    pair.b.works(f"seedship replication abort {vm} --confirm-source-lost {vm}")
    ended(pair.b, vm)
    pair.b.works(f"seedship replication delete {vm}")
    clock.wait_until(lambda: pair.a.show(vm)["problem"] is not None, 60, "the source hears of it", 0.05)
    problem = pair.a.show(vm)["problem"]
    (abort,) = printed(problem["remedy"])
    pair.a.works(abort.replace("VM", vm))
    ended(pair.a, vm)
    pair.a.works(f"seedship replication create {vm} --to b")
    pair.a.until(vm, "checked")


@pytest.mark.remedy(
    "cli.waiting.waits_for: seedship replication adopt … --disk TARGET=PATH",
)
def test_one_without_a_seed_says_what_it_waits_for(pair: Pair) -> None:
    vm = pair.checked()
    why, hint = waiting.waits_for(pair.a.show(vm))
    assert "existing images at the destination" in why
    _, adopt = printed(hint)
    pair.b.works(adopt.replace("TARGET=PATH", f"vda={pair.image(vm)}"))
    pair.a.until(vm, "in-sync")
    assert waiting.waits_for(pair.a.show(vm)) == ("", "")


@pytest.mark.remedy("cli.waiting.waits_for: seedship replication resume …")
def test_one_that_is_held_is_resumed(pair: Pair) -> None:
    vm = pair.adopted()
    pair.a.works(f"seedship replication hold {vm}")
    (resume,) = printed(waiting.waits_for(pair.a.show(vm))[1])
    epoch = pair.a.show(vm)["epoch"]
    pair.a.works(resume)
    clock.wait_until(lambda: pair.a.show(vm)["epoch"] > epoch, 60, "the next round", 0.05)
    assert waiting.waits_for(pair.a.show(vm)) == ("", "")


@pytest.mark.remedy("workflows.groups.membership.create: seedship replication mirror … off")
def test_a_mirrored_vm_joins_a_group_when_its_mirror_has_ended(pair: Pair) -> None:
    one, other = pair.adopted(), pair.adopted()
    pair.a.works(f"seedship replication set {one} --mirror async")
    create = f"seedship group create {one}-and-{other} {one} {other}"
    (off,) = printed(pair.a.refused(create)["remedy"])
    pair.a.works(off)
    pair.a.works(create)
    pair.a.works(f"seedship group delete {one}-and-{other}")


@pytest.mark.remedy("workflows.target.points.OpenPoints._newest: seedship point retain … --retention 10")
def test_a_replica_without_recovery_points_gets_some(pair: Pair) -> None:
    vm = pair.adopted()
    (retain,) = printed(pair.b.refused(f"seedship point open {vm}")["remedy"])
    pair.b.works(retain)
    clock.wait_until(lambda: json.loads(pair.b.works(f"seedship point list {vm} -o json")) != [], 60, "a point", 0.1)
    pair.b.works(f"seedship point open {vm}")
    pair.b.works(f"seedship point close {vm}")


@pytest.mark.remedy("model.spec.reading.changes: seedship replication set REPLICATION")
def test_a_setting_of_the_other_side_is_set_there(pair: Pair) -> None:
    vm = pair.adopted()
    for site, other, words in ((pair.b, pair.a, "--interval 7s"), (pair.a, pair.b, "--retention 3")):
        refusal = site.refused(f"seedship replication set {vm} {words}")
        (command,) = printed(refusal["remedy"])
        other.works(f"{command.replace('REPLICATION', vm)} {words}")
    assert pair.a.show(vm)["spec"]["interval"] == 7
    assert pair.b.show(vm)["keep"]["count"] == 3
