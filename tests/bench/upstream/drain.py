#!/usr/bin/env python3
"""The upload's upstream: reads a whole request body, by length or in chunks, and says how many bytes it held.

usage: drain.py PORT    (on 127.0.0.1; standard library alone, since nginx's Lua cannot read chunked bodies)
"""

import socketserver
import sys


class Drain(socketserver.StreamRequestHandler):
    rbufsize = 1 << 18

    def handle(self):
        while self.one_request():
            pass

    def one_request(self):
        headers, line = {}, self.rfile.readline(65536)
        if not line.strip():
            return False
        while (line := self.rfile.readline(65536).strip()):
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip().lower()
        if headers.get(b"expect") == b"100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get(b"transfer-encoding") == b"chunked":
            held = self.chunks()
        else:
            held = self.skip(int(headers.get(b"content-length", 0)))
        answer = (
            b'{"id":"ocr-2ec00c2e-04a6-4836-871e-68185df17915","status":"PENDING","type":"BUSINESS_REGISTRATION",'
            b'"country":"ID","document_name":"SK_MENKEH","held_bytes":%d,"result":{}}' % held
        )
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer
        )
        return headers.get(b"connection") != b"close"

    def chunks(self):
        held = 0
        while (size := int(self.rfile.readline(1024).split(b";")[0], 16)) > 0:
            held += self.skip(size)
            self.rfile.readline(2)
        while self.rfile.readline(65536).strip():
            pass
        return held

    def skip(self, size):
        left = size
        while left > 0:
            got = len(self.rfile.read1(min(left, self.rbufsize)))
            if got == 0:
                raise ConnectionError("the body ended early")
            left -= got
        return size


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        print(sys.exc_info()[1], file=sys.stderr)


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Drain) as server:
        server.serve_forever()
