"""Registry of generators and tasks, which finds them by name through entry points and constructs them.

The value of an entry point is ``module:Class``, or a place where many are declared: a package whose files are read
(``bench.generators``), or a light module with a mapping ``TASKS`` (``bench.tasks``). Nothing heavy is imported to list
what there is: names and descriptions of generators are read from their source.
"""

import ast
import dataclasses
import difflib
import functools
import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bench.contract.context import Plugin
from bench.contract.declarations import Variant
from bench.errors import BadRequest, unexpected, unknown
from bench.system import entry_points
from bench.system.entry_points import Entry, Named
from bench.system.identity import module_file

if TYPE_CHECKING:
    from bench.contract import Generator, Task

P = TypeVar("P", bound=Plugin)
GENERATORS, TASKS = "bench.generators", "bench.tasks"  # groups of entry points


@dataclasses.dataclass(frozen=True)
class Listing:
    """The description of a generator, read without importing it.

    Attributes:
        name: its name on the command line.
        target: ``module:Class``.
        about: the first line of its docstring.
        fields: hyperparameters and their defaults, as written in the source.
    """

    name: str
    target: str
    about: str
    fields: Mapping[str, str]


def generators() -> Named[Listing]:
    """Return all generators that have a name."""
    return entry_points.named(GENERATORS, _generators)


def tasks() -> Named[Variant]:
    """Return all tasks that have a name."""
    return entry_points.named(TASKS, _tasks)


def _generators(entry: Entry) -> dict[str, Listing]:
    """Return the generators that an entry point declares."""
    if entry.single:
        return {entry.name: Listing(entry.name, entry.value, entry.origin, {})}
    return _package(entry.value)


def _tasks(entry: Entry) -> dict[str, Variant]:
    """Return the tasks that an entry point declares."""
    if entry.single:
        return {entry.name: Variant(entry.value, entry.origin)}
    return entry_points.table(entry, "TASKS", Variant)


@functools.cache  # reading the sources takes a tenth of a second, and a run asks for fifteen generators
def _package(package: str) -> dict[str, Listing]:
    """Return the generators in the files of a package and its subpackages, by name."""
    folder = _package_folder(package)
    listings: dict[str, Listing] = {}
    for path in sorted(folder.rglob("*.py")):
        module = ".".join([package, *path.relative_to(folder).with_suffix("").parts])
        listings |= {listing.name: listing for listing in _read(path, module)}
    return listings


def task_variant(name: str) -> Variant:
    """Return the variant of a task (its class, settings and sizes), by name or as ``module:Class``.

    Raises:
        BadRequest: no such task.
    """
    return Variant(name, "") if ":" in name else tasks().find("task", name)


def load_generator(name: str) -> "type[Generator]":
    """Return the generator's class, by name or as ``module:Class``.

    Raises:
        BadRequest: no such generator, or a class that is no generator.
    """
    from bench.contract import Generator  # here, because it imports torch

    target = name if ":" in name else generators().find("generator", name).target
    return _load(target, Generator)  # type: ignore[type-abstract]


def load_task(name: str, preset: str, settings: Mapping[str, object]) -> "Task":
    """Return the task, constructed with the settings of its variant, the preset and ``settings``; later ones override.

    Raises:
        BadRequest: no such task, setting or value.
    """
    cls = task_class(name)
    values = {**task_variant(name).settings, **cls.presets.get(preset, {}), **settings}
    return construct(cls, values, "task setting")


def task_class(name: str) -> "type[Task]":
    """Return the task's class.

    Raises:
        BadRequest: no such task.
    """
    from bench.contract import Task  # here, because it imports torch

    return _load(task_variant(name).target, Task)  # type: ignore[type-abstract]


def construct(cls: type[P], values: Mapping[str, object], what: str) -> P:
    """Return an instance of a plugin's dataclass, each value checked against and converted to its field's type.

    Raises:
        BadRequest: an unknown field, or a value that its type does not allow.
    """
    import typing

    from pydantic import TypeAdapter, ValidationError

    hints = typing.get_type_hints(cls)
    fields = {name: hints[name] for name in cls.setting_names()}
    checked = {}
    for name, value in values.items():
        if name not in fields:
            raise unknown(what, name, fields)
        try:
            checked[name] = TypeAdapter(fields[name]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise BadRequest(f"{what} {name}={value}: {reason}") from None
    return cls(**checked)


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BadRequest(f"the package '{package}' is not installed: run 'pip install .' again")
    return Path(spec.submodule_search_locations[0])


def _load(target: str, contract: type[P]) -> type[P]:
    """Import a plugin's class, ``module:Class``.

    Raises:
        BadRequest: the class does not exist, is no dataclass or does not derive from ``contract``.
    """
    module, _, name = target.partition(":")
    if "/" in module or "\\" in module or module.endswith(".py"):
        raise BadRequest(
            f"{target} is a path, expected my_package.module:Class: run the command in the file's folder, and name the "
            f"class as {Path(module).stem}:{name}"
        )
    try:
        loaded = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # anything can go wrong in somebody else's module
        raise BadRequest(f"cannot import '{module}' of {target}: {unexpected(error)}") from error
    cls = getattr(loaded, name, None)
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        near = difflib.get_close_matches(name, dir(loaded), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise BadRequest(f"{target} is no dataclass of module '{module}'{hint}")
    if not issubclass(cls, contract):
        kind = contract.__name__
        raise BadRequest(
            f"{target} is no {kind.lower()}: derive the class from bench.contract.{kind}"
        )
    return cls


def _read(path: Path, module: str) -> list[Listing]:
    """Read the generators of one file from its syntax tree: classes with ``Generator`` among their bases."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        Listing(
            path.stem,
            f"{module}:{node.name}",
            _first_line(node),
            _inherited(tree, node) | _fields(node),
        )
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Generator" for base in node.bases)
    ]


def _inherited(tree: ast.Module, node: ast.ClassDef) -> dict[str, str]:
    """Read the fields of base classes that are imported from other modules of the same top-level package."""
    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
    fields: dict[str, str] = {}
    for item in tree.body:
        if (
            isinstance(item, ast.ImportFrom)
            and item.module
            and not item.module.startswith("bench.")
        ):
            names = bases & {alias.name for alias in item.names}
            path = module_file(item.module) if names else None
            if path is not None:
                other = ast.parse(path.read_text(encoding="utf-8"))
                classes = [part for part in other.body if isinstance(part, ast.ClassDef)]
                for cls in (part for part in classes if part.name in names):
                    fields |= _fields(cls)
    return fields


def _first_line(node: ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]


def _fields(node: ast.ClassDef) -> dict[str, str]:
    return {
        item.target.id: ast.unparse(item.value) if item.value else "required"
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and "ClassVar" not in ast.unparse(item.annotation)
    }
