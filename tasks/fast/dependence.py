"""Split of a model by dependence on generated parameters: the shared part runs once, the rest once a candidate."""

import dataclasses
import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

# Size of a tensor that stays in the cache of a CPU core until the next operation reads it.
CACHE_BYTES = 4 * 1024**2
GPU_BYTES = 1024**3  # the largest size of one tensor on a GPU
LEAST, MOST = 4, 250  # limits of the number of inputs that run at once


@dataclasses.dataclass(frozen=True)
class Parts:
    """A model as two graphs, which use the modules of the model.

    Attributes:
        shared: graph from inputs to a tuple of tensors that do not depend on generated parameters, each with a row for
            every input.
        generated: graph from those tensors to the model's output; the only part that uses generated parameters.
        first: names of generated parameters in layers whose inputs do not depend on generated parameters.
        widest_shared, widest: number of values of the largest tensor in ``shared`` and in ``generated``, for one input.
        widest_generated: the same for the tensors in ``generated`` that depend on generated parameters, so that each
            candidate needs its own.
    """

    shared: fx.GraphModule
    generated: fx.GraphModule
    first: frozenset[str]
    widest_shared: int
    widest: int
    widest_generated: int

    def rows(self, device: str, most: int = MOST) -> int:
        """Return the number of inputs to run at once without gradients, at most ``most``.

        On a CPU, it keeps tensors within the cache; on a GPU, within ``GPU_BYTES``.
        """
        on_cpu = torch.device(device).type == "cpu"
        budget = CACHE_BYTES * torch.get_num_threads() if on_cpu else GPU_BYTES
        return min(most, max(LEAST, budget // (4 * max(self.widest_shared, self.widest))))

    def features(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the shared tensors of a batch of inputs; a CPU computes them a few inputs at a time."""
        if inputs.device.type != "cpu":
            return tuple(self.shared(inputs))
        pieces = [self.shared(piece) for piece in inputs.split(self.rows("cpu"))]
        return tuple(torch.cat(tensors) for tensors in zip(*pieces, strict=True))


class _Sizes(fx.Interpreter):
    """An interpreter of a graph that records the nodes whose values are tensors, and their sizes.

    Attributes:
        sizes: number of values of the tensor at each node.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.sizes: dict[fx.Node, int] = {}

    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        if isinstance(value, Tensor):
            self.sizes[node] = value.numel()
        return value


def split(model: nn.Module, names: Iterable[str], inputs: Tensor) -> Parts:
    """Split a model by dependence on the named parameters, for any architecture that torch.fx can trace.

    Args:
        model: the model, in the mode (train or eval) that the parts will be used in.
        names: names of the generated parameters.
        inputs: a small batch of model inputs; the graph runs once on it to measure its tensors.
    """
    traced = _out_of_place(fx.symbolic_trace(model))
    interpreter = _Sizes(traced)
    with torch.no_grad():
        interpreter.run(inputs)
    sizes = interpreter.sizes
    nodes = list(traced.graph.nodes)
    dependent = _dependent(nodes, set(names))
    copied, frontier = _needed(dependent, nodes, sizes)
    rest = [sizes.get(node, 0) for node in nodes if node not in dependent]
    generated = _generated_graph(nodes, copied | dependent, frontier)
    shared = fx.GraphModule(traced, _shared_graph(traced.graph, frontier))
    shared.graph.eliminate_dead_code()
    shared.recompile()
    widest_generated = max(sizes.get(node, 0) for node in dependent)
    widest = max(widest_generated, *(sizes[node] for node in frontier))
    per_image = (-(-size // len(inputs)) for size in (max(rest), widest, widest_generated))
    first = _first(dependent, set(names))
    return Parts(shared, fx.GraphModule(traced, generated), first, *per_image)


def _out_of_place(module: fx.GraphModule) -> fx.GraphModule:
    """Replace in-place operations of a traced model, so that no part overwrites a tensor that the other part reads."""
    plain = {operator.iadd: operator.add, operator.imul: operator.mul}
    for node in module.graph.nodes:
        if node.op == "call_function":
            node.target = plain.get(node.target, node.target)
            if node.kwargs.get("inplace"):
                node.update_kwarg("inplace", False)
    for child in module.modules():
        if hasattr(child, "inplace"):
            setattr(child, "inplace", False)  # noqa: B010 - mypy takes attributes of nn.Module for tensors
    module.recompile()
    return module


def _dependent(nodes: list[fx.Node], names: set[str]) -> set[fx.Node]:
    """Return the output and all nodes that use a generated parameter, directly or through another node.

    Args:
        nodes: nodes of the graph, in order of execution.
        names: names of the generated parameters.
    """
    owners = {name.rpartition(".")[0] for name in names}
    # The graph may call a module that holds the parameter in a submodule.
    paths = {path[:end] for path in owners for end in _ends(path)}
    dependent: set[fx.Node] = set()
    for node in nodes:
        direct = (node.op == "get_attr" and node.target in names) or (
            node.op == "call_module" and node.target in paths
        )
        if direct or node.op == "output" or dependent.intersection(node.all_input_nodes):
            dependent.add(node)
    return dependent


def _first(dependent: set[fx.Node], names: set[str]) -> frozenset[str]:
    """Return the generated parameters of modules whose inputs never depend on generated parameters."""
    used: dict[bool, set[str]] = {True: set(), False: set()}  # by dependence of the inputs
    for node in dependent:
        if node.op == "call_module":
            depends = bool(dependent.intersection(node.all_input_nodes))
            used[depends] |= {name for name in names if name.startswith(f"{node.target}.")}
    return frozenset(used[False] - used[True])


def _ends(path: str) -> list[int]:
    """Return the lengths of all prefixes of a dotted path that are module paths, the whole path included."""
    return [i for i, letter in enumerate(path) if letter == "."] + [len(path)]


def _needed(
    dependent: set[fx.Node], nodes: list[fx.Node], sizes: dict[fx.Node, int]
) -> tuple[set[fx.Node], list[fx.Node]]:
    """Return the independent nodes that the dependent nodes need.

    Returns:
        Nodes to compute again in the generated part (constants, sizes and other plain numbers); and nodes whose tensors
        the shared part returns, in order of execution.
    """
    copied: set[fx.Node] = set()
    frontier: set[fx.Node] = set()
    varying = _input_dependent(nodes)
    waiting = [source for node in dependent for source in node.all_input_nodes]
    while waiting:
        node = waiting.pop()
        if node in dependent or node in copied or node in frontier:
            continue
        if node in sizes and node in varying:
            frontier.add(node)
        else:  # cheap, and only right for every batch size if it is computed from the batch at hand
            copied.add(node)
            waiting += node.all_input_nodes
    return copied, [node for node in nodes if node in frontier]


def _input_dependent(nodes: list[fx.Node]) -> set[fx.Node]:
    """Return the nodes that depend on the model's input."""
    varying: set[fx.Node] = set()
    for node in nodes:
        if node.op == "placeholder" or varying.intersection(node.all_input_nodes):
            varying.add(node)
    return varying


def _generated_graph(nodes: list[fx.Node], kept: set[fx.Node], frontier: list[fx.Node]) -> fx.Graph:
    """Build the graph of the nodes to keep, with an input for each tensor of the frontier."""
    graph = fx.Graph()
    copies = {node: graph.placeholder(f"shared_{i}") for i, node in enumerate(frontier)}
    for node in nodes:
        if node in kept:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return graph


def _shared_graph(whole: fx.Graph, frontier: list[fx.Node]) -> fx.Graph:
    """Copy a graph, with the tensors of the frontier as its output."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(whole, copies)
    graph.output(tuple(copies[node] for node in frontier))
    return graph
