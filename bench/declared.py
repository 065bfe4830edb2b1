"""Declarations of the suite's own tasks and generators, read from their source text without importing them.

A class declares its settings as fields with defaults, and what is true of all its instances as ``ClassVar``. Both are
read here as plain values, base classes first. A value that is not a literal (a call, or a name that stands for no
constant of the package) is left out.
"""

import ast
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bench import plugins
from bench.contract.control import Control
from bench.contract.metric import Compared, Metric
from bench.contract.needs import used
from bench.system.data import Json, Settings

ROOT = Path(__file__).resolve().parents[1]  # where the suite's packages lie


@dataclasses.dataclass(frozen=True)
class Declared:
    """The declarations of a class and its base classes.

    Attributes:
        fields: settings by name, with their defaults where these are plain values.
        facts: class variables that are plain values.
    """

    fields: Settings
    facts: Settings

    def uses(self, settings: Settings) -> tuple[str, ...] | None:
        """Return what ``fit`` of a generator with these hyperparameters is given; None where that is not declared."""
        if "needs" not in self.facts:
            return None
        return used(self.facts["needs"], self.facts.get("needs_where", {}), settings)

    @property
    def presets(self) -> Settings:
        """The settings of each preset that the class declares, by name."""
        values: Settings = self.facts.get("presets", {})
        return values

    def preset(self, name: str) -> Settings:
        """Return the settings of a preset, which override the defaults of the fields."""
        values: Settings = self.presets.get(name, {})
        return values


@functools.cache
def generator(name: str) -> Declared | None:
    """Return the declarations of one of the suite's own generators; None for a generator of another package."""
    targets = {known: plugin.target for known, plugin in plugins.generators().items()}
    target = targets.get(name, name)
    in_suite = target in targets.values() and target.startswith("generators.")
    return _read(target) if in_suite else None


@functools.cache
def controls() -> tuple[Control, ...]:
    """Return every control: the suite's own generators in ``generators.controls``, one for each of their amplitudes."""
    listed: list[Control] = []
    for name, listing in plugins.generators().items():
        if listing.target.startswith("generators.controls."):
            amplitudes = facts(Control(name)).get("amplitudes") or (None,)
            listed += [Control(name, amplitude) for amplitude in amplitudes]
    return tuple(listed)


@functools.cache
def twins() -> tuple[Control, ...]:
    """Return the aligned twins, which stand beside the controls wherever hidden units can be permuted."""
    return tuple(
        dataclasses.replace(one, aligned=True) for one in controls() if facts(one)["aligned_too"]
    )


@functools.cache
def made_of(control: Control) -> str:
    """Return what a control's models are made of: copies, averages or broken; "" where it enters no composition."""
    least = facts(control).get("broken_from")
    if least is not None and control.amplitude is not None and control.amplitude >= least:
        return "broken"
    return str(facts(control).get("made_of", ""))


def part_of_mixtures(control: Control) -> str:
    """Return ``made_of``; "" for copies too, for which the checkpoints themselves stand in a mixture."""
    return "" if control == Control("copy") else made_of(control)


def facts(control: Control) -> Settings:
    """Return the class variables of a control's generator; none of them where it is not the suite's."""
    made = generator(control.name)
    return made.facts if made else {}


@functools.cache
def task(name: str) -> Declared | None:
    """Return the declarations of the class of one of the suite's own tasks; None for a task of another package."""
    known = {task: variant.target for task, variant in plugins.tasks().items()}
    target = known.get(name, name)
    in_suite = target in known.values() and target.startswith("tasks.")
    return _read(target) if in_suite else None


@functools.cache
def recipe() -> Settings:
    """Return the default training settings, which tasks and architectures may override."""
    return _read("tasks.training.recipe:Recipe").fields


def _read(target: str) -> Declared:
    module, _, name = target.partition(":")
    fields: dict[str, Json] = {}
    facts: dict[str, Json] = {}
    classes = {
        node: source for source, node in _lineage(module, name)
    }  # in the order of their first occurrence
    for node, source in classes.items():
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                group = facts if "ClassVar" in ast.unparse(item.annotation) else fields
                group.pop(item.target.id, None)  # overrides the value of a base class
                if item.value is not None and (value := source.value(item.value)) is not UNKNOWN:
                    group[item.target.id] = value
            elif isinstance(item, ast.FunctionDef):
                facts.pop(item.name, None)  # a property in place of a base class's constant
    return Declared(fields, facts)


def _lineage(module: str, name: str) -> Iterator[tuple["_Source", ast.ClassDef]]:
    """Yield a class of the suite and its base classes, each with its source, base classes first."""
    source = _source(module)
    node = source.classes.get(name)
    if node is None:
        if name in source.imported:  # the package re-exports a class of one of its modules
            yield from _lineage(*source.imported[name])
        return
    for base in reversed(node.bases):
        if isinstance(base, ast.Name):
            yield from _lineage(*source.imported.get(base.id, (module, base.id)))
    yield source, node


UNKNOWN = object()  # stands for a value that the source does not state
VALUES: Mapping[str, Callable[..., object]] = {
    "Metric": Metric,
    "Compared": Compared,
}  # classes whose calls with plain arguments are evaluated


@dataclasses.dataclass(frozen=True)
class _Source:
    """The declarations in the source text of one module.

    Attributes:
        classes: class definitions by name.
        constants: unevaluated values of module-level names.
        imported: module and original name of everything imported with ``from``, by the name in this module.
    """

    classes: Mapping[str, ast.ClassDef]
    constants: Mapping[str, ast.expr]
    imported: Mapping[str, tuple[str, str]]

    def value(self, node: ast.expr) -> object:
        """Return the plain value of an expression, or ``UNKNOWN``."""
        if isinstance(node, ast.Name) and node.id in self.constants:
            return self.value(self.constants[node.id])
        if isinstance(node, ast.Name) and node.id in self.imported:
            module, name = self.imported[node.id]
            return _constant(module, name)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module, name = self.imported.get(node.value.id, ("", ""))
            return _constant(f"{module}.{name}", node.attr)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in VALUES:
            return self._call(node)
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError):
            return UNKNOWN

    def _call(self, node: ast.Call) -> object:
        """Return the result of a call of one of ``VALUES``, or ``UNKNOWN`` where an argument is unknown."""
        given = [self.value(one) for one in node.args]
        named = {str(one.arg): self.value(one.value) for one in node.keywords}
        if UNKNOWN in given or UNKNOWN in named.values():
            return UNKNOWN
        return VALUES[ast.unparse(node.func)](*given, **named)


def _constant(module: str, name: str) -> object:
    source = _source(module)
    return source.value(source.constants[name]) if name in source.constants else UNKNOWN


@functools.cache
def _source(module: str) -> _Source:
    """Return the parsed source of a module of the suite; an empty one for any other module."""
    package, _, inner = module.partition(".")
    if package not in ("bench", "generators", "tasks"):
        return _Source({}, {}, {})
    folder = ROOT.joinpath(package, *inner.split("."))
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    imports = [item for item in ast.walk(tree) if isinstance(item, ast.ImportFrom) and item.module]
    return _Source(
        {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)},
        dict(_constants(tree)),
        {
            alias.asname or alias.name: (str(item.module), alias.name)
            for item in imports
            for alias in item.names
        },
    )


def _constants(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for item in tree.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value:
            yield item.target.id, item.value
        for target in item.targets if isinstance(item, ast.Assign) else ():
            assert isinstance(item, ast.Assign)
            if isinstance(target, ast.Name):
                yield target.id, item.value
            elif isinstance(target, ast.Tuple) and isinstance(item.value, ast.Tuple):
                pairs = zip(target.elts, item.value.elts, strict=False)
                yield from ((t.id, v) for t, v in pairs if isinstance(t, ast.Name))
