"""What ``engram doctor`` looks at for the trunk: torch and what it can do here, and which data sets are there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from engram.backbone.contract import Check, Places


def torch(places: Places) -> Iterator[Check]:
    """In a process of its own: a broken pair of torch and torchvision must not take the doctor down."""
    probe = (
        "import json, torch, torchvision; from engram.backbone.hardware import has_bf16;"
        "cuda = torch.cuda.is_available();"
        "print(json.dumps([torch.__version__, torchvision.__version__, torch.get_num_threads(), has_bf16('cpu'),"
        "torch.cuda.get_device_name(0) if cuda else None]))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        remedy = "Install torch and torchvision of the same release from the same index (see PIP_ARGS in the README)."
        yield Check("torch", "bad", last, remedy)
        return
    version, vision, threads, bf16, gpu = json.loads(done.stdout)
    yield Check("torch", "ok", f"{version}, torchvision {vision}, {threads} threads")
    slower = "no (no AVX512-BF16): training uses fp32, 2 to 3 times slower on convolutions"
    yield Check("bf16 on the CPU", "ok" if bf16 else "note", "yes" if bf16 else slower)
    yield Check("GPU", "ok" if gpu else "note", gpu or "none: everything runs on the CPU")


def data_sets(places: Places) -> Iterator[Check]:
    folders_of = {
        "mnist": ["MNIST/raw"],
        "cifar10": ["cifar10", "cifar-10-batches-py"],
        "omniglot": ["omniglot-py", "omniglot-small"],
        "tonic:nmnist": ["NMNIST"],
        "tonic:dvs128-gesture": ["DVSGesture"],
        "tonic:shd": ["SHD"],
    }
    always = "digits, moving-shapes (always there)"
    there = [name for name, folders in folders_of.items() if any((places.data / folder).is_dir() for folder in folders)]
    found = f"{always}; {', '.join(there)} in {places.data}" if there else f"{always}; none in {places.data}"
    yield Check("data sets", "ok" if there else "note", found, "" if there else "Pass --data-root, or --download.")
