"""What a plugin is told of the machine it works on. It decides no setting and no hyperparameter."""

import dataclasses
from typing import Self

from bench.contract.declarations import Declaration
from bench.system.data import Json


@dataclasses.dataclass(frozen=True)
class Context:
    """Where a plugin computes and finds its data.

    Attributes:
        device: where tensors live while it works, as torch calls it.
        data_dir: the folder that real data is looked for in; None takes the suite's cache folder.
        force: whether to make again what is in the store.
    """

    device: str = "cpu"
    data_dir: str | None = None
    force: bool = False


@dataclasses.dataclass(eq=False)
class Plugin:
    """A dataclass whose fields are its settings, but for ``context``, which the harness fills in.

    Attributes:
        context: where it computes and finds its data; no setting.
    """

    context: Context = dataclasses.field(default=Context(), kw_only=True, repr=False)

    @classmethod
    def setting_names(cls) -> tuple[str, ...]:
        """Return the names of all fields that are settings, in their order."""
        return tuple(field.name for field in dataclasses.fields(cls) if field.name != "context")

    def settings(self) -> dict[str, Json]:
        """Return every setting with its value."""
        return {name: getattr(self, name) for name in self.setting_names()}

    def declarations(self) -> tuple[Declaration, ...]:
        """Return what it takes from the registry, whose code is part of its own; nothing by default."""
        return ()

    def within(self, context: Context) -> Self:
        """Return a new plugin with the same settings in another context."""
        return dataclasses.replace(self, context=context)

    @property
    def device(self) -> str:
        """Where tensors live while it works."""
        return self.context.device
