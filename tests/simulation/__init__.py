"""A whole federation in one process, driven by one seed: the real core and flow over a simulated network, clock and crash.

``world`` is the machinery, ``schedule`` what happens in it, ``invariants`` what must hold, ``broken`` the same world with
one thing broken on purpose, ``__main__`` many schedules and a report, ``fifty`` a federation of fifty nations.
"""
