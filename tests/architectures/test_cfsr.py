"""CFSR against the authors' results, a reference written out here, and its laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.architectures.cfsr import CFSR
from restorekit.testing_networks import BandLaws, run

OFFICIAL: dict[str, Any] = {
    "embed_dim": 48,
    "depths": [6, 6],
    "dw_size": 9,
    "mlp_ratio": 2,
    "upsampler": "pixelshuffledirect",
}
SMALL: dict[str, Any] = {**OFFICIAL, "embed_dim": 8, "depths": [2, 1]}


def network(**config: Any) -> CFSR:
    """With weights that matter: the layer scales of fresh ones are 1e-6."""
    torch.manual_seed(0)
    net = CFSR(**config).eval()
    with torch.no_grad():
        for key, value in net.named_parameters():
            if "layer_scale" in key or key.endswith(".bias"):
                value.normal_(0, 0.5)
    return net


class TestCFSR(BandLaws):
    kind = CFSR
    build = staticmethod(network)
    configs = (SMALL, {**SMALL, "upsampler": "", "upscale": 1})
    others = (
        {**SMALL, "upscale": 3},
        {**SMALL, "upsampler": "", "upscale": 1, "in_chans": 1},
        {**SMALL, "dw_size": 5},
    )
    published = (
        ({**OFFICIAL, "upscale": 2}, 291_324, 252),
        ({**OFFICIAL, "upscale": 3}, 297_819, 252),
        ({**OFFICIAL, "upscale": 4}, 306_912, 252),
    )
    untold = ("img_range",)
    needs = ("lkb",)
    tall, rows = ((37, 21),), (1, 8, 24)


def edge_kernels() -> dict[str, Tensor]:
    return {
        "sobel_x": torch.tensor([[0.0, 1, -1], [2, 0, -2], [1, 0, -1]]),
        "sobel_y": torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]]),
        "laplacian": torch.tensor([[1.0, 0, 0], [1, -4, 1], [0, 1, 0]]),
    }


def with_branches(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as it is while the authors train."""
    result = {key: value.clone() for key, value in state.items()}
    for key in [key for key in state if key.endswith("mlp.pos.weight")]:
        mlp = key.removesuffix("pos.weight")
        hidden = state[key].shape[0]
        for name, kernel in edge_kernels().items():
            result[f"{mlp}scale_{name}"] = torch.randn(hidden, 1, 1, 1)
            result[f"{mlp}{name}_bias"] = torch.randn(hidden)
            result[f"{mlp}mask_{name}"] = kernel.expand(hidden, 1, 3, 3).clone()
    return result


def reference(w: dict[str, Tensor], x: Tensor, scale: int) -> Tensor:
    """The network written out channels first, with the edge branches of the training form where there are some."""

    def conv(key: str, y: Tensor) -> Tensor:
        weight = w[f"{key}.weight"]
        return F.conv2d(
            y, weight, w[f"{key}.bias"], padding=weight.shape[-1] // 2, groups=y.shape[1] // weight.shape[1]
        )

    def norm(key: str, y: Tensor) -> Tensor:
        y = (y - y.mean(1, keepdim=True)) / torch.sqrt(y.var(1, keepdim=True, unbiased=False) + 1e-6)
        return y * w[f"{key}.weight"][:, None, None] + w[f"{key}.bias"][:, None, None]

    def block(key: str, y: Tensor) -> Tensor:
        n = norm(f"{key}.attn.norm", y)
        n = conv(f"{key}.attn.a.2.lkb_reparam", F.gelu(conv(f"{key}.attn.a.0", n))) * conv(f"{key}.attn.v", n)
        y = y + w[f"{key}.layer_scale_1"][:, None, None] * conv(f"{key}.attn.proj", n)
        n = F.gelu(conv(f"{key}.mlp.fc1", norm(f"{key}.mlp.norm", y)))
        p = conv(f"{key}.mlp.pos", n)
        for name in edge_kernels():
            if f"{key}.mlp.scale_{name}" in w:
                kernel = w[f"{key}.mlp.scale_{name}"] * w[f"{key}.mlp.mask_{name}"]
                p = p + F.conv2d(n, kernel, w[f"{key}.mlp.{name}_bias"], padding=1, groups=n.shape[1])
        return y + w[f"{key}.layer_scale_2"][:, None, None] * conv(f"{key}.mlp.fc2", n + F.gelu(p))

    mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(3, 1, 1)
    first = y = conv("conv_first", x - mean)
    layer = 0
    while f"layers.{layer}.conv.weight" in w:
        index = 0
        while f"layers.{layer}.blocks.{index}.layer_scale_1" in w:
            y = block(f"layers.{layer}.blocks.{index}", y)
            index += 1
        y = y + conv(f"layers.{layer}.conv", y)
        layer += 1
    y = first + conv("conv_after_body", norm("norm", y))
    if "upsample.0.weight" in w:
        return F.pixel_shuffle(conv("upsample.0", y), scale) + mean
    return x + conv("conv_last", y)


@pytest.mark.parametrize(
    ("name", "form"),
    [("CFSR_x2", "weights"), ("CFSR_x4_unmerged", "weights"), ("CFSR_x4_unmerged", "weights_unmerged")],
)
def test_results_of_the_authors(authors: Any, name: str, form: str) -> None:
    case = authors(name)
    net = CFSR(**case.config).eval()
    net.load_state_dict(case.part(form))
    torch.testing.assert_close(run(net, case.tensors["input"]), case.tensors["output"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("upsampler", ["pixelshuffledirect", ""])
@pytest.mark.parametrize("branches", [False, True])
def test_equals_the_network_written_out(upsampler: str, branches: bool) -> None:
    net = network(**{**SMALL, "upsampler": upsampler, "upscale": 3})
    state = dict(net.state_dict())
    if branches:
        state = with_branches(state)
        net.load_state_dict(state)
    x = torch.rand(2, 3, 13, 17)
    expected = reference(state, x, 3)
    with torch.inference_mode():
        assert net(x).shape == (2, 3, 13 * net.scale, 17 * net.scale)
        torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_strict_loading() -> None:
    net = network(**SMALL)
    state = with_branches(dict(net.state_dict()))
    net.load_state_dict(state)
    for gone in ("layers.0.blocks.1.mlp.mask_sobel_y", "layers.0.blocks.1.mlp.laplacian_bias"):
        with pytest.raises(RuntimeError, match=f'Missing key.*"{gone}"'):
            net.load_state_dict({key: value for key, value in state.items() if key != gone})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"layers\.0\.blocks\.1\.mlp\.scale_prewitt"'):
        net.load_state_dict({**state, "layers.0.blocks.1.mlp.scale_prewitt": torch.zeros(1)})


def test_loading_leaves_the_state_dict_as_it_was() -> None:
    net = network(**SMALL)
    state = with_branches(dict(net.state_dict()))
    before = {key: value.clone() for key, value in state.items()}
    net.load_state_dict(state)
    assert state.keys() == before.keys()
    assert all(torch.equal(state[key], before[key]) for key in before)


@pytest.mark.parametrize("upsampler", ["pixelshuffledirect", ""])
def test_the_training_form_tells_the_same(upsampler: str) -> None:
    state = dict(network(**{**SMALL, "upsampler": upsampler}).state_dict())
    assert CFSR.detect(with_branches(state)) == CFSR.detect(state)


def test_far_pixels_do_not_matter() -> None:
    net = network(**SMALL)
    reach = 3 * (4 + 1) + 3
    x = torch.rand(1, 3, 8, 64)
    other = x.clone()
    other[..., 40:] = torch.rand(1, 3, 8, 24)
    with torch.inference_mode():
        difference = (net(x) - net(other)).abs().amax((0, 1, 2))
    assert float(difference[: 2 * (40 - reach)].max()) < 1e-5
    assert float(difference[2 * 39 :].max()) > 1e-3
