"""Colour science: transfer functions, primaries, adaptation, camera models, colour differences."""
