"""How the whole suite runs: the same examples every time, and no time limit on one example."""

from hypothesis import settings

settings.register_profile("house", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("house")
