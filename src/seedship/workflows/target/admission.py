# SPDX-License-Identifier: Apache-2.0
"""Accept a replication at its destination: check the request, unwrap its keys, create its row."""

from __future__ import annotations

import msgspec

from seedship import link, segment, store
from seedship.errors import FolderSilent
from seedship.model import PreflightFinding, bounds
from seedship.model.spec import Retention, field, value_of
from seedship.workflows import documents, messages
from seedship.workflows.context import Context
from seedship.workflows.protocol import insist_new, insist_no_folder, insist_shipment, key_info
from seedship.workflows.provisioning import (
    SILENT,
    ImagePlace,
    admission,
    built_definition,
    image_place,
    request_findings,
    requested_document,
    reservation_for,
    room_findings,
    rule_findings,
    silent,
    store_platform,
    survey,
)
from seedship.workflows.target import adoption


def accept_replication(context: Context, peer: link.Peer, request: messages.Request) -> messages.Accepted:
    """Answer a request for a replication; create its row unless something blocks. Repeating it is harmless.

    Raises:
        Conflict, PeerUntrusted: the request reuses the id of something else.
    """
    if not request.probe:
        insist_new(context, peer, request)
    # libvirt and the images may be slow: they are asked before the lock is taken that all requests need.
    try:
        place = image_place(context, peer, request)
        folder, names = place.folder, place.names
        if not request.probe:
            insist_no_folder(context, request, None if place.pool is None else folder.parent)
    except FolderSilent as error:
        return messages.Accepted((silent(error),))
    findings = [*place.findings, *request_findings(context, peer, request, folder, names)]
    adopted: adoption.Adopted | None = None
    if request.home and not any(finding.code.startswith("there.no-home") for finding in findings):
        adopted, more = adoption.left_here(context, peer.site, request)
        findings += more
    if any(finding.code == SILENT for finding in findings):
        return messages.Accepted(tuple(findings[: bounds.FINDINGS]))
    wanted = reservation_for(context, peer.site, request, folder, names)
    gathered = survey(context, peer.site, wanted)
    with admission(context):  # Checking that it is new and that there is room, and creating it, must be one step.
        findings += room_findings(context, peer, request, folder, wanted, gathered)
        return _accept(context, peer, request, place, list(dict.fromkeys(findings)), adopted)


def _accept(
    context: Context,
    peer: link.Peer,
    request: messages.Request,
    place: ImagePlace,
    results: list[PreflightFinding],
    adopted: adoption.Adopted | None,
) -> messages.Accepted:
    if not request.probe:
        insist_new(context, peer, request)
    pool = "" if place.pool is None else place.pool.name
    results += rule_findings(context, peer, request)
    blocked = any(finding.blocks for finding in results)
    results.sort(key=lambda finding: not finding.blocks)  # Only notes are cut off.
    if request.probe or blocked:
        built = "" if blocked else built_definition(context, request, place.folder, place.names)
        return messages.Accepted(tuple(results[: bounds.FINDINGS]), built, pool)
    if context.catalog.replications.some([request.replication]):
        _, existing = context.replications.of_peer(peer, request.replication)
        store_platform(context.paths, request)
        if adopted is not None and not existing.adopted and existing.book.seed == "absent":
            adoption.take_adopted(context, request.replication, adopted)
        return messages.Accepted(tuple(results[: bounds.FINDINGS]), pool=pool)
    keys = []
    for purpose, wrapped in (
        ("seed", request.seed_key),
        ("link", request.link_key),
        ("hash", request.hash_key),
    ):
        key = segment.unwrap_key(wrapped, context.identity.recipient_private, key_info(purpose, request.lineage))
        kept = store.shipment_purpose(request.shipment) if purpose == "seed" else purpose
        keys.append(store.StoredKey(key.key_id, request.replication, kept, key.secret))
    requested = requested_document(request, place.folder, place.names, place.pool)
    document = msgspec.structs.replace(requested, keep=_retention(request))
    if adopted is not None:
        document = adoption.with_adopted(document, adopted)
    if place.pool is not None:
        context.paths.remember_pool(place.folder.parent, place.pool.name)
    row = store.Replication(
        request.replication,
        "destination",
        peer.site,
        request.vm_uuid,
        request.vm_name,
        "seeding",
        request.lineage,
        1,
        -1,
        documents.encode(document),
    )
    shipped = insist_shipment(context.catalog, peer, request.shipment)
    context.catalog.replications.add(
        row,
        store.Along(
            events=[("requested", {"vm": request.vm_name, "from": peer.name})],
            keys=keys,
            shipment=None if shipped.version else shipped,
        ),
    )
    store_platform(context.paths, request)
    return messages.Accepted(tuple(results[: bounds.FINDINGS]), pool=pool)


def _retention(request: messages.Request) -> Retention:
    if request.keep_rule:
        retention: Retention = value_of(field("retention"), Retention(rule=request.keep_rule))
        return retention
    return Retention(request.keep_count, request.keep_seconds)
