"""``python -m varde_gateway run --home HOME``: the gateway process alone."""

from varde_gateway.cli import main

if __name__ == "__main__":
    main()
