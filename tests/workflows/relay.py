"""A stretch of network between a client and a server, which a test can cut, or let swallow an answer."""

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class Relay:
    """Passes every connection to its port on to the server at `address`, until `cut`.

    `swallow`: the next request that has these bytes in it reaches the server, its answer reaches nobody.
    """

    def __init__(self, address: str, port: int = 0):
        self.target = (urlsplit(address).hostname, urlsplit(address).port)
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.swallow: bytes | None = None
        self.sockets: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.target)
                self.sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self.pass_on, args=(source, sink), daemon=True).start()

    def pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.swallow and self.swallow in data:
                    self.swallow = None
                    end(source)
                sink.sendall(data)
        end(source)
        end(sink)

    def cut(self) -> None:
        """Ends all connections there are; new ones are passed on again."""
        sockets, self.sockets = self.sockets, []
        for each in sockets:
            end(each)

    def close(self) -> None:
        end(self.listener)  # or it would take one more connection
        self.listener.close()
        self.cut()


def end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
