"""Photographs of known light under other lights, and as other cameras would see them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from restorekit.data.degradation import uniform, whole

FAR_BEYOND = 1000.0
"""What is clipped in a photograph counts as so much light, so that it is clipped in exposures of it too."""

CLIPPED = 0.99
"""From this level on a photograph counts as clipped: it may have been reduced in size since."""

LEAST_CHANNEL = 0.12
"""A camera to which a channel of the light is a smaller share of its brightest one is drawn anew."""


@dataclass(frozen=True, eq=False)
class Photograph:
    """Linear camera RGB ``[3,H,W]``, 1.0 = clip level, and the camera RGB ``[3]`` of its light, of any scale."""

    pixels: Tensor
    light: Tensor

    def beyond_clipping(self) -> Photograph:
        """What is clipped in a channel taken as a lamp of the same light, brighter than any exposure holds."""
        clipped = (self.pixels >= CLIPPED).any(0)
        return replace(self, pixels=torch.where(clipped, FAR_BEYOND * self.light[:, None, None], self.pixels))

    def relit(self, light: Tensor) -> Photograph:
        """Under another light ``[3]``: each channel multiplied, as in von Kries' model of adaptation.

        It keeps green; channels of a real scene do not change independently, so this is a simplification.
        """
        gains = light / self.light
        return Photograph(self.pixels * (gains / gains[1])[:, None, None], light)

    def seen_by(self, camera: Tensor) -> Photograph:
        """As a camera sees it whose channels are mixed of these by a matrix ``[3,3]``; there is no negative light."""
        mixed = torch.einsum("ij,jhw->ihw", camera, self.pixels).clamp_(min=0.0)
        return Photograph(mixed, camera @ self.light)

    def beside(self, other: Photograph, gain: float) -> Photograph:
        """Another picture, under the light of this one, at its right side: as bright on average, times a gain.

        Heights are cut to that of the lower one; light beyond 1.0 counts as 1.0 in the averages.
        """
        lit = other.relit(self.light).pixels
        height = min(self.pixels.shape[1], lit.shape[1])
        one, two = (pixels[:, :height] / pixels.clamp(max=1.0).mean() for pixels in (self.pixels, lit))
        return replace(self, pixels=torch.cat([one, gain * two], 2))

    def part(self, generator: torch.Generator, least: float, step: int) -> Photograph:
        """A random part of at least this share of height and width, every ``step``-th pixel of it."""
        height, width = self.pixels.shape[1:]
        share = uniform(generator, (least, 1.0))
        rows, columns = round(share * height), round(share * width)
        top, left = whole(generator, 0, height - rows), whole(generator, 0, width - columns)
        return replace(self, pixels=self.pixels[:, top : top + rows : step, left : left + columns : step])


def random_camera(generator: torch.Generator, spread: float) -> Tensor:
    """A matrix ``[3,3]``: the identity with Gaussian noise of this standard deviation on every entry."""
    return torch.eye(3) + spread * torch.randn(3, 3, generator=generator)


def sees(camera: Tensor, light: Tensor) -> bool:
    """Whether all channels of a camera see enough of a light."""
    seen = camera @ light
    return bool(seen.amin() > LEAST_CHANNEL * seen.amax())


def log_chroma(lights: Tensor) -> Tensor:
    """Lights ``[N,3]`` as log(r/g), log(b/g): ``[N,2]``."""
    return (lights[:, [0, 2]] / lights[:, 1:2]).log()


def matched(lights: Tensor, like: Tensor) -> Tensor:
    """Lights ``[N,3]`` of one camera as another may see them, of which some lights ``[M,3]`` are known. Green = 1.

    Means and standard deviations in log chroma become those of the known lights. Without the sensitivities of both
    cameras nothing better is to be had; that the lights are of the same kinds is assumed.
    """
    given, wanted = log_chroma(lights), log_chroma(like)
    moved = (given - given.mean(0)) / given.std(0) * wanted.std(0) + wanted.mean(0)
    return torch.stack([moved[:, 0].exp(), torch.ones(len(moved)), moved[:, 1].exp()], 1)


def drawn_light(lights: Tensor, generator: torch.Generator, jitter: float) -> Tensor:
    """One of the lights ``[N,3]``, with Gaussian noise of this standard deviation on log(r/g) and log(b/g)."""
    light = lights[whole(generator, 0, len(lights) - 1)]
    noise = jitter * torch.randn(2, generator=generator)
    return light * torch.stack([noise[0].exp(), torch.ones(()), noise[1].exp()])
