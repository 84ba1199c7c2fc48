# SPDX-License-Identifier: Apache-2.0
"""Messages that change a VM's owner or transfer its memory."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from seedship.link import Method
from seedship.model import bounds
from seedship.model.books.ownership import Far, Mode
from seedship.model.ids import Id, IdOrNone
from seedship.model.text import Count, Definition, Number
from seedship.workflows.messages.provisioning import AcceptedLosses, Platforms

Bytes = Annotated[int, Meta(ge=0, le=bounds.MEMORY_BYTES)]
Pieces = Annotated[
    tuple[
        tuple[
            Annotated[int, Meta(ge=0, le=bounds.MEMORY_PIECES)],
            Annotated[int, Meta(ge=1, le=bounds.MEMORY_PIECES)],
        ],
        ...,
    ],
    Meta(max_length=bounds.MEMORY_RUNS),
]
"""Pieces of memory: (first, count)."""


class Prepare(msgspec.Struct, frozen=True):
    """Request to make the replica ready to receive the running VM."""

    replication: Id
    attempt: IdOrNone
    """Empty for a probe without an attempt: it leaves unchanged what an attempt has prepared."""
    generation: Count
    epoch: Number
    """The epoch at which the replica must be exactly."""
    definition: Definition
    mode: Mode = "live"
    memory: Bytes = 0
    """Bytes of saved memory that will come, for a suspended VM."""
    probe: bool = False
    """Only ask whether it is possible. Nothing is prepared."""
    platform: Platforms = {}
    """Present UEFI variables and TPM state by kind, packed, if the VM has them."""
    accepted: AcceptedLosses = ()
    """Kinds of losses that the source's operator accepts now, in addition to those at the replication's creation."""

    def __post_init__(self) -> None:
        if not self.attempt and not self.probe:
            raise ValueError("an attempt has an id")


class Prepared(msgspec.Struct, frozen=True):
    """The definition that the incoming VM will have."""

    definition: Definition
    pages: bool = False
    """Memory may refer to pages of the replica's disks. Sites of earlier versions do not know such messages."""


class Handover(msgspec.Struct, frozen=True):
    """A call about one switchover attempt.

    ``look``: return what is there of it. ``hold``: everything has arrived, so make the paused copy.
    ``abandon``: destroy the paused copy. ``take-over``: the source has durably recorded
    ``generation`` with the destination as owner, so record it, define the VM and let it run.
    """

    replication: Id
    attempt: Id
    action: Literal["look", "hold", "abandon", "take-over"]
    generation: Count = 0


class HandoverReply(msgspec.Struct, frozen=True):
    """What is at the destination now."""

    far: Far
    arrived: Pieces = ()
    """Pieces of saved memory that have arrived: (first, count)."""


PREPARE = Method("Prepare", Prepare, Prepared, most=bounds.LARGE_CALL_BYTES)
HANDOVER = Method("Handover", Handover, HandoverReply)


class MemoryCall(msgspec.Struct, frozen=True):
    """A call about one memory point.

    ``expect``: the epoch is closed, and ``length`` bytes of memory of that instant will come, so
    pin the epoch and reserve room. ``look``: return what has arrived. ``done``: everything has
    arrived.
    """

    replication: Id
    id: Id
    action: Literal["expect", "look", "done"]
    epoch: Number
    length: Bytes = 0
    definition: Definition = ""
    standby: bool = False


class MemoryAnswer(msgspec.Struct, frozen=True):
    """Pieces of memory that have arrived: (first, count)."""

    arrived: Pieces = ()


MEMORY = Method("Memory", MemoryCall, MemoryAnswer, most=bounds.LIST_CALL_BYTES)
