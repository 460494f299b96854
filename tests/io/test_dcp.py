"""Camera profiles: DCP files and the tags of DNGs, written here tag by tag as DNG 1.7.1 tells."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from restorekit.color.temperature import temperature_and_duv
from restorekit.errors import InputError
from restorekit.io import read
from restorekit.io.dng import color as dng_color
from restorekit.io.dng.dcp import read_dcp
from restorekit.io.tiff import (
    ASCII,
    BYTE,
    LONG,
    RATIONAL,
    SHORT,
    SRATIONAL,
    UNDEFINED,
    Directory,
    Field,
    Order,
    Tree,
    lay_out,
    read_directories,
)

FLOAT = 11
WARM = np.array([[0.75, -0.20, -0.06], [-0.45, 1.30, 0.15], [-0.05, 0.20, 0.55]])
COOL = np.array([[0.68, -0.15, -0.08], [-0.48, 1.25, 0.22], [-0.08, 0.22, 0.62]])
FORWARD = np.array([[0.4348, 0.3538, 0.1757], [0.2292, 0.717, 0.0537], [0.1031, 0.0016, 0.7204]])
CURVE = (0.0, 0.0, 0.25, 0.4, 1.0, 1.0)


def table(hues: int, saturations: int, steps: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(0.5, 1.5, (steps, hues, saturations, 3)).astype(np.float32)


def matrix_field(matrix: NDArray[np.float64], order: Order = "<") -> Field:
    return Field.of(SRATIONAL, matrix.reshape(-1).tolist(), order)


def floats(values: NDArray[np.float32] | tuple[float, ...], order: Order = "<") -> Field:
    return Field.of(FLOAT, np.asarray(values).reshape(-1).tolist(), order)


def profile_tags(order: Order = "<", name: str = "Test Standard") -> Tree:
    """All that a profile can say, for two lights."""
    return {
        50708: Field.of(ASCII, "Maker Model 1", order),
        50721: matrix_field(WARM, order),
        50722: matrix_field(COOL, order),
        50778: Field.of(SHORT, (17,), order),
        50779: Field.of(SHORT, (21,), order),
        50936: Field.of(ASCII, name, order),
        50937: Field.of(LONG, (6, 4, 1), order),
        50938: floats(table(6, 4, 1, 1), order),
        50939: floats(table(6, 4, 1, 2), order),
        50940: floats(CURVE, order),
        50964: matrix_field(FORWARD, order),
        50965: matrix_field(FORWARD * 0.9, order),
        50981: Field.of(LONG, (5, 3, 2), order),
        50982: floats(table(5, 3, 2, 3), order),
        51107: Field.of(LONG, (0,), order),
        51108: Field.of(LONG, (1,), order),
        51109: Field.of(SRATIONAL, (-0.35,), order),
        51110: Field.of(LONG, (1,), order),
    }


def profile_bytes(tags: Tree, order: Order = "<") -> bytes:
    """A camera profile as a file of its own: TIFF, but for its magic number."""
    block = lay_out(tags, order)
    return block[:2] + struct.pack(order + "H", 0x4352) + block[4:]


def written(path: Path, tags: Tree, order: Order = "<") -> Path:
    path.write_bytes(profile_bytes(tags, order))
    return path


def directory(tags: Tree, order: Order = "<") -> Directory:
    return read_directories(io.BytesIO(lay_out(tags, order)))[0]


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_profile_is_read_as_it_is_written(tmp_path: Path, order: Order) -> None:
    dcp = read_dcp(written(tmp_path / "a.dcp", profile_tags(order), order))
    assert (dcp.model, dcp.profile.name, dcp.notes) == ("Maker Model 1", "Test Standard", ())
    warm, cool = dcp.calibrations
    assert (warm.temperature_k, cool.temperature_k) == (2856, 6504)
    assert np.allclose(warm.color_matrix, WARM)
    assert np.allclose(cool.color_matrix, COOL)
    assert cool.forward_matrix is not None
    assert np.allclose(cool.forward_matrix, FORWARD * 0.9)
    assert warm.camera_calibration is None
    assert warm.hue_sat_map is not None
    assert cool.hue_sat_map is not None
    assert np.array_equal(warm.hue_sat_map, table(6, 4, 1, 1)), "value outermost, then hue, then saturation"
    assert np.array_equal(cool.hue_sat_map, table(6, 4, 1, 2))
    assert dcp.profile.look_table is not None
    assert np.array_equal(dcp.profile.look_table, table(5, 3, 2, 3))
    assert (dcp.profile.hue_sat_encoding, dcp.profile.look_encoding) == ("linear", "srgb")
    assert dcp.profile.tone_curve is not None
    assert np.allclose(dcp.profile.tone_curve, np.reshape(CURVE, (3, 2)))
    assert dcp.profile.baseline_exposure_ev == pytest.approx(-0.35)


def test_a_profile_may_have_a_matrix_alone(tmp_path: Path) -> None:
    dcp = read_dcp(written(tmp_path / "a.dcp", {50721: matrix_field(WARM), 50778: Field.of(SHORT, (23,))}))
    assert [c.temperature_k for c in dcp.calibrations] == [5003]
    assert dcp.calibrations[0].hue_sat_map is None
    assert (dcp.profile.look_table, dcp.profile.tone_curve, dcp.profile.baseline_exposure_ev) == (None, None, 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({50937: Field.of(LONG, (6, 4, 2))}, "ProfileHueSatMapData1, ProfileHueSatMapData2"),
        ({50981: Field.of(LONG, (5, 1, 6))}, "ProfileLookTableData"),
        ({50982: floats((float("nan"),) * 90)}, "ProfileLookTableData"),
        ({50940: floats((0, 0, 0.5, 0.4, 0.5, 0.6, 1, 1))}, "ProfileToneCurve"),
        ({50940: floats((0, 0, 1))}, "ProfileToneCurve"),
        ({50721: Field.of(SRATIONAL, (1.0,) * 12), 50722: Field.of(SRATIONAL, (1.0,) * 12)}, "no ColorMatrix of three"),
    ],
)
def test_damaged_profiles_are_refused_by_name(tmp_path: Path, changes: Tree, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        read_dcp(written(tmp_path / "bad.dcp", profile_tags() | changes))
    assert str(refused.value).startswith(str(tmp_path / "bad.dcp"))


def test_other_files_are_no_profiles(tmp_path: Path) -> None:
    (tmp_path / "a.dcp").write_bytes(lay_out(profile_tags()))
    with pytest.raises(InputError, match="no whole camera profile"):
        read_dcp(tmp_path / "a.dcp")
    (tmp_path / "a.dcp").write_bytes(profile_bytes(profile_tags())[:300])
    with pytest.raises(InputError, match="no whole camera profile"):
        read_dcp(tmp_path / "a.dcp")
    (tmp_path / "a.dcp").write_bytes(b"IIRC" + bytes(60))
    with pytest.raises(InputError, match="it has no directory"):
        read_dcp(tmp_path / "a.dcp")
    (tmp_path / "a.dcp").write_bytes(b"")
    with pytest.raises(InputError, match="no whole camera profile"):
        read_dcp(tmp_path / "a.dcp")
    with pytest.raises(InputError, match="check the path"):
        read_dcp(tmp_path / "missing.dcp")


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_light_by_its_chromaticity_or_its_spectrum(order: Order) -> None:
    """CalibrationIlluminant 255: IlluminantData as xy, and as the spectrum of a 3000 K black body."""
    white = (0.3457, 0.3585)
    by_xy = struct.pack(order + "H4I", 0, 3457, 10000, 3585, 10000)
    wavelength = np.arange(360, 831, 10) * 1e-9
    planck = wavelength**-5 / np.expm1(1.438777e-2 / (wavelength * 3000))
    power = np.round(planck / planck.max() * 60000).astype(int).tolist()
    rationals = [number for value in power for number in (value, 60000)]
    by_spectrum = struct.pack(f"{order}HI4I{len(rationals)}I", 1, len(power), 360, 1, 10, 1, *rationals)
    tags: Tree = {
        50721: matrix_field(WARM, order),
        50722: matrix_field(COOL, order),
        50778: Field.of(SHORT, (255,), order),
        50779: Field.of(SHORT, (255,), order),
        52533: Field.of(UNDEFINED, by_spectrum, order),
        52534: Field.of(UNDEFINED, by_xy, order),
    }
    warm, cool = dng_color.calibrations(directory(tags, order))
    assert warm.temperature_k == pytest.approx(3000, rel=0.01)
    assert cool.temperature_k == pytest.approx(temperature_and_duv(white)[0])


@pytest.mark.parametrize("data", [b"", b"\0\0", struct.pack("<H4I", 0, 1, 0, 1, 3), struct.pack("<HI", 1, 1 << 31)])
def test_damaged_light_data_leave_the_first_calibration(data: bytes) -> None:
    tags = profile_tags() | {50779: Field.of(SHORT, (255,)), 52534: Field.of(UNDEFINED, data + b"\0\0")}
    assert [c.temperature_k for c in dng_color.calibrations(directory(tags))] == [2856]


def test_three_calibrations_with_three_tables() -> None:
    tags = profile_tags() | {
        52529: Field.of(SHORT, (2,)),
        52531: matrix_field(WARM + 0.1),
        52532: matrix_field(FORWARD * 1.1),
        52537: floats(table(6, 4, 1, 9)),
    }
    third = dng_color.calibrations(directory(tags))[2]
    assert third.temperature_k == 4150
    assert np.allclose(third.color_matrix, WARM + 0.1)
    assert third.hue_sat_map is not None
    assert np.array_equal(third.hue_sat_map, table(6, 4, 1, 9))


def test_camera_calibration_counts_only_under_the_signature_of_the_profile() -> None:
    own = np.diag([1.1, 1.0, 0.9])
    main = directory({50723: matrix_field(own), 50931: Field.of(ASCII, "com.maker")})
    same = directory(profile_tags() | {50932: Field.of(ASCII, "com.maker")})
    other = directory(profile_tags() | {50932: Field.of(ASCII, "com.adobe")})
    found = dng_color.calibrations(same, main)[0].camera_calibration
    assert found is not None
    assert np.allclose(found, own)
    assert dng_color.calibrations(other, main)[0].camera_calibration is None
    assert dng_color.calibrations(same)[0].camera_calibration is None


def test_an_hdr_profile_keeps_what_does_not_count_on_its_encoding(tmp_path: Path) -> None:
    dcp = read_dcp(
        written(tmp_path / "h.dcp", profile_tags() | {52551: Field.of(UNDEFINED, struct.pack("<HHf", 1, 1, 8.0))})
    )
    assert (dcp.profile.tone_curve, dcp.profile.look_table) == (None, None), "a curve, and a table by value"
    assert dcp.calibrations[0].hue_sat_map is not None, "a table by hue and saturation alone"
    assert [note.partition(":")[0] for note in dcp.notes] == ["h.dcp"]
    assert "HDR" in dcp.notes[0]


@pytest.mark.parametrize(("value", "known"), [((4, 3), 4 / 3), ((0, 0), 1.0), ((0, 1), 1.0)])
def test_baseline_sharpness(value: tuple[int, int], known: float) -> None:
    field = Field(RATIONAL, struct.pack("<II", *value))
    assert dng_color.baseline_sharpness(directory({50732: field})) == pytest.approx(known)
    assert dng_color.baseline_sharpness(directory(profile_tags())) == 1.0


def dng(path: Path, tags: Tree, extra: tuple[Tree, ...] = ()) -> Path:
    """A DNG of 8x8 photosites with these profile tags, and extra profiles after it."""
    mosaic = np.full((8, 8), 1000, "<u2")
    fixed: Tree = {
        254: Field.of(LONG, (0,)),
        256: Field.of(LONG, (8,)),
        257: Field.of(LONG, (8,)),
        258: Field.of(SHORT, (16,)),
        259: Field.of(SHORT, (1,)),
        262: Field.of(SHORT, (32803,)),
        271: Field.of(ASCII, "Maker"),
        272: Field.of(ASCII, "Model 1"),
        277: Field.of(SHORT, (1,)),
        278: Field.of(LONG, (8,)),
        33421: Field.of(SHORT, (2, 2)),
        33422: Field.of(BYTE, (0, 1, 1, 2)),
        50706: Field.of(BYTE, (1, 4, 0, 0)),
        50728: Field.of(RATIONAL, (0.5, 1.0, 0.7)),
        50732: Field.of(RATIONAL, (1.5,)),
    }
    profiles = [profile_bytes(tree) for tree in extra]

    def block(offsets: list[int]) -> bytes:
        places: Tree = {273: Field.of(LONG, offsets[:1]), 279: Field.of(LONG, (mosaic.nbytes,))}
        return lay_out(fixed | tags | places | ({50933: Field.of(LONG, offsets[1:])} if profiles else {}))

    start = len(block([0] * (1 + len(profiles)))) + 2
    offsets, parts = [start], [mosaic.tobytes()]
    for profile in profiles:
        offsets.append(offsets[-1] + len(parts[-1]))
        parts.append(profile)
    path.write_bytes(block(offsets).ljust(start, b"\0") + b"".join(parts))
    return path


def test_a_dng_brings_its_profile(tmp_path: Path) -> None:
    frame = read(dng(tmp_path / "a.dng", profile_tags()))
    assert frame.camera.profile.name == "Test Standard"
    assert frame.camera.profile.look_table is not None
    assert frame.camera.profile.tone_curve is not None
    assert frame.camera.calibrations[1].hue_sat_map is not None
    assert frame.camera.baseline_sharpness == pytest.approx(1.5)
    assert frame.notes == ()


def test_a_dng_takes_the_profile_it_was_shot_with(tmp_path: Path) -> None:
    others = (profile_tags(name="Vivid"), profile_tags(name="Portrait") | {50721: matrix_field(COOL)})
    main = profile_tags() | {50934: Field.of(ASCII, "Portrait")}
    camera = read(dng(tmp_path / "a.dng", main, others)).camera
    assert camera.profile.name == "Portrait"
    assert np.allclose(camera.calibrations[0].color_matrix, COOL)
    absent = profile_tags() | {50934: Field.of(ASCII, "Landscape")}
    assert read(dng(tmp_path / "b.dng", absent, others)).camera.profile.name == "Test Standard"


def test_what_a_dng_has_of_a_profile_and_cannot_be_used_is_said(tmp_path: Path) -> None:
    tags = profile_tags() | {50981: Field.of(LONG, (5, 3, 3)), 52544: Field.of(UNDEFINED, bytes(80))}
    frame = read(dng(tmp_path / "a.dng", tags))
    assert frame.camera.profile.look_table is None
    assert frame.camera.profile.tone_curve is not None
    assert any("damaged ProfileLookTableData" in note for note in frame.notes)
    assert any("ProfileGainTableMap2" in note for note in frame.notes)
