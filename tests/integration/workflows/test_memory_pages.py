# SPDX-License-Identifier: Apache-2.0
"""Pages of memory on disks: read at the source below its overlays, and at the destination from the frozen replica."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from memory_streams import PAGE, noise
from observing import PEER, add_destination, make_site
from seedship import clock, hypervisor, nbd
from seedship.errors import NbdFailed, PeerRefused
from seedship.hypervisor import ImageLayer
from seedship.model import AttemptId, DiskSpec, Generation
from seedship.model import DiskIndex as Number
from seedship.model.books.ownership import DestinationHandover
from seedship.nbd import image
from seedship.replica.layers import LAYERS, Layers, Stack
from seedship.units import MiB
from seedship.workflows import Context
from seedship.workflows.switchover import ReplicaPages, incoming
from seedship.workflows.switchover.memory_pages import DiskIndex

SIZE = 4 * MiB
ATTEMPT = "a" * 32
CONTENT = [noise(200), noise(100)]
NEWER = noise(1)[0]


def write(path: Path, kind: str, pages: Sequence[bytes], first: int = 0) -> None:
    with nbd.serve(path, kind, read_only=False) as socket, nbd.Writer(socket, nbd.EXPORT) as writer:
        writer.write(b"".join(pages), first * PAGE)
        writer.flush()


def servers() -> int:
    return sum("qemu-nbd" in child.name() for child in psutil.Process().children(recursive=True))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Context]:
    """It is ready for a VM: the replica is frozen, and a layer is above it that the VM's writes come into."""
    made = make_site(tmp_path)
    handover = DestinationHandover(AttemptId(ATTEMPT), Generation(1))
    folder = tmp_path / "replicas" / "vm1"
    folder.mkdir()
    disks = (DiskSpec(Number(0), "vda", SIZE, "qcow2"), DiskSpec(Number(1), "vdb", SIZE, "raw"))
    row = add_destination(
        made, 1, "switching-over", handover=handover, incoming="<domain/>", folder=str(folder), disks=disks
    )
    state = made.paths.replication(row.id) / "replica" / LAYERS
    state.parent.mkdir(parents=True)
    layers = Layers.create(state, folder, Stack(("vda.qcow2", "vdb.raw"), ("qcow2", "raw"), (SIZE, SIZE)))
    for disk, pages in enumerate(CONTENT):
        write(layers.path(disk), layers.format(disk), pages)
    layers.pin(incoming.PIN)
    layers.writable()
    write(layers.path(0), "qcow2", [NEWER], 7)
    yield made
    made.catalog.close()


@pytest.fixture
def pages(site: Context) -> Iterator[ReplicaPages]:
    made = ReplicaPages(site, site.peers.get(PEER.site), ATTEMPT)
    yield made
    made.close()


def test_the_frozen_replica_is_read_while_the_copy_has_it_open(site: Context, pages: ReplicaPages) -> None:
    top = Path(site.replications.destination(f"{1:032x}")[1].folder) / "vda.qcow2.layer1"
    places = [(disk, page) for disk, content in enumerate(CONTENT) for page in range(len(content))]
    random.Random(1).shuffle(places)
    with nbd.serve(top, "qcow2", read_only=False):
        found = pages.read(places)
    assert found == [CONTENT[disk][page] for disk, page in places]  # not what is newer
    assert pages.read([(0, SIZE // PAGE - 1), (0, 7), (0, 7)]) == [bytes(PAGE), CONTENT[0][7], CONTENT[0][7]]


@pytest.mark.parametrize("place", [(0, SIZE // PAGE), (1, 1 << 60), (2, 0), (65535, 0)])
def test_places_that_are_not_there_end_the_reading(pages: ReplicaPages, place: tuple[int, int]) -> None:
    assert pages.read([(0, 0)])
    with pytest.raises(NbdFailed):
        pages.read([(0, 0), place])
    with pytest.raises(NbdFailed):
        pages.read([(0, 0)])


def test_another_attempt_and_another_peer_read_nothing(site: Context) -> None:
    with pytest.raises(PeerRefused):
        ReplicaPages(site, site.peers.get(PEER.site), "b" * 32).read([(0, 0)])
    stranger = SimpleNamespace(site="other")
    with pytest.raises(PeerRefused):
        ReplicaPages(site, stranger, ATTEMPT).read([(0, 0)])  # type: ignore[arg-type]


def test_the_servers_end_with_the_tunnel(pages: ReplicaPages) -> None:
    before = servers()
    pages.read([(0, 0), (1, 0)])
    assert servers() == before + 2
    pages.close()
    assert servers() == before
    with pytest.raises(NbdFailed):
        pages.read([(0, 0)])


@pytest.fixture
def indexed(site: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DiskIndex]:
    """Begins an index of a VM with two disks, which have overlays."""
    chains = {}
    for (target, kind), content in zip((("vda", "qcow2"), ("vdb", "raw")), CONTENT, strict=True):
        below, above = tmp_path / f"{target}.{kind}", tmp_path / f"{target}.overlay"
        image.create(below, kind, SIZE)
        write(below, kind, content)
        image.create(above, "qcow2", SIZE, backing=below, backing_format=kind)
        chains[target] = (ImageLayer(str(above), "qcow2"), ImageLayer(str(below), kind))
    vm = SimpleNamespace(disks=[SimpleNamespace(target=target, chain=chain) for target, chain in chains.items()])
    monkeypatch.setattr(hypervisor, "inspect", lambda _host, _vm: vm)
    disks = [DiskSpec(Number(4), "vda", SIZE, "qcow2"), DiskSpec(Number(9), "vdb", SIZE, "raw")]

    def begin(rate: int = 0, memory: int = 0) -> DiskIndex:
        return DiskIndex(site, "vm", disks, memory, rate)

    return begin


def test_the_index_has_the_pages_below_the_overlays(indexed: Callable[..., DiskIndex]) -> None:
    found = indexed().finish(threading.Event())
    assert found is not None
    wanted = [memoryview(page) for page in (CONTENT[1][50], NEWER, CONTENT[0][199], bytes(PAGE))]
    assert found.find(wanted) == [(9, 50), None, (4, 199), None]
    assert len(found) == 300


def test_an_index_takes_no_longer_than_it_may(
    indexed: Callable[..., DiskIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seedship.workflows.switchover.memory_pages._PIECE", 16 * PAGE)
    began = clock.monotonic()
    found = indexed(rate=16 * PAGE).finish(threading.Event())
    assert clock.monotonic() - began < 10
    assert found is not None
    assert 0 < len(found) < 300
    stop = threading.Event()
    stop.set()
    assert len(indexed(rate=16 * PAGE, memory=1 << 40).finish(stop) or ()) < 300


def test_a_disk_that_cannot_be_read_costs_only_its_own_pages(indexed: Callable[..., DiskIndex], tmp_path: Path) -> None:
    (tmp_path / "vda.qcow2").unlink()
    found = indexed().finish(threading.Event())
    assert found is not None
    assert found.find([memoryview(CONTENT[1][50]), memoryview(CONTENT[0][199])]) == [(9, 50), None]
    (tmp_path / "vdb.raw").unlink()
    assert indexed().finish(threading.Event()) is None
