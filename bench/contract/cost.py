"""The operations and parameters of a network, counted for one image without computing anything."""

import dataclasses
import functools

from bench.contract import registry
from bench.contract.declarations import Shape


@dataclasses.dataclass(frozen=True)
class NetworkCost:
    """The size of a network and the operations of its forward pass.

    Attributes:
        gflop: 10^9 floating-point operations for one image, forward; an addition and a multiplication are two.
        parameters: number of parameters.
    """

    gflop: float
    parameters: int


OTHER = NetworkCost(20.0, 40_000_000)  # assumed for a network whose operations cannot be counted


@functools.cache  # building it takes up to a second
def network_cost(arch: str, shape: Shape) -> NetworkCost:
    """Count an architecture's operations and parameters; return ``OTHER`` where it cannot be built.

    Args:
        arch: its name.
        shape: of its input and output.
    """
    import torch  # here, because few commands need an estimate
    from torch.utils.flop_counter import FlopCounterMode

    try:
        architecture = registry.architectures().find("architecture", arch)
        with torch.device("meta"), torch.no_grad():
            network = architecture.build(shape)
            with FlopCounterMode(display=False) as counter:
                architecture.run(network, torch.empty(1, shape.channels, shape.size, shape.size))
    except Exception:  # whatever a builder does: an estimate is not worth a study
        return OTHER
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return NetworkCost(counter.get_total_flops() / 1e9, parameters)
