"""What distillation losses are multiplied by, where papers and their code differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor  # options need the scales' names and no torch

Scale = Literal["temperature", "outputs", "none"]


def factor(scale: Scale, temperature: float, outputs: int | Tensor) -> float | Tensor:
    """By what a cross-entropy with answers at a temperature is multiplied, ``outputs`` being how many it is over.

    One number of outputs, or one for every row, [N]; the factor likewise. With ``scale`` "temperature" it is the square
    of that, which gives gradients back the size they have at 1 (Hinton et al. 2015, arXiv 1503.02531, section 2); with
    "outputs" that divided by the number of outputs, as in van de Ven's code of 2018; with "none" it is 1, as in Li and
    Hoiem 2017.
    """
    if scale == "none":
        return 1.0
    return temperature**2 / (outputs if scale == "outputs" else 1)
