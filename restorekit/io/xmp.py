"""XMP packets (ISO 16684-1): parsed with care, cleaned of what no longer holds, and merged.

Packets come from strangers. One with a document type, which could define entities that grow without end, is refused,
as is one that is larger, deeper or of more parts than any honest packet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from xml.dom import XMLNS_NAMESPACE, minidom
from xml.parsers import expat

LARGEST_BYTES = 1 << 24
LARGEST_COUNT = 200_000
DEEPEST = 64
"""Bytes, elements and attributes, and nested elements of a packet that is still read."""

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XMP = "http://ns.adobe.com/xap/1.0/"
TIFF = "http://ns.adobe.com/tiff/1.0/"
EXIF = "http://ns.adobe.com/exif/1.0/"
PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
CAMERA_RAW = "http://ns.adobe.com/camera-raw-settings/1.0/"
MEDIA_MANAGEMENT = "http://ns.adobe.com/xap/1.0/mm/"

Name = tuple[str, str]
"""Namespace and local name of a property."""

_STALE_SPACES = frozenset((
    CAMERA_RAW, "http://ns.adobe.com/camera-raw-saved-settings/1.0/", "http://ns.adobe.com/camera-raw-defaults/1.0/",
    "http://ns.adobe.com/camera-raw-embedded-lens-profile/1.0/", "http://darktable.sf.net/",
    "http://ns.adobe.com/hdr-gain-map/1.0/", "http://ns.adobe.com/hdr-metadata/1.0/",
    "http://ns.apple.com/HDRGainMap/1.0/", "http://ns.apple.com/pixeldatainfo/1.0/",
    "http://ns.adobe.com/xmp/note/", "http://ns.google.com/photos/1.0/container/",
    "http://ns.google.com/photos/1.0/container/item/", "http://ns.google.com/photos/1.0/camera/",
    "http://ns.google.com/photos/1.0/image/", "http://ns.google.com/photos/1.0/audio/",
    "http://ns.google.com/photos/1.0/depthmap/", "http://ns.google.com/photos/dd/1.0/device/",
))  # fmt: skip
"""Settings of developers that do not hold for our pixels, and parts that lie elsewhere in the old file."""

_STALE: Mapping[str, frozenset[str]] = {
    TIFF: frozenset((
        "Orientation", "ImageWidth", "ImageLength", "BitsPerSample", "Compression", "PhotometricInterpretation",
        "SamplesPerPixel", "PlanarConfiguration", "YCbCrSubSampling", "YCbCrPositioning", "YCbCrCoefficients",
        "TransferFunction", "WhitePoint", "PrimaryChromaticities", "ReferenceBlackWhite", "NativeDigest", "Software",
    )),
    EXIF: frozenset((
        "PixelXDimension", "PixelYDimension", "ColorSpace", "ComponentsConfiguration", "CompressedBitsPerPixel",
        "NativeDigest", "SubjectArea", "SubjectLocation", "FocalPlaneXResolution", "FocalPlaneYResolution",
        "FocalPlaneResolutionUnit",
    )),
    XMP: frozenset(("Thumbnails",)),
    PHOTOSHOP: frozenset((
        "ICCProfile", "ColorMode", "History", "DocumentAncestors", "TextLayers", "LegacyIPTCDigest",
        "SidecarForExtension",
    )),
    MEDIA_MANAGEMENT: frozenset((
        "History", "DerivedFrom", "Ingredients", "Pantry", "InstanceID", "DocumentID", "Manifest", "Versions",
    )),
    "http://purl.org/dc/elements/1.1/": frozenset(("format",)),
    "http://purl.org/dc/terms/": frozenset(("provenance",)),
}  # fmt: skip
"""Properties of the old file's pixels, its history and its identity."""

_REGION_SPACES = frozenset((
    "http://www.metadataworkinggroup.com/schemas/regions/", "http://ns.microsoft.com/photo/1.2/",
))  # fmt: skip
"""Faces and other parts of the picture, in fractions of its sides as it is stored."""


class XmpError(ValueError):
    """A packet that cannot be used; the text says why, to go on after "it"."""


class Packet:
    """The properties of one picture, in the notation they came in.

    Raises XmpError for what is no XMP, is damaged, or is larger than :data:`LARGEST_BYTES` and its kin allow.
    """

    def __init__(self, data: bytes) -> None:
        if data[:2] not in (b"\xff\xfe", b"\xfe\xff"):  # UTF-16, where bytes of 0 belong to characters
            data = data.strip(b"\0 \t\r\n")
        _examine(data)
        try:
            self._document = minidom.parseString(data)
        except (expat.ExpatError, ValueError, LookupError) as error:
            raise XmpError(f"is damaged ({error})") from error
        if not self._document.getElementsByTagNameNS(RDF, "RDF"):
            raise XmpError("holds no XMP")

    @property
    def values(self) -> Mapping[Name, str]:
        """The properties with their characters, those of lists one after the other."""
        found: dict[Name, str] = {}
        for node in self._properties():
            found.setdefault(_name(node), _text(node).strip())
        return found

    def remove(self, unwanted: Callable[[Name], bool]) -> bool:
        """Take out properties that are unwanted, or hold something unwanted inside; whether there were any."""
        found = [node for node in self._properties() if any(unwanted(_name(part)) for part in _parts(node))]
        for node in found:
            self._take_out(node)
        if found:
            self._take_out_empty()
        return bool(found)

    def add(self, other: Packet) -> None:
        """Take over all properties of another packet, which replace those of the same name."""
        names = set(other.values)
        self.remove_names(names)
        root = self._document.getElementsByTagNameNS(RDF, "RDF")[0]
        for description in other._descriptions():
            copied = self._document.importNode(description, True)
            assert isinstance(copied, minidom.Element)
            for prefix, space in _prefixes(description).items():
                copied.setAttributeNS(XMLNS_NAMESPACE, prefix, space)
            root.appendChild(copied)

    def remove_names(self, names: set[Name]) -> None:
        """Take out the properties of these names."""
        for node in [node for node in self._properties() if _name(node) in names]:
            self._take_out(node)

    def to_bytes(self) -> bytes:
        """The packet in UTF-8; empty where no property is left."""
        nodes = list(self._properties())
        for node in nodes:
            if isinstance(node, minidom.Attr) and not set("\n\r\t").isdisjoint(node.value):
                self._make_element(node)  # minidom writes them as they are, and attributes lose them when read
        return "".join(str(node.toxml()) for node in self._document.childNodes).encode() if nodes else b""

    def _descriptions(self) -> Iterator[minidom.Element]:
        for root in self._document.getElementsByTagNameNS(RDF, "RDF"):
            for child in root.childNodes:
                if isinstance(child, minidom.Element):
                    yield child

    def _take_out_empty(self) -> None:
        """Take out descriptions that have no property left."""
        full = [node.ownerElement if isinstance(node, minidom.Attr) else node.parentNode for node in self._properties()]
        for description in list(self._descriptions()):
            if not any(description is owner for owner in full):
                self._take_out(description)

    def _properties(self) -> Iterator[minidom.Element | minidom.Attr]:
        """Simple properties may be attributes of a description, all may be elements in it."""
        for description in self._descriptions():
            for attribute in list(description.attributes.values()):
                if attribute.namespaceURI not in (None, RDF, XMLNS_NAMESPACE) and attribute.prefix != "xml":
                    yield attribute
            yield from (child for child in description.childNodes if isinstance(child, minidom.Element))

    def _make_element(self, node: minidom.Attr) -> None:
        element = self._document.createElementNS(node.namespaceURI, node.name)
        element.appendChild(self._document.createTextNode(node.value))
        owner = node.ownerElement
        assert owner is not None
        owner.removeAttributeNode(node)
        owner.appendChild(element)

    @staticmethod
    def _take_out(node: minidom.Element | minidom.Attr) -> None:
        if isinstance(node, minidom.Attr):
            assert node.ownerElement is not None
            node.ownerElement.removeAttributeNode(node)
        else:
            assert node.parentNode is not None
            node.parentNode.removeChild(node)


def clean_xmp(packet: bytes, orientation: int = 1) -> bytes:
    """A packet without what no longer holds for a processed picture; empty where nothing is left or it is damaged.

    Dropped are develop settings, orientation, size and sample format, thumbnails, gain maps and other parts of the
    old file, its history and its identity; and, where ``orientation`` or the packet's own is not 1, regions such as
    faces, which lie elsewhere once the picture is upright. A packet that has nothing of this comes back byte for byte.
    """
    if not packet:
        return b""
    try:
        found = Packet(packet)
    except XmpError:
        return b""
    turned = orientation != 1 or found.values.get((TIFF, "Orientation"), "1") != "1"

    def unwanted(name: Name) -> bool:
        return _is_stale(name) or (turned and name[0] in _REGION_SPACES)

    return found.to_bytes() if found.remove(unwanted) else packet


def merged(packet: bytes, other: bytes) -> bytes:
    """A packet with all properties of another, which win where both have one."""
    if not packet or not other:
        return packet or other
    try:
        found = Packet(packet)
    except XmpError:
        return other
    found.add(Packet(other))
    return found.to_bytes()


def _is_stale(name: Name) -> bool:
    space, local = name
    return space in _STALE_SPACES or local in _STALE.get(space, ())


def _examine(data: bytes) -> None:
    """Refuse what would be costly or dangerous to parse, without building anything."""
    if len(data) > LARGEST_BYTES:
        raise XmpError(f"is larger than {LARGEST_BYTES >> 20} MB")
    count = depth = 0

    def doctype(*_: object) -> None:
        raise XmpError("has a document type, which XMP does not")

    def start(_: str, attributes: list[str]) -> None:
        nonlocal count, depth
        count, depth = count + 1 + len(attributes) // 2, depth + 1
        if count > LARGEST_COUNT or depth > DEEPEST:
            raise XmpError("has more parts than a packet should")

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.ordered_attributes = True
    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, XmpError):
            raise
        raise XmpError(f"is damaged ({error})") from error


def _name(node: minidom.Element | minidom.Attr) -> Name:
    return node.namespaceURI or "", node.localName or ""


def _parts(node: minidom.Element | minidom.Attr) -> Iterator[minidom.Element | minidom.Attr]:
    """A property and every element and attribute inside it."""
    yield node
    if isinstance(node, minidom.Element):
        yield from node.attributes.values()
        for child in node.childNodes:
            if isinstance(child, minidom.Element):
                yield from _parts(child)


def _text(node: minidom.Node) -> str:
    if isinstance(node, minidom.Attr):
        return str(node.value)
    if isinstance(node, minidom.Text):
        return str(node.data)
    return "".join(_text(child) for child in node.childNodes)


def _prefixes(element: minidom.Element) -> dict[str, str]:
    """The namespace declarations that hold for an element, as attributes."""
    found: dict[str, str] = {}
    node: minidom.Node | None = element
    while isinstance(node, minidom.Element):
        for attribute in node.attributes.values():
            if attribute.namespaceURI == XMLNS_NAMESPACE:
                found.setdefault(str(attribute.name), str(attribute.value))
        node = node.parentNode
    return found
