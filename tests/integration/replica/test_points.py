# SPDX-License-Identifier: Apache-2.0
"""Kept layers show their epoch for as long as they are kept, whatever is merged around them, and dies meanwhile."""

import itertools
import random
from pathlib import Path

import pytest

from seedship import failpoints, nbd
from seedship.errors import Conflict, NbdFailed
from seedship.nbd import image, qemu_img
from seedship.replica import Layers, Stack
from seedship.units import MiB

SIZES = (3 * 2**20, 2**20 + 512)


def write(layers: Layers, disks: list[bytearray], rng: random.Random) -> None:
    """An epoch: the top layer and the plain copies get the same."""
    layers.writable()
    for disk, content in enumerate(disks):
        path, kind = layers.path(disk), layers.format(disk)
        with nbd.serve(path, kind, read_only=False) as socket, nbd.Writer(socket, "disk") as to:
            for _ in range(rng.randint(0, 3)):
                at = rng.randrange(0, len(content) - 512, 512)
                size = min(rng.choice([512, 4096, 65536, 300_000 // 512 * 512]), len(content) - at)
                data = rng.choice([bytes(size), rng.randbytes(size)])
                to.write(data, at)
                content[at : at + size] = data
            to.flush()


def read(layers: Layers, disk: int, layer: int) -> bytes:
    path, kind = layers.path(disk, layer), layers.format(disk, layer)
    with nbd.serve(path, kind, read_only=True) as socket, nbd.Reader(socket, "disk") as reader:
        found = bytearray(reader.size)
        reader.read_into(found, 0)
    return bytes(found)


def fail() -> bool:
    raise NbdFailed("qemu-img commit", "it was killed")


def check(layers: Layers, kept: dict[str, list[bytes]], now: list[bytearray]) -> None:
    for name, disks in kept.items():
        layer = layers.check_pinned(name)
        for disk, content in enumerate(disks):
            # An older layer below a disk that has grown since reads as it was, and zeros.
            assert read(layers, disk, layer)[: len(content)] == content, name
    for disk, newest in enumerate(now):
        assert read(layers, disk, layers.stack.layers[-1].number) == newest


@pytest.mark.parametrize("kind", ["qcow2", "raw"])
@pytest.mark.parametrize("seed", range(3))
def test_points_are_what_they_were(tmp_path: Path, kind: str, seed: int) -> None:
    rng = random.Random(seed)
    state = tmp_path / "layers.json"
    stack = Stack(("a.img", "b.img"), (kind, kind), SIZES)
    layers = Layers.create(state, tmp_path, stack)
    now, kept = [bytearray(size) for size in SIZES], {}
    for epoch in range(1, 10):
        if epoch == 5:
            now[1] += bytes(65536)
            layers.grow((SIZES[0], SIZES[1] + 65536))
        if epoch == 7:  # The VM gets another disk, and the power goes before that is recorded.
            added = [("c.img", kind)]
            failpoints.arm("replica.disk-added", "raise")
            with pytest.raises(failpoints.InjectedFailure):
                layers.grow((*layers.stack.sizes, SIZES[0]), added)
            failpoints.disarm()
            layers = Layers(state, tmp_path)
            assert len(layers.stack.names) == 2
            now.append(bytearray(SIZES[0]))
            layers.grow((*layers.stack.sizes, SIZES[0]), added)
        write(layers, now, rng)
        name = f"point:{epoch}"
        layers.pin(name)
        kept[name] = [bytes(content) for content in now]
        for old in list(kept):
            if len(kept) > 3 and rng.random() < 0.5:
                layers.unpin(old, merge=False)
                del kept[old]
        if rng.random() < 0.5:  # the power goes in the middle of a merge
            failpoints.arm(rng.choice(["replica.thin", "replica.thinned"]), "raise")
            try:
                layers.thin()
            except failpoints.InjectedFailure:
                pass
            finally:
                failpoints.disarm()
            layers = Layers(state, tmp_path)
            check(layers, kept, now)
        layers.thin()
        check(layers, kept, now)
        assert len(layers.stack.layers) <= len(kept) + 1
    for name in list(kept):
        layers.unpin(name, merge=False)
    layers.thin()
    check(layers, {}, now)
    assert len(layers.stack.layers) == 1
    assert not list(tmp_path.glob("*.layer*"))


@pytest.mark.parametrize("kind", ["qcow2", "raw"])
@pytest.mark.parametrize("after", [1, 3])
def test_a_merge_that_gives_way_is_repeated_later(
    tmp_path: Path, kind: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of the owner does not wait for gigabytes that are merged: qemu-img is ended in the middle of them."""
    monkeypatch.setattr(qemu_img, "_CHECK_S", 0.005)
    rng, size = random.Random(after), 96 * MiB
    layers = Layers.create(tmp_path / "layers.json", tmp_path, Stack(("a.img",), (kind,), (size,)))
    contents = {}
    for name in ("point:1", "point:2"):
        layers.writable()
        contents[name] = rng.randbytes(size)
        with nbd.serve(layers.path(0), layers.format(0), read_only=False) as socket, nbd.Writer(socket, "disk") as to:
            to.write(contents[name], 0)
            to.flush()
        layers.pin(name)
    layers.unpin("point:1", merge=False)
    queries = itertools.count(1)
    layers.thin(lambda: next(queries) >= after)
    assert next(queries) == after + 1, "it was ended the first time that somebody asked"
    assert len(layers.stack.layers) == 2
    layers = Layers(tmp_path / "layers.json", tmp_path)
    assert read(layers, 0, layers.check_pinned("point:2")) == contents["point:2"]
    layers.thin(lambda: False)
    assert len(layers.stack.layers) == 1
    assert read(layers, 0, layers.check_pinned("point:2")) == contents["point:2"]


@pytest.mark.parametrize("kind", ["qcow2", "raw"])
@pytest.mark.parametrize("by", ["request", "kill"])
def test_what_an_interrupted_merge_left_is_merged_from_the_top(
    tmp_path: Path, kind: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had merged one disk of two. The newest content wins, not that of the layer between."""
    layers = Layers.create(tmp_path / "layers.json", tmp_path, Stack(("a.img", "b.img"), (kind, kind), SIZES))
    for number in range(4):
        layers.writable()
        for disk in range(2):
            path = layers.path(disk), layers.format(disk)
            with nbd.serve(*path, read_only=False) as socket, nbd.Writer(socket, "disk") as to:
                to.write(bytes([number + 1]) * 65536, 0)
                to.write(bytes([number + 1]) * 65536, (number + 1) * 65536)
                to.flush()
        layers.pin(f"point:{number}")
    for number in range(4):
        layers.unpin(f"point:{number}", merge=False)
    if by == "request":
        queries = itertools.count()
        layers.thin(lambda: next(queries) == 1)  # before the second disk
    else:
        commit = image.commit
        with monkeypatch.context() as patch, pytest.raises(NbdFailed):
            patch.setattr(
                image, "commit", lambda path, **more: commit(path, **more) if "a.img" in path.name else fail()
            )
            layers.thin()
    layers = Layers(tmp_path / "layers.json", tmp_path)
    before = [read(layers, disk, layers.stack.layers[-1].number) for disk in range(2)]
    assert [content[0] for content in before] == [4, 4]
    layers.merge()
    assert len(layers.stack.layers) == 1
    assert [read(layers, disk, 0) for disk in range(2)] == before


@pytest.mark.parametrize("how", ["between disks", "before it is noted"])
def test_a_second_merge_after_an_interrupted_one_leaves_no_layer_without_its_base(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second layer was being merged into the first, when that one's own turn came; and a failover interrupts again."""
    names = ("a.img", "b.img") if how == "between disks" else ("a.img",)
    disks = [bytearray(SIZES[0]) for _ in names]
    layers = Layers.create(
        tmp_path / "layers.json", tmp_path, Stack(names, ("qcow2",) * len(names), (SIZES[0],) * len(names))
    )
    rng, kept = random.Random(3), {}
    for number in range(4):
        write(layers, disks, rng)
        layers.pin(f"point:{number}")
        kept[f"point:{number}"] = [bytes(content) for content in disks]
    layers.unpin("point:1", merge=False)
    if how == "between disks":
        queries = itertools.count()
        layers.thin(lambda: next(queries) == 1)
    else:
        with monkeypatch.context() as patch, pytest.raises(NbdFailed):
            patch.setattr(layers, "_save", lambda stack: fail())
            layers.thin()
    layers = Layers(tmp_path / "layers.json", tmp_path)
    assert len(layers.stack.layers) == 4
    layers.unpin("point:0", merge=False)
    layers.thin(lambda: len(layers.stack.layers) == 3)
    assert len(layers.stack.layers) == 3
    for old in ("point:0", "point:1"):
        del kept[old]
    check(layers, kept, disks)
    layers.writable()
    layers.thin()
    check(layers, kept, disks)


@pytest.mark.parametrize("kind", ["qcow2", "raw"])
def test_a_disk_that_nothing_goes_back_to_is_emptied_and_the_others_stay(tmp_path: Path, kind: str) -> None:
    """Its files are made anew while a point of the other disk is kept, and the power goes meanwhile."""
    rng = random.Random(2)
    layers = Layers.create(tmp_path / "layers.json", tmp_path, Stack(("a.img", "b.img"), (kind, kind), SIZES))
    now = [bytearray(size) for size in SIZES]
    write(layers, now, rng)
    layers.pin("point:1")
    kept = bytes(now[0])
    write(layers, now, rng)
    with nbd.serve(layers.path(1), "qcow2", read_only=False) as socket, nbd.Writer(socket, "disk") as to:
        to.write(b"x" * SIZES[1], 0)
        to.flush()
    failpoints.arm("replica.emptied", "raise")
    with pytest.raises(failpoints.InjectedFailure):
        layers.empty(1)
    failpoints.disarm()
    layers = Layers(tmp_path / "layers.json", tmp_path)
    layers.empty(1)
    layers.empty(1)
    assert sum(path.stat().st_blocks * 512 for path in tmp_path.glob("b.img*")) < SIZES[1]
    assert read(layers, 0, layers.check_pinned("point:1")) == kept
    write(layers, now, rng)
    layers.unpin("point:1", merge=False)
    layers.thin()
    assert read(layers, 0, layers.stack.layers[-1].number) == now[0]
    assert len(layers.stack.layers) == 1


def test_an_operators_image_is_not_emptied(tmp_path: Path) -> None:
    """It was adopted as the replica, or is the disk that the VM had here before it moved."""
    theirs, folder = tmp_path / "theirs.raw", tmp_path / "replica"
    theirs.write_bytes(b"x" * SIZES[1])
    folder.mkdir()
    nbd.image.create(folder / "a.raw", "raw", SIZES[0])
    layers = Layers.adopt(tmp_path / "layers.json", folder, Stack(("a.raw", str(theirs)), ("raw", "raw"), SIZES))
    layers.pin("point:1")
    layers.writable()
    layers.empty(1)
    layers.unpin("point:1", merge=False)
    layers.thin()
    assert theirs.read_bytes() == b"x" * SIZES[1]


def test_a_file_that_lies_where_another_disk_goes_is_kept(tmp_path: Path) -> None:
    layers = Layers.create(tmp_path / "layers.json", tmp_path, Stack(("a.img",), ("raw",), SIZES[:1]))
    (tmp_path / "b.img").write_bytes(b"somebody's")
    with pytest.raises(Conflict, match=r"b\.img exists"):
        layers.grow((SIZES[0], SIZES[1]), [("b.img", "raw")])
    assert (tmp_path / "b.img").read_bytes() == b"somebody's"
    assert layers.stack.sizes == SIZES[:1]


def test_what_is_open_keeps_its_ground(tmp_path: Path) -> None:
    rng = random.Random(1)
    stack = Stack(("a.img", "b.img"), ("qcow2", "qcow2"), SIZES)
    layers = Layers.create(tmp_path / "layers.json", tmp_path, stack)
    now, kept = [bytearray(size) for size in SIZES], {}
    for epoch in range(1, 4):
        write(layers, now, rng)
        layers.pin(f"point:{epoch}")
        kept[f"point:{epoch}"] = [bytes(content) for content in now]
    middle = layers.check_pinned("point:2")
    layers.pin_layer(middle, "open:2")
    with nbd.serve(layers.path(0, middle), "qcow2", read_only=True, force_share=True) as socket:
        for name in kept:
            layers.unpin(name, merge=False)
        layers.thin()
        write(layers, now, rng)
        layers.thin()
        with nbd.Reader(socket, "disk") as reader:
            found = bytearray(reader.size)
            reader.read_into(found, 0)
        assert found == kept["point:2"][0]
    layers.unpin("open:2", merge=False)
    layers.thin()
    assert len(layers.stack.layers) == 1
    assert image.info(layers.path(0)).backing is None
    check(layers, {}, now)


def test_a_marker_that_a_kill_left_gives_up_no_file_of_others(tmp_path: Path) -> None:
    """The disk was added and recorded; only the marker of that is left. The file of the next disk's name is not ours."""
    layers = Layers.create(tmp_path / "layers.json", tmp_path, Stack(("a.img",), ("raw",), SIZES[:1]))
    (tmp_path / "layers.adding").write_text("b.img")
    (tmp_path / "c.img").write_bytes(b"theirs")
    with pytest.raises(Conflict):
        layers.grow((SIZES[0], SIZES[1]), [("c.img", "raw")])
    assert (tmp_path / "c.img").read_bytes() == b"theirs"
