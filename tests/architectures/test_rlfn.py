"""RLFN: the authors' weights on a real picture, a reference written out here, and its laws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from restorekit.architectures._bands import Band
from restorekit.architectures.rlfn import RLFN, stretch
from restorekit.testing_networks import BandLaws

SMALL: dict[str, Any] = {"feature_channels": 8, "blocks": 2, "upscale": 2}


def network(**config: Any) -> RLFN:
    torch.manual_seed(0)
    return RLFN(**config).eval()


class TestRLFN(BandLaws):
    kind = RLFN
    build = staticmethod(network)
    configs = (SMALL,)
    others = ({**SMALL, "in_channels": 1, "out_channels": 1}, {**SMALL, "mid_channels": 12})
    published = (
        ({"upscale": 2}, 526_856, None),
        ({"upscale": 4}, 543_740, None),
        ({"feature_channels": 48, "upscale": 2}, 454_620, None),
        ({"feature_channels": 46, "mid_channels": 48, "blocks": 4, "upscale": 4}, 317_218, None),
    )
    size = (24, 20)
    needs = ("esa",)
    dtype = torch.float64  # which kernels of convolutions round alike differs from processor to processor
    tall, rows = ((15, 15), (40, 23), (64, 37)), (1, 8, 16)


def reference(w: dict[str, Tensor], x: Tensor, scale: int) -> Tensor:
    """The network written out, the coarse map stretched by the library."""

    def conv(key: str, y: Tensor, **options: int) -> Tensor:
        weight = w[f"{key}.weight"]
        return F.conv2d(y, weight, w[f"{key}.bias"], **{"padding": weight.shape[-1] // 2, **options})

    first = y = conv("conv_1", x * 255)
    index = 1
    while f"block_{index}.c5.weight" in w:
        z = y
        for layer in ("c1_r", "c2_r", "c3_r"):
            z = F.leaky_relu(conv(f"block_{index}.{layer}", z), 0.05)
        z = conv(f"block_{index}.c5", z + y)
        esa = f"block_{index}.esa"
        narrow = conv(f"{esa}.conv1", z)
        coarse = F.max_pool2d(conv(f"{esa}.conv2", narrow, stride=2, padding=0), kernel_size=7, stride=3)
        large = F.interpolate(conv(f"{esa}.conv3", coarse), x.shape[2:], mode="bilinear", align_corners=False)
        y = z * torch.sigmoid(conv(f"{esa}.conv4", large + conv(f"{esa}.conv_f", narrow)))
        index += 1
    return F.pixel_shuffle(conv("upsampler.0", first + conv("conv_2", y)), scale) / 255


@pytest.mark.parametrize(("scale", "better"), [(2, 7.5), (4, 6.0)])
def test_weights_of_the_authors_restore_a_picture(shared_data: Path, scale: int, better: float) -> None:
    weights, picture = shared_data / f"weights/sr/rlfn/rlfn_x{scale}.pth", shared_data / "bench/set5/butterfly.bmp"
    if not (weights.is_file() and picture.is_file()):
        pytest.skip(f"needs {weights} and {picture}")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    found = RLFN.detect(state)
    assert found is not None
    net = RLFN(**found.config).eval()
    net.load_state_dict(state)
    with Image.open(picture) as opened:
        sharp = opened.convert("RGB").crop((64, 64, 192, 192))
    small = sharp.resize((128 // scale, 128 // scale), Image.Resampling.BICUBIC)

    def error(y: Tensor) -> float:
        luma = torch.tensor([65.481, 128.553, 24.966]) / 255
        difference = (y.permute(1, 2, 0) - torch.from_numpy(np.asarray(sharp) / np.float32(255))) @ luma
        return float(-10 * difference[scale:-scale, scale:-scale].square().mean().log10())

    x = torch.from_numpy(np.asarray(small) / np.float32(255)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        y = net(x)
        torch.testing.assert_close(y, reference(state, x, scale), rtol=0, atol=1e-5)
        bicubic = F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
    assert error(y[0].clamp(0, 1)) > error(bicubic[0].clamp(0, 1)) + better


@pytest.mark.parametrize("config", [SMALL, {**SMALL, "mid_channels": 12, "upscale": 3}])
def test_equals_the_network_written_out(config: dict[str, Any]) -> None:
    net = network(**config)
    x = torch.rand(2, 3, 31, 46)
    with torch.inference_mode():
        assert net(x).shape == (2, 3, 31 * net.scale, 46 * net.scale)
        torch.testing.assert_close(net(x), reference(net.state_dict(), x, net.scale), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("h", "w", "height", "width"), [(1, 1, 15, 15), (4, 7, 29, 46), (9, 3, 61, 23)])
def test_stretching_rows(h: int, w: int, height: int, width: int) -> None:
    coarse = torch.randn(2, 3, h, w)
    whole = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    torch.testing.assert_close(stretch(coarse, Band(0, height, height), width), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(stretch(coarse, Band(4, 11, height), width), whole[:, :, 4:11], rtol=0, atol=1e-5)
