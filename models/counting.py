"""Counting sample passes: how many images went forward and backward through a network, whoever calls it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Way = Literal["forward", "backward"]


@dataclass
class Passes:
    """Sample passes so far: one image through the network once is one pass.

    forward: from input to output: values, each forward-mode tangent (``jvp``), and the derivative of a backward pass by
    another backward pass, which crosses the network once more from input to output. backward: from output to input:
    gradients, and their forward-mode tangents. So a Hessian-vector product is two of each, in whichever mode. All are
    seen at the network's output: second derivatives of what is linear in it do not pass there and are not counted.
    """

    forward: int = 0
    backward: int = 0


def samples(x: Tensor) -> int:
    """Return how many images a batch [..., C, H, W] holds, with those that ``is_grads_batched`` of autograd hides."""
    functorch: Any = getattr(torch._C, "_functorch")  # noqa: B009
    sample, level = math.prod(x.shape[-3:]), 1
    while functorch.is_legacy_batchedtensor(x):
        x, level = torch._remove_batch_dim(x, level, 1, 0), level + 1
    return x.numel() // sample


class CountPasses(torch.autograd.Function):
    """The identity, counting images on their way and each derivative of it on its own."""

    @staticmethod
    def forward(x: Tensor, passes: Passes, way: Way) -> Tensor:
        """Count the batch's images as passes of one way."""
        setattr(passes, way, getattr(passes, way) + samples(x))
        # A copy, since autograd lets nobody change views made here in place; gradients keep their strides, and so bits.
        return x.clone() if way == "forward" else x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Passes, Way], output: Tensor) -> None:
        """Keep what the derivatives are counted as."""
        ctx.passes, ctx.way = inputs[1:]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None, None], x: Tensor, passes: Passes, way: Way) -> tuple[Any, int]:
        """Count what is hidden along a dimension as more of the batch."""
        return CountPasses.apply(x.movedim(in_dims[0], 0), passes, way), 0

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        """Count the tangents as passes of the same way."""
        return CountPasses.apply(tangents[0], ctx.passes, ctx.way)  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, None, None]:
        """Count the gradients as passes of the other way."""
        return CountPasses.apply(grads[0], ctx.passes, "backward" if ctx.way == "forward" else "forward"), None, None


class PassCounter:
    """A forward hook that counts the calls of a network; copies of the network count into the same passes."""

    def __init__(self, passes: Passes) -> None:
        self.passes = passes

    def __call__(self, net: nn.Module, args: Any, output: Any) -> Any:
        """Count the network's output: a tensor, a tuple's first, or the ``sample`` of what diffusers returns."""
        if isinstance(output, Tensor):
            return CountPasses.apply(output, self.passes, "forward")
        if isinstance(output, tuple):
            return self(net, args, output[0]), *output[1:]
        output.sample = self(net, args, output.sample)
        return output

    def __deepcopy__(self, memo: dict[int, Any]) -> PassCounter:
        """Return a counter of its own for the copied network, on the same passes."""
        return PassCounter(self.passes)


def counter_of(net: nn.Module) -> PassCounter:
    """Return the counter that the network, or one inside it, carries already; one is hooked on where there is none."""
    hooks = (hook for module in net.modules() for hook in module._forward_hooks.values())
    counter = next((hook for hook in hooks if isinstance(hook, PassCounter)), None)
    if counter is None:
        counter = PassCounter(Passes())
        net.register_forward_hook(counter)
    return counter
