# SPDX-License-Identifier: Apache-2.0
"""``drive eject`` on a drive's way: refused while it is written, and each next step that it prints is one."""

import json
import re
import shlex
from pathlib import Path

import pytest

from seedship import clock
from seedship.lab import Journey, LabSite
from support import custody, held, refused

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(600)]


def ejected(site: LabSite, path: object) -> dict:
    answer = json.loads(site.seedship("drive", "eject", path, "-o", "json"))
    assert answer["unmounted"]
    assert str(path) not in site.run("cat", "/proc/self/mounts")
    return dict(answer)


def commands(answer: dict) -> list[list[str]]:
    """The commands of the next steps, without the program's name."""
    found = [shlex.split(command) for text in answer["next"] for command in re.findall("`([^`]+)`", text)]
    assert all(words[0] == "seedship" for words in found)
    return [words[1:] for words in found]


@pytest.mark.remedy(
    "service.removal._at_source: seedship shipment mark-sent …",
    "service.removal._at_destination: seedship shipment import …",
    "service.removal._otherwise: seedship drive erase …",
)
def test_a_drive_is_ejected_at_both_sites(journey: Journey, tmp_path: Path) -> None:
    a, b = journey.lab.sites
    drive, here = journey.drive, journey.at(journey.drive, a)
    journey.start()
    a.kill_daemon()
    a.start_daemon({"SEEDSHIP_FAILPOINTS": "seed.captured=once-hold", "SEEDSHIP_FAILPOINTS_ONCE": str(tmp_path)})
    journey.request()
    token = held(tmp_path, "seed.captured")
    said = refused(a, "drive", "eject", here)
    assert said.code == "media.drive-in-use"
    assert journey.plan.name in said.message
    assert here in a.run("cat", "/proc/self/mounts")
    token.unlink()
    wait = re.findall("`seedship ([^`]+)`", said.remedy)
    a.seedship(*shlex.split(wait[0]))

    answer = ejected(a, here)
    assert "not imported" in answer["remaining"][0]
    for words in commands(answer):
        a.seedship(*words)
    clock.wait_until(lambda: "sent" in custody(a, journey.shipment()), 30, "the custody entry")

    there = drive.mount(b)
    answer = ejected(b, there)
    assert "not imported" in answer["remaining"][0]
    drive.mount(b)
    (words,) = commands(answer)
    b.seedship(*words)
    for site in (a, b):
        journey.until(site, "in-sync")
    answer = ejected(b, there)
    assert answer["remaining"] == []
    drive.mount(b)
    b.seedship(*commands(answer)[-1])
    shown = json.loads(b.seedship("drive", "show", there, "-o", "json"))
    assert shown["shipment"] == ""
