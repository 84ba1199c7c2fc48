# SPDX-License-Identifier: Apache-2.0
"""The pause that QEMU may make grows from a part of what is allowed to all of it, and never beyond."""

import pytest

from seedship.hypervisor.downtime import Downtime


@pytest.mark.parametrize("most", [1, 20, 150, 300, 2000, 600_000])
def test_it_grows_to_what_is_allowed_and_no_further(most: int) -> None:
    downtime = Downtime(most)
    first = [downtime.at(iteration, now) for iteration, now in ((0, 0.0), (1, 5.0), (1, 5000.0))]
    assert len(set(first)) == 1  # the first pass may take as long as it wants
    assert first[0] <= max(most / 10, 20)
    later = [downtime.at(2 + step, 5000.0 + step / 10) for step in range(200)]
    assert later == sorted(later)
    assert later[0] == first[0]
    assert later[20 if most <= 300 else 199] == most == max(later)


def test_next_to_nothing_is_permitted_until_qemu_has_measured_the_link_again() -> None:
    """The first pass refers to pages: QEMU could write them as fast as it likes."""
    downtime, usual = Downtime(300, refers=True), Downtime(300)
    for iteration, now in ((0, 0.0), (1, 5.0), (1, 9.9), (2, 10.0), (3, 10.2)):
        assert downtime.at(iteration, now) == 1
        usual.at(iteration, now)
    for now in (10.5, 11.0, 13.0, 20.0):
        assert downtime.at(4, now) == usual.at(4, now) > 1
