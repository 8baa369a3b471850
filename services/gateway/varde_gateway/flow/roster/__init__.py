"""Who belongs, by whose votes, whom we trust, and for which keys we seal."""
