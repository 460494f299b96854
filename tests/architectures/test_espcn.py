"""ESPCN: the results of three implementations, and its laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.architectures.espcn import ESPCN
from restorekit.testing_networks import RefusalLaws, run

CONFIGS: list[dict[str, Any]] = [
    {"variant": "lornatang", "in_channels": 1, "out_channels": 1, "channels": 64, "upscale_factor": 4},
    {"variant": "lornatang", "in_channels": 3, "out_channels": 3, "channels": 32, "upscale_factor": 3},
    {"variant": "lornatang", "in_channels": 3, "out_channels": 1, "channels": 16, "upscale_factor": 2},
    {"variant": "leftthomas", "upscale_factor": 2},
    {"variant": "yjn870", "scale_factor": 3, "num_channels": 1},
    {"variant": "yjn870", "scale_factor": 2, "num_channels": 3},
]


def network(**config: Any) -> ESPCN:
    torch.manual_seed(0)
    return ESPCN(**config).eval()


class TestESPCN(RefusalLaws):
    kind = ESPCN
    build = staticmethod(network)
    configs = tuple(CONFIGS)
    published = tuple(
        ({"variant": variant, name: factor}, count, None)
        for variant, name in (
            ("lornatang", "upscale_factor"),
            ("leftthomas", "upscale_factor"),
            ("yjn870", "scale_factor"),
        )
        for factor, count in ((2, 21_284), (3, 22_729), (4, 24_752), (8, 38_624))
    )
    size = (12, 10)
    tolerance = 1e-6
    autocast = 0.02
    casts = ((torch.bfloat16, 0.03),)
    refused = (
        ({"variant": "espcn"}, "there are lornatang"),
        ({"variant": "leftthomas", "upscale_factor": 2, "channels": 64}, "leftthomas has no channels"),
        ({"variant": "yjn870", "upscale_factor": 2}, "yjn870 has no upscale_factor"),
        ({"variant": "yjn870"}, "yjn870 needs scale_factor"),
        ({}, "lornatang needs upscale_factor"),
    )

    def off(self, made: Tensor, exact: Tensor, x: Tensor) -> float:
        """At the worst pixel."""
        return float((made.float() - exact).abs().max())


@pytest.mark.parametrize("name", ["ESPCN_lornatang_x4", "ESPCN_lornatang_x3_rgb", "ESPCN_leftthomas_x2"])
def test_results_of_other_implementations(authors: Any, name: str) -> None:
    case = authors(name)
    net = ESPCN(variant=case.facts["variant"], **case.config).eval()
    net.load_state_dict(case.weights)
    torch.testing.assert_close(run(net, case.tensors["input"]), case.tensors["output"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("config", CONFIGS)
def test_equals_the_network_written_out(config: dict[str, Any]) -> None:
    net = network(**config)
    x = torch.rand(2, net.in_channels, 9, 11)
    weights = list(net.state_dict().values())
    y = torch.tanh(F.conv2d(x, weights[0], weights[1], padding=2))
    y = torch.tanh(F.conv2d(y, weights[2], weights[3], padding=1))
    y = F.pixel_shuffle(F.conv2d(y, weights[4], weights[5], padding=1), net.scale)
    end = {"lornatang": lambda v: v.clamp(0, 1), "leftthomas": torch.sigmoid, "yjn870": lambda v: v}
    with torch.inference_mode():
        torch.testing.assert_close(net(x), end[config["variant"]](y), rtol=0, atol=1e-6)
        assert (net(x).min() < 0) == (config["variant"] == "yjn870")


@pytest.mark.parametrize("config", CONFIGS)
def test_a_piece_gives_what_the_whole_gives(config: dict[str, Any]) -> None:
    net = network(**config)
    x = torch.rand(1, net.in_channels, 24, 25)
    halo, s = net.tail_halo, net.scale
    with torch.inference_mode():
        whole, piece = net(x), net.tail(x[..., 9 - halo : 16 + halo])[..., halo * s : -halo * s]
        torch.testing.assert_close(piece, whole[..., 9 * s : 16 * s], rtol=0, atol=1e-6)
        narrow = net.tail(x[..., 10 - halo : 15 + halo])[..., (halo - 1) * s : -(halo - 1) * s]
        assert not torch.allclose(narrow, whole[..., 9 * s : 16 * s], rtol=0, atol=1e-6)


@pytest.mark.parametrize("config", CONFIGS)
def test_other_weights_are_not_taken_for_it(config: dict[str, Any]) -> None:
    state = network(**config).state_dict()
    assert ESPCN.detect({**state, "conv4.weight": torch.zeros(4, 32, 3, 3)}) is None
    assert ESPCN.detect(dict(list(state.items())[:-1])) is None
