"""RGT: super-resolution by window attention in turn with attention to a summary of the whole picture.

Chen, Zhang, Gu, Kong, Yang, "Recursive Generalization Transformer for Image Super-Resolution", ICLR 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._bands import WHOLE, Band, Bands
from restorekit.architectures._maps import convolve
from restorekit.architectures._network import Detected
from restorekit.architectures._rectangles import RectangleAttention, shift_masks, window_offsets
from restorekit.architectures._weights import ratio
from restorekit.architectures._window_sr import WindowSR, detect_shell
from restorekit.architectures._windows import attention, relative_position_index
from restorekit.errors import ModelError
from restorekit.tiling import Tiling

PATCH = 64
"""Side in px of the pictures that the stored masks of shifted windows are for; the masks in use fit every size."""


class RGT(WindowSR):
    """``[B,C,H,W]`` RGB in 0..1 to ``upscale`` times the size.

    Size rule: a picture is summarised by ``t`` convolutions of stride 4, twice up to 1023 px on the longer side, three
    times up to 4095 px and so on; both sides have at least ``4**t`` px (16, 64 ...). Windows are padded inside.
    Hyperparameters are those of the authors; ``img_size``, ``upsampler``, drop-out, stochastic depth and ``use_chk``
    are ignored. Raises ValueError for values that do not go together.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 64,
        in_chans: int = 3,
        embed_dim: int = 180,
        depth: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (2, 2, 2, 2),
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        use_chk: bool = False,
        upscale: int = 2,
        img_range: float = 1.0,
        resi_connection: str = "1conv",
        split_size: Sequence[int] = (8, 8),
        c_ratio: float = 0.5,
        upsampler: str = "pixelshuffle",
    ) -> None:
        groups = []
        for number, (blocks, heads) in enumerate(zip(depth, num_heads, strict=True)):
            attentions = [
                _GlobalAttention(embed_dim, heads, qkv_bias, qk_scale, c_ratio)
                if i % 2
                else _LocalAttention(
                    embed_dim, heads, split_size, i % 4 == (0 if number % 2 else 2), qkv_bias, qk_scale
                )
                for i in range(blocks)
            ]
            groups.append(_Group(embed_dim, attentions, mlp_ratio, resi_connection))
        super().__init__(in_chans, embed_dim, groups, False, upscale, img_range, "pixelshuffle", "identity")
        # Up to 1023 px a tile is summarised by as many convolutions as a training patch; 512 px is a multiple of the
        # windows, near the size of the authors' test pictures, and costs half as much overlap as 256. From 32 px
        # on, what differs next to a cut is no more than what differs everywhere, as the summary is of the tile.
        self.tiling = Tiling("approximate", phase=max(split_size), halo=32, minimum=16, fixed=512, memory=10240)
        self.before_RG = nn.Sequential(nn.Identity(), nn.LayerNorm(embed_dim))
        self.conv_after_body = _residual_convolution(resi_connection, embed_dim)

    def features(self, x: Tensor, bands: Bands = WHOLE) -> Tensor:
        """``[B,C,H,W]`` to ``[B,embed_dim,H,W]``; only the MLPs run band by band.

        Raises ModelError if a side is too small, see the size rule above.
        """
        height, width = x.shape[2:]
        recursions = _recursions(max(height, width), self.training)
        if min(height, width) < 4**recursions:
            raise ModelError(
                f"RGT takes sides of at least {4**recursions} px where the longer has {max(height, width)} px "
                f"(size rule: 4^t px, t = {recursions} convolutions of stride 4); "
                f"pad {width} x {height} px or cut it into tiles"
            )
        shallow = WHOLE.run(self._shallow, x.permute(0, 2, 3, 1).contiguous(), dim=1)
        maps = self.before_RG(shallow)
        for group in self.layers:
            maps = group(maps, recursions, bands)
        return WHOLE.run(self._deep, maps, shallow, dim=1).permute(0, 3, 1, 2)

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        block = "layers.0.blocks.0."
        offsets = f"{block}attn.attns.0.rpe_biases"
        if any(key not in state for key in ("before_RG.1.weight", f"{block}gamma", offsets, "conv_last.weight")):
            return None
        shell = detect_shell(state)
        dim = shell["embed_dim"]
        depth: list[int] = []
        num_heads: list[int] = []
        while (key := f"layers.{len(depth)}.blocks.0.attn.attns.0.pos.pos3.2.weight") in state:
            blocks = f"layers.{len(depth)}.blocks."
            depth.append(len({name.removeprefix(blocks).split(".")[0] for name in state if name.startswith(blocks)}))
            num_heads.append(2 * state[key].shape[0])
        channels = next((state[key] for key in state if key.endswith(".blocks.1.attn.conv.weight")), None)
        config: dict[str, Any] = {
            "in_chans": shell["in_chans"],
            "embed_dim": dim,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": ratio(state[f"{block}mlp.fc1.weight"].shape[0], dim),
            "qkv_bias": f"{block}attn.qkv.bias" in state,
            "upscale": shell["upscale"],
            "resi_connection": "1conv" if "conv_after_body.weight" in state else "3conv",
            "split_size": [int(side) + 1 for side in state[offsets].amax(0)],
            "c_ratio": 0.5 if channels is None else ratio(channels.shape[0], dim),
        }
        return Detected(config, ("img_range and qk_scale are not stored in the weights; 1 and none are assumed",))


def _recursions(side: int, training: bool) -> int:
    """How often stride 4 is applied for pictures of this longer side: to 4..15 px while training, else to 16..63 px."""
    rest, count = side // (4 if training else 16), 0
    while rest >= 4:
        rest, count = rest // 4, count + 1
    return count if training else max(count, 2)


class _Group(nn.Module):
    def __init__(self, dim: int, attentions: Sequence[nn.Module], mlp_ratio: float, resi_connection: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(dim, attention, int(dim * mlp_ratio)) for attention in attentions)
        self.conv = _residual_convolution(resi_connection, dim)

    def forward(self, x: Tensor, recursions: int, bands: Bands) -> Tensor:
        y = x
        for block in self.blocks:
            y = block(y, recursions, bands)
        return x + convolve(self.conv, y)


class _Block(nn.Module):
    def __init__(self, dim: int, attention: nn.Module, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attention
        self.mlp = _GatedMlp(dim, hidden)
        self.norm2 = nn.LayerNorm(dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-4))

    def forward(self, x: Tensor, recursions: int, bands: Bands) -> Tensor:
        y = x + self.attn(self.norm1(x), recursions)
        return bands.run(self._feed_forward, y, x, dim=1, halo=1)

    def _feed_forward(self, band: Band, y: Tensor, x: Tensor) -> Tensor:
        return y + self.mlp(self.norm2(y)) + x * self.gamma  # type: ignore[no-any-return]


class _LocalAttention(RectangleAttention):
    """Attention within windows."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        split_size: Sequence[int],
        shifted: bool,
        qkv_bias: bool,
        qk_scale: float | None,
    ) -> None:
        super().__init__(dim, num_heads, split_size, shifted, True, qkv_bias, qk_scale)
        if any(PATCH % side for side in split_size):
            raise ValueError(f"split_size is {tuple(split_size)}; it takes divisors of {PATCH}")
        for number, (branch, size) in enumerate(zip(self.attns, self.sizes, strict=True)):
            branch.register_buffer("rpe_biases", window_offsets(*size))
            branch.register_buffer("relative_position_index", relative_position_index(*size))
            self.register_buffer(f"attn_mask_{number}", shift_masks(PATCH, PATCH, size) if shifted else None)

    def forward(self, x: Tensor, recursions: int) -> Tensor:
        names = ("rpe_biases", "relative_position_index")
        places = [(branch.get_buffer(names[0]), branch.get_buffer(names[1])) for branch in self.attns]
        return self.attend(x, places)


class _GlobalAttention(nn.Module):
    """Attention of every pixel to a summary: the picture after ``recursions`` runs of one convolution of stride 4."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, qk_scale: float | None, c_ratio: float) -> None:
        super().__init__()
        reduced = int(dim * c_ratio)
        if dim % num_heads or reduced % num_heads:
            raise ValueError(f"num_heads is {num_heads}; it takes a divisor of {dim} and {reduced} channels")
        self.heads = num_heads
        self.attention_scale = qk_scale or (dim // num_heads * c_ratio) ** -0.5
        self.reduction1 = nn.Conv2d(dim, dim, 4, stride=4, groups=dim)
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.conv = nn.Conv2d(dim, reduced, 1)
        self.norm_act = nn.Sequential(nn.LayerNorm(reduced), nn.GELU())
        self.q = nn.Linear(dim, reduced, bias=qkv_bias)
        self.k = nn.Linear(reduced, reduced, bias=qkv_bias)
        self.v = nn.Linear(reduced, dim, bias=qkv_bias)
        self.cpe = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, recursions: int) -> Tensor:
        small = x
        for _ in range(recursions):
            small = convolve(self.reduction1, small)
        small = self.norm_act(convolve(self.conv, convolve(self.dwconv, small)))
        v = self.v(small)
        v = self._by_head(v + convolve(self.cpe, v))
        q, k = self._by_head(self.q(x)), self._by_head(self.k(small))
        # The fused kernel wants as many channels in queries and keys as in values: zeros change no score.
        spare = max(v.shape[-1] - q.shape[-1], 0)
        q, k = F.pad(q, (0, spare)), F.pad(k, (0, spare))
        found = attention(q, k, v, None, self.attention_scale)
        return self.proj(found.transpose(1, 2).flatten(2)).view_as(x)  # type: ignore[no-any-return]

    def _by_head(self, maps: Tensor) -> Tensor:
        return maps.reshape(maps.shape[0], -1, self.heads, maps.shape[-1] // self.heads).transpose(1, 2)


class _GatedMlp(nn.Module):
    """An MLP half of whose hidden channels, after a depthwise convolution, multiply the other half."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.sg = _Gate(hidden // 2)
        self.fc2 = nn.Linear(hidden // 2, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.sg(F.gelu(self.fc1(x))))  # type: ignore[no-any-return]


class _Gate(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        values, gate = x.chunk(2, -1)
        return values * convolve(self.conv, self.norm(gate))


def _residual_convolution(kind: str, dim: int) -> nn.Module:
    if kind == "1conv":
        return nn.Conv2d(dim, dim, 3, padding=1)
    if kind == "3conv":
        return nn.Sequential(
            nn.Conv2d(dim, dim // 4, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(dim // 4, dim // 4, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(dim // 4, dim, 3, padding=1),
        )
    raise ValueError(f"resi_connection is '{kind}'; there are '1conv' and '3conv'")
