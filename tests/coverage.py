"""Sums up the lines of an LCOV file, those of test code left out."""

import argparse
import sys
from pathlib import Path


def is_test_file(path):
    return path.name == "tests.rs" or "tests" in path.relative_to(Path.cwd()).parent.parts


def first_test_line(path):
    """Where the module of tests at a file's end begins."""
    lines = path.read_text().splitlines()
    for number, (attribute, module) in enumerate(zip(lines, lines[1:]), start=1):
        if attribute == "#[cfg(test)]" and module.endswith("mod tests {"):
            return number
    return len(lines) + 1


def read(lcov):
    """Each file's lines and how often each was reached."""
    hits = {}
    for line in Path(lcov).read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "SF":
            file = hits.setdefault(Path(value), {})
        elif key == "DA":
            number, count = map(int, value.split(",")[:2])
            file[number] = max(count, file.get(number, 0))
    return hits


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("lcov")
    parser.add_argument("--least", type=float, required=True, help="percent")
    arguments = parser.parse_args()
    lines = missed = 0
    for path, hits in sorted(read(arguments.lcov).items()):
        if is_test_file(path):
            continue
        end = first_test_line(path)
        counted = {number: count for number, count in hits.items() if number < end}
        unreached = [number for number, count in counted.items() if count == 0]
        lines += len(counted)
        missed += len(unreached)
        name = path.relative_to(Path.cwd())
        places = " ".join(f"{name}:{number}" for number in unreached)
        share = 100 * (1 - len(unreached) / max(len(counted), 1))
        print(f"{share:6.2f} %  {len(counted):5} lines  {places or name}")
    share = 100 * (1 - missed / lines)
    print(f"{share:6.2f} %  {lines:5} lines, {missed} of them not reached: functions/gateway/")
    if share < arguments.least:
        sys.exit(f"less than {arguments.least} % are reached")


main()
