"""What one of Avalanche's strategies remembers between tasks, as tensors, numbers, strings and containers of them.

Avalanche pickles whole strategies, which fails with current torch and would run what it reads. Here everything that a
strategy and its plugins hold is written down by what it is, and read into the parts of a strategy made afresh; classes
are looked up among Avalanche's own, and no constructor is called. Loaders and functions stay the new strategy's.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Generator, Mapping
from types import GeneratorType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from engram.continual.avalanche.guard import module, quiet

PASSING = frozenset(("model", "optimizer", "optimized_param_id", "plugins", "evaluator", "_criterion", "device")) | {
    *("experience", "adapted_dataset", "dataloader", "mbatch", "mb_output", "loss", "_eval_streams"),
    "current_eval_stream",
}
"""Attributes of a strategy that mean nothing between tasks, or are written down by themselves."""
CONTAINERS: dict[str, type] = {"list": list, "tuple": tuple, "set": set}
FACTORIES: dict[str, type] = {"dict": dict, "list": list, "set": set}
INSIDE = frozenset(vars(nn.Module()))
"""Attributes every module has."""


def snapshot(strategy: Any) -> dict[str, Any]:
    """The state of a strategy between two tasks; its tensors are copies."""
    writer = _Writer(strategy)
    own = {name: writer.write(value) for name, value in vars(strategy).items() if name not in PASSING}
    return {
        "own": own,
        "plugins": [writer.fields(plugin) for plugin in _plugins(strategy)],
        "model": writer.parts(strategy.model),
        "optimizer": copy.deepcopy(strategy.optimizer.state_dict()),
        "begun": strategy.optimized_param_id is not None,
    }


def restore(strategy: Any, saved: Mapping[str, Any]) -> None:
    """Put a snapshot into a strategy made with the same arguments."""
    reader = _Reader(strategy)
    with quiet(), torch.no_grad():
        reader.into(strategy.model, saved["model"])
        for name, value in saved["own"].items():
            setattr(strategy, name, reader.read(value, getattr(strategy, name, None)))
        for plugin, fields in zip(_plugins(strategy), saved["plugins"], strict=True):
            reader.fill(plugin, fields)
        strategy.optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))
        if saved["begun"]:
            strategy.optimized_param_id = dict(strategy.model.named_parameters())


def stored(strategy: Any) -> dict[str, Tensor] | None:
    """The images a strategy keeps, as `engram.continual.strategy.StrategyBase.stored` gives them; None when there are
    none.
    """
    writer = _Writer(strategy)
    for plugin in [strategy, *_plugins(strategy)]:
        for name, value in vars(plugin).items():
            if name not in PASSING:
                writer.write(value)
    found = [each for each in writer.sets if len(each["labels"])]
    for plugin in _plugins(strategy):
        for images, labels in zip(getattr(plugin, "x_memory", ()), getattr(plugin, "y_memory", ()), strict=True):
            numbers = torch.tensor(labels, dtype=torch.long)
            found.append({"images": images.cpu(), "labels": numbers, "tasks": torch.zeros_like(numbers)})
        if hasattr(plugin, "ext_mem_list_current_index"):  # GSS
            count = plugin.ext_mem_list_current_index
            images, numbers = (plugin.ext_mem_list_x[:count] * 255).byte(), plugin.ext_mem_list_y[:count].long()
            found.append({"images": images.cpu(), "labels": numbers.cpu(), "tasks": torch.zeros_like(numbers).cpu()})
    if not found:
        return None
    return {name: torch.cat([each[name] for each in found]) for name in ("images", "labels", "tasks")}


def fresh_iterators(strategy: Any) -> None:
    """Begin endless passes over memories anew (A-GEM, MIR), so that they follow from the seed of the task at hand."""
    for plugin in _plugins(strategy):
        if getattr(plugin, "buffers", None) and hasattr(plugin, "buffer_dliter"):
            loader = module("avalanche.benchmarks.utils.data_loader").GroupBalancedInfiniteDataLoader
            size = plugin.sample_size // len(plugin.buffers)
            plugin.buffer_dataloader = loader(plugin.buffers, batch_size=size, num_workers=0, pin_memory=False)
            plugin.buffer_dliter = iter(plugin.buffer_dataloader)
        if getattr(plugin, "replay_loader", None) is not None:
            loader = DataLoader(_cycled(plugin.replay_loader), batch_size=plugin.subsample, shuffle=True)
            plugin.replay_loader = cycle(loader)


def cycle(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    while True:
        yield from loader


def _cycled(batches: GeneratorType[Any, None, None]) -> Any:
    """The data set that an endless pass goes over, Avalanche's or ours; None for other generators."""
    loader = (batches.gi_frame.f_locals if batches.gi_frame else {}).get("loader")
    return loader.dataset if isinstance(loader, DataLoader) else None


def _plugins(strategy: Any) -> list[Any]:
    # PackNet of 0.6.0 has a None among its plugins
    return [
        each
        for each in strategy.plugins
        if each is not None and type(each).__name__ not in ("EvaluationPlugin", "PeriodicEval")
    ]


class _Writer:
    """Writes values down. ``sets`` gathers the data sets met."""

    def __init__(self, strategy: Any) -> None:
        self.strategy = strategy
        self.live = {id(part) for part in strategy.model.modules()}
        self.sets: list[dict[str, Tensor]] = []
        self.dataset = module("avalanche.benchmarks.utils.data").AvalancheDataset
        self.met: set[int] = set()

    def write(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Tensor):
            return {"is": "tensor", "value": value.detach().clone(), "moved": value.device.type != "cpu"}
        if isinstance(value, self.dataset):
            return self._dataset(value)
        if isinstance(value, torch.device):
            return {"is": "device", "value": str(value)}
        for name, kind in CONTAINERS.items():
            if isinstance(value, kind):
                return {"is": name, "items": [self.write(item) for item in value]}
        if isinstance(value, dict):
            factory = value.default_factory.__name__ if isinstance(value, defaultdict) and value.default_factory else ""
            return {"is": "dict", "factory": factory, "items": [[k, self.write(v)] for k, v in value.items()]}
        return self._object(value)

    def _object(self, value: Any) -> Any:
        if isinstance(value, GeneratorType) and _cycled(value) is not None:
            kept, self.sets = self.sets, []  # a part of a memory that is met elsewhere
            of, self.sets = self.write(_cycled(value)), kept
            return {"is": "cycle", "of": of}
        if isinstance(value, torch.optim.Optimizer):
            return {"is": "optimizer", "state": copy.deepcopy(value.state_dict())}
        if id(value) in self.met or value is self.strategy or id(value) in self.live:
            return {"is": "kept"}
        self.met.add(id(value))
        if isinstance(value, nn.Module):
            return {"is": "module", "parts": self.parts(value)}
        name = type(value).__module__
        if not name.startswith("avalanche.") or not hasattr(value, "__dict__"):
            return {"is": "kept"}
        if name.startswith(("avalanche.benchmarks.scenarios", "avalanche.benchmarks.utils.data_loader")):
            return {"is": "kept"}
        return {"is": "object", "class": f"{name}:{type(value).__qualname__}", "fields": self.fields(value)}

    def fields(self, value: Any) -> dict[str, Any]:
        return {name: self.write(held) for name, held in vars(value).items() if name not in PASSING}

    def parts(self, value: nn.Module) -> dict[str, Any]:
        """Of every module in a module: weights, whether they are trained, buffers, and what Avalanche's add to them."""
        return {
            path: {
                "weights": {name: p.detach().clone() for name, p in part._parameters.items() if p is not None},
                "trained": {name: p.requires_grad for name, p in part._parameters.items() if p is not None},
                "buffers": {name: None if b is None else b.clone() for name, b in part._buffers.items()},
                "more": self._more(part),
            }
            for path, part in value.named_modules()
        }

    def _more(self, part: nn.Module) -> dict[str, Any]:
        mixed = any(base.__module__.startswith("avalanche.") for base in type(part).__mro__)
        held = {name: v for name, v in vars(part).items() if name not in INSIDE} if mixed else {}
        return {name: self.write(v) for name, v in held.items() if isinstance(v, int | float | dict | set | list)}

    def _dataset(self, value: Any) -> dict[str, Any]:
        rows = [value[i] for i in range(len(value))]
        if not rows:
            return {"is": "dataset", "images": None}
        columns = {
            "images": torch.stack([torch.as_tensor(row[0]) for row in rows]),
            "labels": torch.tensor([int(each) for each in value.targets]),
            "tasks": torch.tensor([int(each) for each in value.targets_task_labels]),
        }
        if id(value) not in self.met:
            self.sets.append(columns)
        self.met.add(id(value))
        names = [name for name in value._data_attributes if name not in ("targets", "targets_task_labels")]
        own = {name: torch.stack([torch.as_tensor(each) for each in getattr(value, name)]) for name in names}
        one = type(value.targets_task_labels.data).__name__ == "ConstantSequence"
        return {"is": "dataset", **columns, "more": own, "one": one}


class _Reader:
    """Reads what `_Writer` wrote; ``current`` is what the new strategy has in its place."""

    def __init__(self, strategy: Any) -> None:
        self.strategy = strategy

    def read(self, saved: Any, current: Any) -> Any:
        if not isinstance(saved, dict):
            return saved
        kind = saved["is"]
        if kind in CONTAINERS:
            before = list(current) if type(current) is CONTAINERS[kind] and kind != "set" else []
            before += [None] * (len(saved["items"]) - len(before))
            return CONTAINERS[kind](self.read(item, now) for item, now in zip(saved["items"], before, strict=False))
        return getattr(self, f"_{kind}")(saved, current)

    def _kept(self, saved: Any, current: Any) -> Any:
        return current

    def _tensor(self, saved: Any, current: Any) -> Tensor:
        where = self.strategy.device if saved["moved"] else "cpu"  # checkpoints are read onto the CPU
        return saved["value"].to(where, copy=True)

    def _device(self, saved: Any, current: Any) -> torch.device:
        return torch.device(saved["value"])

    def _cycle(self, saved: Any, current: Any) -> Any:
        return cycle(DataLoader(self.read(saved["of"], None)))  # `fresh_iterators` gives it its batches

    def _dict(self, saved: Any, current: Any) -> dict[Any, Any]:
        before = current if isinstance(current, dict) else {}
        made: dict[Any, Any] = defaultdict(FACTORIES[saved["factory"]]) if saved["factory"] else {}
        made.update({key: self.read(value, before.get(key)) for key, value in saved["items"]})
        return made

    def _optimizer(self, saved: Any, current: Any) -> Any:
        current.load_state_dict(copy.deepcopy(saved["state"]))
        return current

    def _module(self, saved: Any, current: Any) -> nn.Module:
        target = current if isinstance(current, nn.Module) else copy.deepcopy(self.strategy.model)
        self.into(target, saved["parts"])
        return target

    def _object(self, saved: Any, current: Any) -> Any:
        name, _, kind = saved["class"].partition(":")
        if not name.startswith("avalanche."):
            raise ValueError(f"class {saved['class']} in a saved state")
        cls = getattr(module(name), kind)
        target = current if type(current) is cls else cls.__new__(cls)
        self.fill(target, saved["fields"])
        return target

    def fill(self, target: Any, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            vars(target)[name] = self.read(value, vars(target).get(name))

    def into(self, target: nn.Module, parts: Mapping[str, Any]) -> None:
        modules = dict(target.named_modules())
        device = next((p.device for p in target.parameters()), self.strategy.device)
        for path, saved in parts.items():
            part = modules[path]
            for name, value in saved["weights"].items():
                weight = part._parameters[name]
                assert weight is not None
                weight.data.copy_(value)
                weight.requires_grad_(saved["trained"][name])
            for name, value in saved["buffers"].items():
                part._buffers[name] = None if value is None else value.to(device, copy=True)
            for name, value in saved["more"].items():
                vars(part)[name] = self.read(value, vars(part).get(name))

    def _dataset(self, saved: Any, current: Any) -> Any:
        if saved["images"] is None:
            return module("avalanche.benchmarks.utils.utils").concat_datasets([])
        utils = "avalanche.benchmarks.utils"
        labels, tasks = saved["labels"].tolist(), saved["tasks"].tolist()
        made = module(f"{utils}.classification_dataset")._make_taskaware_tensor_classification_dataset(
            saved["images"], saved["labels"], targets=labels, task_labels=tasks[0] if saved["one"] else tasks
        )
        kind = module(f"{utils}.data_attribute").TensorDataAttribute
        more = [kind(list(value), name=name, use_in_getitem=True) for name, value in saved["more"].items()]
        return module(utils).make_avalanche_dataset(made, data_attributes=more) if more else made
