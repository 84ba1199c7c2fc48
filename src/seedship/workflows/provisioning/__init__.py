# SPDX-License-Identifier: Apache-2.0
"""Checks at both sites whether a VM can be replicated, before anything is created.

``preflight`` collects the findings and ``acceptance`` holds the destination's rules. ``reserving``
derives what the destination has promised, ``holdings`` measures it, ``requested`` what a request would add to that, and
``capacity`` compares both with the host. ``platform`` carries UEFI variables and TPM state.
``pools`` chooses where images are made. ``stability`` asks libvirt whether a live switchover is possible.
``folders`` records whose a folder of images is. ``given_up`` finds the old disks of a VM that may return.
"""

from seedship.workflows.provisioning.acceptance import (
    admission_needed,
    admit_switchover,
    growth_findings,
    insist_admitted,
    insist_definition,
    insist_growth,
    rule_findings,
    rule_findings_for_definition,
)
from seedship.workflows.provisioning.capacity import HostSurvey, admission, capacity_findings, space_shortage, survey
from seedship.workflows.provisioning.folders import (
    has_record,
    images_begun,
    is_kept_for_clones,
    is_replica_folder,
    recorded_owner,
    take_folder,
    take_replica_folder,
)
from seedship.workflows.provisioning.given_up import given_up_images, is_given_up_here, undefine_given_up
from seedship.workflows.provisioning.holdings import reservations
from seedship.workflows.provisioning.plain_room import place_images, plain_needs, plain_room_findings
from seedship.workflows.provisioning.platform import (
    PLATFORM_KIND,
    keep_attempt_platform,
    newest_platform,
    platform_findings,
    platform_offer,
    queue_platform_changes,
    read_platform,
    receive_platform,
    store_platform,
    write_missing_platform,
    write_platform,
)
from seedship.workflows.provisioning.pools import (
    SILENT,
    ImagePlace,
    image_place,
    insist_images,
    insist_mounted,
    pool_obstacle,
    silent,
)
from seedship.workflows.provisioning.preflight import (
    built_definition,
    choose_place,
    definition_findings,
    drive_room_findings,
    image_findings,
    insist_none_blocks,
    name_findings,
    preflight_failed,
    request_findings,
    room_findings,
    space_findings,
)
from seedship.workflows.provisioning.requested import document_of as requested_document
from seedship.workflows.provisioning.requested import reservation_for
from seedship.workflows.provisioning.reserving import (
    Reservation,
    ReservedRoom,
    Survey,
    added_rooms,
    clone_reservation,
    reservation_of,
)
from seedship.workflows.provisioning.stability import stability_findings

__all__ = [
    "PLATFORM_KIND",
    "SILENT",
    "HostSurvey",
    "ImagePlace",
    "Reservation",
    "ReservedRoom",
    "Survey",
    "added_rooms",
    "admission",
    "admission_needed",
    "admit_switchover",
    "built_definition",
    "capacity_findings",
    "choose_place",
    "clone_reservation",
    "definition_findings",
    "drive_room_findings",
    "given_up_images",
    "growth_findings",
    "has_record",
    "image_findings",
    "image_place",
    "images_begun",
    "insist_admitted",
    "insist_definition",
    "insist_growth",
    "insist_images",
    "insist_mounted",
    "insist_none_blocks",
    "is_given_up_here",
    "is_kept_for_clones",
    "is_replica_folder",
    "keep_attempt_platform",
    "name_findings",
    "newest_platform",
    "place_images",
    "plain_needs",
    "plain_room_findings",
    "platform_findings",
    "platform_offer",
    "pool_obstacle",
    "preflight_failed",
    "queue_platform_changes",
    "read_platform",
    "receive_platform",
    "recorded_owner",
    "request_findings",
    "requested_document",
    "reservation_for",
    "reservation_of",
    "reservations",
    "room_findings",
    "rule_findings",
    "rule_findings_for_definition",
    "silent",
    "space_findings",
    "space_shortage",
    "stability_findings",
    "store_platform",
    "survey",
    "take_folder",
    "take_replica_folder",
    "undefine_given_up",
    "write_missing_platform",
    "write_platform",
]
