"""How bright a PQ picture is: MaxCLL and MaxFALL (CTA-861.3, annex P), from the pixels that are stored.

HLG has none: its light depends on the display that shows it (ITU-R BT.2100).
"""

from __future__ import annotations

import numpy as np
import torch

from restorekit.color.transfer import PQ_WHITE, decode
from restorekit.io.samples import Samples, row_blocks
from restorekit.state import ImageState

_PQ_PEAK = 10_000.0


def light_level(samples: Samples, state: ImageState) -> tuple[float, float] | None:
    """The brightest pixel and the average of all, cd/m2; ``None`` for other than PQ.

    ``samples`` are uint16 of full range, ``[H,W]`` or ``[H,W,C]``, an alpha channel behind the colours. A pixel counts
    with the largest of its channels.
    """
    if state.transfer != "pq":
        return None
    colors = 3 if state.layout == "rgb" else 1
    counts = np.zeros(1 << 16, np.int64)
    for rows in row_blocks(samples):
        block = samples[rows] if samples.ndim == 3 else samples[rows][..., None]
        counts += np.bincount(block[..., :colors].max(2).reshape(-1), minlength=1 << 16)
    codes = torch.linspace(0, 1, 1 << 16, dtype=torch.float64)
    light = decode(codes, "pq").mul_(PQ_WHITE * _PQ_PEAK).numpy()
    return float(light[counts.nonzero()[0][-1]]), float(counts @ light / counts.sum())
