"""A network in stages with connections that go back, run step by step."""
