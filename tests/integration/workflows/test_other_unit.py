# SPDX-License-Identifier: Apache-2.0
"""A target that is set up anew, and shows another unit of the same name and size: it is neither read for the VM nor written to."""

import dataclasses
import os
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from contexts import changed
from seedship import clock, hypervisor, nbd, store
from seedship.errors import DisksChanged, NbdFailed
from seedship.hypervisor import ImageLayer
from seedship.model import DiskIndex, DiskSpec, Lineage, new_id
from seedship.model.books import SourceBook
from seedship.model.remote import Remote
from seedship.units import MiB
from seedship.workflows import Context
from seedship.workflows.documents import Base, SourceDocument, encode
from seedship.workflows.host import leftovers
from seedship.workflows.source.snapshots import detached, offline, overlays

pytestmark = pytest.mark.qemu
SIZE = 8 * MiB


class Export:
    """A server that shows one of several files under one name."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "nbd.sock"
        self.name = Remote("nbd", f"unix:{self.socket}", ("e",)).name
        self._server: subprocess.Popen[bytes] | None = None

    def show(self, file: Path | None) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self.socket.unlink(missing_ok=True)
        self._server = None
        if file is not None:
            words = ["qemu-nbd", "--socket", str(self.socket), "--persistent", "--shared=0", "-f", "raw", "-x", "e"]
            self._server = subprocess.Popen([*words, str(file)])
            clock.wait_until(lambda: nbd.listens(str(self.socket)), 30, "qemu-nbd")


@dataclasses.dataclass
class Source:
    site: Context
    id: str
    export: Export
    unit: Path
    other: Path
    overlay: Path

    @property
    def document(self) -> SourceDocument:
        return self.site.replications.source(self.id)[1]

    def merge(self) -> None:
        """As a switchover's release does."""
        overlays.commit_offline(self.site, self.id, self.document, defined=False, released=True)


@pytest.fixture
def source(site: Context, tmp_path: Path) -> Iterator[Source]:
    """A VM that was seen with our overlay above an export, and is off."""
    section = msgspec.structs.replace(site.config.hypervisor, work=str(tmp_path / "work"))
    site = changed(site, hypervisor=section, host=hypervisor.Host("test:///default"))
    export, unit, other = Export(tmp_path), tmp_path / "unit", tmp_path / "other"
    unit.write_bytes(os.urandom(SIZE))
    other.write_bytes(os.urandom(SIZE))
    export.show(unit)
    disks = (DiskSpec(DiskIndex(0), "vda", SIZE, "raw"),)
    document = SourceDocument(disks, SourceBook(Lineage("a" * 32)), "s" * 32)
    row = store.Replication(new_id(), "source", "p" * 32, "u", "vm", "in-sync", new_id(), 1, 5, encode(document))
    site.catalog.replications.add(row)
    work = site.paths.work(row.id)
    work.mkdir(parents=True)
    overlay = work / "vda.overlay"
    nbd.image.create(overlay, "qcow2", SIZE, backing=Path(export.name), backing_format="raw")
    subprocess.run(["qemu-io", "-c", "write -P 7 1M 64k", overlay], check=True, capture_output=True)
    base = Base(export.name, "raw", detached.files([ImageLayer(export.name, "raw")]))
    site.replications.change_source(row.id, lambda d: d.with_images(bases={"vda": base}))
    yield Source(site, row.id, export, unit, other, overlay)
    export.show(None)
    site.host.close()


def wanted(source: Source) -> bytes:
    content = bytearray(source.unit.read_bytes())
    content[MiB : MiB + (64 << 10)] = b"\7" * (64 << 10)
    return bytes(content)


@pytest.mark.failure_mode(
    "The target of a VM's network disk is set up anew, and shows another unit of the same name and size",
    "Nothing is read from it or merged into it while the VM does not run; the step waits, and says what is wrong",
    "nothing",
)
def test_another_unit_of_the_same_name_is_not_merged_into(source: Source) -> None:
    after, theirs, ours = wanted(source), source.other.read_bytes(), source.overlay.read_bytes()
    source.export.show(source.other)
    for _ in range(2):
        with pytest.raises(DisksChanged, match="has other content than when the VM ran"):
            source.merge()
        assert source.other.read_bytes() == theirs
        assert source.overlay.read_bytes() == ours
    source.export.show(None)
    with pytest.raises(NbdFailed):
        source.merge()
    assert source.overlay.read_bytes() == ours
    source.export.show(source.unit)
    source.merge()
    assert source.unit.read_bytes() == after
    assert not source.overlay.exists()


def test_a_merge_that_was_begun_is_repeated(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit has some of the new content then, by our doing."""
    after, commit = wanted(source), nbd.image.commit

    def killed(path: Path, image_format: str = "qcow2") -> None:
        commit(path, image_format)
        raise KeyboardInterrupt

    monkeypatch.setattr(nbd.image, "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        source.merge()
    monkeypatch.undo()
    source.merge()
    assert source.unit.read_bytes() == after


def test_another_unit_of_the_same_name_is_not_read_for_the_vm(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    below = f"<backingStore type='network'><format type='raw'/><source protocol='nbd' name='e'><host transport='unix' socket='{source.export.socket}'/></source></backingStore>"
    text = f"<disk type='file' device='disk'><driver type='qcow2'/><source file='{source.overlay}'/>{below}<target dev='vda'/></disk>"
    vm = hypervisor.describe(f"<domain><name>vm</name><uuid>u</uuid><devices>{text}</devices></domain>")
    monkeypatch.setattr(hypervisor, "inspect", lambda *_: dataclasses.replace(vm, state="shut-off"))
    monkeypatch.setattr(hypervisor, "state", lambda *_: "shut-off")
    monkeypatch.setattr(hypervisor, "start_trace", lambda _: ("no log",))
    quiet: Any = SimpleNamespace(at_once=lambda _: nullcontext())
    site = dataclasses.replace(source.site, barriers=quiet)
    with offline.open_cut(site, source.id, "c", None) as (disks, _):
        assert [disk.size for disk in disks] == [SIZE]
    source.export.show(source.other)
    with pytest.raises(DisksChanged, match="another unit or export now"), offline.open_cut(site, source.id, "c", None):
        pass


def test_what_qemu_merges_into_a_unit_is_not_taken_for_another_one(source: Source) -> None:
    """A merge that libvirt forgot is ended while the VM runs, and may be cut short."""
    assert source.document.images.bases["vda"].below
    assert not leftovers._distrusted(source.document).images.bases["vda"].below
