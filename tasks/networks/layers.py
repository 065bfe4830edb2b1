"""Choice of the parameters to generate by a pattern, the value of ``--layers``."""

import difflib
import fnmatch
import hashlib
import re
from collections.abc import Iterator, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.errors import BadRequest

PATTERNS = (
    "last-norms:N, norms:A-B, linear, conv:first, shortcut, head, all, "
    "or parameter names with * (comma-separated)"
)
LONGEST = 300  # the most characters of parameter names that ``describe`` lists: the limit of a record's text
_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
_SHORTCUTS = ("downsample", "shortcut")
# Names of the last layers of torchvision's Faster R-CNN and FCOS.
_HEADS = (
    "roi_heads.box_predictor",
    "head.classification_head.cls_logits",
    "head.regression_head.bbox_reg",
    "head.regression_head.bbox_ctrness",
)


def select(model: nn.Module, pattern: str) -> tuple[str, ...]:
    """Return the names of the parameters that a pattern matches, in the model's order.

    Tables are those of "Neural Network Diffusion" (arXiv 2402.13144). The patterns are:

    * ``last-norms:N``: the last N normalization layers;
    * ``norms:A-B``: normalization layers A to B - 1, counted from 1 without those of shortcuts; ``norms:16-18`` are
      "BN-layer16 to 18" of ResNet-18 (Table 2b);
    * ``linear``: the last linear layer;
    * ``conv:first``: the first convolution;
    * ``shortcut``: the first projection of a shortcut (Table 8c);
    * ``head``: the last layers of a detector (Table 10), or the last convolution of a segmentation network;
    * ``all``: every parameter;
    * otherwise parameter names, separated by commas, in which ``*`` stands for any characters.

    Raises:
        BadRequest: no parameter matches; the message lists the patterns and similar names.
    """
    names = [name for name, _ in model.named_parameters()]
    matches = set(_matches(model, pattern, names))
    if not matches:
        near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:3]
        raise BadRequest(
            f"layers '{pattern}' match no parameter: expected {PATTERNS}; "
            f"parameters are named like {', '.join(near)}"
        )
    return tuple(name for name in names if name in matches)


def describe(model: nn.Module, names: Sequence[str]) -> str:
    """Return the pattern that matches exactly these parameters; if none does, their names.

    Names of more than ``LONGEST`` characters together are replaced by their number and a hash.
    """
    all_names, wanted = [name for name, _ in model.named_parameters()], set(names)
    norms = range(1, len(_of_type(model, _NORMS)) + 1)
    patterns = ["all", "head", "linear", "conv:first", "shortcut"]
    for pattern in [*patterns, *map("last-norms:{}".format, norms)]:
        if set(_matches(model, pattern, all_names)) == wanted:
            return pattern
    joined = ",".join(names)
    digest = hashlib.sha256(joined.encode()).hexdigest()[:16]
    return joined if len(joined) <= LONGEST else f"{len(names)} tensors {digest}"


def _matches(model: nn.Module, pattern: str, names: list[str]) -> Iterator[str]:
    """Yield the names that a pattern matches, possibly none.

    Raises:
        BadRequest: the numbers of ``last-norms`` or ``norms`` are out of range.
    """
    if pattern == "all":
        yield from names
    elif match := re.fullmatch(r"last-norms:(\d+)", pattern):
        norms = _of_type(model, _NORMS)
        if not 1 <= int(match[1]) <= len(norms):
            raise BadRequest(
                f"layers '{pattern}': the model has {len(norms)} normalization layers"
                + ("" if norms else "; choose all, linear or parameter names")
            )
        yield from _inside(norms[-int(match[1]) :], names)
    elif match := re.fullmatch(r"norms:(\d+)-(\d+)", pattern):
        norms = [name for name in _of_type(model, _NORMS) if not _in_shortcut(name)]
        if not 1 <= int(match[1]) < int(match[2]) <= len(norms) + 1:
            raise BadRequest(
                f"layers '{pattern}': expected 1 <= A < B <= {len(norms) + 1}, "
                f"the model has {len(norms)} normalization layers outside shortcuts"
            )
        yield from _inside(norms[int(match[1]) - 1 : int(match[2]) - 1], names)
    elif pattern == "linear":
        yield from _inside(_of_type(model, (nn.Linear,))[-1:], names)
    elif pattern == "head":
        convolutions = _of_type(model, (nn.Conv2d,))
        last = [name for name in convolutions if name.startswith("classifier.")][-1:]
        yield from _inside([*_HEADS, *last], names)
    elif pattern == "conv:first":
        yield from _inside(_of_type(model, (nn.Conv2d,))[:1], names)
    elif pattern == "shortcut":
        projections = [name for name, _ in model.named_modules() if name.endswith(_SHORTCUTS)]
        yield from _inside(projections[:1], names)
    else:
        for part in pattern.split(","):
            yield from fnmatch.filter(names, part.strip())


def _of_type(model: nn.Module, types: tuple[type[nn.Module], ...]) -> list[str]:
    """Return the names of the modules of these types that have parameters, in the model's order."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, types) and next(module.parameters(recurse=False), None) is not None
    ]


def _inside(modules: list[str], names: list[str]) -> Iterator[str]:
    """Yield the names of parameters of these modules and their submodules."""
    for name in names:
        if any(name.startswith(module + ".") for module in modules):
            yield name


def _in_shortcut(name: str) -> bool:
    """Return whether a module is part of a residual block's shortcut, by its name."""
    return any(part in name for part in _SHORTCUTS)
