"""RRFormer against the authors' results, a reference written out here, and its laws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from restorekit import inference
from restorekit.architectures import _vgg, create
from restorekit.architectures._bands import Bands
from restorekit.architectures.rrformer import POOLS, RRFormer, _Pyramid
from restorekit.errors import ModelError
from restorekit.execution import Execution
from restorekit.testing_networks import BandLaws, NetworkLaws, RefusalLaws, picture, run, shapes, tiled
from restorekit.zoo import checkpoint, load

SMALL: dict[str, Any] = {
    "n_feats": 8,
    "embed_dim": 12,
    "depths": [2, 3],
    "num_heads": [3, 2],
    "window_size": 4,
    "img_size": 32,
}
BODIES = ("published", "active")
HYPER: dict[str, Any] = {"in_channels": 1475, "hypercolumn": True}


@pytest.fixture(scope="module")
def vgg_state() -> dict[str, Tensor]:
    """Random weights in the names of torchvision."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for index, (results, channels) in _vgg.SHAPES.items():
        weight = torch.randn(results, channels, 3, 3, generator=generator)
        state[f"features.{index}.weight"] = weight * (2 / (9 * channels)) ** 0.5
        state[f"features.{index}.bias"] = 0.1 * torch.randn(results, generator=generator)
    return state


@pytest.fixture(scope="module")
def home_with_vgg(vgg_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "vgg19").mkdir()
    save_file(vgg_state, home / "vgg19" / "vgg.safetensors")
    return home


@pytest.fixture
def with_vgg(home_with_vgg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTOREKIT_HOME", str(home_with_vgg))


def network(**config: Any) -> RRFormer:
    """With weights that make every part matter, and a result that is in part zero."""
    torch.manual_seed(0)
    net = RRFormer(**{**SMALL, **config}).eval()
    with torch.no_grad():
        for key, value in net.named_parameters():
            if value.dim() > 1:
                value.normal_(0, 1 if key.endswith("table") else 1.5 * value[0].numel() ** -0.5)
            elif key.endswith("bias"):
                value.normal_(0, 0.1)
        net.deconv3.get_parameter("conv2d.bias").fill_(0.5)
    return net


class TestRRFormer(BandLaws, RefusalLaws):
    """Also where the last squares of the pyramid are cut off, and windows filled up."""

    kind = RRFormer
    build = staticmethod(network)
    configs = (
        SMALL,
        {**SMALL, "swin_body": "active"},
        {**SMALL, "swin_body": "active", "residual": True},
        {**SMALL, "swin_body": "active", "pyramid": "bilinear"},
    )
    others = (
        {**SMALL, "in_channels": 11, "out_channels": 1, "mlp_ratio": 1.5, "qkv_bias": False, "depths": [1, 2]},
        {**SMALL, "img_size": 16},
        {**SMALL, "img_size": 16, "depths": [1, 1]},
    )
    published = ((HYPER, 20_355_130, 471),)
    size = (64, 32)
    dark = 1.0
    without_slope = "^swinir_block"  # none as published; that of the active body is compared with the reference
    untold = ("swin_body", "qk_scale", "residual", "pyramid")
    needs = ("^conv1.conv2d.weight", "swinir_block.conv_last.weight", "pyramid_module.bottleneck.weight")
    tall, rows = ((320, 32), (304, 32), (326, 32)), (1, 70)
    refused = (
        ({**SMALL, "swin_body": "on"}, "swin_body is 'on'"),
        ({**SMALL, "pyramid": "cubic"}, "pyramid is 'cubic'"),
        ({**SMALL, "hypercolumn": True}, "in_channels is 3; a hypercolumn has 1475"),
        ({**SMALL, "num_heads": [3]}, "depths has 2 groups and num_heads 1"),
        ({**SMALL, "num_heads": [5, 5]}, "12 channels do not go into 5 heads"),
        ({**SMALL, "img_size": 36}, "takes multiples of 4"),
        ({**SMALL, "residual": True, "out_channels": 1}, "out_channels is not 1"),
    )
    refused_sizes = tuple(
        (height, width, f"even sides from 32 px; pad {width} x {height} px")
        for height, width in ((33, 32), (32, 41), (30, 64))
    )


@pytest.mark.usefixtures("with_vgg")
class TestHypercolumn(NetworkLaws):
    kind = RRFormer
    build = staticmethod(network)
    configs = ({**SMALL, **HYPER},)
    published = (({**SMALL, **HYPER}, 26_930, None),)
    size = (64, 32)
    without_slope = "^swinir_block"
    untold = TestRRFormer.untold


@pytest.mark.parametrize("name", ["rrformer_a", "rrformer_b_pad"])
@pytest.mark.parametrize(("body", "key"), [("published", "output"), ("active", "output_active")])
def test_results_are_those_of_the_authors(authors: Any, name: str, body: str, key: str) -> None:
    case = authors(name)
    net = create("rrformer", **case.config, swin_body=body).eval()
    net.load_state_dict(case.weights)
    x = case.tensors["input"]
    torch.testing.assert_close(run(net, x), case.tensors[key], atol=1e-5, rtol=0)
    torch.testing.assert_close(run(net.double(), x.double()), case.tensors[f"{key}_f64"], atol=1e-12, rtol=0)


# the network again, with all that the authors' code makes -------------------------------------------------------------


def conv(w: dict[str, Tensor], name: str, x: Tensor, **options: Any) -> Tensor:
    return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), **options)


def norm(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def linear(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def attended(w: dict[str, Tensor], name: str, x: Tensor, size: int, shift: int) -> Tensor:
    """One window after the other; pixels that are neighbours only in the rolled map do not see each other."""
    height, width, dim = x.shape
    table, index = w[f"{name}.relative_position_bias_table"], w[f"{name}.relative_position_index"]
    heads = table.shape[1]
    places = torch.arange(height * width).view(height, width).roll((-shift, -shift), (0, 1))
    qkv = linear(w, f"{name}.qkv", x).view(height * width, 3, heads, dim // heads)
    result = torch.empty_like(x).view(-1, dim)
    for top in range(0, height, size):
        for left in range(0, width, size):
            window = places[top : top + size, left : left + size].flatten()
            q, k, v = qkv[window].permute(1, 2, 0, 3)
            scores = q @ k.transpose(1, 2) * (dim // heads) ** -0.5 + table[index].permute(2, 0, 1)
            rows, columns = window // width, window % width
            far = ((rows[:, None] - rows).abs() >= size) | ((columns[:, None] - columns).abs() >= size)
            scores = scores - 100.0 * far if shift else scores
            result[window] = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
    return linear(w, f"{name}.proj", result.view(height, width, dim))


def swin_body(w: dict[str, Tensor], x: Tensor, depths: list[int], size: int) -> Tensor:
    """``[1,C,H,W]`` to the same."""
    height, width = x.shape[2:]
    x = F.pad(x, (0, -width % size, 0, -height % size), "reflect")
    maps = norm(w, "patch_embed.norm", x[0].permute(1, 2, 0))
    for group, depth in enumerate(depths):
        before = maps
        for i in range(depth):
            name = f"layers.{group}.residual_group.blocks.{i}"
            maps = maps + attended(w, f"{name}.attn", norm(w, f"{name}.norm1", maps), size, size // 2 * (i % 2))
            hidden = F.gelu(linear(w, f"{name}.mlp.fc1", norm(w, f"{name}.norm2", maps)))
            maps = maps + linear(w, f"{name}.mlp.fc2", hidden)
        maps = before + conv(w, f"layers.{group}.conv", maps.permute(2, 0, 1), padding=1).permute(1, 2, 0)
    deep = conv(w, "conv_after_body", norm(w, "norm", maps).permute(2, 0, 1)[None], padding=1)
    return (deep + x)[:, :, :height, :width]


def hypercolumn(vgg: dict[str, Tensor], x: Tensor) -> Tensor:
    maps, levels = x, [x]
    for index in range(30):
        if index in _vgg.SHAPES:
            maps = conv(vgg, f"features.{index}", maps, padding=1).relu()
        if index in (4, 9, 18, 27):
            maps = F.max_pool2d(maps, 2)
        if index in (0, 5, 10, 19, 28):
            levels.append(F.interpolate(maps, x.shape[2:], mode="bilinear", align_corners=False))
    return torch.cat(levels, 1)


def reference(w: dict[str, Tensor], x: Tensor, active: bool, vgg: dict[str, Tensor] | None = None) -> Tensor:
    x = x if vgg is None else hypercolumn(vgg, x)
    x = conv(w, "conv1.conv2d", x).relu()
    x = conv(w, "conv2.conv2d", x, padding=1).relu()
    x = conv(w, "conv3.conv2d", x, padding=1, stride=2).relu()
    if active:
        inside = {key.removeprefix("swinir_block."): value for key, value in w.items() if key.startswith("swinir")}
        x = torch.cat([swin_body(inside, one[None], SMALL["depths"], SMALL["window_size"]) for one in x])
    x = F.conv_transpose2d(x, w["deconv1.conv2d.weight"], w["deconv1.conv2d.bias"], stride=2, padding=1).relu()
    x = conv(w, "deconv2.conv2d", x, padding=1).relu()
    priors = []
    for stage, side in enumerate((4, 8, 16, 32)):
        prior = F.leaky_relu(conv(w, f"pyramid_module.stages.{stage}.1", F.avg_pool2d(x, side)), 0.2)
        priors.append(F.interpolate(prior, x.shape[2:], mode="nearest"))
    x = F.leaky_relu(conv(w, "pyramid_module.bottleneck", torch.cat((*priors, x), 1)), 0.2)
    return conv(w, "deconv3.conv2d", x).relu()


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(("height", "width"), [(64, 96), (48, 40), (50, 62), (106, 32)])
def test_equals_the_network_written_out(body: str, height: int, width: int) -> None:
    net, x = network(swin_body=body), picture(height, width, batch=2)
    expected = reference(dict(net.state_dict()), x, body == "active")
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(run(net, x), expected, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("with_vgg")
@pytest.mark.parametrize(("height", "width"), [(32, 48), (50, 62)])
def test_a_hypercolumn_that_is_never_made_gives_what_it_would(
    vgg_state: dict[str, Tensor], height: int, width: int
) -> None:
    net, x = network(**HYPER), picture(height, width, batch=2)
    assert net.in_channels == 3
    expected = reference(dict(net.state_dict()), x, False, vgg_state)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(run(net, x), expected, atol=2e-5, rtol=0)
    on_features = network(in_channels=1475)
    torch.testing.assert_close(run(on_features, hypercolumn(vgg_state, x)), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("body", BODIES)
def test_the_swin_body_matters_where_it_is_active_alone(body: str) -> None:
    net, x = network(swin_body=body), picture(64, 32)
    before = run(net, x)
    with torch.no_grad():
        for value in net.swinir_block.parameters():
            value.mul_(1.5)
    assert torch.equal(run(net, x), before) == (body == "published")


@pytest.fixture(scope="module")
def full() -> RRFormer:
    with torch.device("meta"):
        return RRFormer(**HYPER)


def test_most_weights_are_those_of_the_body(full: RRFormer) -> None:
    assert sum(value.numel() for value in full.swinir_block.parameters()) == 17_062_983


def test_the_full_network_has_the_names_and_shapes_of_the_authors(full: RRFormer, authors_shapes: Any) -> None:
    assert {key: list(value.shape) for key, value in full.state_dict().items()} == authors_shapes("rrformer_full")


def test_weights_with_a_wide_first_convolution_are_not_taken_for_it() -> None:
    state = network().state_dict()
    wide = torch.empty(*state["conv1.conv2d.weight"].shape[:2], 3, 3)
    assert RRFormer.detect({**state, "conv1.conv2d.weight": wide}) is None


def test_buffers_are_those_of_the_authors() -> None:
    state = network().state_dict()
    mask = state["swinir_block.layers.1.residual_group.blocks.1.attn_mask"]
    assert mask.shape == (4, 16, 16) and mask.unique().tolist() == [-100, 0]
    index = state["swinir_block.layers.1.residual_group.blocks.2.attn.relative_position_index"]
    assert index.shape == (16, 16) and index.dtype == torch.int64
    assert "swinir_block.layers.1.residual_group.blocks.2.attn_mask" not in state
    assert not any(key.endswith("attn_mask") for key in network(img_size=16).state_dict())


def test_checkpoints_of_the_authors_are_read(tmp_path: Path) -> None:
    """The network lies in ``icnn``, beside a discriminator and the state of two optimizers."""
    net = network(swin_body="active")
    critic = torch.nn.Conv2d(3, 1, 3)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-4)
    run(net, picture(64, 32))
    net.train()(picture(64, 32)).mean().backward()
    optimizer.step()
    content = {
        "icnn": net.state_dict(),
        "opt_g": optimizer.state_dict(),
        "epoch": 60,
        "iterations": 1000,
        "opt_d": torch.optim.Adam(critic.parameters()).state_dict(),
        "netD": critic.state_dict(),
    }
    torch.save(content, tmp_path / "errnet_latest.pt")
    state = checkpoint.read(tmp_path / "errnet_latest.pt")
    assert shapes(state) == shapes(net.state_dict())
    name, detected = load.detect(state)
    assert name == "rrformer"
    made = load.build(name, {**detected.config, "swin_body": "active"}, state, "errnet_latest.pt")
    torch.testing.assert_close(run(made, picture(64, 32)), run(net.eval(), picture(64, 32)), atol=1e-6, rtol=0)  # type: ignore[arg-type]


# VGG-19 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("with_vgg")
def test_vgg_is_frozen_and_no_part_of_the_weights() -> None:
    net = network(**HYPER)
    plain = network(in_channels=1475)
    assert net.vgg is not None and shapes(net.state_dict()) == shapes(plain.state_dict())
    net.load_state_dict(plain.state_dict())
    assert net.vgg.loaded, "a missing file is told when weights are loaded, not at the first picture"
    net.train()(picture(32, 32)).mean().backward()
    assert [key for key, _ in net.named_parameters() if key.startswith("vgg")] == []
    assert net.conv1.get_parameter("conv2d.weight").grad is not None
    assert net.bfloat16().vgg.weight0.dtype == torch.bfloat16
    assert net.to("meta").vgg.weight0.device.type == "meta"


def test_without_the_file_of_vgg_the_cure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vgg_state: dict[str, Tensor]
) -> None:
    monkeypatch.setenv("RESTOREKIT_HOME", str(tmp_path))
    net, missing = network(**HYPER), r"vgg19: the weights of VGG-19 are missing; put vgg19-dcbb9e9d\.pth .* there"
    for attempt in (lambda: run(net, picture(32, 32)), lambda: net.load_state_dict(net.state_dict())):
        with pytest.raises(ModelError, match=missing):
            attempt()
    folder = tmp_path / "vgg19"
    folder.mkdir()
    shallow = {key: value for key, value in vgg_state.items() if key != "features.16.weight"}
    torch.save(shallow, folder / "another.pth")
    with pytest.raises(ModelError, match=missing):
        run(net, picture(32, 32))
    broken = {**vgg_state, "features.5.bias": torch.full((128,), torch.nan)}
    torch.save(broken, folder / "vgg19.pth")
    with pytest.raises(ModelError, match=r"vgg19\.pth: holds weights that are not finite \(5\.bias\)"):
        run(net, picture(32, 32))
    bare = {key.removeprefix("features."): value for key, value in vgg_state.items()}
    torch.save(bare, folder / "vgg19.pth")
    assert bool(run(net, picture(32, 32)).isfinite().all())


# laws -----------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("with_vgg")
@pytest.mark.parametrize("config", [{}, {"swin_body": "active", "residual": True}, {"pyramid": "bilinear"}, HYPER])
def test_bands_make_the_whole_under_autocast(config: dict[str, Any]) -> None:
    net, x = network(**config), picture(256, 32)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        difference = net.features(x, Bands(rows=1)) - net.features(x)
        assert difference.square().mean().sqrt() < 0.01 * net(x).float().std()


@pytest.mark.usefixtures("with_vgg")
@pytest.mark.parametrize("height", [304, 214])
def test_bands_make_the_whole_hypercolumn(height: int) -> None:
    net, x = network(**HYPER), picture(height, 32)
    with torch.inference_mode():
        torch.testing.assert_close(net.features(x, Bands(rows=1)), net.features(x), atol=2e-5, rtol=0)


@pytest.mark.parametrize("pyramid", ["nearest", "bilinear"])
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(("tile", "mode"), [("auto", "exact"), (96, "tiles")])
def test_large_pictures_have_no_seam(
    pyramid: str, body: str, tile: Any, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In tiles where the body is dropped: what it sees has no end, so the halo is what can be afforded."""
    monkeypatch.setattr(inference, "WHOLE_BYTES", 0)
    net, x = network(swin_body=body, pyramid=pyramid), picture(480, 96)[0]

    execution = Execution(tile=tile)
    difference = tiled(net, x, execution) - tiled(net, x, Execution(tile="off"))
    assert execution.mode == mode and (mode == "exact" or execution.tiles > 1)
    assert float(difference.abs().max()) < (1e-5 if mode == "exact" or body == "published" else 0.05)


def test_a_tile_on_the_grid_is_the_whole_and_another_is_not() -> None:
    net, x = network(), picture(192, 32)
    whole = run(net, x)
    torch.testing.assert_close(run(net, x[:, :, 64:])[:, :, 32:], whole[:, :, 96:], atol=1e-6, rtol=0)
    assert not torch.allclose(run(net, x[:, :, 50:178])[:, :, 32:96], whole[:, :, 82:146], atol=1e-2)


def test_the_result_is_never_negative() -> None:
    result = run(network(), picture(64, 32))
    assert result.amin() == 0 and result.amax() > 0.5


def test_a_residual_is_added_to_the_picture() -> None:
    x = torch.rand(1, 3, 64, 48)
    torch.manual_seed(0)
    fresh = RRFormer(**SMALL, residual=True).eval()
    assert torch.equal(fresh(x), x)
    residual, plain = network(residual=True), network()
    residual.load_state_dict(plain.state_dict())
    with torch.no_grad():
        added = residual(x) - x
    assert added.min() < -0.1 and torch.allclose(plain(x), added.clamp(min=0), atol=1e-5)


def test_gradients_are_right() -> None:
    net = network(swin_body="active").double().train()
    x = picture(32, 48).double()
    state = {key: value.detach().clone() for key, value in net.state_dict().items()}
    leaves = {key: value.requires_grad_(value.is_floating_point()) for key, value in state.items()}
    reference(leaves, x, True).square().sum().backward()
    net(x).square().sum().backward()
    for key, value in net.named_parameters():
        if key.startswith("swinir_block.conv_last"):
            assert value.grad is None, "nothing uses it"
            continue
        assert value.grad is not None and bool(value.grad.any()), key
        torch.testing.assert_close(value.grad, leaves[key].grad, msg=key)


def test_as_published_the_body_gets_no_gradient() -> None:
    net = network().train()
    net(picture(64, 32)).mean().backward()
    without = {key.split(".")[0] for key, value in net.named_parameters() if value.grad is None}
    assert without == {"swinir_block"}


@pytest.mark.parametrize("seed", range(3))
def test_fresh_networks_learn(seed: int) -> None:
    """Under autocast; without a channel that begins below zero, where there is no slope."""
    torch.manual_seed(seed)
    net = RRFormer(**SMALL, swin_body="active").train()
    x, target = picture(64, 32, batch=2), 0.5 * picture(64, 32, batch=2)
    assert float(net(x).detach().amin()) > 0
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        with torch.autocast("cpu", torch.bfloat16):
            loss = (net(x) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_a_fresh_residual_soon_tells_a_veil_from_the_picture() -> None:
    """Where maps of fresh weights are faint, ten steps teach nothing but a constant, and that is too small by far."""
    torch.manual_seed(0)
    config = {"n_feats": 16, "embed_dim": 16, "depths": [2], "num_heads": [2], "img_size": 32}
    net = RRFormer(**config, swin_body="active", residual=True)
    clean, veil = torch.rand(1, 3, 32, 32) * 0.4, torch.zeros(1, 1, 32, 32)
    veil[..., 16:] = 0.3
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(10):
        optimizer.zero_grad()
        (net(clean + veil) - clean).abs().mean().backward()
        optimizer.step()
    taken = (clean + veil - net(clean + veil)).detach()
    assert taken[..., 16:].mean() > 0.15 and taken[..., :16].mean() < 0.05


@pytest.mark.parametrize("size", [(96, 64), (82, 100)])
def test_means_are_enlarged_bilinearly_from_their_middles(size: tuple[int, int]) -> None:
    """As torch does it where squares fill the picture; pixels beyond the last squares take these."""
    channels = 8
    state = network(pyramid="bilinear", n_feats=channels).pyramid_module.state_dict()
    smooth = _Pyramid(channels, smooth=True)
    smooth.load_state_dict(state)
    maps = torch.randn(1, channels, *size)
    filled = (0, -size[1] % 32, 0, -size[0] % 32)
    parts = []
    for side, stage in zip(POOLS, smooth.stages, strict=True):
        prior = stage(maps)
        missing = (0, (size[1] + filled[1]) // side - prior.shape[3], 0, (size[0] + filled[3]) // side - prior.shape[2])
        enlarged = F.interpolate(F.pad(prior, missing, mode="replicate"), scale_factor=side, mode="bilinear")
        parts.append(enlarged[:, :, : size[0], : size[1]])
    expected = F.leaky_relu(smooth.bottleneck(torch.cat([*parts, maps], 1)), 0.2)
    found = smooth(maps.permute(0, 2, 3, 1), 0, size[0]).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
