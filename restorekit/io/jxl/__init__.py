"""JPEG XL files (ISO/IEC 18181): what their header and boxes say; pixels are decoded by imagecodecs."""
