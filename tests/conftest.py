"""Fixtures that all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from unittest.mock import MagicMock

import colour  # noqa: F401
import pytest

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


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with small networks of random weights: ``tiny.x2`` (RGB), ``tiny.luma_x3``, ``tiny.ycbcr_x2``.

    ``tiny.casts_x2`` is the first one on a card that says that it shifts colours, ``tiny.noise`` one for denoising.
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
