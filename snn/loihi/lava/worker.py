"""Runs networks of chip integers in Lava: a script for Python 3.10 with lava-nc, without engram and torch.

    python worker.py FOLDER (runtime | models | hardware)

FOLDER has ``jobs.json``, a list of {"network", "images", "out", "keep"}: files that `stored` and numpy wrote, the file
to write, and what of ``spikes``, ``u`` and ``v`` is wanted. ``out`` is an .npz of ``POPULATION.WHAT``, [T, B, *shape]
int32, with T steps in the network's own time. Networks that Lava has no way to run are not sent here.

``runtime`` is Lava as everybody has it, a process of the machine's for each of Lava's. ``models`` steps the same models
of Lava one after the other in this process. ``hardware`` needs Lava's closed package. All images go through one
network, one behind the other: every population computes in its window of steps, begins it in its first state, and sends
nothing outside; on hardware there is a network for each image.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2HwCfg, Loihi2SimCfg
from lava.proc.conv.process import Conv
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.process import LIF, LIFReset
from lava.proc.sdn.process import ActivationMode, Delta, SigmaDelta
from lava.utils import loihi
from models import MODELS, OURS, Shifted, Wait

INPUT = "input"
NEVER = 1 << 17
"""A threshold that no potential of 24 bits is above."""
LARGEST = NEVER - 1
"""The largest that the chip can hold."""
GRADED = 24


# --- the file


def read(path):
    """A network as `stored` writes it -> dicts and arrays."""
    with np.load(path, allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files}

    def made(value):
        if isinstance(value, dict):
            return arrays[value["array"]] if set(value) == {"array"} else {k: made(v) for k, v in value.items()}
        return [made(each) for each in value] if isinstance(value, list) else value

    return made(json.loads(arrays["header"].tobytes()))


def offsets_of(network):
    found = {INPUT: 0}
    for each in network["populations"]:
        found[each["name"]] = max((found[s["source"]] for s in each["synapses"] if s["delay"] == 0), default=0) + 1
    return found


def laid(shape):
    """(C, H, W) -> Lava's (W, H, C)."""
    return tuple(reversed(shape))


def turned(array, shape):
    """Values for a population of (C, H, W) or (N,), one, one a channel or one each -> the same in Lava's order."""
    array = np.asarray(array)
    if array.ndim < len(shape):
        array = array.reshape(array.shape + (1,) * (len(shape) - array.ndim))
    return np.ascontiguousarray(np.broadcast_to(array, shape).transpose(*reversed(range(len(shape))))).astype(np.int32)


def places(shape):
    """Positions of a flattened (C, H, W) in the order of a flattened (W, H, C)."""
    return turned(np.arange(int(np.prod(shape))).reshape(shape), shape).ravel()


# --- processes


class Built:
    """Lava's processes for a network."""

    def __init__(self, network, images, keep, folder, hardware=False):
        self.network, self.keep, self.folder, self.hardware = network, keep, folder, hardware
        self.offsets, shape = offsets_of(network), tuple(network["input"]["shape"])
        sequence = images.ndim == len(shape) + 2
        self.images, self.steps = len(images), images.shape[1] if sequence else network["steps"]
        waits = [self.waiting(s) for each in network["populations"] for s in each["synapses"]]
        self.period = self.steps + max(waits, default=0)
        self.total = self.period * (self.images - 1) + self.steps + max(self.offsets.values())
        self.shapes = {INPUT: shape, **{p["name"]: tuple(p["shape"]) for p in network["populations"]}}
        self.files, self.front, self.waits, self.wires = {}, [], [], []
        self.processes = {each["name"]: self.population(each) for each in network["populations"]}
        self.sent = {name: process.s_out for name, process in self.processes.items()}
        self.sent[INPUT] = self.source(images if sequence else images[:, None])
        for each in network["populations"]:
            for synapses in each["synapses"]:
                self.connect(synapses, each["name"])

    @staticmethod
    def waiting(synapses):
        return synapses["delay"] + (0 if synapses["delays"] is None else int(synapses["delays"].max()))

    def recorded(self, name):
        """What the model of a population is told: its window, and its files."""
        paths = {}
        for what in self.keep if name in self.shapes and name != INPUT else ():
            path = Path(self.folder) / f"{len(self.files)}.npy"
            shape = (self.images, self.steps, *laid(self.shapes[name]))
            np.lib.format.open_memmap(path, mode="w+", dtype=np.int32, shape=shape).flush()
            self.files[f"{name}.{what}"] = paths[what] = str(path)
        first = self.offsets[name]
        return {
            "window": {"first": first, "steps": self.steps, "period": self.period, "images": self.images},
            "record": paths,
        }

    def population(self, each):
        neurons, shape = each["neurons"], tuple(each["shape"])
        bias = turned(neurons["bias"], shape)
        more = {} if self.hardware else self.recorded(each["name"])
        if neurons["kind"] == "sigma-delta":
            mode = ActivationMode.RELU if neurons["activation"] == "relu" else ActivationMode.UNIT
            names = ("vth", "spike_exp", "state_exp", "cum_error")
            kept = {name: neurons[name] for name in names}
            return SigmaDelta(shape=laid(shape), bias=bias, act_mode=mode, **kept, **more)
        never = LARGEST if self.hardware else NEVER
        given = {"shape": laid(shape), "bias_mant": bias, "bias_exp": neurons["bias_exp"]}
        given.update({name: neurons.get(name, other) for name, other in (("du", 4095), ("dv", 0), ("vth", never))})
        if self.hardware:
            first = self.offsets[each["name"]] + 1
            return LIFReset(**given, reset_interval=self.total + 1, reset_offset=first)
        start = turned(neurons.get("start", np.zeros(1)), shape)
        soft, refractory = neurons.get("reset") == "soft", neurons.get("refractory", 0)
        return LIF(**given, start=start, soft=soft, refractory=refractory, **more)

    def source(self, images):
        """[B, T or 1, C, H, W] -> the port that sends them, with silence between."""
        shape = self.shapes[INPUT]
        data = np.zeros((*laid(shape), self.total), np.int32)
        for index, image in enumerate(images):
            for step in range(self.steps):
                data[..., index * self.period + step] = turned(image[step % len(image)], shape)
        source = Source(data=data)
        self.front.append((source, None))
        if self.hardware:
            from lava.proc.embedded_io.spike import PyToNxAdapter  # of the closed package

            adapter = PyToNxAdapter(shape=laid(shape))
            source.s_out.connect(adapter.inp)
            return adapter.out
        if self.network["input"]["encoding"] != "delta":
            return source.s_out
        encoder = Delta(shape=laid(shape), vth=0)
        encoder.proc_params._parameters.update(self.recorded(INPUT))
        source.s_out.connect(encoder.a_in)
        self.front.append((encoder, source))
        return encoder.s_out

    def graded(self, name):
        if name == INPUT:
            given = self.network["input"]
            return given["bits"] > 1 or given["signed"] or given["encoding"] == "delta"
        population = next(each for each in self.network["populations"] if each["name"] == name)
        return population["neurons"]["kind"] == "sigma-delta"

    def connect(self, synapses, target):
        name, shape = synapses["source"], tuple(synapses["in_shape"])
        port, wait = self.sent[name], self.offsets[target] - self.offsets[name] + synapses["delay"] - 1
        origin = self.processes[name] if name != INPUT else self.front[-1][0]
        if wait:
            line = Wait(shape=laid(shape), steps=wait)
            self.waits.append((line, origin))
            port.connect(line.s_in)
            origin, port = line, line.s_out
        bits, reached = GRADED if self.graded(name) else 0, self.processes[target].a_in
        if synapses["kind"] == "conv":
            made = convolution(synapses, laid(shape), bits)
            self.wires.append((made, origin, target))
            port.connect(made.s_in)
            made.a_out.connect(reached)
            return
        made = matrix(synapses, places(shape), places(self.shapes[target]), bits)
        self.wires.append((made, origin, target))
        (port.flatten() if len(shape) > 1 else port).connect(made.s_in)
        out = laid(self.shapes[target])
        (made.a_out.reshape(out) if len(out) > 1 else made.a_out).connect(reached)

    def results(self):
        """POPULATION.WHAT -> [T, B, C, H, W]."""
        found = {}
        for key, path in self.files.items():
            value = np.load(path, mmap_mode="r")
            found[key] = np.ascontiguousarray(value.transpose(1, 0, *reversed(range(2, value.ndim))))
        return found


def convolution(synapses, shape, bits):
    """Conv convolves, with kernels in the order x, y: torch's are flipped and turned; its exponent is ignored."""
    weight, exponent = synapses["weight"].astype(np.int32), synapses["exponent"]
    weight = np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1))
    if exponent > 0:
        weight, exponent = weight << exponent, 0
    sides = {name: tuple(reversed(synapses[name])) for name in ("stride", "padding", "dilation")}
    kind = Shifted if exponent < 0 else Conv
    return kind(
        weight=weight,
        weight_exp=exponent,
        input_shape=shape,
        groups=synapses["groups"],
        num_message_bits=bits,
        **sides,
    )


def matrix(synapses, columns, rows, bits):
    """Dense drops the last bit of weights of both signs: odd ones are doubled and their sums halved."""
    weight, exponent = synapses["weight"].astype(np.int32)[rows][:, columns], synapses["exponent"]
    if weight.min() < 0 < weight.max() and (weight & 1).any():
        weight, exponent = weight * 2, exponent - 1
    if synapses["delays"] is None:
        return Dense(weights=weight, weight_exp=exponent, num_message_bits=bits)
    delays = synapses["delays"].astype(int)[rows][:, columns]
    return DelayDense(weights=weight, delays=delays, weight_exp=exponent, num_message_bits=bits)


# --- running


def aloud(step):
    """Lava waits for ever for a process whose model raised, and says nothing: end them all."""

    def stepped(model):
        try:
            step(model)
        except Exception:
            traceback.print_exc()
            os.killpg(0, signal.SIGTERM)

    return stepped


def in_runtime(built):
    """Lava's own way."""
    process = next(iter(built.processes.values()))
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=OURS)
    process.run(condition=RunSteps(num_steps=built.total), run_cfg=config)
    process.stop()


class Port:
    """In place of a port to another process of the machine: what was sent last, as the other side's type."""

    def __init__(self, shape, origins=()):
        self.shape, self.origins, self.data = shape, origins, np.zeros(shape, np.int32)

    def send(self, data):
        self.data = np.asarray(data).astype(np.int32).reshape(self.shape)

    def recv(self):
        return sum((origin().reshape(self.shape) for origin in self.origins), np.zeros(self.shape, np.int32))


def model_of(process):
    """Lava's model of a process with its variables set as Lava's builder sets them."""
    kind = MODELS[type(process)]
    model = kind(process.proc_params)
    for variable in process.vars:
        given = getattr(kind, variable.name)
        value = variable.init
        if issubclass(given.cls, np.ndarray):
            value = np.zeros(variable.shape, given.d_type)
            value[:] = variable.init
        setattr(model, variable.name, value)
    return model


def one_by_one(built):
    """The same models, a step of each after the other: what a synapse sends is what it took up a step before."""
    made = {id(process): model_of(process) for process in built.processes.values()}
    front = [(model_of(process), process, origin) for process, origin in built.front]
    waits = [(model_of(process), process, origin) for process, origin in built.waits]
    wires = [(model_of(process), process, origin, target) for process, origin, target in built.wires]
    made.update({id(process): model for model, process, *_ in (*front, *waits, *wires)})
    for model, process, origin in front:
        model.s_out = Port(process.s_out.shape)
        if origin is not None:
            model.a_in = Port(process.a_in.shape, [lambda origin=origin: made[id(origin)].s_out.data])
    for process in built.processes.values():
        model = made[id(process)]
        reaching = [wire for wire, _, _, target in wires if built.processes[target] is process]
        model.s_out, model.a_in = Port(process.s_out.shape), Port(process.a_in.shape, list(map(buffered, reaching)))
    for model, process, origin, *_ in (*waits, *wires):
        model.s_in = Port(process.s_in.shape, [lambda origin=origin: made[id(origin)].s_out.data])
        model.s_out = model.a_out = Port((process.s_out if hasattr(process, "s_out") else process.a_out).shape)
    order = [each[0] for each in front] + [made[id(process)] for process in built.processes.values()]
    order += [each[0] for each in (*waits, *wires)]
    for step in range(built.total):
        for model in order:
            model.time_step = step + 1
            model.run_spk()


def buffered(wire):
    """What a connection sends next, when it is asked."""

    def sent():
        held = wire.a_buf if hasattr(wire, "a_buf") else wire.a_buff
        return np.asarray(held[:, 0] if hasattr(wire, "delays") else held).astype(np.int32)

    return sent


def simulated(network, images, keep, run):
    """One network for all images."""
    folder = tempfile.mkdtemp(prefix="lava-", dir=Path.cwd())
    try:
        built = Built(network, images, keep, folder)
        run(built)
        return built.results()
    finally:
        shutil.rmtree(folder)


def on_chip(network, images):
    """One network of processes for each image, and the spikes of all populations with the read-out's potential."""
    from lava.proc.embedded_io.spike import NxToPyAdapter  # of the closed package

    found = {}
    for index, image in enumerate(images):
        built = Built(network, image[None], (), "", hardware=True)
        sinks = {}
        for name, process in built.processes.items():
            adapter, sink = (
                NxToPyAdapter(shape=process.s_out.shape),
                Sink(shape=process.s_out.shape, buffer=built.total),
            )
            process.s_out.connect(adapter.inp)
            adapter.out.connect(sink.a_in)
            sinks[name] = sink
        last = network["populations"][-1]["name"]
        process, seen = built.processes[last], []
        for _ in range(built.total):
            process.run(condition=RunSteps(num_steps=1), run_cfg=Loihi2HwCfg())
            seen.append((process.sigma if hasattr(process, "sigma") else process.v).get())
        values = {f"{name}.spikes": np.moveaxis(sink.data.get(), -1, 0) for name, sink in sinks.items()}
        process.stop()
        for key, value in {**values, f"{last}.v": np.stack(seen)}.items():
            first = built.offsets[key.rpartition(".")[0]]
            value = value[first : first + built.steps].transpose(0, *reversed(range(1, value.ndim)))
            found.setdefault(key, np.zeros((built.steps, len(images), *value.shape[1:]), np.int32))[:, index] = value
    return found


def main(folder, how):
    if how == "hardware" and not loihi.is_installed():
        sys.exit("hardware needs Lava's package for Loihi 2 (lava-loihi), which is not in this environment")
    PyLoihiProcessModel._spike = aloud(PyLoihiProcessModel._spike)
    for job in json.loads(Path(folder, "jobs.json").read_text()):
        network, images = read(job["network"]), np.load(job["images"], allow_pickle=False)
        if how == "hardware":
            results = on_chip(network, images)
        else:
            results = simulated(network, images, job["keep"], in_runtime if how == "runtime" else one_by_one)
        np.savez(job["out"], **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
