# SPDX-License-Identifier: Apache-2.0
"""One pair of sites for all tests of remedies."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from paired import Pair


@pytest.fixture(scope="package")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    if os.geteuid() != 0:
        pytest.skip("a site's daemon is root's")
    with ExitStack() as stack:
        yield Pair(tmp_path_factory.mktemp("pair"), stack)
