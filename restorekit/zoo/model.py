"""A model ready to use: a network, what it takes for pixels, and the tiler that runs it over images of any size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from restorekit.architectures._network import Network
from restorekit.color.ycbcr import from_ycbcr, luma, to_ycbcr
from restorekit.errors import InputError, ModelError
from restorekit.execution import Execution
from restorekit.inference import run_rows
from restorekit.planes import to_float
from restorekit.stages.carried import CARRIED, reduced, reduced_size
from restorekit.stages.resampling import enlarged_rows
from restorekit.tiling import Padding
from restorekit.zoo import load
from restorekit.zoo.card import ModelCard
from restorekit.zoo.files import files_of, is_file


@dataclass(frozen=True)
class Model:
    """A network with what its pixels mean. ``card`` is None for a file of weights that no card describes.

    Call it with ``[B,3,H,W]`` (or gray, ``[B,1,H,W]``) in 0..1 of the image state the card names, of any size; the
    result is float32, ``scale`` times the size, on the device the input lies on, and not clamped. Integers are taken
    as fractions of their maximum. ``execution`` says how it is run; without it on the device of the input.
    """

    name: str
    network: Network = field(repr=False)
    card: ModelCard | None = field(default=None, repr=False)
    local: int = 0
    """The side in px of the windows in which the network takes its statistics, 0 for those of whole tiles."""
    estimate: int = 0
    """The longer side in px at which the network sees larger pictures, 0 for their own."""

    @property
    def scale(self) -> int:
        return self.network.scale

    @property
    def pixels(self) -> str:
        """``rgb``, ``y``, ``y-full`` or ``ycbcr``."""
        if self.card is not None:
            return self.card.pixels
        return "y" if self.network.in_channels == 1 else "rgb"

    def __call__(self, x: Tensor, execution: Execution | None = None) -> Tensor:
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] not in (1, 3) or 0 in x.shape:
            what = f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise InputError(f"{self.name}: takes a tensor [B,3,H,W], or [B,1,H,W] for gray, got {what}")
        settings = execution or Execution(device=x.device)
        results = []
        for image in x:
            bands = [rows for _, rows in self.rows(image.cpu(), settings)]
            results.append(torch.cat(bands, 1))
        return torch.stack(results).to(x.device)

    def rows(self, image: Tensor, execution: Execution) -> Iterator[tuple[int, Tensor]]:
        """The result for one image ``[C,H,W]`` of 1 or 3 channels and any storage type, as rows from top to bottom.

        Yields ``(first row, float32 [C,rows,scale*W])``. Raises InputError for values that are not finite, ModelError
        for a network that enlarges and is to see reduced pictures, and what :func:`restorekit.inference.run_rows`
        raises.
        """
        if image.dtype.is_floating_point and not bool(image.sum(dtype=torch.float64).isfinite()):
            raise InputError(f"{self.name}: the picture holds NaN or infinity; replace them first (torch.nan_to_num)")
        full = image.shape[1], image.shape[2]
        height, width = reduced_size(*full, self.estimate) if self.estimate else full
        if (height, width) == full:
            yield from self._run(image, execution)
            return
        if self.scale != 1:
            raise ModelError(f"{self.name}: enlarges, for which it needs the whole picture; leave estimate out")
        small = reduced(image, height, width)
        made = torch.cat([rows for _, rows in self._run(small, execution)], 1)
        execution.note(
            f"{self.name} saw the picture at {width}x{height} px, and what it changed was carried to the full size"
        )
        yield from CARRIED[self.network.carries](image, small, made)

    def _run(self, image: Tensor, execution: Execution) -> Iterator[tuple[int, Tensor]]:
        """The rows that the network makes of an image at the size that it has."""
        channels, height, width = image.shape
        gray = channels == 1
        network = self.network.to(execution.device)

        def crop(top: int, bottom: int, left: int, right: int) -> Tensor:
            part = to_float(image[:, top:bottom, left:right])
            if self.pixels == "ycbcr":
                return to_ycbcr(part.expand(3, -1, -1))
            if network.in_channels == 1:
                return part if gray and self.pixels == "y-full" else luma(part.expand(3, -1, -1), self._limited)
            return part.expand(network.in_channels, -1, -1)

        made = run_rows(
            network,
            crop,
            height,
            width,
            execution,
            name=self.name,
            padding=self._padding,
            tested=self.card.precisions if self.card else ("fp32",),
            fixed=self._tile,
        )
        for top, rows in made:
            yield top, self._colors(rows, image, top, gray)

    @property
    def _limited(self) -> bool:
        return self.pixels == "y"

    @property
    def _tile(self) -> int | None:
        """The side of tiles that the card says, for networks that look at the whole tile by nature."""
        if self.card is None or self.local or self.network.tiling.support != "approximate":
            return None
        return self.card.tile

    @property
    def _padding(self) -> Padding:
        return "flip" if self.card is not None and self.card.padding == "flip" else "reflect"

    def _colors(self, rows: Tensor, image: Tensor, top: int, gray: bool) -> Tensor:
        """What a network made, in the channels of the image."""
        if self.pixels == "ycbcr":
            rows = from_ycbcr(rows)
        elif self.network.in_channels == 1:
            # Y'CbCr is linear in R'G'B': a new luma with the old chroma moves all three by the same amount.
            old = enlarged_rows(
                lambda first, last: to_float(image[:, first:last]), image.shape[1], self.scale, top, top + rows.shape[1]
            )
            luminous = luma(old.expand(3, -1, -1), self._limited)
            return old + (rows - luminous) * (255 / 219 if self._limited else 1.0)
        return rows.mean(0, keepdim=True) if gray else rows


def load_model(path_or_id: str | Path, local: int | None = None) -> Model:
    """A model by the id of its card, or from a file of weights, whose architecture and hyperparameters it tells.

    ``local`` is the side in px of windows in which a network with attention over whole tiles takes its statistics (0:
    over the tile, None: as the card says). It stays in memory for the next call. Raises ModelError for an unknown id, a
    model without weights, a file that is no model, and a network or side that ``local`` does not go with.
    """
    text = os.fspath(path_or_id)
    versions = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files_of(text))
    return _opened(text, versions, local)


def channels_last(network: Network) -> Network:
    """The network with the weights of its convolutions in the order in which these run fastest."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return network


@lru_cache(maxsize=2)
def _opened(text: str, versions: tuple[tuple[str, int, int], ...], local: int | None) -> Model:
    found = load.opened(Path(text) if is_file(text) else text)
    name = found.card.id if found.card else text
    if local is None:
        local = found.card.local if found.card else 0
    if local:
        try:
            found.network.local_statistics(local)
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from None
    estimate = found.card.estimate if found.card else 0
    model = Model(name, channels_last(found.network), found.card, local, estimate)
    _check(model)
    return model


def _check(model: Model) -> None:
    """Refuse a card that does not fit its network."""
    channels, tile = model.network.in_channels, model.card.tile if model.card else None
    if channels != {"y": 1, "y-full": 1, "ycbcr": 3}.get(model.pixels, channels):
        raise ModelError(
            f"{model.name}: its card says {model.pixels}, the network takes {channels} channels; mend the card"
        )
    if tile is not None and tile % model.network.tiling.step:
        step = model.network.tiling.step
        raise ModelError(f"{model.name}: its card says tile: {tile}, tiles are multiples of {step} px; mend the card")
