# SPDX-License-Identifier: Apache-2.0
"""Generated pages say what the program says, and every command in the docs is one that its parser takes."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from command_lines import parsed
from seedship import __version__, config
from seedship.reference import commands, completion, man, pages, settings

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
GENERATED = pages.pages(ROOT / "docs/decisions")


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == GENERATED[name], "run: make reference"


def test_everything_is_explained() -> None:
    """No option, command or key without a word about it."""
    for one in commands.every(commands.tree()):
        assert one.help, one.title
        for option in one.options:
            assert option.help, f"{one.title} {option.names[0]}"
    for section in settings.sections():
        for key in section.keys:
            assert key.help, f"{section.name}.{key.name}"


def lines(text: str) -> list[str]:
    """The seedship commands of a page's blocks of code."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M)
    outside = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    blocks += ["\n".join(line.strip() for line in outside.splitlines() if line.startswith("    "))]
    found = []
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            command = re.search(r"(?:^|\$\(|&& |/bin/)(seedship .*)", line.strip())
            if command and "..." not in command[1]:
                found.append(command[1].rstrip(")") if "$(" in line else command[1])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_the_docs_is_one(page: Path) -> None:
    if "reference/cli.md" in str(page):  # synopses
        return
    for line in lines(page.read_text()):
        try:
            parsed(line)
        except BaseException as error:  # noqa: BLE001 - the parser has many kinds
            pytest.fail(f"{page.name}: {line}: {error!r}")


def test_a_wrong_command_would_be_found() -> None:
    with pytest.raises(Exception, match=r"(?i)no such option"):
        parsed("seedship replication create web1 --too hamburg")
    assert lines("    seedship vm list   # all\n    A=$(seedship vm list)\n") == [
        "seedship vm list   # all",
        "seedship vm list",
    ]


def test_the_packaged_configuration_is_what_holds_without_one() -> None:
    text = settings.commented()
    assert config.sets_nothing(text)
    # Everything uncommented: TOML that is the default, but for the name.
    bare = "\n".join(line[1:] if re.match(r"#[\[a-z]", line) else line for line in text.splitlines())
    tomllib.loads(bare)
    assert config.parse(bare.replace('name = ""', 'name = "x"')) == config.Config("x")


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packaged = (ROOT / "debian/changelog").read_text()
    assert project["version"] == __version__
    assert packaged.startswith(f"seedship ({__version__})")


def test_the_package_needs_what_setup_installs() -> None:
    """What scripts/setup.sh installs is a dependency of the package, or suggested for the lab, or for developers."""
    setup = (ROOT / "scripts/setup.sh").read_text()
    wanted = re.search(r"packages=\((.*?)\)", setup, re.S)
    assert wanted is not None
    control = (ROOT / "debian/control").read_text().partition("\nPackage:")[2]
    named = set(re.findall(r"[a-z0-9][a-z0-9+.-]+", control))
    assert set(wanted[1].split()) - named <= {
        "python3-venv",
        "util-linux",
        "chromium",
        "fonts-dejavu-core",
        "libisal-dev",  # what the tap's plugin is compiled with
        "zlib1g-dev",
        "nbdkit-plugin-dev",
        "nbdkit-plugin-python",  # the plugin's twin, where nothing is compiled
        "exfat-fuse",  # file systems of drives, which an operator's host mounts with what it has
        "exfatprogs",
        "ntfs-3g",
        "xfsprogs",
        "btrfs-progs",
    }


@pytest.mark.parametrize("name", sorted(man.pages()))
def test_manual_pages_are_troff(name: str) -> None:
    text = man.pages()[name]
    assert text.startswith(".TH ")
    if shutil.which("groff"):
        done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z"], input=text, text=True, capture_output=True)
        assert not done.stderr, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_are_scripts(shell: str) -> None:
    text = completion.scripts()[shell]
    for noun in commands.tree().below:
        assert noun.words[-1] in text
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=text, text=True, capture_output=True)
        assert not done.stderr, done.stderr


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["seedship", "repl"], {"replication"}),
        (["seedship", "site", "b"], {"backup"}),
        (["seedship", "--data", "/x", "site", "b"], {"backup"}),
        (["seedship", "replication", "create", "vm", "--mirror", ""], {"off", "async", "sync"}),
        (["seedship", "replication", "create", "--key"], {"--key-on-drive"}),
    ],
)
def test_bash_offers_what_comes_next(tmp_path: Path, typed: list[str], offered: set[str]) -> None:
    script = tmp_path / "completion"
    script.write_text(completion.scripts()["bash"])
    words = " ".join(shlex.quote(word) for word in typed)
    said = subprocess.run(
        [
            "bash",
            "-c",
            f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(typed) - 1}; _seedship 2>/dev/null; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(said.stdout.split()) == offered
