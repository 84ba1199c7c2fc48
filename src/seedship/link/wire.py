# SPDX-License-Identifier: Apache-2.0
"""Wire format of the link: methods by name with msgpack bodies, and errors as data.

Versions, newest first. A site speaks all that it lists, and the highest common one is used:

- 1: the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from seedship.errors import PeerRefused, SeedshipError, VersionMismatch, describe, revive
from seedship.model import bounds
from seedship.model.decoding import unpack
from seedship.model.ids import SiteId
from seedship.model.text import Name, printable

VERSIONS = (1,)
SERVICE = "seedship.Link"
ERROR_KEY = "seedship-error-bin"
MAX_MESSAGE = 16 * 1024 * 1024
UNKNOWN = "(unknown)"
"""Stands for the name of a site that is not paired, in the errors that it gets."""
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    # A dead WAN is detected within 20 s, also while nothing is being called.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]

_LONGEST = 200
"""Maximum characters of a peer's text in an error message of this site."""
_CHARACTERS = (bounds.LINE_CHARS, 1000, 200)
"""Maximum characters of each text of an error: the first that fits."""
T = TypeVar("T")
Req = TypeVar("Req")
Res = TypeVar("Res")


@dataclass(frozen=True)
class Method(Generic[Req, Res]):
    """A call that a site answers."""

    name: str
    request: type[Req]
    response: type[Res]
    role: str = "site"
    """The role that a peer needs here to call it. Empty: any."""
    most: int = bounds.CALL_BYTES
    """Bytes of the largest request."""


class Hello(msgspec.Struct, frozen=True):
    """Ask which versions the other side speaks."""

    site: SiteId
    name: Name
    versions: Annotated[tuple[int, ...], Meta(max_length=64)]
    at: float = 0.0
    """The sender's wall clock (seconds since 1970), to report clock skew. 0: not given."""


class PairRequest(msgspec.Struct, frozen=True):
    """A joiner presents itself. ``proof`` covers ``card`` under the invitation's secret."""

    card: Annotated[bytes, Meta(max_length=bounds.CALL_BYTES)]
    proof: Annotated[bytes, Meta(max_length=64)]
    same: Annotated[bytes, Meta(max_length=64)] = b""
    """The joiner's signature over ``card``. It proves that this is the site that was paired before."""


class PairReply(msgspec.Struct, frozen=True):
    """The inviter presents itself. ``proof`` covers both cards."""

    card: Annotated[bytes, Meta(max_length=bounds.CALL_BYTES)]
    proof: Annotated[bytes, Meta(max_length=64)]
    same: Annotated[bytes, Meta(max_length=64)] = b""
    """As in ``PairRequest``, by the inviter."""


HELLO = Method("Hello", Hello, Hello, role="")
PAIR = Method("Pair", PairRequest, PairReply)


def common_version(peer: str, theirs: tuple[int, ...]) -> int:
    """Return the highest version that both sites speak.

    Raises:
        VersionMismatch: There is none.
    """
    both = set(VERSIONS) & set(theirs)
    if not both:
        raise VersionMismatch(peer, str(sorted(theirs)), str(sorted(VERSIONS)))
    return max(both)


class _ErrorData(msgspec.Struct, frozen=True):
    """An error as the other side describes it."""

    code: str
    fields: dict[str, str | int | float] = {}


def unknown_method(name: str) -> PeerRefused:
    """Return the refusal of a method that this site does not have. Sites of other versions compare it."""
    return PeerRefused(f"it knows no method {name[:64]!r}")


def unknown_at(error: PeerRefused, method: Method[Any, Any]) -> bool:
    """Whether a peer refused a call because it is of a version before the method."""
    return error.why == unknown_method(method.name).why


def decode(data: bytes, kind: type[T], what: str) -> T:
    """Decode what a peer sent.

    Raises:
        PeerRefused: It is malformed.
    """
    try:
        return unpack(data, kind)
    except msgspec.DecodeError as error:
        raise PeerRefused(f"{what} is malformed: {str(error)[:_LONGEST]}") from error


def pack_error(error: SeedshipError) -> bytes:
    """Encode an error as trailing metadata. Its texts are shortened to fit."""
    description = describe(error)
    for most in _CHARACTERS:
        fields = {
            name: printable(value, most) if isinstance(value, str) and len(value) > most else value
            for name, value in description["fields"].items()
        }
        data = msgspec.msgpack.encode({"code": description["code"], "fields": fields})
        if len(data) <= bounds.ERROR_SENT_BYTES:
            return data
    refused = describe(PeerRefused(f"{description['code']}, with more details than fit into an answer"))
    return msgspec.msgpack.encode({"code": refused["code"], "fields": refused["fields"]})


def unpack_error(data: bytes) -> SeedshipError:
    """Decode what ``pack_error`` encoded. Its texts become single printable lines.

    Raises:
        PeerRefused: It is malformed.
    """
    if len(data) > bounds.ERROR_BYTES:
        raise PeerRefused("for a reason that is too long")
    described = decode(data, _ErrorData, "an error")
    fields = {name: printable(value) if isinstance(value, str) else value for name, value in described.fields.items()}
    return revive(printable(described.code, _LONGEST), fields)
