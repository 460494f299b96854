"""Bad weather by imgaug, a generator that no model of restorekit was trained with.

    python benchmarks/make_weather.py KIND PICTURES OUT

KIND is rain, snow or fog. OUT gets a PNG of each picture, called like it, so that models are measured by
``restorekit eval MODEL PICTURES --inputs OUT``. Each picture draws from its own seed, its number.

imgaug (0.4) is not kept up and needs older libraries, so it gets an environment of its own:

    python -m venv weather
    weather/bin/pip install "numpy<1.24" "opencv-python-headless<4.9" "scipy<1.12" "scikit-image<0.22" "imageio<3"
    weather/bin/pip install shapely six
    weather/bin/pip install --no-deps imgaug
    weather/bin/python benchmarks/make_weather.py rain kodak24 rain
"""

from __future__ import annotations

import argparse
from pathlib import Path

import imageio.v2 as imageio
import imgaug
import imgaug.augmenters as iaa


def heavy(kind: str) -> iaa.Augmenter:
    """Layers upon layers: what imgaug makes by default is light rain and a few flakes."""
    if kind == "rain":
        return iaa.Rain(nb_iterations=(3, 5), drop_size=(0.1, 0.3), speed=(0.05, 0.25))
    if kind == "snow":
        flakes = {"density": (0.05, 0.09), "flake_size": (0.4, 0.8), "speed": (0.007, 0.04)}
        return iaa.Sequential([iaa.Snowflakes(**flakes) for _ in range(3)])
    return iaa.Fog()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("rain", "snow", "fog"))
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    weather = heavy(options.kind)
    for number, path in enumerate(sorted(options.pictures.glob("*.png"))):
        imgaug.seed(number)
        weather.seed_(number)
        imageio.imwrite(options.out / path.name, weather(image=imageio.imread(path)[..., :3]))


if __name__ == "__main__":
    main()
