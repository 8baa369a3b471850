"""What the desk remembers while the node runs: links, limits, and what is on its way. Made again after a start."""
