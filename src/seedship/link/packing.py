# SPDX-License-Identifier: Apache-2.0
"""Data of a tunnel as one message: a byte of codec, followed by the data, compressed if that pays off."""

from __future__ import annotations

from typing import Final

import zstandard

from seedship.errors import PeerRefused
from seedship.units import KiB

CHUNK: Final = 256 * KiB
"""Bytes of data in a message, at most."""
_PLAIN, _ZSTD = b"\x00", b"\x01"
_LEAST: Final = 512
"""Shorter messages are not worth compressing."""
_PAYS: Final = 0.9


def pack(data: bytes) -> bytes:
    """Return a message with ``data``, compressed if that pays off."""
    if len(data) >= _LEAST:
        packed = zstandard.ZstdCompressor(level=1).compress(data)
        if len(packed) < len(data) * _PAYS:
            return _ZSTD + packed
    return _PLAIN + data


def unpack(message: bytes) -> bytes:
    """Return the data of a message.

    Raises:
        PeerRefused: It is not a message, or is longer than any that is sent.
    """
    codec, body = message[:1], message[1:]
    if codec == _PLAIN and len(body) <= CHUNK:
        return body
    if codec == _ZSTD:
        try:
            if zstandard.frame_content_size(body) > CHUNK:
                raise PeerRefused("a tunnel's message is longer than any that is sent")
            return zstandard.ZstdDecompressor().decompress(body, max_output_size=CHUNK)
        except zstandard.ZstdError as error:
            raise PeerRefused("a tunnel's message cannot be unpacked") from error
    raise PeerRefused("a tunnel's message has an unknown codec")
