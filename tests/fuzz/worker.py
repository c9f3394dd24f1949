"""Reads so many damaged files of one kind, in a process that may not take much memory, nor open anything else.

python worker.py SEEDS FOLDER KIND:FIRST:COUNT ...: a line with kind and number before each file, one with what came of
it after.
"""

import json
import random
import resource
import shutil
import signal
import sys
import warnings
from pathlib import Path

import targets

from engram.backbone.errors import UserError

ROOM = 3 << 29
"""Bytes of address space beyond what is there once everything is imported."""
PATIENCE = 20
"""Seconds of processor time for one file."""
LONGEST = 600
"""Seconds of the clock, which a process that waits for a pipe would spend."""
CANARY = b"a canary that no file may tell of"
PROGRAM = tuple(
    {str(Path(each).resolve()) for each in (*sys.path, sys.prefix, sys.base_prefix, Path(__file__).parents[2])}
)

opened: list[str] = []


def watch(event, args):
    """Notes whatever is opened or started that is no part of the program, nor the file itself."""
    if event in ("open", "os.listdir", "os.scandir") and isinstance(args[0], str | bytes | Path):
        path = str(Path(args[0].decode() if isinstance(args[0], bytes) else args[0]).absolute())
        inside = path.startswith((*PROGRAM, str(sys.argv[2]), "/proc/", "/sys/", "/dev/null", "/dev/urandom"))
        if "canary" in path or not inside:
            opened.append(path)
    if event in ("os.system", "socket.connect", "os.remove", "os.rename") or (
        event == "subprocess.Popen" and "hdf5" not in str(args[1])
    ):
        opened.append(f"{event} {args[0]!r}")


def one(target, seeds, folder, number, kind):
    """What came of a file: ok, refused, or what is wrong."""
    draw = random.Random(f"{kind} {number}")
    for name, data in target.change(draw, seeds).items():
        (folder / name).write_bytes(data)
    opened.clear()
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    signal.alarm(LONGEST)
    try:
        found = target.read(folder)
        came = "the canary" if targets.holds(found, CANARY) else "ok"
    except UserError as error:
        came = "refused" if error.args and len(str(error)) < 50_000 else f"a sentence of {len(str(error))} letters"
    except BaseException as error:
        came = f"{type(error).__name__}: {error}"[:300]
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.alarm(0)
    return f"opened {opened[0]}" if opened else came


def main(seeds, folder, *wanted):
    """Damages and reads files FIRST to FIRST + COUNT - 1 of each kind."""
    place = Path(folder)
    warnings.simplefilter("ignore")
    whole = {each.partition(":")[0]: targets.seeds_of(Path(seeds) / each.partition(":")[0]) for each in wanted}
    for kind in whole:  # whatever is imported on first use comes before the limits
        fresh(place)
        one(targets.TARGETS[kind], whole[kind], place, -1, kind)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(watch)
    for each in wanted:
        kind, first, count = each.split(":")
        fresh(place)
        for number in range(int(first), int(first) + int(count)):
            print(json.dumps([kind, number]), flush=True)
            print(json.dumps(one(targets.TARGETS[kind], whole[kind], place, number, kind)), flush=True)


def fresh(place):
    """An empty folder beside which nothing is, but the canary."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / "canary").write_bytes(CANARY)


if __name__ == "__main__":
    main(*sys.argv[1:])
