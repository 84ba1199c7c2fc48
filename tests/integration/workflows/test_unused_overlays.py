# SPDX-License-Identifier: Apache-2.0
"""Overlays in the work folder that no chain has: deleted only where nothing is lost with them. The VM is of libvirt's test driver."""

import dataclasses
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from contexts import changed
from seedship import hypervisor, nbd, store
from seedship.errors import DisksChanged
from seedship.model import DiskIndex, DiskSpec, Lineage, new_id
from seedship.model.books import SourceBook
from seedship.model.spec import ReplicationSpec
from seedship.workflows import Context
from seedship.workflows.documents import Base, SourceDocument, Tap, encode
from seedship.workflows.source import fencing
from seedship.workflows.source.epochs import closing
from seedship.workflows.source.mirroring import tap_overlays
from seedship.workflows.source.snapshots import child_disks, detached, overlays

pytestmark = pytest.mark.qemu
XML = """<domain type='test'><name>vm-{uuid}</name><uuid>{uuid}</uuid><memory>4096</memory><os><type>hvm</type></os>
<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda'/></disk></devices></domain>"""


@pytest.fixture
def source(site: Context, tmp_path: Path) -> Iterator[tuple[Context, str, Path]]:
    """A replication by child disks whose VM stands on its own image alone, and a child with a write that nothing else has."""
    section = msgspec.structs.replace(site.config.hypervisor, work=str(tmp_path / "work"))
    site = changed(site, hypervisor=section, host=hypervisor.Host("test:///default"))
    base, uuid = tmp_path / "vda.qcow2", str(uuid4())
    nbd.image.create(base, "qcow2", 1 << 20)
    site.host.connection().createXML(XML.format(uuid=uuid, disk=base))
    document = SourceDocument(
        (DiskSpec(DiskIndex(0), "vda", 1 << 20, "qcow2"),),
        SourceBook(Lineage("a" * 32)),
        "s" * 32,
        spec=ReplicationSpec(capture="child-disk"),
    )
    row = store.Replication(new_id(), "source", "p" * 32, uuid, "vm", "in-sync", new_id(), 1, 5, encode(document))
    site.catalog.replications.add(row)
    site.paths.work(row.id).mkdir(parents=True)
    path = Path(child_disks.child(site.paths.work(row.id), f"{hypervisor.PREFIX}{row.id[:8]}-1", "vda"))
    nbd.image.create(path, "qcow2", 1 << 20, backing=base)
    yield site, row.id, path
    site.host.close()


def sweep(site: Context, replication: str) -> None:
    row, _ = site.replications.source(replication)
    child_disks._sweep(site, replication, hypervisor.inspect(site.host, row.vm_uuid))


def noted(path: Path, image_format: str, *above: Path) -> Base:
    """A disk's image as it is recorded while the VM has it, with other tools' images ``above`` it."""
    layers = [hypervisor.ImageLayer(str(p), "qcow2") for p in above]
    return Base(str(path), image_format, detached.files([*layers, hypervisor.ImageLayer(str(path), image_format)]))


def write(path: Path) -> None:
    subprocess.run(["qemu-io", "-c", "write -P 7 0 64k", path], check=True, capture_output=True)


def test_a_child_that_was_taken_out_of_its_chain_keeps_its_writes(
    source: tuple[Context, str, Path],
) -> None:
    """An older definition was put back while nothing was recorded of the disks: only the child has the newest writes."""
    site, replication, path = source
    write(path)
    sweep(site, replication)
    assert path.exists()


def test_a_child_that_was_never_written_to_is_deleted(source: tuple[Context, str, Path]) -> None:
    site, replication, path = source
    half = path.with_name(path.name.replace("-1-", "-2-"))
    half.touch()
    sweep(site, replication)
    assert not path.exists()
    assert not half.exists()


def test_a_child_that_was_merged_is_deleted(source: tuple[Context, str, Path]) -> None:
    site, replication, path = source
    write(path)
    overlays.note_merging(site.replications, replication, [str(path)])
    sweep(site, replication)
    assert not path.exists()


@pytest.mark.failure_mode(
    "An older definition of the VM was put back, without the overlay that has its newest writes, and its replication is aborted",
    "The abort waits, and says which file has the writes. It ends when the disk uses it again, or when the file was moved away",
    "nothing",
)
def test_an_abort_keeps_the_writes_of_a_child_that_was_taken_out_of_its_chain(
    source: tuple[Context, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "clear_leftovers", lambda *_: None)  # libvirt's test driver has no QEMU.
    site, replication, path = source
    write(path)
    with pytest.raises(DisksChanged, match="perhaps its newest, and no disk of the VM uses it") as waits:
        closing.abort_replication(site, replication)
    assert path.exists()
    see, move = re.findall("`(.+?)`", waits.value.advice())
    assert (
        str(tmp_path / "vda.qcow2")
        in subprocess.run(["sh", "-ec", see], check=True, capture_output=True, text=True).stdout
    )
    subprocess.run(["sh", "-ec", move.replace("/var/tmp/", f"{tmp_path}/")], check=True)
    closing.abort_replication(site, replication)
    assert (tmp_path / path.name).exists()
    assert not site.paths.work(replication).exists()


def test_a_fence_sets_aside_what_was_taken_out_of_its_chain(
    source: tuple[Context, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The VM runs at the other site since a failover: only this file has its last writes here."""
    monkeypatch.setattr(fencing, "ensure_stopped", lambda *_: True)
    site, replication, path = source
    write(path)
    content = path.read_bytes()
    fencing.fence_source(site, replication)
    assert not path.exists()
    assert path.with_name(f"{path.name}.kept").read_bytes() == content
    assert site.replications.source(replication)[1].clean


def test_an_overlay_whose_merge_was_given_up_is_none_that_may_be_deleted(
    source: tuple[Context, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest goes on writing to it. Later an older definition is put back, without it."""
    site, replication, path = source
    write(path)
    base = tmp_path / "vda.qcow2"
    site.replications.change_source(replication, lambda d: d.with_images(bases={"vda": Base(str(base), "qcow2")}))
    overlays.note_merging(site.replications, replication, [str(path)])
    vm = hypervisor.inspect(site.host, site.replications.source(replication)[0].vm_uuid)
    layers = tuple(hypervisor.ImageLayer(str(p), "qcow2") for p in (path, base))
    chained = dataclasses.replace(vm, disks=(dataclasses.replace(vm.disks[0], chain=layers),))
    with monkeypatch.context() as seen:
        seen.setattr(hypervisor, "inspect", lambda *_: chained)
        detached.record(site, replication)
    sweep(site, replication)
    assert path.exists()


def test_a_merge_of_a_taps_overlay_that_was_killed_at_its_end_stops_no_abort(
    source: tuple[Context, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is merged, and its file is still there."""
    monkeypatch.setattr(tap_overlays, "clear_leftovers", lambda *_: None)
    monkeypatch.setattr(closing, "clear_leftovers", lambda *_: None)
    site, replication, path = source
    write(path)
    base = str(tmp_path / "vda.qcow2")
    tap = Tap("open", {"vda": str(path)}, {"vda": base})
    site.replications.change_source(replication, lambda d: d.with_tap(tap))
    row, _ = site.replications.source(replication)
    vm = hypervisor.inspect(site.host, row.vm_uuid)
    layers = tuple(hypervisor.ImageLayer(p, "qcow2") for p in (str(path), base))
    chained = dataclasses.replace(vm, disks=(dataclasses.replace(vm.disks[0], chain=layers),))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as seen:
        seen.setattr(hypervisor, "inspect", lambda *_: chained)
        seen.setattr(hypervisor, "commit_overlay", lambda *_, **__: [str(path)])
        seen.setattr(hypervisor, "discard", killed)
        with pytest.raises(KeyboardInterrupt):
            tap_overlays.merge(site, replication, row.vm_uuid)
    closing.abort_replication(site, replication)
    assert not path.exists()


def test_what_qemu_has_open_is_not_deleted_whatever_libvirt_says(
    source: tuple[Context, str, Path],
) -> None:
    site, replication, path = source
    overlays.note_merging(site.replications, replication, [str(path)])
    with nbd.serve(path, "qcow2", read_only=False):
        overlays.discard_unused_overlays(site.replications, site.host, replication, [str(path)])
        assert path.exists()


def test_the_image_of_a_detached_disk_gets_what_was_written_above_it(
    source: tuple[Context, str, Path], tmp_path: Path
) -> None:
    """vdb was taken from the VM, and the overlay that takes its writes with it. An abort merges, and only then deletes."""
    site, replication, _ = source
    base = tmp_path / "vdb.raw"
    nbd.image.create(base, "raw", 1 << 20)
    work = site.paths.work(replication)
    lower, upper = work / "vdb.overlay", work / "tap-vdb.overlay"
    nbd.image.create(lower, "qcow2", 1 << 20, backing=base, backing_format="raw")
    nbd.image.create(upper, "qcow2", 1 << 20, backing=lower)
    subprocess.run(["qemu-io", "-c", "write -P 5 64k 64k", lower], check=True, capture_output=True)
    write(upper)
    document = site.replications.change_source(
        replication, lambda d: d.with_images(bases={"vdb": noted(base, "raw")}, overlays={"vdb": str(lower)})
    )
    overlays.commit_back(site, replication, document)
    written = base.read_bytes()
    assert written[: 64 << 10] == b"\7" * (64 << 10)
    assert written[64 << 10 : 128 << 10] == b"\5" * (64 << 10)
    assert not lower.exists()
    assert not upper.exists()


def test_a_snapshot_of_another_tool_between_ours_stays(source: tuple[Context, str, Path], tmp_path: Path) -> None:
    """The image below it gets what was below it, and the snapshot what was above."""
    site, replication, _ = source
    base, snapshot = tmp_path / "vdb.raw", tmp_path / "vdb.before-upgrade"
    work = site.paths.work(replication)
    lower, upper = work / "vdb.overlay", work / "tap-vdb.overlay"
    nbd.image.create(base, "raw", 1 << 20)
    nbd.image.create(lower, "qcow2", 1 << 20, backing=base, backing_format="raw")
    nbd.image.create(snapshot, "qcow2", 1 << 20, backing=lower)
    nbd.image.create(upper, "qcow2", 1 << 20, backing=snapshot)
    subprocess.run(["qemu-io", "-c", "write -P 5 0 128k", lower], check=True, capture_output=True)
    write(upper)
    document = site.replications.change_source(
        replication, lambda d: d.with_images(bases={"vdb": noted(base, "raw", snapshot)}, overlays={"vdb": str(lower)})
    )
    overlays.commit_back(site, replication, document)
    assert base.read_bytes()[: 128 << 10] == b"\5" * (128 << 10)
    info = nbd.image.info(snapshot, image_format="qcow2")
    assert info.backing == str(base)
    nbd.image.copy(snapshot, "qcow2", tmp_path / "read", "raw")
    assert (tmp_path / "read").read_bytes()[: 128 << 10] == b"\7" * (64 << 10) + b"\5" * (64 << 10)
    assert not lower.exists()
    assert not upper.exists()


def test_a_disk_that_has_another_image_now_is_merged_into_its_old_one(
    source: tuple[Context, str, Path], tmp_path: Path
) -> None:
    """vda was replaced, and the replication is aborted before the next round sees that."""
    site, replication, child = source
    old = tmp_path / "old.qcow2"
    nbd.image.create(old, "qcow2", 1 << 20)
    child.unlink()
    nbd.image.create(child, "qcow2", 1 << 20, backing=old)
    write(child)
    document = site.replications.change_source(replication, lambda d: d.with_images(bases={"vda": noted(old, "qcow2")}))
    overlays.commit_back(site, replication, document)
    nbd.image.copy(old, "qcow2", tmp_path / "read", "raw")
    assert (tmp_path / "read").read_bytes()[: 64 << 10] == b"\7" * (64 << 10)
    assert not child.exists()
