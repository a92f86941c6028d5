"""Prints the commands of one stage's RUN instructions, one line each.

usage: dockerfile.py DOCKERFILE STAGE
"""

import re
import sys
from pathlib import Path


def main(path, stage):
    lines = [line for line in Path(path).read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n", " ", "\n".join(lines))
    current, commands = None, []
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            current = rest.split(" AS ")[1].strip() if " AS " in rest else None
        elif word == "RUN" and current == stage:
            commands.append(re.sub(r"\s+", " ", rest.strip()))
    if not commands:
        raise SystemExit(f"{path} has no stage {stage} with a RUN")
    print("\n".join(commands))


if __name__ == "__main__":
    main(*sys.argv[1:])
