"""Types of parameters that are drawn: shares of pictures, and ranges ``(least, most)``."""

from __future__ import annotations

from typing import Annotated, TypeVar

import pydantic

Number = TypeVar("Number", int, float)


def _ordered(between: tuple[Number, Number]) -> tuple[Number, Number]:
    if between[0] > between[1]:
        raise ValueError(f"is {between[0]} to {between[1]}; give the least first")
    return between


ORDERED = pydantic.AfterValidator(_ordered)
"""Refuses a range whose least is above its most."""

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
"""How many of all pictures, 0..1."""

Quality = Annotated[int, pydantic.Field(ge=1, le=100)]
"""Of libjpeg: 100 is best."""

Width = Annotated[float, pydantic.Field(ge=0, le=50)]
"""Standard deviation of a blur in px."""
