"""What keys and shapes of weights tell."""

from __future__ import annotations

import pytest
import torch

from restorekit.architectures._weights import count, ratio


def test_keys_are_counted_up_to_the_first_gap() -> None:
    state = {f"layers.{i}.weight": torch.empty(0) for i in (0, 1, 3)}
    assert count(state, "layers.{}.weight") == 2
    assert count(state, "blocks.{}.weight") == 0


@pytest.mark.parametrize("whole", [7, 12, 55, 60, 180])
def test_a_ratio_gives_its_part_back(whole: int) -> None:
    for part in range(1, 4 * whole):
        assert int(whole * ratio(part, whole)) == part
    assert ratio(whole // 2 * 2, whole // 2) == 2
