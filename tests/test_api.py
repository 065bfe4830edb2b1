"""The library's face: the same runs as the command line's."""

import dataclasses
import importlib
import inspect
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import bench
from bench.api import name_of, request
from bench.errors import BadRequest
from generators.controls.copy import Copy
from generators.controls.noise import Noise
from generators.pdiff import PDiff
from tests import tiny, wrong
from tests.standins import call

ROOT = Path(__file__).parents[1]
LINE = (
    (ROOT / "CONTRIBUTING.md")
    .read_text(encoding="utf-8")
    .partition("```python\n")[2]
    .partition("```")[0]
)
SCRIPT = f"""
{LINE}
import bench
import tests.tiny

if __name__ == "__main__":
    record = bench.run(task=tests.tiny.Tiny, generator=Line(beyond=0.5), k=5, samples=3)
    print(record.command)
"""


def test_the_same_record_as_the_command_line(tmp_path):
    record = bench.run(
        task=tiny.Tiny(spread=0.2),
        generator=tiny.Jitter(amplitude=0.5),
        k=5,
        samples=4,
        results=tmp_path / "a",
    )
    words = ("run", "--task", "tests.tiny:Tiny", "--generator", "tests.tiny:Jitter", "--set", "amplitude=0.5",
             "--set", "task.spread=0.2", "--k", 5, "--samples", 4)  # fmt: skip
    assert call(*words, "--results", tmp_path / "b") == 0
    (path,) = (tmp_path / "b").rglob("*.json")
    other = bench.read_record(path)
    assert shlex.split(record.command) == shlex.split(other.command)
    assert (record.key, record.populations) == (other.key, other.populations)
    assert bench.read_record(tmp_path / "a" / record.key / f"{record.id}.json") == record


def test_a_zoo_is_read(tmp_path, zoo):
    zoo.save(tmp_path / "zoo")
    assert bench.load_zoo(str(tmp_path / "zoo")).hash == zoo.hash
    with pytest.raises(BadRequest, match="no zoo at"):
        bench.load_zoo(tmp_path / "none")


def asked(task="digits", generator="copy", **options):
    return request(task, generator, options).asked.command.removeprefix("python -m bench run ")


def test_plugins_by_name_class_and_instance():
    assert asked() == asked(generator=Copy) == asked(generator=Copy())
    assert asked(generator=Noise(amplitude=0.5)) == asked(
        generator_settings={"amplitude": 0.5}, generator=Noise
    )
    assert "--generator noise --set amplitude=0.5" in asked(generator=Noise(amplitude=0.5))
    assert "--generator tests.wrong:Right" in asked(generator=wrong.Right)
    assert asked(tiny.Tiny(arch="dot")) == asked(tiny.Tiny, arch="dot")
    assert asked(tiny.Tiny(arch="dot")) == asked(tiny.Tiny, task_settings={"arch": "dot"})


def test_an_instance_means_what_it_says_whatever_the_preset():
    paper = PDiff(**PDiff.presets["paper"])
    assert "--set" not in asked(generator=PDiff())
    assert "--set" not in asked(generator=paper, preset="paper")
    assert f"denoiser_iterations={PDiff().denoiser_iterations}" in asked(
        generator=PDiff(), preset="paper"
    )
    assert "denoiser_iterations=7" in asked(
        generator=PDiff(), generator_settings={"denoiser_iterations": 7}
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": 3}, "unknown setting 'sample': did you mean 'samples'"),
        ({"k": "many"}, "k=many"),
        ({"k": 0}, "k is 0"),
        ({"generator_settings": 3}, "generator_settings is 3, expected a mapping"),
        ({"task": "digit"}, "unknown task 'digit': did you mean 'digits'"),
    ],
)
def test_what_cannot_be_asked_for(options, message):
    with pytest.raises(BadRequest, match=message):
        asked(**options)


def test_a_class_that_nobody_else_could_import():
    @dataclasses.dataclass
    class Local(wrong.Right):
        """Inside of a function."""

    with pytest.raises(BadRequest, match="write the class at the top level of its module"):
        name_of(Local())


def test_a_class_of_a_notebook_gets_a_clear_line():
    code = "class Line: pass\nfrom bench.api import name_of\nname_of(Line)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "Line is written in a notebook or at a prompt" in done.stderr.splitlines()[-1]


def script(tmp_path, text, name="my_script.py"):
    (tmp_path / name).write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, name], cwd=tmp_path, capture_output=True, text=True, env=environment
    )


def test_a_class_of_a_script_is_found_under_the_scripts_name(tmp_path):
    done = script(tmp_path, SCRIPT)
    assert done.returncode == 0, done.stderr
    assert "--generator my_script:Line" in done.stdout
    assert "--set beyond=0.5" in done.stdout
    assert len(list(tmp_path.rglob("results/*/*.json"))) == 1


def test_a_script_that_cannot_be_imported_is_told_so(tmp_path):
    unguarded = (
        "class Line: pass\nimport importlib, bench\n{}bench.run(task='digits', generator=Line)"
    )
    done = script(tmp_path, unguarded.format("importlib.import_module('my_script')\n"))
    assert "put the call under if __name__ == '__main__':" in done.stderr.splitlines()[-1]
    done = script(tmp_path, unguarded.format(""), "my.script.py")
    assert "which cannot be imported as 'my.script'" in done.stderr.splitlines()[-1]


def test_code_that_was_edited_after_it_was_imported_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "edited_module.py"
    path.write_text(LINE)
    module = importlib.import_module("edited_module")
    options = {"task": tiny.Tiny, "k": 5, "samples": 3, "results": tmp_path}
    first = bench.run(generator=module.Line, **options)
    path.write_text(LINE.replace("len(self.vectors_)", "len(self.vectors_) - 1"))
    with pytest.raises(BadRequest, match=r"edited_module.py was edited after it was imported"):
        bench.run(generator=module.Line, **options)
    stale = module.Line
    importlib.reload(module)
    with pytest.raises(BadRequest, match="after a reload take the new one"):
        bench.run(generator=stale, **options)
    assert bench.run(generator=module.Line, **options).generator.code != first.generator.code
    monkeypatch.delitem(sys.modules, "edited_module")


def test_the_signature_names_every_option_of_the_command_line():
    from typer.main import get_command

    from bench.cli import app

    names = set(inspect.signature(bench.run).parameters)
    of_command = {parameter.name for parameter in get_command(app).commands["run"].params}
    assert of_command - names == {"settings", "as_json", "profile", "debug"}
    assert {"run", "load_zoo", "read_record", "testing"} <= set(dir(bench))
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        bench.rum  # noqa: B018


def test_packages_say_that_they_are_typed():
    for package in ("bench", "generators", "tasks", "leaderboard"):
        assert (ROOT / package / "py.typed").is_file()
