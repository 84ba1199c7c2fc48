# SPDX-License-Identifier: Apache-2.0
"""The remedies that name a command that changes something, and the tests that run them as they are printed.

    @pytest.mark.remedy("service.removal._role: seedship drive erase …")

A remedy is named by the function or class that has its text, and by the command, with … for what is filled in. A test with the
mark makes the situation, takes the command from what is printed, runs it, and asserts that the situation is over. What no test
runs stands in ``remedies_not_run.txt`` with the reason.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import seedship
from command_lines import program

ROOT = Path(__file__).parents[1]
SOURCE = Path(seedship.__file__).parent
NOT_RUN = ROOT / "tests/remedies_not_run.txt"
MARK = "remedy"
ELSEWHERE = ("reference", "lab", "cli/__init__.py", "api/examples.py", "cli/apply.py", "errors/lab.py")
"""Where strings are no remedies: pages, the lab, the text of ``--help``, and examples."""
PROGRAM = r"(?:seedship|virsh|systemctl|qemu-img(?! did| ended)|apt|mkdir|chmod|chown|mount|umount|nsenter|kill|mv|cp|ip|sysctl|iscsiadm|rbd)"
NOUNS = "|".join(sorted(program().commands))
BARE = re.compile(
    rf"\bseedship (?:{NOUNS})(?: (?:--?[a-z][a-z-]*|[a-z0-9](?:[a-z0-9_/=.-]*[a-z0-9])?|[A-Z][A-Z=|-]*|…)(?:=…)?(?=[\s.,;:)]|$))+"
)
LOOKS = re.compile(
    r"systemctl status|qemu-img info"
    r"|virsh (?:list|version|dom(?!rename|jobabort)[a-z]+|(?:pool|net|vol|secret|nwfilter)-(?:list|dumpxml))"
    r"|virsh blockjob … … --info"
    r"|seedship (?:[a-z…]+ (?:list|show|watch|explain|print-labels|print-report)|site doctor(?! --repair)|.*--(?:help|version|schema|dry-run))"
)


def _strings(node: ast.AST, where: str) -> Iterator[tuple[str, str]]:
    """Every text below a node with the name of what has it; without docstrings, helps, and parts of f-strings."""
    if isinstance(node, ast.JoinedStr):
        parts = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        yield where, re.sub(r"(\{\w+(![a-z])?\}|…)+", "…", "".join(parts))
        node = ast.List([part.value for part in node.values if isinstance(part, ast.FormattedValue)])
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield where, re.sub(r"\{\w+(![a-z])?\}", "…", node.value)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        where = f"{where}.{node.name}"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    decorators = getattr(node, "decorator_list", [])
    for child in ast.iter_child_nodes(node):
        if child not in decorators and not _is_help(child):
            yield from _strings(child, where)


def _is_help(node: ast.AST) -> bool:
    """Whether it is a text of ``--help``, with an example."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Call):
        node = node.func
    called = node.func if isinstance(node, ast.Call) else None
    example = isinstance(called, ast.Attribute) and called.attr in ("verb", "command")
    return example or (isinstance(node, ast.keyword) and node.arg == "help")


def commands(text: str) -> list[str]:
    """The commands that a text names: what stands between backticks, and what begins with seedship elsewhere."""
    quoted = [part.strip() for part in re.findall(r"`([^`]*)`", text)]
    rest = re.sub(r"`[^`]*`", "", text)
    bare = [found[0] for found in BARE.finditer(rest)]
    whole = [rest] if not rest.startswith("seedship") and re.match(rf"{PROGRAM} [a-z]", rest) else []
    return [part for part in quoted if re.match(rf"{PROGRAM} ", part)] + bare + whole


def acts(command: str) -> bool:
    """Whether it changes something."""
    return not all(LOOKS.match(part) for part in re.split(r" && | \| ", command))


def acting() -> set[str]:
    """Every remedy of the program that names a command that changes something."""
    found = set()
    for path in sorted(SOURCE.rglob("*.py")):
        within = path.relative_to(SOURCE)
        if not str(within).startswith(ELSEWHERE):
            module = ".".join(within.with_suffix("").parts).removesuffix(".__init__")
            for where, text in _strings(ast.parse(path.read_text()), module):
                found |= {f"{where}: {command}" for command in commands(text) if acts(command)}
    return found


def marked() -> set[str]:
    """The remedies that the marks of the tests name."""
    found = set()
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == f"pytest.mark.{MARK}":
                        found |= {ast.literal_eval(name) for name in mark.args}
    return found


def not_run(path: Path = NOT_RUN) -> dict[str, str]:
    """The remedies that no test runs, each with the reason: the comment above it."""
    found, reason = {}, ""
    for line in path.read_text().splitlines():
        if line.startswith("# "):
            reason = line[2:]
        elif line:
            found[line] = reason
        else:
            reason = ""
    return found
