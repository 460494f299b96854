"""The photographs and lights of ``illuminant.py``, and the pairs of exposures it makes of them.

DATA holds ``inteltau_imx135`` (30 pictures of INTEL-TAU's Sony IMX135 with their lights, as C5 ships them: linear,
black subtracted, 384x256), ``cubepp`` (lights of Cube++) and ``fc4_gehler`` (lights of Gehler-Shi).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import scipy.io
import torch
from torch import Tensor

from restorekit.data.degradation import seeded, uniform, whole
from restorekit.data.exposures import DualExposure
from restorekit.data.relighting import Photograph, drawn_light, matched, random_camera, sees
from restorekit.frame import Frame
from restorekit.train.illuminant import pair

SCENES = (
    (1,), (2, 3), (4,), (5,), (6,), (7,), (8, 9, 10), (11,), (12,), (13, 14, 15, 16), (17,), (18, 21, 25), (19,), (20,),
    (22,), (23, 24), (26, 27), (28,), (29, 30),
)  # fmt: skip
"""Numbers of the pictures that show one place in one light, by eye."""

FOLDS = (
    (1, 2, 3), (4, 5, 6, 7), (8, 9, 10), (11, 12), (13, 14, 15, 16), (17, 19, 20), (18, 21, 25), (22, 23, 24),
    (26, 27, 28), (29, 30),
)  # fmt: skip
"""Pictures that are tested together, whole scenes."""

CAMERA_SPREAD = 0.05
JITTER = 0.03
OWN_LIGHT = 8
"""Every so many draws for training a picture keeps its light and its camera."""

PART = 0.55, 2
"""Least share of height and width of a part for training, and the step between its pixels."""

BRIGHTER_EV = -1.5, 1.5
"""By so much a picture at the side of another is brighter."""

TRAINING, TESTING, FINAL = 11, 12, 13
"""Seeds of what is drawn."""


@dataclass(frozen=True, eq=False)
class Data:
    """The pictures, number 1 first, and the lights of the two tables, each ``[N,3]``."""

    photographs: tuple[Photograph, ...]
    tables: tuple[Tensor, Tensor]

    @staticmethod
    def read(folder: Path) -> Data:
        photographs = []
        for path in sorted((folder / "inteltau_imx135").glob("*.png")):
            pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1].astype(np.float32) / 65535
            told = json.loads(path.with_name(f"{path.stem}_metadata.json").read_text())
            photographs.append(
                Photograph(
                    torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
                    torch.tensor(told["illuminant_color_raw"], dtype=torch.float32),
                )
            )
        with (folder / "cubepp" / "challenge_train_general.csv").open() as file:
            cube = [[float(row[channel]) for channel in "rgb"] for row in csv.DictReader(file)]
        gehler = scipy.io.loadmat(folder / "fc4_gehler" / "real_illum_568..mat")["real_rgb"]
        return Data(tuple(photographs), (torch.tensor(cube), torch.from_numpy(np.asarray(gehler, np.float32))))

    def scene(self, number: int, options: DualExposure) -> Photograph:
        """A picture to be exposed; where exposures clip, what is clipped in it is brighter than they hold."""
        photograph = self.photographs[number - 1]
        return photograph if options.clipped is None and options.knee is None else photograph.beyond_clipping()

    def numbers(self) -> range:
        return range(1, len(self.photographs) + 1)

    def lights(self, known: Sequence[int], test: bool) -> tuple[Tensor, Tensor]:
        """Both tables as the camera may see them, by the lights of the known pictures: a fifth of each for tests."""
        like = torch.stack([self.photographs[number - 1].light for number in known])
        own = [torch.arange(len(table)) % 5 == 0 for table in self.tables]
        return tuple(  # type: ignore[return-value]
            matched(table, like)[mine if test else ~mine] for table, mine in zip(self.tables, own, strict=True)
        )


def relit(
    photograph: Photograph, lights: tuple[Tensor, Tensor], camera: Tensor, generator: torch.Generator
) -> Photograph:
    """A picture under a light of either table, as a camera sees it."""
    while True:
        table = lights[int(torch.randint(0, 2, (), generator=generator))]
        light = drawn_light(table, generator, JITTER)
        if sees(camera, light):
            return photograph.relit(light).seen_by(camera)


def training_pairs(
    data: Data, numbers: Sequence[int], draws: int, seed: int, options: DualExposure
) -> Iterator[tuple[Frame, Frame, Tensor]]:
    """Short and long frames with their lights: parts of pictures, most under other lights and by other cameras.

    Every second one has part of another of the pictures at its side, in the same light.
    """
    lights = data.lights(numbers, test=False)
    for number in numbers:
        for draw in range(draws):
            generator = seeded(seed, number, draw)
            picture = data.scene(number, options).part(generator, *PART)
            if draw % 2:
                other = data.scene(numbers[whole(generator, 0, len(numbers) - 1)], options).part(generator, *PART)
                picture = picture.beside(other, 2.0 ** uniform(generator, BRIGHTER_EV))
            if draw % OWN_LIGHT:
                picture = relit(picture, lights, random_camera(generator, CAMERA_SPREAD), generator)
            yield (*pair(picture, generator, options), picture.light)


def tested_pictures(
    data: Data, kind: str, draws: int, options: DualExposure
) -> Iterator[tuple[int, int, Photograph, torch.Generator]]:
    """Number, draw, picture and generator of every test: ``real`` as they are, ``relit`` by one camera a draw."""
    lights = data.lights(data.numbers(), test=True)
    for draw in range(draws):
        camera = random_camera(seeded(TESTING, draw), CAMERA_SPREAD)
        for number in data.numbers():
            generator = seeded(TESTING, draw, number, len(kind))
            picture = data.scene(number, options)
            yield number, draw, picture if kind == "real" else relit(picture, lights, camera, generator), generator
