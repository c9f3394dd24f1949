from backbone.contract import Plugin
PLUGIN = Plugin(name="snn")
