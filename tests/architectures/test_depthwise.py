"""Depthwise convolutions have the results of torch's, and its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.architectures._depthwise import Depthwise, depthwise

SHAPES = [(3, 1), (5, 1), (7, 1), (9, 1), (3, 2), (5, 2), (3, 3)]


def values(side: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(side)
    maps, weight, bias = (
        torch.randn(shape, generator=generator, dtype=dtype) for shape in ((2, 4, 11, 13), (4, 1, side, side), (4,))
    )
    return maps.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def plain(maps: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    return F.conv2d(maps, weight, bias, 1, weight.shape[-1] // 2 * dilation, dilation, len(weight))


@pytest.mark.parametrize(("side", "dilation"), SHAPES)
@pytest.mark.parametrize("biased", [True, False])
def test_results_and_gradients_are_those_of_torch(side: int, dilation: int, biased: bool) -> None:
    found = []
    for convolve in (depthwise, plain):
        maps, weight, bias = values(side)
        taken = (maps, weight, bias) if biased else (maps, weight)
        made = convolve(maps, weight, bias if biased else None, dilation)
        found.append((made, *torch.autograd.grad(made.sin().sum(), taken)))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("side", "dilation"), SHAPES)
def test_no_gradient_is_made_that_nobody_wants(side: int, dilation: int) -> None:
    maps, weight, bias = values(side)
    made = depthwise(maps.detach(), weight, bias, dilation)
    made.sum().backward()
    assert weight.grad is not None and bias.grad is not None
    with torch.no_grad():
        assert not depthwise(maps, weight, bias, dilation).requires_grad
    torch.testing.assert_close(depthwise(maps, weight.detach(), bias.detach(), dilation), made)


@pytest.mark.parametrize(("side", "dilation"), [(5, 1), (3, 2)])
def test_autocast_convolves_in_its_own_type(side: int, dilation: int) -> None:
    maps, weight, bias = values(side, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        made = depthwise(maps, weight, bias, dilation)
    assert made.dtype == torch.bfloat16
    made.float().square().sum().backward()
    exact = values(side, torch.float32)
    plain(*exact, dilation).square().sum().backward()
    for mine, theirs in zip((maps, weight, bias), exact, strict=True):
        assert mine.grad is not None and theirs.grad is not None and mine.grad.dtype == torch.float32
        assert float((mine.grad - theirs.grad).norm() / theirs.grad.norm()) < 0.02


def test_layers_have_the_names_of_torch() -> None:
    layer = Depthwise(4, 5, bias=False)
    assert [(key, tuple(value.shape)) for key, value in layer.state_dict().items()] == [("weight", (4, 1, 5, 5))]
    assert layer(torch.rand(1, 4, 6, 7)).shape == (1, 4, 6, 7)
