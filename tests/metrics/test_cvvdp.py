"""ColorVideoVDP is optional: what is said where it is absent, and what it is given where it is there."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from restorekit.errors import InputError
from restorekit.frame import Frame
from restorekit.metrics.cvvdp import cvvdp_jod
from restorekit.state import SHORTHANDS, ImageState

SCENE = Frame(torch.tensor([0.5, 1.0, 2.0]).reshape(3, 1, 1).expand(3, 4, 5), ImageState("rgb", "scene", "linear"))
PHOTO = Frame(torch.full((3, 4, 5), 51, dtype=torch.uint8), SHORTHANDS["display-srgb"])


class Metric:
    """Stands for the authors' class; keeps what it is given."""

    given: dict[str, Any]

    def __init__(self, **options: Any) -> None:
        Metric.given = options

    def predict(self, test: torch.Tensor, reference: torch.Tensor, dim_order: str) -> tuple[torch.Tensor, None]:
        Metric.given |= {"test": test, "reference": reference, "dim_order": dim_order}
        return torch.tensor(9.5), None


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycvvdp", SimpleNamespace(cvvdp=Metric))  # type: ignore[arg-type]


class Broken(MetaPathFinder):
    """As a torchvision that was built for another torch behaves."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> None:
        if name == "pycvvdp":
            raise RuntimeError("operator torchvision::nms does not exist")


def test_where_it_is_absent_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycvvdp", None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="pip install cvvdp torchvision"):
        cvvdp_jod(SCENE, SCENE)


def test_where_it_does_not_load_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pycvvdp", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(InputError, match=r"torchvision built for this torch.*nms does not exist"):
        cvvdp_jod(SCENE, SCENE)


@pytest.mark.usefixtures("package")
def test_hdr_is_shown_in_nits() -> None:
    brighter = SCENE.with_pixels(SCENE.pixels * 2)
    broken = SCENE.with_pixels(SCENE.pixels.clone())
    broken.pixels[1, 2, 3] = torch.nan
    assert cvvdp_jod(broken, brighter, 100) == 9.5
    given = Metric.given
    assert given["display_name"] == "standard_hdr_linear" and given["dim_order"] == "CHW"
    assert given["test"][:, 0, 0].tolist() == pytest.approx([100, 200, 400])
    assert given["reference"][:, 0, 0].tolist() == pytest.approx([50, 100, 200])
    assert given["test"][1, 2, 3] == given["reference"][1, 2, 3] == 0


@pytest.mark.usefixtures("package")
def test_pictures_are_shown_as_srgb() -> None:
    gray = Frame(PHOTO.pixels[:1], ImageState("gray"))
    cvvdp_jod(PHOTO, gray)
    assert Metric.given["display_name"] == "standard_4k"
    for name in ("test", "reference"):
        assert Metric.given[name].shape == (3, 4, 5) and Metric.given[name].numpy() == pytest.approx(0.2, abs=1e-6)
    with pytest.raises(InputError, match="two HDR or two SDR"):
        cvvdp_jod(SCENE, PHOTO)
    camera = Frame(PHOTO.pixels, ImageState(primaries="camera"))
    with pytest.raises(InputError, match="camera primaries"):
        cvvdp_jod(camera, camera)


def test_the_command_says_so_before_it_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from restorekit.cli import app

    monkeypatch.setitem(sys.modules, "pycvvdp", None)  # type: ignore[arg-type]
    missing = str(tmp_path / "none.exr")
    result = CliRunner().invoke(app, ["compare", missing, missing, "--cvvdp"])
    assert isinstance(result.exception, InputError) and "pip install cvvdp" in str(result.exception)
