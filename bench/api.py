"""The library's public functions, which do what the command line does; torch is imported only where they need it."""

import dataclasses
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bench import plugins
from bench.contract.context import Plugin
from bench.errors import BadRequest
from bench.records.record import Record
from bench.records.request import Request, options
from bench.records.values import plain
from bench.system import identity

if TYPE_CHECKING:
    from bench.contract import Generator, Task, Zoo


def run(
    task: "str | type[Task] | Task",
    generator: "str | type[Generator] | Generator",
    **options: object,
) -> Record:
    """Collect checkpoints, fit a generator, sample models, score them and every control, and write one record.

    >>> record = bench.run(task="digits", generator="pdiff", k=50)  # doctest: +SKIP

    Args:
        task: what to solve: a name, ``module:Class``, a class, or an instance, whose settings are then asked for.
        generator: what generates, likewise. Of an instance only the hyperparameters count: a new one is fitted.
        options: those of ``python -m bench run`` by name, such as ``k``, ``samples``, ``seed``, ``arch``, ``results``;
            ``task_settings`` and ``generator_settings`` are mappings of what ``--set`` sets.

    Returns:
        The record, which lies as ``<results>/<key>/<id>.json`` as well.

    Raises:
        BadRequest: an unknown option or an invalid value; raised before any work is done.
        BenchError: a stage failed.
    """
    asked = request(task, generator, options)
    from bench.runs import pipeline  # here, because it imports torch

    return pipeline.run(asked)[0]


def load_zoo(path: str | os.PathLike[str]) -> "Zoo":
    """Read a zoo's file, as ``python -m bench collect`` or ``zoo import`` wrote it.

    Raises:
        BadRequest: the file is missing or damaged.
    """
    from bench.contract import Zoo  # here, because it imports torch

    return Zoo.load(Path(path))


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read a record's file, of any version of the schema.

    Raises:
        BadRequest: the file is missing or holds no valid record.
    """
    return Record.read(Path(path))


def request(
    task: "str | type[Task] | Task",
    generator: "str | type[Generator] | Generator",
    options: Mapping[str, object],
) -> Request:
    """Return the request of a task, a generator and options; see ``run``.

    Raises:
        BadRequest: an unknown option or an invalid value.
    """
    named = dict(options)
    preset = str(options.get("preset", "quick"))
    for kind, plugin in (("task", task), ("generator", generator)):
        settings = f"{kind}_settings"
        named |= {kind: name_of(plugin), settings: _mapping(options, settings)}
        if isinstance(plugin, Plugin):
            named[settings] = {**asked_for(plugin, preset), **_mapping(options, settings)}
    return Request.named(named)


def _mapping(options: Mapping[str, object], name: str) -> Mapping[str, object]:
    settings = options.get(name) or {}
    if not isinstance(settings, Mapping):
        raise BadRequest(f"{name} is {settings!r}, expected a mapping of names to values")
    return settings


def asked_for(plugin: Plugin, preset: str) -> dict[str, object]:
    """Return the settings of an instance that differ from those of its class under a preset."""
    usual = dict(getattr(type(plugin), "presets", {}).get(preset, {}))
    for field in dataclasses.fields(plugin):
        if field.default is not dataclasses.MISSING:
            usual.setdefault(field.name, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            usual.setdefault(field.name, field.default_factory())
    return {
        name: value
        for name, value in plugin.settings().items()
        if name not in usual or plain(usual[name], name) != plain(value, name)
    }


# Names of classes ----------------------------------------------------------------------------------------------------


def name_of(plugin: object) -> str:
    """Return the name of a plugin in a request: a generator's registered name, otherwise ``module:Class``.

    Raises:
        BadRequest: the class cannot be imported by another process, or its module now holds another one.
    """
    if isinstance(plugin, str):
        return plugin
    cls = plugin if isinstance(plugin, type) else type(plugin)
    target = f"{_module_of(cls)}:{cls.__qualname__}"
    names = [name for name, listed in plugins.generators().items() if listed.target == target]
    return names[0] if names else target


def _module_of(cls: type[object]) -> str:
    """Return the name of the module that any process can import a class from.

    Raises:
        BadRequest: there is no such module.
    """
    module = cls.__module__
    if module == "__main__":
        return _script_of(cls)
    if getattr(sys.modules.get(module), cls.__qualname__, None) is not cls:
        raise BadRequest(
            f"{cls.__qualname__} is not what stands under that name in {module}: write the class at the top level of "
            "its module, and after a reload take the new one"
        )
    if getattr(sys.modules[module].__spec__, "_initializing", False):
        raise BadRequest(
            f"bench.run is called while {module} is being imported: put the call under if __name__ == '__main__':"
        )
    return module


def _script_of(cls: type[object]) -> str:
    """Return the module name of the running script, which a class is written in.

    Raises:
        BadRequest: no script is running (as in a notebook), or it cannot be imported.
    """
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    spec = getattr(main, "__spec__", None)
    if file is None:
        raise BadRequest(
            f"{cls.__qualname__} is written in a notebook or at a prompt, where no record can name its code: write it "
            "into a file (in a notebook, %%writefile my_generator.py) and import it from there"
        )
    name = spec.name if spec else Path(file).stem
    if identity.module_file(name) != Path(file).resolve():
        raise BadRequest(
            f"{cls.__qualname__} is written in {file}, which cannot be imported as '{name}': move it into a module"
        )
    return name


def _signature() -> inspect.Signature:
    """Return the signature of ``run`` with every option, for ``help`` and for editors."""
    parameters = inspect.signature(run).parameters
    keyword = inspect.Parameter.KEYWORD_ONLY
    further = [
        inspect.Parameter(name, keyword, default=option.default)
        for name, option in options().items()
        if name not in parameters
    ]
    declared = [parameters["task"], parameters["generator"]]
    return inspect.Signature([*declared, *further], return_annotation=Record)


run.__signature__ = _signature()  # type: ignore[attr-defined]
