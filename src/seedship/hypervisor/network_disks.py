# SPDX-License-Identifier: Apache-2.0
"""Disks that a definition names by a network protocol (``<disk type='network'>``), as names of remote images."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from copy import deepcopy
from typing import Final

import libvirt

from seedship.errors import HypervisorFailed
from seedship.hypervisor.connection import Host
from seedship.model.remote import PORTS, Remote, StorageAccess, host_port, is_ambiguous, is_remote, parse

_QEMU: Final = "iqn.2008-11.org.linux-kvm"
"""QEMU's name as an iSCSI initiator; that of a VM's QEMU has the VM's UUID after a colon."""


def name_of(source: ET.Element) -> str:
    """Return the name of a network disk's image; empty if it is one that seedship does not open."""
    remote = _remote(source)
    return "" if remote is None else remote.name


def access_of(source: ET.Element, vm: str, disk: ET.Element | None = None) -> StorageAccess:
    """Return how the host logs in.

    Args:
        vm: UUID of the VM. Its QEMU names itself by it to an iSCSI target (QEMU's block/iscsi.c).
        disk: The disk, if the source is its first image's: libvirt may write ``<auth>`` there as well.
    """
    auth = source.find("auth")
    if auth is None and disk is not None:
        auth = disk.find("auth")
    secret = None if auth is None else auth.find("secret")
    named = ""
    if secret is not None:
        named = secret.get("uuid", "") or f"{secret.get('type', '')}:{secret.get('usage', '')}"
    return StorageAccess(
        user="" if auth is None else auth.get("username", ""),
        secret=named,
        initiator=_initiator(source, vm),
    )


def element_of(disk: ET.Element, name: str, access: StorageAccess | None) -> ET.Element:
    """Return the source of a disk whose lowest image is this one: what its definition has, or else a new one."""
    holders = [disk, *disk.iter("backingStore")]
    for source in [element for holder in holders for element in holder.findall("source")]:
        if name_of(source) == name:
            kept = deepcopy(source)
            kept.attrib.pop("index", None)
            return kept
    remote, how = parse(name), access or StorageAccess()
    path = "/".join(filter(None, remote.parts))
    source = ET.Element("source", {"protocol": remote.protocol, "name": path})
    if remote.at.startswith("unix:"):
        ET.SubElement(source, "host", {"transport": "unix", "socket": remote.at.removeprefix("unix:")})
    else:
        host, _, port = remote.at.rpartition(":")
        ET.SubElement(source, "host", {"name": host.strip("[]"), "port": port})
    if how.user:
        auth = ET.SubElement(source, "auth", {"username": how.user})
        key, _, usage = how.secret.partition(":")
        ET.SubElement(auth, "secret", {"type": "iscsi", **({"usage": usage} if usage else {"uuid": key})})
    if how.initiator and not how.initiator.startswith(_QEMU):
        ET.SubElement(ET.SubElement(source, "initiator"), "iqn", {"name": how.initiator})
    return source


def accesses_to(host: Host, name: str) -> dict[tuple[str, str], frozenset[StorageAccess]]:
    """Return how the definitions of this host's VMs log in to a remote image, by UUID and name of the VM.

    Raises:
        HypervisorUnreachable: libvirt does not answer.
        HypervisorFailed: It does not say what a VM has.
    """
    result: dict[tuple[str, str], frozenset[StorageAccess]] = {}
    with host.calling() as connection:
        for domain in connection.listAllDomains():
            try:
                text, uuid, vm = domain.XMLDesc(0), domain.UUIDString(), domain.name()
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:  # It has just gone.
                    continue
                raise  # Without it, the login of another VM would look like the only one.
            root = ET.fromstring(text)  # noqa: S314 - from our own libvirtd
            accesses = frozenset(
                access_of(source, uuid, disk if source in list(disk) else None)
                for disk in root.findall("devices/disk")
                for source in disk.iter("source")
                if name_of(source) == name
            )
            if accesses:
                result[uuid, vm] = accesses
    return result


def secret_value(host: Host, secret: str) -> bytes:
    """Return the value of a libvirt secret, by UUID or as ``TYPE:USAGE``.

    Raises:
        HypervisorFailed: There is none, it has no value, or it is private.
        HypervisorUnreachable: libvirt does not answer.
    """
    _, _, usage = secret.partition(":")
    with host.calling() as connection:
        try:
            if usage:
                stored = connection.secretLookupByUsage(libvirt.VIR_SECRET_USAGE_TYPE_ISCSI, usage)
            else:
                stored = connection.secretLookupByUUIDString(secret)
            return bytes(stored.value(0))
        except libvirt.libvirtError as error:
            raise HypervisorFailed(f"secret {secret}", str(error)) from error


def why_not(source: ET.Element | None) -> str:
    """Return why seedship does not open a network disk that has no name; empty if only its protocol is foreign."""
    if source is None or source.get("protocol") not in PORTS:
        return ""
    if source.get("tls") == "yes":
        return "over TLS, with certificates of this host"
    if source.find("host[@transport]") is not None and source.find("host[@transport='unix']") is None:
        return f"over the transport {source.findall('host[@transport]')[0].get('transport')}"
    if source.get("protocol") == "nbd" and source.get("name", "").startswith("/"):
        return "under a name that begins with a slash, which QEMU drops"
    if len(source.findall("host")) != 1:
        return "at a place that is not one host"
    unusual = is_ambiguous("".join([source.get("name", ""), *source.findall("host")[0].attrib.values()]))
    return "under a name or at a place with unusual characters" if unusual else "under an incomplete name"


def _initiator(source: ET.Element, vm: str) -> str:
    if source.get("protocol") != "iscsi":
        return ""
    named = source.find("initiator/iqn")
    return f"{_QEMU}:{vm}" if named is None else named.get("name", "")


def _remote(source: ET.Element) -> Remote | None:
    protocol, name, hosts = source.get("protocol"), source.get("name", ""), source.findall("host")
    if source.get("tls") == "yes" or len(hosts) != 1 or is_ambiguous(name) or is_ambiguous(hosts[0].get("name", "")):
        return None
    host, transport = hosts[0], hosts[0].get("transport", "tcp")
    match protocol, transport:
        case "iscsi", "tcp":
            target, _, unit = name.partition("/")
            if not target or not (unit or "0").isdecimal():
                return None
            place = Remote("iscsi", _at(host, "iscsi"), (target, str(int(unit or "0"))))
        case "nbd", "tcp" | "unix" if not name.startswith("/"):
            socket = host.get("socket", "")
            if transport == "unix" and is_ambiguous(socket):
                return None
            place = Remote("nbd", f"unix:{socket}" if transport == "unix" else _at(host, "nbd"), (name,))
            if transport == "tcp" and host.get("name") == "unix":
                return None
        case _:
            return None
    return place if is_remote(place.name) else None


def _at(host: ET.Element, protocol: str) -> str:
    return host_port(host.get("name", ""), host.get("port"), protocol)  # type: ignore[arg-type]
