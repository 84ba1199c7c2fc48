# SPDX-License-Identifier: Apache-2.0
"""The only door to ISA-L (libisal2), through ctypes: erasure codes, and CRC-32 at the speed of memory.

Calls release the interpreter's lock.

Functions and their argument orders are those of ISA-L's ``erasure_code.h`` and ``crc.h`` (version 2.30). ISA-L
checks nothing: it reads and writes as many bytes as its arguments say. So every length and number
is compared with the buffers here, in one place, whatever the caller has checked before.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

Bytes = bytes | bytearray | memoryview
_Byte = ctypes.c_char
_TABLE: Final = 32
"""Bytes of the multiplication table that ISA-L creates for one coefficient."""
_MOST_ROWS: Final = 255
"""Rows of a Cauchy matrix over GF(2^8): each needs a distinct number in one byte."""


@cache
def _library() -> Any:
    try:
        library = ctypes.CDLL("libisal.so.2")
    except OSError as error:
        # Imported only on failure: the worker starts without the errors module.
        from seedship.errors import SiteFailed

        raise SiteFailed("the library ISA-L is missing; install it: apt install libisal2") from error
    number, pointer = ctypes.c_int, ctypes.c_void_p
    library.gf_gen_cauchy1_matrix.argtypes = (pointer, number, number)
    library.gf_invert_matrix.argtypes = (pointer, pointer, number)
    library.gf_invert_matrix.restype = number
    library.ec_init_tables.argtypes = (number, number, pointer, pointer)
    library.ec_encode_data_update.argtypes = (*[number] * 4, *[pointer] * 3)
    for function in ("gf_gen_cauchy1_matrix", "ec_init_tables", "ec_encode_data_update"):
        getattr(library, function).restype = None
    library.crc32_gzip_refl.argtypes = (ctypes.c_uint32, pointer, ctypes.c_uint64)
    library.crc32_gzip_refl.restype = ctypes.c_uint32
    return library


def cauchy(rows: int, k: int) -> bytes:
    """Return a (k + rows) x k matrix, row by row: the identity, then rows with 1 / (row ^ column)."""
    _check(k >= 1 and rows >= 0 and k + rows <= _MOST_ROWS, "a matrix of impossible size")
    matrix = ctypes.create_string_buffer((k + rows) * k)
    _library().gf_gen_cauchy1_matrix(matrix, k + rows, k)
    return matrix.raw


def inverted(matrix: bytes, n: int) -> bytes:
    """Return the inverse of an n x n matrix over GF(2^8).

    Raises:
        ValueError: It has no inverse, or is not such a matrix.
    """
    _check(1 <= n <= _MOST_ROWS and len(matrix) == n * n, "a matrix of impossible size")
    out = ctypes.create_string_buffer(n * n)
    source = ctypes.create_string_buffer(matrix, n * n)
    if _library().gf_invert_matrix(source, out, n) != 0:
        raise ValueError("the matrix has no inverse")
    return out.raw


def tables(k: int, rows: int, coefficients: bytes) -> Any:
    """Return ISA-L's tables for ``rows`` x ``k`` coefficients.

    Raises:
        ValueError: The number of coefficients is wrong.
    """
    _check(k >= 1 and rows >= 1 and k + rows <= _MOST_ROWS, "tables of impossible size")
    _check(len(coefficients) == k * rows, "coefficients that do not fit their tables")
    made = ctypes.create_string_buffer(_TABLE * k * rows)
    _library().ec_init_tables(k, rows, ctypes.create_string_buffer(coefficients, k * rows), made)
    return made


def update(k: int, made: Any, column: int, data: Bytes, outputs: Sequence[bytearray]) -> None:
    """Add the contribution of input number ``column`` to every output, over the input's length.

    Args:
        made: Tables from ``tables`` for ``k`` inputs.

    Raises:
        ValueError: An output is shorter than the input, or the tables are for other numbers.
    """
    _check(bool(outputs) and 0 <= column < k, "an input that the tables do not have")
    _check(ctypes.sizeof(made) == _TABLE * k * len(outputs), "tables for other numbers")
    length = len(data)
    _check(all(len(out) >= length for out in outputs), "an output that is too short")
    if not length:
        return
    # Each of these keeps its buffer from being resized while it exists.
    targets = [_Byte.from_buffer(out) for out in outputs]
    pointers = (ctypes.c_void_p * len(targets))(*map(ctypes.addressof, targets))
    view = memoryview(data)
    if isinstance(data, bytes):
        address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p)
    else:
        held = _Byte.from_buffer(bytearray(view) if view.readonly else view)
        address = ctypes.c_void_p(ctypes.addressof(held))
    _library().ec_encode_data_update(length, k, len(targets), column, made, address, pointers)


def crc32(data: bytes, start: int, end: int) -> int:
    """Return the CRC-32 of ``data[start:end]``, the same as ``zlib.crc32``, without a copy of it.

    Raises:
        ValueError: ``data`` is shorter.
    """
    _check(0 <= start <= end <= len(data), "a range outside its bytes")
    address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
    return int(_library().crc32_gzip_refl(0, address + start, end - start))


def _check(holds: bool, why: str) -> None:
    if not holds:
        raise ValueError(f"ISA-L is not called with {why}")
