"""Fixtures that all tests share."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import colour  # noqa: F401
import pytest

if TYPE_CHECKING:
    from torch import Tensor

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does: idle threads sleep instead of spinning

# Without matplotlib, colour-science leaves a stand-in, which Lightning would take for the real one.
for name in [name for name, module in sys.modules.items() if isinstance(module, MagicMock)]:
    del sys.modules[name]

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the source tree."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real camera files that are not part of the source tree: ``$RESTOREKIT_DATA``, or ``shared/data`` beside it."""
    folder = Path(os.environ.get("RESTOREKIT_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs the camera files of {folder} (set RESTOREKIT_DATA to where they are)")
    return folder


@dataclass(frozen=True)
class AuthorsCase:
    """What the authors' code makes of a picture with random weights: what is said of the case, and its tensors."""

    facts: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.facts["config"])

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.part("weights")

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``name/``, without it."""
        start = f"{name}/"
        return {key.removeprefix(start): value for key, value in self.tensors.items() if key.startswith(start)}

    def padded_input(self, grid: int) -> Tensor:
        """``[B,C,H,W]`` filled up to multiples of ``grid`` as by the authors' program; the result begins likewise."""
        from torch import cat
        from torch.nn.functional import pad

        x, how = self.tensors["input"], self.facts.get("padding", self.facts.get("pad", "none"))
        height, width = x.shape[2:]
        if "flip-concat" in how:  # the mirrored picture, also where nothing is missing
            x = cat((x, x.flip(2)), 2)[:, :, : (height // grid + 1) * grid]
            return cat((x, x.flip(3)), 3)[..., : (width // grid + 1) * grid]
        return pad(x, (0, -width % grid, 0, -height % grid), "reflect") if "reflect" in how else x


@pytest.fixture(scope="session")
def oracles(shared_data: Path) -> Path:
    """Results of the authors' code, which are not part of the source tree: ``oracles`` beside ``shared_data``."""
    folder = shared_data.parent / "oracles"
    if not (folder / "INDEX.json").is_file():
        pytest.skip(f"needs the authors' results in {folder}")
    return folder


@pytest.fixture(scope="session")
def authors_index(oracles: Path) -> dict[str, dict[str, Any]]:
    """What is said of each case, by its name."""
    return {facts["case"]: facts for facts in json.loads((oracles / "INDEX.json").read_text())}


@pytest.fixture(scope="session")
def authors(oracles: Path, authors_index: dict[str, dict[str, Any]]) -> Callable[[str], AuthorsCase]:
    """The results of the authors' code by the name of the case."""
    from safetensors.torch import load_file

    def case(name: str) -> AuthorsCase:
        return AuthorsCase(authors_index[name], load_file(oracles / authors_index[name]["file"]))

    return case


@pytest.fixture(scope="session")
def authors_shapes(oracles: Path) -> Callable[[str], dict[str, list[int]]]:
    """The names and shapes of the weights of a published network."""

    def listed(name: str) -> dict[str, list[int]]:
        file = oracles / "full_keys" / f"{name}.json"
        if not file.is_file():
            pytest.skip(f"needs the authors' names in {file}")
        names: dict[str, list[int]] = json.loads(file.read_text())
        return names

    return listed


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with small networks of random weights: ``tiny.x2`` (RGB), ``tiny.luma_x3``, ``tiny.ycbcr_x2``.

    ``tiny.casts_x2`` is the first one on a card that says that it shifts colours, ``tiny.noise`` one for denoising;
    ``tiny.light`` is the same on a card that says that it sees larger pictures reduced to 48 px.
    """
    import torch
    import yaml
    from safetensors.torch import save_file

    from restorekit.architectures import create

    home = tmp_path_factory.mktemp("home")
    folder = home / "models"
    folder.mkdir()
    cfsr = "{embed_dim: 8, depths: [1], dw_size: 5, mlp_ratio: 2, upscale: 2, upsampler: pixelshuffledirect}"
    larger = "task: super-resolution\nscale"
    for name, architecture, config, more in (
        ("tiny.x2", "cfsr", cfsr, f"{larger}: 2"),
        ("tiny.casts_x2", "cfsr", cfsr, f"{larger}: 2\nshifts_color: true"),
        ("tiny.luma_x3", "espcn", "{variant: yjn870, scale_factor: 3}", f"{larger}: 3\npixels: y"),
        ("tiny.ycbcr_x2", "wavemixsr", "{depth: 1, ff_channel: 8, final_dim: 8}", f"{larger}: 2\npixels: ycbcr"),
        ("tiny.noise", "drunet", "{in_nc: 3, out_nc: 3, nc: [8, 16], nb: 1}", "task: denoising"),
        ("tiny.light", "drunet", "{in_nc: 3, out_nc: 3, nc: [8, 16], nb: 1}", "task: low-light\nestimate: 48"),
        (
            "tiny.rain",
            "drsformer",
            "{dim: 8, num_blocks: [1, 1, 1, 1], heads: [1, 2, 2, 4], mefc: false}",
            "task: deraining\ntile: 96\nlocal: 64",
        ),
    ):
        (folder / f"{name}.yaml").write_text(
            f"summary: Random weights\narchitecture: {architecture}\nconfig: {config}\n{more}\n"
            "trained_on: synthetic\ndata: none\nprecisions: [fp32, bf16]\nlicence: Apache-2.0\n"
        )
        torch.manual_seed(0)
        network = create(architecture, **yaml.safe_load(config))
        with torch.no_grad():
            for weights in network.parameters():
                weights.mul_(0.5)
        save_file(
            {key: value.contiguous() for key, value in network.state_dict().items()}, folder / f"{name}.safetensors"
        )
    return home


@pytest.fixture
def with_tiny_models(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models of ``tiny_models`` can be named."""
    monkeypatch.setenv("RESTOREKIT_HOME", str(tiny_models))
    return tiny_models
