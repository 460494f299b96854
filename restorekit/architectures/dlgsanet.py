"""DLGSANet: dynamic depthwise convolutions for what is near, channel attention over windows for what is far.

Li, Pan, Tang, Li, "DLGSANet: Lightweight Dynamic Local and Global Self-Attention Network for Image
Super-Resolution", ICCV 2023; the windows at test time are those of Chu, Chen, Chen, Lu, "Improving Image Restoration
by Revisiting Global Information Aggregation", ECCV 2022 (TLC).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._bands import WHOLE, Bands
from restorekit.architectures._maps import mean_color, precise
from restorekit.architectures._network import Detected, Network
from restorekit.architectures._weights import ratio
from restorekit.tiling import Tiling

TLC_KERNEL: Mapping[int, int] = {2: 96, 3: 72, 4: 48}
"""The windows of the released networks by scale: what they saw while they were trained."""

ROWS = 32
"""How many rows of kernels the dynamic convolution holds at a time; 49 taps of them then stay in the cache."""

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "sigmoid": torch.sigmoid}

BuildBlock = Literal["sparseedge", "edge"]


class DLGSANet(Network):
    """``[B,C,H,W]`` RGB in 0..1 to ``scale`` times the size; any H and W.

    ``sparseedge`` is the published network; ``edge`` has the softmax in place of ``activation``, and the authors give
    it windows of 48 px whatever ``tlc_kernel`` is. In evaluation mode with ``tlc_flag`` attention runs over windows
    of ``tlc_kernel`` px that are spread over the tile from its first to its last pixel, and over the whole tile
    otherwise. So the result depends on the tile. Its fixed side is the multiple of the window next to 384 px: windows
    then lie side by side without overlap, and most test images fit into one tile, where the result is the authors'.
    ``input_resolution`` is accepted and ignored. Raises ValueError for the feed-forward networks, static convolutions
    and upsamplers that no released network has.
    """

    tail_halo = 1

    def __init__(
        self,
        in_chans: int = 3,
        dim: int = 60,
        groups: int = 4,
        blocks: int = 3,
        buildblock_type: BuildBlock = "edge",
        window_size: int = 7,
        idynamic_num_heads: int = 6,
        idynamic_ffn_type: str = "GDFN",
        idynamic_ffn_expansion_factor: float = 2.0,
        idynamic: bool = True,
        restormer_num_heads: int = 6,
        restormer_ffn_type: str = "GDFN",
        restormer_ffn_expansion_factor: float = 2.0,
        tlc_flag: bool = True,
        tlc_kernel: int = 48,
        activation: str = "relu",
        upscale: int = 4,
        img_range: float = 1.0,
        upsampler: str = "",
        body_norm: bool = False,
        input_resolution: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("buildblock_type", buildblock_type, ("sparseedge", "edge")),
            ("idynamic_ffn_type", idynamic_ffn_type, ("GDFN",)),
            ("restormer_ffn_type", restormer_ffn_type, ("GDFN",)),
            ("idynamic", idynamic, (True,)),
            ("activation", activation, tuple(ACTIVATIONS)),
            ("upsampler", upsampler, ("pixelshuffledirect",)),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; there is {' or '.join(map(repr, known))}")
        self.scale = upscale
        self.in_channels = in_chans
        self.img_range = img_range
        sparse = buildblock_type == "sparseedge"
        window = tlc_kernel if sparse else 48
        side = window * max(1, round(384 / window))
        self.tiling = Tiling("approximate", halo=16, fixed=side, memory=2048 + 28 * dim)

        def attention() -> _ChannelAttention:
            return _ChannelAttention(
                dim, restormer_num_heads, window if tlc_flag else None, ACTIVATIONS[activation] if sparse else None
            )

        def group() -> _Group:
            layers: list[nn.Module] = []
            for _ in range(blocks):
                layers.append(_LocalLayer(dim, window_size, idynamic_num_heads, idynamic_ffn_expansion_factor))
                layers.append(_GlobalLayer(dim, attention(), restormer_ffn_expansion_factor))
            return _Group(layers, dim)

        self.overlap_embed = nn.Sequential(_Embed(in_chans, dim))
        norms = [_LayerNorm(dim), _LayerNorm(dim)] if body_norm else []
        body = [*norms[:1], *(group() for _ in range(groups)), *norms[1:], _Convolution(dim, dim, 3, padding=1)]
        self.deep_feature_extraction = nn.Sequential(*body)
        self.upsample = nn.Sequential(nn.Conv2d(dim, in_chans * upscale**2, 3, padding=1), nn.PixelShuffle(upscale))

    def features(self, x: Tensor, bands: Bands = WHOLE) -> Tensor:
        """``[B,C,H,W]`` to ``[B,dim,H,W]``; runs at once, whatever ``bands`` says."""
        shallow = self.overlap_embed((x - self._mean(x)) * self.img_range).permute(0, 2, 3, 1)
        maps: Tensor = self.deep_feature_extraction(shallow) + shallow
        return maps.permute(0, 3, 1, 2)

    def tail(self, features: Tensor) -> Tensor:
        y = precise(self.upsample, features)
        return y / self.img_range + self._mean(y)

    def _mean(self, like: Tensor) -> Tensor:
        return mean_color(like, self.in_channels).view(-1, 1, 1)

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        body = "deep_feature_extraction."
        normed = f"{body}0.body.weight" in state
        first = f"{body}{int(normed)}.body."
        kernels, temperature = f"{first}0.IDynamicDWConv.conv.conv2.0.weight", f"{first}1.restormer_attn.temperature"
        local, far = f"{first}0.IDynamic_ffn.project_out.weight", f"{first}1.restormer_ffn.project_out.weight"
        needed = ("overlap_embed.0.proj.weight", "upsample.0.weight", kernels, temperature, local, far)
        if any(key not in state for key in needed):
            return None
        dim, in_chans = state[needed[0]].shape[:2]
        window_size = state[f"{first}0.IDynamicDWConv.conv.conv1.1.weight"].shape[-1]
        upscale = isqrt(state["upsample.0.weight"].shape[0] // in_chans)
        config: dict[str, Any] = {
            "in_chans": in_chans,
            "dim": dim,
            "groups": len({key.split(".")[1] for key in state if key.startswith(body)}) - (3 if normed else 1),
            "blocks": len({key.split(".")[3] for key in state if key.startswith(first)}) // 2,
            "buildblock_type": "sparseedge",
            "window_size": window_size,
            "idynamic_num_heads": dim * window_size**2 // state[kernels].shape[0],
            "idynamic_ffn_expansion_factor": ratio(state[local].shape[1], dim),
            "restormer_num_heads": state[temperature].shape[0],
            "restormer_ffn_expansion_factor": ratio(state[far].shape[1], dim),
            "tlc_kernel": TLC_KERNEL.get(upscale, 48),
            "upscale": upscale,
            "upsampler": "pixelshuffledirect",
            "body_norm": normed,
        }
        assumed = (
            "buildblock_type and activation are not stored in the weights; sparseedge with relu is assumed",
            f"tlc_flag and tlc_kernel are not stored in the weights; {config['tlc_kernel']} px are assumed",
            "img_range is not stored in the weights; 1 is assumed",
        )
        return Detected(config, assumed)


class _Embed(nn.Module):
    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return precise(self.proj, x)


class _LayerNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


class _Convolution(nn.Conv2d):
    """A convolution of maps ``[B,H,W,C]``; no copies are made."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class _Group(nn.Module):
    """Layers and a 3x3 convolution with a shortcut past them; maps here and below are ``[B,H,W,C]``."""

    def __init__(self, layers: list[nn.Module], dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers, _Convolution(dim, dim, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y + x


class _LocalLayer(nn.Module):
    def __init__(self, dim: int, window_size: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norm1 = _LayerNorm(dim)
        self.IDynamicDWConv = _DynamicBlock(dim, window_size, heads)
        self.norm2 = _LayerNorm(dim)
        self.IDynamic_ffn = _GatedFeedForward(dim, int(dim * expansion))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.IDynamicDWConv(self.norm1(x))
        x = x + self.IDynamic_ffn(self.norm2(x))
        return x


class _GlobalLayer(nn.Module):
    def __init__(self, dim: int, attention: _ChannelAttention, expansion: float) -> None:
        super().__init__()
        self.norm3 = _LayerNorm(dim)
        self.restormer_attn = attention
        self.norm4 = _LayerNorm(dim)
        self.restormer_ffn = _GatedFeedForward(dim, int(dim * expansion))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.restormer_attn(self.norm3(x))
        x = x + self.restormer_ffn(self.norm4(x))
        return x


class _GatedFeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.project_in = _Convolution(dim, hidden * 2, 1, bias=False)
        self.dwconv = _Convolution(hidden * 2, hidden * 2, 3, padding=1, groups=hidden * 2, bias=False)
        self.project_out = _Convolution(hidden, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(self.project_in(x)).chunk(2, -1)
        y: Tensor = self.project_out(F.gelu(gate) * value)
        return y


class _DynamicBlock(nn.Module):
    def __init__(self, dim: int, window_size: int, heads: int) -> None:
        super().__init__()
        self.conv0 = _Convolution(dim, dim, 1, bias=False)
        self.conv1 = _Convolution(dim, dim, 1, bias=False)
        self.conv = _DynamicConvolution(dim, window_size, heads)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(self.conv0(x).permute(0, 3, 1, 2))
        y = self.conv1(y.permute(0, 2, 3, 1))
        return y


class _DynamicConvolution(nn.Module):
    """A depthwise convolution ``[B,C,H,W]`` whose kernels are made from the maps, pixel by pixel.

    Channels in groups of ``group_channels`` share a kernel. Kernels are as large as 49 maps a group, so they exist
    for a few rows at a time; each tap adds one product of shifted views, and nothing is unfolded.
    """

    def __init__(self, channels: int, kernel_size: int, group_channels: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.groups = channels // group_channels
        width = channels // 4
        self.conv1 = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2, groups=width),
        )
        self.conv2 = nn.Sequential(nn.Conv2d(width, kernel_size**2 * self.groups, 1))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(x)
        b, _, h, w = x.shape
        size, radius = self.kernel_size, self.kernel_size // 2
        padded = F.pad(x, (radius,) * 4).float().contiguous()
        padded = padded.view(b, self.groups, -1, h + 2 * radius, w + 2 * radius)
        results = []
        for top in range(0, h, ROWS):
            height = min(ROWS, h - top)
            kernels = self.conv2(hidden[:, :, top : top + height]).float().contiguous()
            kernels = kernels.view(b, self.groups, 1, size * size, height, w)
            total = padded.new_zeros(*padded.shape[:3], height, w)
            for tap in range(size * size):
                row, column = top + tap // size, tap % size
                total.addcmul_(padded[..., row : row + height, column : column + w], kernels[:, :, :, tap])
            results.append(total.flatten(1, 2).to(x.dtype))
        return torch.cat(results, 2)


class _ChannelAttention(nn.Module):
    """Attention among the channels of a head, over all pixels or, in evaluation mode, over windows of them."""

    def __init__(self, dim: int, heads: int, window: int | None, activation: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.activation = activation
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = _Convolution(dim, dim * 3, 1, bias=False)
        self.qkv_dwconv = _Convolution(dim * 3, dim * 3, 3, padding=1, groups=dim * 3, bias=False)
        self.project_out = _Convolution(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        qkv: Tensor = self.qkv_dwconv(self.qkv(x))
        whole = self.training or self.window is None
        y: Tensor = self.project_out(self._attend(qkv) if whole else self._attend_windows(qkv))
        return y

    def _attend_windows(self, qkv: Tensor) -> Tensor:
        """The mean of the results of all windows at every pixel."""
        assert self.window is not None
        b, h, w, c = qkv.shape
        height, width = min(self.window, h), min(self.window, w)
        total = qkv.new_zeros(b, h, w, c // 3)
        count = qkv.new_zeros(h, w, 1)
        for top in origins(h, height):
            for left in origins(w, width):
                area = (slice(top, top + height), slice(left, left + width))
                total[:, *area] += self._attend(qkv[:, *area])
                count[area] += 1
        return total / count

    def _attend(self, qkv: Tensor) -> Tensor:
        b, h, w, c = qkv.shape
        q, k, v = qkv.reshape(b, h * w, 3, self.heads, -1).permute(2, 0, 3, 4, 1)
        # Lengths are sums over thousands of pixels: in float32 whatever the maps are in.
        scores = F.normalize(q.float(), dim=-1) @ F.normalize(k.float(), dim=-1).mT * self.temperature
        weights = self.activation(scores) if self.activation else scores.softmax(-1)
        y: Tensor = weights.to(v.dtype) @ v
        return y.permute(0, 3, 1, 2).reshape(b, h, w, c // 3)


def origins(length: int, window: int) -> list[int]:
    """Where windows begin: as few as cover the length, spread evenly in whole px, the last one at the far side."""
    count = -(-length // window)
    step = -(-(length - window) // (count - 1)) if count > 1 else window
    return [*range(0, length - window, step), length - window]
