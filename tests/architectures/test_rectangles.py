"""Rectangle window attention against attention between all pixels with everything outside a window masked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._rectangles import DynamicPositionBias, RectangleAttention, window_offsets
from restorekit.architectures._windows import relative_position_index

DIM, HEADS, SIZE = 64, 4, (2, 4)
PLACES = [(window_offsets(*size), relative_position_index(*size)) for size in (SIZE, SIZE[::-1])]


def attention(shifted: bool, masked: bool) -> RectangleAttention:
    torch.manual_seed(0)
    module = RectangleAttention(DIM, HEADS, SIZE, shifted, masked, qkv_bias=True, qk_scale=None).eval()
    for name, weight in module.named_parameters():
        if ".pos." in name:
            nn.init.normal_(weight)
    return module


def reference(module: RectangleAttention, x: Tensor, shifted: bool, masked: bool) -> Tensor:
    height, width = x.shape[1:3]
    longer = max(SIZE)
    qkv = F.pad(module.qkv(x), (0, 0, 0, -width % longer, 0, -height % longer))
    tall, wide = qkv.shape[1:3]
    halves = []
    for number, (size, branch, place) in enumerate(zip((SIZE, SIZE[::-1]), module.attns, PLACES, strict=True)):
        q, k, v = (part.chunk(2, -1)[number].flatten(1, 2) for part in qkv.chunk(3, -1))
        rows, columns = torch.meshgrid(torch.arange(tall), torch.arange(wide), indexing="ij")
        pixels = torch.stack((rows.flatten(), columns.flatten()))
        shift = torch.tensor([[size[0] // 2], [size[1] // 2]]) * shifted
        rolled = (pixels - shift) % torch.tensor([[tall], [wide]])
        window, inside = rolled // torch.tensor(size)[:, None], rolled % torch.tensor(size)[:, None]
        outside = (window[:, :, None] != window[:, None, :]).any(0)
        around = ((pixels < shift)[:, :, None] != (pixels < shift)[:, None, :]).any(0)
        position = inside[0] * size[1] + inside[1]
        bias, found = branch(*place), []
        for q_h, k_h, v_h, bias_h in zip(*(t.chunk(HEADS // 2, -1) for t in (q, k, v)), bias[0], strict=True):
            scores = q_h @ k_h.transpose(1, 2) / q_h.shape[-1] ** 0.5 + bias_h[position][:, position]
            scores = (scores - 100.0 * (around & masked)).masked_fill(outside, -torch.inf)
            found.append(scores.softmax(-1) @ v_h)
        halves.append(torch.cat(found, -1).unflatten(1, (tall, wide))[:, :height, :width])
    values = module.qkv(x).chunk(3, -1)[2].permute(0, 3, 1, 2)
    local = module.get_v(values).permute(0, 2, 3, 1)
    result: Tensor = module.proj(torch.cat(halves, -1) + local)
    return result


@pytest.mark.parametrize(("height", "width"), [(8, 12), (4, 4), (6, 9)], ids=["many", "one", "padded"])
@pytest.mark.parametrize(("shifted", "masked"), [(False, True), (True, False), (True, True)])
def test_windows_are_attention_between_all_their_pixels(shifted: bool, masked: bool, height: int, width: int) -> None:
    module = attention(shifted, masked)
    x = torch.randn(2, height, width, DIM)
    expected = reference(module, x, shifted, masked)
    torch.testing.assert_close(module.attend(x, PLACES), expected, atol=1e-5, rtol=1e-5)


def test_a_mask_matters() -> None:
    x = torch.randn(1, 8, 8, DIM)
    assert not torch.allclose(attention(True, True).attend(x, PLACES), attention(True, False).attend(x, PLACES))


def test_a_position_bias_is_a_function_of_the_offset() -> None:
    torch.manual_seed(0)
    module = DynamicPositionBias(16, 3)
    bias = module(window_offsets(2, 4), relative_position_index(2, 4))
    assert bias.shape == (1, 3, 8, 8)
    for a in range(8):
        for b in range(8):
            offset = torch.tensor([[a // 4 - b // 4, a % 4 - b % 4]]).float()
            expected = module.pos3(module.pos2(module.pos1(module.pos_proj(offset))))[0]
            torch.testing.assert_close(bias[0, :, a, b], expected)


def test_heads_are_split_between_the_two_kinds_of_windows() -> None:
    with pytest.raises(ValueError, match="num_heads is 3"):
        RectangleAttention(48, 3, SIZE, False, False, qkv_bias=True, qk_scale=None)
