"""Runs networks of chip integers in Lava: a script by itself for Python 3.10 with lava-nc, without engram and torch.

    python worker.py FOLDER [--hardware]

FOLDER has ``jobs.json``, a list of {"network", "images", "out", "keep"}: files that `stored` and numpy wrote, the file
to write, and what of ``spikes``, ``u`` and ``v`` is wanted. ``out`` is an .npz of ``POPULATION.WHAT``, [T, B, *shape]
int32, with T steps in the network's own time. In ``errors.json`` stands what Lava has no way to do, a list for a job.

All images go through one network of Lava's processes, one behind the other: every population computes in its window of
steps, begins it in its first state, and sends nothing outside.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2HwCfg, Loihi2SimCfg
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.conv.models import AbstractPyConvModel
from lava.proc.conv.process import Conv
from lava.proc.conv.utils import signed_clamp
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.models import PyLifModelBitAcc
from lava.proc.lif.process import LIF, LIFReset
from lava.proc.sdn.models import PyDeltaModelFixed, PySigmaDeltaModelFixed
from lava.proc.sdn.process import ActivationMode, Delta, SigmaDelta
from lava.utils import loihi

INPUT = "input"
NEVER = 1 << 17
"""A threshold that no potential of 24 bits is above."""
LARGEST = NEVER - 1
"""The largest that the chip can hold."""
GRADED = 24


# --- what Lava's models are told beyond their own: when to compute, where to write what they did


class Windowed:
    """Of a population's model: its window of steps in every image, its first state, and a record of what it did.

    ``window`` has ``first`` (steps before the first image), ``steps`` of an image, ``period`` from one to the next,
    ``images``; ``record`` maps what is kept to files of [images, steps, *shape] int32.
    """

    def __init__(self, proc_params):
        super().__init__(proc_params)
        self.window, self.record, self.files = proc_params["window"], proc_params["record"], None
        self.more = proc_params

    def begin(self):
        """Set the state before an image."""
        raise NotImplementedError

    def advance(self, arrived):
        """One step of Lava's own arithmetic -> what is sent."""
        raise NotImplementedError

    def state(self):
        """(u, v) to be kept."""
        raise NotImplementedError

    def run_spk(self):
        arrived = self.a_in.recv()
        image, step = divmod(int(self.time_step) - 1 - self.window["first"], self.window["period"])
        if image < 0 or image >= self.window["images"] or step >= self.window["steps"]:
            self.s_out.send(np.zeros(self.s_out.shape, np.int32))
            return
        if step == 0:
            self.begin()
        sent = self.advance(arrived)
        if self.files is None:
            self.files = {what: np.load(path, mmap_mode="r+") for what, path in self.record.items()}
        u, v = self.state()
        for what, value in (("spikes", sent), ("u", u), ("v", v)):
            if what in self.files:
                self.files[what][image, step] = value
        self.s_out.send(sent)


class LIFModel(Windowed, PyLifModelBitAcc):
    """Lava's LIF, and what it has not: a first potential for every image, soft reset, rest after a spike."""

    def begin(self):
        self.u[:] = 0
        self.v[:] = self.more["start"]
        self.rest = np.zeros(self.v.shape, np.int32)

    def advance(self, arrived):
        before = self.v.copy()
        self.scale_bias()
        self.scale_threshold()
        self.subthr_dynamics(activation_in=arrived)
        if not self.more["refractory"]:
            fired = self.spiking_activation()
        else:
            self.v[:] = np.where(self.rest > 0, before, self.v)
            fired = self.spiking_activation() & (self.rest == 0)
            self.rest = np.where(fired, self.more["refractory"], np.maximum(self.rest - 1, 0))
        if self.more["soft"]:
            self.v[fired] -= (int(np.ravel(self.vth)[0]) + 1) << 6
        else:
            self.reset_voltage(spike_vector=fired)
        return fired

    def state(self):
        return self.u, self.v


class SigmaDeltaModel(Windowed, PySigmaDeltaModelFixed):
    """Lava's SigmaDelta."""

    def begin(self):
        self.sigma, self.act, self.residue, self.error = (np.zeros(self.sigma.shape, np.int32) for _ in range(4))

    def advance(self, arrived):
        return np.right_shift(self.dynamics(arrived), self.state_exp)

    def state(self):
        return self.sigma, self.act


class DeltaModel(Windowed, PyDeltaModelFixed):
    """Lava's Delta, in front of networks that are told of changes."""

    def begin(self):
        self.act, self.residue, self.error = (np.zeros(self.act.shape, np.int32) for _ in range(3))

    def advance(self, arrived):
        shifted = np.left_shift(arrived, self.spike_exp + self.state_exp)
        sent = np.right_shift(self.delta_dynamics(shifted), self.state_exp)
        self.act = shifted
        return sent

    def state(self):
        return self.act, self.act


class Shifted(Conv):
    """A convolution whose sums are shifted right, as Dense shifts them: Conv looks at no exponent."""


@implements(proc=Shifted, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class ShiftedModel(AbstractPyConvModel):
    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    a_buf: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    weight: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=8)

    def clamp_precision(self, x):
        return signed_clamp(np.right_shift(x, -int(self.weight_exp.item())), bits=24)


class Wait(AbstractProcess):
    """Hands on what comes ``steps`` later."""

    def __init__(self, *, shape, steps):
        super().__init__(shape=shape, steps=steps)
        self.s_in, self.s_out = InPort(shape=shape), OutPort(shape=shape)


@implements(proc=Wait, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class WaitModel(PyLoihiProcessModel):
    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params):
        super().__init__(proc_params)
        self.held = [np.zeros(proc_params["shape"], np.int32) for _ in range(proc_params["steps"])]

    def run_spk(self):
        self.s_out.send(self.held.pop(0))
        self.held.append(self.s_in.recv())


MODELS = {LIF: LIFModel, SigmaDelta: SigmaDeltaModel, Delta: DeltaModel}


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
        self.files = {}
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
        if wait:
            line = Wait(shape=laid(shape), steps=wait)
            port.connect(line.s_in)
            port = line.s_out
        bits, reached = GRADED if self.graded(name) else 0, self.processes[target].a_in
        if synapses["kind"] == "conv":
            made = convolution(synapses, laid(shape), bits)
            port.connect(made.s_in)
            made.a_out.connect(reached)
            return
        made = matrix(synapses, places(shape), places(self.shapes[target]), bits)
        (port.flatten() if len(shape) > 1 else port).connect(made.s_in)
        out = laid(self.shapes[target])
        (made.a_out.reshape(out) if len(out) > 1 else made.a_out).connect(reached)

    def any(self):
        return next(iter(self.processes.values()))

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


def simulated(network, images, keep):
    """One network of processes for all images."""
    folder = tempfile.mkdtemp(prefix="lava-", dir=Path.cwd())
    try:
        built = Built(network, images, keep, folder)
        process = built.any()
        process.run(
            condition=RunSteps(num_steps=built.total),
            run_cfg=Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=MODELS),
        )
        process.stop()
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


def refused(network, hardware):
    """What cannot be done, one line each."""
    found = offsets_of(network)
    for each in network["populations"]:
        neurons, name = each["neurons"], each["name"]
        for synapses in each["synapses"]:
            delay = found[name] - found[synapses["source"]] + synapses["delay"]
            if delay < 1:
                yield f"{name}: synapses from {synapses['source']} take {delay} steps, and every one takes a step"
            if hardware and (synapses["delay"] or synapses["delays"] is not None or delay > 1):
                yield f"{name}: on the chip connections that wait are not supported"
            if hardware and synapses["kind"] == "conv" and synapses["exponent"] < 0:
                yield f"{name}: on the chip convolutions cannot shift to the right"
        if hardware and neurons["kind"] == "lif":
            if neurons["reset"] == "soft":
                yield f"{name}: on the chip only hard reset is there"
            if neurons["refractory"] or neurons["start"].any():
                yield f"{name}: on the chip neurons rest not, and begin at 0"
    if hardware and network["input"]["encoding"] == "delta":
        yield "input: on the chip changes are not encoded"


def main(folder, hardware):
    if hardware and not loihi.is_installed():
        sys.exit("--hardware needs Lava's package for Loihi 2 (lava-loihi), which is not in this environment")
    jobs, errors = json.loads(Path(folder, "jobs.json").read_text()), []
    for job in jobs:
        network = read(job["network"])
        errors.append(list(refused(network, hardware)))
        if errors[-1]:
            continue
        images = np.load(job["images"], allow_pickle=False)
        results = on_chip(network, images) if hardware else simulated(network, images, job["keep"])
        np.savez(job["out"], **results)
    Path(folder, "errors.json").write_text(json.dumps(errors))


if __name__ == "__main__":
    main(sys.argv[1], "--hardware" in sys.argv[2:])
