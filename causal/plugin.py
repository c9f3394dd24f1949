"""What this package adds to engram; its only entry point."""

from __future__ import annotations

from engram.backbone.contract import Plugin

PLUGIN = Plugin(name="causal")
