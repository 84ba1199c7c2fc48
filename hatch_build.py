# SPDX-License-Identifier: Apache-2.0
"""Compiles the tap's plugin for nbdkit into the tree, where an installation and the wheel find it.

Without a compiler or the headers (Debian: gcc, nbdkit-plugin-dev, libisal-dev, zlib1g-dev) there is none, and taps use
its twin in Python.
"""

import shlex
import subprocess
import sysconfig
from os import environ
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HARDENED = "-O2 -g -Wall -Wextra -D_FORTIFY_SOURCE=2 -fstack-protector-strong -Wl,-z,relro,-z,now"


class Plugin(BuildHookInterface):  # type: ignore[misc, type-arg]
    """Called by hatchling before each wheel, also before an editable one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile it, and have it packed."""
        source = Path(self.root, "src/seedship/tap/plugin.c")
        made = source.with_suffix(".so")
        flags = [*shlex.split(environ.get("CFLAGS") or HARDENED), *shlex.split(environ.get("LDFLAGS", ""))]
        # The tree's folder is nobody's business, and differs from build to build.
        words = ["gcc", *flags, f"-ffile-prefix-map={self.root}=.", "-shared", "-fPIC", "-o", str(made), str(source)]
        try:
            subprocess.run([*words, "-lisal", "-lz", "-lpthread"], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            made.unlink(missing_ok=True)
            self.app.display_warning(f"the tap's plugin was not compiled: {error}")
            return
        build_data["artifacts"].append(str(made.relative_to(self.root)))
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
