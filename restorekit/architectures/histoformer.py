"""Histoformer: restoration in bad weather by attention among pixels sorted by their values.

Sun, Ren, Gao, Wang, Cao, "Restoring Images in Adverse Weather Conditions via Histogram Transformer", ECCV 2024; names
and order of layers are those of https://github.com/sunshangquan/Histoformer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._depthwise import Depthwise
from restorekit.architectures._maps import convolve, pointwise
from restorekit.architectures._network import Detected
from restorekit.architectures._restormer import (
    GlobalBlock,
    LayerNorm,
    RestormerShell,
    by_deviation,
    cosines,
    detect_shell,
    is_with_bias,
)
from restorekit.tiling import Tiling


class Histoformer(RestormerShell):
    """``[B,3,H,W]`` RGB in 0..1 to the same size; H and W are multiples of 8.

    Pixels are sorted over the whole picture, so that a result depends on the size of a tile. Where two values are
    nearly the same, rounding decides which comes first, and with weights that are not trained the result may be another
    altogether; equal values keep their order, on every device. Defaults are those of the authors' options, as those of
    their class give hidden channels that cannot be split.

    Raises ValueError for values that do not go together, and for ``dual_pixel_task``, which has no code.
    """

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 36,
        num_blocks: Sequence[int] = (4, 4, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.667,
        bias: bool = False,
        LayerNorm_type: LayerNorm = "WithBias",
        dual_pixel_task: bool = False,
    ) -> None:
        with_bias = is_with_bias(LayerNorm_type)
        for name, given, known in (("inp_channels", inp_channels, 3), ("dual_pixel_task", dual_pixel_task, False)):
            if given != known:
                raise ValueError(f"{name} is {given}; there is {known}")

        def block(channels: int, heads: int) -> GlobalBlock:
            return _Block(channels, heads, int(channels * ffn_expansion_factor), bias, with_bias)

        super().__init__(inp_channels, out_channels, dim, num_blocks, heads, bias, block)
        self.refinement = nn.Sequential(*(block(2 * dim, heads[0]) for _ in range(num_refinement_blocks)))
        for level in (1, 2, 3):
            setattr(self, f"skip_patch_embed{level}", _Smaller(bias))
            channels = dim << level
            setattr(self, f"reduce_chan_level_{level}", nn.Conv2d(channels + 3, channels, 1, bias=bias))
        # Trained on patches of up to 362 px. From 8 px on, what differs next to a cut is what differs everywhere.
        self.tiling = Tiling("approximate", grid=8, halo=16, minimum=8, fixed=360, memory=10240 * dim // 36)

    def lowered(self, level: int, maps: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        maps, picture = super().lowered(level, maps, picture)[0], self._layer(f"skip_patch_embed{level}")(picture)
        joined = torch.cat((maps, picture), -1)
        return pointwise(self._layer(f"reduce_chan_level_{level}"), joined).to(maps.dtype), picture

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        config = detect_shell(state, "attn_g", (2.667, 2.66))
        if config is None or "skip_patch_embed1.proj.1.weight" not in state:
            return None
        refinement = {key.split(".")[1] for key in state if key.startswith("refinement.")}
        assumed = "LayerNorm_type is not stored in the weights; WithBias is assumed"
        return Detected({**config, "num_refinement_blocks": len(refinement)}, (assumed,))


class _Block(GlobalBlock):
    """The norms have no weights."""

    def __init__(self, dim: int, heads: int, hidden: int, bias: bool, with_bias: bool) -> None:
        super().__init__()
        self.with_bias = with_bias
        self.attn_g = _HistogramAttention(dim, heads, bias)
        self.ffn = _DualScales(dim, hidden, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attended(self.attn_g, self._norm(x))
        x = x + self.ffn(self._norm(x))
        return x

    def _norm(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:]) if self.with_bias else by_deviation(x)


class _HistogramAttention(nn.Module):
    """Attention among the channels of a head and bins of pixels, which are sorted by value in each channel.

    In one attention a bin holds neighbours of the order, in the other pixels spread evenly over it; the results are
    multiplied. Before, half of the channels are sorted in columns and then in rows, so that convolutions see similar
    pixels; what comes out goes back to where they were.
    """

    def __init__(self, dim: int, heads: int, bias: bool) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads are {heads}; they divide {dim} channels")
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, dim * 5, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(dim * 5, dim * 5, 3, padding=1, groups=dim * 5, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        first = x[..., :half].permute(0, 3, 1, 2).contiguous()
        places = _by_columns_and_rows(first)
        first = first.flatten(2).gather(-1, places).view_as(first)
        qkv = pointwise(self.qkv, torch.cat((first.permute(0, 2, 3, 1), x[..., half:]), -1))
        qkv = convolve(self.qkv_dwconv, qkv).flatten(0, 2).t().contiguous()  # fast with two dimensions only
        qkv = qkv.view(5, -1, len(x), places.shape[-1]).permute(2, 0, 1, 3)
        y: Tensor = self.project_out.weight.flatten(1) @ self._attend(qkv)
        y = y if self.project_out.bias is None else y + self.project_out.bias[:, None]
        y = torch.cat((back(y[:, :half], places), y[:, half:]), 1)
        return y.transpose(1, 2).reshape(x.shape)

    def _attend(self, qkv: Tensor) -> Tensor:
        """``[B,C,N]`` from two queries, two keys, and values: ``[B,5,C,N]``."""
        order = ascending(qkv[:, 4])
        count = qkv.shape[-1]
        qkv = qkv.gather(-1, order[:, None].expand_as(qkv))
        if count % self.heads:
            qkv = F.pad(qkv, (0, -count % self.heads))
        q1, k1, q2, k2, v = qkv.unbind(1)
        y = self._in_bins(q1, k1, v, False) * self._in_bins(q2, k2, v, True)
        return back(y[..., :count], order)

    def _in_bins(self, q: Tensor, k: Tensor, v: Tensor, apart: bool) -> Tensor:
        """Attention of sorted pixels ``[B,C,N]`` in as many bins as heads, of neighbours or of pixels ``apart``."""
        sizes = (-1, self.heads) if apart else (self.heads, -1)

        def bins(maps: Tensor) -> Tensor:
            maps = torch.unflatten(maps, -1, sizes)
            return (maps.mT if apart else maps).reshape(len(maps), self.heads, -1, maps.shape[-2 if apart else -1])

        scores = cosines(bins(q), bins(k)) * self.temperature
        weights = F.pad(scores, (0, 1)).softmax(-1)[..., :-1]  # one more score of 0: it may attend to nothing
        y = (weights.to(v.dtype) @ bins(v)).reshape(*v.shape[:2], self.heads, -1)
        return (y.mT if apart else y).flatten(-2)


def _by_columns_and_rows(maps: Tensor) -> Tensor:
    """Where in ``[B,C,H,W]`` the values are that stand there after columns and then rows are sorted: ``[B,C,H*W]``."""
    rows = ascending(maps.mT).mT
    columns = ascending(maps.gather(2, rows))
    return (rows.gather(3, columns) * maps.shape[3] + columns).flatten(2)


def back(values: Tensor, places: Tensor) -> Tensor:
    """Values ``[...,N]`` put where ``gather`` took them from."""
    return torch.zeros_like(values).scatter(-1, places, values)


def ascending(values: Tensor) -> Tensor:
    """The places of values ``[...,N]`` in ascending order, int64; of equal ones those that stand first come first.

    The same on every device. On a CPU float32 and their places are sorted as one integer, which NumPy does several
    times as fast as torch sorts two.
    """
    if values.device.type != "cpu" or values.dtype == torch.float64:
        return values.sort(dim=-1, stable=True).indices
    bits = (values.detach().float() + 0.0).contiguous().view(torch.int32)  # + 0.0: minus zero equals zero
    keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
    keys.bitwise_left_shift_(32).bitwise_or_(torch.arange(values.shape[-1]))
    rows = np.array_split(keys.view(-1, values.shape[-1]).numpy(), torch.get_num_threads())
    with ThreadPoolExecutor(len(rows)) as pool:
        list(pool.map(np.ndarray.sort, rows))
    return keys.bitwise_and_(0xFFFFFFFF)


class _DualScales(nn.Module):
    """A gated MLP whose hidden channels are spread over pictures of twice the size for their convolutions."""

    def __init__(self, dim: int, hidden: int, bias: bool) -> None:
        super().__init__()
        if hidden % 4:
            raise ValueError(f"{dim} channels times ffn_expansion_factor are {hidden}; they are a multiple of 4")
        each = hidden // 4
        self.project_in = nn.Conv2d(dim, hidden * 2, 1, bias=bias)
        self.dwconv_5 = Depthwise(each, 5, bias=bias)
        self.dwconv_dilated2_1 = Depthwise(each, 3, dilation=2, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self._spread(x, 0), self._spread(x, 1)
        y = F.mish(convolve(self.dwconv_dilated2_1, second)) * convolve(self.dwconv_5, first)
        b, h, w, _ = x.shape
        y = y.view(b, h, 2, w, 2, -1).transpose(2, 3).flatten(3)  # 2x2 px a place
        weight = self.project_out.weight.reshape(x.shape[-1], -1, 4).transpose(1, 2).flatten(1)
        return F.linear(y, weight, self.project_out.bias)

    def _spread(self, x: Tensor, half: int) -> Tensor:
        """Half of the hidden channels, four of them as 2x2 px: ``[B,H,W,C]`` to ``[B,2*H,2*W,hidden/4]``."""
        b, h, w, c = x.shape
        weight = self.project_in.weight.chunk(2)[half].reshape(-1, 4, c).transpose(0, 1).flatten(0, 1)
        bias = self.project_in.bias
        bias = None if bias is None else bias.chunk(2)[half].view(-1, 4).t().flatten()
        y = F.linear(x, weight, bias).view(b, h, w, 2, 2, -1)
        return y.transpose(2, 3).reshape(b, 2 * h, 2 * w, -1)


class _Smaller(nn.Module):
    """The picture ``[B,H,W,3]`` in half the size."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(3, 3, 1, bias=bias), nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=bias)
        )

    def forward(self, x: Tensor) -> Tensor:
        return convolve(self.proj, x)
