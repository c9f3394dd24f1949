"""What this package adds to engram; its only entry point."""

from __future__ import annotations

from backbone.contract import Entry, Plugin

PLUGIN = Plugin(
    name="snn",
    experiments={
        "snn.convert": Entry(
            target="snn.convert:Convert",
            options="snn.configs:ConvertConfig",
            summary="Turn a trained network into a spiking one and measure it against simulation length",
        ),
    },
)
