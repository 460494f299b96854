"""Pictures made as bright as their reference before they are compared."""

from __future__ import annotations

from torch import Tensor

from restorekit.color.ycbcr import luma


def mean_corrected(picture: Tensor, reference: Tensor) -> Tensor:
    """A picture times the one factor that gives its gray the mean of the reference's: float64 ``[3,H,W]`` in 0..255.

    Both are uint8 ``[3,H,W]``. What goes beyond white is clipped, so the mean may stay a little below; a black picture
    stays black. Publications of low light compare after this step, called GT mean, beside comparing without it: how
    bright a dark scene was can only be guessed (Zhang, Zhang & Guo, Kindling the Darkness, ACM MM 2019; its code).
    """
    wanted, has = (luma(each.double(), limited=False).mean() for each in (reference, picture))
    return (picture.double() * (wanted / has if has > 0 else 1.0)).clamp_(max=255.0)
