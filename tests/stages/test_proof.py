"""Soft proof through profiles of small gamuts, whose effect is known from their primaries."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from restorekit.color.primaries import conversion, transformed
from restorekit.errors import InputError
from restorekit.frame import Frame
from restorekit.io.icc import profile_of
from restorekit.stages.proof import MARK, SoftProof
from restorekit.state import ImageState
from restorekit.testing import StageLaws, rgb_frame

P3 = ImageState("rgb", "display", "linear", "p3")
SRGB = ImageState("rgb", "display", "srgb", "bt709")


@pytest.fixture
def srgb_profile(tmp_path: Path) -> Path:
    path = tmp_path / "display.icc"
    path.write_bytes(profile_of(SRGB))
    return path


def colors(*values: tuple[float, float, float]) -> Frame:
    return Frame(torch.tensor(values).T.reshape(3, 1, len(values)).contiguous(), P3)


def test_colours_of_the_device_stay_as_they_are(srgb_profile: Path) -> None:
    inside = transformed(torch.rand(3, 40, 30, generator=torch.manual_seed(0)), conversion("bt709", "p3"))
    shown = SoftProof(profile=srgb_profile)(Frame(inside, P3))
    assert (shown.pixels - inside).abs().max() < 2e-3
    assert shown.state == P3


def test_colours_outside_are_those_the_device_has_instead(srgb_profile: Path) -> None:
    shown = SoftProof(profile=srgb_profile)(colors((0, 1, 0), (0.2, 0.5, 0.3)))
    green = transformed(shown.pixels, conversion("p3", "bt709"))[:, 0, 0]
    assert green.tolist() == pytest.approx([0, 1, 0], abs=3e-3)


def test_a_gamut_warning_marks_only_what_lies_outside(srgb_profile: Path) -> None:
    shown = SoftProof(profile=srgb_profile, gamut_warning=True)(colors((0, 1, 0), (0.2, 0.5, 0.3), (1, 1, 1)))
    bt2020 = transformed(shown.pixels, conversion("p3", "bt2020"))[:, 0]
    assert bt2020[:, 0].tolist() == pytest.approx(MARK, abs=1e-4)
    assert bt2020[:, 2].tolist() == pytest.approx([1, 1, 1], abs=2e-3)
    assert shown.pixels[:, 0, 1].tolist() == pytest.approx([0.2, 0.5, 0.3], abs=2e-3)


class TestSoftProofLaws(StageLaws):
    stages = (SoftProof(profile=Path("written by the fixture")),)
    frames = (rgb_frame(state=P3),)

    @pytest.fixture(autouse=True)
    def _with_profile(self, srgb_profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stages = (SoftProof(profile=srgb_profile), SoftProof(profile=srgb_profile, gamut_warning=True))
        monkeypatch.setattr(type(self), "stages", stages)


def test_a_profile_is_read_again_when_it_changed(srgb_profile: Path) -> None:
    vivid = rgb_frame(state=ImageState("rgb", "display", "linear", "bt2020"))
    SoftProof(profile=srgb_profile)(vivid)
    srgb_profile.write_bytes(b"no profile")
    os.utime(srgb_profile, ns=(1, 1))
    with pytest.raises(InputError, match="no ICC profile"):
        SoftProof(profile=srgb_profile)(vivid)


def test_what_is_no_profile_is_refused_by_name(tmp_path: Path) -> None:
    frame = colors((0, 1, 0))
    with pytest.raises(InputError, match=r"absent\.icc.*check the path"):
        SoftProof(profile=tmp_path / "absent.icc")(frame)
    path = tmp_path / "text.icc"
    path.write_text("no profile at all, but long enough to have a header" * 4)
    with pytest.raises(InputError, match=r"text\.icc: is no ICC profile"):
        SoftProof(profile=path)(replace(frame))
