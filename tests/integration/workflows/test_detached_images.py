# SPDX-License-Identifier: Apache-2.0
"""A disk was taken from its VM with our overlay above its image, and the image has another user since: nothing of ours is
merged into what that wrote. Real images; the VM is of libvirt's test driver."""

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from contexts import changed
from seedship import failpoints, hypervisor, nbd, store
from seedship.errors import DisksChanged, NbdFailed, SeedshipError
from seedship.model import DiskIndex, DiskSpec, Lineage, new_id
from seedship.model.books import SourceBook
from seedship.workflows import Context
from seedship.workflows.documents import Base, SourceDocument, encode
from seedship.workflows.source.snapshots import cut, detached, overlays, shape

pytestmark = pytest.mark.qemu

KIB = 1 << 10
XML = """<domain type='test'><name>vm-{uuid}</name><uuid>{uuid}</uuid><memory>4096</memory><os><type>hvm</type></os>
<devices>{disks}</devices></domain>"""
DISK = """<disk type='file' device='disk'><driver name='qemu' type='{kind}'/><source file='{path}'/>{below}<target dev='{target}'/></disk>"""
BELOW = """<backingStore type='file'><format type='{kind}'/><source file='{path}'/>{below}</backingStore>"""


def disk(target: str, *chain: tuple[Path, str]) -> str:
    below = ""
    for path, kind in reversed(chain[1:]):
        below = BELOW.format(path=path, kind=kind, below=below)
    return DISK.format(target=target, path=chain[0][0], kind=chain[0][1], below=below)


def put(image: Path, pattern: int, at: int = 0, kind: str = "qcow2") -> None:
    words = ["qemu-io", "-f", kind, "-c", f"write -P {pattern} {at} 64k", str(image)]
    subprocess.run(words, check=True, capture_output=True)


def content(image: Path, kind: str, folder: Path) -> bytes:
    copy = folder / "read"
    copy.unlink(missing_ok=True)
    nbd.image.copy(image, kind, copy, "raw")
    return copy.read_bytes()


@dataclass
class Detached:
    """vdb, whose image ``base`` had the overlay ``above`` when the VM had it. What the VM wrote last is a 7 at 0."""

    site: Context
    id: str
    uuid: str
    base: Path
    kind: str
    above: Path
    others: str
    """The VM's other disk, as XML."""

    def domain(self, *more: str) -> None:
        """Let the VM run with its other disk, and ``more``."""
        self.gone()
        self.site.host.connection().createXML(XML.format(uuid=self.uuid, disks=self.others + "".join(more)))

    def gone(self) -> None:
        for domain in self.site.host.connection().listAllDomains():
            if domain.UUIDString() == self.uuid:
                domain.destroy()

    def document(self) -> SourceDocument:
        return self.site.replications.source(self.id)[1]

    def merge(self) -> None:
        overlays.commit_back(self.site, self.id, self.document())


@pytest.fixture(params=["raw", "qcow2"])
def vdb(site: Context, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Detached]:
    section = msgspec.structs.replace(site.config.hypervisor, work=str(tmp_path / "work"))
    site = changed(site, hypervisor=section, host=hypervisor.Host("test:///default"))
    uuid, kind = str(uuid4()), request.param
    first, base = tmp_path / "vda.qcow2", tmp_path / f"vdb image.{kind}"
    nbd.image.create(first, "qcow2", 1 << 20)
    nbd.image.create(base, kind, 1 << 20)
    put(base, 1, kind=kind)
    specs = tuple(DiskSpec(DiskIndex(n), t, 1 << 20, "qcow2") for n, t in enumerate(("vda", "vdb")))
    row = store.Replication(
        new_id(), "source", "p" * 32, uuid, "vm", "in-sync", new_id(), 1, 5,
        encode(SourceDocument(specs, SourceBook(Lineage("a" * 32)), "s" * 32)),
    )  # fmt: skip
    site.catalog.replications.add(row)
    work = site.paths.work(row.id)
    work.mkdir(parents=True)
    above = work / "vdb.overlay"
    nbd.image.create(above, "qcow2", 1 << 20, backing=base, backing_format=kind)
    site.replications.change_source(
        row.id, lambda d: d.with_images(bases={"vdb": Base(str(base), kind)}, overlays={"vdb": str(above)})
    )
    made = Detached(site, row.id, uuid, base, kind, above, disk("vda", (first, "qcow2")))
    made.domain(disk("vdb", (above, "qcow2"), (base, kind)))
    detached.record(site, row.id)
    put(above, 7)
    yield made
    made.gone()
    site.host.close()


def refused(made: Detached) -> DisksChanged:
    """The merge is refused, and both images are as they were."""
    before, ours = made.base.read_bytes(), made.above.read_bytes()
    with pytest.raises(DisksChanged) as caught:
        made.merge()
    assert made.base.read_bytes() == before
    assert made.above.read_bytes() == ours
    return caught.value


def commands(error: DisksChanged) -> list[str]:
    return re.findall(r"`([^`]+)`", error.advice())


@pytest.mark.parametrize("whence", ["detached", "undefined"])
def test_what_another_vm_wrote_to_a_detached_image_is_not_merged_into(vdb: Detached, whence: str) -> None:
    """The write is elsewhere than ours, and of another time, also where the size is as it was."""
    vdb.domain() if whence == "detached" else vdb.gone()
    put(vdb.base, 9, 512 * KIB, vdb.kind)
    error = refused(vdb)
    assert str(vdb.base) in str(error)
    assert str(vdb.above) in str(error)
    refused(vdb)  # Also at the next try.


@pytest.mark.remedy("workflows.source.snapshots.overlays._insist_all_found: mv … /var/tmp/")
def test_an_overlay_above_nothing_known_is_not_deleted_after_its_vm(vdb: Detached, tmp_path: Path) -> None:
    """It holds the newest writes, and its header does not lead to the image that the disk was found with."""
    vdb.gone()
    words = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "nbd://h:1/x", "-F", "raw", str(vdb.above)]
    subprocess.run(words, check=True)
    assert str(vdb.above) in str(refused(vdb))
    with pytest.raises(DisksChanged):
        overlays.insist_unused(vdb.site, vdb.id)
    assert vdb.above.exists()
    look, move = commands(refused(vdb))
    assert "nbd://h:1/x" in subprocess.run(["sh", "-c", look], check=True, capture_output=True, text=True).stdout
    subprocess.run(["sh", "-c", move.replace("/var/tmp/", str(tmp_path))], check=True)
    vdb.merge()
    overlays.insist_unused(vdb.site, vdb.id)
    assert (tmp_path / vdb.above.name).exists()


def test_an_overlay_above_nothing_known_is_kept_when_the_vm_runs_at_the_other_site(vdb: Detached) -> None:
    """A release must end: the VM was switched over. What it had here is set aside, and is no part of a merge."""
    vdb.gone()
    words = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "nbd://h:1/x", "-F", "raw", str(vdb.above)]
    subprocess.run(words, check=True)
    ours, before = vdb.above.read_bytes(), vdb.base.read_bytes()
    overlays.commit_offline(vdb.site, vdb.id, vdb.document(), defined=False, released=True)
    assert not vdb.above.exists()
    assert vdb.above.with_name(vdb.above.name + ".kept").read_bytes() == ours
    assert vdb.base.read_bytes() == before
    overlays.insist_unused(vdb.site, vdb.id)


def test_a_write_below_is_noticed_whose_time_was_set_back(vdb: Detached) -> None:
    """A copy that keeps times (cp -p, rsync -t) replaces the file."""
    vdb.domain()
    before = vdb.base.stat()
    other = vdb.base.with_name("other")
    other.write_bytes(vdb.base.read_bytes())
    put(other, 9, 512 * KIB, vdb.kind)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(vdb.base)
    assert "another file" in str(refused(vdb))


def test_a_detached_image_that_nobody_wrote_to_gets_what_was_written_above_it(vdb: Detached, tmp_path: Path) -> None:
    """libvirt gives its owner and label back, and others read it meanwhile."""
    vdb.domain()
    os.chmod(vdb.base, 0o640)
    content(vdb.base, vdb.kind, tmp_path)
    vdb.merge()
    assert content(vdb.base, vdb.kind, tmp_path)[: 64 * KIB] == b"\7" * (64 * KIB)
    assert not vdb.above.exists()


@pytest.mark.remedy("workflows.source.snapshots.detached._remedy: qemu-img commit -f qcow2 -d …")
def test_an_operator_merges_by_hand_what_was_refused(vdb: Detached, tmp_path: Path) -> None:
    vdb.domain()
    put(vdb.base, 9, 512 * KIB, vdb.kind)
    by_hand, _, retry = commands(refused(vdb))
    subprocess.run(["sh", "-c", by_hand], check=True)
    assert retry == "seedship replication retry vm"
    vdb.merge()
    written = content(vdb.base, vdb.kind, tmp_path)
    assert (written[0], written[512 * KIB]) == (7, 9)
    assert not vdb.above.exists()


@pytest.mark.remedy("workflows.source.snapshots.detached._remedy: qemu-img rebase -u -f qcow2 -b … -F … …")
def test_an_operator_keeps_what_another_vm_wrote(vdb: Detached, tmp_path: Path) -> None:
    vdb.domain()
    put(vdb.base, 9, 512 * KIB, vdb.kind)
    _, discard, _ = commands(refused(vdb))
    subprocess.run(["sh", "-c", discard], check=True)
    vdb.merge()
    written = content(vdb.base, vdb.kind, tmp_path)
    assert (written[0], written[512 * KIB]) == (1, 9)


def test_a_snapshot_of_another_tool_that_was_written_is_not_merged_into(vdb: Detached, tmp_path: Path) -> None:
    """Ours, theirs, ours, base; after the detach the snapshot became another VM's disk. The remedy leaves it whole."""
    theirs, top = tmp_path / "vdb.snap", vdb.above.with_name("tap-vdb.overlay")
    nbd.image.create(theirs, "qcow2", 1 << 20, backing=vdb.above)
    nbd.image.create(top, "qcow2", 1 << 20, backing=theirs)
    chain = [(top, "qcow2"), (theirs, "qcow2"), (vdb.above, "qcow2"), (vdb.base, vdb.kind)]
    vdb.domain(disk("vdb", *chain))
    detached.record(vdb.site, vdb.id)
    put(top, 8, 64 * KIB)
    vdb.domain()
    put(theirs, 9, 512 * KIB)
    error = refused(vdb)
    assert f"{theirs} was written" in str(error)
    subprocess.run(["sh", "-c", commands(error)[0]], check=True)
    vdb.merge()
    written = content(theirs, "qcow2", tmp_path)
    assert (written[0], written[64 * KIB], written[512 * KIB]) == (7, 8, 9)
    assert not top.exists()
    assert not vdb.above.exists()


def test_an_image_of_which_nothing_is_recorded_is_not_merged_into(vdb: Detached) -> None:
    """A document of an earlier version says nothing about it."""
    vdb.domain()
    forgotten = Base(str(vdb.base), vdb.kind)
    vdb.site.replications.change_source(vdb.id, lambda d: d.with_images(bases={"vdb": forgotten}))
    assert "not recorded" in str(refused(vdb))


def test_a_device_is_not_merged_into(vdb: Detached, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another host may have written to it, which nothing here shows."""
    monkeypatch.setattr(stat, "S_ISBLK", lambda _mode: True)
    detached.record(vdb.site, vdb.id)
    vdb.domain()
    assert "is a device" in str(refused(vdb))


def test_a_merge_that_a_kill_interrupted_is_repeated(vdb: Detached, tmp_path: Path) -> None:
    """The image is half merged then: by our own doing it differs from what was recorded."""
    vdb.domain()
    failpoints.arm("detached.checked", "raise")
    try:
        with pytest.raises(failpoints.InjectedFailure):
            vdb.merge()
    finally:
        failpoints.disarm("detached.checked")
    put(vdb.base, 7, kind=vdb.kind)  # What qemu-img did before it was killed.
    vdb.merge()
    assert content(vdb.base, vdb.kind, tmp_path)[: 64 * KIB] == b"\7" * (64 * KIB)
    assert not vdb.above.exists()


def test_what_is_recorded_of_a_disk_that_came_back_counts_anew(vdb: Detached) -> None:
    vdb.domain()
    put(vdb.base, 9, 512 * KIB, vdb.kind)
    refused(vdb)
    vdb.domain(disk("vdb", (vdb.above, "qcow2"), (vdb.base, vdb.kind)))
    detached.record(vdb.site, vdb.id)
    vdb.domain()
    vdb.merge()
    assert not vdb.above.exists()


def test_a_merge_that_ended_says_nothing_about_the_next_overlay(vdb: Detached) -> None:
    """The disk comes back, gets an overlay, and is detached again before anything is recorded."""
    vdb.domain()
    vdb.merge()
    nbd.image.create(vdb.above, "qcow2", 1 << 20, backing=vdb.base, backing_format=vdb.kind)
    put(vdb.above, 8)
    assert "not recorded" in str(refused(vdb))


@pytest.mark.parametrize("whence", ["detached", "undefined"])
def test_a_merge_that_another_vm_prevents_is_not_taken_for_begun(vdb: Detached, whence: str) -> None:
    """The other VM runs on the image when the merge is tried, and writes to it later."""
    vdb.domain() if whence == "detached" else vdb.gone()
    before = vdb.base.read_bytes()
    with nbd.serve(vdb.base, vdb.kind, read_only=False), pytest.raises(SeedshipError):
        vdb.merge()
    assert vdb.base.read_bytes() == before
    put(vdb.base, 9, 512 * KIB, vdb.kind)
    refused(vdb)


def test_a_merge_that_failed_before_it_wrote_is_compared_again(vdb: Detached, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other VM started between the comparison and the merge: QEMU's lock kept qemu-img out."""
    vdb.domain()

    def locked(path: Path) -> None:
        raise NbdFailed("qemu-img commit", f"Failed to get write lock on {path}")

    with monkeypatch.context() as patched:
        patched.setattr(nbd.image, "commit", locked)
        with pytest.raises(NbdFailed):
            vdb.merge()
    put(vdb.base, 9, 512 * KIB, vdb.kind)
    refused(vdb)


def test_newest_writes_survive_when_the_disk_is_attached_again_without_them(
    vdb: Detached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge was refused while the disk was detached, then the operator attached the disk's own image."""
    vdb.domain()
    with monkeypatch.context() as refusing:
        refusing.setattr(detached, "_change", lambda *_: "a device does not show who wrote to it")
        with pytest.raises(DisksChanged):
            vdb.merge()
    vdb.domain(disk("vdb", (vdb.base, vdb.kind)))
    with pytest.raises(DisksChanged, match="vdb was reattached without"):
        shape.settle(vdb.site, vdb.id)
    if vdb.kind == "raw":  # A qcow2 image gets no overlay.
        with pytest.raises(DisksChanged, match="vdb was reattached without"):
            cut.settle_overlays(vdb.site, vdb.id)
    assert content(vdb.above, "qcow2", vdb.base.parent)[0] == 7
