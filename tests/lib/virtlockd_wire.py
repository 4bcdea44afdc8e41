# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small client of virtlockd's RPC, for tests and benches.

Every call of the protocol is a method of Client; a refusal raises RemoteError with all that the
daemon said. For bad input, send_raw() sends any bytes and recv_frame() reads what comes back.
"""

import itertools
import os
import struct
import uuid as uuids
from dataclasses import dataclass
from enum import IntEnum

import stream
from closing import Closing

PROGRAM = 0x0EA7BEEF
VERSION = 1
TYPE_CALL, TYPE_REPLY = 0, 1
STATUS_OK, STATUS_ERROR = 0, 1
HEADER = struct.Struct(">IIIiiIi")
FRAME_MAX = 32 * 1024 * 1024
STRING_MAX = 65536

SHARED = 1
AUTOCREATE = 2


class Procedure(IntEnum):
    """The procedures of the protocol."""

    REGISTER = 1
    RESTRICT = 2
    NEW = 3
    CREATE_RESOURCE = 4
    DELETE_RESOURCE = 5
    ACQUIRE_RESOURCE = 6
    RELEASE_RESOURCE = 7
    CREATE_LOCKSPACE = 8


class Code(IntEnum):
    """Those of libvirt's error codes that a lock daemon answers with."""

    INTERNAL_ERROR = 1
    INVALID_ARG = 8
    OPERATION_DENIED = 29
    SYSTEM_ERROR = 38
    RPC = 39
    OPERATION_INVALID = 55
    RESOURCE_BUSY = 87


class Domain(IntEnum):
    """Those of libvirt's error domains that a lock daemon answers with."""

    RPC = 7
    LOCKSPACE = 51


@dataclass(frozen=True)
class Frame:
    """One message of the protocol."""

    procedure: int
    type: int = TYPE_CALL
    serial: int = 0
    status: int = STATUS_OK
    payload: bytes = b""
    program: int = PROGRAM
    version: int = VERSION

    def encode(self):
        """The bytes of the frame, its length first."""
        return HEADER.pack(HEADER.size + len(self.payload), self.program, self.version,
                           self.procedure, self.type, self.serial, self.status) + self.payload

    @classmethod
    def decode(cls, data):
        """The frame in data, which must be exactly one frame."""
        length, program, version, procedure, kind, serial, status = HEADER.unpack_from(data)
        if length != len(data):
            raise ValueError(f"a frame of {len(data)} bytes says that it has {length}")
        return cls(procedure, kind, serial, status, data[HEADER.size:], program, version)


class RemoteError(Exception):
    """The error that the daemon answered with; libvirt's remote error, decoded."""

    def __init__(self, code, domain, message, level, dom, str1, str2, str3, int1, int2, net):
        super().__init__(f"{message} (code {code}, domain {domain}, int1 {int1})")
        self.code = code
        self.domain = domain
        self.message = message
        self.level = level
        self.dom = dom
        self.str1 = str1
        self.str2 = str2
        self.str3 = str3
        self.int1 = int1
        self.int2 = int2
        self.net = net

    @classmethod
    def decode(cls, payload):
        """The error in the payload of a reply with status 1."""
        reader = Reader(payload)
        error = cls(reader.int(), reader.int(), reader.optional(reader.string), reader.int(),
                    reader.optional(reader.domain), reader.optional(reader.string),
                    reader.optional(reader.string), reader.optional(reader.string),
                    reader.int(), reader.int(), reader.optional(reader.network))
        reader.end()
        return error


class Reader:
    """Takes XDR values off the front of a payload."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, size):
        """The next size bytes."""
        if self.at + size > len(self.data):
            raise ValueError("the payload ends too early")
        self.at += size
        return self.data[self.at - size:self.at]

    def int(self):
        """A signed 32-bit integer."""
        return struct.unpack(">i", self.take(4))[0]

    def uint(self):
        """An unsigned 32-bit integer."""
        return struct.unpack(">I", self.take(4))[0]

    def string(self):
        """A string: length, bytes, zeros up to a multiple of 4."""
        size = self.uint()
        text = self.take(size).decode()
        if self.take(-size % 4).strip(b"\0"):
            raise ValueError("the padding of a string is not zero")
        return text

    def optional(self, read):
        """What read() gives, or None: a 0 or 1 comes first."""
        return read() if self.uint() else None

    def domain(self):
        """A domain's name, UUID and id."""
        return self.string(), uuids.UUID(bytes=self.take(16)), self.int()

    def network(self):
        """A network's name and UUID."""
        return self.string(), uuids.UUID(bytes=self.take(16))

    def end(self):
        """Complain about anything left over."""
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data) - self.at} bytes too many in the payload")


def xdr_uint(value):
    """An unsigned integer in XDR."""
    return struct.pack(">I", value)


def xdr_string(text):
    """A string in XDR; bytes are taken as they are, so that they need not be UTF-8."""
    data = text if isinstance(text, bytes) else os.fsencode(text)
    return xdr_uint(len(data)) + data + bytes(-len(data) % 4)


class Client(Closing):
    """One connection to a lock daemon."""

    def __init__(self, sock):
        self.sock = sock
        self.stream = stream.Stream(sock)
        self.serials = itertools.count(1)

    def close(self):
        """Close the connection; a daemon then frees what it alone kept."""
        self.sock.close()

    def send_raw(self, data):
        """Send any bytes."""
        self.sock.sendall(data)

    def send_frame(self, frame):
        """Send one frame."""
        self.send_raw(frame.encode())

    def recv_frame(self):
        """The next frame from the daemon; EOFError when it closed the connection instead."""
        start = self.stream.take(4)
        length, = struct.unpack(">I", start)
        if not HEADER.size <= length <= FRAME_MAX:
            raise ValueError(f"the daemon announced a frame of {length} bytes")
        return Frame.decode(start + self.stream.take(length - 4))

    def call(self, procedure, payload=b""):
        """Make one call and give back the payload of its reply."""
        serial = next(self.serials)
        self.send_frame(Frame(procedure, serial=serial, payload=payload))
        reply = self.recv_frame()
        if (reply.type, reply.serial, reply.procedure) != (TYPE_REPLY, serial, procedure):
            raise ValueError(f"not the reply to call {serial} of procedure {procedure}: {reply}")
        if reply.status != STATUS_OK:
            raise RemoteError.decode(reply.payload)
        return reply.payload

    def register(self, pid, name="test", uuid=None, ident=1, flags=0):
        """Say which VM the calls to come are for, and give back its UUID."""
        uuid = uuid or uuids.uuid4()
        self.call(Procedure.REGISTER, uuid.bytes + xdr_string(name) + xdr_uint(ident)
                  + xdr_uint(pid) + xdr_uint(flags))
        return uuid

    def restrict(self, flags=0):
        """Give up the right to any further call."""
        self.call(Procedure.RESTRICT, xdr_uint(flags))

    def new(self, path, flags=0):
        """Make a lockspace that must not exist yet."""
        self.call(Procedure.NEW, xdr_string(path) + xdr_uint(flags))

    def create_lockspace(self, path):
        """Make a lockspace unless it exists."""
        self.call(Procedure.CREATE_LOCKSPACE, xdr_string(path))

    def create_resource(self, name, path="", flags=0):
        """Make the file of a resource."""
        self._resource(Procedure.CREATE_RESOURCE, path, name, flags)

    def delete_resource(self, name, path="", flags=0):
        """Remove the file of a resource."""
        self._resource(Procedure.DELETE_RESOURCE, path, name, flags)

    def acquire(self, name, path="", flags=0):
        """Lock a resource; path "" is the default lockspace, where name is the disk's own path."""
        self._resource(Procedure.ACQUIRE_RESOURCE, path, name, flags)

    def release(self, name, path="", flags=0):
        """Unlock a resource."""
        self._resource(Procedure.RELEASE_RESOURCE, path, name, flags)

    def _resource(self, procedure, path, name, flags):
        self.call(procedure, xdr_string(path) + xdr_string(name) + xdr_uint(flags))


def connect(path, timeout=30):
    """A Client connected to the daemon that listens at path."""
    return Client(stream.connect(path, timeout))
