"""Run ``snakemake --lint`` and fail on every finding that is not accepted here with its reason."""

import re
import subprocess
import sys

SOFTWARE = "Specify a conda environment or container for each rule."
"""The Snakefile itself imports ``flexseg`` to know rows, seeds and targets, and Snakemake reads it again for each job.
So the environment of requirements.lock must be there before Snakemake starts (``make env``, environment.yml or the
container), and another one for a rule could only differ from it."""

LOG = "No log directive defined"
"""``status`` prints what a reader waits for, on the terminal; its output file holds the same words."""

RULES = ("dataset", "train", "evaluate", "tables", "product", "status")
ACCEPTED = {*((f"rule {rule}", SOFTWARE) for rule in RULES), ("rule status", LOG)}


def main() -> int:
    # As text: `--lint json` prints text too.
    result = subprocess.run(["snakemake", "--lint"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found: set[tuple[str, str]] = set()
    place = ""
    for line in result.stdout.splitlines():
        if heading := re.fullmatch(r"Lints for (rule \w+|snakefile) .*", line):
            place = heading[1]
        elif finding := re.fullmatch(r" {4}\* (.+):", line):
            found.add((place, finding[1]))
    if found == ACCEPTED:
        return 0
    print(result.stdout)
    for problem, places in (("new", found - ACCEPTED), ("accepted, but no longer found", ACCEPTED - found)):
        for place, title in sorted(places):
            print(f"{problem}: {place}: {title}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
