"""Laws that every network keeps, as base classes for tests; plugin authors use them too.

>>> class TestMyNetwork(BandLaws):
...     kind = MyNetwork
...     configs = ({"channels": 8, "upscale": 2}, {"channels": 12, "upscale": 3})
...     published = (({"channels": 64, "upscale": 2}, 526_856, None),)
...     tall, rows = ((37, 20),), (1, 8)
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from restorekit import inference
from restorekit.architectures._bands import Bands
from restorekit.architectures._network import Detected, Network
from restorekit.errors import ModelError
from restorekit.execution import Execution

Module = TypeVar("Module", bound=nn.Module)
Config = Mapping[str, Any]


def filled(network: Module, gain: float = 1.0) -> Module:
    """The network, for evaluation, with seeded weights by which every part matters: those of fresh ones may be near 0.

    Matrices and kernels get a standard deviation of ``gain / sqrt(inputs)``, tables of biases by position one of 1,
    biases one of 0.2; other vectors are moved by 0.2 from where they were.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        for key, value in network.named_parameters():
            if value.dim() > 1:
                value.normal_(0, 1 if key.endswith("table") else gain * value[0].numel() ** -0.5)
            elif key.endswith("bias"):
                value.normal_(0, 0.2)
            else:
                value.add_(0.2 * torch.randn_like(value))
    return network.eval()


def picture(height: int, width: int, *, batch: int = 1, channels: int = 3) -> Tensor:
    """Seeded noise ``[batch,channels,height,width]`` in 0..1."""
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def run(network: Network, x: Tensor) -> Tensor:
    """What a network makes of ``[B,C,H,W]`` in one run: the picture alone, without gradients."""
    with torch.inference_mode():
        return network.picture(x)


def tiled(network: Network, image: Tensor, execution: Execution) -> Tensor:
    """What a network makes of ``[C,H,W]`` of any size, in the way that ``execution`` asks for."""

    def crop(top: int, bottom: int, left: int, right: int) -> Tensor:
        return image[:, top:bottom, left:right]

    rows = inference.run_rows(network, crop, image.shape[1], image.shape[2], execution)
    return torch.cat([part for _, part in rows], 1)


def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Names and shapes, by which weights fit a network or do not."""
    return {key: value.shape for key, value in state.items()}


class NetworkLaws:
    """Inherit, name the network, small ones of its kind and those that are published, and pytest checks them."""

    kind: ClassVar[type[Network]]
    configs: ClassVar[tuple[Config, ...]] = ()
    """Hyperparameters of small networks, which are run."""
    others: ClassVar[tuple[Config, ...]] = ()
    """Of more, whose weights tell them too."""
    published: ClassVar[tuple[tuple[Config, int, int | None], ...]] = ()
    """Hyperparameters, the number of weights, and that of tensors in a file where it is known."""

    size: ClassVar[tuple[int, int]] = (16, 20)
    """Height and width of pictures, in px; more where the grid of a network asks for it."""
    dark: ClassVar[float] = 0.2
    """How bright one of two pictures is; the other's values are 0..1."""
    dtype: ClassVar[torch.dtype] = torch.float32
    """In which two ways are compared that differ by rounding alone, by ``tolerance`` at most."""
    tolerance: ClassVar[float] = 1e-5
    autocast: ClassVar[float] = 0.02
    """How far bfloat16 where it is safe may be ``off``."""
    autocast_gives: ClassVar[torch.dtype] = torch.float32
    casts: ClassVar[tuple[tuple[torch.dtype, float], ...]] = ((torch.bfloat16, 0.04),)
    """How far all of the network in another type may be ``off``."""
    without_slope: ClassVar[str] = "^$"
    """Names of weights that need no gradient, as a regular expression; none."""

    untold: ClassVar[tuple[str, ...]] = ()
    """Hyperparameters that weights do not tell; what is taken for them is said."""
    rounded: ClassVar[tuple[str, ...]] = ()
    """Those of which weights tell what they are good for, such as the number of channels that a ratio gives."""
    told_by_shapes: ClassVar[bool] = True
    """Whether the values of tensors do not matter for that."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Names of weights, as regular expressions, without which a state dict is one of another network."""

    def build(self, **config: Any) -> Network:
        """A network for evaluation, with weights that matter, always the same."""
        return filled(self.kind(**config))

    def off(self, made: Tensor, exact: Tensor, x: Tensor) -> float:
        """How far a result is from that in full precision: the RMS of what differs in standard deviations."""
        return float((made.float() - exact).square().mean().sqrt() / exact.std())

    def loss(self, network: Network, x: Tensor) -> Tensor:
        """What gradients are taken of."""
        return (network.picture(x) - 0.5).square().mean()

    def test_pictures_of_a_batch_do_not_mix(self) -> None:
        for config, network, x in self._cases(self.dtype):
            alone = torch.cat([run(network, one[None]) for one in x])
            self._same(run(network, x), alone, f"{config}, a batch")

    def test_the_order_of_pixels_in_memory_does_not_matter(self) -> None:
        for config, network, x in self._cases(self.dtype):
            other = x.contiguous(memory_format=torch.channels_last)
            self._same(run(network, other), run(network, x), f"{config}, channels last")

    def test_tail_looks_no_further_than_it_says(self) -> None:
        for config, network, _ in self._cases(self.dtype):
            grid, scale = network.tiling.grid, network.scale
            margin = -(-network.tail_halo // grid) * grid
            x = self._pictures(network, *(max(side, 2 * margin + 4 * grid) for side in self.size)).to(self.dtype)
            (top, bottom), (left, right) = ((margin + grid, side - margin - grid) for side in x.shape[2:])
            with torch.inference_mode():
                maps = network.features(x)
                whole = network.tail(maps)[..., top * scale : bottom * scale, left * scale : right * scale]
                piece = network.tail(maps[..., top - margin : bottom + margin, left - margin : right + margin])
            cut = margin * scale
            piece = piece[..., cut : cut + whole.shape[2], cut : cut + whole.shape[3]]
            self._same(piece, whole, f"{config}, a piece", min(self.tolerance, 1e-6))

    def test_low_precision_is_close(self) -> None:
        for config, network, x in self._cases():
            exact = run(network, x)
            with torch.autocast("cpu", torch.bfloat16):
                mixed = run(network, x)
            assert mixed.dtype == self.autocast_gives, f"{config}: gives {mixed.dtype}"
            assert 0 < self.off(mixed, exact, x) < self.autocast, f"{config}: off by {self.off(mixed, exact, x)}"
            for dtype, bound in self.casts:
                made = run(self.build(**config).to(dtype), x.to(dtype))
                assert made.dtype == dtype, f"{config}: gives {made.dtype} of {dtype}"
                assert self.off(made, exact, x) < bound, f"{config}: {dtype} off by {self.off(made, exact, x)}"

    def test_gradients_reach_every_weight(self) -> None:
        """In full precision, and as in training: under autocast, channels last."""
        for config, network, x in self._cases():
            network.train()
            for mixed in (False, True):
                given = x.contiguous(memory_format=torch.channels_last) if mixed else x
                network.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                    loss = self.loss(network, given)
                loss.backward()  # type: ignore[no-untyped-call]
                for key, value in network.named_parameters():
                    if re.search(self.without_slope, key) is None:
                        assert value.grad is not None and bool(value.grad.any()), f"{config}: {key} gets no gradient"
                    assert value.grad is None or bool(value.grad.isfinite().all()), f"{config}: {key} is not finite"

    def test_hyperparameters_are_told_by_the_weights(self) -> None:
        assert self.configs, "name hyperparameters of small networks"
        for config in (*self.configs, *self.others):
            network = self.build(**config)
            state = network.state_dict()
            found = self._found(config, state)
            self.kind(**found.config).load_state_dict(state)
            known = {name: config[name] for name in self.untold if name in config}
            again = self.kind(**{**found.config, **known}).eval()
            again.load_state_dict(state)
            x = self._pictures(network, *self.size)
            result = run(network, x)
            scale, height, width = network.scale, *x.shape[2:]
            assert result.shape[2:] == (scale * height, scale * width), f"{config}: makes {tuple(result.shape)}"
            assert torch.equal(run(again, x), result), f"{config}: another network is told"
            assert (again.scale, again.tiling) == (network.scale, network.tiling), f"{config}: is cut in another way"
            for part in self.needs:
                without = {key: value for key, value in state.items() if re.search(part, key) is None}
                assert len(without) < len(state), f"{config}: has no {part}"
                assert self.kind.detect(without) is None, f"{config}: is taken for one without {part}"

    def test_published_networks_have_as_many_weights(self) -> None:
        assert self.published, "name hyperparameters and the number of weights"
        for config, count, tensors in self.published:
            with torch.device("meta"):
                network = self.kind(**config)
                state = network.state_dict()
                assert sum(value.numel() for value in network.parameters()) == count, f"{config}"
                assert tensors is None or len(state) == tensors, f"{config}: {len(state)} tensors"
                if self.told_by_shapes:
                    again = self.kind(**self._found(config, state).config).state_dict()
                    assert shapes(again) == shapes(state), f"{config}: another network is told"

    def _cases(self, dtype: torch.dtype = torch.float32) -> list[tuple[Config, Network, Tensor]]:
        """Networks, each with two pictures."""
        assert self.configs, "name hyperparameters of small networks"
        networks = [(config, self.build(**config).to(dtype)) for config in self.configs]
        return [(config, network, self._pictures(network, *self.size).to(dtype)) for config, network in networks]

    def _pictures(self, network: Network, height: int, width: int) -> Tensor:
        """Two of different brightness, of the next larger size that the network takes."""
        height, width = network.tiling.padded(height), network.tiling.padded(width)
        x = picture(height, width, batch=2, channels=network.in_channels)
        return x * torch.tensor([self.dark, 1.0]).view(2, 1, 1, 1)

    def _found(self, config: Config, state: Mapping[str, Tensor]) -> Detected:
        """What weights tell, which is what they were made with."""
        found = self.kind.detect(state)
        assert found is not None, f"{config}: is not recognised"
        usual = {name: given.default for name, given in inspect.signature(self.kind).parameters.items()}
        for name in {**config, **found.config}:
            follows = name not in config and usual.get(name, ...) is None  # what others make it
            if name not in self.untold and name not in self.rounded and not follows:
                told, value = _plain(found.config.get(name)), _plain(config.get(name, usual.get(name)))
                assert told == value, f"{config}: {name} {told} instead of {value}"
        assert bool(found.assumed) == bool(self.untold), f"{config}: assumes {found.assumed}"
        for name in self.untold:
            assert any(name in line for line in found.assumed), f"{config}: does not say what it assumes for {name}"
        return found

    def _same(self, made: Tensor, expected: Tensor, what: str, tolerance: float | None = None) -> None:
        atol = self.tolerance if tolerance is None else tolerance
        torch.testing.assert_close(made, expected, rtol=0, atol=atol, msg=lambda said: f"{what}: {said}")


class BandLaws(NetworkLaws):
    """For networks that run their operators band by band too. Name ``rows`` of bands, and ``tall`` pictures."""

    rows: ClassVar[tuple[int, ...]] = ()
    tall: ClassVar[tuple[tuple[int, int], ...]] = ()
    band_tolerance: ClassVar[float] = 1e-5

    def test_bands_make_the_whole(self) -> None:
        assert self.rows and self.tall, "name heights of bands, and heights and widths of pictures"
        for config, network, _ in self._cases(self.dtype):
            for height, width in self.tall:
                x = self._pictures(network, height, width).to(self.dtype)
                with torch.inference_mode():
                    maps = network.features(x)
                whole = run(network, x)
                for rows in self.rows:
                    for given in (x, x.contiguous(memory_format=torch.channels_last)):
                        begun: list[float] = []
                        with torch.inference_mode():
                            banded = network.features(given, Bands(rows=rows, checkpoint=begun.append))
                            made = network.tail(banded)
                        what = f"{config}, {height} px in bands of {rows}"
                        several = len(begun) > 2 * begun.count(0.0)
                        assert several or rows > min(self.rows), f"{what}: operators run in {len(begun)} bands in all"
                        self._same(banded, maps, what, self.band_tolerance)
                        self._same(made, whole, what, self.band_tolerance)


class RefusalLaws(NetworkLaws):
    """For networks that do not take all. Name hyperparameters and sizes of pictures, and what is said about each."""

    refused: ClassVar[tuple[tuple[Config, str], ...]] = ()
    """Hyperparameters that do not go together, and a regular expression of what the ValueError says."""
    refused_sizes: ClassVar[tuple[tuple[int, int, str], ...]] = ()
    """Heights and widths in px that the first of ``configs`` does not take, and of what the error says."""

    def test_what_it_does_not_take_is_refused(self) -> None:
        assert self.refused or self.refused_sizes, "name what is refused"
        for config, said in self.refused:
            with torch.device("meta"):
                _refuses(ValueError, said, self.kind, **config)
        for height, width, said in self.refused_sizes:
            network = self.build(**self.configs[0])
            x = picture(height, width, channels=network.in_channels)
            _refuses(ModelError, said, run, network, x)


def _refuses(kind: type[Exception], said: str, call: Callable[..., object], /, *given: Any, **named: Any) -> None:
    try:
        call(*given, **named)
    except kind as error:
        assert re.search(said, str(error)) is not None, f"says '{error}' instead of '{said}'"
    else:
        raise AssertionError(f"is not refused: '{said}'")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
