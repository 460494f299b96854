"""ESPCN: the results of three implementations, and its laws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from restorekit.architectures.espcn import ESPCN

CONFIGS: list[dict[str, Any]] = [
    {"variant": "lornatang", "in_channels": 1, "out_channels": 1, "channels": 64, "upscale_factor": 4},
    {"variant": "lornatang", "in_channels": 3, "out_channels": 3, "channels": 32, "upscale_factor": 3},
    {"variant": "lornatang", "in_channels": 3, "out_channels": 1, "channels": 16, "upscale_factor": 2},
    {"variant": "leftthomas", "upscale_factor": 2},
    {"variant": "yjn870", "scale_factor": 3, "num_channels": 1},
    {"variant": "yjn870", "scale_factor": 2, "num_channels": 3},
]


def network(config: dict[str, Any]) -> ESPCN:
    torch.manual_seed(0)
    return ESPCN(**config).eval()


@pytest.mark.parametrize("name", ["ESPCN_lornatang_x4", "ESPCN_lornatang_x3_rgb", "ESPCN_leftthomas_x2"])
def test_results_of_other_implementations(shared_data: Path, name: str) -> None:
    folder = shared_data.parent / "oracles"
    if not (folder / "INDEX.json").is_file():
        pytest.skip(f"needs results of other implementations in {folder}")
    case = next(case for case in json.loads((folder / "INDEX.json").read_text()) if case["case"] == name)
    tensors = load_file(folder / case["file"])
    net = ESPCN(variant=case["variant"], **case["config"]).eval()
    net.load_state_dict({key.removeprefix("weights/"): v for key, v in tensors.items() if key.startswith("weights/")})
    with torch.inference_mode():
        torch.testing.assert_close(net(tensors["input"]), tensors["output"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("config", CONFIGS)
def test_equals_the_network_written_out(config: dict[str, Any]) -> None:
    net = network(config)
    x = torch.rand(2, net.in_channels, 9, 11)
    weights = list(net.state_dict().values())
    y = torch.tanh(F.conv2d(x, weights[0], weights[1], padding=2))
    y = torch.tanh(F.conv2d(y, weights[2], weights[3], padding=1))
    y = F.pixel_shuffle(F.conv2d(y, weights[4], weights[5], padding=1), net.scale)
    end = {"lornatang": lambda v: v.clamp(0, 1), "leftthomas": torch.sigmoid, "yjn870": lambda v: v}
    with torch.inference_mode():
        torch.testing.assert_close(net(x), end[config["variant"]](y), rtol=0, atol=1e-6)
        assert (net(x).min() < 0) == (config["variant"] == "yjn870")


@pytest.mark.parametrize("variant", ["lornatang", "leftthomas", "yjn870"])
@pytest.mark.parametrize(("factor", "count"), [(2, 21_284), (3, 22_729), (4, 24_752), (8, 38_624)])
def test_parameters(variant: Any, factor: int, count: int) -> None:
    with torch.device("meta"):
        net = ESPCN(variant, **{"scale_factor" if variant == "yjn870" else "upscale_factor": factor})
    assert sum(value.numel() for value in net.parameters()) == count


@pytest.mark.parametrize("config", CONFIGS)
def test_detects_what_it_wrote(config: dict[str, Any]) -> None:
    state = network(config).state_dict()
    found = ESPCN.detect(state)
    assert found is not None
    assert found.config == config
    ESPCN(**found.config).load_state_dict(state)
    assert ESPCN.detect({**state, "conv4.weight": torch.zeros(4, 32, 3, 3)}) is None
    assert ESPCN.detect(dict(list(state.items())[:-1])) is None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"variant": "espcn"}, "there are lornatang"),
        ({"variant": "leftthomas", "upscale_factor": 2, "channels": 64}, "leftthomas has no channels"),
        ({"variant": "yjn870", "upscale_factor": 2}, "yjn870 has no upscale_factor"),
        ({"variant": "yjn870"}, "yjn870 needs scale_factor"),
        ({}, "lornatang needs upscale_factor"),
    ],
)
def test_hyperparameters_that_do_not_go_together(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ESPCN(**config)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_piece_gives_what_the_whole_gives(config: dict[str, Any]) -> None:
    net = network(config)
    x = torch.rand(1, net.in_channels, 24, 25)
    halo, s = net.tail_halo, net.scale
    with torch.inference_mode():
        whole, piece = net(x), net.tail(x[..., 9 - halo : 16 + halo])[..., halo * s : -halo * s]
        torch.testing.assert_close(piece, whole[..., 9 * s : 16 * s], rtol=0, atol=1e-6)
        narrow = net.tail(x[..., 10 - halo : 15 + halo])[..., (halo - 1) * s : -(halo - 1) * s]
        assert not torch.allclose(narrow, whole[..., 9 * s : 16 * s], rtol=0, atol=1e-6)


@pytest.mark.parametrize("config", CONFIGS)
def test_batch_precisions_and_gradients(config: dict[str, Any]) -> None:
    net = network(config)
    x = torch.rand(2, net.in_channels, 12, 10)
    with torch.inference_mode():
        y = net(x)
        torch.testing.assert_close(torch.cat([net(x[:1]), net(x[1:])]), y, rtol=0, atol=1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(net(x).float(), y, rtol=0, atol=0.02)
    net.train()(x).square().mean().backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in net.parameters())
    with torch.inference_mode():
        half = net.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), y, rtol=0, atol=0.03)
