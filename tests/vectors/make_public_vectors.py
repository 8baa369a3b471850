"""Cut the bulk of `public/` out of checkouts of the repositories that its README names.

    python tests/vectors/make_public_vectors.py FOLDER

FOLDER holds one checkout for each, named owner+name, at the commit that stands below. Every run writes the same bytes.
The small files (`sumdb_note.json`, `cosignature_v1.json`, `tlog_scales.json`) were copied by hand.
"""

import base64
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

PUBLIC = Path(__file__).parent / "public"
MERKLE = ("transparency-dev/merkle", "417fb0c314750d94e53942e9f92e79b6d35915db")
WYCHEPROOF = ("C2SP/wycheproof", "dac1dd4729fd1f8dd9e1e9f3dce51d783da6c166")
SHORTEST_SHARE = 64


def main(folder: Path) -> None:
    """Write eight files."""
    merkle, wycheproof = (folder / each[0].replace("/", "+") for each in (MERKLE, WYCHEPROOF))
    for kind in ("inclusion", "consistency"):
        write(f"merkle_{kind}", MERKLE, f"testdata/{kind}", proofs(merkle / "testdata" / kind))
    constants = (merkle / "testonly/constants.go").read_text(encoding="utf-8")
    write("merkle_tree", MERKLE, "testonly/constants.go", [], **tree(constants))
    for name, convert, count in (
        ("ed25519", ed25519, 151),
        ("mldsa_44_verify", ml_dsa, 180),
        ("mldsa_65_verify", ml_dsa, 210),
        ("mlkem_768", ml_kem, 193),
        ("mlkem_768_encaps", ml_kem_moduli, 12),
    ):
        path = f"testvectors_v1/{name}_test.json"
        source = json.loads((wycheproof / path).read_text(encoding="utf-8"))
        keys, cases = convert(source["testGroups"])
        assert len(cases) == count
        write(f"wycheproof_{name}", WYCHEPROOF, path, cases, **({"keys": keys} if keys else {}))


def write(
    name: str, source: tuple[str, str], path: str, cases: list[Any], **members: list[Any]
) -> None:
    """One case, and one item of every other list, a line."""
    repository, commit = source
    header = {"repository": repository, "commit": commit, "path": path}
    text = json.dumps(header, indent=0)[:-2]
    for member, items in (*members.items(), ("cases", cases)):
        if items:
            lines = ",\n".join(json.dumps(each, separators=(",", ":")) for each in items)
            text += f',\n"{member}": [\n{lines}\n]'
    (PUBLIC / f"{name}.json").write_text(text + "\n}\n", encoding="utf-8")


def proofs(folder: Path) -> list[Any]:
    """Every case whole, under its path."""
    found = sorted(folder.rglob("*.json"))
    return [
        {
            "path": each.relative_to(folder).as_posix(),
            **json.loads(each.read_text(encoding="utf-8")),
        }
        for each in found
    ]


def tree(constants: str) -> dict[str, list[Any]]:
    """The leaves, the complete nodes by level and the roots by size of ``constants.go``."""

    def hex_in(function: str) -> str:
        return constants.partition(f"func {function}(")[2].partition("\n}\n")[0]

    def each_hd(text: str) -> list[str]:
        return re.findall(r'hd\("([0-9a-f]*)"\)', text)

    return {
        "leaves": each_hd(hex_in("LeafInputs")),
        "nodes": [each_hd(level) for level in hex_in("NodeHashes").split("}, {")],
        "roots": each_hd(hex_in("EmptyRootHash")) + each_hd(hex_in("RootHashes")),
    }


def ed25519(groups: list[Any]) -> tuple[list[str], list[Any]]:
    """The raw keys, and the cases without a change but for the number of their key."""
    keys = list(dict.fromkeys(group["publicKey"]["pk"] for group in groups))
    return keys, [
        {**case, "key": keys.index(group["publicKey"]["pk"])}
        for group in groups
        for case in group["tests"]
    ]


def ml_dsa(groups: list[Any]) -> tuple[list[str], list[Any]]:
    """Keys and signatures in base85, a signature by what it shares with an earlier one."""
    keys = list(dict.fromkeys(group["publicKey"] for group in groups))
    pack = Packer()
    cases = [
        {
            **{name: value for name, value in case.items() if name != "sig"},
            "key": keys.index(group["publicKey"]),
            "sig": pack(case["tcId"], bytes.fromhex(case["sig"])),
        }
        for group in groups
        for case in group["tests"]
    ]
    return [encode(bytes.fromhex(key)) for key in keys], cases


def ml_kem(groups: list[Any]) -> tuple[list[str], list[Any]]:
    """Of an encapsulation key its SHA-256, since the seed gives it; ciphertexts packed as signatures are.

    A case without an encapsulation key is one about a seed of a wrong length: its ciphertext has no meaning.
    """
    pack = Packer()
    cases = []
    for case in (case for group in groups for case in group["tests"]):
        kept = {name: value for name, value in case.items() if name not in {"ek", "c"}}
        if "ek" in case:
            kept["ek_sha256"] = hashlib.sha256(bytes.fromhex(case["ek"])).hexdigest()
            kept["c"] = pack(case["tcId"], bytes.fromhex(case["c"]))
        cases.append(kept)
    return [], cases


def ml_kem_moduli(groups: list[Any]) -> tuple[list[str], list[Any]]:
    """Of one group alone the encapsulation keys, each with a coefficient that is out of range."""
    pack = Packer()
    return [], [
        {
            "tcId": case["tcId"],
            "flags": case["flags"],
            "result": case["result"],
            "ek": pack(case["tcId"], bytes.fromhex(case["ek"])),
        }
        for group in groups
        if group["source"]["name"] == "CCTV/modulus"
        for case in group["tests"]
    ]


class Packer:
    """Base85; or, where much of it stands in an earlier case: which, how many of its first and last bytes, what between."""

    def __init__(self) -> None:
        self._earlier: dict[int, bytes] = {}

    def __call__(self, number: int, raw: bytes) -> Any:
        best = (SHORTEST_SHARE, 0, 0, 0)
        for other, known in self._earlier.items():
            first = shared_beginning(raw, known)
            last = shared_beginning(raw[first:][::-1], known[first:][::-1])
            best = max(best, (first + last, -other, first, last))
        self._earlier[number] = raw
        shared, other, first, last = best
        if shared == SHORTEST_SHARE:
            return encode(raw)
        return {
            "of": -other,
            "first": first,
            "then": encode(raw[first : len(raw) - last]),
            "last": last,
        }


def shared_beginning(a: bytes, b: bytes) -> int:
    """How many bytes."""
    both = zip(a, b, strict=False)
    return next((at for at, (x, y) in enumerate(both) if x != y), min(len(a), len(b)))


def encode(raw: bytes) -> str:
    """Base85 of RFC 1924: a sixteenth shorter than base64, and nothing in it needs an escape in JSON."""
    return base64.b85encode(raw).decode()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
