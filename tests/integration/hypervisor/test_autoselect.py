# SPDX-License-Identifier: Apache-2.0
"""The firmware of a VM that is off is known although its definition leaves the choice to libvirt."""

import os
import shlex
import subprocess
import uuid
import xml.etree.ElementTree as ET

import libvirt
import pytest

from seedship import hypervisor
from seedship.hypervisor import Host
from seedship.lab import Lab
from seedship.workflows.provisioning.platform import platform_findings

pytestmark = pytest.mark.libvirt


@pytest.mark.parametrize("secure", ["yes", "no"])
def test_what_a_vm_started_with_is_known_when_it_is_off(whole_lab: Lab, secure: str) -> None:
    site, name = whole_lab.a, str(uuid.uuid4())
    variables = site.storage / f"{name}_VARS.fd"
    connection = libvirt.open(site.uri)
    domain = connection.defineXML(
        f"<domain type='qemu'><name>{name}</name><uuid>{name}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>"
        f"<os firmware='efi'><type machine='q35'>hvm</type><firmware><feature enabled='{secure}' name='secure-boot'/>"
        f"</firmware><nvram>{variables}</nvram></os><features><acpi/></features></domain>"
    )
    try:
        with Host(site.uri) as host:
            (never,) = [f for f in hypervisor.preflight(hypervisor.inspect(host, name)) if f.code == "vm.uefi"]
            assert never.blocks
            domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
            running = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE))
            domain.destroy()
            assert f"virsh start {shlex.quote(name)}" in never.clear
            facts = hypervisor.inspect(host, name)
            assert [f for f in hypervisor.preflight(facts) if f.code == "vm.uefi"] == []
            assert facts.variables == str(variables)
            resting = ET.fromstring(facts.xml)
            for path in ("os/loader", "os/nvram", "features/smm"):
                assert described(resting, path) == described(running, path)
    finally:
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        connection.close()


@pytest.mark.remedy("hypervisor.preflight._whole: virsh start …")
def test_a_vm_that_never_ran_is_to_be_started_once(whole_lab: Lab) -> None:
    """libvirt from 9.2 on writes the firmware into the definition at once, as an administrator may anywhere.

    The remedy is run as it is printed. virsh would take the VM's name for an id.
    """
    site, identity = whole_lab.a, str(uuid.uuid4())
    name = str(uuid.UUID(identity).int)
    variables = site.storage / f"{name}_VARS.fd"
    connection = libvirt.open(site.uri)
    domain = connection.defineXML(
        f"<domain type='qemu'><name>{name}</name><uuid>{identity}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>"
        "<os><type machine='q35'>hvm</type><loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>"
        f"<nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>{variables}</nvram></os>"
        "<features><acpi/></features><devices><tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm></devices></domain>"
    )
    try:
        with Host(site.uri) as host:
            facts = hypervisor.inspect(host, name)
            blockers = [finding for finding in hypervisor.preflight(facts) if finding.code in ("vm.uefi", "vm.tpm")]
            assert {finding.clear for finding in blockers} == {f"Start it once: `virsh start {identity}`"}
            assert len(blockers) == 2
            assert platform_findings(facts) == []
            command = blockers[0].clear.split("`")[1]
            environment = {**os.environ, "LIBVIRT_DEFAULT_URI": site.uri}
            subprocess.run(["bash", "-c", command], env=environment, check=True, capture_output=True)
            domain.destroy()
            facts = hypervisor.inspect(host, name)
            assert "nvram" not in facts.unmade  # what its TPM has is in the site's own mount namespace
            assert [f for f in hypervisor.preflight(facts) if f.code == "vm.uefi"] == []
    finally:
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        connection.close()


def described(root: ET.Element, path: str) -> list[tuple[dict[str, str], str | None]]:
    return [(element.attrib, element.text) for element in root.findall(path)]
