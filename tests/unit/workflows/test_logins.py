# SPDX-License-Identifier: Apache-2.0
"""Which login to a remote image is used, where VMs, replications and ended replications know the image."""

from types import SimpleNamespace
from typing import Any

import libvirt
import pytest

from seedship import hypervisor
from seedship.errors import HypervisorError, HypervisorFailed, HypervisorUnreachable, NbdFailed
from seedship.hypervisor import Host
from seedship.model.remote import StorageAccess
from seedship.workflows.context.logins import Logins

NAME = "iscsi:192.0.2.7:3260/iqn.2026-01.org.example:d/1"
VM = "00000000-0000-4000-8000-00000000000{}"
XML = """<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><memory>65536</memory><os><type>hvm</type></os><devices>
<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='iscsi'
name='iqn.2026-01.org.example:d/1'><host name='192.0.2.7' port='3260'/>{more}</source><target dev='vda' bus='virtio'/></disk>
</devices></domain>"""


def logins(
    monkeypatch: pytest.MonkeyPatch,
    defined: dict[int, str] | None,
    recorded: list[tuple[str, int, str]],
    kept: set[str],
    initiators: dict[str, str] | None = None,
) -> Logins:
    """A look-up where VMs, by number, name a secret each, and libvirt has some secrets.

    Args:
        defined: None if libvirt does not answer.
        recorded: Replications, oldest first: state, VM and secret.
        initiators: By secret. All are one by default.
    """

    def access(secret: str) -> StorageAccess:
        return StorageAccess("joe", secret, (initiators or {}).get(secret, "iqn.me"))

    def value(_: object, secret: str) -> bytes:
        if secret not in kept:
            raise HypervisorFailed(f"secret {secret}", "there is none")
        return secret.upper().encode()

    def accesses(_: object, __: str) -> dict[tuple[str, str], frozenset[StorageAccess]]:
        if defined is None:
            raise HypervisorUnreachable("qemu:///system", "it is down")
        return {(VM.format(n), f"vm{n}"): frozenset({access(secret)}) for n, secret in defined.items()}

    monkeypatch.setattr(hypervisor, "secret_value", value)
    monkeypatch.setattr(hypervisor, "accesses_to", accesses)
    rows = [
        SimpleNamespace(id=secret, role="source", state=state, vm_uuid=VM.format(n), vm_name=f"vm{n}")
        for state, n, secret in recorded
    ]

    def source(number: str) -> Any:
        return None, SimpleNamespace(images=SimpleNamespace(access={NAME: access(number)}))

    catalog: Any = SimpleNamespace(replications=SimpleNamespace(all=lambda: rows))
    store: Any = SimpleNamespace(source=source)
    host: Any = None
    return Logins(host, catalog, store)


@pytest.mark.parametrize(
    ("defined", "recorded", "used"),
    [
        ({1: "vm"}, [], b"VM"),
        ({1: "vm"}, [("in-sync", 1, "one")], b"VM"),
        ({}, [("in-sync", 1, "one")], b"ONE"),
        # The VM was undefined by its switchover. Ended replications of the unit may name another login.
        ({}, [("aborted", 1, "old"), ("switching-over", 1, "one")], b"ONE"),
        ({}, [("switching-over", 1, "one"), ("done", 1, "later")], b"ONE"),
        ({}, [("aborted", 2, "old"), ("switching-over", 1, "one")], b"ONE"),
    ],
)
def test_the_login_of_who_uses_the_image_now_is_used(
    monkeypatch: pytest.MonkeyPatch, defined: dict[int, str], recorded: list[tuple[str, int, str]], used: bytes
) -> None:
    kept = {"vm", "one", "old", "later"}
    login = logins(monkeypatch, defined, recorded, kept)(NAME)
    assert login is not None
    assert login.secret == used


@pytest.mark.parametrize(
    ("defined", "recorded", "why"),
    [
        ({1: "vm", 2: "other"}, [], "vm1 and vm2 log in to it in different ways"),
        ({2: "other"}, [("switching-over", 1, "one")], "vm1 and vm2 log in to it in different ways"),
        ({}, [("in-sync", 1, "one"), ("in-sync", 2, "other")], "vm1 and vm2 log in to it in different ways"),
        ({1: "vm"}, [("in-sync", 1, "other")], "vm1 had it as the initiator iqn.b, and names itself iqn.a now"),
        ({1: "gone"}, [("in-sync", 1, "one")], "secret gone"),
        (None, [("in-sync", 1, "one")], "it is down"),
    ],
)
def test_an_image_that_may_be_two_units_is_not_opened(
    monkeypatch: pytest.MonkeyPatch, defined: dict[int, str] | None, recorded: list[tuple[str, int, str]], why: str
) -> None:
    """A target may show each initiator another unit under one name: another VM's would be read, and written."""
    found = logins(monkeypatch, defined, recorded, {"vm", "one", "other"}, {"vm": "iqn.a", "other": "iqn.b"})
    with pytest.raises(NbdFailed, match=why) as refusal:
        found(NAME)
    if "different ways" in why:
        assert "under different numbers or target names" in refusal.value.advice()


@pytest.mark.parametrize("name", [NAME, "nbd:h:1/x"])
def test_an_image_that_nobody_knows_has_no_login(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert logins(monkeypatch, {}, [("aborted", 1, "one")], {"one"})(name) is None


def test_each_vms_login_is_found_in_its_definition() -> None:
    host = Host("test:///default")
    named = "<initiator><iqn name='iqn.2026-01.org.example:me'/></initiator>"
    with host.calling() as connection:
        for number, more in ((1, ""), (2, ""), (3, named)):
            connection.defineXML(XML.format(name=f"vm{number}", uuid=VM.format(number), more=more))
    found = hypervisor.accesses_to(host, NAME)
    assert {vm: [a.initiator for a in accesses] for (_, vm), accesses in found.items()} == {
        "vm1": [f"iqn.2008-11.org.linux-kvm:{VM.format(1)}"],
        "vm2": [f"iqn.2008-11.org.linux-kvm:{VM.format(2)}"],
        "vm3": ["iqn.2026-01.org.example:me"],
    }


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, None),
        (libvirt.VIR_ERR_RPC, HypervisorError),
        (libvirt.VIR_ERR_INTERNAL_ERROR, HypervisorError),
    ],
)
def test_a_vm_that_libvirt_says_nothing_of_is_not_taken_for_one_without_the_image(
    monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception] | None
) -> None:
    """It may log in as somebody else, and the only login that is known would be used."""
    host = Host("test:///default")
    with host.calling() as connection:
        connection.defineXML(XML.format(name="vm1", uuid=VM.format(1), more=""))

    def fails(*_: object) -> str:
        refusal = libvirt.libvirtError("no answer")
        refusal.err = (code, 0, "no answer", 2, "", "", "", 0, 0)
        raise refusal

    monkeypatch.setattr(libvirt.virDomain, "XMLDesc", fails)
    if error is None:
        assert hypervisor.accesses_to(host, NAME) == {}
        return
    with pytest.raises(error):
        hypervisor.accesses_to(host, NAME)
