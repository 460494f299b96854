"""The formats a picture can be written in, what each can hold, and the ``output`` item of a pipeline file.

Only a table: nothing here imports torch or an encoder.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass

from restorekit.checked import Checked
from restorekit.state import ImageState, Primaries, Transfer

if TYPE_CHECKING:
    from restorekit.facts import Metadata

Format = Literal["jpeg", "ultrahdr", "png", "tiff", "exr", "hdr", "webp", "avif", "jxl", "dng"]
OutputColor = Literal["source", "srgb", "p3", "bt2020", "adobe-rgb", "pq", "hlg"]
Intent = Literal["perceptual", "relative", "saturation", "absolute"]

COLOR_SPACES: Mapping[str, tuple[Primaries, Transfer]] = {
    "srgb": ("bt709", "srgb"),
    "p3": ("p3", "srgb"),
    "bt2020": ("bt2020", "srgb"),
    "adobe-rgb": ("adobe-rgb", "gamma"),
    "pq": ("bt2020", "pq"),
    "hlg": ("bt2020", "hlg"),
}
"""Primaries and transfer function by the names that ``output.color`` takes; the last two are those of ITU-R BT.2100."""

_ENCODED = ("srgb", "gamma")
_HDR = ("pq", "hlg")
DEFAULT_HEADROOM_EV = 3.0
"""Stops above white that an Ultra HDR picture made of a scene reaches where nothing else is asked for."""

_CODED = ("bt709", "p3", "bt2020")
"""Primaries with a code point of ITU-T H.273, the only names that values for HDR have."""

_NAMED_SPACES = ("bt709", "p3", "bt2020", "adobe-rgb", "prophoto", "icc")
"""Spaces that a file can name; ``icc`` is the profile that the input brought (see ``ImageState``)."""

FORBIDDEN = '/\\:*?"<>|'
"""Characters that names of files do not have on one system or another."""


@dataclass(frozen=True)
class OutputFormat:
    """What a format can hold.

    ``extensions`` in lower case with their dot, the usual one first; ``bits`` of a sample, the usual first;
    ``compressions``, the usual first; and the values of the axes of an ImageState that it can say of its pixels.
    ``depths`` are the bits that a transfer function or a reference needs, where not all will do. ``alpha`` tells
    whether it holds transparency, ``metadata`` which blocks of ``facts.Metadata`` beside the colour space; blocks of
    more than ``block_bytes`` do not fit. ``largest_px`` is the longest side and ``most_pixels`` width times height that
    the usual decoders take, where that is less than the format could hold.
    """

    extensions: tuple[str, ...]
    bits: tuple[int, ...]
    references: tuple[str, ...]
    transfers: tuple[str, ...]
    primaries: tuple[str, ...] = _NAMED_SPACES
    depths: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    compressions: tuple[str, ...] = ("none",)
    alpha: bool = True
    metadata: tuple[str, ...] = ("exif", "xmp")
    block_bytes: int = 1 << 30
    largest_px: int = (1 << 31) - 1
    most_pixels: int = 1 << 62

    @property
    def default_bits(self) -> int:
        return self.bits[0]


FORMATS: Mapping[str, OutputFormat] = {
    "jpeg": OutputFormat(
        (".jpg", ".jpeg"),
        (8,),
        ("display",),
        _ENCODED,
        compressions=("lossy",),
        alpha=False,
        metadata=("exif", "xmp", "iptc"),
        block_bytes=65000,
        largest_px=65500,  # libjpeg's
    ),
    "ultrahdr": OutputFormat(
        (".jpg", ".jpeg"),
        (8,),
        ("display",),
        ("srgb",),
        primaries=("bt709", "p3"),
        compressions=("lossy",),
        alpha=False,
        metadata=("exif", "xmp", "iptc"),
        block_bytes=65000,
        largest_px=65500,
    ),
    "png": OutputFormat(
        (".png",),
        (8, 16),
        ("display",),
        (*_ENCODED, *_HDR),
        depths=dict.fromkeys(_HDR, (16,)),
        compressions=("fast", "small"),
    ),
    "tiff": OutputFormat(
        (".tif", ".tiff"),
        (16, 8, 32),
        ("display", "scene"),
        (*_ENCODED, "linear"),
        depths={"linear": (16, 32), "scene": (32,)},
        compressions=("none", "deflate", "zstd"),
        metadata=("exif", "xmp", "iptc"),
    ),
    "exr": OutputFormat(
        (".exr",),
        (16, 32),
        ("scene", "display"),
        ("linear",),
        primaries=("bt709", "p3", "bt2020", "adobe-rgb", "prophoto", "xyz", "ap1"),
        compressions=("zip", "zips", "piz", "rle", "dwaa", "dwab", "none"),
        metadata=("xmp",),
    ),
    "hdr": OutputFormat(
        (".hdr",),
        (32,),
        ("scene", "display"),
        ("linear",),
        primaries=("bt709", "p3", "bt2020", "adobe-rgb", "prophoto"),
        compressions=("rle",),
        alpha=False,
        metadata=(),
    ),
    "webp": OutputFormat(
        (".webp",), (8,), ("display",), _ENCODED, compressions=("lossy", "lossless"), largest_px=16382
    ),
    "avif": OutputFormat(
        (".avif",),
        (8, 10, 12),
        ("display",),
        (*_ENCODED, *_HDR),
        depths=dict.fromkeys(_HDR, (10, 12)),
        compressions=("lossy", "lossless"),
        largest_px=32768,  # libavif's, as is the next
        most_pixels=1 << 28,
    ),
    "jxl": OutputFormat(
        (".jxl",),
        (8, 16),
        ("display",),
        ("srgb", "linear"),
        primaries=("bt709",),
        depths={"srgb": (8,), "linear": (16,)},
        compressions=("lossy", "lossless"),
    ),
    "dng": OutputFormat(
        (".dng",),
        (16, 24, 32),
        ("sensor", "scene"),
        ("linear",),
        ("camera",),
        depths={"sensor": (16,)},
        alpha=False,
    ),
}
"""The formats by the name that pipeline files use."""


def format_of_path(path: str | Path) -> Format | None:
    """The format that a file's extension stands for, ``None`` for others."""
    suffix = Path(path).suffix.lower()
    return next((name for name in get_args(Format) if suffix in FORMATS[name].extensions), None)


def _either(values: Sequence[object]) -> str:
    words = [str(value) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


_BITS = "; ".join(f"{name} {_either(kind.bits)}" for name, kind in FORMATS.items())
_COMPRESSIONS = "; ".join(
    f"{name} {_either(kind.compressions)}" for name, kind in FORMATS.items() if len(kind.compressions) > 1
)


@pydantic_dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid", populate_by_name=True))
class OutputSpec(metaclass=Checked):
    """One file that a pipeline writes for each picture.

    Raises ParameterError for a format or a value that there is not.
    """

    format: Annotated[Format, pydantic.Field(description="File format")] = "jpeg"
    bits: Annotated[
        int | None,
        pydantic.Field(
            description=f"Bits of a sample, the first if not given: {_BITS}; exr, 32 bits and dng of a scene are floats"
        ),
    ] = None
    quality: Annotated[int, pydantic.Field(ge=1, le=100, description="Quality of lossy compression")] = 95
    compression: Annotated[
        str | None,
        pydantic.Field(
            description=f"The first if not given: {_COMPRESSIONS}; jpeg, ultrahdr and dwaa, dwab of exr are lossy, "
            "the others lossless"
        ),
    ] = None
    color: Annotated[
        OutputColor | None,
        pydantic.Field(
            description="Colour space of the file: source (that of the input), srgb, p3, bt2020, adobe-rgb, or pq and "
            "hlg (those of BT.2100, linear light is encoded); that of the pipeline's last stage if not given"
        ),
    ] = None
    intent: Annotated[
        Intent, pydantic.Field(description="Rendering intent where the input's profile has tables and color is source")
    ] = "relative"
    black_point: Annotated[
        bool, pydantic.Field(description="Black-point compensation where the input's profile has tables")
    ] = True
    name: Annotated[
        str, pydantic.Field(description="Name of the file without its extension; {stem} is the name of the input")
    ] = "{stem}"
    from_: Annotated[
        str | None,
        pydantic.Field(alias="from", description="Id of the stage whose result is written; the last one if not given"),
    ] = None
    hdr: Annotated[
        str | None,
        pydantic.Field(
            description="ultrahdr: id of the stage whose result HDR displays show: linear light of a scene or display, "
            "PQ or HLG"
        ),
    ] = None
    sdr: Annotated[
        str | None,
        pydantic.Field(
            description="ultrahdr: id of the stage whose result other displays show; the last one if not given"
        ),
    ] = None
    headroom: Annotated[
        float | None,
        pydantic.Field(
            gt=0,
            le=5.6,
            description="ultrahdr: stops above white that scene light reaches at most; "
            f"{DEFAULT_HEADROOM_EV:g} if not given",
        ),
    ] = None

    @pydantic.field_validator("bits", "compression")
    @classmethod
    def _check_choice(cls, value: int | str | None, info: pydantic.ValidationInfo) -> int | str | None:
        kind = FORMATS.get(info.data.get("format", ""))
        if value is None or kind is None:
            return value
        allowed: tuple[object, ...] = kind.bits if info.field_name == "bits" else kind.compressions
        if value not in allowed:
            raise ValueError(f"must be {_either(allowed)} for {info.data['format']}")
        return value

    @pydantic.field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        try:
            fields = [tuple(field) for _, *field in string.Formatter().parse(name) if field[0] is not None]
            made = name.format(stem="x") if set(fields) <= {("stem", "", None)} else ""
        except ValueError as error:
            raise ValueError(f"not a name: {error}") from error
        if not made.strip() or made.startswith(".") or any(c in FORBIDDEN or c < " " for c in made):
            raise ValueError(
                "must be the name of a file, no hidden one and without a folder; {stem} is the name of the input"
            )
        return name

    @pydantic.model_validator(mode="after")
    def _check_renditions(self) -> OutputSpec:
        if self.format == "ultrahdr" and self.from_ is not None:
            raise ValueError("ultrahdr takes its two pictures from the stages hdr and sdr name, not from 'from'")
        given = [name for name in ("hdr", "sdr", "headroom") if getattr(self, name) is not None]
        if self.format != "ultrahdr" and given:
            raise ValueError(f"{given[0]} is for ultrahdr, not for {self.format}; take it out")
        return self

    @property
    def tap(self) -> str | None:
        """Id of the stage whose result is written, of ultrahdr the standard picture; ``None`` is the last one."""
        return self.sdr if self.format == "ultrahdr" else self.from_

    @property
    def extension(self) -> str:
        """The usual extension of the format, with its dot."""
        return FORMATS[self.format].extensions[0]

    def as_dict(self) -> dict[str, object]:
        """This output in the form of a pipeline file, without what was not given."""
        values = {f.name.rstrip("_"): getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def depth(self) -> int:
        """Bits of a sample."""
        return self.bits or FORMATS[self.format].default_bits


def refusal(format: str, bits: int | None, state: ImageState) -> str | None:
    """Why a format cannot hold pixels of a state and what to do, in one line; ``None`` where it can."""
    kind = FORMATS[format]
    if bits is not None and bits not in kind.bits:
        return f"{format} has {_either(kind.bits)} bits, not {bits}"
    if format == "dng":
        axes = (state.layout, state.transfer, state.primaries)
        if axes != ("bayer", "linear", "camera") or state.reference not in kind.references:
            said = f"{state.layout} and {state.reference}-referred"
            return f"dng holds Bayer mosaics of a sensor or a scene, this is {said}; write exr"
        if (bits or kind.default_bits) not in kind.depths.get(state.reference, kind.bits):
            return (
                f"dng holds digital numbers of a sensor in 16 bits, not {bits}; add raw.black_level, or leave bits out"
            )
        return None
    if state.is_mosaic:
        return f"{format} holds pictures, this is a {state.layout} mosaic; add raw.demosaic"
    if state.reference == "sensor":
        return (
            f"{format} holds pictures, these are digital numbers of a sensor; add raw.black_level and what follows it"
        )
    if format == "ultrahdr" and state.layout != "rgb":
        return "ultrahdr holds RGB, this picture is gray; add color.to_rgb, or write jpeg"
    if state.primaries == "camera":
        return f"{format} holds colours of a known space, these are the camera's own; add color.camera_matrix"
    if state.reference not in kind.references:
        return (
            f"{format} holds display-referred pictures, this one is {state.reference}-referred; "
            "add a tone-mapping stage (tone.filmic) and color.encode, or write exr"
        )
    if state.transfer not in kind.transfers:
        if kind.transfers == ("linear",):
            others: tuple[str, ...] = ("png", "tiff") if state.transfer not in _HDR else ("png", "avif")
            cure = f"add color.decode, or write {_either(others)}"
            return f"{format} holds linear light, these values are {state.transfer}; {cure}"
        others = tuple(
            name
            for name, other in FORMATS.items()
            if state.transfer in other.transfers and name not in ("dng", "ultrahdr", format)
        )
        said = f"{format} holds {_either(kind.transfers)} values, these are {state.transfer}"
        cure = "set output: {color: srgb}" if state.transfer == "gamma" else "add color.encode"
        return f"{said}; {cure}, or write {_either(others)}"
    for value, name in ((state.transfer, state.transfer), (state.reference, f"{state.reference}-referred")):
        depths = kind.depths.get(value, kind.bits)
        if (bits or kind.default_bits) not in depths:
            said = f"{format} holds {name} values in {_either(depths)} bits, not {bits or kind.default_bits}"
            return f"{said}; set bits: {depths[0]}"
    if state.primaries not in kind.primaries:
        return f"{format} has no name for {state.primaries} primaries; set output: {{color: srgb}}"
    if state.transfer in _HDR and state.primaries not in _CODED:
        return (
            f"{format} has no name for {state.primaries} primaries with {state.transfer}; set output: {{color: bt2020}}"
        )
    return None


_BLOCKS: Mapping[str, str] = {"exif": "EXIF block", "xmp": "XMP packet", "iptc": "IPTC record"}


GAIN_MAP_PX = 8192
"""The longest side of pictures whose gain maps libultrahdr, and with it Android, applies."""


def losses(spec: OutputSpec, has_alpha: bool, metadata: Metadata | None = None, longest_px: int = 0) -> tuple[str, ...]:
    """What of a frame an output leaves out, one line each.

    ``has_alpha`` tells that the frame has transparency; ``metadata`` are what it carries beside its pixels;
    ``longest_px`` is its longer side.
    """
    kind = FORMATS[spec.format]
    said = []
    if spec.format == "ultrahdr" and longest_px > GAIN_MAP_PX:
        said.append(
            f"ultrahdr of more than {GAIN_MAP_PX} px a side is shown as a standard picture by many programs; "
            "add geometry.resize, or write avif with color: pq"
        )
    if has_alpha and not kind.alpha:
        said.append(f"{spec.format} holds no transparency, it is dropped and hidden colours show; write png to keep it")
    for name, block in _BLOCKS.items():
        size = len(getattr(metadata, name, b""))
        others = _either([other for other, can in FORMATS.items() if name in can.metadata and can.block_bytes > size])
        if size and name not in kind.metadata and (spec.format, name) != ("exr", "exif"):  # kept as attributes
            said.append(f"{spec.format} holds no {block}, it is dropped; write {others} to keep it")
        elif size > kind.block_bytes and name != "xmp":
            lost = "the maker note is left out first" if name == "exif" else "it is dropped"
            said.append(f"{spec.format} has no room for the {block} of {size} bytes, {lost}; write {others} to keep it")
    return tuple(said)
