"""How much the property tests look for: the same examples every time, or new ones.

``make test`` answers the same for the same code. ``--hypothesis-profile=search`` (``make soak`` begins with it) draws
new examples, and more of them; what it finds is printed with the lines that replay it.
"""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.register_profile("search", max_examples=400)
settings.load_profile("repeatable")
