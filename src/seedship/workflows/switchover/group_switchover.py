# SPDX-License-Identifier: Apache-2.0
"""Switchover and failover of groups: all members change their owner, or none does.

Switchover: each member's attempt runs to the last step that can be undone, and waits there at its
*gate*. For a stopped VM that step is the paused copy at the destination; for a live one it is the
point before memory is copied. When all members wait, one transaction commits the group. From then
on each member continues alone, and a member that falls back starts again until it arrives. Before
the commit, a member that falls back takes all others with it.

Failover: every check that could refuse is made for all members first, including a trial start. Then
one transaction records all of them, each at the last common moment.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from seedship import clock, failpoints, store
from seedship.errors import (
    AlreadyUnderWay,
    Conflict,
    FencingFailed,
    MigrationFailed,
    SwitchoverDeclined,
)
from seedship.model import groups as books
from seedship.paths import Paths
from seedship.runtime import Stopped
from seedship.workflows import groups
from seedship.workflows.context import Context, Known, Locks, ReplicationChange, ReplicationStore
from seedship.workflows.documents import Membership, Order, SourceDocument
from seedship.workflows.switchover import failover, orders
from seedship.workflows.target import common_moments

log = logging.getLogger(__name__)

_AGAIN_S: Final = 5.0
_GATE_S: Final = 0.1


def foresee_group_switchover(context: Context, name: str, order: Order) -> dict[str, Any]:
    """Return the expected course of a switchover for each member, without changing anything."""
    group = groups.find(context, name)
    forecasts = [orders.foresee_switchover(context, member, order) for member in group.members]
    blockers = [f"{member['vm']}: {why}" for member in forecasts for why in member["blockers"]]
    return {"group": group.name, "members": forecasts, "blockers": blockers}


def whole(known: Known, group: Membership) -> list[tuple[store.Replication, SourceDocument]]:
    """Return all members at the source.

    Raises:
        Conflict: Some members are not at this site.
    """
    rows = groups.sources(known, group)
    if len(rows) < len(group.members):
        raise Conflict(f"The group {group.name}", "is not whole here", "seedship group show NAME")
    return rows


def switch_over(context: Context, name: str, order: Order) -> Membership:
    """Start the switchover of all members.

    Raises:
        Conflict: A member has a blocker, a switchover is under way, or members are missing. Nothing
            was started.
    """
    group = groups.find(context, name)
    if group.phase not in books.RESTING:
        raise AlreadyUnderWay(
            f"The group {group.name}",
            "switches over already",
            f"Watch it: seedship group show {shlex.quote(group.name)}",
        )
    rows = whole(context.known, group)
    blockers = foresee_group_switchover(context, group.id, order)["blockers"]
    if blockers:
        why = f"cannot switch over: {'; '.join(blockers)}"
        raise Conflict(
            f"The group {group.name}",
            why,
            f"seedship group switchover {shlex.quote(group.name)} --dry-run",
        )
    begun = []
    for row, _ in rows:
        attempt, change, along = orders.begun(row, order)

        def begin(d: SourceDocument, change: Callable[[SourceDocument], SourceDocument] = change) -> SourceDocument:
            if d.handover is not None or d.group is None or d.group.phase not in books.RESTING:
                raise Conflict(f"The group {group.name}", "changed meanwhile", "Check it and repeat")
            now = msgspec.structs.replace(d.group, phase="switching", order=order)
            return msgspec.structs.replace(change(d), group=now)

        begun.append(ReplicationChange(row.id, begin, event="switchover-started", along=along))
        log.info("%s: attempt %s, with its group %s", row.vm_name, attempt, group.name)
    context.replications.change_together(begun)
    return groups.find(context, group.id)


def gate(context: Context, replication: str) -> None:
    """Wait until all members of the group have reached their gate. A VM without a group passes at once.

    Raises:
        MigrationFailed: Another member fell back.
        SwitchoverDeclined: An operator declined the switchover.
        Stopped: The daemon is shutting down.
    """
    row, document = context.replications.source(replication)
    if document.group is None or document.switching is None:
        return
    if not document.switching.at_gate:
        context.replications.change_source(replication, lambda d: d.with_attempt(at_gate=True))
        failpoints.hit("group.gate")
    context.progress.begin(replication, "waiting for the group")
    while True:
        _, document = context.replications.source(replication)
        group = document.group
        if group is None or group.phase == "committed":
            failpoints.hit("group.passed")
            return
        if document.is_declined:
            raise SwitchoverDeclined(row.vm_name)
        if group.phase in books.RESTING:
            why = f"another VM of the group {group.name} fell back"
            raise MigrationFailed(row.vm_name, why)
        limit = (document.order or Order()).max_pause
        if document.halt is not None and clock.now().timestamp() - document.halt.at > limit:
            raise MigrationFailed(row.vm_name, f"its pause got longer than {limit:g} s")
        if context.stop.wait(_GATE_S):
            raise Stopped


# Failover ---------------------------------------------------------------------------------------


def fail_over_group(context: Context, name: str, *, moment: int | None, confirmed: str) -> Membership:
    """Take all members over at the destination, at the newest common moment or at ``moment``.

    Raises:
        FencingFailed: Nothing confirms that the sources are down.
        NotFound: There is no such group.
        Conflict, BlocksMissing, DefinitionRefused, TrialRefused: One member cannot be taken over,
            so none is.
    """
    group = groups.find(context, name)
    rows = [row for row, _ in groups.members_of(context.known, group)]
    if len(rows) < len(group.members) or any(row.role != "destination" for row in rows):
        raise Conflict(f"The group {group.name}", "is not whole here")
    for row in rows:
        failover.refuse(context.catalog, context.host, *context.replications.destination(row.id))
    if confirmed and confirmed != group.name:
        raise FencingFailed(group.name, f"{confirmed!r} is not the group's name")
    words = {row.id: row.vm_name if confirmed else "" for row in rows}
    for row in rows:
        failover.insist_word(context.config, row, words[row.id])
    with _locked(context.locks, group), ThreadPoolExecutor(len(rows)) as pool:
        tries = [pool.submit(failover.insist_startable, context, row.id, None) for row in rows]
        for begun in tries:
            begun.result()
    by = [failover.source_is_down(context, row, words[row.id]) for row in rows]
    with _locked(context.locks, group):
        for row in rows:
            failover.prepare(context, row.id)
        number, epochs = _choose(context.replications, context.paths, group, moment)
        changes = [
            failover.recorded(context, row.id, _point(context.replications, row.id, epochs[row.id]), said)
            for row, said in zip(rows, by, strict=True)
        ]
        failpoints.hit("failover.before-record")
        context.replications.change_together(changes)
    failpoints.hit("failover.recorded")
    for row in rows:
        context.catalog.events.note(row.id, "group-failed-over", {"group": group.name, "moment": number})
    return group


@contextmanager
def _locked(locks: Locks, group: Membership) -> Iterator[None]:
    """Hold the step locks of all members."""
    with locks.urgently(*group.members):
        yield


def _choose(
    replications: ReplicationStore, paths: Paths, group: Membership, moment: int | None
) -> tuple[int, dict[str, int]]:
    moments = common_moments(replications, paths, group.members, group.id)
    if not moments:
        raise Conflict(
            f"The group {group.name}",
            "has no moment that all of its VMs have",
            f"seedship group delete {shlex.quote(group.name)}, then for each VM: `seedship replication failover VM`",
        )
    number = max(moments) if moment is None else moment
    if number not in moments:
        known = ", ".join(map(str, moments))
        raise Conflict(f"The group {group.name}", f"has no moment {number}", f"It has {known}")
    return number, moments[number]


def _point(replications: ReplicationStore, replication: str, epoch: int) -> int | None:
    """Return the recovery point to use. None means that the replica already equals this epoch."""
    _, document = replications.destination(replication)
    return None if document.book.applied == epoch else epoch
