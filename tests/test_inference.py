"""A network over images of any size: band by band equals at once, tiles leave no seam, memory and precision run out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from restorekit import inference
from restorekit.architectures import create
from restorekit.architectures._bands import WHOLE, Bands
from restorekit.architectures._network import Network
from restorekit.device import is_out_of_memory
from restorekit.errors import Cancelled, ModelError, RestorekitError
from restorekit.execution import Execution
from restorekit.inference import run_rows
from restorekit.tiling import Tiling


def image(height: int, width: int, channels: int = 3) -> Tensor:
    """A seeded picture with edges and smooth parts, as photographs have."""
    torch.manual_seed(1)
    coarse = torch.rand(1, channels, max(height // 12, 2), max(width // 12, 2))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    return (smooth + 0.3 * (smooth > 0.55) + 0.02 * torch.randn(channels, height, width)).clamp(0, 1)


def whole(network: Network, picture: Tensor, execution: Execution | None = None, **settings: Any) -> Tensor:
    """The result of ``run_rows``, which must give every row once and in order."""
    _, height, width = picture.shape

    def crop(top: int, bottom: int, left: int, right: int) -> Tensor:
        assert 0 <= top < bottom <= height and 0 <= left < right <= width
        return picture[:, top:bottom, left:right]

    bands = list(run_rows(network, crop, height, width, execution or Execution(), **settings))
    assert next(top for top, _ in bands) == 0
    assert all(top + len(rows[0]) == below for (top, rows), (below, _) in pairwise(bands))
    result = torch.cat([rows for _, rows in bands], 1)
    assert result.shape[1:] == (height * network.scale, width * network.scale)
    assert result.dtype == torch.float32
    return result


def seeded(name: str, **config: Any) -> Network:
    torch.manual_seed(0)
    return create(name, **config).eval().requires_grad_(False)


def hat(scale: int = 2) -> Network:
    return seeded(
        "hat", img_size=32, window_size=8, depths=[2], num_heads=[2], embed_dim=16, compress_ratio=4,
        squeeze_factor=4, mlp_ratio=2, upscale=scale, upsampler="pixelshuffle",
    )  # fmt: skip


def cfsr(scale: int = 2) -> Network:
    return seeded(
        "cfsr", embed_dim=12, depths=[2], dw_size=9, mlp_ratio=2, upscale=scale, upsampler="pixelshuffledirect"
    )


def espcn(scale: int = 3) -> Network:
    return seeded("espcn", variant="yjn870", scale_factor=scale)


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of a few rows, as on a large image."""
    monkeypatch.setattr(inference, "WHOLE_BYTES", 0)
    monkeypatch.setattr(inference, "CHUNK_BYTES", 1 << 17)


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize("size", [(1, 1), (1, 90), (33, 7), (61, 83)])
@pytest.mark.parametrize("make", [hat, cfsr, espcn])
def test_bands_equal_the_whole_image(make: Any, size: tuple[int, int]) -> None:
    network = make()
    picture = image(*size, network.in_channels)
    at_once = whole(network, picture, Execution(tile="off"))
    execution = Execution()
    torch.testing.assert_close(whole(network, picture, execution), at_once, atol=1e-5, rtol=0)
    assert execution.mode == "exact"


def test_wide_images_are_cut_in_columns_too(small_memory: None) -> None:
    network, picture = espcn(2), image(40, 9000, 1)
    torch.testing.assert_close(
        whole(network, picture), whole(network, picture, Execution(tile="off")), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("make", [cfsr, espcn])
def test_tiles_of_local_networks_leave_no_seam(make: Any) -> None:
    network = make()
    picture = image(150, 131, network.in_channels)
    execution = Execution(tile=32)
    made = whole(network, picture, execution)
    assert execution.tiles > 2
    torch.testing.assert_close(made, whole(network, picture, Execution(tile="off")), atol=1e-5, rtol=0)


def test_tiles_of_a_window_network_leave_no_seam() -> None:
    network, picture = hat(), image(250, 131)
    execution = Execution(tile=32)
    difference = whole(network, picture, execution) - whole(network, picture, Execution(tile="off"))
    assert execution.tiles > 2
    assert float(difference.square().mean().sqrt()) < 1e-3


class Global(Network):
    """Adds the mean of what it sees: a network that is never the same in tiles."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.in_channels = 1, 3
        self.tiling = Tiling("approximate", 8, halo=8, minimum=16, fixed=64, memory=100)
        self.sizes: list[tuple[int, ...]] = []

    def tail(self, features: Tensor) -> Tensor:
        self.sizes.append(tuple(features.shape))
        return features + features.mean((1, 2, 3), keepdim=True)


def test_global_networks_run_at_their_fixed_size() -> None:
    network = Global()
    whole(network, image(150, 131))
    assert set(network.sizes) == {(1, 3, 64, 64)}
    small = Global()
    whole(small, image(10, 20))
    assert small.sizes == [(1, 3, 16, 24)], "a smaller image is mirrored to the grid and the minimum"


class Overflow(Network):
    """Overflows in half precision where the input is bright."""

    def __init__(self, tiling: Tiling, broken: bool = False) -> None:
        super().__init__()
        self.scale, self.in_channels, self.tiling, self.broken = 1, 3, tiling, broken
        self.layer = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(3)[:, :, None, None])
        self.runs: list[torch.dtype] = []

    def features(self, x: Tensor, bands: Bands = WHOLE) -> Tensor:
        return x

    def tail(self, features: Tensor) -> Tensor:
        made: Tensor = self.layer(features)
        self.runs.append(made.dtype)
        if self.broken:
            return made / 0.0
        return torch.where(made > 0.9, torch.inf, made) if made.dtype != torch.float32 else made


@pytest.mark.parametrize("tile", ["auto", 16])
def test_what_overflows_in_half_precision_is_done_again(tile: Any) -> None:
    picture = torch.full((3, 64, 64), 0.5)
    picture[:, 40, 50] = 1.0
    network, execution = Overflow(Tiling("exact", 1, halo=2, memory=16)), Execution(precision="bf16", tile=tile)
    made = whole(network, picture, execution)
    assert torch.equal(made, picture)
    assert torch.bfloat16 in network.runs and torch.float32 in network.runs
    assert any("overflowed in bf16" in note for note in execution.notes)
    if tile != "auto":
        assert network.runs.count(torch.float32) < network.runs.count(torch.bfloat16), "only the tiles that need it"


@pytest.mark.parametrize("tile", ["auto", 16])
def test_broken_weights_are_an_error(tile: Any) -> None:
    network = Overflow(Tiling("exact", 1, halo=2, memory=16), broken=True)
    with pytest.raises(ModelError, match=r"my\.model: gives values that are not finite"):
        whole(network, image(40, 40), Execution(tile=tile), name="my.model")


class Hungry(Network):
    """Needs more memory than there is for inputs over a size."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.scale, self.in_channels, self.most = 1, 3, most
        self.tiling = Tiling("exact", 8, halo=8, minimum=16, memory=1)
        self.sides: list[Sequence[int]] = []

    def tail(self, features: Tensor) -> Tensor:
        self.sides.append(features.shape[2:])
        if max(features.shape[2:]) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return features


def test_out_of_memory_halves_the_tile() -> None:
    network, execution = Hungry(70), Execution()
    picture = image(300, 200)
    assert torch.allclose(whole(network, picture, execution), picture)
    assert execution.mode == "tiles"
    assert any("ran out of memory" in note for note in execution.notes)


def test_the_real_error_of_the_allocator_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value)


def test_memory_that_runs_out_midway_gives_every_row_once() -> None:
    class Later(Hungry):
        def tail(self, features: Tensor) -> Tensor:
            if len(self.sides) == 3:
                self.most = 60
            return super().tail(features)

    network, execution = Later(4096), Execution(tile=64)
    picture = image(300, 200)
    assert torch.allclose(whole(network, picture, execution), picture)
    assert max(network.sides[0]) > 60, "the first tiles were larger"
    assert len(network.sides) > 5 and {max(side) for side in network.sides[4:]} == {48}


def test_bands_come_before_tiles_when_memory_runs_out(small_memory: None) -> None:
    class Whole(Hungry):
        def tail(self, features: Tensor) -> Tensor:
            if features.shape[2] > 250:
                raise torch.OutOfMemoryError("out of memory")
            return features

    network, execution = Whole(0), Execution(tile="off")
    network.tiling = replace(network.tiling, memory=4096)
    picture = image(300, 200)
    assert torch.equal(whole(network, picture, execution), picture)
    assert execution.mode == "exact"


def test_out_of_memory_at_the_smallest_tile_is_an_error() -> None:
    with pytest.raises(RestorekitError, match=r"my\.model: out of memory even with tiles of \d+ px on cpu"):
        whole(Hungry(8), image(300, 200), name="my.model")


def test_other_errors_are_not_swallowed() -> None:
    class Broken(Hungry):
        def tail(self, features: Tensor) -> Tensor:
            raise RuntimeError("a shape is wrong")

    with pytest.raises(RuntimeError, match="a shape is wrong"):
        whole(Broken(8), image(30, 20))


def test_little_memory_means_tiles() -> None:
    network, execution = cfsr(), Execution(memory=40 << 20)
    whole(network, image(700, 700), execution)
    assert execution.mode == "tiles"


@pytest.mark.parametrize("tile", ["auto", "off", 16])
def test_a_run_can_be_stopped(tile: Any) -> None:
    def stop(share: float) -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        whole(cfsr(), image(60, 60), Execution(tile=tile, tell=stop))


def test_progress_only_grows() -> None:
    shares: list[float] = []
    whole(cfsr(), image(150, 131), Execution(tile=32, tell=shares.append))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def test_progress_of_bands_is_that_of_their_operators(small_memory: None) -> None:
    shares: list[float] = []
    whole(cfsr(), image(150, 131), Execution(tell=shares.append))
    assert shares == sorted(shares)
    assert len(set(shares)) > 20
    assert shares[-1] == pytest.approx(1.0)
    assert 0.05 < shares[len(shares) // 4] < 0.9


@pytest.mark.parametrize("make", [hat, cfsr])
def test_mixed_precision_is_close(make: Any) -> None:
    network, picture = make(), image(64, 64)
    full, execution = whole(network, picture), Execution(precision="bf16")
    mixed = whole(network, picture, execution)
    assert execution.used == "bf16"
    error = float((mixed - full).square().mean().sqrt() / (full.max() - full.min()))
    assert 0 < error < 10 ** (-55 / 20) * 2


@pytest.mark.parametrize(
    ("case", "padding"),
    [("CRAFT_x4_pad", "flip"), ("DRCT_x3_ws8_flip", "flip"), ("HAT_x4_ws8", "reflect"), ("RGT_x4_s2x4", "reflect")],
)
def test_paddings_are_those_of_the_published_numbers(case: str, padding: Any, authors: Any) -> None:
    """Pictures that are no multiple of the window, as the authors' test programs pad and crop them."""
    given = authors(case)
    network = create(given.facts["architecture"], **given.config).eval()
    network.load_state_dict(given.weights)
    made = whole(network, given.tensors["input"][0], Execution(tile="off"), padding=padding)
    torch.testing.assert_close(made, given.tensors["output"][0], atol=1e-4, rtol=0)
