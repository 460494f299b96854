"""Run a network's operators over whole feature maps, at once or band of rows by band of rows.

A window attention, a convolution or an MLP looks at few rows around those it computes. With ``Bands(rows=...)``
the maps lie whole in main memory and each operator runs on one band after the other, so that its intermediates
(queries, scores, hidden channels) never exist at full size; the result is that of the whole image, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Band:
    """The rows of a map that an operator is given: ``top..bottom`` of ``height``, its halo included."""

    top: int
    bottom: int
    height: int

    @property
    def is_last(self) -> bool:
        """Whether it reaches the last row of the map."""
        return self.bottom == self.height


Operator = Callable[..., Tensor]
"""``(band, *pieces)``: the rows of its result that belong to the rows of the pieces."""


@dataclass(frozen=True)
class Bands:
    """How operators run. ``rows`` is the height of a band, None for the whole map at once.

    ``device`` is where the operators run, None where the maps lie. ``checkpoint`` is called before every band with the
    share of the operator that is done, and may raise to stop.
    """

    rows: int | None = None
    device: torch.device | None = None
    checkpoint: Callable[[float], None] | None = None

    def run(
        self,
        operator: Operator,
        *maps: Tensor,
        dim: int,
        halo: int = 0,
        grid: int = 1,
        reuse: Tensor | None = None,
    ) -> Tensor:
        """The result of an operator on whole maps.

        ``dim`` is the dimension of the rows (2 of ``[B,C,H,W]``, 1 of ``[B,H,W,C]``), the same for maps and result;
        all have the same number of rows and lie on the same device. Bands begin at multiples of ``grid`` and get
        ``halo`` more rows (rounded up to the grid) on either side, whose results are thrown away. The result may be
        written into ``reuse``, for instance one of the maps where ``halo`` is 0.
        """
        height = maps[0].shape[dim]
        if self.rows is None or self.rows >= height:
            if self.checkpoint is not None:
                self.checkpoint(0.0)
            return operator(Band(0, height, height), *self._moved(maps)).to(maps[0].device)
        result = reuse
        for top, bottom, band in self._plan(height, halo, grid):
            if self.checkpoint is not None:
                self.checkpoint(top / height)
            pieces = self._moved(plane.narrow(dim, band.top, band.bottom - band.top) for plane in maps)
            rows = operator(band, *pieces).narrow(dim, top - band.top, bottom - top)
            if result is None or (result is reuse and result.dtype != rows.dtype):
                shape = list(rows.shape)
                shape[dim] = height
                result = torch.empty(shape, dtype=rows.dtype, device=maps[0].device)
            result.narrow(dim, top, bottom - top).copy_(rows)
        assert result is not None
        return result

    def _moved(self, pieces: Iterable[Tensor]) -> list[Tensor]:
        return [piece if self.device is None else piece.to(self.device, non_blocking=True) for piece in pieces]

    def _plan(self, height: int, halo: int, grid: int) -> Iterator[tuple[int, int, Band]]:
        assert self.rows is not None
        step = max(grid, self.rows // grid * grid)
        margin = -(-halo // grid) * grid
        for top in range(0, height, step):
            bottom = min(top + step, height)
            yield top, bottom, Band(max(top - margin, 0), min(bottom + margin, height), height)


WHOLE = Bands()
