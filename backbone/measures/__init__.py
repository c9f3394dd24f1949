"""What a network is scored by: accuracy, its curve against steps, stopping early."""
