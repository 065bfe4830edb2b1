"""Finding generators and tasks by name. Names and descriptions are read from the source, so that listing is fast."""

import ast
import dataclasses
import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BadRequest, unknown

if TYPE_CHECKING:
    from tasks.catalog import Variant

CONTROLS = ("average", "copy", "interpolation", "gaussian", "finetune", "greedy_soup", "noise")


@dataclasses.dataclass(frozen=True)
class Plugin:
    """A class that can be loaded by name.

    Attributes:
        name: what the command line calls it.
        target: ``module:Class``.
        about: the first line of its docstring.
        fields: hyperparameters and their defaults, as written in the source.
    """

    name: str
    target: str
    about: str
    fields: dict[str, str]


def generators() -> dict[str, Plugin]:
    """All generators that have a name: the files of ``generators/``, then installed packages' entry points."""
    found = dict(_own_generators())
    for entry in importlib.metadata.entry_points(group="bench.generators"):
        about = f"from the package {entry.dist.name}" if entry.dist else "from another package"
        found.setdefault(entry.name, Plugin(entry.name, entry.value, about, {}))
    return found


@functools.cache  # reading the sources takes a tenth of a second, and a run asks for fifteen generators
def _own_generators() -> dict[str, Plugin]:
    paths = sorted(_package_folder("generators").glob("*.py"))
    files = [path for path in paths if path.stem not in ("base", "__init__")]
    return {plugin.name: plugin for path in files for plugin in _read(path)}


def tasks() -> "dict[str, Variant]":
    """All tasks that have a name."""
    from tasks.catalog import TASKS, Variant

    found = dict(TASKS)
    for entry in importlib.metadata.entry_points(group="bench.tasks"):
        found.setdefault(entry.name, Variant(entry.value, "from another package"))
    return found


def task_variant(name: str) -> "Variant":
    """What is known of a task before it is loaded, by name or as ``module:Class``.

    Raises:
        BadRequest: no such task.
    """
    from tasks.catalog import TASKS, Variant

    if ":" in name:
        return Variant(name, "")
    known = TASKS if name in TASKS else tasks()  # looking for installed packages takes a while
    if name not in known:
        raise unknown("task", name, known)
    return known[name]


def load_generator(name: str) -> type[Any]:
    """The generator's class, by name or as ``module:Class``.

    Raises:
        BadRequest: no such generator, or something that is none.
    """
    if ":" in name:
        cls = _load(name)
        return _checked(cls, name)
    known = _own_generators() if name in _own_generators() else generators()
    if name not in known:
        raise unknown("generator", name, known)
    return _checked(_load(known[name].target), name)


def _checked(cls: type[Any], name: str) -> type[Any]:
    """The class, if it has what the harness asks of a generator.

    Raises:
        BadRequest: it has not.
    """
    parts = ("fit", "sample", "hyperparameters", "needs", "presets", "deterministic")
    missing = [part for part in parts if not hasattr(cls, part)]
    if missing:
        raise BadRequest(
            f"{name} is no generator: it has no {' and no '.join(missing)}; derive it from generators.base.Generator"
        )
    return cls


def load_task(name: str, preset: str, settings: Mapping[str, Any]) -> Any:
    """The task, constructed with its variant's settings, then the preset's, then these.

    Raises:
        BadRequest: no such task, setting or value.
    """
    cls = task_class(name)
    values = {**task_variant(name).settings, **cls.presets.get(preset, {}), **settings}
    return construct(cls, values, "task setting")


def task_class(name: str) -> type[Any]:
    """The task's class.

    Raises:
        BadRequest: no such task.
    """
    return _load(task_variant(name).target)


def construct(cls: type[Any], values: dict[str, Any], what: str) -> Any:
    """An instance of a plugin's dataclass, each value checked against and converted to its field's type.

    Raises:
        BadRequest: an unknown field, or a value that its type does not allow.
    """
    import typing

    from pydantic import TypeAdapter, ValidationError

    hints = typing.get_type_hints(cls)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
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


def _load(target: str) -> type[Any]:
    module, _, name = target.partition(":")
    try:
        loaded = importlib.import_module(module)
    except (ImportError, ValueError) as error:
        raise BadRequest(f"cannot import '{module}' of {target}: {error}") from error
    cls = getattr(loaded, name, None)
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        near = difflib.get_close_matches(name, dir(loaded), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise BadRequest(f"{target} is no dataclass of module '{module}'{hint}")
    return cls


def _read(path: Path) -> list[Plugin]:
    """The generators of one file, from its syntax tree."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        Plugin(
            path.stem,
            f"generators.{path.stem}:{node.name}",
            _first_line(node),
            _inherited(tree, node) | _fields(node),
        )
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Generator" for base in node.bases)
    ]


def _inherited(tree: ast.Module, node: ast.ClassDef) -> dict[str, str]:
    """Fields of the base classes that are imported from other files of ``generators/``."""
    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
    fields: dict[str, str] = {}
    for item in tree.body:
        if isinstance(item, ast.ImportFrom) and (item.module or "").startswith("generators."):
            names = bases & {alias.name for alias in item.names}
            path = _package_folder("generators") / f"{str(item.module).partition('.')[2]}.py"
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
