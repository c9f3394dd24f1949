"""The runner: command line, plan, workers, records, comparison, report."""

if __name__ == "benchmarks":  # from the folder above: a process that has it by both names has everything twice
    raise ModuleNotFoundError("benchmarks is called engram.benchmarks. Write: import engram.benchmarks", name=__name__)
