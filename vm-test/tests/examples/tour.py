"""Types every command of the README's sections "Try it" and "Look into it" as it is printed there, in its order, and
compares what comes: headers of tables, names of rows, whole lines of plain output; numbers, ids and times may differ.
In: the README, a running `lighter dev`, the slow job's file. Out: exit code 0 when all is as printed.
Never: knows a command that the README does not print.
"""
import json
import re
import subprocess
import sys
import time

README, SLOW_JOB = sys.argv[1:3]
SECTIONS = ("## Try it", "## Look into it")
# What asks only is asked again until it answers as printed: a task needs its time to start.
QUESTIONS = ("ps", "task show", "task why", "task events", "logs", "top", "audit")
LIMIT_S = 40


def blocks(text):
    """Commands with the output printed below each, in order."""
    found = []
    for section in re.split(r"^(?=## )", text, flags=re.M):
        if section.splitlines()[0] not in SECTIONS:
            continue
        for block in re.findall(r"^```text\n(.*?)^```", section, flags=re.M | re.S):
            for line in block.splitlines():
                if line.startswith("$ "):
                    found.append((re.sub(r"\s{3,}#.*", "", line[2:]), []))
                elif found and line.strip() and not block.startswith("make"):
                    found[-1][1].append(line)
    return found


def shape(line):
    """A line without what differs from run to run."""
    line = re.sub(r"[0-9a-f]{16,}|\b[0-9a-f]{8}\b", "ID", line)
    line = re.sub(r"\d+(\.\d+)*", "N", line)
    return " ".join(re.sub(r"\b[A-Z][a-z]{2}\b", "MON", line).split())


def label(line):
    """What has to be the same: all of a table's header and of plain words, the first column of a row."""
    first = line.strip().split("  ")[0]
    return shape(line if re.match(r"[A-Z]+ .*[A-Z]$", line) else first)


def answers_as_printed(command, printed, output):
    shapes = [shape(line) for line in output.splitlines()]
    missing = [line for line in printed if line.strip() != "..." and not any(s.startswith(label(line)) for s in shapes)]
    return [f"nothing like {line!r} (looked for {label(line)!r})" for line in missing]


def run(command):
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


class Tour:
    """Keeps which id of this run stands for which id of the README."""

    def __init__(self):
        self.ids = {}

    def learn(self, printed, output):
        """From an id printed alone in a line."""
        for line in printed:
            if re.fullmatch(r"[0-9a-f]{32}", line) and (real := re.findall(r"^[0-9a-f]{32}$", output, flags=re.M)):
                self.ids[line] = real[-1]

    def real(self, command):
        def replace(match):
            fits = [real for printed, real in self.ids.items() if printed.startswith(match.group())]
            return fits[0] if fits else match.group()

        return re.sub(r"\b[0-9a-f]{8,32}\b", replace, command)

    def step(self, command, printed):
        if command.startswith("cat "):
            # The file is the README's own.
            with open(command.split()[1], "w") as file:
                file.write("\n".join(printed))
            json.loads("\n".join(printed))
            return
        fails = any(line.startswith("error:") for line in printed)
        asks = command.removeprefix("lighter ").startswith(QUESTIONS)
        end = time.monotonic() + (LIMIT_S if asks else 0)
        while True:
            code, output = run(self.real(command))
            wrong = answers_as_printed(command, printed, output)
            if (code != 0) != fails:
                wrong.append(f"ended with {code}")
            if not wrong or time.monotonic() > end:
                break
            time.sleep(0.3)
        if wrong:
            sys.exit(f"README: `{command}` does not answer as printed: {wrong}; it said:\n{output}")
        self.learn(printed, output)


tour = Tour()
steps = blocks(open(README).read())
if len(steps) < 15:
    sys.exit(f"README: only {len(steps)} commands are found")
for command, printed in steps:
    if command == "lighter run examples/nginx.json":
        ids = {short for other, _ in steps for short in re.findall(r"\b[0-9a-f]{8,16}\b", other)}
        taken = {short for short in ids if any(known.startswith(short) for known in tour.ids)}
    tour.step(command, printed)
    if command == "lighter run examples/nginx.json":
        # Of the ids that no output has named so far, the longest is the slow job's, the others nginx's.
        nginx = run("lighter ps --quiet")[1].split()[0]
        left = sorted(ids - taken, key=len)
        tour.ids.update({short: nginx for short in left[:-1]})
        tour.ids[left[-1]] = run(f"lighter run {SLOW_JOB} --quiet")[1].strip()
        # The log has a line when somebody has asked.
        run("curl -s --retry 20 --retry-all-errors --retry-delay 1 http://127.0.0.1:8080/")
print(f"README: {len(steps)} commands answer as printed")
