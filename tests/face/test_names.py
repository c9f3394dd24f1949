"""What ``import engram`` is before anything is used."""

import subprocess
import sys

import engram


def test_importing_it_costs_nothing_and_lists_the_names():
    code = (
        "import sys, engram\n"
        "assert set(engram.__all__) <= set(dir(engram))\n"
        "heavy = {'torch', 'mlflow', 'numpy', 'pandas', 'pydantic', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "ours = [name for name in sys.modules if name.startswith('engram.')]\n"
        "assert not ours, ours\n"
        "engram.UserError\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_is_there_and_every_function_has_an_example():
    for name in engram.__all__:
        thing = getattr(engram, name)
        assert thing.__doc__
        assert isinstance(thing, type) or ">>>" in thing.__doc__, name
    assert not hasattr(engram, "nothing")
