# SPDX-License-Identifier: Apache-2.0
"""A replica's disks as stacks of layers.

Layer 0 of each disk is a file that the operator chose (qcow2 or raw); further layers are qcow2 files above it.
Epochs go into the top layer. A user of the replica (a clone, a test, a switchover) pins the layer it uses. A pinned
layer is never written again; the next epoch creates a new layer above. A layer merges into the one below if neither
that one nor anything below the merge is pinned.

The stack is one small JSON file that is replaced atomically. After a crash, it names the valid files. Any other
file of ours beside them is a leftover of a step that did not complete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from seedship import durable, failpoints, paths
from seedship.errors import Conflict, NotFound
from seedship.nbd import image
from seedship.units import TiB


class Layer(msgspec.Struct, frozen=True):
    """One layer of all disks."""

    number: int
    pins: tuple[str, ...] = ()


class Stack(msgspec.Struct, frozen=True):
    """The layers, lowest first, and each disk's file name and format at layer 0.

    A name may be an absolute path: of a file or block device that the operator named, or of a volume of a storage pool
    (``paths.volume``). The layers above are in the replica's folder.
    """

    names: tuple[str, ...]
    formats: tuple[str, ...]
    sizes: tuple[int, ...]
    layers: tuple[Layer, ...] = (Layer(0),)
    emptied: tuple[int, ...] = ()
    """Disks that the VM does not have any more, and whose content is deleted."""


LAYERS: Final = "layers.json"
"""File of a replica's stack, beside its other bookkeeping."""
STANDS: Final = ("open:", "clone:")
"""Prefixes of pins whose owner uses the files of the layer and of all layers below directly.

These files keep their names and content while pinned.
"""

LAID_OUT: Final = 2 * TiB
"""Maximum size, in bytes, of images whose tables are allocated at creation.

Preallocated tables take an eight-thousandth of the size.
"""


class Layers:
    """The files of one replica; one writer."""

    def __init__(self, state: Path, folder: Path) -> None:
        """Open the stack stored at ``state``; images are in ``folder``."""
        self._state, self._folder = state, folder
        self.stack = msgspec.json.decode(state.read_bytes(), type=Stack)

    @classmethod
    def create(cls, state: Path, folder: Path, stack: Stack) -> Layers:
        """Create the images of layer 0; repeating it after a crash completes it.

        Raises:
            Conflict: a file of that name exists and is not ours.
            NbdFailed: an image cannot be created.
        """
        marker = state.with_suffix(".creating")
        if not state.exists():
            for name in stack.names:
                at = folder / name
                if at.exists() and not at.is_block_device() and not marker.exists():
                    raise Conflict(f"The file {at}", "exists", "Move it away or choose other names")
            paths.note_volumes(folder, [folder / name for name in stack.names])
            durable.replace(marker, b"")
            failpoints.hit("replica.noted")
            for name, kind, size in zip(stack.names, stack.formats, stack.sizes, strict=True):
                at = folder / name
                if at.is_block_device():  # Its content counts as missing until it is written.
                    continue
                at.unlink(missing_ok=True)
                image.create(at, kind, size, laid_out=size <= LAID_OUT)
            durable.replace(state, msgspec.json.encode(stack))
        marker.unlink(missing_ok=True)
        return cls(state, folder)

    @classmethod
    def adopt(cls, state: Path, folder: Path, stack: Stack) -> Layers:
        """Use existing images as layer 0."""
        if not state.exists():
            durable.replace(state, msgspec.json.encode(stack))
        return cls(state, folder)

    def path(self, disk: int, layer: int | None = None) -> Path:
        """Return the file of a disk at a layer; default: the top layer."""
        number = self.stack.layers[-1].number if layer is None else layer
        name = self.stack.names[disk]
        return self._folder / (name if number == 0 else f"{Path(name).name}.layer{number}")

    def is_own(self, path: Path) -> bool:
        """Whether a file was made for the replica: an operator may have given it block devices, or images elsewhere."""
        ours = path.is_relative_to(self._folder) or path in paths.volumes(self._folder)
        return ours and not path.is_block_device()

    def format(self, disk: int, layer: int | None = None) -> str:
        """Return the format of a disk's file at a layer; default: the top layer."""
        number = self.stack.layers[-1].number if layer is None else layer
        return self.stack.formats[disk] if number == 0 else "qcow2"

    def pin_layer(self, number: int, who: str) -> None:
        """Pin a layer for ``who``, which makes it read-only; repeating it is harmless."""
        for layer in self.stack.layers:
            if layer.number == number and who not in layer.pins:
                self._save(_with(self.stack, Layer(number, (*layer.pins, who))))

    def pin(self, who: str) -> int:
        """Pin the top layer for ``who``, which makes it read-only; returns its number. Repeating it is harmless."""
        for layer in self.stack.layers:
            if who in layer.pins:
                return layer.number
        top = self.stack.layers[-1]
        self._save(_with(self.stack, Layer(top.number, (*top.pins, who))))
        return top.number

    def unpin(self, who: str, *, merge: bool = True) -> None:
        """Release all pins of ``who``; then merge what may be merged, unless ``merge`` is off."""
        for layer in self.stack.layers:
            if who in layer.pins:
                left = tuple(pin for pin in layer.pins if pin != who)
                self._save(_with(self.stack, Layer(layer.number, left)))
        if merge:
            self.merge()

    def writable(self) -> None:
        """Make sure that the top layer is not pinned; create a new one above it if it is."""
        top = self.stack.layers[-1]
        if not top.pins:
            return
        number = top.number + 1
        for disk, size in enumerate(self.stack.sizes):
            fresh = self.path(disk, number)
            fresh.unlink(missing_ok=True)  # Left by an earlier attempt that was never recorded.
            image.create(
                fresh,
                "qcow2",
                size,
                backing=self.path(disk, top.number),
                backing_format=self.format(disk, top.number),
            )
        failpoints.hit("replica.layer")
        layers = (*self.stack.layers, Layer(number))
        self._save(msgspec.structs.replace(self.stack, layers=layers))

    def merge(self) -> None:
        """Merge the top layers down until a pinned layer is reached.

        A crash while merging repeats it: committing an overlay again writes the same content.
        """
        while len(self.stack.layers) > 1:
            top, below = self.stack.layers[-1], self.stack.layers[-2]
            if top.pins or below.pins:
                return
            for disk in range(len(self.stack.names)):
                path = self.path(disk, top.number)
                # A merge that was interrupted in the layer below has put some disks onto a lower one already; the
                # rest of that layer would go over what is committed here.
                image.rebase(path, self.path(disk, below.number), self.format(disk, below.number))
                image.commit(path)
            failpoints.hit("replica.merge")
            self._save(msgspec.structs.replace(self.stack, layers=self.stack.layers[:-1]))
            for disk in range(len(self.stack.names)):
                self.path(disk, top.number).unlink(missing_ok=True)

    def thin(self, stop: Callable[[], bool] | None = None) -> None:
        """Merge each layer into the one below if nobody pins that one any more.

        The content of other layers is unchanged.

        Args:
            stop: Queried about once a second; True leaves what is not merged yet for later.

        A layer whose files are in direct use (opened, or the basis of a clone) is left for later. A crash at any
        point repeats the merge: the upper layer still covers what was merged already.
        """
        at = 1
        while at < len(self.stack.layers):
            below, layer = self.stack.layers[at - 1], self.stack.layers[at]
            if below.pins or any(
                pin.startswith(STANDS) for layer_above in self.stack.layers[at:] for pin in layer_above.pins
            ):
                at += 1
                continue
            upper = [entry.number for entry in self.stack.layers[at + 1 : at + 3]]
            for disk in range(len(self.stack.names)):
                path = self.path(disk, layer.number)
                if not path.exists():
                    continue
                if len(upper) == 2:
                    # An interrupted merge of the layer above into this one has put that one onto this.
                    image.rebase(self.path(disk, upper[1]), self.path(disk, upper[0]), self.format(disk, upper[0]))
                if (stop is not None and stop()) or not image.commit(path, stop=stop):
                    return
                failpoints.hit("replica.thin")
                if upper:
                    image.rebase(
                        self.path(disk, upper[0]),
                        self.path(disk, below.number),
                        self.format(disk, below.number),
                    )
            failpoints.hit("replica.thinned")
            merged = Layer(below.number, layer.pins)
            layers = (*self.stack.layers[: at - 1], merged, *self.stack.layers[at + 1 :])
            self._save(msgspec.structs.replace(self.stack, layers=layers))
            for disk in range(len(self.stack.names)):
                self.path(disk, layer.number).unlink(missing_ok=True)

    def stood_on(self, kind: str) -> int:
        """Return the number of layers, from the lowest up, that pins of a kind (``clone:``) need; 0 for none."""
        return max(
            (count for count, layer in enumerate(self.stack.layers, 1) for pin in layer.pins if pin.startswith(kind)),
            default=0,
        )

    def keep_stood_on(self, kind: str) -> None:
        """Delete the layers that no pin of a kind needs, and all other pins. No further epoch comes."""
        count = self.stood_on(kind)
        kept = tuple(
            Layer(layer.number, tuple(pin for pin in layer.pins if pin.startswith(kind)))
            for layer in self.stack.layers[:count]
        )
        gone = self.stack.layers[count:]
        self._save(msgspec.structs.replace(self.stack, layers=kept))
        for layer in gone:
            for disk in range(len(self.stack.names)):
                self.path(disk, layer.number).unlink(missing_ok=True)

    def keep_up_to(self, who: str) -> None:
        """Delete the layers above the one that ``who`` pins, with their content. The pin stays."""
        at = next(i for i, layer in enumerate(self.stack.layers) if who in layer.pins)
        gone = self.stack.layers[at + 1 :]
        if gone:
            self._save(msgspec.structs.replace(self.stack, layers=self.stack.layers[: at + 1]))
        for layer in gone:
            for disk in range(len(self.stack.names)):
                self.path(disk, layer.number).unlink(missing_ok=True)

    def drop_above(self, who: str) -> None:
        """Delete the layers above the one that ``who`` pinned, with their content, and the pin. No pin is fine."""
        at = next((i for i, layer in enumerate(self.stack.layers) if who in layer.pins), None)
        if at is None:
            return
        above = self.stack.layers[at + 1 :]
        left = tuple(pin for pin in self.stack.layers[at].pins if pin != who)
        kept = (*self.stack.layers[:at], Layer(self.stack.layers[at].number, left))
        self._save(msgspec.structs.replace(self.stack, layers=kept))
        for layer in above:
            for disk in range(len(self.stack.names)):
                self.path(disk, layer.number).unlink(missing_ok=True)

    def grow(self, sizes: tuple[int, ...], added: Sequence[tuple[str, str]] = ()) -> None:
        """Grow the top layer's disks to ``sizes``, in bytes.

        Args:
            added: (file name, format) of the disks at the end of ``sizes`` that are new.

        Raises:
            Conflict: a disk would shrink, or the file of a new one exists and is not ours.
        """
        present = len(self.stack.sizes)
        if added and len(sizes) == present + len(added):
            self._extend(added, sizes[present:])
        if sizes == self.stack.sizes:
            return
        if len(sizes) != len(self.stack.sizes) or any(
            new < old for new, old in zip(sizes, self.stack.sizes, strict=True)
        ):
            raise Conflict("A disk", "got smaller", "Start a new replication for it")
        self.writable()
        for disk, size in enumerate(sizes):
            if size > self.stack.sizes[disk]:
                image.resize(self.path(disk), self.format(disk), size)
        self._save(msgspec.structs.replace(self.stack, sizes=sizes))

    def _extend(self, added: Sequence[tuple[str, str]], sizes: Sequence[int]) -> None:
        """Add disks. They have a file at every layer, so that merges treat all disks alike; all of it reads as zeros.

        Repeating it after a crash completes it: files of a disk that is not in the stack are made anew.
        """
        marker = self._state.with_suffix(".adding")
        begun = marker.read_text().splitlines() if marker.exists() else []
        for name, _ in added:
            if (self._folder / name).exists() and name not in begun:
                raise Conflict(f"The file {self._folder / name}", "exists", "Move it away")
        paths.note_volumes(self._folder, [self._folder / name for name, _ in added])
        durable.replace(marker, "\n".join(name for name, _ in added).encode())
        for (name, kind), size in zip(added, sizes, strict=True):
            below = self._folder / name
            below.unlink(missing_ok=True)
            image.create(below, kind, size, laid_out=size <= LAID_OUT)
            for layer in self.stack.layers[1:]:
                fresh = self._folder / f"{Path(name).name}.layer{layer.number}"
                fresh.unlink(missing_ok=True)
                image.create(fresh, "qcow2", size, backing=below, backing_format=kind)
                below, kind = fresh, "qcow2"
        failpoints.hit("replica.disk-added")
        stack = msgspec.structs.replace(
            self.stack,
            names=(*self.stack.names, *(name for name, _ in added)),
            formats=(*self.stack.formats, *(kind for _, kind in added)),
            sizes=(*self.stack.sizes, *sizes),
        )
        self._save(stack)
        marker.unlink(missing_ok=True)

    def empty(self, disk: int) -> None:
        """Delete the content of a disk that nothing goes back to; its files stay, so that merges treat all disks alike.

        A block device, or an image that is not in the replica's folder, is left as it is. Repeating it completes it.
        """
        if disk in self.stack.emptied:
            return
        below: tuple[Path, str] | tuple[None, None] = (None, None)
        for layer in self.stack.layers:
            path, kind = self.path(disk, layer.number), self.format(disk, layer.number)
            if self.is_own(path):
                path.unlink(missing_ok=True)
                image.create(path, kind, self.stack.sizes[disk], backing=below[0], backing_format=below[1])
            below = path, kind
        failpoints.hit("replica.emptied")
        self._save(msgspec.structs.replace(self.stack, emptied=(*self.stack.emptied, disk)))

    def check_pinned(self, who: str) -> int:
        """Return the number of the layer that ``who`` pins.

        Raises:
            NotFound: it pins none.
        """
        for layer in self.stack.layers:
            if who in layer.pins:
                return layer.number
        raise NotFound("pin", who)

    def remove(self) -> None:
        """Delete all files of the replica."""
        for layer in reversed(self.stack.layers):
            for disk in range(len(self.stack.names)):
                at = self.path(disk, layer.number)
                if not at.is_block_device():
                    at.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

    def _save(self, stack: Stack) -> None:
        durable.replace(self._state, msgspec.json.encode(stack))
        self.stack = stack


def _with(stack: Stack, layer: Layer) -> Stack:
    layers = tuple(layer if present.number == layer.number else present for present in stack.layers)
    return msgspec.structs.replace(stack, layers=layers)
