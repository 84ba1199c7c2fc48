# SPDX-License-Identifier: Apache-2.0
"""Every remedy that names a command that changes something is run by a test, or stands in the list with the reason."""

import pytest

import remedies


def test_every_remedy_is_run_as_it_is_printed() -> None:
    acting, marked, not_run = remedies.acting(), remedies.marked(), set(remedies.not_run())
    assert sorted(acting - marked - not_run) == [], "mark the test that runs it: @pytest.mark.remedy"
    assert sorted(marked - acting) == [], "no text of the program names this command there"
    assert sorted(not_run - acting) == [], "no text of the program names this command there"
    assert sorted(not_run & marked) == [], "a test runs it"


def test_what_is_not_run_has_a_reason() -> None:
    assert [name for name, reason in remedies.not_run().items() if len(reason) < 20] == []


@pytest.mark.parametrize(
    ("text", "acting"),
    [
        ("Check it: `seedship peer list`, then `virsh start …`", ["virsh start …"]),
        ("at …: seedship shipment import PATH...", ["seedship shipment import PATH"]),
        ("See `virsh domjobinfo …`, or end it: `virsh domjobabort …`", ["virsh domjobabort …"]),
        (
            "`virsh snapshot-list … --name | xargs virsh snapshot-delete …`",
            ["virsh snapshot-list … --name | xargs virsh snapshot-delete …"],
        ),
        ("`seedship site doctor`, `seedship site doctor --repair`", ["seedship site doctor --repair"]),
        ("seedship apply --dry-run x.yaml", []),
        ("seedship keeps what it has", []),
    ],
)
def test_commands_are_told_from_prose(text: str, acting: list[str]) -> None:
    assert [command for command in remedies.commands(text) if remedies.acts(command)] == acting
