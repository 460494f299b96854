"""Retinexformer: light a picture up, then restore it by channel attention that knows where it was dark.

Cai, Bian, Lin, Wang, Timofte, Zhang, "Retinexformer: One-stage Retinex-based Transformer for Low-light Image
Enhancement", ICCV 2023; names and order of layers are those of ``RetinexFormer`` in
https://github.com/caiyuanhao1998/Retinexformer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from restorekit.architectures._bands import WHOLE, Band, Bands
from restorekit.architectures._maps import convolve, pointwise, precise
from restorekit.architectures._network import Detected, Network
from restorekit.architectures._weights import count
from restorekit.errors import ModelError
from restorekit.tiling import Tiling

LEAST_ROWS = 32
"""Rows of a band, at least, so that few are computed twice: a block looks at 3 rows on either side."""

TINY = 1e-12
"""The least length that a channel is divided by."""

GROUPS = 4
"""Of the convolution in the estimator: as many as it has inputs, RGB and their mean."""


class Retinexformer(Network):
    """``[B,3,H,W]`` RGB in 0..1 to the same size; H and W are multiples of 4.

    A stage multiplies the picture by a map of factors and restores the result in a U-Net of three levels, of
    ``n_feat``, twice and four times as many channels and ``num_blocks`` blocks each. Attention weighs channels by each
    other, from products that are summed over all pixels, so every pixel depends on the whole picture. Bands sum them
    over the whole, in one pass more, and give what the whole gives; a tile is lit by what is in it alone.

    The values here are those of all released networks. The authors' own (31 channels, 3 stages) cannot be built.
    Raises ValueError for other channels than RGB and a number of levels, stages or channels that there cannot be.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        n_feat: int = 40,
        stage: int = 1,
        num_blocks: Sequence[int] = (1, 2, 2),
    ) -> None:
        super().__init__()
        if in_channels != 3 or out_channels != 3:
            raise ValueError(f"in_channels is {in_channels} and out_channels {out_channels}; the estimator takes RGB")
        if len(num_blocks) != 3 or min(num_blocks) < 1 or stage < 1:
            raise ValueError(f"num_blocks is {list(num_blocks)} and stage {stage}; there are 3 levels of 1 or more")
        if n_feat < GROUPS or n_feat % GROUPS:
            raise ValueError(f"n_feat is {n_feat}; it is a multiple of {GROUPS}")
        self.scale = 1
        self.in_channels = in_channels
        self.tiling = Tiling("exact", grid=4, halo=32, minimum=4, memory=60 * n_feat, maps=12 * n_feat)
        self.body = nn.Sequential(*(_Stage(n_feat, num_blocks) for _ in range(stage)))

    def features(self, x: Tensor, bands: Bands = WHOLE) -> Tensor:
        """The picture, as ``forward`` makes it. Raises ModelError if H or W is no multiple of 4."""
        if x.shape[2] % self.tiling.grid or x.shape[3] % self.tiling.grid:
            raise ModelError(f"Retinexformer takes multiples of 4 px; pad {x.shape[3]} x {x.shape[2]} px")
        if bands.rows is not None:
            bands = replace(bands, rows=max(bands.rows, LEAST_ROWS))
        image = x.permute(0, 2, 3, 1)
        for stage in self.body:
            image = stage(image, bands)
        return image.permute(0, 3, 1, 2)

    def tail(self, features: Tensor) -> Tensor:
        return features

    def illumination(self, x: Tensor) -> Tensor:
        """``[B,3,H,W]``: the factors by which the first stage lights the picture up, before it is restored.

        They depend on 5x5 px, and were never compared with a target of their own in training.
        """
        stage = self.body[0]
        assert isinstance(stage, _Stage)
        return stage.factors(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        denoiser, attention = "body.0.denoiser.", ".blocks.{}.0.to_q.weight"
        levels = [f"{denoiser}encoder_layers.0.0", f"{denoiser}encoder_layers.1.0", f"{denoiser}bottleneck"]
        num_blocks = [count(state, level + attention) for level in levels]
        needed = ("body.0.estimator.depth_conv.weight", f"{denoiser}embedding.weight", f"{denoiser}mapping.weight")
        if not all(num_blocks) or any(key not in state for key in needed):
            return None
        n_feat, in_channels = state[needed[1]].shape[:2]
        return Detected(
            {
                "in_channels": in_channels,
                "out_channels": state[needed[2]].shape[0],
                "n_feat": n_feat,
                "stage": count(state, "body.{}.estimator.conv1.weight"),
                "num_blocks": num_blocks,
            }
        )


class _Stage(nn.Module):
    """Maps are ``[B,H,W,C]`` here and below, ``[B,H/2,2,W,C]`` where those of half the size are made of them."""

    def __init__(self, width: int, num_blocks: Sequence[int]) -> None:
        super().__init__()
        self.estimator = _Estimator(width)
        self.denoiser = _Denoiser(width, num_blocks)

    def forward(self, image: Tensor, bands: Bands) -> Tensor:
        lit = bands.run(self._light, image, dim=1, halo=2)
        return self.denoiser.restore(lit, image, partial(precise, self.estimator), bands)

    def factors(self, image: Tensor) -> Tensor:
        return 1 + convolve(partial(precise, self.estimator.conv2), precise(self.estimator, image))

    def _light(self, band: Band, image: Tensor) -> Tensor:
        return image * self.factors(image)


class _Estimator(nn.Module):
    """Features of the light from a picture; they are made anew where they are needed, which is cheap."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(GROUPS, width, 1)
        self.depth_conv = nn.Conv2d(width, width, 5, padding=2, groups=GROUPS)
        self.conv2 = nn.Conv2d(width, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        y = pointwise(self.conv1, torch.cat((image, image.mean(-1, keepdim=True)), -1))
        return convolve(self.depth_conv, y)


Estimate = Callable[[Tensor], Tensor]
"""What makes features of the light from what is kept of them at a level: the picture, or themselves."""


class _Denoiser(nn.Module):
    """The U-Net. Layers of a level are a sequence of blocks, a step of features and a step of those of the light."""

    def __init__(self, width: int, num_blocks: Sequence[int]) -> None:
        super().__init__()

        def down(channels: int) -> nn.Conv2d:
            return nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1, bias=False)

        def blocks(level: int) -> _Blocks:
            return _Blocks(width << level, 1 << level, num_blocks[level])

        def up(level: int) -> list[nn.Module]:
            fine = width << level
            return [nn.ConvTranspose2d(2 * fine, fine, 2, stride=2), nn.Conv2d(2 * fine, fine, 1, bias=False)]

        self.embedding = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.encoder_layers = nn.ModuleList(
            nn.ModuleList([blocks(level), down(width << level), down(width << level)]) for level in (0, 1)
        )
        self.bottleneck = blocks(2)
        self.decoder_layers = nn.ModuleList(nn.ModuleList([*up(level), blocks(level)]) for level in (1, 0))
        self.mapping = nn.Conv2d(width, 3, 3, padding=1, bias=False)

    def restore(self, lit: Tensor, image: Tensor, estimate: Estimate, bands: Bands) -> Tensor:
        """The lit picture without its noise; ``estimate`` makes features of the light of the picture as it was."""
        x, light = bands.run(self._enter, lit, dim=1, halo=1), image
        kept = []
        for layer in self.encoder_layers:
            _, down, down_light = layer.children()
            for block in _blocks(layer):
                x = block(x, light, estimate, bands)
            kept.append((x, light, estimate))
            x = bands.run(partial(_down, down, _same), _pairs(x), dim=1, halo=1)
            light = bands.run(partial(_down, down_light, estimate), _pairs(light), dim=1, halo=2)
            estimate = _same
        for block in _blocks(self.bottleneck):
            x = block(x, light, estimate, bands)
        for layer in self.decoder_layers:
            up, fusion, _ = layer.children()
            skip, light, estimate = kept.pop()
            skip = _pairs(skip)  # written over
            x = bands.run(partial(_up, up, fusion), x, skip, dim=1, reuse=skip).flatten(1, 2)
            for block in _blocks(layer):
                x = block(x, light, estimate, bands)
        return bands.run(self._leave, x, lit, dim=1, halo=1)

    def _enter(self, band: Band, lit: Tensor) -> Tensor:
        return convolve(partial(precise, self.embedding), lit)

    def _leave(self, band: Band, x: Tensor, lit: Tensor) -> Tensor:
        return convolve(partial(precise, self.mapping), x) + lit


class _Blocks(nn.Module):
    def __init__(self, dim: int, heads: int, number: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(dim, heads) for _ in range(number))


class _Block(nn.ModuleList):
    """Attention and the convolutions after it: a pass for the sums over all pixels, one for the rest."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__([_Attention(dim, heads), _FeedForward(dim)])

    def forward(self, x: Tensor, light: Tensor, estimate: Estimate, bands: Bands) -> Tensor:
        attention, feed_forward = self
        assert isinstance(attention, _Attention)
        mixing = attention.mixing(x, bands)

        def mix(band: Band, x: Tensor, light: Tensor) -> Tensor:
            x = x + attention(x, estimate(light), mixing)
            y: Tensor = feed_forward(x)
            return x + y

        return bands.run(mix, x, light, dim=1, halo=3)


def _blocks(level: nn.Module) -> list[_Block]:
    return [module for module in level.modules() if isinstance(module, _Block)]


class _Attention(nn.Module):
    """Channels are mixed by how they go together over all pixels; where it was dark, by other features than elsewhere.

    A head has as many channels as the first level.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.rescale = nn.Parameter(torch.ones(heads, 1, 1))
        self.proj = nn.Linear(dim, dim)
        self.pos_emb = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False),
            nn.GELU(),
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False),
        )
        for linear in (self.to_q, self.to_k, self.to_v, self.proj):
            nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor, light: Tensor, mixing: Tensor) -> Tensor:
        v = self.to_v(x)
        weighed = (v * light.to(v.dtype)).flatten(1, 2)
        far = torch.baddbmm(self.proj.bias, weighed, mixing.mT).view(x.shape)
        return far + convolve(self.pos_emb, v)

    def mixing(self, x: Tensor, bands: Bands) -> Tensor:
        """``[B,C,C]``: the weights of channels, and the projection after them in the same matrix."""
        sums: list[Tensor] = []

        def gather(band: Band, rows: Tensor) -> Tensor:
            sums.append(self._products(rows))
            return rows[..., :0]

        bands.run(gather, x, dim=1)
        total = torch.stack(sums).sum(0)
        products, k, q = torch.split(total, [total.shape[2], 1, 1], -1)
        lengths = k.clamp(min=TINY**2).sqrt() * q.clamp(min=TINY**2).sqrt().mT
        with torch.autocast(x.device.type, enabled=False):
            weights = (products / lengths * self.rescale.float()).softmax(-1)
            heads = torch.unflatten(self.proj.weight.float(), 1, (self.heads, -1)).transpose(0, 1)
            together: Tensor = (heads @ weights).permute(0, 2, 1, 3).flatten(2)
        return together.to(self.proj.weight.dtype)

    def _products(self, x: Tensor) -> Tensor:
        """``[B,heads,d,d+2]``, sums over all pixels: key times query, squares of keys, squares of queries."""
        q, k = (
            torch.unflatten(linear(x).float().flatten(1, 2), 2, (self.heads, -1)).permute(0, 2, 3, 1)
            for linear in (self.to_q, self.to_k)
        )
        with torch.autocast(x.device.type, enabled=False):
            squares = (y.square().sum(-1, keepdim=True) for y in (k, q))
            return torch.cat((k @ q.mT, *squares), -1)


class _FeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = _Convolutions(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fn(self.norm(x))
        return y


class _Convolutions(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(dim, hidden, 1, bias=False),
            nn.GELU(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            nn.GELU(),
            nn.Conv2d(hidden, dim, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        widen, narrow = self.net[0], self.net[4]
        assert isinstance(widen, nn.Conv2d) and isinstance(narrow, nn.Conv2d)
        return pointwise(narrow, convolve(self.net[1:4], pointwise(widen, x)))


def _same(maps: Tensor) -> Tensor:
    return maps


def _down(layer: nn.Module, make: Estimate, band: Band, pairs: Tensor) -> Tensor:
    return convolve(layer, make(pairs.flatten(1, 2)))


def _up(layer: nn.Module, fusion: nn.Module, band: Band, coarse: Tensor, skip: Tensor) -> Tensor:
    assert isinstance(fusion, nn.Conv2d)
    fine = convolve(layer, coarse)
    return _pairs(pointwise(fusion, torch.cat((fine, skip.flatten(1, 2).to(fine.dtype)), -1)).to(skip.dtype))


def _pairs(maps: Tensor) -> Tensor:
    """``[B,H,W,C]`` as ``[B,H/2,2,W,C]``: as many pairs of rows as the level below has rows."""
    return torch.unflatten(maps, 1, (-1, 2))
