"""Recurrent networks: what later stages saw changes what earlier ones compute in the next step."""

if __name__ == "feedback":  # from the folder above: a process that has it by both names has everything twice
    raise ModuleNotFoundError("feedback is called engram.feedback. Write: import engram.feedback", name=__name__)
