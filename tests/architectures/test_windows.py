"""The pieces of window attention against the plain way to write them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from restorekit.architectures._bands import WHOLE, Bands
from restorekit.architectures._windows import (
    MASKED,
    PIXELS,
    PositionBias,
    WindowAttention,
    _padded_heads,
    attention,
    in_cache,
    join_windows,
    over_windows,
    relative_position_index,
    roll,
    shift_masks,
    split_windows,
)


def plain(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    return torch.softmax(q @ k.transpose(-2, -1) * scale + bias, -1) @ v


def queries(windows: int, heads: int, n: int, m: int, d: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    q, k, v = torch.randn(windows, heads, n, d), torch.randn(windows, heads, m, d), torch.randn(windows, heads, m, d)
    return q, k, v, torch.randn(1, heads, n, m)


def test_windows_are_cut_in_reading_order_and_put_together_again() -> None:
    x = torch.arange(2 * 4 * 6 * 3.0).view(2, 4, 6, 3)
    tokens = split_windows(x, 2, 3)
    assert torch.equal(tokens[1], x[0, :2, 3:].reshape(6, 3))
    assert torch.equal(tokens[4], x[1, :2, :3].reshape(6, 3))
    assert torch.equal(join_windows(tokens, 2, 3, 4, 6), x)


def test_position_index_depends_on_the_offset_alone() -> None:
    index = relative_position_index(2, 3).view(2, 3, 2, 3)
    assert index.amin() == 0 and index.amax() == 3 * 5 - 1
    assert index[0, 0, 0, 1] == index[1, 1, 1, 2]
    assert index.unique().numel() == 3 * 5


@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_is_softmax_of_scaled_scores(scale: float | None) -> None:
    q, k, v, bias = queries(3, 2, 16, 36, 5)
    expected = plain(q, k, v, bias, 5**-0.5 if scale is None else scale)
    torch.testing.assert_close(attention(q, k, v, bias, scale), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("windows", "heads", "n", "m"), [(5, 2, 16, 36), (3, 6, 256, 576), (2, 1, 1024, 1024)])
def test_attention_in_parts_is_attention(windows: int, heads: int, n: int, m: int) -> None:
    q, k, v, bias = queries(windows, heads, n, m, 8)
    with torch.inference_mode():
        made = attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), bias)
    assert made.dtype == torch.bfloat16 and made.shape == q.shape
    torch.testing.assert_close(made.float(), plain(q, k, v, bias, 8**-0.5), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("depth", [5, 8, 30])
@pytest.mark.parametrize("width", [5, 16])
def test_heads_that_are_filled_up_give_the_same(depth: int, width: int) -> None:
    q, k, _, bias = queries(3, 2, 16, 36, depth)
    v = torch.randn(3, 2, 36, width)
    for scale in (0.3, depth**-0.5):
        filled = _padded_heads(q, k, v, bias, scale)
        torch.testing.assert_close(filled, attention(q, k, v, bias, scale), atol=1e-5, rtol=0)
    unbiased = _padded_heads(q, k, v, None, depth**-0.5)
    torch.testing.assert_close(unbiased, attention(q, k, v, None), atol=1e-5, rtol=0)


def test_only_off_the_cpu_heads_have_multiples_of_8_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def watched(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        seen.append((q.shape[-1], k.shape[-1], v.shape[-1]))
        assert options["scale"] == pytest.approx(30**-0.5)
        return fused(q, k, v, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    q, k, v, bias = queries(3, 2, 16, 36, 30)
    made = [attention(q.to(on), k.to(on), v.to(on), bias.to(on)) for on in ("cpu", "meta")]
    assert seen == [(30, 30, 30), (32, 32, 32)]
    assert [one.shape for one in made] == [q.shape, q.shape]


def test_masks_keep_opposite_sides_of_the_picture_apart() -> None:
    rolled = roll(torch.arange(64.0).view(1, 8, 8, 1), 2)
    place = split_windows(rolled, 4, 4)[..., 0]
    row, column = place // 8, place % 8
    far = ((row[:, :, None] - row[:, None]).abs() > 3) | ((column[:, :, None] - column[:, None]).abs() > 3)
    assert torch.equal(shift_masks(8, 8, 4, 2), far * MASKED)


@pytest.mark.parametrize("last", [True, False])
def test_every_window_of_a_rolled_map_gets_its_own_mask(last: bool) -> None:
    x = torch.arange(2 * 8 * 12.0).view(2, 8, 12, 1)
    seen: list[tuple[Tensor, Tensor]] = []

    def operator(tokens: Tensor, mask: Tensor | None) -> Tensor:
        seen.extend((window, torch.zeros(16, 16) if mask is None else mask) for window in tokens[..., 0])
        return tokens * 2

    assert torch.equal(over_windows(operator, x, 4, 2, last), x * 2)
    masks = shift_masks(8 if last else 12, 12, 4, 2)[:6].repeat(2, 1, 1)
    for window, expected in zip(split_windows(x, 4, 4)[..., 0], masks, strict=True):
        assert any(torch.equal(window, tokens) and torch.equal(expected, mask) for tokens, mask in seen)


def test_rolling_is_rolling() -> None:
    x = torch.rand(2, 8, 12, 3)
    for shift in (3, -3):
        expected = torch.roll(x, (-shift, -shift), (1, 2))
        assert torch.equal(roll(x, shift), expected)
        with torch.no_grad():
            assert torch.equal(roll(x, shift), expected)
            into = torch.empty_like(x)
            assert roll(x, shift, into) is into and torch.equal(into, expected)


def test_bands_are_cut_down_only_where_no_gradient_is_wanted() -> None:
    maps = torch.empty(1, 1, 64, 1)
    assert in_cache(WHOLE, maps) is WHOLE
    with torch.no_grad():
        assert in_cache(WHOLE, maps).rows == PIXELS // 64
        assert in_cache(Bands(rows=8), maps).rows == 8


def test_bias_follows_its_table() -> None:
    """Also where a moving average writes behind autograd's back."""
    torch.manual_seed(0)
    attend = WindowAttention(8, 4, 2).eval()
    with torch.inference_mode():
        tokens = torch.randn(3, 16, 8)
        before = attend(tokens, None)
        assert torch.equal(attend(tokens, None), before)
        attend.relative_position_bias_table.data.normal_()
        after = attend(tokens, None)
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(attend(tokens.clone(), None), after)
    with torch.inference_mode():
        assert attend.bfloat16()(tokens.bfloat16(), None).dtype == torch.bfloat16


class TableBias(PositionBias):
    def __init__(self) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.empty(49, 2))


def test_off_the_cpu_a_bias_is_kept_until_its_table_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a look at values, for which a GPU would have to finish first: a device without values stands for it."""
    monkeypatch.setattr(torch, "equal", None)
    net, index = TableBias().to("meta").eval(), relative_position_index(4, 4)
    with torch.inference_mode():
        first = net.position_bias(index)
        assert first.shape == (1, 2, 16, 16)
        assert net.position_bias(index) is first
    with torch.no_grad():
        assert net.position_bias(index) is first
        net.relative_position_bias_table.add_(1)
        second = net.position_bias(index)
        assert second is not first and net.position_bias(index) is second
        net.bfloat16()
        assert net.position_bias(index).dtype == torch.bfloat16
    third = net.position_bias(index)
    assert third.requires_grad
    with torch.no_grad():
        assert net.position_bias(index) is not third


def test_a_bias_moves_with_its_table() -> None:
    net, index = TableBias().eval(), relative_position_index(4, 4)
    with torch.no_grad():
        net.relative_position_bias_table.normal_()
        assert net.position_bias(index).device.type == "cpu"
        assert net.to("meta").position_bias(index).device.type == "meta"
        assert net.to_empty(device="cpu").position_bias(index).device.type == "cpu"
