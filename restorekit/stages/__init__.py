"""The built-in stages: ``restorekit.stages.Reinhard(key=0.2)``.

The table says where each stage lives and what it is for, so that listing them imports no torch;
a class is imported when it is first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restorekit.stages.align import Homography as Homography
    from restorekit.stages.align import Mtb as Mtb
    from restorekit.stages.calibration import DarkFrame as DarkFrame
    from restorekit.stages.calibration import FlatField as FlatField
    from restorekit.stages.color import CameraMatrix as CameraMatrix
    from restorekit.stages.color import Convert as Convert
    from restorekit.stages.color import Decode as Decode
    from restorekit.stages.color import Encode as Encode
    from restorekit.stages.color import ToRgb as ToRgb
    from restorekit.stages.color import WhiteBalance as WhiteBalance
    from restorekit.stages.defringe import Defringe as Defringe
    from restorekit.stages.deghost import Deghost as Deghost
    from restorekit.stages.demosaic import Demosaic as Demosaic
    from restorekit.stages.denoise import Guided as Guided
    from restorekit.stages.denoise import NlMeans as NlMeans
    from restorekit.stages.exposures import Exposures as Exposures
    from restorekit.stages.finish import Dither as Dither
    from restorekit.stages.finish import Saturation as Saturation
    from restorekit.stages.finish import Sharpen as Sharpen
    from restorekit.stages.flow import Flow as Flow
    from restorekit.stages.fusion import Mertens as Mertens
    from restorekit.stages.fusion_extreme import Extreme as Extreme
    from restorekit.stages.gamut import Gamut as Gamut
    from restorekit.stages.geometry import Crop as Crop
    from restorekit.stages.geometry import Resize as Resize
    from restorekit.stages.geometry import Rotate as Rotate
    from restorekit.stages.highlights import Highlights as Highlights
    from restorekit.stages.illuminant import AsShot as AsShot
    from restorekit.stages.illuminant import GrayEdge as GrayEdge
    from restorekit.stages.illuminant import GrayWorld as GrayWorld
    from restorekit.stages.illuminant import ShadesOfGray as ShadesOfGray
    from restorekit.stages.illuminant import WhitePatch as WhitePatch
    from restorekit.stages.illuminant_dual import DualExposure as DualExposure
    from restorekit.stages.lens import Correct as Correct
    from restorekit.stages.merge import Radiance as Radiance
    from restorekit.stages.profile import Look as Look
    from restorekit.stages.profile import ProfileCurve as ProfileCurve
    from restorekit.stages.proof import SoftProof as SoftProof
    from restorekit.stages.raw import BlackLevel as BlackLevel
    from restorekit.stages.raw import HotPixels as HotPixels
    from restorekit.stages.response import Response as Response
    from restorekit.stages.restore import Restore as Restore
    from restorekit.stages.shading import LensShading as LensShading
    from restorekit.stages.tone import Curve as Curve
    from restorekit.stages.tone import Exposure as Exposure
    from restorekit.stages.tone import Filmic as Filmic
    from restorekit.stages.tone import Reinhard as Reinhard
    from restorekit.stages.tone_agx import Agx as Agx
    from restorekit.stages.tone_global import Aces as Aces
    from restorekit.stages.tone_global import Drago as Drago
    from restorekit.stages.tone_global import Hable as Hable
    from restorekit.stages.tone_gradient import Gradient as Gradient
    from restorekit.stages.tone_hdr import Bt2390 as Bt2390
    from restorekit.stages.tone_hdr import Expand as Expand
    from restorekit.stages.tone_laplacian import LocalLaplacian as LocalLaplacian
    from restorekit.stages.tone_local import GuidedTone as GuidedTone
    from restorekit.stages.tone_local import ReinhardLocal as ReinhardLocal
    from restorekit.stages.white_point import GrayPatch as GrayPatch
    from restorekit.stages.white_point import Temperature as Temperature


@dataclass(frozen=True)
class StageEntry:
    """Where a stage lives (``module:Class``) and what it is for, in one line."""

    target: str
    summary: str


BUILT_IN: Mapping[str, StageEntry] = {
    name: StageEntry(f"restorekit.stages.{target}", summary)
    for name, target, summary in (
        ("raw.black_level", "raw:BlackLevel", "Subtract black, linearise, scale to the white level, mark clipping"),
        ("raw.hot_pixels", "raw:HotPixels", "Replace stuck photosites, found by outlier test, dark frame or map"),
        ("raw.highlights", "highlights:Highlights", "Rebuild or neutralise clipped highlights without a colour cast"),
        ("raw.lens_shading", "shading:LensShading", "Even out lens shading by the gain maps that a DNG brings"),
        ("raw.dark_frame", "calibration:DarkFrame", "Subtract a dark frame"),
        ("raw.flat_field", "calibration:FlatField", "Divide by a flat field"),
        ("raw.demosaic", "demosaic:Demosaic", "Interpolate the colour filter array to full RGB"),
        ("illuminant.as_shot", "illuminant:AsShot", "Take the white balance the camera stored"),
        ("illuminant.gray_world", "illuminant:GrayWorld", "Estimate the light from the mean colour"),
        ("illuminant.shades_of_gray", "illuminant:ShadesOfGray", "Estimate the light by a Minkowski mean"),
        ("illuminant.gray_edge", "illuminant:GrayEdge", "Estimate the light from the colour of edges"),
        ("illuminant.white_patch", "illuminant:WhitePatch", "Estimate the light from the brightest unclipped parts"),
        (
            "illuminant.dual_exposure",
            "illuminant_dual:DualExposure",
            "Estimate the light from what differs between a short and a long exposure",
        ),
        ("illuminant.temperature", "white_point:Temperature", "Set the light by its temperature and tint"),
        ("illuminant.gray_patch", "white_point:GrayPatch", "Take the light from a gray patch of the picture"),
        ("color.white_balance", "color:WhiteBalance", "Scale the channels so that the light's white is neutral"),
        ("color.camera_matrix", "color:CameraMatrix", "Camera RGB to linear RGB by the DNG colour model"),
        ("color.look", "profile:Look", "Apply the look table of a camera profile (DNG, DCP)"),
        ("color.gamut", "gamut:Gamut", "Bring colours into a smaller gamut, their hue kept as far as it can be"),
        ("color.soft_proof", "proof:SoftProof", "Show how a printer or display profile renders the picture"),
        ("color.convert", "color:Convert", "Change the primaries of linear RGB"),
        ("color.to_rgb", "color:ToRgb", "Gray to RGB with three equal channels"),
        ("color.encode", "color:Encode", "Apply a transfer function (sRGB, gamma, PQ, HLG)"),
        ("color.decode", "color:Decode", "Undo the transfer function: display-linear light"),
        ("denoise.nlmeans", "denoise:NlMeans", "Non-local means, luma and chroma apart"),
        ("denoise.guided", "denoise:Guided", "Edge-preserving smoothing by the guided filter"),
        ("tone.exposure", "tone:Exposure", "Brighten or darken in stops, fixed or measured"),
        ("tone.curve", "tone:Curve", "Contrast, shadows and highlights by a smooth curve"),
        ("tone.profile_curve", "profile:ProfileCurve", "Tone curve of a camera profile (DNG, DCP)"),
        ("tone.reinhard", "tone:Reinhard", "Reinhard's global operator"),
        ("tone.filmic", "tone:Filmic", "Film-like curve with toe, shoulder and a path to white"),
        ("tone.drago", "tone_global:Drago", "Adaptive logarithm: even brightness, for scenes of very high contrast"),
        ("tone.hable", "tone_global:Hable", "The filmic curve of Uncharted 2: for gentle contrast and soft highlights"),
        ("tone.aces", "tone_global:Aces", "The look of ACES: for the contrast and punch of cinema"),
        ("tone.agx", "tone_agx:Agx", "The look of AgX: soft and calm, for lamps, neon and other bright colours"),
        ("tone.reinhard_local", "tone_local:ReinhardLocal", "Dodging and burning: natural, with detail in the lights"),
        ("tone.guided", "tone_local:GuidedTone", "Base and detail by a guided filter: for interiors with windows"),
        ("tone.local_laplacian", "tone_laplacian:LocalLaplacian", "Local Laplacian filter: for texture and depth"),
        ("tone.gradient", "tone_gradient:Gradient", "Gradient-domain compression: for night, lamps and backlight"),
        ("tone.bt2390", "tone_hdr:Bt2390", "For HDR displays: lights bent to the peak (BT.2390), midtones kept"),
        ("tone.expand", "tone_hdr:Expand", "For HDR displays: the highlights of an SDR picture expanded"),
        ("geometry.resize", "geometry:Resize", "Resize in linear light, antialiased"),
        ("geometry.crop", "geometry:Crop", "Cut out a rectangle"),
        ("geometry.rotate", "geometry:Rotate", "Turn or mirror"),
        ("lens.correct", "lens:Correct", "Undo distortion, lateral colour and vignetting, by the file or by lensfun"),
        ("lens.defringe", "defringe:Defringe", "Remove purple and green fringes along bright edges"),
        ("finish.sharpen", "finish:Sharpen", "Sharpen luminance without halos"),
        ("finish.saturation", "finish:Saturation", "More or less colour"),
        ("finish.dither", "finish:Dither", "Noise of one code value against banding"),
        ("align.homography", "align:Homography", "Bring handheld frames onto the middle one, to a fraction of a pixel"),
        ("align.flow", "flow:Flow", "Bring handheld frames of scenes with depth onto the middle one, pixel by pixel"),
        ("align.mtb", "align:Mtb", "Bring frames onto the middle one by whole pixels, cheaply"),
        ("merge.response", "response:Response", "Photographs of a bracket to scene light: undo the camera's curve"),
        (
            "merge.exposures",
            "exposures:Exposures",
            "Work out exposures by EXIF and pixels; even out colour and flicker",
        ),
        ("merge.deghost", "deghost:Deghost", "Mark what moved, so that each moving thing comes from one frame"),
        ("merge.radiance", "merge:Radiance", "Merge a bracket to scene-linear light, with the least noise"),
        ("fusion.mertens", "fusion:Mertens", "Exposure fusion of a bracket"),
        (
            "fusion.extreme",
            "fusion_extreme:Extreme",
            "Highlights of a very bright frame out of one up to ten stops darker",
        ),
        ("restore", "restore:Restore", "A learned model of the zoo: super-resolution, denoising, deraining ..."),
    )
}
"""Built-in stages by the name that pipelines use."""

_BY_CLASS = {entry.target.partition(":")[2]: entry.target for entry in BUILT_IN.values()}
__all__ = sorted(_BY_CLASS)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _BY_CLASS:
        raise AttributeError(f"there is no stage class '{name}'; restorekit stages list names them")
    module, _, attribute = _BY_CLASS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_BY_CLASS])
