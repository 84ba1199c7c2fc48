# SPDX-License-Identifier: Apache-2.0
"""The daemon's background work: controllers, their jobs, background tasks, and the back-off they share.

Door: ``Controllers``, which starts and stops the controllers of a site and reports their status.
The daemon adds them; ``/metrics`` and ``site doctor`` read their ``Status``. ``tests/unit/runtime``
shows that no defect ends a controller and that nothing runs twice.
"""

from __future__ import annotations

from seedship.runtime.answering import answered, mount_of, mounts
from seedship.runtime.backoff import Backoff
from seedship.runtime.controller import Controller, Status
from seedship.runtime.dispatcher import Dispatcher, Job
from seedship.runtime.patience import Patience
from seedship.runtime.registry import Controllers
from seedship.runtime.task import Stopped, Task, spawn, watching

__all__ = [
    "Backoff",
    "Controller",
    "Controllers",
    "Dispatcher",
    "Job",
    "Patience",
    "Status",
    "Stopped",
    "Task",
    "answered",
    "mount_of",
    "mounts",
    "spawn",
    "watching",
]
