"""What a plugin's identity sees: its file, what that imports from its own package, and the files it is pointed to."""

import dataclasses
import importlib
import shutil
import sys
from pathlib import Path

import pytest

from bench import plugins
from bench.contract.context import Plugin
from bench.errors import BadRequest
from bench.system import identity

CONTROLS = ("average", "copy", "gaussian", "pdiff", "vae")


def write(folder, **files):
    """Write modules by name; ``a__b`` is the module b of the package a."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in path.relative_to(folder).parents:
            if parent != Path():
                (folder / parent / "__init__.py").touch()
        path.write_text(text)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Import a class from modules that were written to a folder; they are forgotten at the end."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def load_(module, name="Mine"):
        importlib.invalidate_caches()
        return getattr(importlib.import_module(module), name)

    yield load_
    for name in set(sys.modules) - before:
        if (
            getattr(sys.modules[name], "__file__", None)
            and str(tmp_path) in sys.modules[name].__file__
        ):
            del sys.modules[name]


MINE = "class Mine:\n    pass\n"


def test_the_suites_plugins_see_what_they_import_and_no_neighbour(tmp_path, monkeypatch):
    """On a copy of the suite's generators, so that files can be added and edited."""
    shutil.copytree(Path(plugins.__file__).parents[1] / "generators", tmp_path / "generators")
    spec = importlib.machinery.PathFinder.find_spec("generators", [str(tmp_path)])
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: spec if name == "generators" else found(name)
    )
    classes = {name: plugins.load_generator(name) for name in CONTROLS}

    def hashes():
        return {name: identity.Code().of_class(cls) for name, cls in classes.items()}

    def changed_by(file, text="\n# a comment\n"):
        before = hashes()
        with (tmp_path / "generators" / file).open("a") as opened:
            opened.write(text)
        return {name for name, value in hashes().items() if value != before[name]}

    assert len(set(hashes().values())) == len(CONTROLS)
    assert changed_by("new_one.py", MINE) == set()
    assert changed_by("controls/noise.py") == set()
    assert changed_by("pdiff.py") == {"pdiff"}
    assert changed_by("networks/blocks.py") == {"pdiff", "vae"}
    assert changed_by("networks/denoisers.py") == {"pdiff"}
    assert changed_by("controls/average.py", "from generators.controls.noise import Noise\n") == {
        "average"
    }
    assert changed_by("controls/noise.py") == {"average"}


def test_tasks_have_an_identity_too():
    tasks = {name: type(plugins.load_task(name, "quick", {})) for name in ("digits", "shapes")}
    reached = {n: set(identity.Code().files(cls)) for n, cls in tasks.items()}
    parts = {"tasks.classification", "tasks.fast.scoring", "tasks.training.collection"}
    assert parts <= reached["digits"]
    assert "tasks.fast.finding" in reached["shapes"] - reached["digits"]
    assert not any(name.startswith("generators") for name in reached["digits"] | reached["shapes"])
    assert "bench.system.randomness" in reached["digits"]  # it decides what is drawn
    assert "bench.system.progress" not in reached["digits"]


@pytest.mark.parametrize(
    "statement",
    [
        "import helper",
        "from helper import thing",
        "import helper as h",
        "def f():\n    import helper",
        "try:\n    import helper\nexcept ImportError:\n    pass",
        "import importlib\nhelper = importlib.import_module('helper')",
        "helper = __import__('helper')",
        "import middle",  # which imports helper
    ],
)
def test_a_second_file_beside_it_counts(tmp_path, load, statement):
    write(
        tmp_path,
        helper="thing = 1\n",
        middle="import helper\n",
        mine=f"{statement}\n{MINE}",
        other="x = 1\n",
    )
    cls = load("mine")
    before = identity.Code().of_class(cls)
    write(tmp_path, other="x = 2\n")
    assert identity.Code().of_class(cls) == before
    write(tmp_path, helper="thing = 2\n")
    assert identity.Code().of_class(cls) != before


@pytest.mark.parametrize(
    "statement",
    ["from . import helper", "from .helper import thing", "from .deep import inner", "from pack import helper",
     "from pack.deep.inner import thing", "import pack.helper"],
)  # fmt: skip
def test_modules_of_its_package_count_however_they_are_named(tmp_path, load, statement):
    write(
        tmp_path, pack__helper="thing = 1\n", pack__deep__inner="from ..helper import thing\n",
        pack__neighbour="x = 1\n", pack__mine=f"{statement}\n{MINE}",
    )  # fmt: skip
    cls = load("pack.mine")
    before = identity.Code().of_class(cls)
    write(tmp_path, pack__neighbour="x = 2\n")
    assert identity.Code().of_class(cls) == before
    write(tmp_path, pack__helper="thing = 2\n")
    assert identity.Code().of_class(cls) != before


def test_a_packages_init_and_a_base_class_elsewhere_count(tmp_path, load):
    write(
        tmp_path,
        pack__mine="from bases import Base\nclass Mine(Base):\n    pass\n",
        bases="class Base:\n    pass\n",
    )
    cls = load("pack.mine")
    hashes = [identity.Code().of_class(cls)]
    (tmp_path / "pack" / "__init__.py").write_text("x = 1\n")
    hashes.append(identity.Code().of_class(cls))
    write(tmp_path, bases="class Base:\n    x = 1\n")
    hashes.append(identity.Code().of_class(cls))
    assert len(set(hashes)) == 3


def test_a_class_that_is_named_through_another_module_is_that_of_its_own(tmp_path, load):
    write(tmp_path, pack__made=MINE, pack__api="from pack.made import Mine\n")
    cls = load("pack.api")
    before = identity.Code().of_class(cls)
    write(tmp_path, pack__made="class Mine:\n    x = 1\n")
    assert identity.Code().of_class(cls) != before


def test_what_it_takes_from_the_suites_plugins_counts_and_installed_packages_do_not(tmp_path, load):
    write(
        tmp_path,
        mine=f"import torch, numpy.random\nimport json\nfrom generators.vae import VAE\n{MINE}",
    )
    reached = identity.Code().files(load("mine"))
    assert {"mine", "generators.vae", "generators.networks.backbone"} <= set(reached)
    assert not {"torch", "numpy", "numpy.random", "json", "bench.contract.zoo"} & set(reached)


@pytest.mark.parametrize(
    ("code", "file"),
    [
        ("from pathlib import Path\nP = Path(__file__).with_name('prior.txt')", "prior.txt"),
        ("import pathlib\nP = pathlib.Path(__file__).parent / 'assets' / 'deep' / 'a.bin'", "assets/deep/a.bin"),
        ("P = 'assets/prior.bin'", "assets/prior.bin"),
        ("P = '{folder}/prior.txt'", "prior.txt"),
    ],
)  # fmt: skip
def test_data_files_that_code_names_count(tmp_path, load, code, file):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("1")
    (tmp_path / "unnamed.txt").write_text("1")
    write(tmp_path, mine=f"{code.format(folder=tmp_path)}\n{MINE}")
    cls = load("mine")
    before = identity.Code().of_class(cls)
    (tmp_path / "unnamed.txt").write_text("2")
    assert identity.Code().of_class(cls) == before
    (tmp_path / file).write_text("2")
    assert identity.Code().of_class(cls) != before


def test_a_file_in_the_working_folder_that_code_names_counts(tmp_path, load, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "prior.txt").write_text("1")
    write(tmp_path, mine=f"with open('prior.txt') as file:\n    P = file.read()\n{MINE}")
    cls = load("mine")
    before = identity.Code().of_class(cls)
    (work / "prior.txt").write_text("2")
    assert identity.Code().of_class(cls) != before


def test_a_class_without_a_file_is_refused():
    with pytest.raises(BadRequest, match="has no source file"):
        identity.Code().of_class(type("Mine", (), {"__module__": "nowhere_at_all"}))


@dataclasses.dataclass
class Pointed(Plugin):
    """Settings that may name files."""

    prior: object = None


@pytest.mark.parametrize(
    "nest", [lambda p: p, str, lambda p: [str(p)], lambda p: {"a": [{"b": str(p)}]}, lambda p: (p,)]
)
def test_files_that_settings_name_count_by_their_content(tmp_path, nest):
    file = tmp_path / "prior.pt"
    file.write_bytes(b"1")
    made = Pointed(nest(file))
    bare = identity.Code().of_class(Pointed)
    before = identity.Code().of(made, vars(made))
    assert before != bare == identity.Code().of(Pointed("words"), {"prior": "words"})
    moved = tmp_path / "copy.pt"
    moved.write_bytes(b"1")
    assert identity.Code().of(made, vars(Pointed(nest(moved)))) == before
    file.write_bytes(b"2")
    assert identity.Code().of(made, vars(made)) != before


def test_folders_that_settings_name_count_and_words_are_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("1")
    assert identity.named_files({"x": "data", "y": "", "z": "a" * 5000, "n": "a\0b"}) == {}
    before = identity.named_files({"x": "./data"})
    (tmp_path / "data" / "a").write_text("2")
    assert list(before) == [".x"]
    assert identity.named_files({"x": "./data"}) != before
