"""Training learns, goes on where it stopped to the same bits, and refuses what it cannot train on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("lightning")
pytest.importorskip("tensorboard")

from restorekit.errors import RestorekitError
from restorekit.train.fit import CHECKPOINT, Folders, Resources, train
from restorekit.train.recipe import Recipe, Step
from restorekit.zoo import checkpoint
from restorekit.zoo.model import load_model

SMALL = Recipe(
    summary="A small one",
    architecture="rlfn",
    config={"feature_channels": 8, "upscale": 2, "blocks": 1},
    data="own pictures",
    degradation=(Step(name="bicubic", parameters={"scale": 2}),),
    patch=16,
    batch=2,
    steps=6,
    learning_rate=2e-3,
    warmup=1,
    ema=0.5,
    precision="bf16",
)


REFLECTIONS = {
    "architecture": "rrformer",
    "config": {
        "n_feats": 8,
        "embed_dim": 8,
        "depths": [1],
        "num_heads": [1],
        "img_size": 32,
        "swin_body": "active",
        "residual": True,
    },
    "degradation": (Step(name="reflection"),),
    "patch": 32,
}
"""Of a recipe for a network whose results are as large as its inputs."""


def picture(seed: int, height: int = 96, width: int = 96) -> np.ndarray:
    """Smooth shapes with edges, uint8 BGR."""
    generator = np.random.default_rng(seed)
    blurred = cv2.GaussianBlur(generator.random((height, width, 3)), (0, 0), 4)
    return ((blurred > 0.5) * 160 + 40).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        cv2.imwrite(str(folder / f"{seed}.png"), picture(seed))
    return folder


def weights(recipe: Recipe, photos: Path, out: Path, **resources: float) -> dict[str, Tensor]:
    train(recipe, Folders(photos), out / "weights.safetensors", resources=Resources(**resources))  # type: ignore[arg-type]
    return checkpoint.read(out / "weights.safetensors")


def test_training_lowers_the_error(photos: Path, tmp_path: Path) -> None:
    said: list[str] = []
    recipe = SMALL.model_copy(update={"steps": 60, "ema": 0.9, "batch": 4})
    scores = []
    for name, steps in (("short", 1), ("long", 60)):
        done = train(
            recipe.model_copy(update={"steps": steps}),
            Folders(photos),
            tmp_path / name / "weights.safetensors",
            validation=Folders(photos),
            resources=Resources(checkpoint_every=20),
            tell=said.append,
        )
        assert done.steps == steps
        scores.append(done.psnr)
    assert scores[0] is not None and scores[1] is not None
    assert scores[1] > scores[0] + 3
    steps = [line.split(":")[0] for line in said if line.startswith("step")]
    assert steps == ["step 1 of 1", *(f"step {n} of 60" for n in (20, 40, 60))]


def test_resumed_training_is_the_same_bit_for_bit(photos: Path, tmp_path: Path) -> None:
    through = weights(SMALL, photos, tmp_path / "through")
    out = tmp_path / "stopped"
    done = train(SMALL, Folders(photos), out / "weights.safetensors", resources=Resources(budget_s=1e-9))
    assert done.steps == 1
    halfway = checkpoint.read(out / "weights.safetensors")
    resumed = weights(SMALL, photos, out)
    assert any(not torch.equal(halfway[key], resumed[key]) for key in resumed)
    assert all(torch.equal(through[key], resumed[key]) for key in through)
    states = [torch.load(place / CHECKPOINT, weights_only=True) for place in (tmp_path / "through", out)]
    assert states[0]["global_step"] == states[1]["global_step"] == SMALL.steps
    first, second = (state["optimizer_states"][0]["state"] for state in states)
    assert all(torch.equal(first[key]["exp_avg_sq"], second[key]["exp_avg_sq"]) for key in first)


def test_finished_training_stays_as_it_is(photos: Path, tmp_path: Path) -> None:
    before = weights(SMALL, photos, tmp_path)
    assert all(torch.equal(before[key], value) for key, value in weights(SMALL, photos, tmp_path).items())


def test_result_is_a_model_that_tells_what_it_is(photos: Path, tmp_path: Path) -> None:
    train(SMALL, Folders(photos), tmp_path / "weights.safetensors")
    model = load_model(tmp_path / "weights.safetensors")
    assert model.scale == 2
    assert model(torch.rand(1, 3, 20, 24)).shape == (1, 3, 40, 48)
    assert model.card is not None
    assert (model.card.task, model.card.trained_on, model.card.config) == ("super-resolution", "bicubic", SMALL.config)
    assert checkpoint.metadata(tmp_path / "weights.safetensors")["step"] == "6"


def on_two_devices(recipe: Recipe, photos: Path, folder: Path) -> dict[str, Tensor]:
    (folder / "small.yaml").write_text(recipe.written())
    arguments = ["train", "small.yaml", "--data", photos, "--out", "shared", "--device", "cpu", "--devices", "2"]
    command = [sys.executable, "-m", "restorekit", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"{recipe.steps} steps") == 1
    return checkpoint.read(folder / "shared" / "weights.safetensors")


def test_devices_share_each_batch(photos: Path, tmp_path: Path) -> None:
    """Two processes make of a batch what one does, to the rounding of a sum."""
    exact = SMALL.model_copy(update={"precision": "fp32"})
    alone = weights(exact, photos, tmp_path / "alone")
    shared = on_two_devices(exact, photos, tmp_path)
    assert max(float((alone[key] - shared[key]).abs().max()) for key in alone) < 1e-5


def test_devices_share_networks_with_weights_of_no_use(photos: Path, tmp_path: Path) -> None:
    """RRFormer's last convolution of its body has weights in files, and nothing is made of them."""
    recipe = SMALL.model_copy(update={**REFLECTIONS, "precision": "fp32", "steps": 3})
    trained = on_two_devices(recipe, photos, tmp_path)
    assert float(trained["deconv3.conv2d.weight"].abs().max()) > 0.0  # fresh ones are 0


def test_training_starts_from_a_model(photos: Path, tmp_path: Path) -> None:
    weights(SMALL, photos, tmp_path / "first")
    said: list[str] = []
    start = str(tmp_path / "first" / "weights.safetensors")
    threefold = {**SMALL.config, "upscale": 3}
    bicubic = (Step(name="bicubic", parameters={"scale": 3}),)
    recipe = SMALL.model_copy(
        update={"start": start, "config": threefold, "degradation": bicubic, "steps": 1, "learning_rate": 1e-9}
    )
    train(recipe, Folders(photos), tmp_path / "second" / "weights.safetensors", tell=said.append)
    first, second = (checkpoint.read(tmp_path / name / "weights.safetensors") for name in ("first", "second"))
    assert said[0].startswith("starts from ")
    assert torch.allclose(first["conv_1.weight"], second["conv_1.weight"], atol=1e-6)
    assert first["upsampler.0.weight"].shape != second["upsampler.0.weight"].shape


def test_paired_folders(photos: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for path in photos.iterdir():
        cv2.imwrite(str(inputs / path.name), cv2.imread(str(path))[::2, ::2])
    recipe = SMALL.model_copy(update={"degradation": (), "scale": 2})
    done = train(
        recipe,
        Folders(photos, inputs),
        tmp_path / "out" / "weights.safetensors",
        validation=Folders(photos, inputs),
    )
    assert done.psnr is not None
    with pytest.raises(RestorekitError, match="--inputs"):
        train(recipe, Folders(photos), tmp_path / "other" / "weights.safetensors")
    with pytest.raises(RestorekitError, match="leave out --inputs"):
        train(SMALL, Folders(photos, inputs), tmp_path / "other" / "weights.safetensors")


def test_pairs_are_reduced_that_are_made(photos: Path, tmp_path: Path) -> None:
    recipe = SMALL.model_copy(update={**REFLECTIONS, "estimate": (2.0, 3.0), "steps": 2})
    held_out = Folders(photos)
    done = train(recipe, held_out, tmp_path / "small" / "weights.safetensors", validation=held_out)
    assert done.psnr is not None
    made = [checkpoint.read(tmp_path / "small" / "weights.safetensors"), weights(
        recipe.model_copy(update={"estimate": (1.0, 1.0)}), photos, tmp_path / "full"
    )]  # fmt: skip
    assert any(not torch.equal(made[0][key], made[1][key]) for key in made[0])
    for other in (SMALL, recipe.model_copy(update={"degradation": ()})):
        with pytest.raises(RestorekitError, match="estimate: is for pairs of one size"):
            train(
                other.model_copy(update={"estimate": (2.0, 2.0)}),
                Folders(photos, None if other.degradation else photos),
                tmp_path / "other" / "weights.safetensors",
            )


def test_other_recipe_in_the_folder_is_refused(photos: Path, tmp_path: Path) -> None:
    weights(SMALL, photos, tmp_path)
    with pytest.raises(RestorekitError, match="another recipe"):
        weights(SMALL.model_copy(update={"seed": 1}), photos, tmp_path)


def test_patch_off_the_grid_is_refused(photos: Path, tmp_path: Path) -> None:
    network = {"architecture": "drunet", "config": {"in_nc": 3, "out_nc": 3, "nc": [8, 8, 8], "nb": 1}}
    recipe = SMALL.model_copy(update={**network, "degradation": (Step(name="gaussian_noise"),), "patch": 18})
    with pytest.raises(RestorekitError, match=r"patch: 18: .* multiples of 4 px"):
        weights(recipe, photos, tmp_path)


def test_network_of_another_scale_is_refused(photos: Path, tmp_path: Path) -> None:
    recipe = SMALL.model_copy(update={"config": {**SMALL.config, "upscale": 3}})
    with pytest.raises(RestorekitError, match="3 times"):
        weights(recipe, photos, tmp_path)
    assert not list(tmp_path.iterdir())
