"""The rooms of the project, and which of them may import which, read from the import statements."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "generators", "tasks", "leaderboard")
MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

BASE = {"bench.errors", "bench.system"}
CONTRACT = {*BASE, "bench.contract"}
RECORDS = {*CONTRACT, "bench.metrics", "bench.plugins", "bench.declared", "bench.records"}
RUNS = {*RECORDS, "bench.formats", "bench.judge", "bench.runs"}
LIBRARY = {*RUNS, "bench.testing", "bench.api"}
# Each room, and the rooms that it may import. A module of bench that lies in no folder is a room of its own.
RULES: dict[str, set[str]] = {
    "bench.errors": set(),
    "bench.system": {"bench.errors"},
    "bench.contract": BASE,
    "bench.formats": BASE,
    "bench.metrics": {"bench.errors"},
    "bench.plugins": CONTRACT,
    "bench.declared": {*CONTRACT, "bench.plugins"},
    "bench.records": RECORDS,  # its checks compute numbers again, with the parts of metrics that need no torch
    "bench.judge": {*CONTRACT, "bench.declared", "bench.metrics", "bench.records"},
    "bench.runs": RUNS,
    "bench.testing": RUNS,
    "bench.api": {*RUNS, "bench.testing"},
    "bench": LIBRARY,
    "bench.options": {"bench.system", "bench.errors", "bench.records"},
    "bench.study": {*RUNS, "bench.options"},
    "bench.cli": {*LIBRARY, "bench.options", "bench.study"},
    "bench.__main__": {"bench.cli"},
    "generators": CONTRACT,
    "tasks.data": CONTRACT,
    "tasks.networks": CONTRACT,
    "tasks.training": {*CONTRACT, "tasks.data", "tasks.networks"},  # which parameters are generated is a network's
    # Training many models at once is the plain steps of training, stacked. Distances of features are a metric.
    "tasks.fast": {*CONTRACT, "bench.metrics", "tasks.data", "tasks.networks", "tasks.training"},
    "tasks": {*CONTRACT, "bench.metrics", "tasks.data", "tasks.networks", "tasks.training", "tasks.fast"},
    "leaderboard": {"bench.errors", "bench.records"},
}  # fmt: skip
WITHOUT_TORCH = """
import importlib, sys
from bench import cli
for module in {modules}:
    importlib.import_module(module)
for words in (["--help"], ["run", "--help"], ["list"], ["study", "--help"], ["study", "--list"]):
    sys.argv = ["bench", *words]
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code, words
print(*sorted(set(sys.modules) & {{"torch", "ray", "fsspec"}}), sep=",")
"""


def modules() -> dict[str, Path]:
    """Return every module of the project with its file."""
    found = {}
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    """Return the room that a module lies in.

    >>> room("bench.records.checks.asked"), room("tasks.detection"), room("tasks.data.coco"), room("leaderboard.load")
    ('bench.records', 'tasks', 'tasks.data', 'leaderboard')
    """
    for name in (".".join(module.split(".")[:2]), module.partition(".")[0]):
        if name in RULES:
            return name
    raise AssertionError(f"no rule says what {module} may import")


def imports(source: str) -> set[str]:
    """Return the modules of the project that a source imports, and the names that stand for those of others."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "a relative import"  # noqa: PT018
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & MODULES.keys()) or {node.module}
    return found


def arrows() -> set[tuple[str, str]]:
    """Return every module with each other room that it imports from."""
    return {
        (module, room(target))
        for module, path in MODULES.items()
        for target in imports(path.read_text(encoding="utf-8"))
        if target.partition(".")[0] in PACKAGES and room(target) != room(module)
    }


def test_imports_are_seen_wherever_they_stand():
    text = "import a.b\nfrom c import d\ndef f():\n    from bench import plugins\n    import bench.records.side\n"
    assert imports(text) == {"a.b", "c", "bench.plugins", "bench.records.side"}
    assert ("tasks.detection", "tasks.fast") in arrows()
    assert {room(module) for module in MODULES} == set(RULES)


def test_every_room_imports_only_what_its_rule_allows():
    broken = {f"{module} -> {to}" for module, to in arrows() if to not in RULES[room(module)]}
    assert not broken


def test_the_rules_allow_no_cycle():
    others = {name: allowed - {name} for name, allowed in RULES.items()}
    list(graphlib.TopologicalSorter(others).static_order())


def test_no_harness_and_no_board_names_torch_where_it_must_not():
    for module, path in MODULES.items():
        if room(module) in ("bench.records", "leaderboard", "bench.cli", "bench.api", "bench"):
            named = {name.partition(".")[0] for name in imports(path.read_text(encoding="utf-8"))}
            assert not named & {"torch", "torchvision", "timm", "diffusers"}, module


def test_records_the_board_the_list_and_help_load_no_torch():
    """All in one new process, each page of the board apart, which draws when it is imported."""
    pages = ("leaderboard.app", "leaderboard.views")
    light = [
        name
        for name in MODULES
        if room(name) in ("bench", "bench.records", "leaderboard") and not name.startswith(pages)
    ]
    code = WITHOUT_TORCH.format(modules=light)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pdiff" in done.stdout
    assert done.stdout.splitlines()[-1] == ""


def test_the_map_names_every_folder_and_room():
    folders = {
        path.name
        for path in ROOT.iterdir()
        if not path.name.startswith((".", "_")) and [*path.glob("*.py"), *path.glob("*.md")]
    }
    assert folders >= {*PACKAGES, "tests", "docs"}
    rooms = {name.replace(".", "/") for name in RULES if not name.endswith("__main__")}
    assert not {name for name in folders | rooms if f"`{name}" not in MAP}
