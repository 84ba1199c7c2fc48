# SPDX-License-Identifier: Apache-2.0
"""Which folders of images count as left over, and that nothing which is used can be deleted. With real images and processes."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import person
from observing import add_destination, add_source, make_site
from person import printed
from seedship import hypervisor, nbd, store
from seedship.errors import Conflict, InvalidRequest, NotFound
from seedship.hypervisor import Disk, ImageLayer, Vm
from seedship.observe import retained
from seedship.observe.retained import Storage
from seedship.workflows import documents
from seedship.workflows.documents import Base, Clone

OLD = 0x11111111 << 96


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = make_site(tmp_path)
    monkeypatch.setattr(hypervisor, "inventory", lambda host: [])
    yield made
    made.stop.set()
    made.catalog.close()


@pytest.fixture
def left(site) -> Path:
    """What stays of a replication whose VM left."""
    return folder_of(site, OLD, "done", clean=True)


def folder_of(site, number: int, state: str, **changes) -> Path:
    folder = site.paths.replica("vm", f"{number:032x}")
    add_destination(site, number, state, folder=str(folder), **changes)
    folder.mkdir()
    nbd.image.create(folder / "vda.qcow2", "qcow2", 1 << 20)
    return folder


def vm_on(path: Path, *, xml: str = "") -> Vm:
    disk = Disk("vda", "disk", "file", "virtio", (ImageLayer(str(path), "qcow2"),))
    return Vm("u", "vm7", (disk,), "kvm", "q35", "", 1, state="shut-off", xml=xml)


def listed(site, *vms: Vm) -> list[Path]:
    return [one.path for one in Storage(site, list(vms)).retained()]


@pytest.mark.remedy("observe.retained.RetainedFolder.shown: seedship storage delete … --confirm …")
def test_what_a_vm_that_left_had_is_listed_and_deleted(site, left: Path) -> None:
    (shown,) = [one.shown() for one in Storage(site, []).retained()]
    assert shown["path"] == str(left)
    assert shown["size"] >= (left / "vda.qcow2").stat().st_blocks * 512 > 0
    (finding,) = Storage(site, []).findings()
    assert str(left) in finding.what
    (remove,) = printed(finding.remedy)
    assert shown["remove"] == remove
    person.at(site).works(remove)
    assert not left.exists()
    assert listed(site) == []
    assert list(site.config.replicas.iterdir()) == []


def test_a_forgotten_replication_s_images(site, left: Path) -> None:
    site.catalog.replications.remove(f"{OLD:032x}")
    site.catalog.events.note(f"{OLD:032x}", store.FORGOTTEN)
    assert listed(site) == [left]
    retained.remove(site, left.name, "vm")
    assert not left.exists()


def test_another_name_confirms_nothing(site, left: Path) -> None:
    with pytest.raises(InvalidRequest, match="is not the name of the folder's VM"):
        retained.remove(site, left.name, "vm1")
    assert (left / "vda.qcow2").exists()


def test_what_nobody_here_knows_is_not_touched(site, left: Path) -> None:
    stranger = site.config.replicas / "web-99999999"
    stranger.mkdir()
    (site.config.replicas / "notes").mkdir()
    (site.config.replicas / "vm-11111111-link").symlink_to(left)
    assert listed(site) == [left]
    for name in ("web-99999999", "notes", "..", f"../replicas/{left.name}"):
        with pytest.raises(NotFound):
            retained.remove(site, name, "vm")
    assert stranger.exists()


@pytest.mark.parametrize(
    ("state", "clean"), [("in-sync", False), ("switching-over", False), ("done", False), ("aborted", False)]
)
def test_a_replication_that_has_not_ended_here(site, state: str, clean: bool) -> None:
    folder = folder_of(site, OLD, state, clean=clean)
    assert listed(site) == []
    with pytest.raises(NotFound):
        retained.remove(site, folder.name, "vm")


def test_a_vm_on_the_images_or_above_them(site, left: Path, monkeypatch) -> None:
    above = site.config.replicas / "clone.qcow2"
    nbd.image.create(above, "qcow2", 1 << 20, backing=left / "vda.qcow2")
    variables = vm_on(Path("/elsewhere"), xml=f"<nvram>{left}/vm_VARS.fd</nvram>")
    for vm in (vm_on(left / "vda.qcow2"), vm_on(above), variables):
        assert listed(site, vm) == []
        monkeypatch.setattr(hypervisor, "inventory", lambda host, vm=vm: [vm])
        with pytest.raises(Conflict, match="the VM vm7"):
            retained.remove(site, left.name, f"vm{OLD}")
    monkeypatch.setattr(hypervisor, "inventory", lambda host: [])
    with pytest.raises(Conflict, match=r"clone\.qcow2, which is based on it"):
        retained.remove(site, left.name, f"vm{OLD}")
    assert (left / "vda.qcow2").exists()


def test_a_replication_that_leaves_from_the_images(site, left: Path) -> None:
    """Also while its VM has no definition here, as between the two owners of a switchover."""
    add_source(site, 2, "switching-over", bases={"vda": Base(str(left / "vda.qcow2"), "qcow2")})
    assert listed(site) == []
    with pytest.raises(Conflict, match="the replication 00000000 of vm2"):
        retained.remove(site, left.name, f"vm{OLD}")
    row = site.catalog.replications.get(f"{2:032x}")
    site.catalog.replications.change(
        row,
        msgspec.structs.replace(row, document=documents.encode(documents.source(row.document).with_images(bases={}))),
    )
    assert listed(site) == [left]


def test_the_same_vm_that_leaves(site, left: Path) -> None:
    mine = site.catalog.replications.get(f"{OLD:032x}")
    row = add_source(site, 2, "switching-over")
    site.catalog.replications.change(row, msgspec.structs.replace(row, vm_uuid=mine.vm_uuid))
    assert listed(site) == []


def test_images_that_are_a_seed_again(site, left: Path) -> None:
    add_destination(site, 3, "seeding", adopted="chosen", names=(str(left / "vda.qcow2"), "/x"))
    assert listed(site) == []


def test_a_clone_stands_on_them(site) -> None:
    clone = Clone("c" * 32, "web-copy", "u", "/elsewhere/web-copy-cccccccc", phase="ready")
    folder = folder_of(site, OLD, "done", clean=True, clones=(clone,))
    assert listed(site) == []
    with pytest.raises(Conflict, match="the clone web-copy"):
        retained.remove(site, folder.name, f"vm{OLD}")


def test_a_process_that_reads_an_image(site, left: Path) -> None:
    script = "import sys; f = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(left / "vda.qcow2")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        with pytest.raises(Conflict, match=f"process {reader.pid}"):
            retained.remove(site, left.name, f"vm{OLD}")
        reader.communicate()
    retained.remove(site, left.name, f"vm{OLD}")
    assert not left.exists()


def test_qemu_s_locks_are_seen(left: Path) -> None:
    image = left / "vda.qcow2"
    assert not nbd.is_open(image)
    with nbd.serve(image, "qcow2", read_only=True, force_share=False):
        assert nbd.is_open(image)
        assert not nbd.is_written(image)
    assert not nbd.is_open(image)


def test_somebody_opens_an_image_at_the_last_moment(site, left: Path, monkeypatch) -> None:
    """Between the check and the new name: it gets its name back."""
    real, asked = retained.holder, []

    def late(folder: Path) -> str:
        asked.append(folder)
        return "process 7" if len(asked) > 1 else real(folder)

    monkeypatch.setattr(retained, "holder", late)
    with pytest.raises(Conflict, match="process 7"):
        retained.remove(site, left.name, f"vm{OLD}")
    assert (left / "vda.qcow2").exists()


def test_a_removal_that_was_cut_off_is_done_by_the_same_command(site, left: Path) -> None:
    away = left.with_name(f".removed-{left.name}")
    left.rename(away)
    assert listed(site) == [away]
    assert listed(site, vm_on(left / "vda.qcow2")) == []
    retained.remove(site, left.name, f"vm{OLD}")
    assert not away.exists()
