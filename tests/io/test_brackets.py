"""Files become brackets as a photographer would sort them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pydantic
import pytest
from PIL import Image

from restorekit.errors import InputError
from restorekit.facts import Exposure
from restorekit.io.brackets import Grouping, Shot, group_brackets

NOON = datetime(2024, 5, 1, 12, 0, 0)
Reader = Callable[[Path], Shot]


def shot(name: str, at_s: float | None, time_s: float | None, camera: str = "", width: int = 6000) -> Shot:
    taken = None if at_s is None else NOON + timedelta(seconds=at_s)
    return Shot(Path(name), taken, Exposure(time_s=time_s, f_number=8.0, iso=100.0), camera, (width, 4000))


def names(shots: list[Shot], rule: Grouping | None = None, *, subfolder: bool = False) -> list[list[str]]:
    known = {item.path: item for item in shots}
    groups = group_brackets([item.path for item in shots], rule, subfolder=subfolder, read=known.__getitem__)
    return [[path.as_posix() for path in group] for group in groups]


def test_a_pause_starts_a_bracket() -> None:
    shots = [shot(f"{i}.dng", at, 0.01 * 4**i) for i, at in enumerate([0, 1, 2])]
    shots += [shot(f"{i + 3}.dng", at, 0.01 * 4**i) for i, at in enumerate([20, 21, 22])]
    assert names(shots) == [["0.dng", "1.dng", "2.dng"], ["3.dng", "4.dng", "5.dng"]]


def test_the_pause_counts_from_the_end_of_the_exposure() -> None:
    # 8 s and 30 s of exposure lie between the starts, but the shutter is closed for half a second.
    assert names([shot("a", 0.1, 8.0), shot("b", 8.6, 30.0), shot("c", 39.1, 2.0)]) == [["c", "a", "b"]]
    assert names([shot("a", 0.1, 0.1), shot("b", 8.6, 30.0)]) == [["a"], ["b"]]


def test_whole_seconds_are_allowed_for() -> None:
    # 0.9 s and 3.8 s are 0 and 3 when cut, and so are 0.0 s and 3.0 s; with fractions the pause is known.
    assert names([shot("a", 0, 0.1), shot("b", 3, 0.4)]) == [["a", "b"]]
    assert names([shot("a", 0.5, 0.1), shot("b", 3.5, 0.4)]) == [["a"], ["b"]]
    assert names([shot("a", 0, 0.1), shot("b", 4, 0.4)]) == [["a"], ["b"]]


def test_raw_files_and_photographs_of_the_same_shots_are_apart() -> None:
    shots = [shot(f"{i}.{kind}", i, 0.01 * 4**i) for i in range(3) for kind in ("cr2", "jpg")]
    assert names(shots) == [["0.cr2", "1.cr2", "2.cr2"], ["0.jpg", "1.jpg", "2.jpg"]]


def test_the_longest_pause_can_be_set() -> None:
    shots = [shot("a", 0.5, 0.1), shot("b", 6.5, 0.4)]
    assert names(shots, Grouping(max_gap=5.0)) == [["a"], ["b"]]
    assert names(shots, Grouping(max_gap=6.0)) == [["a", "b"]]


def test_an_exposure_that_comes_again_starts_a_bracket() -> None:
    times = [0.01, 0.0025, 0.04] * 3
    groups = names([shot(f"{i}.cr2", i * 0.25, time) for i, time in enumerate(times)])
    assert groups == [["1.cr2", "0.cr2", "2.cr2"], ["4.cr2", "3.cr2", "5.cr2"], ["7.cr2", "6.cr2", "8.cr2"]]


def test_steps_of_a_third_of_a_stop_are_different_exposures() -> None:
    assert len(names([shot(f"{i}", i, 0.01 * 2 ** (i / 3)) for i in range(5)])) == 1
    assert len(names([shot("a", 0, 0.01), shot("b", 1, 0.0101)])) == 2


def test_another_camera_or_size_starts_a_bracket() -> None:
    assert names([shot("a", 0, 0.1, "A"), shot("b", 1, 0.4, "B")]) == [["a"], ["b"]]
    assert names([shot("a", 0, 0.1, width=6000), shot("b", 1, 0.4, width=3000)]) == [["a"], ["b"]]


def test_order_is_that_of_capture_not_of_names() -> None:
    shots = [shot("z", 0, 0.1), shot("y", 1, 0.4), shot("b", 60, 0.4), shot("a", 61, 0.1)]
    assert names(shots) == [["z", "y"], ["a", "b"]]


def test_times_with_and_without_zone_are_on_one_clock() -> None:
    zone = timezone(timedelta(hours=9))
    first, second = shot("a", 0, 0.1), shot("b", 1, 0.4)
    assert second.taken is not None
    zoned = Shot(second.path, second.taken.replace(tzinfo=zone), second.exposure, size=second.size)
    assert names([first, zoned]) == [["a", "b"]]


@pytest.mark.parametrize(("at_s", "time_s", "lacks"), [(None, 0.1, "capture time"), (1, None, "exposure time")])
def test_silent_files_are_named_with_the_cure(at_s: float | None, time_s: float | None, lacks: str) -> None:
    with pytest.raises(
        InputError, match=rf"^a\.jpg: has no {lacks}.* --group folder .* --group N where every N of them are$"
    ):
        names([shot("a.jpg", at_s, time_s), shot("b.jpg", at_s, time_s)])


def test_a_silent_file_among_others_stands_alone() -> None:
    shots = [shot("a", 0, 0.1), shot("b", None, None), shot("c", 1, 0.4), shot("d", 60, 0.1)]
    assert names(shots) == [["a", "c"], ["d"], ["b"]]


def test_silent_files_of_a_subfolder_are_one_bracket() -> None:
    shots = [shot("10.jpg", 0, 0.1), shot("9.jpg", None, None), shot("11.jpg", 90, 0.4)]
    assert names(shots, subfolder=True) == [["9.jpg", "10.jpg", "11.jpg"]]


def test_a_subfolder_that_tells_its_times_may_hold_several_brackets() -> None:
    shots = [shot("a", 0, 0.1), shot("b", 1, 0.4), shot("c", 60, 0.1), shot("d", 61, 0.4)]
    assert names(shots, subfolder=True) == [["a", "b"], ["c", "d"]]


def test_every_folder_is_a_bracket() -> None:
    shots = [shot("in/x/2", 9, 0.1), shot("in/1", None, None), shot("in/x/1", 0, 0.4), shot("in/0", 1, 0.1)]
    assert names(shots, Grouping(by="folder")) == [["in/0", "in/1"], ["in/x/2", "in/x/1"]]


def test_files_of_two_folders_never_share_a_bracket() -> None:
    shots = [shot("x/1", 0, 0.1), shot("y/1", 1, 0.4)]
    assert names(shots) == [["x/1"], ["y/1"]]
    assert names([*shots, shot("x/2", 1, 0.4), shot("y/2", 2, 0.1)], Grouping(by=2)) == [["x/1", "x/2"], ["y/2", "y/1"]]


def test_counting_goes_by_name_as_a_person_lists_it() -> None:
    shots = [shot(f"IMG_{i}.jpg", None, None) for i in (10, 9, 8, 11, 12, 7)]
    found = names(shots, Grouping(by=3))
    assert found == [["IMG_7.jpg", "IMG_8.jpg", "IMG_9.jpg"], ["IMG_10.jpg", "IMG_11.jpg", "IMG_12.jpg"]]


def test_a_remainder_is_an_error_that_names_it() -> None:
    with pytest.raises(InputError, match=r"^in: 5 files .* brackets of 3, 4\.jpg, 5\.jpg would be left over"):
        names([shot(f"in/{i}.jpg", None, None) for i in range(1, 6)], Grouping(by=3))


def test_no_files_are_no_brackets() -> None:
    assert names([]) == []


@pytest.mark.parametrize(
    ("written", "seconds"), [("2s", 2.0), ("500ms", 0.5), ("1 min", 60.0), (3, 3.0), (0.5, 0.5), ("0", 0.0)]
)
def test_pauses_are_written_with_units(written: str | float, seconds: float) -> None:
    assert pydantic.TypeAdapter(Grouping).validate_python({"max_gap": written}).max_gap == seconds


def test_counts_may_come_as_text() -> None:
    assert pydantic.TypeAdapter(Grouping).validate_python({"by": "3"}).by == 3


@pytest.mark.parametrize(
    "wrong",
    [{"by": 1}, {"by": "1"}, {"by": "time"}, {"by": True}, {"by": 2.5}, {"max_gap": "2h"}, {"max_gap": -1}, {"n": 3}],
)
def test_wrong_rules_are_refused_once(wrong: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(Grouping).validate_python(wrong)
    assert caught.value.error_count() == 1


def test_rules_have_a_schema_for_editors() -> None:
    properties = pydantic.TypeAdapter(Grouping).json_schema()["properties"]
    assert {option.get("type") for option in properties["max_gap"]["anyOf"]} == {"number", "string"}
    assert {"enum": ["auto", "folder"], "type": "string"} in properties["by"]["anyOf"]


def test_grouping_loads_no_torch() -> None:
    program = "import sys, restorekit.io.brackets; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def photo(path: Path, at_s: int, time_s: float, model: str = "X1", width: int = 16) -> Path:
    """A small JPEG with the EXIF fields of a camera."""
    exif = Image.Exif()
    exif[271], exif[272] = "Maker", model
    taken = (NOON + timedelta(seconds=at_s)).strftime("%Y:%m:%d %H:%M:%S")
    exif[34665] = {36867: taken, 33434: time_s, 33437: 8.0, 34855: 100, 40962: width, 40963: 16}
    Image.new("RGB", (width, 16)).save(path, exif=exif)
    return path


def test_files_are_asked_for_time_exposure_camera_and_size(tmp_path: Path) -> None:
    first = [photo(tmp_path / "a.jpg", 0, 0.1), photo(tmp_path / "b.jpg", 1, 0.4)]
    second = [photo(tmp_path / "c.jpg", 2, 0.02, model="X2"), photo(tmp_path / "d.jpg", 3, 0.01, model="X2")]
    third = [photo(tmp_path / "e.jpg", 4, 0.2, model="X2", width=32)]
    damaged = [tmp_path / "f.jpg"]
    damaged[0].touch()
    found = group_brackets([*first, *second, *third, *damaged])
    assert found == [tuple(first), tuple(reversed(second)), tuple(third), tuple(damaged)]


def test_real_brackets_are_found(shared_data: Path) -> None:
    for name, darkest_first in {
        "motion_pingpong": ["Img1", "Img2", "Img3"],
        "jamyl_lighthouse": ["A", "B", "C"],
    }.items():
        files = [path for path in (shared_data / "brackets" / name).iterdir() if path.suffix.lower() == ".jpg"]
        (group,) = group_brackets(files)
        assert [path.stem for path in group] == darkest_first
