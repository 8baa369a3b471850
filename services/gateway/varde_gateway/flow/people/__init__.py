"""Who may use the node: its users, and the sensors that post to it."""
