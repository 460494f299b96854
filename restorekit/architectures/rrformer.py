"""RRFormer: removes reflections from photographs of glass, with a Swin Transformer between two convolutional halves.

Zhang and others, "Benchmarking Ultra-High-Definition Image Reflection Removal", arXiv 2308.00265; names and order of
layers are those of ``errnet`` in https://github.com/Liar-zzy/Benchmarking-Ultra-High-Definition-Single-Image-Reflection-Removal
(commit c1de7bf), its Swin body of SwinIR (Liang et al., ICCV workshops 2021).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures import _vgg
from restorekit.architectures._bands import WHOLE, Band, Bands
from restorekit.architectures._maps import convolve, precise
from restorekit.architectures._network import Detected, Network
from restorekit.architectures._weights import count, ratio
from restorekit.architectures._window_sr import resolution
from restorekit.architectures._windows import (
    Mlp,
    WindowAttention,
    in_cache,
    init_transformer,
    over_windows,
    relative_position_index,
    roll,
    shift_masks,
)
from restorekit.errors import ModelError
from restorekit.tiling import Tiling, mirrored

HYPERCOLUMN = 3 + sum(_vgg.CHANNELS)
"""Channels of the picture and of five maps of VGG-19."""

POOLS = (4, 8, 16, 32)
"""Sides in px of the squares over which the pyramid takes means."""

BLOCK = max(POOLS) // 2
"""Rows of half the size that such a square covers."""

GRAY, CONTRAST = 0.45, 1 / 3
"""About the mean of pictures, and how much their pixels differ from it."""

ROWS = 2 * BLOCK
"""Rows of half the size of a band, at least, so that few are computed twice."""


class RRFormer(Network):
    """``[B,in_channels,H,W]`` in 0..1 to ``[B,out_channels,H,W]``, never negative; H and W are even, from 32 px.

    ``hypercolumn`` makes the 1475 ``in_channels`` of a picture: itself and what VGG-19 sees in it, enlarged to its
    size. VGG-19 comes from a file (see ``_vgg``) and is no part of the weights. Without it the network takes what
    ``in_channels`` says, a plain picture for 3.

    As published, the result of the Swin body is dropped: the body has 84 % of the weights, and none of them matters.
    ``swin_body`` is ``published``, or ``active`` where the result is taken. ``img_size`` and ``patch_size`` only decide
    whether windows are shifted, and the size of stored masks. With ``residual``, which is no part of the paper, the
    network makes what is added to the picture, so that little of it has to be learnt; results may be negative then.
    ``pyramid`` says how means over squares are enlarged: as published to the ``nearest`` one, which leaves the squares
    to be seen where much hangs on them, or ``bilinear``.
    Raises ValueError for values that do not go together.
    """

    carries = "difference"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        n_feats: int = 256,
        img_size: int | Sequence[int] = 256,
        patch_size: int | Sequence[int] = 4,
        embed_dim: int = 240,
        depths: Sequence[int] = (6, 6, 6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6, 6, 6),
        window_size: int = 8,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        hypercolumn: bool = False,
        swin_body: Literal["published", "active"] = "published",
        residual: bool = False,
        pyramid: Literal["nearest", "bilinear"] = "nearest",
    ) -> None:
        super().__init__()
        if swin_body not in ("published", "active"):
            raise ValueError(f"swin_body is '{swin_body}'; there are 'published' and 'active'")
        if pyramid not in ("nearest", "bilinear"):
            raise ValueError(f"pyramid is '{pyramid}'; there are 'nearest' and 'bilinear'")
        if len(depths) != len(num_heads):
            raise ValueError(f"depths has {len(depths)} groups and num_heads {len(num_heads)}")
        if hypercolumn and in_channels != HYPERCOLUMN:
            raise ValueError(f"in_channels is {in_channels}; a hypercolumn has {HYPERCOLUMN}")
        if residual and out_channels != (3 if hypercolumn else in_channels):
            raise ValueError(f"residual adds to the picture, so that out_channels is not {out_channels}")
        self.scale = 1
        self.residual = residual
        self.in_channels = 3 if hypercolumn else in_channels
        self.active = swin_body == "active"
        self.vgg = _vgg.VGG19() if hypercolumn else None
        self.conv1 = _layer(nn.Conv2d(in_channels, n_feats, 1))
        self.conv2 = _layer(nn.Conv2d(n_feats, n_feats, 3, padding=1))
        self.conv3 = _layer(nn.Conv2d(n_feats, embed_dim, 3, stride=2, padding=1))
        self.swinir_block = _SwinBody(
            embed_dim, depths, num_heads, window_size, resolution(img_size, patch_size), mlp_ratio, qkv_bias, qk_scale
        )
        self.deconv1 = _layer(nn.ConvTranspose2d(embed_dim, n_feats, 4, stride=2, padding=1))
        self.deconv2 = _layer(nn.Conv2d(n_feats, n_feats, 3, padding=1))
        self.pyramid_module = _Pyramid(n_feats, pyramid == "bilinear")
        last = nn.Conv2d(n_feats, out_channels, 1)
        if residual:
            _init_for_residual(self, last)
        else:  # a channel that begins below 0 has no slope to learn from
            nn.init.constant_(last.get_parameter("bias"), 0.5)
        self.deconv3 = nn.Sequential(OrderedDict(conv2d=last)) if residual else _layer(last)
        self.tiling = Tiling(
            "exact",
            grid=2,
            phase=max(POOLS),
            halo=32 + 64 * hypercolumn + 32 * self.active + 32 * self.pyramid_module.smooth,
            minimum=max(POOLS),
            memory=18 * n_feats + 3 * embed_dim * self.active,
            maps=24 + max(embed_dim * (3 if self.active else 1), (embed_dim + 232) if hypercolumn else 0),
        )

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As every module does, and VGG-19 from its file: raises ModelError where that is missing."""
        result = super().load_state_dict(state_dict, strict, assign)
        if self.vgg is not None:
            self.vgg.load()
        return result

    def features(self, x: Tensor, bands: Bands = WHOLE) -> Tensor:
        """The picture; maps are kept at half its size.

        Raises ModelError where H or W is odd or below 32.
        """
        height, width = x.shape[2:]
        if height % 2 or width % 2 or min(height, width) < max(POOLS):
            raise ModelError(f"RRFormer takes even sides from {max(POOLS)} px; pad {width} x {height} px")
        image = x.permute(0, 2, 3, 1)
        maps = self._halved(image, bands)
        if self.active:
            maps = self.swinir_block(maps, bands)
        beyond = height % max(POOLS) != 0 or self.pyramid_module.smooth
        halo = 1 + BLOCK * beyond
        if bands.rows is not None:
            bands = replace(bands, rows=max(bands.rows, (2 if beyond else 1) * ROWS) // BLOCK * BLOCK)
        result = bands.run(partial(self._leave, halo, height), maps, dim=1, halo=halo)
        result = result.flatten(1, 2).permute(0, 3, 1, 2)
        return result + x.to(result) if self.residual else result

    def tail(self, features: Tensor) -> Tensor:
        return features

    def _halved(self, image: Tensor, bands: Bands) -> Tensor:
        """``[B,H,W,C]`` to ``[B,H/2,W/2,embed_dim]``."""
        if bands.rows is not None:
            bands = replace(bands, rows=max(bands.rows, ROWS))
        coarser = [] if self.vgg is None else self.vgg.coarser(image, bands)
        pairs = torch.unflatten(image, 1, (-1, 2))
        return bands.run(partial(self._enter, coarser, image.shape[1]), pairs, dim=1, halo=2)

    def _enter(self, coarser: Sequence[Tensor], height: int, band: Band, image: Tensor) -> Tensor:
        image = image.flatten(1, 2)
        if self.vgg is None:
            maps = convolve(partial(precise, self.conv1), image)
        else:
            maps = self._of_hypercolumn(self.vgg, coarser, image, 2 * band.top, height)
        return convolve(self.conv3, convolve(self.conv2, maps))

    def _of_hypercolumn(
        self, vgg: _vgg.VGG19, coarser: Sequence[Tensor], image: Tensor, top: int, height: int
    ) -> Tensor:
        """``conv1`` of rows of a hypercolumn from ``top`` on, which is never made.

        Enlarging is linear and the same for each channel, so the 1x1 convolution comes first.
        """
        weight, bias = self.conv1.get_parameter("conv2d.weight"), self.conv1.get_parameter("conv2d.bias")
        of_image, *weights = torch.split(weight.flatten(1), [3, *_vgg.CHANNELS], 1)
        with torch.autocast(image.device.type, enabled=False):
            maps = F.linear(image.to(of_image.dtype), of_image, bias)
        maps.add_(F.linear(vgg.first(image), weights[0]))
        for level, part in zip(coarser, weights[1:], strict=True):
            maps.add_(_enlarged(level, part, top, image, height))
        return F.relu_(maps)

    def _leave(self, halo: int, height: int, band: Band, maps: Tensor) -> Tensor:
        """``[B,rows,W/2,embed_dim]`` to pairs of rows of the picture ``[B,rows,2,W,out_channels]``.

        Bands begin at multiples of ``BLOCK``. Where the last squares of the pyramid are cut off, a row may take the
        mean of the square above its own, and then the halo has one more of them; so it has where means are enlarged
        bilinearly, from above and from below.
        """
        above, below = band.top > 0, not band.is_last
        if below and not self.pyramid_module.smooth:
            maps = maps[:, : maps.shape[1] - halo + 1]
        maps = convolve(self.deconv2, convolve(self.deconv1, maps))
        maps = maps[:, 2 * above : maps.shape[1] - 2 * below]
        maps = self.pyramid_module(maps, 2 * (band.top + above), height)
        maps = maps[:, 2 * (halo - 1) * above :]
        picture = torch.unflatten(convolve(partial(precise, self.deconv3), maps), 1, (-1, 2))
        return F.pad(picture, (0, 0, 0, 0, 0, 0, halo, 0)) if above else picture

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        """See ``Network.detect``."""
        group = "swinir_block.layers.{}.residual_group.blocks."
        first = group.format(0) + "0."
        needed = ("conv1.conv2d.weight", "conv3.conv2d.weight", "deconv3.conv2d.weight", f"{first}mlp.fc1.weight",
                  "swinir_block.conv_last.weight", "pyramid_module.bottleneck.weight",
                  f"{first}attn.relative_position_index", f"{first}attn.relative_position_bias_table")  # fmt: skip
        if any(key not in state for key in needed) or state["conv1.conv2d.weight"].shape[2:] != (1, 1):
            return None
        n_feats, in_channels = state["conv1.conv2d.weight"].shape[:2]
        dim = state["conv3.conv2d.weight"].shape[0]
        window = isqrt(state[f"{first}attn.relative_position_index"].shape[0])
        groups = count(state, group + "0.norm1.weight")
        masks = [value for key, value in state.items() if key.endswith(".attn_mask")]
        table = group + "0.attn.relative_position_bias_table"
        config = {
            "in_channels": in_channels,
            "out_channels": state["deconv3.conv2d.weight"].shape[0],
            "n_feats": n_feats,
            "img_size": 4 * window * (isqrt(masks[0].shape[0]) if masks else 1),
            "patch_size": 4,
            "embed_dim": dim,
            "depths": tuple(count(state, f"{group.format(i)}{{}}.norm1.weight") for i in range(groups)),
            "num_heads": tuple(state[table.format(i)].shape[1] for i in range(groups)),
            "window_size": window,
            "mlp_ratio": ratio(state[f"{first}mlp.fc1.weight"].shape[0], dim),
            "qkv_bias": f"{first}attn.qkv.bias" in state,
            "hypercolumn": in_channels == HYPERCOLUMN,
        }
        assumed = (
            "swin_body is not stored in the weights; it is assumed as published, with no effect",
            "qk_scale is not stored in the weights; that of the head size is assumed",
            "residual is not stored in the weights; it is assumed to be false",
            "pyramid is not stored in the weights; it is assumed as published, nearest",
        )
        return Detected(config, assumed)


class _SwinBody(nn.Module):
    """SwinIR without its ends, on ``[B,H,W,C]``. ``conv_last`` has weights in files and no use."""

    def __init__(
        self,
        dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window: int,
        size: tuple[int, int],
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
    ) -> None:
        super().__init__()
        shift = window // 2 if min(size) > window else 0
        self.window = window = min(*size, window)
        if shift and (size[0] % window or size[1] % window):
            raise ValueError(f"img_size / patch_size is {size[1]} x {size[0]}; it takes multiples of {window}")
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(dim)})
        self.layers = nn.ModuleList(
            _Group(
                dim,
                [
                    _Block(dim, heads, window, shift * (i % 2), size, mlp_ratio, qkv_bias, qk_scale)
                    for i in range(depth)
                ],
            )
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv_last = nn.Conv2d(dim, 3, 3, padding=1)
        self.apply(init_transformer)

    def forward(self, first: Tensor, bands: Bands) -> Tensor:
        """The sum of ``first`` and what the body makes of it; ``first`` is overwritten where bands are run."""
        height, width = first.shape[1:3]
        first = _filled(first, self.window)
        maps = in_cache(bands, first).run(self._embed, first, dim=1)
        for layer in self.layers:
            maps = layer(maps, bands)
        return _wide(bands).run(self._deep, maps, first, dim=1, halo=1, reuse=first)[:, :height, :width]

    def _embed(self, band: Band, maps: Tensor) -> Tensor:
        return self.patch_embed["norm"](maps)  # type: ignore[no-any-return]

    def _deep(self, band: Band, maps: Tensor, first: Tensor) -> Tensor:
        return convolve(self.conv_after_body, self.norm(maps)) + first


class _Group(nn.Module):
    """Blocks and a convolution, with a shortcut past them; the maps given are overwritten where bands are run."""

    def __init__(self, dim: int, blocks: Sequence[_Block]) -> None:
        super().__init__()
        self.residual_group = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor, bands: Bands) -> Tensor:
        maps = x
        for block in self.residual_group.get_submodule("blocks").children():
            maps = block(maps, in_cache(bands, x), None if maps is x else maps)
        return _wide(bands).run(self._leave, maps, x, dim=1, halo=1, reuse=x)

    def _leave(self, band: Band, maps: Tensor, x: Tensor) -> Tensor:
        return convolve(self.conv, maps) + x


class _Block(nn.Module):
    """Window attention and an MLP, each with a shortcut."""

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        shift: int,
        size: tuple[int, int],
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, heads, qkv_bias, qk_scale)
        self.attn.register_buffer("relative_position_index", relative_position_index(window, window))
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.register_buffer("attn_mask", shift_masks(*size, window, shift) if shift else None)

    def forward(self, maps: Tensor, bands: Bands, reuse: Tensor | None) -> Tensor:
        """``[B,H,W,C]``; the result may be written into ``reuse``.

        Shifted windows without gradients: it is written into ``maps``.
        """
        if not self.shift:
            return bands.run(partial(self._windows, False), maps, dim=1, grid=self.window, reuse=reuse)
        if torch.is_grad_enabled():
            rolled = roll(maps, self.shift)
            return roll(over_windows(self._attend, rolled, self.window, self.shift), -self.shift)
        # Rows stay where they are: only the windows that the last rows share with the first are put together.
        rest = self.window - self.shift
        inner, last, first = maps[:, self.shift : -rest], maps[:, -rest:], maps[:, : self.shift]
        seam = bands.run(partial(self._windows, True), torch.cat((last, first), 1), dim=1, grid=self.window)
        if inner.shape[1]:
            made = bands.run(partial(self._windows, False), inner, dim=1, grid=self.window, reuse=inner)
            if made is not inner:
                inner.copy_(made)
        last.copy_(seam[:, :rest])
        first.copy_(seam[:, rest:])
        return maps

    def _windows(self, seam: bool, band: Band, maps: Tensor) -> Tensor:
        if not self.shift:
            return over_windows(self._attend, maps, self.window)
        rolled = torch.roll(maps, -self.shift, 2)
        return torch.roll(over_windows(self._attend, rolled, self.window, self.shift, seam), self.shift, 2)

    def _attend(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """``[windows,N,C]``."""
        tokens = tokens + self.attn(self.norm1(tokens), mask)
        result: Tensor = tokens + self.mlp(self.norm2(tokens))
        return result


class _Pyramid(nn.Module):
    """Adds to each pixel what is made of the means of the squares it lies in, of four sizes."""

    def __init__(self, channels: int, smooth: bool) -> None:
        super().__init__()
        self.smooth = smooth
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.AvgPool2d(side), nn.Conv2d(channels, channels // 4, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)
            )
            for side in POOLS
        )
        self.bottleneck = nn.Conv2d(channels + len(POOLS) * (channels // 4), channels, 1)

    def forward(self, maps: Tensor, top: int, height: int) -> Tensor:
        """Rows ``[B,rows,W,C]`` of maps of so many rows, from ``top`` on, a multiple of the largest side.

        Means are enlarged by the nearest one, or bilinearly. The 1x1 convolution of them comes before that.
        """
        priors = [convolve(stage, maps) for stage in self.stages]
        sizes = [prior.shape[3] for prior in priors]
        *weights, own = torch.split(self.bottleneck.weight.flatten(1), [*sizes, maps.shape[3]], 1)
        rows, columns = maps.shape[1:3]
        result = F.linear(maps, own, self.bottleneck.bias)
        for prior, weight, side in zip(priors, weights, POOLS, strict=True):
            if self.smooth:
                result.add_(_between(F.linear(prior, weight), side, top, rows, height, columns))
                continue
            down = (_nearest(height, side)[top : top + rows] - top // side).clamp_(0, prior.shape[1] - 1)
            result.add_(F.linear(prior, weight)[:, down][:, :, _nearest(columns, side)])
        return F.leaky_relu_(result, 0.2)


def _init_for_residual(network: nn.Module, last: nn.Conv2d) -> None:
    """Fresh weights that add nothing, of maps that differ from place to place as much as pictures do.

    Those that torch draws make maps fainter by each layer. At the last one too little is left of a picture to learn
    from, and for two thousand steps a constant is added. So convolutions keep the variance (He, Zhang, Ren & Sun,
    "Delving Deep into Rectifiers", ICCV 2015), and the first one takes GRAY off.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            before: Literal["linear", "relu"] = "linear" if name.startswith("swinir_block") else "relu"
            if isinstance(module, nn.ConvTranspose2d):  # of its kernel a pixel sees one place in each stride
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity=before).data.mul_(module.stride[0])
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity=before)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    first = network.get_submodule("conv1.conv2d")
    weight, bias = first.get_parameter("weight"), first.get_parameter("bias")
    with torch.no_grad():
        weight.div_(CONTRAST)
        bias.copy_(weight.sum((1, 2, 3)).mul_(-GRAY))
    for added in last.parameters():
        nn.init.zeros_(added)


def _layer(convolution: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv2d=convolution, act=nn.ReLU(inplace=True)))


def _nearest(length: int, side: int) -> Tensor:
    """Which of the means over ``side`` px each of ``length`` px takes, counted as torch does."""
    means = torch.arange(length // side, dtype=torch.float32)
    return F.interpolate(means[None, None], length, mode="nearest")[0, 0].long()


def _between(means: Tensor, side: int, top: int, rows: int, height: int, columns: int) -> Tensor:
    """Means ``[B,h,w,C]`` over squares, of rows from ``top`` on of ``height``, bilinearly between their middles."""
    above, below, down = _places(side, top, rows, height)
    left, right, across = _places(side, 0, columns, columns)
    first, last = top // side, means.shape[1] - 1
    above, below = ((places - first).clamp_(0, last) for places in (above, below))
    mixed = torch.lerp(means[:, above], means[:, below], down.to(means)[:, None, None])
    return torch.lerp(mixed[:, :, left], mixed[:, :, right], across.to(means)[:, None])


def _places(side: int, first: int, count: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Between which squares of ``length`` px each of ``count`` px lies, and how far on the way to the second."""
    squares = length // side
    places = ((torch.arange(first, first + count) + 0.5) / side - 0.5).clamp_(0, squares - 1)
    before = places.long()
    return before, (before + 1).clamp_(max=squares - 1), places - before


def _enlarged(level: Tensor, weight: Tensor, top: int, like: Tensor, height: int) -> Tensor:
    """Rows of a 1x1 convolution of ``[B,h,w,C]`` enlarged bilinearly, those of ``like`` from ``top`` of ``height``."""
    rows, columns = like.shape[1:3]
    places = (torch.arange(top, top + rows) + 0.5) * (level.shape[1] / height) - 0.5
    above = places.clamp_(min=0).long()
    below = (above + 1).clamp_(max=level.shape[1] - 1)
    first, last = int(above[0]), int(below[-1])
    piece = F.linear(level[:, first : last + 1].to(like.device), weight)
    share = (places - above).to(piece)[:, None, None]
    mixed = torch.lerp(piece[:, above - first], piece[:, below - first], share).permute(0, 3, 1, 2)
    return F.interpolate(mixed, (rows, columns), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


def _filled(maps: Tensor, window: int) -> Tensor:
    """``[B,H,W,C]`` mirrored at the far sides up to whole windows."""
    height, width = maps.shape[1:3]
    if height % window == 0 and width % window == 0:
        return maps
    rows = mirrored(0, -(-height // window) * window, height, "reflect")
    columns = mirrored(0, -(-width // window) * window, width, "reflect")
    return maps[:, rows][:, :, columns]


def _wide(bands: Bands) -> Bands:
    """Bands for 3x3 convolutions of maps of half the size."""
    return bands if bands.rows is None else replace(bands, rows=max(bands.rows, ROWS))
