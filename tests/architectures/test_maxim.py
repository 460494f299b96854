"""MAXIM against the authors' results, and its laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.architectures import _multi_axis
from restorekit.architectures._network import Network
from restorekit.architectures.maxim import MAXIM, VARIANTS, _Level, _Plan, _resized, _UpSampleRatio
from restorekit.execution import Execution
from restorekit.testing_networks import RefusalLaws, tiled
from restorekit.zoo import convert_state_dict

SIDES: dict[str, Any] = {"block_size_hr": [4, 2], "grid_size_hr": [2, 4], "block_size_lr": [2, 2]}
SMALL: dict[str, Any] = {"features": 8, "num_stages": 2, "num_supervision_scales": 3, **SIDES}
ONE: dict[str, Any] = {"features": 8, "num_stages": 1, "num_groups": 2, "num_bottleneck_blocks": 2, **SIDES}
SHAPES: list[dict[str, Any]] = [
    SMALL,
    ONE,
    {**SMALL, "num_stages": 3, "num_supervision_scales": 2, "use_bias": False},
    {**ONE, "depth": 2, "high_res_stages": 1, "block_gmlp_factor": 4, "input_proj_factor": 4, "channels_reduction": 2},
]


def network(**config: Any) -> MAXIM:
    """With weights that all matter, and results of the size of pictures."""
    torch.manual_seed(0)
    net = MAXIM(**config).eval()
    with torch.no_grad():
        for key, value in net.named_parameters():
            if "Gating" in key and "Dense" in key:
                value.normal_(0, 0.3)
            elif "norm" in key.lower() and key.endswith("weight"):
                value.add_(0.2 * torch.randn_like(value))
            elif key.endswith("bias"):
                value.normal_(0, 0.1)
    return net


class TestMAXIM(RefusalLaws):
    """With one scale as large as the authors' comments say, with three as counted in their code."""

    kind = MAXIM
    build = staticmethod(network)
    configs = ({**SMALL, "channels_reduction": 1},)  # more channels than one are left for the means, as ReLU ends some
    others = tuple(SHAPES)
    published = tuple(
        ({**VARIANTS[variant], "num_supervision_scales": scales}, count, tensors)
        for variant, scales, count, tensors in (
            ("S-1", 3, 6_139_561, 766),
            ("S-2", 3, 14_176_178, 1760),
            ("S-3", 3, 22_212_795, 2754),
            ("S-1", 1, 6_108_515, None),
            ("S-2", 1, 13_353_830, None),
            ("S-3", 1, 20_599_145, None),
            ("M-1", 1, 19_361_219, None),
            ("M-2", 1, 40_839_110, None),
            ("M-3", 1, 62_317_001, None),
        )
    )
    size = (16, 32)
    autocast = 0.05
    casts = ((torch.bfloat16, 0.05),)
    untold = ("block_size_hr", "block_size_lr", "grid_size_hr")
    needs = ("input_conv",)
    refused = (
        ({"use_global_mlp": False}, "without global MLPs"),
        ({"use_cross_gating": False}, "or cross gating"),
        ({"num_outputs": 1}, "not to RGB"),
        ({"num_supervision_scales": 4}, "num_supervision_scales is 4"),
        ({"num_supervision_scales": 0}, "num_supervision_scales is 0"),
        ({"num_bottleneck_blocks": 0}, "1 or more"),
        ({"features": 3, "input_proj_factor": 1}, "3 channels times 1"),
    )
    refused_sizes = ((16, 24, "multiples of 16 px, not 24 x 16 px"),)

    def off(self, made: Tensor, exact: Tensor, x: Tensor) -> float:
        """In what is added to the picture."""
        return super().off(made.float() - x, exact - x, x)

    def loss(self, network: Network, x: Tensor) -> Tensor:
        """Of the pictures of all stages and scales."""
        return torch.stack([(made - 0.5).square().mean() for stage in network(x) for made in stage]).sum()


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", ["MAXIM_1s_g2_ss1", "MAXIM_2s"])
def test_the_authors_results(authors: Any, name: str, gradients: bool) -> None:
    case = authors(name)
    weights = convert_state_dict("maxim", case.weights)
    net = MAXIM(**case.config).eval()
    net.load_state_dict(weights)
    assert sum(value.numel() for value in net.parameters()) == case.facts["params"]
    with torch.set_grad_enabled(gradients):
        made = net(case.tensors["input"].permute(0, 3, 1, 2))
    wanted = {key: value.permute(0, 3, 1, 2) for key, value in case.part("outputs").items()}
    assert len(made) == case.config["num_stages"]
    assert sum(len(scales) for scales in made) == len(wanted)
    for stage, scales in enumerate(made):
        for scale, picture in enumerate(scales):
            torch.testing.assert_close(picture.detach(), wanted[f"output_{stage}_{scale}"], atol=1e-5, rtol=0)
    detected = MAXIM.detect(weights)
    assert detected is not None
    MAXIM(**detected.config).load_state_dict(weights)


@pytest.mark.parametrize("variant", VARIANTS)
def test_tiles_are_as_large_as_what_the_authors_train_on(variant: str) -> None:
    with torch.device("meta"):
        tiling = MAXIM(**VARIANTS[variant]).tiling
    assert tiling.grid == 64 and tiling.fixed == 256 and tiling.support == "approximate"


@pytest.mark.parametrize("config", SHAPES)
def test_results_are_stages_of_scales(config: dict[str, Any]) -> None:
    net = network(**config)
    side = 2 * net.tiling.grid
    x = torch.rand(1, 3, net.tiling.grid, side)
    with torch.inference_mode():
        made = net(x)
        assert torch.equal(net.picture(x), made[-1][-1])
        assert torch.equal(net.tail(net.features(x)), made[-1][-1])
    scales = config.get("num_supervision_scales", 1)
    widths = [side >> scales - 1 - scale for scale in range(scales)]
    assert [[picture.shape[3] for picture in stage] for stage in made] == [widths] * config["num_stages"]
    assert made[-1][-1].shape == x.shape
    assert 0.01 < float((made[-1][-1] - x).std()) < 10


def test_small_scales_see_pixels_of_the_picture() -> None:
    """Where the network adds nothing, results are the pictures it was given: px 1 of 2, and px 2 of 4."""
    net = network(**SMALL)
    with torch.no_grad():
        for key, value in net.named_parameters():
            if "output_conv" in key:
                value.zero_()
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        quarter, half, whole = net(x)[-1]
    assert torch.equal(whole, x)
    assert torch.equal(half, x[..., 1::2, 1::2]) and torch.equal(quarter, x[..., 2::4, 2::4])


@pytest.mark.parametrize("config", SHAPES)
def test_pieces_give_what_the_whole_gives(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(**config)
    x = torch.rand(2, 3, net.tiling.grid, 2 * net.tiling.grid)
    expected = net.picture(x).detach()
    with torch.inference_mode():
        for chunk in (1, 1 << 9, 1 << 30):
            monkeypatch.setattr(_multi_axis, "CHUNK", chunk)
            torch.testing.assert_close(net.picture(x), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("steps", [-2, -1, 0, 1, 2])
def test_maps_of_other_levels_are_resized_and_convolved(steps: int) -> None:
    """One layer in place of a resampling and two convolutions."""
    torch.manual_seed(0)
    level = _Level(4, _multi_axis.Sizes((2, 2), (2, 2)), _Plan(1, (2, 2, 2), 4, True))
    resampler, after = _UpSampleRatio(level, 6, steps), torch.nn.Conv2d(4, 5, 1)
    torch.nn.init.normal_(resampler.Conv_0.bias)
    x = torch.randn(2, 6, 12, 8)
    size = [int(side * 2.0**steps) for side in x.shape[2:]]
    moved = F.interpolate(x, size, mode="bilinear", antialias=True)
    made = resampler(x.permute(0, 2, 3, 1), after.weight.flatten(1), after.bias)
    expected = after(resampler.Conv_0(moved)).permute(0, 2, 3, 1)
    torch.testing.assert_close(made, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("steps", [-3, -2, -1])
def test_flat_maps_stay_flat_to_the_edge(steps: int) -> None:
    made = _resized(torch.full((1, 2, 16, 24), 0.7), steps)
    torch.testing.assert_close(made, torch.full((1, 2, 16 >> -steps, 24 >> -steps), 0.7))


def test_official_sizes_of_blocks_are_found_and_equal_ones_are_assumed_high() -> None:
    with torch.device("meta"):
        official = MAXIM.detect(MAXIM(**VARIANTS["S-1"]).state_dict())
        equal = MAXIM.detect(MAXIM(**{**ONE, "block_size_hr": [2, 2], "grid_size_hr": [2, 2]}).state_dict())
    assert official is not None and equal is not None
    assert official.config["block_size_hr"] == official.config["grid_size_hr"] == [16, 16]
    assert official.config["block_size_lr"] == [8, 8] and official.config["high_res_stages"] == 2
    assert not any("high_res_stages" in line for line in official.assumed)
    assert any("high_res_stages" in line for line in equal.assumed)


def test_other_weights_are_not_taken_for_it() -> None:
    assert MAXIM.detect({"conv_first.weight": torch.zeros(8, 3, 3, 3)}) is None


def test_what_the_authors_ignore_is_ignored() -> None:
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        other = network(**ONE, lrelu_slope=0.9, grid_size_lr=[4, 4], dropout_rate=0.5)
        assert torch.equal(other.picture(x), network(**ONE).picture(x))


def test_picture_is_precise_under_autocast() -> None:
    """Where the rest gives nothing, what is left is the picture itself."""
    net = network(**ONE)
    with torch.no_grad():
        for value in net.stage_0_output_conv_0.parameters():
            value.zero_()
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net.picture(x), x)


def test_gradients_are_right() -> None:
    net = network(**{**ONE, "features": 4, "num_groups": 1, "num_bottleneck_blocks": 1, "depth": 2}).double()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net.picture, (x,), eps=1e-7, atol=1e-5, fast_mode=True)


def test_a_small_one_learns_to_denoise() -> None:
    torch.manual_seed(0)
    net = MAXIM(**{**SMALL, "num_supervision_scales": 2, "depth": 2}).train()
    clean = F.interpolate(torch.rand(2, 3, 4, 4), (32, 32), mode="bilinear")
    noisy = clean + 0.2 * torch.randn_like(clean)
    optimizer = torch.optim.AdamW(net.parameters(), 4e-3)

    def error() -> Tensor:
        targets = {side: F.interpolate(clean, (side, side), mode="bilinear", antialias=True) for side in (16, 32)}
        made = [picture for stage in net(noisy) for picture in stage]
        return torch.stack([F.l1_loss(picture, targets[picture.shape[3]]) for picture in made]).mean()

    before = float(error().detach())
    for _ in range(12):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    assert float(error().detach()) < 0.6 * before


def test_pictures_of_any_size_are_run_in_tiles() -> None:
    net, picture = network(**ONE), torch.rand(3, 113, 200)
    execution = Execution(tile=96)
    made = tiled(net, picture, execution)
    assert execution.mode == "tiles" and execution.tiles > 2
    assert made.shape == picture.shape and bool(made.isfinite().all())
    corner = net.picture(picture[None, :, :96, :96]).detach()[0]
    torch.testing.assert_close(made[:, :10, :40], corner[:, :10, :40], atol=1e-5, rtol=0)


@pytest.mark.parametrize("tile", ["auto", "off"])
def test_a_picture_no_larger_than_a_tile_is_run_as_a_whole(tile: Any) -> None:
    net, picture = network(**ONE), torch.rand(3, 27, 40)
    padded = F.pad(picture[None], (0, 8, 0, 5), mode="reflect")
    made = tiled(net, picture, Execution(tile=tile))
    torch.testing.assert_close(made, net.picture(padded).detach()[0, :, :27, :40], atol=1e-5, rtol=0)
