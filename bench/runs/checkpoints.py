"""Where a run's checkpoints and its reference come from: collected, official, or the rows of a zoo's file."""

import dataclasses
import functools
import shutil
from collections.abc import Callable
from pathlib import Path

from bench.contract import Task
from bench.contract.zoo import Zoo
from bench.errors import BadRequest
from bench.records.request import Request
from bench.runs import foreign, official
from bench.runs.stages import VERSION, Reference, load_reference, save_reference
from bench.system import store
from bench.system.environment import processor
from bench.system.progress import say
from bench.system.randomness import generator


class Checkpoints:
    """The zoo and the reference of a request; both are cached.

    Args:
        request: the request.
        task: its task.
        device: the device that they are trained on.
        code: returns the identity of the task's code, which both depend on.
    """

    def __init__(
        self, request: Request, task: Task, device: str, code: Callable[[], list[str]]
    ) -> None:
        self.request, self.task, self.device, self.code = request, task, device, code
        self._held: Zoo | None = None  # runs of the given zoo's file that are held out

    def prepare(self) -> None:
        """Make the trained network that this and other zoos are collected from; nothing for a given zoo."""
        if not self.request.zoo:
            self.task.prepare(rng=generator(self.request.zoo_seed or 0, "zoo"))

    def zoo(self) -> tuple[Zoo, Path]:
        """Return the zoo (given, official, cached or collected) and the path of its file."""
        if self.request.zoo:
            return self._given(self.request.zoo), self.request.zoo
        k, seed = self.request.collected or self.request.k, self.request.zoo_seed or 0
        facts = {**self.task.identity(), "k": k, "seed": seed, "device": self.device}
        facts.pop("train_size", None)  # it affects how models are scored, not the checkpoints
        facts["code"] = store.file_hash(self.official) if self.official else self.code()
        path = store.home() / "zoos" / f"{store.digest([VERSION, facts])}.safetensors"
        work = path.with_suffix(".partial")

        def make() -> Zoo:
            if self.official:
                say(f"take the official zoo of {k} checkpoints; --collect trains others")
                return Zoo.load(self.official)
            say(f"collect {k} checkpoints")
            collected: Zoo = self.task.collect(k, rng=generator(seed, "zoo"), work=work)
            facts = {"zoo_seed": seed, "collected_on": processor(self.device)}
            return dataclasses.replace(collected, settings={**collected.settings, **facts})

        zoo = store.stage(path, Zoo.load, make, Zoo.save, force=self.request.force)
        shutil.rmtree(work, ignore_errors=True)
        return self._scored_alike(zoo.head(self.request.k)), path

    @functools.cached_property
    def official(self) -> Path | None:
        """The file of the official zoo that the request is answered with; None where it is to be collected."""
        request = self.request
        if request.collect or request.zoo:
            return None
        return official.find(self.task, request.collected or request.k, request.zoo_seed or 0)

    def reference(self, zoo: Zoo) -> Reference | None:
        """Return models of the zoo's process that no generator sees, cached or trained; None where there are none.

        Of a zoo that was made elsewhere they are the rows of its file that were held out.
        """
        count = self.request.held_out
        if not count:
            return None
        if self.request.parted:
            return self._held_rows()
        identity = {**self.task.identity(), "device": self.device, "code": self.code()}
        identity = {n: v for n, v in identity.items() if n not in (*self.task.scoring, "scoring")}
        ready = self._official_reference(count)
        identity |= {"official": store.file_hash(ready.path)} if ready else {}
        path = (
            store.home()
            / "references"
            / f"{store.digest([VERSION, zoo.hash, count, identity])}.safetensors"
        )
        work = path.with_suffix(".partial")

        def make() -> Reference:
            if ready:
                return dataclasses.replace(ready, path=path)  # the record names the store's file
            say(f"train {count} models to be held out")
            key = generator(0, zoo.hash, "reference")
            vectors = self.task.reference(zoo, count, rng=key, work=work)
            if vectors is None:
                return Reference(zoo.vectors[:0], path)
            foreign.check_vectors(vectors, count, zoo, f"{type(self.task).__name__}.reference")
            return Reference(vectors, path)

        made = store.stage(path, load_reference, make, save_reference, force=self.request.force)
        shutil.rmtree(work, ignore_errors=True)
        return made if len(made.vectors) else None

    def _official_reference(self, count: int) -> Reference | None:
        """Return the models that come with the official zoo; None unless they are as many as are asked for."""
        if not self.official or self.request.collected not in (None, self.request.k):
            return None
        path = official.reference_file(self.official)
        ready = load_reference(path) if path.exists() else None
        return ready if ready and len(ready.vectors) == count else None

    def _held_rows(self) -> Reference:
        """Return the rows of the given zoo's file that are held out, in a file of their own."""
        if self._held is None:
            self._held = self._parted(self.request.zoo)[1]
        held = self._held
        assert held is not None  # the file tells the runs of its rows, and some are held out
        path = store.home() / "references" / f"{store.digest([VERSION, held.hash])}.safetensors"
        return store.stage(
            path,
            load_reference,
            lambda: Reference(held.vectors, path),
            save_reference,
            force=self.request.force,
        )

    def _parted(self, path: Path | None) -> tuple[Zoo, Zoo | None]:
        """Return the zoo of a file without its held-out runs, and the zoo of these, if any are."""
        assert path is not None
        return Zoo.load(path).parted(self.request.held_out)

    def _given(self, path: Path) -> Zoo:
        """Return the zoo of a file; the task adopts the settings that only its checkpoints determine.

        Raises:
            BadRequest: the file holds no zoo, one of other data or another network, or too few checkpoints.
        """
        zoo, self._held = self._parted(path)
        zoo_hash, data_hash = zoo.settings.get("dataset_hash"), self.task.identity()["dataset_hash"]
        if zoo_hash not in (None, data_hash):
            raise BadRequest(
                f"the zoo {path} was collected on other data (SHA-256 {zoo_hash[:16]}) than those that are here "
                f"({data_hash[:16]}): name their folder with --data-dir"
            )
        if self._held and self.request.k > len(zoo):
            raise BadRequest(
                f"the zoo has {len(zoo)} checkpoints beside the {len(self._held)} that are held out, "
                f"{self.request.k} were asked for: lower --k or --held-out"
            )
        zoo = zoo.head(self.request.k)
        self.task.adopt(zoo, frozenset(self.request.task_settings))
        return self._scored_alike(zoo)

    def _scored_alike(self, zoo: Zoo) -> Zoo:
        """Return the zoo, without the scores of its training where these are of other data than the task's."""
        now = self.task.identity()
        differing = [
            n for n in self.task.rescoring if n in zoo.settings and zoo.settings[n] != now[n]
        ]
        if differing:  # scores recorded during training are not comparable with the new ones
            say(
                f"note: the zoo was scored with another {', '.join(differing)}: no time of SGD to the same score"
            )
            zoo = dataclasses.replace(zoo, curve=(), scores=(), base_score=None)
        return zoo
