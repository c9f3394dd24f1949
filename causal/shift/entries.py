"""What training under shift adds to this package; no torch here."""

from __future__ import annotations

from engram.backbone.contract import Command, Entry

SHIFT = Entry(
    target="engram.causal.shift.experiment:Shift",
    options="engram.causal.shift.configs:ShiftConfig",
    summary="Train on some environments, test on others: on average, by groups, chosen by three policies",
)
SELECT = Command(
    words="SWEEP...",
    summary="Choose among trainings by three policies, and what the choice is worth under shift",
    flags="engram.causal.shift.selecting_flags:SelectFlags",
    handler="engram.causal.shift.selecting:select",
)
VIEW = "engram.causal.shift.environments:view"
