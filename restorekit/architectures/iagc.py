"""IAGC: gamma correction learnt coarse to fine, and attention that covers all pixels, for pictures taken in low light.

After Wang, Liu, Liu, Xu, Liu, "Low-Light Image Enhancement with Illumination-Aware Gamma Correction and Complete Image
Modelling Network", ICCV 2023 (https://arxiv.org/abs/2308.08220), whose authors published neither code nor weights.

From the paper: gamma is learnt from the illumination, first one for the picture, at last one for every value; between
the two stand transformer blocks whose attention goes from local to global and so reaches every pixel; and gamma
correction is a Taylor series. Everything else is inferred, this is an independent design: the U-Net around the blocks,
all widths and depths, windows for what is near and means of regions for what is far, gammas per channel and their
ranges, the residual, and how the series is kept accurate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isqrt, log

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._bands import WHOLE, Band, Bands
from restorekit.architectures._maps import convolve, pointwise, precise
from restorekit.architectures._network import Detected, Network
from restorekit.architectures._weights import count
from restorekit.architectures._windows import WindowAttention, attention, join_windows, split_windows
from restorekit.errors import ModelError
from restorekit.tiling import Tiling

DARKEST = 1e-4
"""Below it a gamma curve is a straight line to 0, as a power has no slope there; half a step of 12 bits."""

HALVINGS = 4
"""The exponent of e is halved so often before the series, which is squared as often after it."""

LEAST_EXPONENT = -16.0
"""Of e: 1e-7, which is black."""

TERMS = 5
"""Of the series."""

COARSE_RANGE, FINE_RANGE = 8.0, 4.0
"""Gammas lie between this and one over it: that of the picture, and that of a value in terms of it."""

THUMBNAIL = 64
"""Side in px of the picture that the first gamma is told from."""

REGIONS = 8
"""The far attention sees the means of so many times so many regions of the picture."""

LEAST_ROWS = 32
"""Rows of a band, at least, so that few are computed twice."""


def gamma_correction(x: Tensor, gamma: Tensor, terms: int = TERMS) -> Tensor:
    """``x ** gamma`` of values in 0..1, by a Taylor series; float32. Shapes are broadcast.

    ``x ** gamma`` is e to the ``gamma * ln(x)``, and that exponent goes down to -10 and further in the darks, where a
    short series about 0 says nothing: of 5 terms it gives -350 for 1e-4 to the power of 1. Here the exponent is divided
    by 16 first, and the sum of the series, near 1 then, is raised to the 16th power by squaring it four times. From
    1e-4 up to 1 results differ from the power by 2e-6 at most, which is the rounding of float32, and by 2 thousandths
    of what they are where they are above 1e-4. Below 1e-4 a curve is the line to 0; negative values are 0.
    """
    x = x.float()
    exponent = (x.clamp(min=DARKEST).log() * gamma).clamp(min=LEAST_EXPONENT) / 2**HALVINGS
    series = 1 + exponent / terms
    for term in range(terms - 1, 0, -1):
        series = 1 + series * exponent / term
    for _ in range(HALVINGS):
        series = series.square()
    curve: Tensor = series * (x / DARKEST).clamp(0, 1)
    return curve


class IAGC(Network):
    """``[B,C,H,W]`` in 0..1 to the same size; H and W are multiples of ``8 * window``.

    Features are made of the picture and of it after the coarse gamma, 2x2 px at a time, in a U-Net of ``dim``, twice
    and four times as many channels at a half, a quarter and an eighth of the size, with ``num_blocks`` blocks each:
    plain convolutions at the first level, attention and convolutions at the others. They make the fine gamma, and a
    residual for what no curve mends, such as noise. Fresh weights leave a picture as it is.

    Attention goes over windows of ``window`` px with heads of ``head_dim`` channels; windows are summed up to
    ``regions`` x ``regions`` means at most, at which every pixel looks in turn: the cost grows with the number of
    pixels, and nothing is out of sight. So every pixel depends on the whole picture. Bands give what the whole gives;
    a tile is lit by what is in it alone.

    Raises ValueError for a number of levels, blocks, channels or terms that there cannot be.
    """

    def __init__(
        self,
        in_channels: int = 3,
        dim: int = 32,
        num_blocks: Sequence[int] = (2, 2, 4),
        head_dim: int = 32,
        window: int = 8,
        regions: int = REGIONS,
        expansion: int = 2,
        terms: int = TERMS,
    ) -> None:
        super().__init__()
        if len(num_blocks) != 3 or min(num_blocks) < 1:
            raise ValueError(f"num_blocks is {list(num_blocks)}; there are 3 levels of 1 block or more")
        if 2 * dim % head_dim:
            raise ValueError(f"dim is {dim} and head_dim {head_dim}; heads must go into {2 * dim} channels")
        if min(in_channels, window, regions, expansion, terms) < 1:
            raise ValueError("in_channels, window, regions, expansion and terms are 1 or more")
        self.scale = 1
        self.in_channels = in_channels
        self.terms = terms
        self.halo = 1 + 2 * num_blocks[0]
        self.tiling = Tiling(
            "exact", grid=8 * window, halo=8 * window, minimum=8 * window, memory=12 * dim, maps=8 * dim
        )

        def convolutions() -> nn.Sequential:
            return nn.Sequential(*(_Convolutions(dim) for _ in range(num_blocks[0])))

        def blocks(level: int) -> nn.ModuleList:
            channels = dim << level
            heads = channels // head_dim
            return nn.ModuleList(
                _Block(channels, heads, window, regions, expansion * channels) for _ in range(num_blocks[level])
            )

        def down(level: int) -> nn.Conv2d:
            return nn.Conv2d(dim << level - 1, dim << level, 2, stride=2)

        def up(level: int) -> nn.Conv2d:
            return nn.Conv2d(dim << level, dim << level - 1, 1)

        self.coarse = _CoarseGamma(in_channels)
        self.head = nn.Conv2d(8 * in_channels, dim, 3, padding=1)
        self.at_half, self.to_quarter = convolutions(), down(1)
        self.at_quarter, self.to_eighth = blocks(1), down(2)
        self.at_eighth, self.from_eighth = blocks(2), up(2)
        self.at_quarter_again, self.from_quarter = blocks(1), up(1)
        self.at_half_again = convolutions()
        self.fine = nn.Conv2d(dim, 8 * in_channels, 3, padding=1)
        for weights in self.fine.parameters():
            nn.init.zeros_(weights)

    def features(self, x: Tensor, bands: Bands = WHOLE) -> Tensor:
        """``[B,3*C,H,W]``: the picture, the gamma of each of its values, and what is added after the correction.

        Raises ModelError if H or W is no multiple of the grid.
        """
        grid = self.tiling.grid
        if x.shape[2] % grid or x.shape[3] % grid:
            raise ModelError(f"IAGC takes multiples of {grid} px; pad {x.shape[3]} x {x.shape[2]} px")
        if bands.rows is not None:
            bands = replace(bands, rows=max(bands.rows, LEAST_ROWS))
        image = x.permute(0, 2, 3, 1)
        coarse = self.coarse(x)
        first = bands.run(partial(self._enter, coarse), _rows(image, 2), dim=1, halo=self.halo)
        maps = bands.run(partial(_down, self.to_quarter), _rows(first, 2), dim=1)
        for block in self.at_quarter:
            maps = block(maps, bands)
        second = _rows(maps, 2)
        maps = bands.run(partial(_down, self.to_eighth), second, dim=1)
        for block in self.at_eighth:
            maps = block(maps, bands)
        maps = bands.run(partial(_up, self.from_eighth), maps, second, dim=1).flatten(1, 2)
        for block in self.at_quarter_again:
            maps = block(maps, bands)
        leave, halo = partial(self._leave, coarse), -(-self.halo // 2)
        made = bands.run(leave, maps, _rows(first, 2), _rows(image, 4), dim=1, halo=halo)
        return made.flatten(1, 2).permute(0, 3, 1, 2)

    def tail(self, features: Tensor) -> Tensor:
        """Each value to the power of its gamma, and the residual."""
        image, gamma, residual = features.chunk(3, 1)
        return gamma_correction(image, gamma, self.terms).to(residual.dtype) + residual

    def gamma(self, x: Tensor) -> Tensor:
        """``[B,C,H,W]``: the gamma of every value, coarse and fine in one; ``gamma_correction`` applies it.

        It varies slowly, but for the edges of what is lit differently: it may be told from a smaller picture and
        enlarged along the edges of the full one. The residual is left out by this.
        """
        return self.features(x).chunk(3, 1)[1]

    def _enter(self, coarse: Tensor, band: Band, pairs: Tensor) -> Tensor:
        image = pairs.flatten(1, 2)
        lit = gamma_correction(image, coarse.to(image.device), self.terms).to(image.dtype)
        maps = convolve(partial(precise, self.head), _folded(torch.cat((image, lit), -1)))
        return convolve(self.at_half, maps)

    def _leave(self, coarse: Tensor, band: Band, maps: Tensor, skip: Tensor, image: Tensor) -> Tensor:
        maps = convolve(self.at_half_again, _up(self.from_quarter, band, maps, skip).flatten(1, 2))
        bent, residual = _unfolded(convolve(partial(precise, self.fine), maps)).chunk(2, -1)
        gamma = coarse.to(bent.device) * _gamma(bent, FINE_RANGE)
        image = image.flatten(1, 2)
        return _rows(torch.cat((image, gamma.to(image.dtype), residual.to(image.dtype)), -1), 4)

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        table, hidden = "at_quarter.0.near.relative_position_bias_table", "at_quarter.0.widen.weight"
        needed = ("coarse.tell.weight", "head.weight", "fine.weight", "at_half_again.0.first.weight", table, hidden)
        blocks = ("at_half.{}.first.weight", "at_quarter.{}.near.qkv.weight", "at_eighth.{}.near.qkv.weight")
        num_blocks = [count(state, pattern) for pattern in blocks]
        if any(key not in state for key in needed) or not all(num_blocks):
            return None
        dim = state["head.weight"].shape[0]
        config = {
            "in_channels": state["coarse.tell.weight"].shape[0],
            "dim": dim,
            "num_blocks": num_blocks,
            "head_dim": 2 * dim // state[table].shape[1],
            "window": (isqrt(state[table].shape[0]) + 1) // 2,
            "expansion": state[hidden].shape[0] // (2 * dim),
        }
        assumed = (
            f"regions is not stored in the weights; {REGIONS} is assumed",
            f"terms is not stored in the weights; {TERMS} is assumed",
        )
        return Detected(config, assumed)


class _CoarseGamma(nn.Module):
    """A gamma for each channel of the picture, from a thumbnail of it and that of its logarithm."""

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__()
        widths = (2 * channels, width, 2 * width, 4 * width)
        self.see = nn.ModuleList(nn.Conv2d(widths[step], widths[step + 1], 3, stride=2, padding=1) for step in range(3))
        self.tell = nn.Linear(widths[-1], channels)
        nn.init.zeros_(self.tell.weight)
        nn.init.zeros_(self.tell.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[B,C,H,W]`` to ``[B,1,1,C]``, float32, where the weights are."""
        weight = self.tell.weight
        with torch.autocast(weight.device.type, enabled=False):
            small = F.adaptive_avg_pool2d(x.float(), THUMBNAIL).to(weight.device)
            dark = small.clamp(min=DARKEST).log() / log(DARKEST)
            y = torch.cat((small, dark), 1).to(weight.dtype)
            for layer in self.see:
                y = F.gelu(layer(y))
            bent: Tensor = self.tell(y.mean((2, 3)))
            return _gamma(bent, COARSE_RANGE)[:, None, None]


class _Convolutions(nn.Module):
    """Two convolutions ``[B,C,H,W]`` with a shortcut past them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(F.relu(self.first(x)))
        return x + y


class _Block(nn.Module):
    """Attention within windows, attention to the means of all regions, convolutions; maps are ``[B,H,W,C]``."""

    def __init__(self, channels: int, heads: int, window: int, regions: int, hidden: int) -> None:
        super().__init__()
        self.window = window
        self.near_norm = nn.LayerNorm(channels)
        self.near = WindowAttention(channels, window, heads)
        self.far_norm = nn.LayerNorm(channels)
        self.far = _FarAttention(channels, heads, window, regions)
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Conv2d(channels, hidden, 1)
        self.spread = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.narrow = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor, bands: Bands) -> Tensor:
        x = bands.run(self._look_near, x, dim=1, grid=self.window)
        keys, values = self.far.regions(x)

        def rest(band: Band, x: Tensor) -> Tensor:
            x = x + self.far(self.far_norm(x), keys, values)
            y = convolve(self.spread, pointwise(self.widen, self.norm(x)))
            return x + pointwise(self.narrow, F.gelu(y))

        return bands.run(rest, x, dim=1, halo=1)

    def _look_near(self, band: Band, x: Tensor) -> Tensor:
        tokens = self.near(split_windows(self.near_norm(x), self.window, self.window), None)
        return x + join_windows(tokens, self.window, self.window, *x.shape[1:3])


class _FarAttention(nn.Module):
    """Every pixel looks at the means of the regions of the whole map, which are made of the means of windows."""

    def __init__(self, channels: int, heads: int, window: int, regions: int) -> None:
        super().__init__()
        self.heads = heads
        self.side = window
        self.most = regions
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.proj = nn.Linear(channels, channels)

    def regions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``[B,heads,R,d]`` of at most so many regions, where the weights are."""
        windows = F.avg_pool2d(x.permute(0, 3, 1, 2), self.side)
        height, width = (min(self.most, side) for side in windows.shape[2:])
        means = F.adaptive_avg_pool2d(windows, (height, width)).flatten(2).transpose(1, 2)
        means = self.norm(means.to(self.key.weight.device))
        return self._heads(self.key(means)), self._heads(self.value(means))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        looked = attention(self._heads(self.query(x).flatten(1, 2)), keys, values, None)
        y: Tensor = self.proj(looked.transpose(1, 2).reshape(x.shape))
        return y

    def _heads(self, tokens: Tensor) -> Tensor:
        return torch.unflatten(tokens, -1, (self.heads, -1)).transpose(1, 2)


def _gamma(bent: Tensor, furthest: float) -> Tensor:
    """1 at 0, ``furthest`` and one over it at the ends; float32."""
    return (log(furthest) * bent.float().tanh()).exp()


def _down(layer: nn.Module, band: Band, pairs: Tensor) -> Tensor:
    return convolve(layer, pairs.flatten(1, 2))


def _up(layer: nn.Conv2d, band: Band, maps: Tensor, skip: Tensor) -> Tensor:
    """Maps of twice the size and those kept of it, as ``[B,H/2,2,W,C]``.

    Each pixel becomes four that are alike: transposed convolutions, with weights for each of the four, leave a grid
    in plain areas.
    """
    fewer = pointwise(layer, maps).repeat_interleave(2, dim=2)
    return fewer[:, :, None] + skip


def _rows(maps: Tensor, number: int) -> Tensor:
    """``[B,H,W,C]`` as ``[B,H/n,n,W,C]``."""
    return torch.unflatten(maps, 1, (-1, number))


def _folded(maps: Tensor) -> Tensor:
    """``[B,H,W,C]`` to ``[B,H/2,W/2,4*C]``: 2x2 px in one."""
    b, h, w, c = maps.shape
    return maps.reshape(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h // 2, w // 2, 4 * c)


def _unfolded(maps: Tensor) -> Tensor:
    """The inverse of ``_folded``."""
    b, h, w, c = maps.shape
    return maps.reshape(b, h, w, 2, 2, c // 4).permute(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, c // 4)
