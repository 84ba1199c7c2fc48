# SPDX-License-Identifier: Apache-2.0
"""A recovery point that was listed can be used for a while, however fast epochs follow each other."""

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

import person
from person import printed
from seedship import clock, durable, nbd, store
from seedship.errors import Conflict, InvalidRequest, PointNotFound
from seedship.model import BLOCK, DiskIndex, DiskSpec, Lineage
from seedship.model.books import DestinationBook
from seedship.model.retention import NESTED_POINTS
from seedship.model.spec import Retention
from seedship.nbd import qemu_img
from seedship.replica import Layers, Replica
from seedship.workflows import Context, documents
from seedship.workflows.context.listing import HELD_BEYOND, HELD_S, Listing
from seedship.workflows.documents import Clone, DestinationDocument
from seedship.workflows.target import pinning, points, replica_files

NAME = "a" * 32
pytestmark = [pytest.mark.qemu]


class Copy:
    """A replica of one small disk, whose epoch ``n`` fills it with the byte ``n``."""

    def __init__(self, site: Context, keep: Retention) -> None:
        self.site, self.epoch = site, 0
        folder = site.paths.data / "images"
        folder.mkdir()
        (folder / "vda.raw").write_bytes(bytes(BLOCK))
        disk = DiskSpec(DiskIndex(0), "vda", BLOCK, "raw")
        document = DestinationDocument(
            (disk,),
            DestinationBook(Lineage("a" * 32)),
            "s" * 32,
            "<domain/>",
            str(folder),
            ("vda.raw",),
            keep=keep,
        )
        encoded = documents.encode(document)
        site.catalog.replications.add(
            store.Replication(NAME, "destination", "b" * 32, "u", "web1", "in-sync", "a" * 32, 1, -1, encoded)
        )
        state = site.paths.replication(NAME) / "replica"
        state.mkdir(parents=True)
        self.replica = Replica.adopt(state, folder, [disk], ["vda.raw"], b"h" * 32)
        self.replica.adopted()

    def advance(self, count: int = 1) -> None:
        """Apply epochs as a step does."""
        with self.site.locks.of(NAME, "step"):
            for _ in range(count):
                self.epoch += 1
                layers = self.replica.layers = self.layers()  # a step opens them
                layers.writable()
                with (
                    nbd.serve(layers.path(0), layers.format(0), read_only=False) as socket,
                    nbd.Writer(socket, "disk") as to,
                ):
                    to.write(bytes([self.epoch]) * BLOCK, 0)
                    to.flush()
                points.after_epoch(self.site, NAME, self.replica, self.epoch)

    def layers(self) -> Layers:
        layers = replica_files.layers_of(self.site.replications, self.site.paths, NAME)
        assert layers is not None
        return layers

    def listed(self, hold: float = HELD_S) -> list[int]:
        return [point.epoch for point in points.list_points(self.site, NAME, hold)]

    def images(self) -> int:
        return len(list((self.site.paths.data / "images").iterdir()))


def content(found: dict) -> bytes:
    with nbd.Reader(found["sockets"]["vda"], "disk") as reader:
        held = bytearray(reader.size)
        reader.read_into(held, 0)
    return bytes(held)


@pytest.fixture
def three(site: Context) -> Iterator[Copy]:
    made = Copy(site, Retention(3))
    made.advance(3)
    yield made
    made.replica.close()


@pytest.fixture
def desk(site: Context) -> Iterator[points.OpenPoints]:
    made = points.OpenPoints(site)
    yield made
    made.close(NAME)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass."""
    passed, real = [0.0], clock.monotonic
    monkeypatch.setattr(clock, "monotonic", lambda: real() + passed[0])

    def advance(seconds: float) -> None:
        passed[0] += seconds

    return advance


def test_every_listed_point_can_be_opened(three: Copy, desk: points.OpenPoints) -> None:
    assert three.listed() == [1, 2, 3]
    three.advance(6)
    assert three.listed(0) == [7, 8, 9]  # what only the hold keeps is not part of the history
    for epoch in (1, 2, 3):
        assert content(desk.open(NAME, epoch)) == bytes([epoch]) * BLOCK
    newest = desk.open(NAME, None)
    assert (newest["epoch"], content(newest)) == (9, bytes([9]) * BLOCK)


def test_a_point_whose_server_was_killed_is_opened_anew(three: Copy, desk: points.OpenPoints) -> None:
    socket = desk.open(NAME, 2)["sockets"]["vda"]
    three.listed(0)
    three.advance(8)  # it is open, and in no history any more
    assert desk.open(NAME, 2)["sockets"]["vda"] == socket
    pid = subprocess.check_output(["pgrep", "-f", f"^qemu-nbd --socket {socket}"])
    os.kill(int(pid), signal.SIGKILL)
    clock.wait_until(lambda: not nbd.listens(socket), 10, "the server's end")
    assert content(desk.open(NAME, 2)) == bytes([2]) * BLOCK


def test_a_point_that_nobody_listed_goes_with_the_next_epoch(three: Copy, desk: points.OpenPoints) -> None:
    three.advance()
    with pytest.raises(PointNotFound) as error:
        desk.open(NAME, 1)
    assert "web1" in str(error.value)
    assert "2, 3, 4" in str(error.value)
    assert error.value.advice().endswith(f"seedship point list {NAME[:8]}")
    # What the error names can be opened, too.
    three.advance(5)
    assert content(desk.open(NAME, 2)) == bytes([2]) * BLOCK


def test_a_hold_ends_however_often_points_are_listed(
    three: Copy, desk: points.OpenPoints, later: Callable[[float], None]
) -> None:
    three.listed()
    for _ in range(4):
        later(HELD_S / 4 + 0.1)
        three.advance()
        assert len(three.listed()) == 3  # not longer for being asked
    with pytest.raises(PointNotFound):
        desk.open(NAME, 1)
    later(HELD_S + 0.1)
    three.advance()
    assert three.images() == 3  # one for each point of the history


def test_a_longer_history_takes_dropped_points_back(three: Copy) -> None:
    three.listed()
    three.advance(2)
    assert three.listed() == [3, 4, 5]
    points.set_retention(three.site.replications, NAME, Retention(5))
    three.advance()
    assert three.listed() == [2, 3, 4, 5, 6]


def test_opening_waits_for_an_epoch_and_finds_its_point(three: Copy, desk: points.OpenPoints) -> None:
    three.listed(0)
    with ThreadPoolExecutor(1) as threads:
        with three.site.locks.of(NAME, "step"):
            opening = threads.submit(desk.open, NAME, 1)
            in_use = lambda: three.site.listing.drop(NAME, [1]) == []  # noqa: E731
            clock.wait_until(in_use, 10, "the call that opens it")
            three.advance(4)
        assert content(opening.result(10)) == bytes([1]) * BLOCK


def test_a_point_stays_until_the_clone_of_it_is_made(three: Copy) -> None:
    clone = Clone(id="c" * 32, name="copy", uuid="u", folder=str(three.site.paths.data / "c"), epoch=2)
    three.site.replications.change_destination(NAME, lambda d: msgspec.structs.replace(d, clones=(clone,)))
    three.advance(4)
    assert points.find_point(three.site, NAME, 2).epoch == 2
    three.site.replications.change_destination(NAME, lambda d: msgspec.structs.replace(d, clones=()))
    three.advance()
    with pytest.raises(PointNotFound):
        points.find_point(three.site, NAME, 2)


def test_a_pinned_point_stays_whatever_the_retention(three: Copy, desk: points.OpenPoints) -> None:
    assert pinning.pin_point(three.site, NAME, 2, "before-upgrade").name == "before-upgrade"
    three.advance(6)
    assert three.listed(0) == [2, 7, 8, 9]
    assert content(desk.open(NAME, 2)) == bytes([2]) * BLOCK
    desk.close(NAME)
    # Its chain is that of four points: what was between them is merged.
    assert three.images() == 4
    points.set_retention(three.site.replications, NAME, Retention())
    three.advance(2)
    assert [(p.epoch, p.name) for p in points.list_points(three.site, NAME, 0)] == [(2, "before-upgrade")]
    assert content(desk.open(NAME, 2)) == bytes([2]) * BLOCK
    desk.close(NAME)
    pinning.unpin_point(three.site, NAME, 2)
    three.advance()
    assert three.listed(0) == []
    assert three.images() == 1


def test_a_dropped_point_that_is_pinned_in_time_is_listed_again(three: Copy) -> None:
    three.listed()
    three.advance(6)
    assert three.listed() == [7, 8, 9]
    pinning.pin_point(three.site, NAME, 1, "first")
    assert three.listed() == [1, 7, 8, 9]


def test_a_pinned_point_gets_another_name(three: Copy) -> None:
    pinning.pin_point(three.site, NAME, 1, "one")
    pinning.pin_point(three.site, NAME, 1, "first")
    pinning.pin_point(three.site, NAME, 1, "first")
    assert points.pinned_names(three.layers()) == {1: "first"}
    with pytest.raises(Conflict, match="is that of recovery point 1 of web1"):
        pinning.pin_point(three.site, NAME, 2, "first")
    pinning.unpin_point(three.site, NAME, 1)
    pinning.unpin_point(three.site, NAME, 1)
    pinning.pin_point(three.site, NAME, 2, "first")
    assert points.pinned_names(three.layers()) == {2: "first"}


def test_a_change_of_the_name_that_is_interrupted_loses_no_point(
    three: Copy, desk: points.OpenPoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinning.pin_point(three.site, NAME, 1, "before")
    real, written = durable.replace, []

    def fill_up(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(durable, "replace", fill_up)
    with pytest.raises(OSError, match="No space"):
        pinning.pin_point(three.site, NAME, 1, "after")
    monkeypatch.setattr(durable, "replace", real)
    assert points.pinned_names(three.layers()) == {1: "after"}
    three.advance(6)
    assert content(desk.open(NAME, 1)) == bytes([1]) * BLOCK
    desk.close(NAME)
    pinning.unpin_point(three.site, NAME, 1)
    assert points.pinned_names(three.layers()) == {}


def test_a_pin_without_its_point_is_removed(three: Copy) -> None:
    pinning.pin_point(three.site, NAME, 1, "before")
    layers = three.layers()
    (point,) = (pin for layer in layers.stack.layers for pin in layer.pins if pin.startswith("point:1@"))
    layers.unpin(point, merge=False)  # As a daemon of an earlier version does.
    three.advance(6)
    pinning.unpin_point(three.site, NAME, 1)
    three.advance()
    assert three.images() == 3
    with pytest.raises(PointNotFound):
        pinning.unpin_point(three.site, NAME, 1)
    pinning.pin_point(three.site, NAME, 10, "before")


@pytest.mark.parametrize("name", ["", "41", "4x", "-x", "a b", "a@b", "a/../b", "a\n", "ä", "x" * 65])
def test_what_cannot_be_the_name_of_a_point_is_refused(three: Copy, name: str) -> None:
    with pytest.raises(InvalidRequest):
        pinning.pin_point(three.site, NAME, 1, name)
    assert points.pinned_names(three.layers()) == {}


@pytest.mark.remedy("workflows.target.pinning.pin_point: seedship point unpin … --point …")
def test_pinned_points_leave_room_for_others(site: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "most_points", lambda _host: NESTED_POINTS)
    made = Copy(site, Retention(64))
    made.advance(NESTED_POINTS // 4)
    for epoch in made.listed(0):
        pinning.pin_point(site, NAME, epoch, f"p{epoch}")
    made.advance(NESTED_POINTS)
    found = made.listed(0)
    assert found[: NESTED_POINTS // 4] == list(range(1, NESTED_POINTS // 4 + 1))
    assert found[-1] == made.epoch
    assert len(found) == NESTED_POINTS
    with pytest.raises(Conflict) as error:
        pinning.pin_point(site, NAME, made.epoch, "one-more")
    (unpin,) = printed(error.value.advice())
    person.at(site).works(unpin)
    assert points.pinned_names(made.layers()).keys().isdisjoint({1})
    pinning.pin_point(site, NAME, made.epoch, "one-more")
    made.replica.close()


def test_holds_are_bounded() -> None:
    listing = Listing()
    epochs = range(2 * HELD_BEYOND)
    listing.hold("r", epochs)
    with listing.using("r", 3):
        gone = listing.drop("r", epochs)
        assert gone == [epoch for epoch in range(HELD_BEYOND) if epoch != 3]
        assert listing.dropped("r") == {3, *range(HELD_BEYOND, 2 * HELD_BEYOND)}
    assert listing.drop("r", [3, 100]) == [] == listing.drop("other", [])
    assert listing.drop("other", [3, 100]) == [3, 100]


def test_a_chain_is_no_longer_than_libvirt_can_start(site: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt 11.3 starts no VM whose disk has more than 25 images. The oldest point stays, and the newest ones do."""
    versions = [(9_000_000, 7_002_000)]
    monkeypatch.setattr(type(site.host), "version", lambda _: versions[0])
    made = Copy(site, Retention(64))
    made.advance(24)
    assert made.listed(0) == list(range(1, 25))
    versions[0] = (11_003_000, 10_000_000)
    made.advance()
    assert len(made.listed(0)) == 20
    assert {1, 23, 24, 25} <= set(made.listed(0))
    assert len(made.replica.layers.stack.layers) <= 22
    made.replica.close()


def test_a_merge_gives_way_to_a_change_of_the_owner(three: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """While that waits for the lock, and no longer: what it applies itself is merged."""
    monkeypatch.setattr(qemu_img, "_CHECK_S", 0.001)  # of the tens of milliseconds that qemu-img takes
    locks, now = three.site.locks, len(three.layers().stack.layers)
    seen: list[int] = []

    def change() -> None:
        with locks.urgently(NAME):
            seen.append(locks.is_urgent(NAME))
            seen.append(len(three.layers().stack.layers))
            three.advance()

    with ThreadPoolExecutor(1) as pool:
        with locks.of(NAME, "step"):
            changed = pool.submit(change)
            clock.wait_until(lambda: locks.is_urgent(NAME), 10, "somebody who waits")
            three.advance(3)
        changed.result()
    assert seen == [False, now + 3]
    assert len(three.layers().stack.layers) == now
