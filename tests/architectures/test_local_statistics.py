"""Attention over whole maps that is kept to windows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from restorekit.architectures import create
from restorekit.architectures._network import Network
from restorekit.architectures._restormer import GlobalBlock
from restorekit.errors import ModelError

SMALL: dict[str, Any] = {"dim": 8, "num_blocks": [1, 1, 1, 1], "heads": [1, 2, 2, 4]}
NETWORKS = (
    ("drsformer", {**SMALL, "mefc": False}),
    ("histoformer", {**SMALL, "num_refinement_blocks": 1, "ffn_expansion_factor": 2.5}),
)


def block(window: int | None) -> GlobalBlock:
    made = GlobalBlock()
    made.window = window
    return made


def averages(maps: Tensor) -> Tensor:
    return maps.mean((1, 2), keepdim=True).expand_as(maps)


@pytest.mark.parametrize("window", [8, 16, 24])
def test_windows_add_up_to_the_maps(window: int) -> None:
    maps = torch.rand(2, 37, 50, 3)
    torch.testing.assert_close(block(window).attended(lambda part: part, maps), maps)


def test_a_window_sees_what_is_near_and_nothing_else() -> None:
    maps = torch.zeros(1, 32, 128, 1)
    maps[:, :, 64:] = 1.0
    near = block(16).attended(averages, maps)[0, 16, :, 0]
    assert float(near[:48].abs().max()) == 0.0 and float(near[80:].min()) == 1.0
    assert 0.2 < float(near[63]) < 0.8
    assert float(near.diff().abs().max()) < 0.5  # neighbouring windows are blended
    whole = block(None).attended(averages, maps)
    assert torch.equal(whole, torch.full_like(maps, 0.5))


def test_zeros_beyond_the_sides_of_windows_do_not_count() -> None:
    """A convolution within a window is that over the whole, save at the sides of the maps, where it is so too."""
    convolution = torch.nn.Conv2d(2, 2, 3, padding=1)

    def convolve(part: Tensor) -> Tensor:
        made: Tensor = convolution(part.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return made

    maps = torch.rand(1, 40, 56, 2)
    with torch.no_grad():
        torch.testing.assert_close(block(16).attended(convolve, maps), convolve(maps))


@pytest.mark.parametrize(("name", "config"), NETWORKS)
class TestNetworks:
    def make(self, name: str, config: dict[str, Any], side: int | None = None) -> Network:
        torch.manual_seed(0)
        network = create(name, **config).double().eval()
        if side:
            network.local_statistics(side)
        return network

    def test_pictures_of_one_window_give_the_same(self, name: str, config: dict[str, Any]) -> None:
        x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
        with torch.no_grad():
            assert torch.equal(self.make(name, config, 64)(x), self.make(name, config)(x))

    def test_larger_ones_are_seen_in_windows_at_every_level(self, name: str, config: dict[str, Any]) -> None:
        network = self.make(name, config, 64)
        windows = {layer: part.window for layer, part in network.named_modules() if isinstance(part, GlobalBlock)}
        expected = {"encoder_level1": 64, "encoder_level3": 16, "latent": 8, "decoder_level2": 32, "decoder_level1": 64}
        assert {layer: windows[f"{layer}.0"] for layer in expected} == expected
        x = torch.rand(1, 3, 96, 128, dtype=torch.float64)
        with torch.no_grad():
            made, whole = network(x), self.make(name, config)(x)
        assert made.shape == x.shape and bool(made.isfinite().all()) and not torch.equal(made, whole)

    def test_sides_off_the_grid_are_refused(self, name: str, config: dict[str, Any]) -> None:
        for side in (100, 32):
            with pytest.raises(ModelError, match="multiples of 8 px, 64 at least"):
                self.make(name, config, side)


def test_networks_without_such_attention_refuse() -> None:
    with pytest.raises(ModelError, match="weighs nothing in windows; leave local out"):
        create("drunet", in_nc=3, out_nc=3, nc=[8, 16], nb=1).local_statistics(64)
