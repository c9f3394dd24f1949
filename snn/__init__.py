"""Spiking networks: conversion of trained networks, simulation and its cost."""

if __name__ == "snn":  # from the folder above: a process that has it by both names has everything twice
    raise ModuleNotFoundError("snn is called engram.snn. Write: import engram.snn", name=__name__)
