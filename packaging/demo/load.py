#!/usr/bin/env python3
"""Asks a web server again and again, and counts what it answers.
In: a URL, requests a second, how many at most; SIGTERM ends it sooner. Out: one line: requests, those that failed, and
how often each answer came; the first failures on standard error. Bounded by its number of requests."""

import collections
import signal
import sys
import threading
import time
import urllib.request

url, rate, most = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
answers, failures, lock, over = collections.Counter(), [], threading.Lock(), threading.Event()
signal.signal(signal.SIGTERM, lambda *_: over.set())
THREADS = 4


def ask(first):
    begin = time.monotonic()
    for number in range(first, most, THREADS):
        pause = begin + number / rate - time.monotonic()
        if over.wait(max(pause, 0)):
            return
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                text = answer.read().decode().strip()
            with lock:
                answers[text] += 1
        except OSError as error:
            with lock:
                failures.append(f"{time.strftime('%H:%M:%S')} {error}")


threads = [threading.Thread(target=ask, args=(first,)) for first in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"{sum(answers.values()) + len(failures)} requests, {len(failures)} failed;", *(f"{n} times {a}" for a, n in sorted(answers.items())))
for failure in failures[:5]:
    print(failure, file=sys.stderr)
