"""NKeys: the Ed25519 key pairs by which NATS knows its users. Only users are made here, no accounts, no operators."""

from typing import NamedTuple

import nkeys  # type: ignore[import-untyped] # the library has no types


class NKeyUser(NamedTuple):
    """The seed (``SU…``), which signs in, and the public key (``U…``), which the broker's access list names."""

    seed: str
    public: str


def make_nkey_user(seed: bytes) -> NKeyUser:
    """The user of 32 random bytes."""
    encoded = nkeys.encode_seed(seed, nkeys.PREFIX_BYTE_USER)
    return NKeyUser(encoded.decode("ascii"), nkeys.from_seed(encoded).public_key.decode("ascii"))


def read_nkey_user(seed: str) -> NKeyUser:
    """The user of a seed as it stands in a file."""
    return NKeyUser(seed, nkeys.from_seed(seed.encode("ascii")).public_key.decode("ascii"))
