"""Strategies that hold on to weights or outputs, without images of earlier tasks."""
