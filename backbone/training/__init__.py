"""The one supervised training loop and what it is made of."""
