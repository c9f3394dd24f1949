"""The trunk of engram: networks, data, training and contracts that more than one plugin needs."""

if __name__ == "backbone":  # from the folder above: a process that has it by both names has everything twice
    raise ModuleNotFoundError("backbone is called engram.backbone. Write: import engram.backbone", name=__name__)
