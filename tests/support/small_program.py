"""A small program for the supervisor's tests: listens on a port, answers /health/ready, and misbehaves on request.

``python small_program.py PORT [stubborn] [child] [dies]``.
"""

import http.server
import signal
import subprocess
import sys
import time


class _Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health/ready" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def main() -> None:
    port, wishes = int(sys.argv[1]), sys.argv[2:]
    if "dies" in wishes:
        print("cannot go on: the reason", file=sys.stderr, flush=True)
        sys.exit(7)
    if "stubborn" in wishes:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "child" in wishes:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(f"child {child.pid}", flush=True)
    if "silent" in wishes:
        time.sleep(600)
    print("ready", flush=True)
    http.server.HTTPServer(("127.0.0.1", port), _Page).serve_forever()


if __name__ == "__main__":
    main()
