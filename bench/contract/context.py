"""The device and the data folder that a plugin works with; neither is a setting or a hyperparameter."""

import dataclasses
from typing import Self

from bench.contract.declarations import Declaration
from bench.system.data import Json


@dataclasses.dataclass(frozen=True)
class Context:
    """The device that a plugin computes on, and the folder of its data.

    Attributes:
        device: torch's name of the device that holds the tensors.
        data_dir: the folder of real data; None stands for the suite's cache folder.
        force: whether cached results are computed again.
    """

    device: str = "cpu"
    data_dir: str | None = None
    force: bool = False


@dataclasses.dataclass(eq=False)
class Plugin:
    """A dataclass whose fields are its settings, but for ``context``, which the harness fills in.

    Attributes:
        context: the device and the data folder; no setting.
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
        """Return the registered data sets and architectures that the plugin uses; by default none.

        Their code counts as part of the plugin's own.
        """
        return ()

    def within(self, context: Context) -> Self:
        """Return a new plugin with the same settings in another context."""
        return dataclasses.replace(self, context=context)

    @property
    def device(self) -> str:
        """The device that holds the tensors."""
        return self.context.device
