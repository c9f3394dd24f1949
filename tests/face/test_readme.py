"""What the README's first screens show works."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import engram

TREE = Path(__file__).parents[2]
SCREEN, SCRIPT, ENROL = re.findall(r"```python\n(.*?)```", (TREE / "README.md").read_text(), re.DOTALL)


def test_the_first_screen_uses_what_there_is():
    assert len(list(filter(None, SCREEN.splitlines()))) <= 12
    asked = [node for node in ast.walk(ast.parse(SCREEN)) if isinstance(node, ast.Attribute)]
    assert {node.attr for node in asked if getattr(node.value, "id", "") == "engram"} <= set(engram.__all__)
    for name in re.findall(r"\(docs/[^)]*\)", (TREE / "README.md").read_text()):
        assert (TREE / name.strip("()").partition("#")[0]).exists(), name


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Bright and dark pictures (classes 0 and 1), and a network of the script's own class that tells them apart."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for place, kind in enumerate(("dark", "bright")):
            folder = tmp_path / "pictures" / part / kind
            folder.mkdir(parents=True)
            for number in range(8):
                pixels = rng.integers(0, 100, (12, 12, 3)) + 155 * place
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    names: dict = {}
    exec(SCRIPT.partition("net, scale")[0], names)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = names["Net"]()
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(60):
            shades = torch.rand(32, 1, 1, 1)
            loss = torch.nn.functional.cross_entropy(net(shades.expand(-1, 3, 12, 12)), (shades < 0.5).long().flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.save(net.state_dict(), "net.pt")


def test_the_script_of_your_own_network(pictures, capsys):
    assert len(list(filter(None, SCRIPT.splitlines()))) == 15
    exec(SCRIPT, {})
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last[:3] == ["32", "1", "1"]  # steps, accuracy, that of the network itself
    assert Path("accuracy.svg").read_text().startswith("<svg")


def test_the_three_lines_that_enrol_run(capsys):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    shown = torch.stack([torch.full((3, 2, 2), value) for value in (0.1, 0.2, 0.8, 0.9)])
    exec(ENROL, {"net": net, "pictures": shown, "others": shown})
    assert "['cat', 'cat', 'owl', 'owl']" in capsys.readouterr().out
