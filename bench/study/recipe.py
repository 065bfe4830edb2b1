"""A study's recipe: a short TOML file with axes, fixed settings and reference numbers, and the runs it stands for.

Errors in a recipe are reported before anything starts. Imports nothing heavy.
"""

import dataclasses
import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bench.errors import BadRequest, unknown
from bench.records.asked import TASK_OPTIONS, Asked
from bench.records.paper import Row, Table, tables
from bench.records.request import CANONICAL, SET, Request, place
from bench.system.data import Json, Settings

FOLDER = Path(__file__).with_name("recipes")
# Settings that a recipe may have: all options of a record's command.
NAMES = (*CANONICAL, *TASK_OPTIONS)
SEEDS = ("seed", "zoo_seed")  # axes that a report pools
Kind = Literal["base", "collect", "controls", "fit", "record"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _flat(data: Json, prefix: str = "") -> Json:
    """Flatten nested tables into one, so that ``set.NAME`` may be written with or without quotes."""
    if not isinstance(data, dict):
        return {prefix.removesuffix("."): data} if prefix else data
    parts = (_flat(value, f"{prefix}{name}.") for name, value in data.items())
    return {name: value for part in parts for name, value in part.items()}


class Needs(_Part):
    """Resources that one stage occupies while it runs.

    Attributes:
        cpus: number of cores, and of threads.
        gpus: number of GPUs, or a share of one; ignored on a CPU.
        memory_gb: main memory in GB.
    """

    cpus: int = Field(default=1, ge=1)
    gpus: float = Field(default=1.0, ge=0)
    memory_gb: float = Field(default=2.0, gt=0)


class Recipe(_Part):
    """The recipe of a study.

    Attributes:
        name: of the file, without its ending.
        title, about: descriptions for people.
        paper: ids of the paper's tables (``bench.records.paper``) whose rows are run.
        table: further tables, in the form of the paper's; their rows are run as well.
        fixed: settings of all runs; they override those of tables.
        axes: settings with several values, of which every combination is run; they override those of tables too.
        needs: resources of stages, by kind.
    """

    name: str
    title: str
    about: str = ""
    paper: tuple[str, ...] = ()
    table: tuple[Table, ...] = ()
    fixed: Annotated[dict[str, Json], BeforeValidator(_flat)] = Field(default_factory=dict)
    axes: Annotated[dict[str, list[Json]], BeforeValidator(_flat)] = Field(default_factory=dict)
    needs: dict[Kind, Needs] = Field(default_factory=dict)

    def tables(self) -> list[Table]:
        """Return the tables whose rows are run, those of the paper first."""
        return [*(tables()[name] for name in self.paper), *self.table]

    def fix(self, settings: Settings) -> Self:
        """Return the recipe with further fixed settings, which are removed from the axes."""
        _known(self.name, "setting", settings)
        axes = {name: values for name, values in self.axes.items() if name not in settings}
        return self.model_copy(update={"fixed": {**self.fixed, **settings}, "axes": axes})


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study, and its place in the report.

    Attributes:
        request: the run.
        at: the value of every axis.
        table, row: the place of its reference numbers; None in a study without tables.
    """

    request: Request
    at: Settings
    table: Table | None = None
    row: Row | None = None

    @property
    def label(self) -> tuple[str, ...]:
        """The cell's name, in parts; cells of a row that differ only in their seeds share it."""
        axis_values = (str(value) for name, value in self.at.items() if name not in SEEDS)
        return (*(self.row.label if self.row else ()), *axis_values)


def names() -> dict[str, Path]:
    """Return the files of the recipes that ship with the suite, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def read(name: str) -> Recipe:
    """Read a recipe, by the name of one that ships with the suite or by its file.

    Raises:
        BadRequest: the recipe does not exist or is invalid.
    """
    path = names().get(name) or Path(name)
    if not path.is_file():
        if path.suffix == ".toml":
            raise BadRequest(f"no recipe at {name}")
        raise unknown("study", name, names())
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        recipe = Recipe.model_validate({"name": path.stem, **data})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path} is not a TOML file: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadRequest(f"{path}: {where}: {first['msg']}") from None
    _check(recipe)
    return recipe


def _check(recipe: Recipe) -> None:
    """Check the names of axes, settings and tables, and that axes have values.

    Raises:
        BadRequest: one of them is invalid.
    """
    _known(recipe.name, "axis", recipe.axes)
    _known(recipe.name, "setting", recipe.fixed)
    for table in recipe.table:
        for row in table.row:
            _known(recipe.name, f"setting of table {table.id}", {**table.run, **row.run})
    for name in recipe.paper:
        if name not in tables():
            raise BadRequest(f"{recipe.name}: {unknown('table of the paper', name, tables())}")
    for name, values in recipe.axes.items():
        if not values:
            raise BadRequest(f"{recipe.name}: axis '{name}' is empty: give it a value or remove it")
        if name in recipe.fixed:
            raise BadRequest(f"{recipe.name}: '{name}' is an axis and fixed: keep one of the two")


def _known(recipe: str, what: str, settings: Settings) -> None:
    for name in settings:
        if name not in NAMES and not (name.startswith(SET) and name != SET):
            raise BadRequest(f"{recipe}: {unknown(what, name, (*NAMES, f'{SET}NAME'))}")


def cells(recipe: Recipe) -> list[Cell]:
    """Return every run of a study.

    Raises:
        BadRequest: a duplicate run, a run without task or generator, or an invalid value.
    """
    listed = [
        Cell(_request(recipe, {**settings, **recipe.fixed, **at}), at, table, row)
        for table, row, settings in _rows(recipe)
        for at in _combinations(recipe.axes)
    ]
    _refuse_duplicates(recipe, listed)
    return listed


def _rows(recipe: Recipe) -> Iterator[tuple[Table | None, Row | None, dict[str, Json]]]:
    """Yield the rows that can be run, with their settings; a study without tables has one empty row."""
    given = recipe.tables()
    if not given:
        yield None, None, {}
    for table in given:
        for row in table.row:
            settings = table.settings(row)
            if settings:
                yield table, row, settings


def _combinations(axes: Mapping[str, Sequence[Json]]) -> Iterator[dict[str, Json]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _request(recipe: Recipe, settings: Settings) -> Request:
    for name in ("task", "generator"):
        if name not in settings:
            raise BadRequest(f"{recipe.name}: no {name}: fix one, or make it an axis")
    try:
        return Request.named(settings)
    except BadRequest as error:
        raise BadRequest(f"{recipe.name}: {error}") from None


def _refuse_duplicates(recipe: Recipe, listed: Sequence[Cell]) -> None:
    """Check that no two cells have the same run, except those of rows that show originals.

    Raises:
        BadRequest: two cells have the same run.
    """
    seen: dict[Asked, Cell] = {}
    for cell in listed:
        if cell.row is not None and cell.row.population == "original":
            continue
        run = dataclasses.replace(cell.request, min_score=None).asked
        if run in seen:
            both = sorted({_place(seen[run]), _place(cell)})
            raise BadRequest(
                f"{recipe.name}: the same run twice ({' and '.join(both)}): {cell.request.asked.command}"
            )
        seen[run] = cell


def _place(cell: Cell) -> str:
    """Return the place of a cell in its recipe, in words."""
    table = [f"table {cell.table.id}"] if cell.table else []
    return ", ".join([*table, *cell.label]) or "an axis has a value twice"


def only(listed: Sequence[Cell], chosen: Mapping[str, Sequence[Json]]) -> list[Cell]:
    """Return the cells whose settings have one of the chosen values each.

    Raises:
        BadRequest: no cell is left.
    """
    kept = [
        cell
        for cell in listed
        if all(setting(cell.request, name) in values for name, values in chosen.items())
    ]
    if not kept:
        raise BadRequest("no run of the study is left: see 'bench study --dry-run' for all of them")
    return kept


def setting(request: Request, name: str) -> Json:
    """Return a setting of a run by its name in recipes."""
    if not name.startswith(SET) and name not in NAMES:
        raise unknown("setting", name, NAMES)
    field, key = place(name)
    value = getattr(request, field)
    return value if key is None else value.get(key)


def requests(listed: Sequence[Cell]) -> list[Request]:
    """Return the runs of some cells, each once."""
    unique = {cell.request.asked: cell.request for cell in listed}
    return list(unique.values())
