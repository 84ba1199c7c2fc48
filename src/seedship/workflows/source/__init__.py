# SPDX-License-Identifier: Apache-2.0
"""The source side of a replication. Never imports ``target``.

- ``request`` creates a replication.
- ``snapshots`` holds one moment of the VM's disks open for reading.
- ``epochs`` reads that moment, sends it and closes it.
- ``export`` writes it to drives.
- ``mirroring`` sends the guest's writes as they happen.
- ``memory_points`` saves the VM's memory together with an epoch.
- ``fencing`` keeps a VM from running here after the destination took it over.
"""

from seedship.workflows.source.epochs.adopted_seed import seed_from_hashes
from seedship.workflows.source.epochs.attempt import carrying, finish_attempt
from seedship.workflows.source.epochs.closing import abort_replication, judge_round, mark_catching_up, rounds_outlook
from seedship.workflows.source.epochs.divergence import (
    clear_answered,
    judge_divergence,
    lift_write_limit,
    mark_old_limits,
    set_write_limit,
    write_limit_wanted,
)
from seedship.workflows.source.epochs.rounds import send_epoch, write_update
from seedship.workflows.source.epochs.seeding import write_seed
from seedship.workflows.source.epochs.verify import compare_ahead, verify_replica, wait_applied
from seedship.workflows.source.fencing import answer_failover_notice, ensure_stopped, fence_source
from seedship.workflows.source.memory_points import (
    MemoryPointController,
    answer_memory_point_request,
    schedule_memory_points,
)
from seedship.workflows.source.mirroring.mirroring import MirrorController, tap_folder
from seedship.workflows.source.mirroring.tapping import begin_tap, give_up_tap, learn_unknown_hashes, return_to_rounds
from seedship.workflows.source.request import check_at_destination, create_replication, preflight_findings
from seedship.workflows.source.snapshots.cut import drop_checkpoints, guarded_space, overlay_alarm, retreat_overlays
from seedship.workflows.source.snapshots.detached import OVERLAY_SUFFIX, is_own_overlay
from seedship.workflows.source.snapshots.foreign import insist_no_snapshots
from seedship.workflows.source.snapshots.left_out import insist_none_left_out
from seedship.workflows.source.snapshots.offline import stopped_identity
from seedship.workflows.source.snapshots.overlays import (
    KEPT_SUFFIX,
    commit_back,
    commit_offline,
    discard_unused_overlays,
    without_overlays,
)
from seedship.workflows.source.snapshots.quiesce import thaw_controller
from seedship.workflows.source.snapshots.remote_images import record_access

__all__ = [
    "KEPT_SUFFIX",
    "OVERLAY_SUFFIX",
    "MemoryPointController",
    "MirrorController",
    "abort_replication",
    "answer_failover_notice",
    "answer_memory_point_request",
    "begin_tap",
    "carrying",
    "check_at_destination",
    "clear_answered",
    "commit_back",
    "commit_offline",
    "compare_ahead",
    "create_replication",
    "discard_unused_overlays",
    "drop_checkpoints",
    "ensure_stopped",
    "fence_source",
    "finish_attempt",
    "give_up_tap",
    "guarded_space",
    "insist_no_snapshots",
    "insist_none_left_out",
    "is_own_overlay",
    "judge_divergence",
    "judge_round",
    "learn_unknown_hashes",
    "lift_write_limit",
    "mark_catching_up",
    "mark_old_limits",
    "overlay_alarm",
    "preflight_findings",
    "record_access",
    "retreat_overlays",
    "return_to_rounds",
    "rounds_outlook",
    "schedule_memory_points",
    "seed_from_hashes",
    "send_epoch",
    "set_write_limit",
    "stopped_identity",
    "tap_folder",
    "thaw_controller",
    "verify_replica",
    "wait_applied",
    "without_overlays",
    "write_limit_wanted",
    "write_seed",
    "write_update",
]
