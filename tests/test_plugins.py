import ast
import dataclasses
import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bench import plugins
from bench.contract.context import Plugin
from bench.errors import BadRequest

REPOSITORY = Path(__file__).parents[1]
LEAVES = {
    "draws",
    "errors",
    "identity",
    "progress",
    "randomness",
    "store",
    "remote",
    "timing",
    "zoo",
    "importing",
}


@dataclasses.dataclass
class Settings(Plugin):
    """A plugin with a field of every type."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"rate": 0.25}}
    count: int = 1
    rate: float = 0.5
    name: str = "a"
    flag: bool = False
    widths: tuple[int, ...] = (1, 2)
    limit: int | None = None


def refused(function, *arguments):
    with pytest.raises(BadRequest) as caught:
        function(*arguments)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# Names ---------------------------------------------------------------------------------------------------------------


def test_every_generator_and_control_is_found():
    found = plugins.generators()
    assert set(found) >= {"pdiff", "vae", *plugins.CONTROLS}
    assert not {"base", "__init__", "networks"} & set(found)
    assert found["average"].target == "generators.controls.average:Average"
    assert found["noise"].fields["amplitude"] == "0.1"
    assert all(plugin.about for plugin in found.values())


@pytest.mark.parametrize("name", plugins.generators())
def test_every_generator_loads(name):
    cls = plugins.load_generator(name)
    assert f"{cls.__module__}:{cls.__name__}" == plugins.generators()[name].target


def test_every_task_is_described_and_has_a_class():
    found = plugins.tasks()
    assert "digits" in found
    for name, variant in found.items():
        assert dataclasses.is_dataclass(type(plugins.load_task(name, "quick", {})))
        assert variant.about
        assert variant.k >= 1
        assert variant.samples >= 10  # the verdict calls nothing novel below


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("pdif", "pdiff"), ("avrage", "average"), ("greedysoup", "greedy_soup"), ("vea", "vae")],
)
def test_unknown_generator_gives_the_nearest(wrong, right):
    message = refused(plugins.load_generator, wrong)
    assert f"'{wrong}'" in message
    assert f"'{right}'" in message


def test_a_name_like_no_other_gives_them_all():
    message = refused(plugins.load_generator, "zzzzzz")
    assert all(name in message for name in plugins.generators())


def test_unknown_task_gives_the_nearest():
    assert "'digits'" in refused(plugins.load_task, "digit", "quick", {})
    assert "'cifar100'" in refused(plugins.load_task, "cifar1000", "quick", {})


# module:Class --------------------------------------------------------------------------------------------------------


def test_a_class_by_its_module():
    from generators.controls.average import Average

    assert plugins.load_generator("generators.controls.average:Average") is Average


@pytest.mark.parametrize(
    "target",
    [
        "no_such_module:Thing",
        "generators.nothing:Thing",
        "generators.controls.average:",
        ":Average",
        ":",
    ],
)
def test_a_module_or_class_that_is_not_there(target):
    assert target in refused(plugins.load_generator, target)


def test_a_misspelt_class_gives_the_nearest():
    message = refused(plugins.load_generator, "generators.controls.average:Avarage")
    assert "'Average'" in message


@pytest.mark.parametrize(
    "target",
    ["bench.contract.zoo:Zoo", "tasks.catalog:Variant", "pathlib:Path", "bench.plugins:CONTROLS"],
)
def test_something_that_is_no_generator(target):
    assert target in refused(plugins.load_generator, target)


# Entry points --------------------------------------------------------------------------------------------------------


@pytest.fixture
def entry_points(monkeypatch):
    """Installed packages that offer these entry points."""
    offered = []

    def fake(*, group):
        return [entry for entry in offered if entry.group == group]

    monkeypatch.setattr(importlib.metadata, "entry_points", fake)
    return offered


def entry(name, value, group="bench.generators"):
    return importlib.metadata.EntryPoint(name, value, group)


def test_an_installed_generator_is_found_and_loaded(entry_points):
    from generators.controls.copy import Copy

    entry_points.append(entry("theirs", "generators.controls.copy:Copy"))
    assert plugins.generators()["theirs"].target == "generators.controls.copy:Copy"
    assert plugins.load_generator("theirs") is Copy
    assert "'theirs'" in refused(plugins.load_generator, "their")


def test_an_installed_generator_does_not_replace_one_of_the_suite(entry_points):
    entry_points.append(entry("average", "generators.controls.copy:Copy"))
    assert plugins.generators()["average"].target == "generators.controls.average:Average"


def test_a_broken_installed_generator_only_matters_when_it_is_asked_for(entry_points):
    entry_points.append(entry("broken", "no_such_module:Thing"))
    assert plugins.load_generator("average").__name__ == "Average"
    assert "no_such_module" in refused(plugins.load_generator, "broken")


def test_an_installed_task_is_found(entry_points):
    entry_points.append(entry("theirs", f"{__name__}:Settings", "bench.tasks"))
    assert "theirs" in plugins.tasks()
    assert "theirs" not in plugins.generators()
    assert plugins.load_task("theirs", "quick", {"count": 3}).count == 3
    assert plugins.load_task("theirs", "paper", {}).rate == 0.25
    assert plugins.load_task("theirs", "paper", {"rate": 0.125}).rate == 0.125
    assert "'count'" in refused(plugins.load_task, "theirs", "quick", {"cuont": 3})


# construct -----------------------------------------------------------------------------------------------------------


def test_values_are_converted_to_their_fields_types():
    values = {"count": 3, "rate": 1, "name": "b", "flag": True, "widths": [4], "limit": None}
    made = plugins.construct(Settings, values, "setting")
    assert made == Settings(3, 1.0, "b", True, (4,), None)
    assert isinstance(made.rate, float)
    assert isinstance(made.widths, tuple)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", 1.5),
        ("count", "many"),
        ("count", None),
        ("rate", "fast"),
        ("rate", [1]),
        ("name", 3),
        ("flag", "perhaps"),
        ("flag", 7),
        ("widths", 3),
        ("widths", ["a"]),
        ("limit", "high"),
    ],
)
def test_a_value_of_another_type_is_refused(name, value):
    message = refused(plugins.construct, Settings, {name: value}, "setting")
    assert f"setting {name}=" in message


def test_an_unknown_setting_gives_the_nearest():
    message = refused(plugins.construct, Settings, {"cuont": 1}, "setting")
    assert "unknown setting 'cuont'" in message
    assert "'count'" in message


# What imports what ---------------------------------------------------------------------------------------------------


def files_of(package):
    return sorted((REPOSITORY / package).rglob("*.py"))


def imports(path):
    """Modules that a file imports anywhere in it; of ``from a import b`` both a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def of_package(found, package):
    """The imported modules of one package, without the names that are imported from them."""
    modules = {".".join(name.split(".")[:2]) for name in found if name.split(".")[0] == package}
    return {name for name in modules if name != package}


def test_the_walk_sees_imports_wherever_they_are(tmp_path):
    file = tmp_path / "file.py"
    file.write_text("import a.b\nfrom c import d\ndef f():\n    from e.f import g\n")
    assert imports(file) == {"a.b", "c", "c.d", "e.f", "e.f.g"}
    assert of_package(imports(file), "e") == {"e.f"}
    assert files_of("generators")
    assert files_of("tasks")


def check(path, package, allowed):
    wrong = of_package(imports(path), package) - {f"{package}.{name}" for name in allowed}
    assert not wrong, f"{path.relative_to(REPOSITORY)} imports {sorted(wrong)}"


@pytest.mark.parametrize(("package", "other"), [("generators", "tasks"), ("tasks", "generators")])
def test_plugins_import_leaf_modules_and_never_each_other(package, other):
    for path in files_of(package):
        check(path, "bench", LEAVES | {"metrics"})
        check(path, other, set())
        check(path, "leaderboard", set())


def test_leaves_import_only_leaves():
    paths = [REPOSITORY / "bench" / f"{name}.py" for name in LEAVES]
    for path in [*paths, *(REPOSITORY / "bench" / "metrics").glob("*.py")]:
        check(path, "bench", LEAVES | {"metrics"} if path.parent.name == "metrics" else LEAVES)
        for package in ("generators", "tasks", "leaderboard"):
            check(path, package, set())


def test_the_leaderboard_imports_what_reads_records_and_never_torch():
    for path in files_of("leaderboard"):
        check(path, "bench", {"record", "errors", "side", "store", "report", "paper", "request"})
        check(path, "generators", set())
        check(path, "tasks", set())
        assert not of_package(imports(path) | {f"{m}.x" for m in imports(path)}, "torch"), path


def test_the_harness_reaches_plugins_by_name_only():
    for path in files_of("bench"):
        check(path, "generators", set())
        check(path, "tasks", {"catalog"})
        check(path, "leaderboard", set())


# What a command loads ------------------------------------------------------------------------------------------------


def loaded_by(code):
    """Top-level modules that are loaded after the code ran in a new Python."""
    report = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-c", f"{code}\n{report}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import bench.records.record",
        "import bench.plugins; assert bench.plugins.generators()",
        "import bench.plugins; assert bench.plugins.tasks()",
    ],
)
def test_listing_and_records_do_not_load_torch(code):
    loaded = loaded_by(code)
    assert "bench" in loaded
    assert "torch" not in loaded


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["list"], ["study", "--help"], ["study", "--list"]],
)
def test_help_and_list_do_not_load_torch(arguments):
    loaded = loaded_by(
        f"import sys; sys.argv = {['bench', *arguments]!r}\n"
        "from bench.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code"
    )
    assert "typer" in loaded
    assert not loaded & {"torch", "ray", "fsspec"}


def test_help_as_a_module():
    command = [sys.executable, "-m", "bench", "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "leaderboard" in done.stdout
