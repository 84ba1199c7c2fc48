# SPDX-License-Identifier: Apache-2.0
"""A copy of another size than the disk: old disks at home grow with the VM, other images are questioned."""

import subprocess
from pathlib import Path

import pytest

from person import printed
from seedship import store
from seedship.errors import InvalidRequest
from seedship.model import BLOCK, DiskIndex, DiskSpec, Lineage
from seedship.model.books import DestinationBook
from seedship.nbd import image
from seedship.workflows import Context, documents
from seedship.workflows.documents import DestinationDocument
from seedship.workflows.target import adoption

NAME = "a" * 32
pytestmark = [pytest.mark.qemu]


@pytest.fixture(params=["raw", "qcow2"])
def copy(site: Context, request: pytest.FixtureRequest) -> Path:
    """An image of two blocks, and a replication whose disk has three."""
    made = site.paths.data / f"old.{request.param}"
    image.create(made, request.param, 2 * BLOCK)
    document = DestinationDocument(
        (DiskSpec(DiskIndex(0), "vda", 3 * BLOCK, "raw"),),
        DestinationBook(Lineage(NAME)),
        "s" * 32,
        "",
        str(site.paths.data / "web1"),
        ("vda.raw",),
        missing=3,
    )
    row = store.Replication(
        NAME, "destination", "b" * 32, "u", "web1", "seeding", NAME, 1, -1, documents.encode(document)
    )
    site.catalog.replications.add(row, store.Along(keys=[store.StoredKey("1f" * 16, NAME, "hash", b"h" * 32)]))
    return made


def adoptable(site: Context, copy: Path) -> adoption.Adopted:
    """The image, as that of a VM that returns."""
    _, document = site.replications.destination(NAME)
    return adoption.checked(site, NAME, "u", "b" * 32, document.disks, {"vda": str(copy)}, grow=True)


@pytest.fixture(autouse=True)
def no_vms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seedship.hypervisor.inventory", lambda _: [])


def test_an_old_disk_grows_with_the_vm(site: Context, copy: Path) -> None:
    adoption.take_adopted(site, NAME, adoptable(site, copy))
    assert image.info(copy).virtual_size == 2 * BLOCK  # nothing is changed yet
    for _ in range(2):
        adoption.hash_adopted_images(site, NAME)
        assert image.info(copy).virtual_size == 3 * BLOCK
    _, document = site.replications.destination(NAME)
    assert (document.adopted, document.missing, document.disks[0].size) == ("hashed", 0, 3 * BLOCK)
    assert len(site.paths.hashes(NAME, 0).read_bytes()) == 3 * 16


@pytest.mark.remedy("workflows.target.adoption._adoptable: qemu-img resize -f … … …")
def test_a_named_image_of_another_size_is_questioned(site: Context, copy: Path) -> None:
    kind = copy.suffix[1:]
    with pytest.raises(InvalidRequest) as error:
        adoption.adopt_images(site, NAME, {"vda": str(copy)})
    (command,) = printed(f"{error.value} {error.value.advice()}")
    assert command == f"qemu-img resize -f {kind} {copy} {3 * BLOCK}"
    subprocess.run(["sh", "-ec", command], check=True, capture_output=True)
    adoption.adopt_images(site, NAME, {"vda": str(copy)})
    assert site.replications.destination(NAME)[1].adopted == "chosen"


def test_a_larger_image_is_never_cut_short(site: Context, copy: Path) -> None:
    image.resize(copy, copy.suffix[1:], 4 * BLOCK)
    with pytest.raises(InvalidRequest, match="--shrink"):
        adoptable(site, copy)
