#!/usr/bin/env python3
"""Keeps haproxy's servers what a service's endpoints are.
In: `lighter service endpoints NAME -f -o json` on standard input, one list a line; haproxy's socket and backend as
arguments. Out: servers set by haproxy's runtime API, without a reload. Owns: which server slot has which task.
Never: takes a server away that haproxy still sends to: it is drained, and the slot is used again when it is needed."""

import collections
import json
import socket
import sys

SLOTS = 16


def say(path, command):
    with socket.socket(socket.AF_UNIX) as haproxy:
        haproxy.connect(path)
        haproxy.sendall(command.encode() + b"\n")
        answer = haproxy.makefile().read().strip()
    # Words that are no complaint; anything else is told.
    if answer and not answer.startswith(("IP changed", "port changed", "no need to change", "nothing changed")):
        print(f"haproxy: {command}: {answer}", file=sys.stderr)


def main():
    path, backend = sys.argv[1:]
    slots = {}  # task -> number
    # The one that is free for longest first: what was drained last has connections to finish.
    free = collections.deque(range(1, SLOTS + 1))
    for line in sys.stdin:
        endpoints = {each["taskId"]: each for each in json.loads(line)["endpoints"]}
        for task in slots.keys() - endpoints.keys():
            number = slots.pop(task)
            say(path, f"set server {backend}/s{number} state drain")
            free.append(number)
        for task in sorted(endpoints.keys() - slots.keys()):
            slots[task] = number = free.popleft()
            each = endpoints[task]
            say(path, f"set server {backend}/s{number} addr {each['address']} port {each['port']}")
            say(path, f"set server {backend}/s{number} state ready")


main()
