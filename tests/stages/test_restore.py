"""The learned stage: states, guards, alpha, gray, 16 bit, light above 1, and what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from restorekit import Pipeline, Restore, read, write
from restorekit.engine import Run, process
from restorekit.errors import InputError, ModelError, PipelineError, StageError
from restorekit.facts import Metadata
from restorekit.frame import Frame
from restorekit.pipeline import InputSpec, parameter_problems
from restorekit.stage import Stage
from restorekit.stages.carried import carried_gain, reduced
from restorekit.stages.color import Decode, Encode
from restorekit.stages.denoise import NlMeans
from restorekit.stages.finish import Sharpen
from restorekit.stages.geometry import Resize
from restorekit.stages.resampling import bicubic, resampled
from restorekit.state import ImageState
from restorekit.testing import StageLaws, rgb_frame
from restorekit.zoo.model import load_model

pytestmark = pytest.mark.usefixtures("with_tiny_models")

SRGB = ImageState()
GRAY = ImageState(layout="gray")
LINEAR = ImageState("rgb", "scene", "linear", "bt709")


def gray_frame() -> Frame:
    return Frame(rgb_frame().pixels[:1], GRAY)


def masked(frame: Frame) -> Frame:
    alpha = torch.linspace(0, 1, frame.width).expand(1, frame.height, -1).clone()
    return replace(frame, alpha=alpha, masks={"clipped": frame.pixels > 0.7})


class TestLaws(StageLaws):
    stages = (
        Restore(model="tiny.x2.safetensors"),
        Restore(model="tiny.x2.safetensors", lock_color=True, overshoot=0.1, amount=0.7, detail=0.2),
        Restore(model="tiny.luma_x3.safetensors"),
    )
    frames = (rgb_frame(state=SRGB), masked(rgb_frame(17, 40, state=SRGB)), gray_frame())

    @pytest.fixture(autouse=True)
    def beside_the_models(self, with_tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(with_tiny_models / "models")


@pytest.mark.parametrize("model", ["tiny.x2", "tiny.luma_x3", "tiny.ycbcr_x2"])
def test_gray_stays_gray(model: str) -> None:
    frame = gray_frame()
    result = Restore(model=model)(frame)
    assert result.state.layout == "gray" and result.pixels.shape[0] == 1
    in_color = Restore(model=model)(Frame(frame.pixels.expand(3, -1, -1), SRGB))
    torch.testing.assert_close(result.pixels, in_color.pixels.mean(0, keepdim=True), atol=1e-5, rtol=0)


def test_luma_networks_leave_the_colours_to_bicubic() -> None:
    frame = rgb_frame(state=SRGB)
    result = Restore(model="tiny.luma_x3")(frame).pixels
    smooth = resampled(frame.pixels, frame.height * 3, frame.width * 3, bicubic)
    for channel in (0, 2):
        difference = (result[channel] - result[1]) - (smooth[channel] - smooth[1])
        assert float(difference.abs().max()) < 1e-5
    assert float((result - smooth).abs().max()) > 0.01, "the luma is the network's"


def test_amount_nothing_is_the_enlarged_input() -> None:
    frame = rgb_frame(state=SRGB)
    result = Restore(model="tiny.x2", amount=0.0)(frame).pixels
    torch.testing.assert_close(
        result, resampled(frame.pixels, frame.height * 2, frame.width * 2, bicubic), atol=1e-5, rtol=0
    )


def test_colour_is_locked_where_the_card_says_that_it_shifts() -> None:
    frame = rgb_frame(state=SRGB)
    usual, locked = (Restore(model="tiny.casts_x2", lock_color=lock)(frame).pixels for lock in (None, True))
    assert torch.equal(usual, locked)
    assert not torch.equal(usual, Restore(model="tiny.casts_x2", lock_color=False)(frame).pixels)
    unlocked = Restore(model="tiny.x2")(frame).pixels
    assert torch.equal(unlocked, Restore(model="tiny.x2", lock_color=False)(frame).pixels)


def test_light_above_white_goes_through_pq() -> None:
    frame = rgb_frame(state=LINEAR, peak=12.0)
    result = Restore(model="tiny.x2", encoding="pq", amount=0.0)(frame)
    assert result.state == LINEAR
    smooth = resampled(frame.pixels, frame.height * 2, frame.width * 2, bicubic)
    assert float(result.pixels.amax()) > 9
    assert float((result.pixels - smooth).abs().mean()) < 0.2
    assert bool(Restore(model="tiny.x2", encoding="pq")(frame).pixels.isfinite().all())
    before = frame.pixels.mean((1, 2))
    unlocked, locked = (
        Restore(model="tiny.casts_x2", encoding="pq", lock_color=lock, overshoot=4.0)(frame).pixels.mean((1, 2))
        for lock in (False, True)
    )
    assert float((unlocked / before - 1).abs().max()) > 0.2, "the network of the test casts"
    assert float((locked / before - 1).abs().max()) < 0.05, "light is locked in linear light"


def test_what_it_refuses() -> None:
    with pytest.raises(StageError, match="restore wants display-referred"):
        Restore(model="tiny.x2")(rgb_frame(state=LINEAR))
    with pytest.raises(StageError, match=r"transfer srgb or gamma.*color.encode|color\.encode"):
        Restore(model="tiny.x2")(rgb_frame(state=ImageState(transfer="linear")))
    with pytest.raises(StageError, match="transfer linear"):
        Restore(model="tiny.x2", encoding="pq")(rgb_frame(state=SRGB))
    (problem,) = parameter_problems(Restore, {"model": "tiny.x1"})
    assert "did you mean 'tiny.x2'" in problem


def test_the_checker_knows_its_states() -> None:
    start = InputSpec(ImageState("rgb", "scene", "linear", "bt709"))
    with pytest.raises(PipelineError, match=r"restore wants display-referred.*tone-mapping"):
        Pipeline([Restore(model="tiny.x2")], start).states()
    Pipeline([Restore(model="tiny.x2", encoding="pq")], start).states()
    ready = Pipeline([Decode(), Encode(), Restore(model="tiny.x2")], InputSpec(SRGB)).states()
    assert ready[-1] == SRGB


def test_colours_outside_the_gamut_do_not_reach_the_network() -> None:
    frame = rgb_frame(state=SRGB)
    wide = frame.with_pixels(frame.pixels * 2.2 - 0.5)
    assert float(wide.pixels.amin()) < -0.1 and float(wide.pixels.amax()) > 1.1
    within = wide.with_pixels(wide.pixels.clamp(0, 1))
    made, limited = (Restore(model="tiny.x2")(each).pixels for each in (wide, within))
    beyond = resampled(wide.pixels - within.pixels, frame.height * 2, frame.width * 2, bicubic)
    torch.testing.assert_close(made, limited + beyond, atol=1e-5, rtol=0)


def test_what_lies_beyond_the_gamut_and_alpha_are_kept_row_by_row_where_nothing_is_enlarged() -> None:
    frame = masked(rgb_frame(200, 40, state=SRGB))
    wide = frame.with_pixels(frame.pixels * 2.2 - 0.5)
    within = wide.with_pixels(wide.pixels.clamp(0, 1))
    pipe = Pipeline([Restore(model="tiny.noise")], InputSpec(SRGB))
    made, limited = (process(pipe, each, Run(tile=48)) for each in (wide, within))
    torch.testing.assert_close(made.pixels - limited.pixels, wide.pixels - within.pixels, atol=1e-5, rtol=0)
    assert made.alpha is not None and frame.alpha is not None
    torch.testing.assert_close(made.alpha, frame.alpha)


def test_equal_channels_stay_equal() -> None:
    frame = Frame(gray_frame().pixels.expand(3, -1, -1).contiguous(), SRGB)
    made = Restore(model="tiny.x2")(frame).pixels
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])
    torch.testing.assert_close(made[:1], Restore(model="tiny.x2")(gray_frame()).pixels)


def test_a_model_of_linear_light_takes_linear_light(with_tiny_models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("tiny.x2.yaml", "tiny.x2.safetensors"):
        (folder / name.replace("x2", "light_x2")).write_bytes((with_tiny_models / "models" / name).read_bytes())
    card = folder / "tiny.light_x2.yaml"
    card.write_text(card.read_text() + "reference: scene\ntransfer: linear\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESTOREKIT_HOME", str(tmp_path))
        stage = Restore(model="tiny.light_x2")
        assert stage(rgb_frame(state=LINEAR)).state == LINEAR
        with pytest.raises(StageError, match="scene-referred"):
            stage(rgb_frame(state=SRGB))
        card.write_text(card.read_text() + "pixels: y\n")
        with pytest.raises(ModelError, match="card says y, the network takes 3 channels"):
            stage(rgb_frame(state=LINEAR))


def test_values_that_are_not_finite_are_replaced_and_noted() -> None:
    frame = rgb_frame(state=SRGB)
    frame.pixels[0, 5, 5] = torch.nan
    result = Restore(model="tiny.x2")(frame)
    assert bool(result.pixels.isfinite().all())
    assert any("not finite" in note for note in result.notes)


def test_the_picture_is_turned_upright_first() -> None:
    frame = replace(rgb_frame(20, 30, state=SRGB), metadata=Metadata(orientation=6))
    result = Restore(model="tiny.x2")(frame)
    assert (result.height, result.width) == (60, 40) and result.metadata.orientation == 1
    torch.testing.assert_close(result.pixels, Restore(model="tiny.x2")(frame.upright()).pixels)


def test_integers_are_fractions_of_their_maximum() -> None:
    frame = rgb_frame(state=SRGB)
    stored = Frame((frame.pixels * 65535).round().to(torch.int32).to(torch.uint16), SRGB)
    torch.testing.assert_close(
        Restore(model="tiny.x2")(stored).pixels, Restore(model="tiny.x2")(frame).pixels, atol=2e-4, rtol=0
    )


def test_a_file_of_weights_is_a_model(with_tiny_models: Path) -> None:
    path = with_tiny_models / "models" / "tiny.x2.safetensors"
    frame = rgb_frame(state=SRGB)
    assert torch.equal(Restore(model=str(path))(frame).pixels, Restore(model="tiny.x2")(frame).pixels)
    assert list(Restore(model=str(path)).files()) == [path]
    with pytest.raises(ModelError, match="no such file of weights"):
        list(Restore(model="gone.pth").files())


def test_a_model_without_weights_is_named_before_anything_is_opened(tmp_path: Path) -> None:
    stage = Restore(model="hat.x4")
    with pytest.raises(
        ModelError, match=r"hat\.x4 has no weights installed; get HAT_SRx4\.pth from https.*--as hat\.x4"
    ):
        list(stage.files())
    warnings = stage.warnings(SRGB)
    assert any("no weights installed" in text for text in warnings)
    assert any("trained on clean pictures" in text for text in warnings)
    assert Restore(model="tiny.x2").warnings(SRGB) == ()


@pytest.mark.parametrize(
    ("before", "model", "said"),
    [
        ([Resize(long_edge=1000)], "drunet.denoise", "stands behind geometry.resize: resampling makes noise"),
        ([Sharpen()], "drunet.jpeg", "stands behind finish.sharpen: sharpening makes noise and blocks stronger"),
        ([NlMeans()], "drunet.denoise", "denoise.nlmeans: what noise is left there looks like none"),
        ([Restore(model="rlfn.clean_x2")], "drunet.denoise", "behind rlfn.clean_x2, which enlarges what is wrong"),
        ([Restore(model="iagc.lowlight")], "drunet.denoise", "behind iagc.lowlight, which brightens noise too"),
        ([Restore(model="drunet.denoise")], "drunet.jpeg", "behind drunet.denoise, which smooths noise"),
        ([Restore(model="drunet.denoise")], "drunet.camera", "does what drunet.denoise has done before it"),
    ],
)
def test_chains_that_models_were_not_made_for_are_warned_of(before: list[Stage], model: str, said: str) -> None:
    behind, alone = (Restore(model=model).warnings(SRGB, stages) for stages in (before, ()))
    (found,) = set(behind) - set(alone)
    assert re.search(said, found) and model in found


def test_a_sound_chain_is_not_warned_of() -> None:
    chain = [Restore(model=name) for name in ("drunet.jpeg", "drunet.denoise", "iagc.lowlight", "tiny.x2", "tiny.x2")]
    for place, stage in enumerate(chain):
        assert stage.warnings(SRGB, chain[:place]) == stage.warnings(SRGB)


def test_the_engine_runs_what_follows_on_its_rows(tmp_path: Path) -> None:
    pipe = Pipeline([Decode(), Encode(), Restore(model="tiny.x2"), Decode(), Encode()], InputSpec(SRGB))
    frame = masked(rgb_frame(70, 50, state=SRGB))
    shares: list[float] = []
    options = Run(progress=lambda _, share: shares.append(share), tile=32)
    result = process(pipe, frame, options)
    direct = Restore(model="tiny.x2")(frame)
    torch.testing.assert_close(result.pixels, direct.pixels, atol=1e-4, rtol=0)
    assert result.alpha is not None and direct.alpha is not None
    torch.testing.assert_close(result.alpha, direct.alpha)
    assert torch.equal(result.masks["clipped"], direct.masks["clipped"])
    assert options.networks["restore"].endswith("tiles, fp32, cpu")
    assert shares == sorted(shares)
    assert set(options.seconds) == {step.id for step in pipe.steps}


@pytest.mark.parametrize("tile", ["auto", 16])
def test_sixteen_bits_and_alpha_reach_the_file(tile: object, tmp_path: Path) -> None:
    from restorekit.jobs import plan
    from restorekit.runner import Runner, RunOptions

    random = np.random.default_rng(0)
    frame = Frame(
        torch.from_numpy(random.integers(0, 65536, (3, 24, 30)).astype(np.uint16)),
        SRGB,
        alpha=torch.from_numpy(random.integers(0, 65536, (1, 24, 30)).astype(np.uint16)),
    )
    from restorekit import OutputSpec

    write(frame, tmp_path / "in.png", OutputSpec(format="png", bits=16))
    pipe = Pipeline([Restore(model="tiny.x2", amount=0.0)], InputSpec(SRGB), [OutputSpec(format="png", bits=16)])
    job = plan(pipe, [tmp_path / "in.png"], tmp_path / "out.png")
    ((_, report),) = Runner(pipe, job, RunOptions(tile=tile)).run()  # type: ignore[arg-type]
    assert report.status == "done", report.error
    made = read(tmp_path / "out.png")
    assert made.pixels.dtype == torch.uint16 and made.alpha is not None
    smooth = resampled(frame.as_float().pixels, 48, 60, bicubic).clamp(0, 1)
    assert float((made.as_float().pixels - smooth).abs().max()) < 2 / 65535
    assert report.networks["restore"]


def test_new_weights_make_a_stale_output_again(with_tiny_models: Path, tmp_path: Path) -> None:
    import os
    import shutil

    from restorekit.jobs import plan
    from restorekit.runner import Runner

    weights = tmp_path / "model.safetensors"
    shutil.copy(with_tiny_models / "models" / "tiny.x2.safetensors", weights)
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "in.png")
    pipe = Pipeline([Restore(model=str(weights))], InputSpec(SRGB))

    def action() -> str:
        made = plan(pipe, [tmp_path / "in.png"], tmp_path / "out")
        (job,) = made.jobs
        list(Runner(pipe, made).run())
        return job.action

    assert [action(), action()] == ["run", "up to date"]
    os.utime(weights, ns=(1, 1))
    assert action() == "run"


def test_pipeline_files_name_models(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "restorekit": 1,
                "name": "p",
                "input": {"state": "display-srgb"},
                "stages": [{"restore": {"model": "tiny"}}],
            }
        )
    )
    with pytest.raises(PipelineError, match=r"p\.yaml:\d+:\d+: .*there is no model of this name; did you mean 'tiny"):
        Pipeline.load(path)


def test_an_image_that_is_no_picture_is_refused() -> None:
    with pytest.raises(InputError):
        process(Pipeline([Restore(model="tiny.x2")], InputSpec(SRGB)), rgb_frame(state=ImageState("bayer", "scene")))


class TestEstimate:
    """Models of light see the picture reduced."""

    def test_the_light_of_the_reduced_picture_is_carried_to_the_full_size(self) -> None:
        frame = rgb_frame(120, 160, state=SRGB)
        small = reduced(frame.pixels, 48, 64)
        lit = load_model("tiny.noise")(small[None])[0]
        expected = torch.cat([rows for _, rows in carried_gain(frame.pixels, small, lit)], 1)
        result = Restore(model="tiny.noise", estimate=64)(frame)
        torch.testing.assert_close(result.pixels, expected, atol=1e-6, rtol=0)
        assert any("saw the picture at 64x48 px" in note for note in result.notes)

    def test_smaller_pictures_are_seen_as_they_are(self) -> None:
        frame = rgb_frame(48, 64, state=SRGB)
        whole = Restore(model="tiny.noise")(frame)
        assert torch.equal(Restore(model="tiny.noise", estimate=64)(frame).pixels, whole.pixels)

    def test_the_card_says_the_size_and_the_pipeline_may_say_another(self) -> None:
        frame = rgb_frame(96, 72, state=SRGB)
        by_card = Restore(model="tiny.light")(frame)
        assert torch.equal(by_card.pixels, Restore(model="tiny.noise", estimate=48)(frame).pixels)
        at_full_size = Restore(model="tiny.light", estimate=0)(frame)
        assert torch.equal(at_full_size.pixels, Restore(model="tiny.noise")(frame).pixels)

    def test_gray_stays_gray_and_alpha_stays(self) -> None:
        gray = Frame(rgb_frame(96, 72).pixels[:1].expand(3, -1, -1), SRGB)
        result = Restore(model="tiny.light")(gray).pixels
        assert torch.equal(result[0], result[1]) and torch.equal(result[0], result[2])
        frame = masked(rgb_frame(96, 72, state=SRGB))
        alpha = Restore(model="tiny.light")(frame).alpha
        assert alpha is not None and frame.alpha is not None
        torch.testing.assert_close(alpha, frame.alpha)

    def test_pictures_of_16_bits_and_of_one_row(self) -> None:
        frame = rgb_frame(96, 72, state=SRGB)
        deep = frame.with_pixels(frame.pixels.clamp(0, 1).mul(65535).round().to(torch.uint16))
        result, expected = Restore(model="tiny.light")(deep).pixels, Restore(model="tiny.light")(frame).pixels
        torch.testing.assert_close(result, expected, atol=2e-3, rtol=0)
        line = Restore(model="tiny.light")(frame.rows(0, 1).with_pixels(frame.pixels[:, :1])).pixels
        assert line.shape == (3, 1, 72) and bool(line.isfinite().all())

    def test_guards_hold(self) -> None:
        frame = rgb_frame(96, 72, state=SRGB)
        whole, half = (Restore(model="tiny.light", amount=amount)(frame).pixels for amount in (1.0, 0.5))
        torch.testing.assert_close(half, (whole + frame.pixels) / 2, atol=1e-5, rtol=0)

    def test_models_that_enlarge_are_refused(self) -> None:
        assert any("leave estimate out" in text for text in Restore(model="tiny.x2", estimate=16).warnings(SRGB))
        with pytest.raises(ModelError, match=r"tiny\.x2: enlarges"):
            Restore(model="tiny.x2", estimate=16)(rgb_frame(40, 40, state=SRGB))


class TestLocal:
    """Statistics of a tile, or of windows in it."""

    def test_windows_make_a_difference_where_the_tile_is_larger(self) -> None:
        frame = rgb_frame(96, 96, state=SRGB)
        whole, windows = (Restore(model="tiny.rain", local=side)(frame).pixels for side in (0, 64))
        assert not torch.equal(whole, windows)
        by_card = Restore(model="tiny.rain")(frame).pixels
        assert torch.equal(by_card, windows)

    def test_the_tile_of_the_card_is_that_of_statistics_over_it(self) -> None:
        """Windows stand in larger tiles than the card's, which are those for statistics over whole tiles."""
        frame = rgb_frame(96, 160, state=SRGB)
        tiles = {}
        for side in (0, 64):
            run = Run()
            process(Pipeline([Restore(model="tiny.rain", local=side)], InputSpec(SRGB)), frame, run)
            tiles[side] = next(iter(run.networks.values()))
        assert "1 tile" in tiles[64] and "1 tile" not in tiles[0], tiles

    def test_models_that_weigh_nothing_over_a_tile_are_refused(self) -> None:
        with pytest.raises(ModelError, match=r"tiny\.noise: DRUNet weighs nothing in windows; leave local out"):
            Restore(model="tiny.noise", local=64).open()
