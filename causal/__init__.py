"""Interventions, invariance, and data whose causes are known."""

if __name__ == "causal":  # from the folder above: a process that has it by both names has everything twice
    raise ModuleNotFoundError("causal is called engram.causal. Write: import engram.causal", name=__name__)
