# SPDX-License-Identifier: Apache-2.0
"""Storage pools as places of replicas: what a peer may ask for, what is made there, and what is never touched."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import libvirt
import msgspec
import pytest

from hostile_peer import DOMAIN, MIB, Ring, ring
from person import printed
from seedship import failpoints, paths
from seedship.errors import Conflict, HypervisorFailed, PoolUnavailable
from seedship.hypervisor import pool_volumes
from seedship.model import DiskIndex, DiskSpec, PreflightFinding, new_id
from seedship.nbd import image
from seedship.observe import pools as doctor
from seedship.observe import retained
from seedship.replica import Layers, Stack
from seedship.store import FORGOTTEN, Replication
from seedship.workflows import documents, messages
from seedship.workflows.documents import DestinationDocument
from seedship.workflows.source.request import _pool_findings
from seedship.workflows.target import PoolLists, adoption, applying, open_replica

POOLS = {"vms": "dir", "archive": "dir", "private": "dir", "lvm": "logical"}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Ring]:
    """A site with pools, of which ``private`` is not for replicas; each is a folder that holds somebody's image."""
    with (
        ring(tmp_path, storage={"pool": "vms", "pools": ["archive", "lvm", "gone"]}) as made,
        made.site.host.calling() as host,
    ):
        defined = []
        for name, kind in POOLS.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "theirs.qcow2").write_bytes(b"canary")
            source = "<source><name>vg0</name></source>" if kind == "logical" else ""
            text = (
                f"<pool type='{kind}'><name>{name}</name>{source}<target><path>{tmp_path / name}</path></target></pool>"
            )
            pool = host.storagePoolDefineXML(text, 0)
            pool.create(0)
            defined.append(pool)
        yield made
        for pool in defined:
            with suppress(libvirt.libvirtError):
                pool.destroy()
            pool.undefine()


def ask(here: Ring, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Request a VM; returns the request and the site's answer."""
    asked = here.request(**changes)
    return asked, here.call(here.evil, "Request", **asked)


def blockers(answer: dict[str, Any]) -> dict[str, str]:
    return {one["code"]: one["what"] for one in answer["findings"] if one["blocks"]}


def accepted(here: Ring, **changes: Any) -> tuple[Replication, DestinationDocument]:
    asked, answer = ask(here, **changes)
    assert blockers(answer) == {}
    [row] = here.site.catalog.replications.some([asked["replication"]])
    return row, documents.destination(row.document)


def test_a_peer_chooses_among_what_is_offered(here: Ring, tmp_path: Path) -> None:
    row, document = accepted(here, vm="web1")
    stem = f"web1-{row.id[:8]}"
    assert Path(document.folder) == tmp_path / "vms" / stem
    assert document.names == (str(tmp_path / "vms" / f"{stem}-vda.qcow2"),)
    _, answer = ask(here, pool="archive", probe=True)
    assert answer["pool"] == "archive"
    _, other = accepted(here, vm="web1", pool="archive")
    assert Path(other.folder).parent == tmp_path / "archive"


@pytest.mark.parametrize("pool", ["private", "../private", "/etc", "default", ".", "vms/../private", "'; reboot; '"])
def test_what_is_not_offered_is_refused_before_libvirt_is_asked(here: Ring, monkeypatch, pool: str) -> None:
    before = here.canaries()
    monkeypatch.setattr("seedship.hypervisor.find_pool", lambda *_: pytest.fail("libvirt was asked"))
    asked, answer = ask(here, pool=pool)
    assert "offers no storage pool" in blockers(answer)["there.pool"]
    assert here.site.catalog.replications.some([asked["replication"]]) == []
    assert here.canaries() == before


@pytest.mark.parametrize(
    "name", ["../../victim/file", "..", "/etc/passwd", "a b'c\"", ".hidden", ".removed-x", "x" * 200, "ä" * 100]
)
def test_a_vms_name_never_leaves_the_pool(here: Ring, tmp_path: Path, name: str) -> None:
    ident = str(uuid.uuid4())
    definition = DOMAIN.format(name="vm", uuid=ident, memory=512, vcpus=1)
    row, document = accepted(here, vm_uuid=ident, vm_name=name, definition=definition)
    [image_path] = map(Path, document.names)
    assert image_path.parent == tmp_path / "vms"
    with_layers = open_replica(here.site, row, document)
    with_layers.layers.pin("x")
    with_layers.layers.writable()
    assert with_layers.layers.path(0).parent == Path(document.folder)
    with_layers.close()
    assert image_path.is_file()


@pytest.mark.parametrize(("pool", "what"), [("lvm", "is of type logical"), ("gone", "has no storage pool gone")])
def test_pools_that_are_no_folders_or_do_not_exist(here: Ring, pool: str, what: str) -> None:
    _, answer = ask(here, pool=pool)
    assert what in blockers(answer)["there.pool"]


def test_a_pool_that_libvirt_does_not_answer_for(here: Ring, monkeypatch) -> None:
    def fails(*_: object) -> None:
        raise HypervisorFailed("vms", "cannot open the pool's driver")

    before = here.canaries()
    monkeypatch.setattr("seedship.hypervisor.find_pool", fails)
    assert "cannot open the pool's driver" in blockers(ask(here)[1])["there.hypervisor"]
    assert here.canaries() == before


def test_a_destination_that_knows_no_pools_is_not_silently_accepted() -> None:
    note = PreflightFinding("there.space-overcommitted", False, "little room")
    [finding] = _pool_findings("archive", messages.Accepted((note,)))
    assert finding.blocks
    assert "--pool" in finding.clear
    assert _pool_findings("archive", messages.Accepted((note,), pool="archive")) == []
    assert _pool_findings("", messages.Accepted((note,), pool="vms")) == []


def test_the_doctor_names_pools_that_need_something(here: Ring, tmp_path: Path) -> None:
    def states() -> dict[str, str]:
        return {finding.what: finding.state for finding in doctor.findings(here.site)}

    assert states()["The storage pool vms is not started at boot"] == "warn"
    assert states()["libvirt has no storage pool gone"] == "fail"
    with here.site.host.calling() as host:
        host.storagePoolLookupByName("vms").setAutostart(1)
        assert states()["The storage pool vms is active"] == "ok"
        host.storagePoolLookupByName("vms").destroy()
    assert states()["The storage pool vms is not active"] == "fail"
    assert "is not active" in blockers(ask(here)[1])["there.pool"]
    shutil.rmtree(tmp_path / "archive")
    assert any("does not exist" in what for what in states())


@pytest.mark.remedy("workflows.provisioning.pools.image_place: mv … ….old")
def test_a_file_that_has_the_name_already(here: Ring, tmp_path: Path) -> None:
    """A peer chooses the id, so it can aim; the file is refused at the request, and at the first import."""
    ident = new_id()
    theirs = tmp_path / "vms" / f"web1-{ident[:8]}-vda.qcow2"
    theirs.write_bytes(b"canary")
    _, answer = ask(here, vm="web1", replication=ident)
    assert "has a file" in blockers(answer)["there.volume"]
    (aside,) = [one["clear"] for one in answer["findings"] if one["code"] == "there.volume"]
    subprocess.run(["sh", "-ec", printed(aside)[0]], check=True)
    moved = theirs.with_name(f"{theirs.name}.old")
    assert moved.read_bytes() == b"canary"
    row, document = accepted(here, vm="web1", replication=ident)
    theirs.write_bytes(b"canary")
    with pytest.raises(Conflict):
        open_replica(here.site, row, document)
    here.abort(here.evil, row.id)
    assert here.site.replications.destination(row.id)[1].clean
    assert theirs.read_bytes() == b"canary"
    assert not Path(document.folder).exists()


@pytest.mark.parametrize("point", ["", "replica.noted"])
def test_an_abort_removes_what_was_made_and_nothing_else(here: Ring, tmp_path: Path, point: str) -> None:
    before = here.canaries()
    kept, _ = accepted(here, vm="web1")
    row, document = accepted(here, vm="web1")
    open_replica(here.site, kept, documents.destination(kept.document)).close()
    if point:
        failpoints.arm(point, "raise")
        with pytest.raises(failpoints.InjectedFailure):
            open_replica(here.site, row, document)
        failpoints.disarm(point)
    else:
        open_replica(here.site, row, document).close()
    assert Path(document.names[0]).exists() == (not point)
    here.abort(here.evil, row.id)
    assert not Path(document.names[0]).exists()
    assert Path(documents.destination(kept.document).names[0]).is_file()
    here.abort(here.evil, kept.id)
    assert here.canaries() == before


@pytest.mark.failure_mode(
    "The file system of a storage pool with replicas is not mounted (NFS is away, the pool is stopped or not started after a restart)",
    "Nothing is written below the mount point: epochs wait, aborts wait, requests are refused; all resume when it is mounted",
    "nothing",
)
@pytest.mark.remedy("workflows.provisioning.pools.insist_mounted: mount …")
def test_nothing_is_written_below_a_bare_mount_point(here: Ring, tmp_path: Path) -> None:
    pool, aside = tmp_path / "vms", tmp_path / "aside"
    aside.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300M", "none", pool], check=True)
    mounted = pool
    try:
        row, document = accepted(here, vm="web1")
        untouched, _ = accepted(here, vm="web2")
        open_replica(here.site, row, document).close()
        with closing(here.site.volumes.open(str(pool))) as drive:
            assert str(pool) in drive.refusal()
        subprocess.run(["mount", "--move", pool, aside], check=True)
        mounted = aside
        bare = sorted(path.name for path in pool.iterdir())
        for one in (row, untouched):
            with pytest.raises(PoolUnavailable) as error:
                open_replica(here.site, *here.site.replications.destination(one.id))
            (mount,) = printed(error.value.advice())
            assert mount == f"mount {pool}"
        with suppress(PoolUnavailable):
            here.abort(here.evil, row.id)
        assert not here.site.replications.destination(row.id)[1].clean
        _, answer = ask(here)
        assert f"No file system is mounted at {pool}" in blockers(answer)["there.pool"]
        assert any("No file system" in finding.what for finding in doctor.findings(here.site))
        PoolLists(here.site).compare()
        assert sorted(path.name for path in pool.iterdir()) == bare == ["theirs.qcow2"]
        table = tmp_path / "fstab"
        table.write_text(f"{aside} {pool} none bind\n")
        subprocess.run(["sh", "-ec", mount], check=True, env={**os.environ, "LIBMOUNT_FSTAB": str(table)})
        applying.clean_replica(here.site, row.id)
        assert list(pool.iterdir()) == []
        open_replica(here.site, *here.site.replications.destination(untouched.id)).close()
        assert len(list(pool.iterdir())) == 2
    finally:
        subprocess.run(["umount", "--lazy", pool], check=False)
        subprocess.run(["umount", "--lazy", mounted], check=mounted != pool)


def test_a_replica_whose_folder_is_gone_is_not_begun_anew(here: Ring) -> None:
    row, document = accepted(here)
    open_replica(here.site, row, document).close()
    Path(document.folder).rename(f"{document.folder}.aside")
    with pytest.raises(PoolUnavailable):
        open_replica(here.site, row, document)
    assert not Path(document.folder).exists()


def test_retained_volumes_are_deleted_with_their_folder_unless_they_are_used(here: Ring, tmp_path: Path) -> None:
    row, document = accepted(here, vm="web1")
    open_replica(here.site, row, document).close()
    [volume] = map(Path, document.names)
    folder = Path(document.folder)
    here.site.catalog.replications.remove(row.id)
    here.site.catalog.events.note(row.id, FORGOTTEN, {})
    overlay = tmp_path / "vms" / "clone.qcow2"
    image.create(overlay, "qcow2", 64 * MIB, backing=volume, backing_format="qcow2")
    with pytest.raises(Conflict, match="based on it"):
        retained.remove(here.site, folder.name, "web1")
    overlay.unlink()
    with volume.open("rb"), pytest.raises(Conflict, match="process"):
        retained.remove(here.site, folder.name, "web1")
    assert volume.is_file()
    assert folder.is_dir()
    left = retained.remove(here.site, folder.name, "web1")
    assert left.size >= 64 << 10
    assert not volume.exists()
    assert [path.name for path in (tmp_path / "vms").iterdir()] == ["theirs.qcow2"]


def test_a_list_of_volumes_names_nothing_but_ours(tmp_path: Path) -> None:
    """Whoever can write into the pool's folder cannot have other files deleted."""
    folder = tmp_path / "web1-0123abcd"
    folder.mkdir()
    for text in ('["../victim", "/etc/passwd", "theirs.qcow2", "web1-0123abcd", 7]', "{", '{"a": 1}', "null"):
        (folder / "volumes.json").write_text(text)
        assert paths.volumes(folder) == []


def test_layers_of_a_replica_in_a_pool(tmp_path: Path) -> None:
    """Only layer 0 is a volume, of a disk that was added as well; an emptied disk is empty."""
    folder, state = tmp_path / "vm-0123abcd", tmp_path / "state"
    folder.mkdir()
    names = tuple(str(paths.volume(folder, target, "qcow2")) for target in ("vda", "vdb"))
    layers = Layers.create(state, folder, Stack(names, ("qcow2", "raw"), (MIB, MIB)))
    layers.pin("open:x")
    layers.grow((MIB, MIB, MIB), [(str(paths.volume(folder, "vdc", "qcow2")), "qcow2")])
    layers.writable()
    expected = {f"vm-0123abcd-{target}.qcow2" for target in ("vda", "vdb", "vdc")}
    assert {path.name for path in tmp_path.glob("vm-*") if path.is_file()} == expected
    assert {path.name for path in paths.volumes(folder)} == expected
    assert {path.name for path in folder.iterdir()} == {*(f"{name}.layer1" for name in expected), "volumes.json"}
    layers.unpin("open:x")
    Path(names[1]).write_bytes(b"x" * MIB)
    layers.empty(1)
    assert Path(names[1]).read_bytes() == bytes(MIB)
    layers.remove()
    assert list(tmp_path.glob("vm-*-*")) == []


def test_added_disks_get_names_of_volumes(here: Ring) -> None:
    _, document = accepted(here)
    more = (*document.disks, DiskSpec(DiskIndex(1), "vdb", MIB, "qcow2"))
    assert document.names_for(more) == (document.names[0], f"{document.folder}-vdb.qcow2")
    plain = msgspec.structs.replace(document, pool=None, names=("vda.qcow2",))
    assert plain.names_for(more) == ("vda.qcow2", "vdb.qcow2")


def test_a_pool_whose_list_is_right_is_not_refreshed(here: Ring, monkeypatch) -> None:
    """libvirt's test driver lists what it was told of: a file is never listed, so one refresh is tried for each change."""
    refreshed: list[str] = []
    monkeypatch.setattr("seedship.hypervisor.refresh_pool", lambda _host, name: refreshed.append(name))
    lists = PoolLists(here.site)
    lists.compare()
    row, document = accepted(here)
    lists.compare()
    assert refreshed == []
    open_replica(here.site, row, document).close()
    lists.compare()
    lists.compare()
    assert refreshed == ["vms"]
    assert pool_volumes(here.site.host, "gone") is None
    os.unlink(document.names[0])
    lists.compare()
    assert refreshed == ["vms"]


def test_a_pool_that_was_defined_anew_elsewhere_is_not_refreshed_for_ever(
    here: Ring, tmp_path: Path, monkeypatch
) -> None:
    row, document = accepted(here)
    open_replica(here.site, row, document).close()
    with here.site.host.calling() as host:
        pool = host.storagePoolLookupByName("vms")
        pool.destroy()
        pool.undefine()
        (tmp_path / "vms2").mkdir()
        text = f"<pool type='dir'><name>vms</name><target><path>{tmp_path / 'vms2'}</path></target></pool>"
        host.storagePoolDefineXML(text, 0).create(0)
    row, document = accepted(here)
    open_replica(here.site, row, document).close()
    refreshed: list[str] = []
    listed: set[str] = set()
    monkeypatch.setattr("seedship.hypervisor.refresh_pool", lambda _host, name: refreshed.append(name))
    monkeypatch.setattr("seedship.hypervisor.pool_volumes", lambda _host, _name: frozenset(listed))
    lists = PoolLists(here.site)
    lists.compare()
    assert refreshed == ["vms"]
    listed.add(Path(document.names[0]).name)
    for _ in range(3):
        lists.compare()
    assert refreshed == ["vms"]


@pytest.mark.parametrize("gone", ["the folder", "the file system"])
def test_a_pool_that_is_away_is_not_refreshed(here: Ring, tmp_path: Path, monkeypatch, gone: str) -> None:
    """libvirt stops a pool whose refresh fails."""
    row, document = accepted(here)
    open_replica(here.site, row, document).close()
    refreshed: list[str] = []
    monkeypatch.setattr("seedship.hypervisor.refresh_pool", lambda _host, name: refreshed.append(name))
    listed = frozenset({"deleted-0123abcd-vda.qcow2"})
    monkeypatch.setattr("seedship.hypervisor.pool_volumes", lambda *_: listed)
    lists = PoolLists(here.site)
    if gone == "the folder":
        (tmp_path / "vms").rename(tmp_path / "away")
    else:
        assert document.pool is not None
        place = msgspec.structs.replace(document.pool, mount=str(tmp_path / "vms"))
        here.site.replications.change_destination(row.id, lambda d: msgspec.structs.replace(d, pool=place))
        os.unlink(document.names[0])
    lists.compare()
    assert refreshed == []
    if gone == "the folder":
        (tmp_path / "away").rename(tmp_path / "vms")
        os.unlink(document.names[0])
        lists.compare()
        assert refreshed == ["vms"]


def test_a_probe_tells_nothing_of_another_peers_replication(here: Ring) -> None:
    asked = here.replicate(here.honest, vm="secret")
    answer = here.call(here.evil, "Request", **here.request(replication=asked["replication"], probe=True))
    assert "secret" not in str(answer)


def test_a_vm_that_is_defined_while_its_disk_is_deleted_keeps_it(here: Ring, monkeypatch) -> None:
    row, document = accepted(here, vm="web1")
    open_replica(here.site, row, document).close()
    [volume] = map(Path, document.names)
    here.site.catalog.replications.remove(row.id)
    here.site.catalog.events.note(row.id, FORGOTTEN, {})
    text = DOMAIN.format(name="rescued", uuid=uuid.uuid4(), memory=512, vcpus=1).replace("'kvm'", "'test'")
    compared = retained.Storage._based_on

    def meanwhile(storage: retained.Storage, folder: Path) -> str:
        with here.site.host.calling() as host:
            host.defineXML(text.replace("/theirs.qcow2", str(volume)))
        return compared(storage, folder)

    monkeypatch.setattr(retained.Storage, "_based_on", meanwhile)
    with pytest.raises(Conflict, match="the VM rescued"):
        retained.remove(here.site, Path(document.folder).name, "web1")
    with here.site.host.calling() as host:
        host.lookupByName("rescued").undefine()
    assert volume.is_file()
    assert Path(document.folder).is_dir()


@pytest.mark.parametrize("whose", ["a replica", "a VM that is off"])
def test_an_image_that_is_in_use_is_not_adopted(here: Ring, tmp_path: Path, whose: str) -> None:
    row, document = accepted(here, vm="web1")
    open_replica(here.site, row, document).close()
    path = Path(document.names[0])
    if whose != "a replica":
        path = tmp_path / "off.qcow2"
        image.create(path, "qcow2", 64 * MIB)
        text = DOMAIN.format(name="idle", uuid=uuid.uuid4(), memory=512, vcpus=1).replace("'kvm'", "'test'")
        with here.site.host.calling() as host:
            host.defineXML(text.replace("/theirs.qcow2", str(path)))
    other, _ = accepted(here, vm="web2")
    try:
        with pytest.raises(Conflict, match="is in use by"):
            adoption.adopt_images(here.site, other.id, {"vda": str(path)})
    finally:
        if whose != "a replica":
            with here.site.host.calling() as host:
                host.lookupByName("idle").undefine()


@pytest.mark.remedy("workflows.provisioning.pools.insist_mounted: mount -t tmpfs none …")
def test_an_abort_ends_though_the_pools_file_system_is_lost(here: Ring, tmp_path: Path) -> None:
    """The error names what to do."""
    pool = tmp_path / "vms"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300M", "none", pool], check=True)
    try:
        row, _ = accepted(here, vm="web1")
        moved, moved_document = accepted(here, vm="web2")
        for one in (row, moved):
            open_replica(here.site, *here.site.replications.destination(one.id)).close()
        folder, [volume] = Path(moved_document.folder), map(Path, moved_document.names)
        shutil.copytree(folder, tmp_path / "copy")
    finally:
        subprocess.run(["umount", pool], check=True)
    shutil.copytree(tmp_path / "copy", folder)
    volume.write_bytes(b"moved by hand, with its record")
    here.abort(here.evil, moved.id)
    assert here.site.replications.destination(moved.id)[1].clean
    assert not volume.exists()
    here.deliver(here.evil, "aborted", replication=row.id)
    with pytest.raises(PoolUnavailable) as error:
        applying.clean_replica(here.site, row.id)
    empty = printed(error.value.advice())[-1]
    assert empty == f"mount -t tmpfs none {pool}"
    subprocess.run(["sh", "-ec", empty], check=True)
    try:
        applying.clean_replica(here.site, row.id)
    finally:
        subprocess.run(["umount", pool], check=True)
    assert here.site.replications.destination(row.id)[1].clean
