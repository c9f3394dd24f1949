"""Spiking networks: conversion of trained networks, simulation and its cost."""
