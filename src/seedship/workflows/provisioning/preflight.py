# SPDX-License-Identifier: Apache-2.0
"""Preflight: everything that would block a replication at either site, found before anything is created."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from seedship import config, drives, hypervisor, link, nbd, store
from seedship.config import Config
from seedship.errors import (
    DefinitionRefused,
    FolderSilent,
    HypervisorError,
    NbdFailed,
    NoSpace,
    PreflightFailed,
    SeveralLogins,
    VmNotFound,
    virsh_name,
)
from seedship.hypervisor import DiskAt, Host, Place
from seedship.model import PreflightFinding, lifecycle
from seedship.model.networks import NetworkPlug
from seedship.model.remote import is_remote
from seedship.model.text import printable
from seedship.runtime import answered
from seedship.units import MiB, format_size
from seedship.workflows import messages
from seedship.workflows.context import Context
from seedship.workflows.documents import DestinationDocument
from seedship.workflows.host import chain_of, content, files_of
from seedship.workflows.provisioning import capacity, given_up, platform, requested
from seedship.workflows.provisioning.reserving import Reservation

_SCRATCH = 256 * MiB


def insist_none_blocks(vm: str, findings: Sequence[PreflightFinding]) -> None:
    """Check that no finding blocks.

    Raises:
        PreflightFailed: At least one does.
    """
    blockers = [finding for finding in findings if finding.blocks]
    if blockers:
        raise preflight_failed(vm, blockers)


def preflight_failed(vm: str, blockers: Sequence[PreflightFinding], *, listed: bool = True) -> PreflightFailed:
    """Return the error that names all blockers. Not ``listed`` for a peer, which may run the previous version."""
    listing = [{"code": b.code, "what": b.what, "clear": b.clear} for b in blockers]
    return PreflightFailed(
        vm,
        "; ".join(finding.what for finding in blockers),
        "; ".join(dict.fromkeys(finding.clear for finding in blockers if finding.clear)),
        listing if listed else (),
    )


def refused(vm: str, refusal: hypervisor.Refusal) -> PreflightFinding:
    """Return the finding for one reason why a definition is refused."""
    what = str(DefinitionRefused(vm, refusal.why))
    return PreflightFinding("there.definition", True, what, printable(refusal.clear))


def definition_findings(host: Host, uuid: str, definition: str, place: Place) -> list[PreflightFinding]:
    """Return the findings about a peer's definition: elements not allowed here, and what libvirt would refuse.

    Raises:
        HypervisorUnreachable: libvirt does not answer.
    """
    try:
        examined = hypervisor.examine(definition, place, expected_uuid=uuid)
    except DefinitionRefused as error:
        return [PreflightFinding("there.definition", True, str(error), error.advice())]
    findings = [refused(examined.name, refusal) for refusal in examined.refusals]
    findings += [
        PreflightFinding(
            "there.left-out", False, printable(f"Not carried over to the destination: {loss.what}"), loss.clear
        )
        for loss in examined.losses
    ]
    return findings + hypervisor.offered(host, examined.draft, settings=place.settings, whole=not examined.refusals)


def name_findings(host: Host, name: str, uuid: str, *, returns: bool = False) -> list[PreflightFinding]:
    """Return the findings about VMs of this host that have the name or UUID of one to come.

    Args:
        returns: The VM itself is here because it returns, so its own UUID does not count.

    Raises:
        HypervisorUnreachable: libvirt does not answer.
    """
    findings: dict[str, PreflightFinding] = {}
    for kind, text in (("UUID", uuid), ("name", name)):
        with suppress(VmNotFound):
            there = hypervisor.inspect(host, text)
            quoted = there.uuid if kind == "UUID" else virsh_name(text, there.uuid)
            quoted_options = _kept(there)
            clear = (
                f"Rename it there when it is off: {_unsaved(there)}`virsh domrename {quoted} NEW-NAME`"
                if kind == "name"
                else f"Remove it there when it is off, if nobody needs it: `virsh undefine {quoted} {quoted_options}`"
            )
            what = f"The destination has a VM of the {kind} {text} already"
            findings.setdefault(there.uuid, PreflightFinding("there.exists", True, what, clear))
    if returns:
        findings.pop(uuid, None)
    return list(findings.values())


def _unsaved(there: hypervisor.Vm) -> str:
    """What comes first where libvirt does not rename a VM because it has a saved state."""
    if not there.managed_save:
        return ""
    quoted = virsh_name(there.name, there.uuid)
    return f"start it and shut it down, or discard what it had in memory (`virsh managedsave-remove {quoted}`), then "


def _kept(there: hypervisor.Vm) -> str:
    """Options without which libvirt does not undefine a VM. Its disks stay."""
    options = ["--nvram", "--checkpoints-metadata"]
    options += ["--snapshots-metadata"] * bool(there.snapshots) + ["--managed-save"] * there.managed_save
    return " ".join(options)


def known_findings(rows: Sequence[store.Replication], request: messages.Request) -> list[PreflightFinding]:
    """Return the findings about replications that this site has already: of the same VM, or of a VM of its name."""
    findings = []
    for row in rows:
        if row.state in lifecycle.ENDED or row.id == request.replication:
            continue
        if row.vm_uuid == request.vm_uuid:
            findings.append(
                PreflightFinding(
                    "there.replicated",
                    True,
                    f"The destination has the replication {row.id[:8]} of it",
                    f"End it at its source: `seedship replication abort {row.id[:8]}`",
                )
            )
        elif row.vm_name == request.vm_name and row.role == "destination":
            findings.append(
                PreflightFinding(
                    "there.namesake",
                    False,
                    f"The destination has the replication {row.id[:8]} of another VM {row.vm_name}: only one of them"
                    " can be started there",
                    hypervisor.rename(request.vm_name),
                )
            )
    return findings


def request_findings(
    context: Context, peer: link.Peer, request: messages.Request, folder: Path, names: tuple[str, ...]
) -> list[PreflightFinding]:
    """Return the destination's findings about a request. ``names`` are the replica's files in ``folder``."""
    findings = [
        PreflightFinding(
            "there.format",
            True,
            f"The disk {disk.target} is a {disk.format} image, which is not replicated",
        )
        for disk in request.disks
        if disk.format not in ("qcow2", "raw")
    ]
    if len({disk.target for disk in request.disks}) != len(request.disks) or [
        disk.index for disk in request.disks
    ] != list(range(len(request.disks))):
        findings.append(PreflightFinding("there.disks", True, "Its disks are not numbered and named one by one"))
    here = _place_of(context, request, folder, names)
    try:
        findings += definition_findings(context.host, request.vm_uuid, request.definition, here)
        findings += name_findings(context.host, request.vm_name, request.vm_uuid, returns=request.home)
    except HypervisorError as error:
        findings.append(PreflightFinding("there.hypervisor", True, str(error), error.advice()))
    try:
        findings += platform.judge(request, here)
    except DefinitionRefused:
        pass  # The definition is not XML: ``definition_findings`` reports it.
    if request.home:
        findings += given_up.home_findings(context.catalog, context.host, request, peer.site)
    return list(dict.fromkeys(findings))


def room_findings(
    context: Context,
    peer: link.Peer,
    request: messages.Request,
    folder: Path,
    wanted: Reservation,
    gathered: capacity.HostSurvey,
) -> list[PreflightFinding]:
    """Return what a request lacks beside other replications. The caller holds ``admission``.

    Args:
        wanted: What would be reserved for it.
        gathered: What was gathered before the lock was taken.
    """
    rows = [row for row, _ in context.known.all()]
    findings = known_findings(rows, request)
    known = any(row.id == request.replication for row in rows)  # It has its share.
    with suppress(FolderSilent):  # Another finding reports it.
        known = known or not answered(folder.parent, folder.parent.is_dir)
    if not known:
        findings += capacity.capacity_findings(context, peer.site, wanted, gathered)
    return findings


def built_definition(context: Context, request: messages.Request, folder: Path, names: tuple[str, ...]) -> str:
    """Return the definition that a requested VM would have here; empty if it is refused."""
    try:
        here = _place_of(context, request, folder, names)
        return hypervisor.examine(request.definition, here, expected_uuid=request.vm_uuid).definition
    except DefinitionRefused:
        return ""


def _place_of(context: Context, request: messages.Request, folder: Path, names: tuple[str, ...]) -> Place:
    paths = {d.target: (str(folder / n), str(d.format)) for d, n in zip(request.disks, names, strict=True)}
    return choose_place(context, requested.document_of(request, folder, names), paths, None)


def image_findings(facts: hypervisor.Vm) -> list[PreflightFinding]:
    """Return the findings of the images themselves: what lies below them, and change tracking."""
    findings = []
    for disk in hypervisor.carried(facts):
        findings += [finding for layer in disk.chain if is_remote(layer.path) for finding in _remote(disk, layer)]
        if facts.state == "shut-off":  # A running VM has all of its images open.
            findings += _chain(disk)
        with suppress(OSError):  # Another finding reports it.
            if disk.format == "qcow2" and not disk.read_only and nbd.image.is_version_2(Path(disk.path)):
                what = f"{disk.target} is a qcow2 image of version 2 (compat=0.10), which keeps no bitmaps"
                findings.append(
                    PreflightFinding(
                        "disk.compat",
                        False,
                        f"{what}: it gets a qcow2 overlay while it is replicated",
                        "To go without the overlay, amend the image while the VM is off:"
                        f" `qemu-img amend -f qcow2 -o compat=1.1 {shlex.quote(disk.path)}`",
                    )
                )
    return findings


def _remote(disk: hypervisor.Disk, layer: hypervisor.ImageLayer) -> list[PreflightFinding]:
    """Return a finding if this host cannot open a remote image without the VM, as it must when the VM is off."""
    if layer is disk.chain[0] and layer.format != "raw":
        return []  # Refused anyhow.
    try:
        nbd.image.info(Path(layer.path))
    except SeveralLogins as error:
        what = f"{disk.target} cannot be opened without the VM: {error}"
        return [PreflightFinding("disk.remote-unopened", True, printable(what), error.advice())]
    except NbdFailed as error:
        what = f"{disk.target} cannot be opened without the VM: {error}"
        clear = (
            "If a driver is missing: `apt install qemu-block-extra`. If it did not end, let its server serve several"
            " clients. If libvirt does not give the secret, define it with private='no': `virsh secret-list`,"
            " `virsh secret-define FILE`"
        )
        return [PreflightFinding("disk.remote-unopened", True, printable(what), clear)]
    return []


def _chain(disk: hypervisor.Disk) -> list[PreflightFinding]:
    """Return what is wrong with the images below the first one of a VM that is off."""
    try:
        below = chain_of(disk.chain[0])[1:]
        locked = [layer.path for layer in below if _is_encrypted(layer)]
        for file in (file for layer in below if not is_remote(layer.path) for file in files_of(layer)):
            # Nothing else opens a raw one.
            answered(file.path, lambda path=Path(file.path): path.open("rb").close())  # type: ignore[misc]
    except (NbdFailed, FolderSilent, OSError) as error:
        what = f"The images that {disk.target} is based on cannot be read: {error}"
        see = f"`qemu-img info -f {shlex.quote(disk.format)} --backing-chain {shlex.quote(disk.path)}`"
        return [
            PreflightFinding(
                "disk.chain-unreadable", True, printable(what), f"Bring the missing image back. See which: {see}"
            )
        ]
    if locked and not disk.encrypted:
        what = f"{disk.target} is based on {locked[0]}, which QEMU decrypts with a secret that only this host has"
        clear = "Start the VM, and check it again: the check names the command that copies the disk"
        return [PreflightFinding("disk.encrypted", True, printable(what), clear)]
    return []


def _is_encrypted(layer: hypervisor.ImageLayer) -> bool:
    if layer.format not in ("qcow2", "luks"):
        return False
    return nbd.image.info(Path(layer.path), image_format=layer.format, force_share=True).encrypted


def space_findings(config: Config, facts: hypervisor.Vm) -> list[PreflightFinding]:
    """Return the findings about space for scratch files and overlays at the source."""
    work = config.work
    parent = next(folder for folder in (work, *work.parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < _SCRATCH:
        return [
            PreflightFinding(
                "here.space",
                True,
                f"{work} has {format_size(free)} free for scratch files and overlays",
                f"Make room: at least {format_size(_SCRATCH)}",
            )
        ]
    if free < (worst := sum(disk.size for disk in hypervisor.carried(facts))):
        return [
            PreflightFinding(
                "here.space-worst",
                False,
                f"{work} has {format_size(free)} free; a VM that rewrites all of its disks during one cut"
                f" could take {format_size(worst)}: the cut is ended in time then",
            )
        ]
    return []


def drive_room_findings(
    context: Context, facts: hypervisor.Vm, paths: tuple[str, ...], parity: int
) -> list[PreflightFinding]:
    """Return a finding if the drives may fill up. It does not block, because another drive can be added then."""
    if not paths:
        return []
    with ExitStack() as stack:
        volumes = [stack.enter_context(closing(context.volumes.open(path))) for path in paths]
        fits = drives.room(volumes, parity)
        if not fits:
            # A stripe needs room on one drive more than may be lost: the largest that is too small is named.
            free = sorted(((volume.free(), volume.path) for volume in volumes), reverse=True)
            have, where = free[min(parity, len(free) - 1)]
            what = "a drive" if not parity else f"each of {parity + 1} drives"
            # Rounded up, so that both are never shown as the same size.
            raise NoSpace(where, format_size(have), format_size(-(-drives.LEAST // MiB) * MiB), what)
    if fits >= (most := content(facts)):
        return []
    return [
        PreflightFinding(
            "here.drives",
            False,
            f"The drives take {format_size(fits)}, and the VM's disks hold up to {format_size(most)} before"
            " compression: they may fill up",
            "Have a further drive at hand: the export asks for it and continues",
        )
    ]


def _loaders(allowed: dict[str, str]) -> dict[str, hypervisor.Loader]:
    """Return the firmware that a peer's VM may boot: what is installed here, and what the operator lists."""
    known = hypervisor.loaders()
    return known | {theirs: known.get(ours, hypervisor.Loader(ours)) for theirs, ours in allowed.items()}


def choose_place(
    context: Context,
    document: DestinationDocument,
    paths: dict[str, tuple[str, str]],
    attempt: str | None,
) -> Place:
    """Return this site's choices for everything that a peer's definition leaves open."""
    allow, offers = context.config.allow, hypervisor.offers(context.host)
    console = None
    if allow.consoles:
        console = str(Path(allow.consoles) / f"{Path(document.folder).name}.console")
    return Place(
        disks={target: DiskAt(path, image_format) for target, (path, image_format) in paths.items()},
        networks={theirs: NetworkPlug.parse(ours) for theirs, ours in allow.networks.items()},
        filters=allow.filters,
        metadata=frozenset(allow.metadata),
        accepted=frozenset(document.accepted),
        offers=dataclasses.replace(offers, gpu=offers.gpu and allow.gpu),
        console=console,
        boot_files=allow.boot_files,
        media=allow.media,
        loaders=_loaders(allow.loaders),
        variables=document.folder,
        tpm=hypervisor.emulates_tpm(),
        qemu_arguments=frozenset(tuple(words) for words in allow.qemu_arguments),
        settings=str(config.place(context.paths.data)),
        attempt=attempt,
    )
