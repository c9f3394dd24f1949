"""Running planned trials: workers started, watched and fed to the tracking store."""
