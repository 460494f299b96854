"""Depthwise convolutions that are also trained fast on a CPU.

oneDNN has fast gradients of depthwise convolutions of 3x3 alone: those of the weights of 5x5 take some 70 times as long
as the convolution itself. A kernel of any size is made of kernels of 3x3, and so is the gradient of its weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FAST = 3
"""The side of kernels whose gradients are fast."""


class Depthwise(nn.Conv2d):
    """A depthwise convolution of an odd side that keeps the size, with the weights and names of ``nn.Conv2d``."""

    def __init__(self, channels: int, side: int, *, dilation: int = 1, bias: bool = True) -> None:
        reach = side // 2 * dilation
        super().__init__(channels, channels, side, padding=reach, dilation=dilation, groups=channels, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        return depthwise(input, self.weight, self.bias, int(self.dilation[0]))


def depthwise(maps: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """Maps ``[B,C,H,W]``, each channel convolved with its own kernel of ``[C,1,k,k]``, k odd, to the same size."""
    side = weight.shape[-1]
    trained = torch.is_grad_enabled() and weight.requires_grad and maps.device.type == "cpu"
    if not trained or (side <= FAST and dilation == 1):
        return F.conv2d(maps, weight, bias, 1, side // 2 * dilation, dilation, len(weight))
    if torch.is_autocast_enabled("cpu"):
        maps, weight = (value.to(torch.get_autocast_dtype("cpu")) for value in (maps, weight))
        bias = None if bias is None else bias.to(maps.dtype)
    height, width = maps.shape[2:]
    if dilation == 1:
        return _convolved(maps, weight, bias)
    # Pixels that are ``dilation`` apart make a small picture each; at its edges there are zeros in both.
    below, beside = -height % dilation, -width % dilation
    padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 0, beside, 0, below))
    size = (height + below) // dilation, (width + beside) // dilation
    phases = padded.reshape(-1, size[0], dilation, size[1], dilation, len(weight)).permute(0, 2, 4, 1, 3, 5)
    made = _convolved(phases.reshape(-1, *size, len(weight)).permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1)
    made = made.reshape(-1, dilation, dilation, *size, len(weight)).permute(0, 3, 1, 4, 2, 5).reshape(padded.shape)
    return made[:, :height, :width].permute(0, 3, 1, 2)


def _convolved(maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = _Convolution.apply(maps, weight, bias)  # type: ignore[no-untyped-call]
    return result


class _Convolution(torch.autograd.Function):
    """A depthwise convolution whose gradient with respect to its weights is that of kernels of 3x3 side by side."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.biased = bias is not None
        return F.conv2d(maps, weight, bias, 1, weight.shape[-1] // 2, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        maps, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        side = weight.shape[-1]
        reach = side // 2
        of_maps, _, of_bias = _gradients(gradient, maps, weight, reach, (ctx.needs_input_grad[0], False, ctx.biased))
        if not ctx.needs_input_grad[1]:
            return of_maps, None, of_bias
        if side <= FAST:
            return of_maps, _gradients(gradient, maps, weight, reach, (False, True, False))[1], of_bias
        of_weight = torch.empty_like(weight)
        padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, reach, reach, reach, reach))
        height, width = (size + FAST - 1 for size in maps.shape[2:])
        starts = [*range(0, side - FAST, FAST), side - FAST]
        for top in starts:
            for left in starts:
                block = slice(top, top + FAST), slice(left, left + FAST)
                part = padded[:, top : top + height, left : left + width].permute(0, 3, 1, 2)
                made = _gradients(gradient, part, weight[:, :, *block].contiguous(), 0, (False, True, False))[1]
                assert made is not None
                of_weight[:, :, *block] = made
        return of_maps, of_weight, of_bias


def _gradients(
    gradient: Tensor, maps: Tensor, weight: Tensor, padding: int, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Those with respect to maps, weight and bias, as far as they are wanted."""
    maps = maps.contiguous(memory_format=torch.channels_last)
    result: tuple[Tensor | None, Tensor | None, Tensor | None] = torch.ops.aten.convolution_backward(
        gradient, maps, weight, [len(weight)] if wanted[2] else None, [1, 1], [padding] * 2, [1, 1], False, [0, 0],
        len(weight), list(wanted),
    )  # fmt: skip
    return result
