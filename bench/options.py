"""Command-line options of a run, as ``bench.records.request`` declares them, for the commands that need them."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, get_args

import typer

from bench.errors import BadRequest
from bench.records.request import SET, options
from bench.records.values import parsed
from bench.system.data import Json

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="name=value: a hyperparameter of the generator; task.name=value: of the task."
    ),
]


def asking(names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the named options, in this order.

    A name that is a parameter of the command is passed to it as such. All others are options of ``Request`` and
    ``settings``, which is ``--set``; the command gets those that were given as its first argument, one mapping by
    name as ``Request.named`` takes it.

    Args:
        names: the options' names, separated by spaces.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        declared = dict(inspect.signature(command).parameters)
        declared.pop(next(iter(declared)))  # the mapping of all other options
        parameters = [declared.get(name) or _parameter(name) for name in names.split()]

        @functools.wraps(command)
        def called(**given: Json) -> None:
            arguments = {name: given.pop(name) for name in declared}
            command(_named(given), **arguments)

        keyword = inspect.Parameter.KEYWORD_ONLY
        signature = inspect.Signature([one.replace(kind=keyword) for one in parameters])
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        called.__signature__ = signature  # type: ignore[attr-defined]  # read by typer
        return called

    return decorate


def _parameter(name: str) -> inspect.Parameter:
    """Return an option as the parameter of a function that typer reads."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    if name == "settings":
        return inspect.Parameter(name, keyword, default=None, annotation=Set)
    option = options()[name]
    default = option.default
    kind, text = get_args(option.hint)
    flag = typer.Option(f"--{name.replace('_', '-')}", help=text)
    annotation: object = Annotated[kind if default is not None else kind | None, flag]  # type: ignore[valid-type]
    return inspect.Parameter(name, keyword, default=default, annotation=annotation)


def _named(given: dict[str, Json]) -> dict[str, Json]:
    """Return the given options by name, with the settings of --set under ``set.NAME``."""
    sets = dict(pairs("--set", given.pop("settings", None)))
    named = {name: value for name, value in given.items() if value is not None}
    return named | {f"{SET}{name}": parsed(text) for name, text in sets.items()}


def pairs(option: str, texts: Sequence[str] | None) -> list[tuple[str, str]]:
    """Split texts such as ``name=value`` into names and values.

    Raises:
        BadRequest: a text has no name or no equals sign.
    """
    split = []
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadRequest(f"{option} {text}: expected name=value")
        split.append((name, value))
    return split
