"""What ``import engram`` offers: the runner and the plugins for people who write Python."""
