"""Operators band by band against operators at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from restorekit.architectures._bands import WHOLE, Band, Bands


def blurred(band: Band, x: Tensor) -> Tensor:
    """The mean of a row and its neighbours, zero beyond the map; ``[B,H,W,C]``."""
    above, below = torch.zeros_like(x), torch.zeros_like(x)
    above[:, 1:], below[:, :-1] = x[:, :-1], x[:, 1:]
    return (above + x + below) / 3


@pytest.mark.parametrize("rows", [1, 4, 7, 20])
def test_bands_with_their_halo_make_the_whole(rows: int) -> None:
    x = torch.rand(2, 20, 3, 4)
    whole = WHOLE.run(blurred, x, dim=1, halo=1)
    torch.testing.assert_close(Bands(rows).run(blurred, x, dim=1, halo=1), whole, atol=0, rtol=0)
    assert not torch.allclose(Bands(4).run(blurred, x, dim=1), whole)


@pytest.mark.parametrize(
    ("rows", "shares"), [(None, [0.0]), (20, [0.0]), (64, [0.0]), (8, [0.0, 0.4, 0.8]), (10, [0.0, 0.5])]
)
def test_the_share_of_the_operator_is_told_before_every_band(rows: int | None, shares: list[float]) -> None:
    events: list[float | str] = []

    def operator(band: Band, x: Tensor) -> Tensor:
        events.append("band")
        return x

    Bands(rows, checkpoint=events.append).run(operator, torch.rand(1, 20, 2, 2), dim=1)
    assert events == [event for share in shares for event in (share, "band")]


def test_a_checkpoint_may_stop() -> None:
    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Bands(4, checkpoint=stop).run(blurred, torch.rand(1, 20, 2, 2), dim=1)


@pytest.mark.parametrize("rows", [None, 20, 8])
def test_operators_run_on_the_device(rows: int | None) -> None:
    """On a device without values, which every machine has."""
    seen: list[str] = []

    def operator(band: Band, x: Tensor, y: Tensor) -> Tensor:
        seen.extend((x.device.type, y.device.type))
        return torch.ones(x.shape)

    x = torch.rand(1, 20, 2, 2)
    made = Bands(rows, torch.device("meta")).run(operator, x, x, dim=1)
    assert set(seen) == {"meta"} and made.device.type == "cpu"
    assert torch.equal(made, torch.ones(x.shape))


@pytest.mark.parametrize("rows", [None, 20, 8])
def test_results_lie_where_the_maps_do(rows: int | None) -> None:
    def operator(band: Band, x: Tensor) -> Tensor:
        return torch.ones(x.shape, device="cpu")

    assert Bands(rows).run(operator, torch.empty(1, 20, 2, 2, device="meta"), dim=1).device.type == "meta"
