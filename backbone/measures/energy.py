"""What the work of a network costs under named models: operations on one image, energy of arithmetic, memory.

Energy counts arithmetic only. Fetching weights and values is left out, and is known to dominate: 64 bits from an
8 KiB cache take 10 pJ in the same table, from DRAM 1,300 to 2,600 pJ, an fp32 addition 0.9 pJ (Horowitz 2014).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Energy of one operation on a named process: mac_pj multiplies and adds, ac_pj only adds; in picojoule."""

    name: str
    mac_pj: float
    ac_pj: float
    source: str


FP32 = CostModel(
    name="45nm fp32",
    mac_pj=4.6,
    ac_pj=0.9,
    source="Horowitz 2014 (ISSCC, doi 10.1109/ISSCC.2014.6757323), figure 1.1.9: multiply 3.7, add 0.9",
)
INT8 = CostModel(
    name="45nm int8",
    mac_pj=0.23,
    ac_pj=0.03,
    source="Horowitz 2014, figure 1.1.9: multiply 0.2, add 0.03; an accumulator of 32 bits would take 0.1 for the add",
)
COST_MODELS = (FP32, INT8)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one network for one image at a time.

    Attributes:
        parameters, buffers: of the network and its read-out.
        state: what is kept from one step to the next.
        activations: the largest values an analog network holds at the same time.
    """

    parameters: int
    buffers: int
    state: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        return self.parameters + self.buffers + self.state + self.activations


@dataclass(frozen=True, kw_only=True)
class Work:
    """Operations on one image: multiply-accumulates, accumulates, and updates of neurons."""

    macs: float
    acs: float = 0.0
    updates: float = 0.0

    def energy_nj(self, model: CostModel, update: Literal["AC", "MAC"] = "AC") -> float:
        """Nanojoule of arithmetic; an update is one operation of the kind named."""
        each = model.ac_pj if update == "AC" else model.mac_pj
        return (self.macs * model.mac_pj + self.acs * model.ac_pj + self.updates * each) / 1000


def priced(
    work: Work, references: Mapping[str, Work], memory: Memory, update: Literal["AC", "MAC"] = "AC"
) -> dict[str, float]:
    """Columns of a table of costs: operations, bytes, and for each of `COST_MODELS` the energy in nJ of one image.

    Args:
        work: on one image.
        references: what the energy is compared with, by the name that its ratio has: ``energy_vs_NAME (MODEL)``.
        memory: of the network.
        update: the operation that one update of a neuron is.
    """
    row: dict[str, float] = {
        "macs": work.macs,
        "acs": work.acs,
        "neuron_updates": work.updates,
        "memory_bytes": memory.total,
    }
    for model in COST_MODELS:
        energy = work.energy_nj(model, update)
        row[f"energy_nj ({model.name})"] = energy
        row |= {f"energy_vs_{name} ({model.name})": energy / one.energy_nj(model) for name, one in references.items()}
    return row


def stored_bytes(*modules: nn.Module) -> tuple[int, int]:
    """Bytes of the parameters and of the buffers of modules."""
    parameters = _bytes(tensor for module in modules for tensor in module.parameters())
    return parameters, _bytes(tensor for module in modules for tensor in module.buffers())


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
