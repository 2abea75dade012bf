"""Lint the scripts of the report page with oxlint, as the page runs them: the theme alone, the rest as one module.

The parts of the module share one scope, so that a name that is never defined, or never used, shows in the whole only.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from flexseg.analysis.web.page import SCRIPTS

ASSETS = Path("flexseg/analysis/web/assets")


def main() -> int:
    lost = {path.name for path in ASSETS.glob("*.js")} - {*SCRIPTS, "theme.js"}
    if lost:
        print(f"{ASSETS}: no part of the page: {', '.join(sorted(lost))}")
        return 1
    parts = {name: (ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS}
    places = [f"{ASSETS / name}:{line}" for name, text in parts.items() for line in range(1, text.count("\n") + 2)]
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder, "page.mjs")
        module.write_text("\n".join(parts.values()), encoding="utf-8")
        command = ["oxlint", "--config", ".oxlintrc.json", "--format", "unix", str(module), str(ASSETS / "theme.js")]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        print(re.sub(rf"{re.escape(str(module))}:(\d+)", lambda found: places[int(found[1]) - 1], result.stdout))
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
