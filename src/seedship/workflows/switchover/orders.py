# SPDX-License-Identifier: Apache-2.0
"""Switchover orders: start now, at a time, or when an operator approves; and dry runs.

While an order waits, rounds continue, so that little data remains when it starts. ``verdict`` is
pure.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from seedship import clock, hypervisor, link, store
from seedship.errors import (
    AlreadyUnderWay,
    Conflict,
    InvalidRequest,
    NothingOrdered,
    NotInState,
    NotInSync,
    SeedshipError,
    SwitchoverDeclined,
)
from seedship.hypervisor import Host
from seedship.model import lifecycle, new_id
from seedship.model.books import ownership as books
from seedship.model.books.ownership import Mode, SourceHandover
from seedship.units import MiB, format_size
from seedship.workflows import groups, messages
from seedship.workflows.context import Context, Interrupts, ReplicationStore
from seedship.workflows.documents import Order, SourceDocument, Switching
from seedship.workflows.provisioning import stability_findings
from seedship.workflows.source import rounds_outlook

Verdict = Literal["wait", "hold", "begin", "give-up"]
_READ_RATE = 500 * MiB
"""Bytes per second at which the disks of a stopped VM are assumed to be read."""
_SAVE_RATE = 200 * MiB
"""Bytes per second at which memory is assumed to be written to, or read from, a file."""


def verdict(order: Order, state: str, now: float) -> Verdict:
    """Return what to do with an order that has not started, at ``now`` (seconds since 1970)."""
    if state not in lifecycle.SYNCING:
        return "wait"
    if order.held_at and not order.approved and now - order.held_at > order.hold_limit:
        return "give-up"
    if now < order.at or (state == "catching-up" and not order.force):
        return "wait"
    if order.hold and not order.approved and not order.precopy:
        return "wait" if order.held_at else "hold"
    return "begin"


def place_order(replications: ReplicationStore, replication: str, order: Order) -> None:
    """Accept an order: start it now, or keep it until its time and approval. A waiting order is replaced.

    Raises:
        NotInSync: More than the threshold differs, and the order is not forced.
        NotInState: The seed is not imported.
    """
    row, document = replications.source(replication)
    groups.refuse_alone(document, row.vm_name, "switchover")
    check(order)
    waits = (order.hold and not order.precopy) or order.at > clock.now().timestamp()
    if row.state == "catching-up" and not (order.force or waits):
        remains = document.rounds.last.changed if document.rounds.last else 0
        raise NotInSync(
            f"The replication of {row.vm_name}",
            f"is not in sync yet ({format_size(remains)} differed in the last round)",
            f"Wait (seedship replication watch {row.id[:8]} --until in-sync), or use --force",
        )
    if not waits:
        begin(replications, replication, order)
        return
    if row.state not in lifecycle.SYNCING:
        raise NotInState(
            f"The replication of {row.vm_name}",
            f"is {row.state}",
            "Order it when the seed is imported",
        )
    facts = {"mode": order.mode, "at": order.at, "hold": order.hold}
    replications.change_source(
        row.id,
        lambda d: msgspec.structs.replace(
            d.with_order(order), verify=d.verify or (order.verify and not d.is_compared), problem=None
        ),
        along=store.Along(events=[("switchover-ordered", facts)]),
    )


def check(order: Order) -> None:
    """Raise InvalidRequest if an order contradicts itself."""
    if order.precopy and (order.mode != "live" or not order.hold):
        raise InvalidRequest("--precopy", "goes with --hold, and with --mode live")


def begin(replications: ReplicationStore, replication: str, order: Order) -> None:
    """Start the attempt that an order requests.

    Raises:
        Conflict: The seed is not imported, or an attempt is under way.
    """
    row, _ = replications.source(replication)
    _, change, along = begun(row, order)
    replications.change_source(row.id, change, event="switchover-started", along=along)


def begun(row: store.Replication, order: Order) -> tuple[str, Callable[[SourceDocument], SourceDocument], store.Along]:
    """Return a new attempt's id, the change that starts it (with event ``switchover-started``), and its events."""
    attempt = new_id()
    handover = SourceHandover(attempt, row.generation, mode=order.mode)  # type: ignore[arg-type]

    def change(d: SourceDocument) -> SourceDocument:
        fresh = Switching(handover, order, trusting=not order.verify)
        return msgspec.structs.replace(d.start_attempt(fresh), problem=None)

    facts = {"attempt": attempt, "mode": order.mode}
    return attempt, change, store.Along(events=[("switchover-asked", facts)])


def tend_order(replications: ReplicationStore, row: store.Replication, document: SourceDocument) -> bool:
    """Act on a waiting order if something is due. Returns True if something was done."""
    order = document.order
    if order is None or document.abort:
        return False
    now = clock.now().timestamp()
    match verdict(order, row.state, now):
        case "hold":
            _change(replications, row.id, order, msgspec.structs.replace(order, held_at=now), "held")
        case "give-up":
            _change(replications, row.id, order, None, "hold-limit")
        case "begin":
            begin(replications, row.id, order)
        case "wait":
            return False
    return True


def approve_order(replications: ReplicationStore, replication: str) -> None:
    """Approve an order: one that is held starts, one that is not yet due will start without being held.

    Raises:
        Conflict: No order waits for an approval.
    """
    row, document = replications.source(replication)
    order = document.order
    begun = document.handover is not None and not (order is not None and order.precopy)
    if order is None or not order.hold or order.approved or begun:
        grouped = document.group is not None and document.group.phase == "ordered"
        raise NothingOrdered(
            f"The replication of {row.vm_name}",
            "has no switchover that waits for approval",
            f"`seedship group approve {shlex.quote(document.group.name)}`"
            if document.group and grouped
            else f"Check its state: `seedship replication show {shlex.quote(row.vm_name)}`",
        )
    _change(replications, row.id, order, msgspec.structs.replace(order, approved=True), "approved")


def decline_order(replications: ReplicationStore, interrupts: Interrupts, replication: str) -> None:
    """Withdraw an order. An attempt that has started is undone if that is still possible.

    Raises:
        Conflict: There is no order, or the other site already owns the VM.
    """
    row, document = replications.source(replication)
    if document.handover is not None:
        if document.group is not None and document.group.phase == "committed":
            raise Conflict(
                f"The group {document.group.name}",
                "is being handed over; all of its VMs move to the other site",
                f"Wait for its end: `seedship group watch {shlex.quote(document.group.name)}`",
            )
        if not books.may_run_at_source(document.handover):
            raise Conflict(
                f"The VM {row.vm_name}",
                "has been handed over; it cannot be taken back",
                f"To move it back, at the other site: `seedship replication failback {shlex.quote(row.vm_name)}`",
            )
        if document.is_undone:
            raise AlreadyUnderWay(
                f"The switchover of {row.vm_name}",
                f"is being undone already{_in_the_way(document)}",
                f"The daemon tries again by itself; at once: `seedship replication retry {shlex.quote(row.vm_name)}`"
                if document.problem is not None
                else f"Wait for its end: `seedship replication watch {shlex.quote(row.vm_name)}`",
            )
        replications.change_source(
            row.id,
            _declined,
            along=store.Along(events=[("switchover-declined", {"begun": True})]),
        )
        interrupts.interrupt(row.id)
        return
    if document.order is None:
        raise NothingOrdered(
            f"The replication of {row.vm_name}",
            "has no switchover ordered",
            f"Check its state: seedship replication show {shlex.quote(row.vm_name)}",
        )
    _change(replications, row.id, document.order, None, "declined")


def _in_the_way(document: SourceDocument) -> str:
    return f"; what stands in its way: {document.problem.message}" if document.problem else ""


def _declined(document: SourceDocument) -> SourceDocument:
    if document.group is not None and document.group.phase == "committed":
        raise Conflict("The group", "was committed meanwhile")
    return document.with_attempt(declined=True)


def foresee_switchover(context: Context, replication: str, order: Order) -> dict[str, Any]:
    """Estimate a switchover: bytes to transfer, pause of the VM for each mode, and blockers."""
    row, document = context.replications.source(replication)
    expected = rounds_outlook(document)
    remaining = expected.remaining or (document.rounds.last.changed if document.rounds.last else 0)
    blockers = _blockers(context.session, context.host, row, document, order)
    resident = 0
    try:
        resident = hypervisor.resident(context.host, row.vm_uuid)
    except SeedshipError as error:
        blockers.append(str(error))
    rate = expected.link_rate or max(0, context.session.traffic(context.peers.get(row.peer)).rate)
    disks = sum(spec.size for spec in document.disks)
    forecast: dict[str, Any] = {
        "vm": row.vm_name,
        "mode": order.mode,
        "epoch_bytes": remaining,
        "memory_bytes": 0 if order.mode == "cold" else resident,
        "link_rate": int(rate),
        "blockers": blockers,
        "steps": list(_steps(order.mode, document)),
        "pause_seconds": {mode: _pause(mode, remaining, resident, disks, rate, order, document) for mode in _MODES},
    }
    return forecast


_MODES: tuple[Mode, ...] = ("live", "suspend", "cold")


def _pause(
    mode: Mode, remaining: int, memory: int, disks: int, rate: float, order: Order, document: SourceDocument
) -> float | None:
    """Return the VM's expected pause in seconds, without a guest's boot time. None if the link rate is unknown."""
    if mode == "live":
        return order.downtime_ms / 1000 or document.spec.downtime
    if not rate:
        return None
    moved = remaining + (memory if mode == "suspend" else 0)
    file = 2 * memory / _SAVE_RATE if mode == "suspend" else 0.0
    return round(disks / _READ_RATE + moved / rate + file, 1)


def _steps(mode: Mode, document: SourceDocument) -> list[str]:
    first = [] if document.is_compared else ["what was not compared ahead is compared at both sides"]
    first.append("rounds until little remains, while the VM runs")
    match mode:
        case "live":
            return [
                *first,
                "memory is copied while the VM runs",
                "it stops, what is left follows",
                "it resumes there",
            ]
        case "suspend":
            return [
                *first,
                "the VM is suspended, its memory saved here",
                "its disks' last epoch and its memory follow",
                "it resumes there, where it stopped",
            ]
        case "cold":
            return [
                *first,
                "the guest is shut down",
                "its disks' last epoch follows",
                "it boots there",
            ]


def _blockers(
    session: link.LinkSession, host: Host, row: store.Replication, document: SourceDocument, order: Order
) -> list[str]:
    blockers = []
    if row.state not in lifecycle.SYNCING:
        blockers.append(f"The replication is {row.state}")
    elif row.state == "catching-up" and not order.force:
        remains = format_size(document.rounds.last.changed) if document.rounds.last else "much"
        blockers.append(f"It is not in sync yet: {remains} differed in the last round")
    if document.losses:
        blockers.append("Blocks that were lost have not been sent again yet")
    if document.handover is not None and not document.is_undone:
        blockers.append("A switchover of it is under way")
        return blockers
    left_out = document.left_out if order.mode == "cold" else frozenset()
    definition = hypervisor.without_disks(hypervisor.fixed_cpu(host, row.vm_uuid), left_out)
    try:
        # Name no attempt: the destination then leaves whatever it has prepared unchanged.
        probe = messages.Prepare(
            row.id,
            "",
            row.generation,
            document.book.epoch,
            definition,
            order.mode,
            hypervisor.resident(host, row.vm_uuid) if order.mode == "suspend" else 0,
            probe=True,
            accepted=document.spec.accept_loss,
        )
        ready = session.call(row.peer, messages.PREPARE, probe, 60.0)
        if order.mode == "live":
            reasons = stability_findings(host, row.vm_name, definition, ready.definition)
            blockers += [f"{reason.what}. {reason.clear}" for reason in reasons]
        if order.mode != "cold" and hypervisor.state(host, row.vm_uuid) == "running":
            blocked = hypervisor.blocked_reasons(host, row.vm_uuid)
            blockers += [f"QEMU refuses to migrate its memory: {why}. Use --mode cold" for why in blocked]
    except SeedshipError as error:
        advice = error.advice()
        blockers.append(f"{error}. {advice}" if advice else str(error))
    return blockers


def precopied(context: Context, replication: str, remaining: int) -> None:
    """Record that a held live migration has copied its memory except ``remaining`` bytes. The hold limit starts now."""
    now = clock.now().timestamp()

    def change(d: SourceDocument) -> SourceDocument:
        return d if d.order is None else d.with_order(msgspec.structs.replace(d.order, held_at=now))

    facts = {"mode": "live", "remaining": remaining}
    context.replications.change_source(replication, change, along=store.Along(events=[("switchover-held", facts)]))


def is_approved(context: Context, replication: str) -> bool:
    """Whether a held live migration may complete.

    Raises:
        SwitchoverDeclined: Nobody approved it in time, or somebody declined it.
    """
    row, document = context.replications.source(replication)
    order = document.order or Order()
    if document.is_declined:
        raise SwitchoverDeclined(row.vm_name)
    waited = clock.now().timestamp() - order.held_at if order.held_at else 0.0
    if not order.approved and waited > order.hold_limit:
        facts = {"mode": order.mode, "begun": True}
        context.catalog.events.note(row.id, "switchover-hold-limit", facts)
        raise SwitchoverDeclined(row.vm_name)
    return order.approved


def _change(replications: ReplicationStore, replication: str, old: Order, new: Order | None, what: str) -> None:
    def change(d: SourceDocument) -> SourceDocument:
        if d.order != old or (d.handover is not None and not old.precopy):
            raise Conflict("The switchover", "was changed by somebody else", "Check it and repeat")
        return d.with_order(new)

    replications.change_source(
        replication, change, along=store.Along(events=[(f"switchover-{what}", {"mode": old.mode})])
    )
