"""A cable with faults: carries IP packets between a TUN device and itself, losing, delaying and reordering some.

A program of its own, started inside the namespace whose kernel routes packets into the device. It does to real packets
what ``tc netem`` does, on kernels that were built without it, and draws from a seed. Orders come as JSON lines on
standard input: ``{"from": "10.77.1.1", "to": "10.77.2.1", "loss": 0.1, "delay_ms": 50, "jitter_ms": 10, "reorder": 0.2,
"duplicate": 0.01}``, or with ``"off": true``. It answers each with a line, and ends with its standard input.
"""

import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass

_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_PACKET_BYTES = 65536
_LONGEST_QUEUE = 20_000


@dataclass(frozen=True, slots=True)
class Shape:
    """What happens to each packet of one direction; shares are from 0 to 1.

    ``reorder`` is the share that overtakes: it does not wait for the delay.
    """

    loss: float = 0.0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0


class Wire:
    def __init__(self, device: int, seed: int) -> None:
        self.device = device
        self.random = random.Random(seed)
        self.shapes: dict[tuple[bytes, bytes], Shape] = {}
        self.waiting: list[tuple[float, int, bytes]] = []
        self.count = 0

    def order(self, line: str) -> None:
        wanted = json.loads(line)
        way = (socket.inet_aton(wanted.pop("from")), socket.inet_aton(wanted.pop("to")))
        if wanted.pop("off", False):
            self.shapes.pop(way, None)
        else:
            self.shapes[way] = Shape(**wanted)

    def take(self, packet: bytes) -> None:
        shape = self.shapes.get((packet[12:16], packet[16:20]))
        if packet[0] >> 4 != 4 or shape is None:
            os.write(self.device, packet)
            return
        copies = 2 if self.random.random() < shape.duplicate else 1
        for _ in range(copies):
            if self.random.random() >= shape.loss:
                self._wait(packet, shape)

    def _wait(self, packet: bytes, shape: Shape) -> None:
        overtakes = self.random.random() < shape.reorder
        jitter = self.random.uniform(-shape.jitter_ms, shape.jitter_ms)
        delay_ms = 0.0 if overtakes else max(0.0, shape.delay_ms + jitter)
        if len(self.waiting) < _LONGEST_QUEUE:
            self.count += 1
            heapq.heappush(self.waiting, (time.monotonic() + delay_ms / 1000, self.count, packet))

    def give(self) -> float | None:
        """Hand on what has waited long enough; the seconds until the next, None where nothing waits."""
        while self.waiting:
            rest = self.waiting[0][0] - time.monotonic()
            if rest > 0:
                return rest
            os.write(self.device, heapq.heappop(self.waiting)[2])
        return None


def open_device(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def main() -> None:
    name, seed = sys.argv[1:]
    device = open_device(name)
    wire = Wire(device, int(seed))
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([device, sys.stdin], [], [], wire.give())
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                return
            wire.order(line)
            print("done", flush=True)
        if device in ready:
            try:
                while True:
                    wire.take(os.read(device, _PACKET_BYTES))
            except BlockingIOError:
                continue


if __name__ == "__main__":
    main()
