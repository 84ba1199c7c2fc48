# SPDX-License-Identifier: Apache-2.0
"""How this host logs in to remote images, for QEMU programs that open one while no VM does."""

from __future__ import annotations

from seedship import hypervisor, store
from seedship.errors import HypervisorError, NbdFailed, SeveralLogins
from seedship.hypervisor import Host
from seedship.model import lifecycle
from seedship.model.remote import StorageAccess, parse
from seedship.nbd.remote import StorageLogin
from seedship.workflows.context.replications import ReplicationStore


class Logins:
    """Looks up a login by the name of an image: in the VMs' definitions, and in what the replications recorded.

    A target may show each initiator another unit under one name. So a name to which two VMs log in in different ways is
    not opened at all. A secret stays with libvirt; its value is asked for each time.
    """

    def __init__(self, host: Host, catalog: store.Catalog, replications: ReplicationStore) -> None:
        """Create the look-up of a site."""
        self._host, self._catalog, self._replications = host, catalog, replications

    def __call__(self, name: str) -> StorageLogin | None:
        """Return the login to an image; None if nothing here has it.

        The definition of a VM counts, and what its replication recorded where the VM is not defined, or does not have
        the image any more. What ended replications recorded does not count.

        Raises:
            SeveralLogins: there are several.
            NbdFailed: libvirt does not answer, or does not give the secret.
        """
        if parse(name).protocol == "nbd":
            return None
        try:
            users = self._users(name)
            if len(users) > 1:
                who = " and ".join(sorted(set(users.values())))
                why = f"it may be several units, since {who} log in to it in different ways"
                raise SeveralLogins(f"login to {name}", why)
            for access in users:
                value = hypervisor.secret_value(self._host, access.secret) if access.secret else b""
                return StorageLogin(access, value)
        except NbdFailed:
            raise
        except HypervisorError as error:
            raise NbdFailed(f"login to {name}", str(error)) from error
        return None

    def _users(self, name: str) -> dict[StorageAccess, str]:
        """Return the different logins, and one VM that uses each."""
        defined = hypervisor.accesses_to(self._host, name)
        users = {access: vm for (_, vm), accesses in defined.items() for access in accesses}
        by_uuid = {uuid: accesses for (uuid, _), accesses in defined.items()}
        for row in self._catalog.replications.all():
            if row.role != "source" or row.state in lifecycle.ENDED:
                continue
            recorded = self._replications.source(row.id)[1].images.access.get(name)
            now = by_uuid.get(row.vm_uuid, frozenset())
            if recorded is None:
                continue
            if not now:
                users[recorded] = row.vm_name
            elif other := next((access for access in now if access.initiator != recorded.initiator), None):
                why = f"{row.vm_name} had it as the initiator {recorded.initiator}"
                raise NbdFailed(f"login to {name}", f"{why}, and names itself {other.initiator} now")
        return users
