"""Every command and option is described, and what the documents show works as written."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest
import typer.main

import bench
from bench import cli, declared, plugins
from bench.records import rule1, verdict
from bench.records.fields import Verdict
from bench.records.judged import KINDS, Judge, Judgement
from bench.records.paper import OURS
from bench.records.population import Population
from bench.study import recipe
from tests import made_of
from tests.packages import install
from tests.records import judged
from tests.standins import call

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECORD = (ROOT / "docs" / "record.md").read_text(encoding="utf-8")
VERDICT = (ROOT / "docs" / "verdict.md").read_text(encoding="utf-8")
STUDIES = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")


def commands(group=None, prefix=()):
    """Every command with its words."""
    group = group or typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*prefix, name))
        else:
            yield (*prefix, name), command


ALL = dict(commands())


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_is_described_and_has_an_example(words):
    command = ALL[words]
    section = COMMANDS.partition(f"## python -m bench {' '.join(words)}\n")[2].partition("\n## ")[0]
    assert section, "no section in docs/commands.md"
    assert command.help
    example = command.epilog.partition("Example: ")[2]
    assert example.startswith(f"python -m bench {' '.join(words)}")
    for parameter in command.params:
        name = next((o for o in parameter.opts if o.startswith("--")), parameter.name)
        assert name.upper() in section.upper(), f"{name} is not described"
        assert parameter.help, f"{name} has no help"
    given = [word for word in shlex.split(example) if word.startswith("--")]
    known = {option for parameter in command.params for option in parameter.opts}
    assert set(given) <= known


def test_documents_name_no_option_that_does_not_exist():
    known = {
        option
        for command in ALL.values()
        for p in command.params
        for option in (*p.opts, *p.secondary_opts)
    }
    prose = re.sub(r"```.*?```", "", STUDIES, flags=re.DOTALL)
    for text in (README, COMMANDS, CONTRIBUTING, prose):
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
        assert named <= known | {"--help"}, named - known


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_readme_has_two_commands_that_do_all_the_set_up():
    first, second = (block.strip() for block in blocks(README, "sh"))
    assert first.count("\n") == second.count("\n") == 0
    assert "pip install . && " in first
    assert first.endswith("python -m bench run --task digits --generator pdiff")
    assert "pip install '.[test]' && " in second
    assert second.endswith("python -m pytest")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "pip install --quiet --disable-pip-version-check --no-compile '.[test]'" in ci
    assert "\npython -m pytest\n" in ci


def readme_runs() -> list[list[str]]:
    """The command lines of the README's table that can run here as they stand."""
    lines = re.findall(r"\| `python -m bench ([^`]+)` \|", README)
    return [shlex.split(line) for line in lines]


def test_the_readmes_commands_parse():
    assert len(readme_runs()) >= 6
    for words in readme_runs():
        name = tuple(words[:2]) if tuple(words[:2]) in ALL else (words[0],)
        ALL[name].make_context(name[-1], words[len(name) :], resilient_parsing=False)


def test_the_readmes_first_command_runs_in_a_process_of_its_own(tmp_path):
    """The real digits and the real p-diff, as a new user runs them, but on few checkpoints in this environment."""
    words = shlex.split(blocks(README, "sh")[0].rpartition("&&")[2])[1:]
    done = subprocess.run(
        [sys.executable, *words, "--results", str(tmp_path / "results"),
         "--k", "20", "--samples", "10", "--held-out", "4",
         "--set", "autoencoder_iterations=20", "--set", "denoiser_iterations=20"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "pdiff on digits" in done.stdout
    assert list((tmp_path / "results").rglob("*.json"))


@pytest.fixture
def my_package(tmp_path, monkeypatch):
    """The package of the documents, installed, with its entry points."""
    package = tmp_path / "my_package"
    package.mkdir()
    for block in blocks(CONTRIBUTING, "python"):
        if named := re.match(r"# (?:my_package|generators)/(\w+\.py)\n", block):
            (package / named[1]).write_text(block, encoding="utf-8")
    points = tomllib.loads(blocks(CONTRIBUTING, "toml")[0])["project"]["entry-points"]
    install(
        monkeypatch, tmp_path, "mine", **{k.removeprefix("bench."): v for k, v in points.items()}
    )
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


def test_the_contributing_examples_keep_their_promises_and_run(my_package, tmp_path, capsys):
    assert blocks(CONTRIBUTING, "python")[0].count("\n") < 30
    exec(blocks(CONTRIBUTING, "python")[1], {})  # check_generator
    bench.testing.check_task(plugins.task_class("clouds"))
    words = ["run", "--task", "clouds", "--generator", "line", "--set", "beyond=0.5", "--k", 20]
    assert call(*words, "--samples", 10, "--results", tmp_path / "results") == 0
    assert "line on clouds" in capsys.readouterr().out
    assert call("list") == 0
    assert capsys.readouterr().out.count("of the package mine") == 2


def test_the_contributing_data_set_and_architecture_run(my_package, tmp_path, capsys):
    words = ["run", "--task", "fake", "--set", "task.dataset=stripes", "--arch", "linear"]
    words += ["--layers", "all", "--generator", "copy", "--k", 4, "--samples", 3, "--json"]
    assert call(*words, "--results", tmp_path / "results") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["task"]["dataset"] == "stripes"
    assert record["zoo"]["d"] == 64 * 2 + 2


def test_the_readmes_lines_of_python_run(my_package, tmp_path, monkeypatch, capsys):
    (example,) = blocks(README, "python")
    monkeypatch.chdir(tmp_path)
    exec(example.replace('"digits"', '"clouds"'), {"__name__": "__main__"})
    key, name = capsys.readouterr().out.split()
    record = bench.read_record(tmp_path / "results" / key / f"{name}.json")
    assert record.command.endswith("--set beyond=0.5")


def test_links_inside_the_documents_lead_somewhere():
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            if not target.startswith("https://"):
                assert (path.parent / target).exists(), f"{path.name}: {target}"


# The record and the verdict -------------------------------------------------------------------------------------------


def test_the_verdict_is_described_by_the_numbers_of_its_rule():
    for words in (
        f"lost more than {rule1.LOST:g} of",
        f"fewer than {verdict.MODELS} generated models, or fewer than {verdict.REFERENCE} in the reference",
        f"resolution is below {verdict.RESOLUTION:g}",
        f"a residual above {verdict.MISFIT:g} whose p is at most {verdict.MISFIT_P:g}",
        f"no share is at least {verdict.HALF:g}",
        f"shows copying (p at most {verdict.COPYING:g})",
        f"rule {verdict.RULE})",
    ):
        assert words in VERDICT, words
    for word in get_args(Verdict):
        assert f"| {word} |" in VERDICT


def test_the_verdicts_table_names_every_part_of_the_mixture():
    rows = re.findall(r"^\| (copies|averages|broken) \| (.*`.*) \|$", VERDICT, flags=re.MULTILINE)
    parts = dict(rows)
    for control in declared.controls():
        kind = declared.made_of(control)
        if kind and control.name != "copy":
            assert f"`{control.name}`" in parts[kind], control


def test_the_verdicts_picture_is_small_and_has_every_control():
    picture = (ROOT / "docs" / "verdict.svg").read_text(encoding="utf-8")
    assert len(picture) < 20_000
    for control in declared.controls():
        assert f">{control}</text>" in picture
    assert made_of.picture(judged()).count("<text") == len(judged().populations) - 1 + len(KINDS)


def test_the_page_on_records_names_every_number_that_is_judged_and_every_control():
    names = {*Judge.model_fields, *Judgement.model_fields, *Population.model_fields, "held_out"}
    for name in names:
        assert f"`{name}`" in RECORD, name
    for control in declared.controls():
        assert f"\n| {control.name} |" in RECORD, control


# Studies -------------------------------------------------------------------------------------------------------------


def study_lines() -> list[list[str]]:
    """The ``bench study`` commands of the document's blocks."""
    text = "\n".join([*blocks(STUDIES, "sh"), *blocks(STUDIES, "bash")]).replace("\\\n", " ")
    lines = [line.partition(" # ")[0] for line in text.splitlines() if "-m bench study" in line]
    return [shlex.split(line.partition("-m bench study ")[2]) for line in lines]


def test_the_studies_commands_parse():
    assert len(study_lines()) >= 5
    for words in study_lines():
        ALL["study",].make_context("study", list(words), resilient_parsing=False)
        assert words[0] in recipe.names()


def test_the_recipe_of_the_document_is_one(tmp_path):
    first, second = blocks(STUDIES, "toml")
    path = tmp_path / "mine.toml"
    path.write_text(first, encoding="utf-8")
    made = recipe.read(str(path))
    assert len(recipe.cells(made)) == 12
    assert made.needs["collect"].gpus == 0.5
    path.write_text(f"{first}\n{second}", encoding="utf-8")
    assert recipe.cells(recipe.read(str(path)))[0].table.id == "mine"


def test_the_document_names_every_setting_and_every_column():
    columns = {name.removeprefix("good ") for name in OURS["generated"]}
    for name in (*recipe.NAMES, *columns):
        assert f"`{name}`" in STUDIES, name


def test_the_sbatch_example_is_bash_and_names_what_exists():
    """It ran on a Slurm of two machines when it was written; here are its syntax and the commands that it uses."""
    (script,) = blocks(STUDIES, "bash")
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert script.startswith("#!/bin/bash\n#SBATCH ")


def test_ray_has_what_the_sbatch_example_uses():
    pytest.importorskip("ray")
    from ray.scripts.scripts import cli as ray

    (script,) = blocks(STUDIES, "bash")
    words = shlex.split(script.partition("ray symmetric-run ")[2].partition(" -- ")[0])
    own = {
        option for parameter in ray.commands["symmetric-run"].params for option in parameter.opts
    }
    start = {option for parameter in ray.commands["start"].params for option in parameter.opts}
    named = {word for word in words if word.startswith("--")}
    assert {"--address", "--min-nodes"} <= named & own
    assert named <= own | start
