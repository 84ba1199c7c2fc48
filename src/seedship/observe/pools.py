# SPDX-License-Identifier: Apache-2.0
"""Storage pools that replicas are made in, or are in already, as the doctor sees them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final

from seedship.errors import FolderSilent, SeedshipError
from seedship.model import lifecycle
from seedship.observe.findings import HealthFinding
from seedship.workflows import Context
from seedship.workflows.provisioning import insist_images, pool_obstacle

_APPLIED: Final = ("catching-up", "in-sync")
"""States in which a replica has its images."""


def findings(context: Context) -> Iterator[HealthFinding]:
    """Each pool that is configured or used, and each replica whose images cannot be reached."""
    storage = context.config.storage
    used = {
        document.pool.name
        for row, document in context.known.destinations()
        if document.pool is not None and row.state not in lifecycle.ENDED
    }
    for name in sorted({name for name in (storage.pool, *storage.pools) if name} | used):
        try:
            pool, obstacle = pool_obstacle(context, name)
        except FolderSilent as error:
            yield HealthFinding("pool", "fail", str(error), "No replica can be made in it", error.advice())
            continue
        if obstacle is not None:
            yield HealthFinding("pool", "fail", obstacle.what, "No replica can be made in it", obstacle.clear)
        elif pool is not None and not pool.autostart:
            yield HealthFinding(
                "pool",
                "warn",
                f"The storage pool {name} is not started at boot",
                "After a restart of the host, new replicas are refused until it is started",
                f"Run `virsh pool-autostart {shlex.quote(name)}`",
            )
        else:
            yield HealthFinding("pool", "ok", f"The storage pool {name} is active")
    for row, document in context.known.destinations():
        if document.pool is None or row.state not in _APPLIED:
            continue
        try:
            insist_images(row.vm_name, document)
        except SeedshipError as error:
            yield HealthFinding("pool", "fail", str(error), "Its rounds wait, and it cannot fail over", error.advice())
