"""What a Loihi 2 core holds, and what its work takes.

Where a figure is *fitted*, it was chosen so that the rows of the published table of PilotNet come out; nobody says it.

Sources:
    [table] lava-dl, tutorials/lava/lib/dl/netx/pilotnet_snn/benchmark.ipynb and pilotnet_sdnn/benchmark.ipynb: what
        Lava's compiler for Loihi 2 says of each layer's cores, and its limit ``SynMem`` of 12,000.
    [chip] open-neuromorphic.org, Loihi 2: 128 cores, up to 1 million neurons and 120 million synapses.
    [Davies 2018] "Loihi: A Neuromorphic Manycore Processor with On-Chip Learning", IEEE Micro 38(1), table 2: energy
        and time of Loihi's (the first) operations, from simulated circuits. None are published for Loihi 2.
"""

from __future__ import annotations

from dataclasses import dataclass

CORES = 128
"""On a chip. [chip]"""
WORDS = 12_000
"""Words of synaptic memory in a core. [table]"""
NEURONS = 4_095
"""In a core. Fitted: cores with 3,168 are in the table, and none with 4,096, where twice a tile would be that."""
WORD_BITS = 64
"""Fitted, with the three that follow, to the memory of all layers in both tables."""
INDEX_BITS = 12
"""Of a matrix's synapse beside its weight: which neuron it goes to. Convolutions' have none."""
LIST_BITS = 20
"""Of a source's list of synapses in a matrix beside them; 2 to 22 give the same."""
AXON_BITS = 34
"""Of such a list of a convolution for each axon in, which are as many as its stride along x; 33 to 36 give the same."""
DELAY_STEPS = 63
"""The longest wait of a synapse, of 6 bits (Lava's ``DelayDense``)."""


@dataclass(frozen=True)
class Costs:
    """Seconds and joules of an operation.

    Attributes:
        synapse: one message at one synapse.
        update: one neuron in one step, whether or not it fires.
        barrier: all cores' agreement that a step is over.
        hop: a message to another core, one tile further.
    """

    synapse: float
    update: float
    barrier: float
    hop: float


TIME = Costs(synapse=3.5e-9, update=8.4e-9, barrier=465e-9, hop=6.5e-9)
"""[Davies 2018]: the longest synaptic operation, active update, barrier over 32 tiles and step to the north."""
ENERGY = Costs(synapse=23.6e-12, update=81e-12, barrier=0.0, hop=4.0e-12)
"""[Davies 2018]: the least of a synaptic operation, active update, and step to the north."""
