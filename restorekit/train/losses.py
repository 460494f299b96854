"""Losses."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F


class Combined(nn.Module):
    """A weighted sum."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)

    def forward(self, result: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        parts = {"l1": F.l1_loss(result, target)}
        total = sum((weight * parts[name] for name, weight in self.weights.items()), result.new_zeros(()))
        return total, parts


def combined(weights: Mapping[str, float]) -> Combined:
    """The sum of losses by name."""
    return Combined(weights)
