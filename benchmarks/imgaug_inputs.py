"""Bad weather and darkness by imgaug, a generator that no model of restorekit was trained with.

    python benchmarks/imgaug_inputs.py KIND PICTURES OUT

KIND is rain, snow, fog or dark. OUT gets a PNG of each picture, called like it, so that models are measured by
``restorekit eval MODEL PICTURES --inputs OUT``. Each picture draws from its own seed, its number.

imgaug (0.4) is not kept up and needs older libraries, so it gets an environment of its own:

    python -m venv imgaug
    imgaug/bin/pip install "numpy<1.24" "opencv-python-headless<4.9" "scipy<1.12" "scikit-image<0.22" "imageio<3"
    imgaug/bin/pip install shapely six
    imgaug/bin/pip install --no-deps imgaug
    imgaug/bin/python benchmarks/imgaug_inputs.py rain kodak24 rain
"""

from __future__ import annotations

import argparse
from pathlib import Path

import imageio.v2 as imageio
import imgaug
import imgaug.augmenters as iaa


def augmenter(kind: str) -> iaa.Augmenter:
    """Layers upon layers: what imgaug makes by default is light rain and a few flakes."""
    if kind == "rain":
        return iaa.Rain(nb_iterations=(3, 5), drop_size=(0.1, 0.3), speed=(0.05, 0.25))
    if kind == "snow":
        flakes = {"density": (0.05, 0.09), "flake_size": (0.4, 0.8), "speed": (0.007, 0.04)}
        return iaa.Sequential([iaa.Snowflakes(**flakes) for _ in range(3)])
    if kind == "fog":
        return iaa.Fog()
    return iaa.Sequential(
        [
            iaa.GammaContrast((1.2, 2.2)),
            iaa.Multiply((0.2, 0.5)),
            iaa.AdditivePoissonNoise((1, 4), per_channel=True),
            iaa.AdditiveGaussianNoise(scale=(1, 4), per_channel=True),
            iaa.JpegCompression((5, 15)),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("rain", "snow", "fog", "dark"))
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    chain = augmenter(options.kind)
    for number, path in enumerate(sorted(options.pictures.glob("*.png"))):
        imgaug.seed(number)
        chain.seed_(number)
        imageio.imwrite(options.out / path.name, chain(image=imageio.imread(path)[..., :3]))


if __name__ == "__main__":
    main()
