import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from bench import declared, plugins
from bench.contract.context import Plugin
from bench.errors import BadRequest
from tests.packages import install
from tests.standins import call

REPOSITORY = Path(__file__).parents[1]


@dataclasses.dataclass
class Settings(Plugin):
    """A plugin with a field of every type."""

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
    assert set(found) >= {"pdiff", "vae", *(one.name for one in declared.controls())}
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
    ["bench.contract.zoo:Zoo", "tasks.catalog:Variant", "pathlib:Path", "bench.plugins:GENERATORS"],
)
def test_something_that_is_no_generator(target):
    assert target in refused(plugins.load_generator, target)


# Entry points --------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package with these entry points."""

    def install_(**groups):
        install(monkeypatch, tmp_path, "theirs", **groups)
        return tmp_path

    return install_


def test_an_installed_generator_is_found_and_loaded(installed):
    from generators.controls.copy import Copy

    installed(generators={"mine": "generators.controls.copy:Copy"})
    assert plugins.generators()["mine"].target == "generators.controls.copy:Copy"
    assert plugins.generators()["mine"].about == "of the package theirs"
    assert plugins.load_generator("mine") is Copy
    assert "'mine'" in refused(plugins.load_generator, "mien")


def test_an_installed_package_of_generators_is_read_and_not_imported(installed):
    folder = installed(generators={"all": "their_generators"}) / "their_generators"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "half.py").write_text(
        "class Half(Generator):\n    'Half of it.'\n    share: float = 0.5\n"
    )
    listing = plugins.generators()["half"]
    assert listing == plugins.Listing(
        "half", "their_generators.half:Half", "Half of it.", {"share": "0.5"}
    )
    assert "their_generators.half" not in sys.modules


def test_an_installed_generator_does_not_replace_one_of_the_suite(installed):
    installed(generators={"average": "generators.controls.copy:Copy"})
    assert plugins.generators()["average"].target == "generators.controls.average:Average"
    assert "'average' is taken" in plugins.generators().broken[0]


@pytest.mark.parametrize(
    ("value", "text"), [("no_such_module:Thing", ""), ("broken_module:Thing", "1 / 0")]
)
def test_a_broken_generator_only_matters_when_it_is_asked_for(installed, value, text):
    (installed(generators={"broken": value}) / "broken_module.py").write_text(text)
    assert plugins.load_generator("average").__name__ == "Average"
    assert f"cannot import '{value.partition(':')[0]}'" in refused(plugins.load_generator, "broken")


def test_a_broken_package_costs_a_line_of_the_list(installed, capsys):
    installed(generators={"all": "no_such_package"}, tasks={"some": "no_such_catalog"})
    assert call("list") == 0
    shown = capsys.readouterr()
    assert "digits" in shown.out
    lines = shown.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("warning: the entry point") for line in lines)
    assert "no_such_package" in refused(plugins.load_generator, "pdiffs")
    assert "no_such_catalog" in refused(plugins.task_class, "digit")


def test_an_installed_task_is_found(installed):
    installed(tasks={"mine": "tests.tiny:Tiny"})
    assert "mine" in plugins.tasks()
    assert "mine" not in plugins.generators()
    assert plugins.load_task("mine", "quick", {"spread": 3}).spread == 3
    assert "'spread'" in refused(plugins.load_task, "mine", "quick", {"spraed": 3})


def test_settings_win_over_presets_and_presets_over_defaults():
    def epochs(preset, **settings):
        return plugins.load_task("digits", preset, settings).epochs

    assert epochs("quick") < epochs("paper") == 100
    assert epochs("paper", epochs=7) == 7


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


def test_help_as_a_module():
    command = [sys.executable, "-m", "bench", "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "leaderboard" in done.stdout
