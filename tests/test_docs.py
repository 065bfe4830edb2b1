"""Every command and option is described, and what the documents show works as written."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from bench import cli
from tasks import datasets
from tests.standins import image_data

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


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
    for text in (README, COMMANDS, CONTRIBUTING):
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
    assert "pip install --quiet --disable-pip-version-check '.[test]'" in ci
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
    """The real digits and the real p-diff, as a new user runs them, but for the virtual environment."""
    words = shlex.split(blocks(README, "sh")[0].rpartition("&&")[2])[1:]
    done = subprocess.run(
        [sys.executable, *words, "--results", str(tmp_path / "results"),
         "--set", "autoencoder_iterations=20", "--set", "denoiser_iterations=20"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "pdiff on digits" in done.stdout
    assert list((tmp_path / "results").rglob("*.json"))


def test_the_contributing_example_is_short_and_runs(tmp_path, monkeypatch, capsys):
    example = blocks(CONTRIBUTING, "python")[0]
    assert example.count("\n") < 30
    (tmp_path / "line_example.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(datasets, "load", lambda name, data_dir=None: image_data(name))
    words = ["run", "--task", "digits", "--generator", "line_example:Line", "--set", "beyond=0.5",
             "--k", "4", "--samples", "3", "--set", "task.epochs=1", "--results", str(tmp_path / "r")]  # fmt: skip
    typer.main.get_command(cli.app).main(words, standalone_mode=False)
    assert "line_example:Line on digits" in capsys.readouterr().out


def test_links_inside_the_documents_lead_somewhere():
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            if not target.startswith("https://"):
                assert (path.parent / target).exists(), f"{path.name}: {target}"
