"""What a change inside a network does to its answers."""
