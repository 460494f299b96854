"""Pieces that the window-attention networks share. Maps are ``[B,H,W,C]``, tokens of windows ``[B*windows,h*w,C]``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._bands import Bands

SCORES = 2**19
"""Scores in bfloat16 that stay in a processor's cache."""

PIXELS = 8192
"""Pixels of feature maps that do."""

MASKED = -100.0
"""Added to the score of two pixels that are neighbours in a rolled map but not in the picture."""


def split_windows(x: Tensor, height: int, width: int) -> Tensor:
    """``[B,H,W,C]`` cut into windows: ``[B*windows, height*width, C]``, row of windows after row of windows."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // height, height, w // width, width, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height * width, c)


def join_windows(tokens: Tensor, height: int, width: int, h: int, w: int) -> Tensor:
    """The inverse of ``split_windows`` for maps of h x w px."""
    c = tokens.shape[-1]
    x = tokens.view(-1, h // height, w // width, height, width, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, c)


def relative_position_index(height: int, width: int) -> Tensor:
    """``[N,N]`` int64: the row of a ``[(2h-1)*(2w-1), heads]`` bias table for every pair of pixels of a window."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack((rows.flatten(), columns.flatten()))
    offset = pixels[:, :, None] - pixels[:, None, :]
    return (offset[0] + height - 1) * (2 * width - 1) + offset[1] + width - 1


@lru_cache(maxsize=64)
def _window_index(size: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False), device:
        return relative_position_index(size, size)


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None = None) -> Tensor:
    """Softmax attention ``[B,heads,N,d]``; ``bias`` is added to the scores and may be broadcast over B.

    One call of the library's fused kernel, which never holds the scores of all windows at once. In bfloat16 on a
    processor that kernel is no faster than in float32; there, the scores of few windows at a time are made instead.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if bias is not None and bias.dtype != q.dtype:
        bias = bias.to(q.dtype)
    if q.device.type != "cpu":
        return _padded_heads(q, k, v, bias, scale)
    in_parts = q.dtype == torch.bfloat16 and not torch.is_grad_enabled()
    if in_parts and bias is not None and bias.dim() == 4 and bias.shape[0] == 1:
        return _attention_in_parts(q, k, v, bias[0], scale)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def _padded_heads(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Attention of heads that are filled up with zeros: fused kernels of GPUs take multiples of 8 channels."""
    depth = v.shape[-1]
    q, k, v = (F.pad(x, (0, -x.shape[-1] % 8)) if x.shape[-1] % 8 else x for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)[..., :depth]


def _attention_in_parts(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    windows, heads, n, _ = q.shape
    result = q.new_empty((windows, n, heads, v.shape[-1])).transpose(1, 2)
    at_once = max(1, SCORES // bias.numel())
    step = max(1, SCORES // bias[0].numel())
    for part in (slice(head, head + step) for head in range(0, heads, step)):
        added = bias[part].repeat(at_once, 1, 1)
        for first in range(0, windows, at_once):
            here = slice(first, first + at_once), part
            queries, keys, values = (x[here].flatten(0, 1) for x in (q, k, v))
            scores = torch.baddbmm(added[: len(queries)], queries, keys.transpose(1, 2), alpha=scale)
            result[here] = torch.bmm(scores.softmax(-1), values).view_as(result[here])
    return result


@lru_cache(maxsize=64)
def _shift_mask(size: int, shift: int, bottom: bool, right: bool, device: torch.device) -> Tensor:
    """``[N,N]`` of a window whose last rows (``bottom``) or columns (``right``) come from the opposite side."""
    with torch.inference_mode(False):
        wrapped = torch.arange(size, device=device) >= size - shift
        side = ((wrapped[:, None] & bottom) * 2 + (wrapped & right) * 1).flatten()
        return torch.zeros((size**2, size**2), device=device).masked_fill_(side[:, None] != side, MASKED)


def shift_masks(height: int, width: int, size: int, shift: int) -> Tensor:
    """``[windows,N,N]``: 0, or ``MASKED`` for pixels that only rolling brought together, of all windows of a map."""
    device = torch.empty(0).device
    rows, columns = height // size, width // size
    return torch.stack(
        [
            _shift_mask(size, shift, row == rows - 1, column == columns - 1, device)
            for row in range(rows)
            for column in range(columns)
        ]
    )


def roll(x: Tensor, shift: int, into: Tensor | None = None) -> Tensor:
    """``[B,H,W,C]`` moved up and left by ``shift`` px, around the borders.

    Without gradients it is written at once, ``into`` another map if there is one; torch.roll makes two copies.
    """
    if torch.is_grad_enabled():
        return torch.roll(x, (-shift, -shift), (1, 2))
    into = torch.empty_like(x) if into is None else into
    parts = (slice(None, -shift), slice(shift, None)), (slice(-shift, None), slice(None, shift))
    for rows, from_rows in parts:
        for columns, from_columns in parts:
            into[:, rows, columns] = x[:, from_rows, from_columns]
    return into


def over_windows(
    operator: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, size: int, shift: int = 0, last: bool = True
) -> Tensor:
    """``operator(tokens, mask)`` on the square windows of ``[B,H,W,C]``, put together as a map again.

    The map was rolled up and left by ``shift`` px. Its windows then come in four kinds, each with one mask ``[N,N]``:
    those inside, the last column, the last row (if ``last`` says that the rows reach the end of the map), the corner.
    """
    if not shift:
        return join_windows(operator(split_windows(x, size, size), None), size, size, *x.shape[1:3])
    height, width = x.shape[1:3]
    below, beside = height - size if last else height, width - size
    result = None
    for rows, bottom in ((slice(0, below), False), (slice(below, height), True)):
        for columns, right in ((slice(0, beside), False), (slice(beside, width), True)):
            piece = x[:, rows, columns]
            if not piece.numel():
                continue
            mask = _shift_mask(size, shift, bottom, right, x.device) if bottom or right else None
            tokens = operator(split_windows(piece, size, size), mask)
            if result is None:
                result = tokens.new_empty((*x.shape[:3], tokens.shape[-1]))
            result[:, rows, columns] = join_windows(tokens, size, size, *piece.shape[1:3])
    assert result is not None
    return result


def in_cache(bands: Bands, maps: Tensor) -> Bands:
    """The same bands or smaller ones, so that what an operator makes of ``[B,H,W,C]`` stays in a processor's cache.

    For operators with little or no halo, where no gradients are wanted: results of bands are written into one map.
    """
    if torch.is_grad_enabled() or maps.device.type != "cpu" or bands.device is not None:
        return bands
    rows = max(1, PIXELS // (maps.shape[0] * maps.shape[2]))
    return bands if bands.rows is not None and bands.rows <= rows else replace(bands, rows=rows)


def queries(qkv: nn.Linear, x: Tensor) -> Tensor:
    """The first third of what a linear layer makes.

    It is made apart from the rest because that is up to a third faster for widths such as 3 * 180 in float32.
    """
    count = qkv.out_features // 3
    return F.linear(x, qkv.weight[:count], None if qkv.bias is None else qkv.bias[:count])


def keys_and_values(qkv: nn.Linear, x: Tensor) -> Tensor:
    """The other two thirds."""
    count = qkv.out_features // 3
    return F.linear(x, qkv.weight[count:], None if qkv.bias is None else qkv.bias[count:])


Mark = tuple[int | None, int, torch.dtype, torch.device]
"""What tells without a look at its values that a tensor was written to: version, address, type and device."""


class PositionBias(nn.Module):
    """Base of attentions that add a learnt bias to every score, looked up by the offset between two pixels.

    The gathered bias is kept while no gradients are wanted and the table has the same values. Not to wait for other
    devices than the CPU, the table there counts as the same until it is moved or written to as autograd sees it.
    """

    relative_position_bias_table: nn.Parameter
    _kept: tuple[Tensor | Mark, Tensor] | None = None

    def position_bias(self, index: Tensor) -> Tensor:
        """``[1,heads,N,M]`` from an index ``[N,M]``, whose negative numbers count from the end of the table."""
        table = self.relative_position_bias_table
        if self.training or torch.is_grad_enabled():
            self._kept = None
            return self._gathered(index)
        if self._kept is None or not _unchanged(self._kept[0], table):
            self._kept = (table.clone() if table.device.type == "cpu" else _mark(table), self._gathered(index))
        return self._kept[1]

    def _gathered(self, index: Tensor) -> Tensor:
        return self.relative_position_bias_table[index].permute(2, 0, 1)[None].contiguous()


def _mark(table: Tensor) -> Mark:
    return None if table.is_inference() else table._version, table.data_ptr(), table.dtype, table.device


def _unchanged(before: Tensor | Mark, table: Tensor) -> bool:
    if isinstance(before, Tensor):
        return before.dtype == table.dtype and before.device == table.device and torch.equal(before, table)
    return before == _mark(table)


class WindowAttention(PositionBias):
    """Multi-head attention among the pixels of a window (Liu et al., Swin Transformer, ICCV 2021)."""

    def __init__(self, dim: int, size: int, heads: int, qkv_bias: bool = True, qk_scale: float | None = None) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} channels do not go into {heads} heads")
        self.size = size
        self.heads = heads
        self.scale = qk_scale
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * size - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """``[windows,N,C]``, with a mask ``[N,N]`` that is added to the scores of every window."""
        bias = self.position_bias(_window_index(self.size, tokens.device))
        if mask is not None:
            bias = bias + mask
        q, kv = queries(self.qkv, tokens), keys_and_values(self.qkv, tokens)
        q = q.view(*tokens.shape[:2], self.heads, -1).transpose(1, 2)
        k, v = kv.view(*tokens.shape[:2], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        result: Tensor = self.proj(attention(q, k, v, bias, self.scale).transpose(1, 2).flatten(2))
        return result


class Mlp(nn.Module):
    """Two linear layers with GELU between them, pixel by pixel."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return result


def init_transformer(module: nn.Module) -> None:
    """Fresh weights as Swin Transformers have them, for ``Module.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
