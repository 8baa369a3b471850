"""``python -m varde_relay``."""

from varde_relay.cli import main

main()
