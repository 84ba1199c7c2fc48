# SPDX-License-Identifier: Apache-2.0
"""Changing the owner of a VM: switchover, failover, and both for groups.

``orders`` records what an operator requested. ``switchover`` runs it at the source, through
``while_running`` or ``while_stopped``. ``incoming`` and ``takeover`` run it at the destination,
with ``tunnels`` and ``memory_pages`` for live migration. ``failover`` needs no source; ``trial``
first shows that the VM starts. The ``group_*`` modules do the same for all members of a group, or
for none.
"""

from seedship.workflows.switchover.failover import fail_over, make_failover_ready
from seedship.workflows.switchover.group_controller import GroupController
from seedship.workflows.switchover.group_orders import approve_group_order, decline_group_order, place_group_order
from seedship.workflows.switchover.group_switchover import fail_over_group, foresee_group_switchover
from seedship.workflows.switchover.incoming import prepare_incoming
from seedship.workflows.switchover.memory_pages import ReplicaPages
from seedship.workflows.switchover.orders import (
    approve_order,
    decline_order,
    foresee_switchover,
    place_order,
    tend_order,
)
from seedship.workflows.switchover.switchover import switch_over
from seedship.workflows.switchover.takeover import abandon_attempt, answer_handover, settle_switchover
from seedship.workflows.switchover.trial import trials_controller
from seedship.workflows.switchover.tunnels import connect_tunnel

__all__ = [
    "GroupController",
    "ReplicaPages",
    "abandon_attempt",
    "answer_handover",
    "approve_group_order",
    "approve_order",
    "connect_tunnel",
    "decline_group_order",
    "decline_order",
    "fail_over",
    "fail_over_group",
    "foresee_group_switchover",
    "foresee_switchover",
    "make_failover_ready",
    "place_group_order",
    "place_order",
    "prepare_incoming",
    "settle_switchover",
    "switch_over",
    "tend_order",
    "trials_controller",
]
