"""Make a bracket of exposures from a photograph: shots with known poses, exposures, noise and radiance.

    python benchmarks/make_bracket.py PHOTO [OBJECT_PHOTO] OUT [--kind static] [--megapixels 24] [--shots 3]
        [--ev=-2,0,2] [--formats jpeg,dng] [--seed 1]

The photograph is scaled to a 3:2 frame, given fine texture out of its own details and linearised, and its highlights
are lifted to 16 times what they were. Every shot sees this scene through a homography (cubic splines, Unser 1999),
exposes it, and records it with shot and read noise (Foi et al., IEEE TIP 2008): as a JPEG ``b0.jpg`` and as the DNG
``r0.dng`` of a camera with BT.709 primaries. The middle shot is the reference: it does not move, and the truth is in
its frame. Kinds:

tripod      no shot moves
static      shifts of 5 to 12 px, turns of 0.05 to 0.1 degrees
handheld    five shots 2 EV apart, shifts of 20 to 60 px, turns of 0.3 to 1 degree, slight perspective
motion      static, and an ellipse cut out of OBJECT_PHOTO (or of the photograph itself) is elsewhere in every shot

Beside the shots lie ``truth.npz`` (poses, EVs, noise), ``truth.exr`` (radiance, half floats, BT.709, 1.0 = white of the
reference shot) and, for motion, ``background.exr`` (the scene without the object).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import OpenEXR
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin
from scipy import ndimage

from restorekit.color.primaries import rgb_to_xyz
from restorekit.facts import Calibration, Camera, Exposure, Metadata
from restorekit.frame import Frame
from restorekit.io.dng.write import write_dng

Kind = Literal["tripod", "static", "handheld", "motion"]
Image32 = NDArray[np.float32]
Matrix = NDArray[np.float64]

FULL_WELL_ELECTRONS = 12000.0
READ_NOISE_ELECTRONS = 4.0
BLACK, WHITE = 512.0, 16383.0
NEUTRAL = (1 / 2.0, 1.0, 1 / 1.6)
"""Camera RGB of white: the white balance gains are 2, 1 and 1.6."""
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
BT709_CHROMATICITIES = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)
REFERENCE_TIME_S = 1 / 100
FRAME_RATE_HZ = 4
SHUTTER_DENOMINATORS = (
    *(8000, 6400, 5000, 4000, 3200, 2500, 2000, 1600, 1250, 1000, 800, 640, 500, 400, 320, 250, 200, 160, 125, 100),
    *(80, 60, 50, 40, 30, 25, 20, 15, 13, 10, 8, 6, 5, 4, 3, 2, 1),
)
"""What cameras say of exposures a third of a stop apart: the time they write is the nearest of these."""
DETAIL = 0.12
"""Contrast of the texture that is added where the photograph has most of its own (a third of it where it has none)."""


@dataclass(frozen=True)
class MovingObject:
    """Something that is elsewhere in every shot, in the frame of the reference.

    ``radiance`` ``[h,w,3]``, ``alpha`` ``[h,w]`` 0..1, ``corners`` ``[N,2]`` its top and left in every shot, px.
    """

    radiance: Image32
    alpha: Image32
    corners: NDArray[np.int64]

    def pasted(self, scene: Image32, shot: int, margin: int = 0) -> Image32:
        """A copy of a scene ``[H,W,3]`` with the object where it is in a shot."""
        result = scene.copy()
        rows, columns = self._window(shot, margin)
        behind = result[rows, columns]
        result[rows, columns] = behind + self.alpha[..., None] * (self.radiance - behind)
        return result

    def covers(self, shape: tuple[int, int], shot: int) -> NDArray[np.bool_]:
        """Where the object is in a shot, ``[H,W]``."""
        mask = np.zeros(shape, bool)
        mask[self._window(shot, 0)] = self.alpha > 0
        return mask

    def _window(self, shot: int, margin: int) -> tuple[slice, slice]:
        top, left = (int(corner) + margin for corner in self.corners[shot])
        return slice(top, top + self.alpha.shape[0]), slice(left, left + self.alpha.shape[1])


@dataclass(frozen=True)
class Truth:
    """What is known about a bracket made here; shots are darkest first.

    ``poses`` ``[N,3,3]`` map pixel coordinates (x, y, 1; centres at integers) of the reference to those of a shot,
    ``evs`` ``[N]`` stops against the reference, ``radiance`` ``[H,W,3]`` linear BT.709 in the frame of the reference,
    1.0 = its white, ``background`` the same without the moving object.
    """

    poses: Matrix
    evs: Matrix
    radiance: Image32
    background: Image32
    object: MovingObject | None = None

    @property
    def reference(self) -> int:
        return len(self.evs) // 2

    def scene(self, shot: int) -> Image32:
        """The radiance at the moment of a shot, ``[H,W,3]`` in the frame of the reference."""
        return self.background if self.object is None else self.object.pasted(self.background, shot)

    @property
    def moving(self) -> NDArray[np.bool_] | None:
        """Where the object is in any shot, ``[H,W]``."""
        if self.object is None:
            return None
        shape = self.radiance.shape[0], self.radiance.shape[1]
        return np.logical_or.reduce([self.object.covers(shape, shot) for shot in range(len(self.evs))])

    def save(self, folder: Path) -> None:
        save_exr(folder / "truth.exr", self.radiance)
        moving = {}
        if self.object is not None:
            save_exr(folder / "background.exr", self.background)
            moving = {f"object_{name}": getattr(self.object, name) for name in ("radiance", "alpha", "corners")}
        noise = {"full_well_electrons": FULL_WELL_ELECTRONS, "read_noise_electrons": READ_NOISE_ELECTRONS}
        np.savez_compressed(folder / "truth.npz", poses=self.poses, evs=self.evs, neutral=NEUTRAL, **noise, **moving)

    @classmethod
    def load(cls, folder: Path) -> Truth:
        with np.load(folder / "truth.npz") as file:
            known = dict(file)
        radiance = load_exr(folder / "truth.exr")
        moving, background = None, radiance
        if "object_alpha" in known:
            moving = MovingObject(*(known[f"object_{name}"] for name in ("radiance", "alpha", "corners")))
            background = load_exr(folder / "background.exr")
        return cls(known["poses"], known["evs"], radiance, background, moving)


def save_exr(path: Path, pixels: Image32) -> None:
    header = {
        "compression": OpenEXR.PIZ_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "chromaticities": BT709_CHROMATICITIES,
    }
    OpenEXR.File(header, {"RGB": pixels.astype(np.float16)}).write(str(path))


def load_exr(path: Path) -> Image32:
    """The colours of an EXR file, ``[H,W,3]``."""
    with OpenEXR.File(str(path)) as file:
        channels = file.channels()
        pixels = channels["RGB"].pixels if "RGB" in channels else np.stack([channels[c].pixels for c in "RGB"], -1)
        return np.asarray(pixels, np.float32)


def draw_poses(kind: Kind, shots: int, width: int, height: int, random: np.random.Generator) -> Matrix:
    """A pose for every shot, ``[N,3,3]``; that of the middle one is the identity."""
    smallest, largest, turn_low, turn_high, tilt = {
        "tripod": (0, 0, 0, 0, 0),
        "handheld": (20, 60, 0.3, 1.0, 0.0015),
    }.get(kind, (5, 12, 0.05, 0.1, 0))
    poses = []
    for shot in range(shots):
        direction, length = random.uniform(0, 2 * np.pi), random.uniform(smallest, largest)
        angle = np.radians(random.uniform(turn_low, turn_high)) * random.choice((-1, 1))
        tilts = random.uniform(-tilt, tilt, 2) / (width / 2)
        if shot == shots // 2:
            poses.append(np.eye(3))
            continue
        to_center, back = np.eye(3), np.eye(3)
        to_center[:2, 2] = -(width - 1) / 2, -(height - 1) / 2
        back[:2, 2] = -to_center[:2, 2] + length * np.array([np.cos(direction), np.sin(direction)])
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [*tilts, 1]])
        pose = back @ turn @ to_center
        poses.append(pose / pose[2, 2])
    return np.stack(poses)


def moved(matrix: Matrix, points: Matrix) -> Matrix:
    """Points ``[N,2]`` (x, y) through a homography."""
    mapped = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    result: Matrix = mapped[:, :2] / mapped[:, 2:]
    return result


def linear(encoded: Image32) -> Image32:
    """sRGB values to linear light."""
    result: Image32 = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return result.astype(np.float32)


def encoded(light: Image32) -> Image32:
    """Linear light 0..1 to sRGB values."""
    result: Image32 = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return result.astype(np.float32)


def scene_of(photo: Path, width: int, height: int) -> Image32:
    """A scene ``[H,W,3]`` in linear BT.709 out of the middle of a photograph: textured, highlights far above 1."""
    with Image.open(photo) as file:
        source = np.asarray(file.convert("RGB"), np.float32) / 255
    across = min(source.shape[1], source.shape[0] * width / height)
    x, y = int((source.shape[1] - across) / 2), int((source.shape[0] - across * height / width) / 2)
    source = np.ascontiguousarray(source[y : y + int(across * height / width), x : x + int(across)])
    how = cv2.INTER_AREA if source.shape[1] > width else cv2.INTER_CUBIC
    scene = linear(cv2.resize(source, (width, height), interpolation=how).clip(0, 1))
    scene *= _texture(source, width, height)[..., None]
    scene = cv2.GaussianBlur(scene, (0, 0), 0.6)
    scene *= 0.6 + 9 * np.clip(scene @ LUMINANCE, 0, 1)[..., None] ** 2.5
    return scene


def _texture(source: Image32, width: int, height: int) -> Image32:
    """Factors ``[H,W]`` around 1: the photograph's own details, at its own scale, mirrored until they fill the frame.

    They are strong where the enlarged photograph has details, weak in its skies.
    """
    light = np.log(linear(source) @ LUMINANCE + 0.01)
    detail = light - cv2.GaussianBlur(light, (0, 0), 2.5)
    local = np.sqrt(cv2.GaussianBlur(detail**2, (0, 0), 24))
    detail = np.clip(detail / (local + 0.25 * local.mean()), -3, 3)
    below, beside = max(0, height - detail.shape[0]), max(0, width - detail.shape[1])
    detail = cv2.copyMakeBorder(detail, 0, below, 0, beside, cv2.BORDER_REFLECT)[:height, :width]
    busy = cv2.resize(local / np.quantile(local, 0.9), (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    factors: Image32 = np.clip(1 + DETAIL * (1 / 3 + 2 / 3 * busy) * detail, 0.5, 1.5)
    return factors


def object_of(photo: Path, width: int, shots: int, random: np.random.Generator) -> MovingObject:
    """A textured ellipse, an eighth of the frame wide, that crosses the middle of a 3:2 frame of this width."""
    w, h = width // 8, width // 10
    radiance = np.minimum(scene_of(photo, w, h), 2)
    radiance *= 0.2 / np.median(radiance @ LUMINANCE)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    middle = (h - 1) / 2, (w - 1) / 2
    inside = 1 - np.hypot((y - middle[0]) / middle[0], (x - middle[1]) / middle[1])
    alpha = np.clip(inside * middle[0] / 3, 0, 1)
    start = np.array([width / 3 * random.uniform(0.8, 1.1), width / 2 * random.uniform(0.8, 1.1)]) - (h / 2, w / 2)
    step = np.array([0.25 * h, 0.7 * w])
    corners = np.rint(start + (np.arange(shots) - shots // 2)[:, None] * step).astype(np.int64)
    if corners.min() < 0 or (corners.max(0) > (width * 2 // 3 - h, width - w)).any():
        raise SystemExit(f"{shots} shots: the object would leave the frame; make at most 5 with motion")
    return MovingObject(radiance.astype(np.float32), alpha.astype(np.float32), corners)


def seen(scene: Image32, pose: Matrix, width: int, height: int, margin: int) -> Image32:
    """A scene that reaches ``margin`` px over the frame, as the camera sees it in a pose: ``[H,W,3]``."""
    if np.array_equal(pose, np.eye(3)):
        return scene[margin : margin + height, margin : margin + width].copy()
    result = np.empty((height, width, 3), np.float32)
    back = np.linalg.inv(pose)
    for channel in range(3):
        spline = ndimage.spline_filter(scene[..., channel], output=np.float32, mode="mirror")

        def fill(top: int, spline: Image32 = spline, channel: int = channel) -> None:
            y, x = np.mgrid[top : min(top + 128, height), :width].astype(np.float64)
            w = back[2, 0] * x + back[2, 1] * y + back[2, 2]
            at = [(back[r, 0] * x + back[r, 1] * y + back[r, 2]) / w + margin for r in (1, 0)]
            ndimage.map_coordinates(
                spline, at, output=result[top : top + 128, :, channel], prefilter=False, mode="mirror"
            )

        with ThreadPoolExecutor() as pool:
            list(pool.map(fill, range(0, height, 128)))
    return np.maximum(result, 0, out=result)


def recorded(light: Image32, random: np.random.Generator) -> Image32:
    """Light as a fraction of full well with shot and read noise, not clipped."""
    sigma = np.sqrt(light / FULL_WELL_ELECTRONS + np.float32((READ_NOISE_ELECTRONS / FULL_WELL_ELECTRONS) ** 2))
    sigma *= random.standard_normal(light.shape, dtype=np.float32)
    sigma += light
    return sigma


def mosaic_of(rgb: Image32) -> Image32:
    """What the synthetic camera's RGGB filter lets through of linear BT.709 light ``[H,W,3]``: ``[H,W]``."""
    mosaic = rgb[..., 1].copy()
    mosaic[0::2, 0::2] = rgb[0::2, 0::2, 0] * np.float32(NEUTRAL[0])
    mosaic[1::2, 1::2] = rgb[1::2, 1::2, 2] * np.float32(NEUTRAL[2])
    return mosaic


def nominal_time_s(ev: float) -> Fraction:
    """The exposure time that a camera writes into its files."""
    wanted = REFERENCE_TIME_S * 2.0**ev
    return Fraction(1, min(SHUTTER_DENOMINATORS, key=lambda d: abs(np.log(wanted * d))))


def exif_of(shot: int, ev: float) -> Image.Exif:
    """What the camera writes beside a shot."""
    exif = Image.Exif()
    exif[271], exif[272], exif[274] = "restorekit", "Synthetic One", 1
    seconds, part = divmod(shot, FRAME_RATE_HZ)
    rational = TiffImagePlugin.IFDRational
    time = nominal_time_s(ev)
    exif.get_ifd(0x8769).update(
        {
            33434: rational(time.numerator, time.denominator),
            33437: rational(8),
            34855: 100,
            36867: f"2026:01:02 10:00:{seconds:02}",
            37521: f"{part * 1000 // FRAME_RATE_HZ:03}",
            37386: rational(35),
            41989: 35,
        }
    )
    return exif


def save_jpeg(path: Path, light: Image32, exif: Image.Exif, random: np.random.Generator) -> None:
    """One shot as the camera's own sRGB picture, quality 95 without colour subsampling."""
    picture = encoded(recorded(light, random).clip(0, 1))
    Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(path, quality=95, subsampling=0, exif=exif)


def save_dng(path: Path, light: Image32, exif: Image.Exif, time_s: float, random: np.random.Generator) -> None:
    """One shot as a 16-bit RGGB mosaic."""
    levels = np.rint(recorded(mosaic_of(light), random) * (WHITE - BLACK) + BLACK)
    noise = (1 / FULL_WELL_ELECTRONS, (READ_NOISE_ELECTRONS / FULL_WELL_ELECTRONS) ** 2)
    matrix = np.diag(NEUTRAL) @ np.linalg.inv(rgb_to_xyz("bt709"))
    camera = Camera(
        "restorekit", "Synthetic One", calibrations=(Calibration(6504.0, matrix),), noise_profile=(noise,) * 3
    )
    frame = Frame.from_bayer(
        levels.clip(0, WHITE).astype(np.uint16),
        pattern="RGGB",
        black=BLACK,
        white=WHITE,
        exposure=Exposure(time_s=time_s, f_number=8.0, iso=100.0),
        neutral=NEUTRAL,
        camera=camera,
    )
    held = io.BytesIO(exif.tobytes()).getvalue().removeprefix(b"Exif\0\0")
    write_dng(path, Frame(**{**frame.__dict__, "metadata": Metadata(exif=held)}))


def make_bracket(
    photos: Sequence[Path],
    out: Path,
    *,
    kind: Kind = "static",
    megapixels: float = 24,
    evs: Sequence[float] = (-2, 0, 2),
    formats: Sequence[str] = ("jpeg", "dng"),
    seed: int = 1,
) -> Truth:
    """Write the shots of a bracket and their truth into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    width = round((megapixels * 1.5e6) ** 0.5 / 6) * 6
    height = width * 2 // 3
    random = np.random.default_rng(seed)
    poses = draw_poses(kind, len(evs), width, height, random)
    corners = np.array([(x, y) for x in (0, width - 1) for y in (0, height - 1)], float)
    margin = int(max(np.abs(moved(np.linalg.inv(pose), corners) - corners).max() for pose in poses)) + 12
    scene = scene_of(photos[0], width + 2 * margin, height + 2 * margin)
    moving = object_of(photos[-1], width, len(evs), random) if kind == "motion" else None
    background = scene[margin : margin + height, margin : margin + width]
    middle = len(evs) // 2
    radiance = background if moving is None else moving.pasted(background, middle)
    truth = Truth(poses, np.sort(np.asarray(evs, float)), radiance, background, moving)
    truth.save(out)
    for shot, (pose, ev) in enumerate(zip(truth.poses, truth.evs, strict=True)):
        here = scene if moving is None else moving.pasted(scene, shot, margin)
        light = seen(here, pose, width, height, margin) * np.float32(2.0**ev)
        exif = exif_of(shot, ev)
        if "jpeg" in formats:
            save_jpeg(out / f"b{shot}.jpg", light, exif, np.random.default_rng((seed, shot, 0)))
        if "dng" in formats:
            time_s = float(nominal_time_s(ev))
            save_dng(out / f"r{shot}.dng", light, exif, time_s, np.random.default_rng((seed, shot, 1)))
    return truth


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path, help="the scene, and for motion where the object comes from")
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", default="static", choices=get_args(Kind))
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--shots", type=int, help="how many, 2 EV apart; default 3, handheld 5")
    parser.add_argument("--ev", help="exposures in stops, 0 in the middle, such as --ev=-2,0,2; instead of --shots")
    parser.add_argument("--formats", default="jpeg,dng")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    shots = arguments.shots or (5 if arguments.kind == "handheld" else 3)
    evs = (
        [float(ev) for ev in arguments.ev.split(",")]
        if arguments.ev
        else [2.0 * (i - shots // 2) for i in range(shots)]
    )
    if sorted(evs)[len(evs) // 2] != 0:
        parser.error(f"--ev {arguments.ev}: the middle exposure must be 0")
    truth = make_bracket(
        arguments.photos,
        arguments.out,
        kind=arguments.kind,
        megapixels=arguments.megapixels,
        evs=evs,
        formats=arguments.formats.split(","),
        seed=arguments.seed,
    )
    clipped = [f"{(truth.radiance.max(-1) * 2.0**ev >= 1).mean():.1%}" for ev in truth.evs]
    print(f"{arguments.out}: {truth.radiance.shape[1]}x{truth.radiance.shape[0]}, {len(evs)} shots, clipped {clipped}")


if __name__ == "__main__":
    main()
