"""Split a model at the generated tensors: what does not depend on them is computed once, the rest once a candidate."""

import dataclasses
import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

# Of a CPU core: tensors of this size are still there when the next operation reads them.
CACHE_BYTES = 4 * 1024**2
GPU_BYTES = 1024**3  # of one tensor on a GPU
LEAST, MOST = 4, 250  # inputs at once


@dataclasses.dataclass(frozen=True)
class Parts:
    """A model as two graphs that share its modules.

    Attributes:
        shared: inputs to the tuple of tensors that the generated part starts from, each with a row for every input.
        own: those tensors to logits; the only part that uses generated tensors.
        first: generated parameters of layers that work on shared tensors alone.
        widest_shared, widest: values an input of the largest tensor in ``shared`` and in ``own``.
        widest_own: the same of those in ``own`` that depend on generated tensors: what each candidate has for itself.
    """

    shared: fx.GraphModule
    own: fx.GraphModule
    first: frozenset[str]
    widest_shared: int
    widest: int
    widest_own: int

    def rows(self, device: str, most: int = MOST) -> int:
        """Return how many inputs to run at once without gradients: on a CPU so many that they stay in its cache."""
        on_cpu = torch.device(device).type == "cpu"
        budget = CACHE_BYTES * torch.get_num_threads() if on_cpu else GPU_BYTES
        return min(most, max(LEAST, budget // (4 * max(self.widest_shared, self.widest))))

    def features(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the shared tensors of a batch, computed a few inputs at a time on a CPU."""
        if inputs.device.type != "cpu":
            return tuple(self.shared(inputs))
        pieces = [self.shared(piece) for piece in inputs.split(self.rows("cpu"))]
        return tuple(torch.cat(tensors) for tensors in zip(*pieces, strict=True))


class _Values(fx.Interpreter):
    """Runs the graph once to learn which nodes are tensors, and how large."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.sizes: dict[fx.Node, int] = {}

    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        if isinstance(value, Tensor):
            self.sizes[node] = value.numel()
        return value


def split(model: nn.Module, names: Iterable[str], images: Tensor) -> Parts:
    """Split a model by dependence on the named parameters, with torch.fx, for any architecture that it can trace.

    Args:
        model: in the mode (train or eval) that it will be used in.
        names: the generated parameters.
        images: a small batch, to run the graph once.
    """
    traced = _out_of_place(fx.symbolic_trace(model))
    values = _Values(traced)
    with torch.no_grad():
        values.run(images)
    nodes = list(traced.graph.nodes)
    dependent = _dependent(nodes, set(names))
    copied, frontier = _needed(dependent, nodes, values.sizes)
    rest = [values.sizes.get(node, 0) for node in nodes if node not in dependent]
    own = _own_graph(nodes, copied | dependent, frontier)
    shared = fx.GraphModule(traced, _shared_graph(traced.graph, frontier))
    shared.graph.eliminate_dead_code()
    shared.recompile()
    widest_own = max(values.sizes.get(node, 0) for node in dependent)
    widest = max(widest_own, *(values.sizes[node] for node in frontier))
    sizes = (-(-size // len(images)) for size in (max(rest), widest, widest_own))
    first = _first(dependent, set(names))
    return Parts(shared, fx.GraphModule(traced, own), first, *sizes)


def _out_of_place(module: fx.GraphModule) -> fx.GraphModule:
    """Replace operations in place: tensors handed from one part to the other must not be overwritten by either."""
    plain = {operator.iadd: operator.add, operator.imul: operator.mul}
    for node in module.graph.nodes:
        if node.op == "call_function":
            node.target = plain.get(node.target, node.target)
            if node.kwargs.get("inplace"):
                node.update_kwarg("inplace", False)
    for child in module.modules():
        if hasattr(child, "inplace"):
            setattr(child, "inplace", False)  # noqa: B010 - nn.Module's own __setattr__ wants tensors
    module.recompile()
    return module


def _dependent(nodes: list[fx.Node], names: set[str]) -> set[fx.Node]:
    """Return the nodes that use a generated parameter, directly or through another node."""
    owners = {name.rpartition(".")[0] for name in names}
    prefixes = {owner[:end] for owner in owners for end in _ends(owner)}
    found: set[fx.Node] = set()
    for node in nodes:
        direct = (node.op == "get_attr" and node.target in names) or (
            node.op == "call_module" and node.target in prefixes
        )
        if direct or node.op == "output" or found.intersection(node.all_input_nodes):
            found.add(node)
    return found


def _first(dependent: set[fx.Node], names: set[str]) -> frozenset[str]:
    """Return the generated parameters of modules that are called on shared tensors alone."""
    used: dict[bool, set[str]] = {True: set(), False: set()}
    for node in dependent:
        if node.op == "call_module":
            after = bool(dependent.intersection(node.all_input_nodes))
            used[after] |= {name for name in names if name.startswith(f"{node.target}.")}
    return frozenset(used[False] - used[True])


def _ends(path: str) -> list[int]:
    """Yield where each module path that contains this one ends: a leaf may hold its parameter deeper down."""
    return [i for i, letter in enumerate(path) if letter == "."] + [len(path)]


def _needed(
    dependent: set[fx.Node], nodes: list[fx.Node], sizes: dict[fx.Node, int]
) -> tuple[set[fx.Node], list[fx.Node]]:
    """Return what the dependent nodes need from the rest: nodes to repeat (sizes, constants), tensors to hand over."""
    copied: set[fx.Node] = set()
    frontier: set[fx.Node] = set()
    varying = _reached(nodes)
    waiting = [source for node in dependent for source in node.all_input_nodes]
    while waiting:
        node = waiting.pop()
        if node in dependent or node in copied or node in frontier:
            continue
        if node in sizes and node in varying:
            frontier.add(node)
        else:  # a constant, a shape or another plain number: cheap, and right for any batch size only if computed there
            copied.add(node)
            waiting += node.all_input_nodes
    return copied, [node for node in nodes if node in frontier]


def _reached(nodes: list[fx.Node]) -> set[fx.Node]:
    """Return the nodes that depend on the inputs."""
    found: set[fx.Node] = set()
    for node in nodes:
        if node.op == "placeholder" or found.intersection(node.all_input_nodes):
            found.add(node)
    return found


def _own_graph(nodes: list[fx.Node], kept: set[fx.Node], frontier: list[fx.Node]) -> fx.Graph:
    graph = fx.Graph()
    copies = {node: graph.placeholder(f"shared_{i}") for i, node in enumerate(frontier)}
    for node in nodes:
        if node in kept:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return graph


def _shared_graph(whole: fx.Graph, frontier: list[fx.Node]) -> fx.Graph:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(whole, copies)
    graph.output(tuple(copies[node] for node in frontier))
    return graph
