"""Learning one task after another without forgetting the ones before."""

if __name__ == "continual":  # from the folder above: a process that has it by both names has everything twice
    raise ModuleNotFoundError("continual is called engram.continual. Write: import engram.continual", name=__name__)
