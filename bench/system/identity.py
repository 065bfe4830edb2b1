"""The identity of a plugin's results: its code, followed through its imports, and the files that its settings name.

The code identity of a plugin is a hash of the file that it is written in and of every file that this one imports, in
turn, from its own package; other files of the package do not count. For a plugin from outside the suite, "its own" is
all code that is neither installed nor part of Python: modules beside it, and those that it imports from the suite's
plugins. The data files that its code names (``Path(__file__).with_name("prior.pt")``, ``open("a.csv")``) count too. Of
the suite itself, the modules in ``NUMERICAL``, which compute or draw numbers, count for every plugin.

Modules are located and read, never imported or run. Imports no torch.
"""

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Protocol, runtime_checkable

from bench.errors import BadRequest
from bench.system.data import Settings
from bench.system.store import file_hash

SUITE = ("bench", "leaderboard")  # packages that count for no plugin's identity ...
NUMERICAL = (
    "bench.metrics",
    "bench.system.randomness",
    "bench.system.seeds",
)  # ... except for these modules
LIBRARIES = ("torch", "torchvision", "timm", "diffusers")
PLUGINS = ("generators", "tasks")  # packages of the suite's plugins, which name no data files
DEPTH = 3  # folders between a module and a data file that it names part by part
Stamp = tuple[int, int, int, int]
_LOADED: dict[
    str, tuple[ModuleSpec | None, str]
] = {}  # by module, its spec (new on every import) and its file's hash


@runtime_checkable
class Declaration(Protocol):
    """A registered function that a plugin uses, with values that determine its results."""

    @property
    def module(self) -> str:
        """The module that the function is written in."""
        ...

    def facts(self) -> Settings:
        """Return the values that determine the function's results, by name."""
        ...


@runtime_checkable
class Declares(Protocol):
    """A plugin that tells which registered functions it uses."""

    def declarations(self) -> Sequence[Declaration]:
        """Return the registered functions that the plugin uses."""
        ...


class Code:
    """The code of plugins, as it is when this is made.

    Every module is looked for once, so that a run asks for the identity of many plugins at the price of one; and an
    edit during the run changes none of its identities.
    """

    def __init__(self) -> None:
        importlib.invalidate_caches()  # files may have come and gone
        self._found = functools.cache(module_file)
        self._follows = functools.cache(self._is_followed)
        self._of_classes: dict[tuple[type[object], tuple[str, ...]], str] = {}

    def of(self, plugin: Declares, settings: Settings) -> str:
        """Return the SHA-256 of a plugin's code and declarations, and of the files that its settings name.

        Args:
            plugin: an instance of a subclass of ``bench.contract.context.Plugin``.
            settings: its fields by name, its hyperparameters for a generator.

        Raises:
            BadRequest: its class was not read from a file.
        """
        declared = plugin.declarations()
        code = self.of_class(type(plugin), [one.module for one in declared])
        lines = [f"{json.dumps(one.facts(), sort_keys=True)}\n" for one in declared]
        lines += [f"{name} {content}\n" for name, content in sorted(named_files(settings).items())]
        if not lines:
            return code
        return hashlib.sha256((code + "\n" + "".join(lines)).encode()).hexdigest()

    def of_class(self, cls: type[object], modules: Sequence[str] = ()) -> str:
        """Return the SHA-256 of a plugin class's code: its file, and the files that it imports from its own package.

        Args:
            cls: the class.
            modules: further modules that the class uses without importing them, such as those of declarations.

        Raises:
            BadRequest: the class was not read from a file.
        """
        key = (cls, tuple(modules))
        if key not in self._of_classes:
            self._of_classes[key] = _hash_of_files(self.files(cls, modules))
        return self._of_classes[key]

    def check_loaded(self, cls: type[object]) -> None:
        """Check that the files of a loaded class were not edited: its results would be stored under the edit's hash.

        Raises:
            BadRequest: a file that the class depends on has changed since the first check.
        """
        for name, path in self.files(cls).items():
            if (loaded := sys.modules.get(name)) is None:
                continue
            content = file_hash(path)
            spec, first = _LOADED.get(name, (None, ""))
            if spec is not loaded.__spec__:  # loaded for the first time, or again
                _LOADED[name] = (loaded.__spec__, content)
            elif content != first:
                raise BadRequest(
                    f"{path} was edited after it was imported: start Python again, or importlib.reload({name})"
                )

    def files(self, cls: type[object], modules: Sequence[str] = ()) -> dict[str, Path]:
        """Return the source files that a class's code identity covers, by the module's name.

        They are those of the class, its base classes (without the harness's and Python's) and ``modules``, and all that
        these reach through imports of their own package.

        Raises:
            BadRequest: the class has no source file.
        """
        bases = [b.__module__ for b in cls.__mro__ if b is cls or self._follows(b.__module__)]
        wanted, files, seen = [*bases, *modules], dict[str, Path](), set[str]()
        while wanted:
            name = wanted.pop()
            if name in seen:
                continue
            seen.add(name)
            path = self._found(name)
            if path is not None:
                files[name] = path
                wanted += [part for part in _parents(name) if part.partition(".")[0] not in SUITE]
                own = _own_folder(path)
                wanted += [target for target in _imports(name, path) if self._follows(target, own)]
        if bases[0] not in files:
            raise BadRequest(
                f"{bases[0]} has no source file: write the plugin into a module, so that results can name its code"
            )
        return files

    def _is_followed(self, name: str, own: Path | None = None) -> bool:
        """Return whether a module counts for the identity of what imports it.

        Args:
            name: the module.
            own: the folder of the package that imports it; None for a base class, which counts as if the module named
                itself.
        """
        top = name.partition(".")[0]
        if top in SUITE:
            return any(name == part or name.startswith(f"{part}.") for part in NUMERICAL)
        if top in sys.stdlib_module_names:
            return False
        path = self._found(name)
        if path is None:
            return False
        if own is not None and _top_folder(name, path) == own:
            return True  # of the same package, even if that is installed
        return top in PLUGINS or not any(path.is_relative_to(folder) for folder in _installed())


def _hash_of_files(files: Mapping[str, Path]) -> str:
    lines = []
    for name, path in files.items():
        lines.append(f"{name} {file_hash(path)}\n")
        if name.partition(".")[0] not in (*PLUGINS, *SUITE):
            lines += [f"{name} {file.name} {file_hash(file)}\n" for file in _named(path)]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


@functools.cache
def libraries() -> tuple[str, ...]:
    """Return the numerical libraries with their versions, on which results depend."""
    return tuple(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)


def named_files(settings: Settings) -> dict[str, str]:
    """Return the SHA-256 of every file or folder that a setting names, by the setting and the place in its value.

    A text names a file if that file exists, and a folder only if it has a separator as well: "data" alone is more often
    a word than a folder.
    """
    hashes = {}
    for name, value in _texts(settings, ""):
        path = Path(value).expanduser()
        whole = isinstance(value, Path) or "/" in value
        try:
            if path.is_file() or (whole and path.is_dir()):
                hashes[name] = file_hash(path)
        except (OSError, ValueError):
            continue  # too long for a name, or with characters that no name has
    return hashes


def _texts(value: object, place: str) -> Iterator[tuple[str, str | Path]]:
    """Yield the texts and paths in nested settings, each preceded by its place, such as ``.name.0``."""
    if isinstance(value, str | Path):
        yield place, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _texts(part, f"{place}.{name}")
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        for index, part in enumerate(value):
            yield from _texts(part, f"{place}.{index}")


# Imports -------------------------------------------------------------------------------------------------------------


def _parents(name: str) -> list[str]:
    """Return the packages that a module lies in: importing it runs their ``__init__`` too."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


@functools.cache
def _installed() -> tuple[Path, ...]:
    """Return the folders of Python itself and of installed packages."""
    named = [*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()]
    prefixes = (sysconfig.get_paths()["data"], sysconfig.get_paths()["scripts"])
    return tuple({Path(path).resolve() for path in named if path not in prefixes})


def _top_folder(name: str, path: Path) -> Path:
    """Return the folder of a module's top-level package; of a module outside of packages, its file."""
    depth = name.count(".") + (path.name == "__init__.py")
    return path.parents[depth - 1] if depth else path


def _own_folder(path: Path) -> Path:
    """Return the folder of the top-level package that a file lies in; the file itself where it lies in none."""
    top = path
    while (top.parent / "__init__.py").is_file():
        top = top.parent
    return top


def module_file(name: str) -> Path | None:
    """Find the file of a module without importing it or its packages; None where there is no such file."""
    spec = _spec(name)
    if spec is None or not spec.has_location or spec.origin is None:
        loaded = getattr(sys.modules.get(name), "__file__", None)
        return Path(loaded).resolve() if loaded and Path(loaded).is_file() else None
    path = Path(spec.origin)
    return path.resolve() if path.is_file() else None


def _spec(name: str) -> ModuleSpec | None:
    """Find the spec of a module without running code; None if there is none.

    Python looks up the top-level name only, because looking up a submodule would import its packages.
    """
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", list(spec.submodule_search_locations))
    return spec


def _imports(name: str, path: Path) -> Sequence[str]:
    """Return the modules that a module's import statements name, in functions too."""
    if path.suffix != ".py":
        return ()  # compiled: nothing to read
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return _absolute_imports(path, _stamp(path), package)


@functools.lru_cache(maxsize=4096)
def _absolute_imports(path: Path, stamp: Stamp, package: str) -> tuple[str, ...]:
    return tuple(_absolute(target, package) for target in _read(path, stamp)[0])


def _absolute(target: str, package: str) -> str:
    """Return the absolute name of a module; leading dots are relative to ``package``."""
    bare = target.lstrip(".")
    level = len(target) - len(bare)
    if not level:
        return target
    base = package.split(".")[: len(package.split(".")) - level + 1]
    return ".".join([*base, bare] if bare else base)


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@functools.lru_cache(maxsize=4096)
def _read(path: Path, _: Stamp) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read the imports of a source file (of ``from a import b`` both a and a.b), and its string literals."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return (), ()  # such a file cannot be imported either
    imports: list[str] = []
    texts: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            joint = "" if base.endswith(".") else "."
            imports += [base, *(f"{base}{joint}{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and _imports_by_name(node):
            imports.append(node.args[0].value)  # type: ignore[attr-defined]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.add(node.value)
    return tuple(imports), tuple(sorted(texts))


def _imports_by_name(node: ast.Call) -> bool:
    """Return whether a call is ``import_module("a.b")`` or ``__import__("a.b")``."""
    called = (
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    )
    first = node.args[0] if node.args else None
    return (
        called in ("import_module", "__import__")
        and isinstance(first, ast.Constant)
        and isinstance(first.value, str)
    )


# Data files that code names -------------------------------------------------------------------------------------------


def _named(path: Path) -> set[Path]:
    """Find the data files that a module's string literals name, relative to its own or to the working folder."""
    if path.suffix != ".py":
        return set()
    texts = [
        text for text in _read(path, _stamp(path))[1] if 0 < len(text) < 256 and "\n" not in text
    ]
    files = {file for text in texts if (file := _inside(Path.cwd(), text)) and file.is_file()}
    folders = {path.parent}
    for _ in range(DEPTH):
        there = {place for folder in folders for text in texts if (place := _inside(folder, text))}
        files |= {place for place in there if place.is_file()}
        folders = {place for place in there if place.is_dir()}
    return {file for file in files if file.suffix not in (".py", ".pyc")}


def _inside(folder: Path, text: str) -> Path | None:
    """Return the path that a text names below a folder; None where nothing lies there, or outside of the folder."""
    try:
        place = (folder / Path(text).expanduser()).resolve()
        known = place.is_file() or (place.is_dir() and not folder.is_relative_to(place))
    except (OSError, ValueError, RuntimeError):
        return None
    return place if known else None
