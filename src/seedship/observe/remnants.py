# SPDX-License-Identifier: Apache-2.0
"""Finds leftovers of ended replications and abandoned attempts.

Every object of seedship carries the first eight digits of its replication's id. Objects of ended
replications may be removed. Objects of unknown replications may belong to another site or to a
restored backup; they are only reported. An image that a VM uses, or may use, is never removed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, Literal

from seedship import hypervisor, nbd, store
from seedship.errors import HypervisorBusy, SeedshipError, virsh_name
from seedship.hypervisor import Disk, Vm
from seedship.model import lifecycle
from seedship.model.remote import is_remote
from seedship.observe.findings import HealthFinding
from seedship.workflows import Context, documents
from seedship.workflows.source import KEPT_SUFFIX, OVERLAY_SUFFIX

_WORK: Final = re.compile(r"[0-9a-f]{8}")
_NAME: Final = re.compile(rf"{hypervisor.PREFIX}([0-9a-f]{{8}})-[0-9a-f]{{1,64}}")
_OWN: Final = (OVERLAY_SUFFIX, KEPT_SUFFIX, ".scratch", ".sock", ".saved")
_WAIT_S: Final = 5.0
_DEEPEST: Final = 64

Owner = Literal["live", "over", "unknown"]


class Remnants:
    """Finds the leftovers of one site; ``vms`` are those of its host."""

    def __init__(self, context: Context, vms: list[Vm]) -> None:
        self._context, self._vms = context, vms
        self._rows = context.catalog.replications.all()
        self._forgotten = context.catalog.events.forgotten()

    def all(self) -> Iterator[HealthFinding]:
        """All leftovers."""
        yield from self.checkpoints()
        yield from self.work_files()
        yield from self.bitmaps()
        yield from self.own_folders()

    def owner(self, start: str) -> Owner:
        """The owner of an object that carries this start of a replication's id."""
        rows = [row for row in self._rows if row.id.startswith(start)]
        if any(not is_over(row) for row in rows):
            return "live"
        return "over" if rows or any(i.startswith(start) for i in self._forgotten) else "unknown"

    def checkpoints(self) -> Iterator[HealthFinding]:
        """Checkpoints in libvirt that no replication needs."""
        for vm in self._vms:
            for name in vm.checkpoints:
                start = _start(name)
                if not start:
                    continue
                whose = self.owner(start)
                what = f"checkpoint {name} of {vm.name}"
                if whose == "live":
                    rows = [row for row in self._rows if row.id.startswith(start)]
                    if len(rows) == 1 and _is_stale(name, rows[0]):
                        drop = partial(self._drop_stale, vm.uuid, name, rows[0].id)
                        yield _left("checkpoint", what, "no round of its replication uses it", drop)
                elif whose == "over":
                    drop = partial(_drop_checkpoint, self._context, vm.uuid, name)
                    yield _left("checkpoint", what, "its replication has ended", drop)
                else:
                    command = f"virsh checkpoint-delete {virsh_name(vm.name, vm.uuid)} {shlex.quote(name)}"
                    yield _foreign("checkpoint", what, command)

    def work_files(self) -> Iterator[HealthFinding]:
        """Overlays, scratch files and sockets below the work folder."""
        work = self._context.config.work
        used = {path for vm in self._vms for path in self.chains(vm)}
        for folder in sorted(work.iterdir()) if work.is_dir() else ():
            if not folder.is_dir() or folder.is_symlink() or not _WORK.fullmatch(folder.name):
                continue
            whose = self.owner(folder.name)
            if whose == "live":
                continue
            ours = [p for p in sorted(folder.rglob("*")) if p.suffix in _OWN and not p.is_dir()]
            if whose == "unknown":
                if ours:
                    yield _foreign(
                        "work-files",
                        f"{len(ours)} files in {folder}",
                        f"ls -l {shlex.quote(str(folder))}",
                    )
                continue
            for path in ours:
                yield self._work_file(path, used)
            if all(p.is_dir() for p in folder.rglob("*")):
                yield _left("work-files", f"the folder {folder}", "it is empty", partial(_prune, folder))

    def _work_file(self, path: Path, used: set[str]) -> HealthFinding:
        overlay = path.suffix in (OVERLAY_SUFFIX, KEPT_SUFFIX)
        name = "overlay" if overlay else "work-files"
        if str(path) in used:
            vm, target, layers = next(
                (vm, disk.target, layers)
                for vm in self._vms
                for disk in vm.disks
                if str(path) in (layers := self._chain(disk))
            )
            return HealthFinding(
                name,
                "fail",
                f"{vm.name} uses overlay {path} of an ended replication",
                "The overlay holds the VM's newest writes",
                "Start the VM if it is off, then merge the overlay into the image below it:"
                f" `{hypervisor.merging(vm.name, vm.uuid, target, layers, str(path))}`",
            )
        if nbd.is_written(path):
            return HealthFinding(
                name,
                "warn",
                f"{path} is open for writing",
                "A process uses it",
                f"Find the process: `fuser {shlex.quote(str(path))}`",
            )
        if overlay and not self._is_bypassed(path, used):
            return HealthFinding(
                name,
                "warn",
                f"{path} is an overlay that no VM of this host uses",
                "It may hold the newest writes of that disk",
                f"Inspect it with `qemu-img info {shlex.quote(str(path))}`, then merge or delete it",
            )
        return _left(
            name, str(path), "its replication has ended, and nothing uses it", partial(_remove, self._context, path)
        )

    def _is_bypassed(self, overlay: Path, used: set[str]) -> bool:
        """Whether an overlay has nothing in it, and a VM uses its backing image directly."""
        with suppress(SeedshipError, OSError):
            below = nbd.image.info(overlay, image_format="qcow2", force_share=True).backing
            return below is not None and below in used and nbd.image.is_blank(overlay)
        return False

    def bitmaps(self) -> Iterator[HealthFinding]:
        """Bitmaps of ended replications in the images of VMs that are shut off."""
        for vm in self._vms:
            if vm.state != "shut-off":
                continue
            for path in self.chains(vm):
                if is_remote(path):  # Raw, and perhaps slow to answer.
                    continue
                with suppress(SeedshipError):
                    info = nbd.image.info(Path(path), force_share=True)
                    for bitmap in info.bitmaps if info.format == "qcow2" else ():
                        start = _start(bitmap.name)
                        if start and self.owner(start) == "over":
                            state = "inconsistent" if "in-use" in bitmap.flags else "left over"
                            drop = partial(_drop_bitmap, Path(path), bitmap.name)
                            yield _left(
                                "bitmap",
                                f"the {state} bitmap {bitmap.name} in {path}",
                                "its replication has ended; the bitmap takes space and slows each start",
                                drop,
                            )

    def own_folders(self) -> Iterator[HealthFinding]:
        """Data folders of ended replications, drives and lineages."""
        data = self._context.paths.data
        for folder in _folders(data / "replications"):
            row = next((row for row in self._rows if row.id == folder.name), None)
            if folder.name in self._forgotten or (row is not None and is_over(row)):
                why = "its replication has ended"
                yield _left("own-files", str(folder), why, partial(self._context.paths.remove, folder))
            elif row is None:
                yield _foreign("own-files", str(folder), f"ls -l {shlex.quote(str(folder))}")
        wanted = {drive for row in self._rows if not is_over(row) for drive in _drives(row)}
        for folder in _folders(data / "spool"):
            if folder.name not in wanted:
                why = "no import expects that drive"
                yield _left("own-files", str(folder), why, partial(self._context.paths.remove, folder))
        lineages = {row.lineage for row in self._rows}
        for folder in _folders(data / "journal"):
            if folder.name not in lineages:
                yield _foreign("own-files", str(folder), f"ls -l {shlex.quote(str(folder))}")

    def chains(self, vm: Vm) -> list[str]:
        """All images of a VM, including one that is shut off."""
        return [path for disk in vm.disks for path in self._chain(disk)]

    def _chain(self, disk: Disk) -> list[str]:
        """The images of a disk, the top one first."""
        paths = [layer.path for layer in disk.chain]
        while paths and len(paths) < _DEEPEST:
            below = None
            if Path(paths[-1]).is_file():
                with suppress(SeedshipError):
                    below = nbd.image.info(Path(paths[-1]), force_share=True).backing
            if not below or below in paths:
                break
            paths.append(below)
        return paths

    def _drop_stale(self, vm: str, name: str, replication: str) -> None:
        lock = self._context.locks.of(replication, "step")
        if not lock.acquire(timeout=_WAIT_S):
            raise HypervisorBusy(vm, "a step of its replication runs")
        try:
            if _is_stale(name, self._context.catalog.replications.get(replication)):
                _drop_checkpoint(self._context, vm, name)
        finally:
            lock.release()


def _start(name: str) -> str:
    match = _NAME.fullmatch(name)
    return match[1] if match else ""


def is_over(row: store.Replication) -> bool:
    """Whether a replication has ended and was cleaned up."""
    if row.state not in lifecycle.ENDED:
        return False
    if row.role == "source":
        return documents.source(row.document).clean
    return documents.destination(row.document).clean


def _is_stale(name: str, row: store.Replication) -> bool:
    """Whether a live replication no longer uses a checkpoint; False while an attempt is open."""
    if row.role != "source":
        return True
    document = documents.source(row.document)
    if document.book.attempt is not None or document.tap is not None or document.handover is not None:
        return False
    return name not in (document.checkpoint, document.coming_checkpoint)


def _drives(row: store.Replication) -> Iterator[str]:
    if row.role == "destination":
        for part in documents.destination(row.document).parts:
            if not part.closed:
                yield from part.drives


def _folders(root: Path) -> list[Path]:
    return [path for path in sorted(root.iterdir()) if path.is_dir()] if root.is_dir() else []


def _left(check: str, what: str, why: str, repair: Callable[[], object]) -> HealthFinding:
    def do() -> None:
        repair()

    remedy = "Run `seedship site doctor --repair`"
    return HealthFinding(check, "warn", f"Leftover: {what}", why[0].upper() + why[1:], remedy, do)


def _foreign(check: str, what: str, command: str) -> HealthFinding:
    return HealthFinding(
        check,
        "warn",
        f"Object of an unknown replication: {what}",
        "It may belong to another site on this host, or the catalog was restored from an older backup",
        f"Check that nothing uses it, then run `{command}`",
    )


def _drop_checkpoint(context: Context, vm: str, name: str) -> None:
    hypervisor.delete_checkpoint(context.host, vm, name)


def _drop_bitmap(path: Path, name: str) -> None:
    if nbd.is_written(path):
        raise HypervisorBusy(str(path), "a process has it open for writing")
    nbd.image.remove_bitmap(path, name)


def _remove(context: Context, path: Path) -> None:
    """Delete a file unless it came into use after the check."""
    if nbd.is_written(path) or any(
        str(path) == layer.path
        for vm in hypervisor.inventory(context.host)
        for disk in vm.disks
        for layer in disk.chain
    ):
        raise HypervisorBusy(str(path), "it is in use now")
    path.unlink(missing_ok=True)
    work = context.config.work
    for folder in path.parents:
        if folder == work:
            break
        with suppress(OSError):
            folder.rmdir()


def _prune(folder: Path) -> None:
    for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        with suppress(OSError):
            path.rmdir()
    folder.rmdir()
