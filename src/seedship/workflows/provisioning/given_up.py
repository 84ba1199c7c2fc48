# SPDX-License-Identifier: Apache-2.0
"""VMs that this site gave up and whose old disks are still here, so that the peer may bring them back."""

from __future__ import annotations

from seedship import hypervisor, store
from seedship.errors import Conflict
from seedship.hypervisor import Host
from seedship.model import PreflightFinding, lifecycle
from seedship.model.remote import is_remote
from seedship.workflows import documents, messages
from seedship.workflows.documents import SourceDocument


def is_given_up_here(catalog: store.Catalog, host: Host, vm: str, to: str) -> bool:
    """Whether a VM is here that was given up to peer ``to``, is off, and has no file of seedship on its disks.

    Raises:
        HypervisorUnreachable: libvirt does not answer.
    """
    return _given_up(catalog, host, vm, to) is not None


def given_up_images(catalog: store.Catalog, host: Host, vm: str, to: str) -> dict[str, str]:
    """Return the image paths of the disks that were given up to a peer with their VM, by disk target.

    A disk that was left out was never sent: its image is the only copy, whatever the VM has in its place at the peer.

    Raises:
        Conflict: There is no such VM.
    """
    document = _given_up(catalog, host, vm, to)
    if document is None:
        raise Conflict(f"The VM {vm}", "was not given up to this peer, or is not off")
    sent = {spec.target for spec in document.disks}
    facts = hypervisor.inspect(host, vm)
    return {disk.target: disk.path for disk in hypervisor.carried(facts) if disk.target in sent}


def home_findings(catalog: store.Catalog, host: Host, request: messages.Request, peer: str) -> list[PreflightFinding]:
    """Return what blocks the return of a VM onto the disks that it left here."""
    anew = "Replicate it anew: `seedship replication create VM --to SITE`"
    document = _given_up(catalog, host, request.vm_uuid, peer)
    if document is None:
        what = "The destination has no VM that it gave up, off and left as it was"
        return [PreflightFinding("there.no-home", True, what, anew)]
    sent = {spec.target for spec in document.disks}
    images = given_up_images(catalog, host, request.vm_uuid, peer)
    far = sorted(target for target, path in images.items() if is_remote(path))
    if far:
        what = f"{', '.join(far)} was opened over the network there, so it cannot become a replica"
        return [PreflightFinding("there.no-home-remote", True, what, anew)]
    gone = sorted(spec.target for spec in request.disks if spec.target in sent - images.keys())
    if gone:
        what = f"{', '.join(gone)} is no disk of the definition any more that the VM left there"
        return [PreflightFinding("there.no-home-disk", True, what, f"Attach it there again, with its image. {anew}")]
    more = sorted(spec.target for spec in request.disks if spec.target not in sent)
    if not more:
        return []
    what = f"{', '.join(more)} did not come from the destination with the VM, so nothing there can be its copy"
    return [PreflightFinding("there.no-home-disk", True, what, f"Detach it until the VM has returned. {anew}")]


def undefine_given_up(catalog: store.Catalog, host: Host, vm: str, to: str) -> None:
    """Undefine a given-up VM that returns from the peer that took it over. Its disks stay. Repeatable."""
    if is_given_up_here(catalog, host, vm, to):
        hypervisor.undefine(host, vm)


def _given_up(catalog: store.Catalog, host: Host, vm: str, to: str) -> SourceDocument | None:
    if hypervisor.state(host, vm) != "shut-off":
        return None
    ended = [row for row in catalog.replications.all() if row.vm_uuid == vm and row.state in lifecycle.ENDED]
    if not ended or ended[-1].role != "source":
        return None  # The VM has returned since, and belongs to this site.
    if ended[-1].peer != to:
        return None  # Another peer took the VM over; only that peer may bring it back.
    document = documents.source(ended[-1].document)
    return document if document.was_returned else None
