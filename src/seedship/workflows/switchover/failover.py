# SPDX-License-Identifier: Apache-2.0
"""Failover: the destination takes a VM over while its source is dead or out of reach.

Failover is the only change of owner that one side makes alone. It requires that this site's fencing
command succeeds, or that the operator confirms that the source is down. The generation is raised
here, durably, before anything starts. The source learns of it when it is back (``fencing``) and
never runs the VM after that.

Before the source is fenced, a trial start shows that this site can start the VM (``trial``).
Complete epochs in the journal are applied before the record. A failover to a recovery point drops
newer layers only after the record, so that a refusal costs no data.
"""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Final

import msgspec

from seedship import failpoints, hypervisor, store
from seedship.config import Config
from seedship.errors import (
    AlreadyExists,
    Conflict,
    FencingFailed,
    NotFound,
    NotInState,
    ReplicaMissing,
)
from seedship.hypervisor import Host
from seedship.model import new_id
from seedship.model.books import destination as books
from seedship.model.books.ownership import DestinationHandover, Mode
from seedship.replica import Layers
from seedship.workflows import groups, hooks, messages
from seedship.workflows.context import Context, ReplicationChange
from seedship.workflows.documents import DestinationDocument, FailoverRecord
from seedship.workflows.provisioning import (
    choose_place,
    insist_images,
    is_given_up_here,
    undefine_given_up,
    write_platform,
)
from seedship.workflows.switchover import takeover, trial
from seedship.workflows.target import (
    CLONE_KIND,
    apply_epochs,
    definition_at,
    end_tap,
    find_memory_point,
    find_point,
    layers_of,
    memory_point_pin,
    newest_memory_point,
    replay_is_due,
    replay_tapped_writes,
)

log = logging.getLogger(__name__)

PIN: Final = "switchover"
_COMMAND_S: Final = 120.0


def fail_over(
    context: Context, replication: str, *, point: int | None, confirmed: str, with_memory: bool = False
) -> None:
    """Take the VM over. It boots from its disks, or resumes from the newest memory point (``with_memory``).

    Args:
        point: Epoch of the recovery point to fail over to. None means the newest applied state.
        confirmed: The VM's name if the operator confirms that the source is down, otherwise empty.

    Raises:
        HookVetoed: The operator's hook refuses the failover.
        FencingFailed: Neither the operator nor the fencing command confirms that the source is
            down.
        BlocksMissing: The replica does not equal one instant of the source.
        Conflict: The replication's state does not allow a failover.
        PointNotFound: There is no such recovery point.
        NotFound: There is no memory point.
        DefinitionRefused: The VM cannot be defined here. Nothing was fenced.
        TrialRefused: The VM cannot be started here. Nothing was fenced.
    """
    row, document = context.replications.destination(replication)
    if with_memory and point is not None:
        raise Conflict("--with-memory", "goes back to its own moment", "Leave --point out")
    if with_memory and newest_memory_point(document) is None:
        raise NotFound("memory point of", row.vm_name)
    groups.refuse_alone(document, row.vm_name, "failover")
    refuse(context.catalog, context.host, row, document)
    with context.listing.using(row.id, point):  # Holds the recovery point: epochs are still being applied.
        if point is not None:
            find_point(context, row.id, point)
        insist_word(context.config, row, confirmed)
        hooks.before(context, row, "failover")
        with context.locks.urgently(row.id):
            insist_startable(context, row.id, point, with_memory=with_memory)
        by = source_is_down(context, row, confirmed)
        with context.locks.urgently(row.id):
            prepare(context, row.id)
            change = recorded(context, row.id, point, by, with_memory=with_memory)
            failpoints.hit("failover.before-record")
            context.replications.change_together([change])
    failpoints.hit("failover.recorded")


def insist_startable(context: Context, replication: str, point: int | None, *, with_memory: bool = False) -> None:
    """Check that this site can start the VM, and change nothing. The caller holds the step lock.

    Raises:
        Conflict, NotFound, DefinitionRefused, TrialRefused: It cannot.
    """
    row, document = context.replications.destination(replication)
    refuse(context.catalog, context.host, row, document)
    taken = _taken(row, document, point, "", with_memory=with_memory)
    layers = layers_of(context.replications, context.paths, row.id)
    if layers is None:
        raise ReplicaMissing(
            f"The replica of {row.vm_name}",
            "is not there",
            f"Check its state: seedship replication show {shlex.quote(row.vm_name)}",
        )
    if taken.point is not None:
        layer = _layer(context, row.id, document, taken, layers)
    else:  # The failover drops the layers above the entry that a switchover pinned.
        frozen = (entry.number for entry in layers.stack.layers if PIN in entry.pins)
        layer = next(frozen, layers.stack.layers[-1].number)
    definition = definition_at(document.at(taken.epoch), taken.memory)
    trial.insist(context, row, document.at(taken.epoch), definition, layer)


def prepare(context: Context, replication: str) -> None:
    """Apply every complete epoch and tapped write, and nothing else. Repeatable; the caller holds the step lock.

    Raises:
        Conflict: The replication is over, or this site already owns the VM.
        PoolUnavailable: Its images cannot be reached.
    """
    row, document = context.replications.destination(replication)
    refuse(context.catalog, context.host, row, document)
    if document.arriving is not None:
        takeover.abandon_attempt(context, row.id, document.arriving.record.attempt)
    with context.locks.of(row.id, "journal"):
        _, document = context.replications.destination(row.id)
        tapped = books.growing(document.book)
        if tapped is not None:
            end_tap(context.replications, context.journal, row.id, tapped.cut_id)
    _catch_up(context, row.id)


def recorded(
    context: Context, replication: str, point: int | None, by: str, *, with_memory: bool = False
) -> ReplicationChange:
    """Build the change that makes this site the owner of a prepared replica. The caller holds the step lock.

    Raises:
        BlocksMissing, Conflict, NotFound, DefinitionRefused: The failover is not possible. Nothing
            was changed.
    """
    row, document = context.replications.destination(replication)
    books.check_openable(document.book, row.vm_name, document.missing)
    taken = _taken(row, document, point, by, with_memory=with_memory)
    mode: Mode = "suspend" if taken.memory else "live"
    if taken.point is not None:
        _check_point(context, row, document, taken)
    _definition(context, row, document, taken, {})  # Raises now if this site refuses the definition.
    generation = row.generation + 1
    handover = DestinationHandover(new_id(), row.generation, "recorded", mode=mode)  # type: ignore[arg-type]
    notice = msgspec.msgpack.encode(messages.FailedOver(row.id, generation))
    facts = {"generation": generation, "owner": context.identity.site, "epoch": taken.epoch, "by": by}
    return ReplicationChange(
        row.id,
        lambda d: msgspec.structs.replace(
            d.at(taken.epoch).take_over(handover, taken), book=books.freeze(d.book, True), coming_disks=(), earlier=()
        ),
        event="switchover-started",
        generation=generation,
        along=store.Along(
            events=[("owner-recorded", facts), ("failed-over", facts)],
            messages=[("failed-over", notice)],
        ),
    )


def make_failover_ready(context: Context, replication: str) -> None:
    """Prepare the disks and the definition that the VM boots with, after the record. Repeatable."""
    row, document = context.replications.destination(replication)
    taken = document.failover
    if taken is None or document.incoming:
        return
    layers = layers_of(context.replications, context.paths, replication)
    if layers is None:
        raise ReplicaMissing(
            f"The replica of {row.vm_name}",
            "is not there",
            f"Check its state: seedship replication show {shlex.quote(row.vm_name)}",
        )
    if taken.point is not None and all(PIN not in entry.pins for entry in layers.stack.layers):
        layers.pin_layer(_layer(context, replication, document, taken, layers), PIN)
    if taken.point is not None:
        layers.keep_up_to(PIN)
    layers.pin(PIN)
    layers.writable()
    paths = {spec.target: (str(layers.path(spec.index)), layers.format(spec.index)) for spec in document.disks}
    incoming = _definition(context, row, document, taken, paths)
    undefine_given_up(context.catalog, context.host, row.vm_uuid, row.peer)
    write_platform(context.paths, row, incoming, None)
    console = choose_place(context, document, {}, None).console
    if console is not None:
        Path(console).touch()
    failpoints.hit("failover.ready")
    context.replications.change_destination(replication, lambda d: d.with_definition(incoming))


def refuse(catalog: store.Catalog, host: Host, row: store.Replication, document: DestinationDocument) -> None:
    """Check that the VM may be taken over now.

    Raises:
        NotInState: The replication's state does not allow it.
        Conflict: This site already owns the VM.
        AlreadyExists: Another VM with this UUID exists here.
        PoolUnavailable: Its images are in a storage pool that cannot be reached.
    """
    if row.state not in ("catching-up", "in-sync", "switching-over"):
        raise NotInState(
            f"The replication of {row.vm_name}",
            f"is {row.state}: it cannot fail over",
            f"Check its state: seedship replication show {shlex.quote(row.vm_name)}",
        )
    if document.is_taking_over:
        raise Conflict(f"The VM {row.vm_name}", "is this site's already", "Watch the replication")
    insist_images(row.vm_name, document)
    here = hypervisor.state(host, row.vm_uuid)
    if document.arriving is not None or here is None or (here == "paused" and trial.is_here(host, row)):
        return
    if not is_given_up_here(catalog, host, row.vm_uuid, row.peer):  # A VM that was given up here makes way.
        raise AlreadyExists(f"The VM {row.vm_name}", "exists here", "Remove or rename it")


def insist_word(config: Config, row: store.Replication, confirmed: str) -> None:
    """Check that something can confirm that the source is down: the operator, or a fencing command.

    Raises:
        FencingFailed: Nothing can.
    """
    if confirmed and confirmed != row.vm_name:
        raise FencingFailed(row.vm_name, f"{confirmed!r} is not the VM's name")
    if not confirmed and not config.fencing.command:
        raise FencingFailed(row.vm_name, "no fencing command is configured, and nobody confirmed it")


def source_is_down(context: Context, row: store.Replication, confirmed: str) -> str:
    """Return what confirms that the source is down: ``operator`` or ``command``.

    Raises:
        FencingFailed: Nothing does.
    """
    insist_word(context.config, row, confirmed)
    if confirmed:
        return "operator"
    words = context.config.fencing.command
    known = {"vm": row.vm_name, "uuid": row.vm_uuid, "peer": row.peer, "replication": row.id}
    ended = hooks.run(words, known, _COMMAND_S, context.stop)
    if ended.code:
        raise FencingFailed(row.vm_name, f"the fencing command: {ended.why}")
    log.warning("%s: the fencing command says that its source is down", row.vm_name)
    return "command"


def _taken(
    row: store.Replication,
    document: DestinationDocument,
    point: int | None,
    by: str,
    *,
    with_memory: bool,
) -> FailoverRecord:
    """Return what would be taken over now. Raises NotFound if there is no memory point."""
    if not with_memory:
        return FailoverRecord(by, document.book.applied if point is None else point, point)
    newest = newest_memory_point(document)
    if newest is None:
        raise NotFound("memory point of", row.vm_name)
    return FailoverRecord(by, newest.epoch, newest.epoch, newest.id)


def _catch_up(context: Context, replication: str) -> None:
    """Apply every complete epoch and tapped write to the replica, in order."""
    while True:
        apply_epochs(context, replication)
        replay_tapped_writes(context, replication)
        _, document = context.replications.destination(replication)
        if books.next_to_apply(document.book) is None:
            break
    if replay_is_due(context.journal, document):
        raise Conflict("The replica", "is in the middle of tapped writes", "Repeat")


def _layer(
    context: Context, replication: str, document: DestinationDocument, taken: FailoverRecord, layers: Layers
) -> int:
    """Return the number of the layer that the VM is taken over from."""
    if taken.memory:
        return layers.check_pinned(memory_point_pin(find_memory_point(document, taken.memory)))
    assert taken.point is not None
    return find_point(context, replication, taken.point).layer


def _check_point(
    context: Context, row: store.Replication, document: DestinationDocument, taken: FailoverRecord
) -> None:
    """Raise Conflict if a clone is based on a layer that the failover would drop."""
    layers = layers_of(context.replications, context.paths, row.id)
    assert layers is not None
    layer, point = _layer(context, row.id, document, taken, layers), taken.point
    numbers = [entry.number for entry in layers.stack.layers]
    if layers.stood_on(CLONE_KIND) > numbers.index(layer) + 1:
        raise Conflict(
            f"The recovery point {point} of {row.vm_name}",
            "is older than the layer that a clone is based on",
            "seedship clone delete NAME, or choose a newer --point",
        )


def _definition(
    context: Context,
    row: store.Replication,
    document: DestinationDocument,
    taken: FailoverRecord,
    paths: dict[str, tuple[str, str]],
) -> str:
    """Return the last definition that the source sent, or the memory point's own, rebuilt for this site."""
    document = document.at(taken.epoch)
    received = definition_at(document, taken.memory)
    attempt = None if document.handover is None else document.handover.attempt
    paths = paths or {spec.target: ("/", "qcow2") for spec in document.disks}
    definition, _ = hypervisor.rebuild(
        received, choose_place(context, document, paths, attempt), expected_uuid=row.vm_uuid
    )
    return definition
