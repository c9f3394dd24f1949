"""``python tests/unchanged REVISION``: do the trials of ``trials.toml`` give what they gave at an earlier revision?

Both versions of the code run every trial on this machine's processor, one thread each, the earlier one from a checkout
of its own. All metrics but wall-clock ones must be equal to the last bit. A metric that is called otherwise by now is
found by its last word and its value.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
TIMED = ("seconds", "per_second", "per_iteration")


@dataclass
class Version:
    """The code in a folder, which need not be installed, and the trials that it ran."""

    code: Path
    folder: Path
    ids: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        project = tomllib.loads((self.code / "pyproject.toml").read_text())["project"]
        info = self.folder / "site" / f"engram-{project['version']}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: engram\nVersion: {project['version']}\n")
        groups = project["entry-points"].items()
        points = [f"[{group}]\n" + "".join(f"{name} = {at}\n" for name, at in held.items()) for group, held in groups]
        (info / "entry_points.txt").write_text("".join(points))
        self.module = project["scripts"]["engram"].partition(".cli:")[0]

    def run(self, trial: Mapping[str, str]) -> dict[str, float] | str:
        """The metrics of a trial, or why it has none."""
        path = os.pathsep.join((str(self.code), str(self.folder / "site")))
        words = [*trial["flags"].format(**self.ids).split(), "--out", str(self.folder / "runs"), "--device", "cpu"]
        done = subprocess.run(
            [sys.executable, "-m", self.module, "run", trial["experiment"], *words, "--json"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        found = json.loads(done.stdout)
        self.ids[trial["name"]] = found["trial"]
        return {name: value for name, value in found["metrics"].items() if not name.endswith(TIMED)}


def differences(before: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """What an earlier version reported and this one does not."""

    def kept(name: str, value: float) -> bool:
        last = name.rpartition("/")[2]
        return now.get(name) == value or any(each.endswith(last) and now[each] == value for each in now)

    return [
        f"{name} was {value!r}, is {now.get(name, 'gone')!r}" for name, value in before.items() if not kept(name, value)
    ]


def main(revision: str) -> int:
    trials = tomllib.loads((Path(__file__).parent / "trials.toml").read_text())["trial"]
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        old = Path(scratch) / "code"
        subprocess.run(["git", "-C", str(TREE), "worktree", "add", "-q", "--detach", str(old), revision], check=True)
        try:
            earlier, present = Version(old, Path(scratch) / "earlier"), Version(TREE, Path(scratch) / "present")
            for trial in trials:
                before, now = earlier.run(trial), present.run(trial)
                failed = [f"{who}: {each}" for who, each in (("then", before), ("now", now)) if isinstance(each, str)]
                found = failed or differences(before, now)  # type: ignore[arg-type]
                wrong += bool(found)
                print(f"{trial['name']:16} {'; '.join(found) or f'{len(before)} metrics equal'}", flush=True)
        finally:
            subprocess.run(["git", "-C", str(TREE), "worktree", "remove", "--force", str(old)], check=True)
    print(f"{len(trials) - wrong} of {len(trials)} trials give what they gave at {revision}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "HEAD~1"))
