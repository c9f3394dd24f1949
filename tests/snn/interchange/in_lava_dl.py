"""A .net file, run by lava-dl's own reader in Lava: a script for lava-dl's environment (Python 3.10).

python in_lava_dl.py FILE.net IN.npz OUT.npz [name=value of the reader's arguments ...]

IN has ``images``, int [T, C, H, W], one for each step. OUT has for every block K what it sent, ``out/K``, [T, C, H, W]
or [T, N], and its state after the last step, ``u/K`` and ``v/K`` (``sigma/K``, ``act/K``).
"""

import sys

import numpy as np
from lava.lib.dl import netx
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import RunConfig
from lava.proc import io
from lava.proc.conv import utils

utils.TORCH_IS_AVAILABLE = False  # torch hangs in Lava's processes


class FixedPoint(RunConfig):
    def __init__(self):
        super().__init__(custom_sync_domains=None)

    def select(self, _, models):
        return next(model for model in models if "fixed_pt" in model.tags)


def in_order(values):
    """[W, H, C, T] or [N, T] -> [T, C, H, W] or [T, N]."""
    return values.transpose()


def main(file, given, taken, *options):
    net = netx.hdf5.Network(
        net_config=file, **{name: int(value) for name, _, value in (o.partition("=") for o in options)}
    )
    images = np.load(given)["images"]
    steps = len(images)
    first = net.in_layer
    entry = first.neuron.a_in if hasattr(first, "transform") else first.inp
    source = io.source.RingBuffer(data=images.transpose().reshape(*entry.shape, steps))
    source.s_out.connect(entry)
    sinks = []
    for layer in net.layers:
        sinks.append(io.sink.RingBuffer(shape=layer.out.shape, buffer=steps))
        layer.out.connect(sinks[-1].a_in)
    net.run(condition=RunSteps(num_steps=steps), run_cfg=FixedPoint())
    found = {f"out/{place}": in_order(sink.data.get()) for place, sink in enumerate(sinks)}
    for place, layer in enumerate(net.layers):
        for name in ("u", "v", "sigma", "act"):
            if hasattr(layer.neuron, name):
                found[f"{name}/{place}"] = in_order(getattr(layer.neuron, name).get())
    net.stop()
    np.savez(taken, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
