# SPDX-License-Identifier: Apache-2.0
"""A VM returns onto the disks that it left: whatever is against it is said before anything is written."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostile_peer import DOMAIN, MIB, Ring, ring
from seedship import store
from seedship.errors import Conflict, FolderSilent
from seedship.model import DiskIndex, DiskSpec, Epoch, Lineage, new_id
from seedship.model.books import SourceBook
from seedship.nbd import image
from seedship.workflows import documents
from seedship.workflows.documents import FencingRecord, GivenUp, SourceDocument
from seedship.workflows.target import adopt_images, choose_storage
from silent import silent_folder

SIZE = 64 * MIB


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Ring]:
    with ring(tmp_path) as made:
        yield made


@contextmanager
def defined(here: Ring, name: str, path: Path, image_format: str = "qcow2") -> Iterator[str]:
    """A VM that is off, with a disk."""
    ident = str(uuid.uuid4())
    text = DOMAIN.format(name=name, uuid=ident, memory=512, vcpus=1).replace("'kvm'", "'test'")
    with here.site.host.calling() as host:
        host.defineXML(text.replace("/theirs.qcow2", str(path)).replace("'qcow2'", f"'{image_format}'"))
    yield ident
    with here.site.host.calling() as host:
        host.lookupByUUIDString(ident).undefine()


@pytest.fixture
def left(here: Ring, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The request of a VM that was given up to the peer, and whose disk is here."""
    path = tmp_path / "old.qcow2"
    image.create(path, "qcow2", SIZE)
    with defined(here, "web1", path) as ident:
        disks = (DiskSpec(DiskIndex(0), "vda", SIZE, "qcow2"),)
        book = SourceBook(Lineage("a" * 32), Epoch(5), "c" * 32)
        document = SourceDocument(disks, book, "s" * 32, ownership=GivenUp(FencingRecord(2)), clean=True)
        row = store.Replication(
            new_id(), "source", here.evil.me.site, ident, "web1", "done", "a" * 32, 2, 5, documents.encode(document)
        )
        here.site.catalog.replications.add(row)
        yield here.request(vm="web1", vm_uuid=ident, home=True)


def blockers(here: Ring, asked: dict[str, Any]) -> dict[str, str]:
    answer = here.call(here.evil, "Request", **asked)
    return {one["code"]: f"{one['what']}. {one['clear']}" for one in answer["findings"] if one["blocks"]}


def facts(here: Ring) -> tuple[object, ...]:
    """What a refused request must not change."""
    catalog = here.site.catalog
    return (
        [row.id for row in catalog.replications.all()],
        [shipment.id for shipment in catalog.shipments.all()],
        here.canaries(),
        sorted(str(path) for path in here.site.paths.data.rglob("*") if "catalog" not in path.name),
    )


def as_linked(path: Path) -> Path:
    other = path.with_name("hard.qcow2")
    os.link(path, other)
    return other


def as_symlinked(path: Path) -> Path:
    other = path.with_name("soft.qcow2")
    other.symlink_to(path)
    return other


def as_base(path: Path) -> Path:
    """The newest of two images above it; libvirt names only that one while the VM is off."""
    for other, below in (("first", path), ("second", path.with_name("first"))):
        image.create(path.with_name(other), "qcow2", SIZE, backing=below, backing_format="qcow2")
    return path.with_name("second")


USES = [lambda path: path, as_linked, as_symlinked, as_base]


@pytest.mark.failure_mode(
    "A VM is to return onto its old disks, and another VM that is off was given one of them meanwhile",
    "Refused in preflight, which names the VM; nothing is written",
    "nothing",
)
@pytest.mark.parametrize("uses", USES, ids=["itself", "hard link", "link", "below two images"])
@pytest.mark.parametrize("probe", [True, False])
def test_a_disk_that_another_vm_has_is_not_returned_to(
    here: Ring, left: dict[str, Any], tmp_path: Path, uses, probe
) -> None:
    with defined(here, "other", uses(tmp_path / "old.qcow2")):
        before = facts(here)
        refused = blockers(here, left | {"probe": probe})
        assert "in use by the VM other" in refused["there.no-home-image"]
        assert facts(here) == before
    assert blockers(here, left) == {}
    [row] = here.site.catalog.replications.some([left["replication"]])
    document = documents.destination(row.document)
    assert (document.adopted, document.names) == ("chosen", (str(tmp_path / "old.qcow2"),))


@pytest.mark.parametrize("why", ["larger", "gone", "based on another", "being written"])
def test_a_refused_return_leaves_nothing(here: Ring, left: dict[str, Any], tmp_path: Path, why: str) -> None:
    path = tmp_path / "old.qcow2"
    if why == "larger":
        image.resize(path, "qcow2", 2 * SIZE)
    elif why == "gone":
        path.unlink()
    elif why == "based on another":
        path.unlink()
        image.create(tmp_path / "base", "raw", SIZE)
        image.create(path, "qcow2", SIZE, backing=tmp_path / "base", backing_format="raw")
    before = facts(here)
    if why == "being written":
        with image.server.serve(path, "qcow2", read_only=False):
            assert "lock" in blockers(here, left)["there.no-home-image"]
            assert facts(here) == before
    else:
        assert str(path) in blockers(here, left)["there.no-home-image"]
        assert facts(here) == before


def test_a_return_that_an_earlier_version_accepted_gets_its_disks(
    here: Ring, left: dict[str, Any], tmp_path: Path
) -> None:
    """It was killed between the row and the choice of the disks."""
    assert blockers(here, left) == {}
    here.site.replications.change_destination(
        left["replication"], lambda d: msgspec.structs.replace(d, adopted="", names=("vda.qcow2",))
    )
    assert blockers(here, left) == {}
    document = here.site.replications.destination(left["replication"])[1]
    assert (document.adopted, document.names) == ("chosen", (str(tmp_path / "old.qcow2"),))


@pytest.mark.parametrize("uses", USES, ids=["itself", "hard link", "link", "below two images"])
@pytest.mark.parametrize("whose", ["a VM", "a replica"])
def test_an_image_in_use_by_another_name_is_not_adopted(here: Ring, tmp_path: Path, uses, whose: str) -> None:
    path = tmp_path / "old.qcow2"
    image.create(path, "qcow2", SIZE)
    other = uses(path)
    asked, theirs = here.replicate(here.evil), here.replicate(here.honest)
    if whose == "a VM":
        with defined(here, "other", other), pytest.raises(Conflict, match="in use by the VM other"):
            adopt_images(here.site, asked["replication"], {"vda": str(path)})
        return
    here.site.replications.change_destination(
        theirs["replication"], lambda d: msgspec.structs.replace(d, names=(str(path),))
    )
    if uses is not as_base:
        with pytest.raises(Conflict, match="in use by the replication"):
            adopt_images(here.site, asked["replication"], {"vda": str(other)})


def test_a_path_that_a_vm_names_gets_no_replica(here: Ring, tmp_path: Path) -> None:
    """The VM is off, and its image is away: it would start on the replica."""
    asked, path = here.replicate(here.evil), tmp_path / "away.qcow2"
    with defined(here, "other", path), pytest.raises(Conflict, match="is a disk of the VM other"):
        choose_storage(here.site, asked["replication"], {"vda": str(path)})


def test_two_disks_are_not_one_file(here: Ring) -> None:
    """One is named where the other is made without being named."""
    asked = here.replicate(here.evil)
    document = here.site.replications.destination(asked["replication"])[1]
    second = msgspec.structs.replace(document.disks[0], index=DiskIndex(1), target="vdb")
    here.site.replications.change_destination(
        asked["replication"],
        lambda d: msgspec.structs.replace(d, disks=(*d.disks, second), names=(*d.names, "vdb.qcow2")),
    )
    Path(document.folder).mkdir()
    with pytest.raises(Conflict, match="is that of another disk"):
        choose_storage(here.site, asked["replication"], {"vdb": f"{document.folder}/{document.names[0]}"})


@pytest.mark.failure_mode(
    "The file server of an image that is to be adopted, or of a VM that is off, does not answer",
    "The request is refused after 10 s, and names the folder; nothing is written",
    "nothing",
)
@pytest.mark.parametrize("what", ["the image", "the disk of a VM that is off"])
def test_a_silent_file_server_is_not_waited_for(
    here: Ring, left: dict[str, Any], tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seedship.runtime.answering.ANSWER_S", 1.0)
    with silent_folder(tmp_path / "server") as server:
        asked = here.replicate(here.honest)
        if what == "the image":
            server.stop()
            with pytest.raises(FolderSilent, match=str(server.path)):
                adopt_images(here.site, asked["replication"], {"vda": str(server.path / "nbd")})
            return
        with defined(here, "other", server.path / "nbd", "raw"):
            server.stop()
            refused = blockers(here, left)
            assert str(server.path) in refused["there.storage-silent"]
            assert "dmesg" in refused["there.storage-silent"]
            server.go_on()
            assert blockers(here, left) == {}
