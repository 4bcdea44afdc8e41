# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon that speaks the native protocol and locks nothing.

For tests of what stands in front of a daemon: it keeps a table of who holds what, by name only,
remembers every request, and can be told to answer with anything, late, or not at all.
"""

import json
import os
import socket
import threading
import time

from waiting import wait_until

GREETING = {"holdfast": {"version": "0.1.0", "protocol": 1, "host": "n3", "pid": 812,
                         "access": "full"}}
SINCE = "2026-01-31T10:42:07.123456Z"


class FakeDaemon:
    def __init__(self, path):
        self.path = str(path)
        self.requests = []  # (command, arguments)
        self.leases = []
        self.replies = {}  # command -> "return" value, ("error", object), or a function of both
        self.delay = 0
        self.lock = threading.Lock()
        self.connections = []
        self.subscribers = []
        self.start()

    # ---- coming and going ----------------------------------------------------------------------

    def start(self):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(50)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def stop(self):
        """Closes everything, as a daemon that ends does."""
        self.close()
        os.unlink(self.path)

    def close(self):
        """Closes everything, if that has not been done."""
        if self.listener.fileno() >= 0:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
        with self.lock:
            connections, self.connections, self.subscribers = self.connections, [], []
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def open_connections(self):
        with self.lock:
            return len(self.connections)

    def wait_for_connections(self, number):
        wait_until(lambda: self.open_connections() == number, f"{number} connections to be left")

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            connection.sendall(json.dumps(GREETING).encode() + b"\n")
            for line in connection.makefile("rb"):
                reply = self._answer(json.loads(line), connection)
                connection.sendall(json.dumps(reply).encode() + b"\n")
        except OSError:
            pass
        with self.lock:
            for known in (self.connections, self.subscribers):
                if connection in known:
                    known.remove(connection)
        connection.close()

    # ---- commands ------------------------------------------------------------------------------

    def _answer(self, request, connection):
        command, arguments = request["execute"], request.get("arguments", {})
        if self.delay:
            time.sleep(self.delay)
        with self.lock:
            self.requests.append((command, arguments))
            answer = self.replies.get(command)
            if callable(answer):
                answer = answer(arguments)
            if answer is None:
                answer = getattr(self, "_" + command.replace("-", "_"))(arguments, connection)
        if isinstance(answer, tuple):
            return {"error": answer[1], "id": request["id"]}
        return {"return": answer, "id": request["id"]}

    def _acquire(self, arguments, _connection):
        owner = dict({"name": None, "uuid": None, "uri": None}, **arguments["owner"], host="n3",
                     state="running")
        wanted = []
        for disk in arguments.get("disks", []):
            wanted.append({"disk": disk["path"], "lockspace": "", "key": disk["path"],
                           "mode": disk["mode"]})
        for lease in arguments.get("leases", []):
            wanted.append({"disk": None, **lease})
        for lease in wanted:
            for held in self.leases:
                if (held["lockspace"], held["key"]) == (lease["lockspace"], lease["key"]):
                    return busy(held)
        wanted = [{"driver": "fake", "since": SINCE, "claims": [], "owner": owner, **lease}
                  for lease in wanted]
        self.leases += wanted
        return {"leases": wanted}

    def _release(self, arguments, _connection):
        pid = arguments["owner"]["pid"]
        kept = [lease for lease in self.leases if lease["owner"]["pid"] != pid]
        released, self.leases = len(self.leases) - len(kept), kept
        return {"released": released}

    def _query_leases(self, arguments, _connection):
        return {"leases": [lease for lease in self.leases
                           if arguments.get("pid") in (None, lease["owner"]["pid"])]}

    def _subscribe(self, _arguments, connection):
        self.subscribers.append(connection)
        return {}

    def send_event(self, event):
        with self.lock:
            for connection in self.subscribers:
                try:
                    connection.sendall(json.dumps(event).encode() + b"\n")
                except OSError:
                    pass  # it is about to be removed


def holder(lease):
    """A lease of the table as a HOLDER."""
    owner = lease["owner"]
    return {"disk": lease["disk"], "name": owner["name"], "uuid": owner["uuid"],
            "pid": owner["pid"], "host": owner["host"], "since": lease["since"],
            "mode": lease["mode"], "source": "table"}


def busy(held):
    """The error that refuses what `held` has."""
    desc = "%s is held by VM %s (pid %d)" % (held["disk"] or held["key"], held["owner"]["name"],
                                             held["owner"]["pid"])
    return ("error", {"class": "Busy", "desc": desc,
                      "data": {"disk": held["disk"], "driver": "fake", "key": held["key"],
                               "lockspace": held["lockspace"], "mode": held["mode"],
                               "holders": [holder(held)]}})
