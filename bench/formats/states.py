"""Reading of a checkpoint as one state dict with the network's own names."""

from collections.abc import Collection, Mapping

from torch import Tensor

from bench.errors import BadRequest
from bench.formats import databases
from bench.formats.checkpoint import Checkpoint
from bench.system.weights import read_weights

# What wrappers put before every name: DataParallel, torch.compile, a training program's class.
PREFIXES = ("module.", "_orig_mod.", "model.")
_AVERAGED = "n_averaged"  # a counter that torch's AveragedModel has beside ``module.``


def read(checkpoint: Checkpoint, like: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Read a checkpoint, its shards merged, without the prefixes of ``PREFIXES`` that all its names have.

    Args:
        checkpoint: the checkpoint.
        like: a state dict with the names and shapes of one that does not tell them.

    Raises:
        BadRequest: a file is missing, damaged, or holds no state dict; or two shards hold the same tensor.
    """
    if checkpoint.key:
        return databases.read(checkpoint, like)
    whole: dict[str, Tensor] = {}
    for path in checkpoint.files:
        part = read_weights(path)
        if twice := sorted(whole.keys() & part.keys()):
            raise BadRequest(f"{path}: '{twice[0]}' is in another shard as well")
        whole |= part
    return unprefixed(whole)


def unprefixed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without the prefixes that all its names have.

    >>> list(unprefixed({"module.model.a.weight": Tensor(), "module.model.b": Tensor()}))
    ['a.weight', 'b']
    """
    names = {name: name for name in state}
    while prefix := next((p for p in PREFIXES if _have(names.values(), p)), None):
        names = {
            whole: name.removeprefix(prefix) for whole, name in names.items() if name != _AVERAGED
        }
    return {name: state[whole] for whole, name in names.items()}


def _have(names: Collection[str], prefix: str) -> bool:
    own = [name for name in names if name != _AVERAGED]
    return bool(own) and all(len(name) > len(prefix) and name.startswith(prefix) for name in own)
