"""lava-dl's ``.net`` files (netx): read as networks of Loihi's integers, written, and used as backbones."""
