"""A sample depends on the seed and its number alone, and shows the same place in input and target."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from restorekit.color.ycbcr import luma, to_ycbcr
from restorekit.data import create
from restorekit.data.degradation import Chain, seeded
from restorekit.errors import InputError
from restorekit.metrics.super_resolution import reduced
from restorekit.planes import to_float
from restorekit.train.samples import Batches, Samples, collated


def pictures(count: int, height: int = 80, width: int = 70) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8) for _ in range(count)]


def test_sample_depends_on_seed_and_number_alone() -> None:
    chain = Chain([create("bicubic", scale=2), create("gaussian_noise", sigma=(5, 20))])
    first, second = (Samples(pictures(3), "abc", 12, 7, chain) for _ in range(2))
    backwards = {number: second[number] for number in reversed(range(12))}
    for number in range(12):
        assert all(torch.equal(a, b) for a, b in zip(first[number], backwards[number], strict=True))
    other = Samples(pictures(3), "abc", 12, 8, chain)
    assert not torch.equal(first[0][0], other[0][0])
    assert not torch.equal(first[0][0], first[1][0])


def test_what_is_mixed_in_depends_on_seed_and_number_alone() -> None:
    """In processes that make samples too."""
    chain = Chain([create("reflection")])
    first, second = (Samples(pictures(3), "abc", 32, 7, chain) for _ in range(2))
    backwards = {number: second[number] for number in reversed(range(6))}
    others = DataLoader(first, batch_sampler=islice(Batches(2), 3), num_workers=1, collate_fn=collated)
    inputs = torch.cat([inputs for inputs, _ in others])
    for number in range(6):
        assert all(torch.equal(a, b) for a, b in zip(first[number], backwards[number], strict=True))
        assert torch.equal(inputs[number], first[number][0])


def test_other_targets_are_mixed_in() -> None:
    """Black targets become as bright as one encoded picture, red, is; alone they stay black."""
    black, red = torch.zeros(3, 40, 40, dtype=torch.uint8), torch.zeros(3, 40, 40, dtype=torch.uint8)
    red[0] = 255
    chain = Chain([create("reflection", methods=("ceilnet",), weight=(1, 1))])
    both, alone = (Samples(targets, "ab", 32, 0, chain) for targets in ([black, red], [black]))
    made = [both[number] for number in range(12)]
    inputs = {tuple(low.mean((1, 2)).tolist()) for low, high in made if float(high.max()) == 0.0}
    assert inputs == {(0.0, 0.0, 0.0), (1.0, 0.0, 0.0)}
    assert all(float(alone[number][0].max()) == 0.0 for number in range(3))


def test_patches_of_a_picture_are_those_of_the_whole() -> None:
    """Reduced patches are cut out of what the reduction of the whole picture gives, where it starts on its grid."""
    picture = pictures(1, 64, 64)[0]
    whole = to_float(reduced(picture, 2))
    samples = Samples([picture], "a", 10, 3, Chain([create("bicubic", scale=2)]), flips=False)
    places = F.unfold(to_float(picture)[None], 20)[0]
    seen = 0
    for number in range(40):
        low, high = samples[number]
        assert low.shape == (3, 10, 10)
        assert high.shape == (3, 20, 20)
        place = int((places == high.reshape(-1, 1)).all(0).nonzero()[0])
        top, left = divmod(place, 64 - 20 + 1)
        if top % 2 == left % 2 == 0:
            seen += 1
            assert torch.allclose(low, whole[:, top // 2 : top // 2 + 10, left // 2 : left // 2 + 10], atol=1e-6)
    assert seen >= 3


def test_targets_are_reduced_before_they_are_degraded() -> None:
    """Of stripes of 4 px, reduced by 2, stripes of 2 px remain; of a picture with no pixels to spare, all of them."""
    stripes = (torch.arange(400) // 4 % 2 * 255).to(torch.uint8).expand(3, 400, 400)
    chain = Chain([create("bicubic", scale=2)])
    small = Samples([stripes], "a", 16, 0, chain, flips=False, reduction=(2.0, 2.0))[0][1]
    width = float((small[0, 0] > 0.5).float().diff().abs().nonzero().diff(dim=0).float().mean())
    assert width == pytest.approx(2.0, abs=0.2)
    assert torch.allclose(small, small.mul(255).round().div(255), atol=1e-6)
    drawn = Samples([stripes], "a", 16, 0, chain, reduction=(1.0, 2.0))
    assert all(pair[0].shape[-1] == 16 and pair[1].shape[-1] == 32 for pair in (drawn[number] for number in range(8)))
    exact = pictures(1, 40, 40)[0]
    low, high = Samples([exact], "a", 16, 0, chain, flips=False, reduction=(1.5, 2.0))[0]
    assert torch.allclose(high, to_float(exact)[:, 4:36, 4:36], atol=1e-6)
    assert torch.allclose(low, chain(to_float(exact), seeded(0))[:, 2:18, 2:18], atol=1e-6)


def test_pairs_are_reduced_after_they_are_degraded() -> None:
    """Means over 4 px of noise are a quarter as strong, and the picture is the mean of its own."""
    flat = torch.full((3, 200, 200), 128, dtype=torch.uint8)
    chain = Chain([create("gaussian_noise", sigma=(20, 20))])
    low, high = Samples([flat], "a", 48, 0, chain, estimate=(4.0, 4.0))[0]
    assert low.shape == high.shape == (3, 48, 48)
    assert float((low - high).std()) == pytest.approx(5 / 255, rel=0.1)
    exact = pictures(1, 64, 64)[0]
    plain = Chain([create("gaussian_noise", sigma=(0, 0))])
    low, high = Samples([exact], "a", 32, 0, plain, flips=False, estimate=(2.0, 2.0))[0]
    assert torch.allclose(high, F.avg_pool2d(to_float(exact), 2), atol=1e-5)
    assert torch.allclose(low, high, atol=1e-5)


def test_pairs_are_reduced_no_further_than_the_picture_has_pixels() -> None:
    chain = Chain([create("gaussian_noise", sigma=(20, 20))])
    samples = Samples(pictures(1, 48, 40), "a", 32, 0, chain, estimate=(1.0, 4.0))
    assert all(pair[0].shape == (3, 32, 32) for pair in (samples[number] for number in range(8)))
    with pytest.raises(InputError, match="32x32 are cut out"):
        Samples(pictures(1, 20, 40), "a", 32, 0, chain, estimate=(2.0, 4.0))[0]


def test_pairs_are_cut_at_the_same_place() -> None:
    poor = pictures(2, 40, 30)
    good = [picture.repeat_interleave(3, 1).repeat_interleave(3, 2) for picture in poor]
    samples = Samples(good, "ab", 8, 0, inputs=poor, scale=3)
    for number in range(10):
        low, high = samples[number]
        assert torch.equal(low.repeat_interleave(3, 1).repeat_interleave(3, 2), high)


def test_all_orientations_are_drawn() -> None:
    marked = torch.zeros(3, 16, 16, dtype=torch.uint8)
    marked[:, 2, 5] = 255
    samples = Samples([marked], "a", 16, 0, inputs=[marked], scale=1)
    seen = {tuple(int(x) for x in samples[number][0][0].nonzero()[0]) for number in range(80)}
    assert seen == {(a, b) for a, b in ((2, 5), (2, 10), (13, 5), (13, 10))} | {
        (b, a) for a, b in ((2, 5), (2, 10), (13, 5), (13, 10))
    }


def test_small_picture_is_named() -> None:
    chain = Chain([create("bicubic", scale=2)])
    with pytest.raises(InputError, match=r"small\.png: is 30x20 px"):
        Samples(pictures(1, 20, 30), ["small.png"], 12, 0, chain)[0]


def test_sizes_that_do_not_go_together_are_named() -> None:
    with pytest.raises(InputError, match=r"good\.png: .* 2 times"):
        Samples(pictures(1), ["good.png"], 8, 0, inputs=pictures(1), scale=2)[0]


def test_steps_are_shared_among_processes_and_resumed() -> None:
    whole = list(islice(Batches(4), 6))
    assert whole[0] == [0, 1, 2, 3]
    assert list(islice(Batches(4, first_step=2), 4)) == whole[2:]
    shares = [list(islice(Batches(4, process=process, processes=2), 6)) for process in (0, 1)]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole
    with pytest.raises(InputError, match="devices"):
        Batches(4, processes=3)


def test_networks_of_luma_get_luma() -> None:
    chain = Chain([create("gaussian_noise")])
    rgb, y, both = (Samples(pictures(2), "ab", 8, 0, chain, pixels=pixels)[3] for pixels in ("rgb", "y", "ycbcr"))
    for place in (0, 1):
        assert torch.equal(y[place], luma(rgb[place], limited=True))
        assert torch.equal(both[place], to_ycbcr(rgb[place]))


def test_batches_lie_as_convolutions_like_it() -> None:
    samples = Samples(pictures(2), "ab", 8, 0, Chain([create("gaussian_noise")]))
    inputs, targets = collated([samples[number] for number in range(3)])
    assert inputs.shape == targets.shape == (3, 3, 8, 8)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
