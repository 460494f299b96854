"""White noise."""

from __future__ import annotations

from typing import Annotated

import pydantic
import torch
from torch import Tensor

from restorekit.data.degradation import Degradation, chance, quantized, uniform
from restorekit.data.ranges import ORDERED
from restorekit.stage import param, parameters

Sigma = Annotated[float, pydantic.Field(ge=0)]


@parameters
class GaussianNoise(Degradation):
    """Adds white Gaussian noise of one standard deviation to encoded RGB."""

    source = "Zhang, Zuo, Chen, Meng & Zhang, Beyond a Gaussian Denoiser (DnCNN), IEEE TIP 26 (2017)"
    sigma: Annotated[tuple[Sigma, Sigma], param("Standard deviation, drawn between two", unit="of 255"), ORDERED] = (
        0.0,
        50.0,
    )
    clipped: Annotated[float, param("Share of pictures clipped and rounded to 8 bits, as files are", ge=0, le=1)] = 0.0

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        sigma = uniform(generator, self.sigma) / 255.0
        clipped = chance(generator, self.clipped)
        noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
        return quantized(noisy) if clipped else noisy
