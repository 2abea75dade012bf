# dataset → train → evaluate → tables, reports, verdict. Every rule is one `flexseg` command.
#
#   snakemake --cores all                              the default benchmark, end to end
#   snakemake reports/ablation.pdf                     one product; also reports/index.html, reports/figures/captions.md
#   snakemake --cores all --config benchmark=smoke     another benchmark (its reports lie in reports/smoke/)
#   snakemake --cores all --config study=baselines     another study (reports/streetworld/baselines/); also factorial, …
#   snakemake --cores all --config study=evidence      all runs that the benchmark's claims need, if it makes any
#   snakemake --cores all --config rows=my_idea,dginstyle seeds=0,1
#   snakemake --cores all --config logger=tensorboard  also log the trainings for TensorBoard (docs/watching.md)
#
# The output that a rule declares is a receipt, never a run's own files: Snakemake deletes declared outputs before it
# repeats a job and when one is killed, and a finished run must survive both.

import re
import shlex
import subprocess
from pathlib import Path

from snakemake.exceptions import WorkflowError

from flexseg.benchmark import Run, fingerprint, load_benchmark, select_rows
from flexseg.benchmark.identity import evidence_files
from flexseg.cli.live import watch
from flexseg.engine.loggers import check_logger
from flexseg.errors import UserError, did_you_mean
from flexseg.files import describe_disk_error, file_digest
from flexseg.provenance import code_digest
from flexseg.shipped import benchmarks_folder

DEFAULT = "streetworld"
KEYS = ("benchmark", "study", "rows", "seeds", "logger")
for key in config:
    if key not in KEYS:
        raise WorkflowError(f"--config has no key {key!r}{did_you_mean(key, KEYS)}; it has {', '.join(KEYS)}")
NAME = str(config.get("benchmark", DEFAULT))


def listed(key):
    value = config.get(key, "")
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


STUDY, ROWS, SEEDS = str(config.get("study", "default")), listed("rows"), listed("seeds")
LOGGER = str(config.get("logger", ""))
try:
    check_logger(LOGGER)
    BENCHMARK = select_rows(load_benchmark(NAME, benchmarks_folder()), STUDY, ROWS, SEEDS)
except UserError as error:
    raise WorkflowError(str(error)) from None
except OSError as error:
    raise WorkflowError(describe_disk_error(error)) from None

watch(BENCHMARK)  # what the live view of profiles/default shows
HOME = f"results/{NAME}"
RUNS = f"results/{BENCHMARK.trained_as}"  # where runs are trained: another benchmark's, if this one only evaluates
SELECTED_AS = BENCHMARK.selection  # other studies and selections have reports and tables of their own
REPORTS = "reports" if NAME == DEFAULT and not SELECTED_AS else Path("reports", NAME, SELECTED_AS).as_posix()
TABLES_IN = Path(HOME, "tables", SELECTED_AS).as_posix()
STATUS = f"{HOME}/status{SELECTED_AS and '-'}{SELECTED_AS}.txt"
SELECTED = ["--study", STUDY] + (["--rows", ROWS] if ROWS else []) + (["--seeds", SEEDS] if SEEDS else [])
SELECTION = shlex.join(SELECTED)
LOGGING = f"--logger {LOGGER}" if LOGGER else ""  # no param of the rule: finished runs stay as they are
KINDS = ("comparison", "ablation", "per_class", "per_condition", "metrics", "boundary", "power", "cost", "origins")
KINDS += ("claims",) if BENCHMARK.claimed else ()
TABLES = [f"{TABLES_IN}/{table}.{form}" for table in KINDS for form in ("csv", "md", "tex")]
PRODUCTS = {  # what people read, and what `flexseg report` calls it
    "comparison.pdf": "comparison",
    "ablation.pdf": "ablation",
    "index.html": "page",
    "summary.md": "summary",
    "figures/captions.md": "figures",
} | ({"claims.pdf": "claims"} if BENCHMARK.claimed else {})
EVIDENCE = list(map(str, evidence_files(BENCHMARK)))  # the claims, and the runs of the repository
# By their digest: Snakemake would take braces in a title for wildcards.
TITLES = fingerprint(
    {row: BENCHMARK.row(row).title for row in BENCHMARK.rows} | {"": [BENCHMARK.title, BENCHMARK.description]}
)
TRAINED = BENCHMARK.trained_rows  # the others were made elsewhere: a checkpoint, predictions
EVALUATED = expand(f"{HOME}/{{row}}/evaluated.json", row=BENCHMARK.rows)


def method_files(row):
    return list(map(str, BENCHMARK.sources(row)))


def training_data(row):
    domains = [BENCHMARK.source, BENCHMARK.generated_of(row)]
    return [f"{RUNS}/data/{domain}/index.parquet" for domain in domains]


def is_rendered(domain):
    return BENCHMARK.domains[domain].rendered


def run_fingerprint(wildcards):
    return Run(BENCHMARK, wildcards.row, int(wildcards.seed)).fingerprint


def receipts(wildcards):
    seeds = BENCHMARK.seeds_of(wildcards.row) if wildcards.row in TRAINED else []
    return [f"{RUNS}/{wildcards.row}/seed-{seed}/trained.json" for seed in seeds]


def foreign_fingerprint(wildcards):
    return "" if wildcards.row in TRAINED else Run(BENCHMARK, wildcards.row, BENCHMARK.seeds[0]).fingerprint


onstart:
    # Find wrong options and unknown methods before any work. This is not a rule, as all others would have to wait for
    # it, and Snakemake does not ask the jobs behind a due one what else has changed.
    files = {f"{benchmarks_folder()}/{NAME}.yaml", *(path for row in BENCHMARK.rows for path in method_files(row))}
    state = {path: file_digest(Path(path)) for path in files if Path(path).is_file()} | {"selection": SELECTION}
    receipt = Path(HOME, "checked.txt")
    on_disk = not all(map(is_rendered, BENCHMARK.domains))  # data sets may have gone since
    if on_disk or not receipt.is_file() or receipt.read_text() != fingerprint(state):
        if subprocess.run(["flexseg", "check", NAME, *SELECTED]).returncode:
            raise WorkflowError(f"benchmark {NAME} cannot be run as it is: see above. Nothing was started")
        try:
            receipt.parent.mkdir(parents=True, exist_ok=True)
            receipt.write_text(fingerprint(state))
        except OSError as error:
            raise WorkflowError(describe_disk_error(error, receipt)) from None


wildcard_constraints:
    row="|".join(map(re.escape, BENCHMARK.rows)),
    seed=r"\d+",
    domain="|".join(map(re.escape, BENCHMARK.domains)),
    home="|".join(map(re.escape, {BENCHMARK.name, BENCHMARK.trained_as})),


rule all:
    input:
        [f"{REPORTS}/{product}" for product in PRODUCTS],
        EVALUATED,  # asked for by name, or `flexseg status --retry` would change nothing
        TABLES,
        STATUS,
    localrule: True


rule dataset:
    """Renders a domain, or checks every file of a data set and writes its index; the data set stays in its place."""
    output:
        "results/{home}/data/{domain}/index.parquet",
    log:
        "results/{home}/logs/dataset-{domain}.log",
    threads: lambda wildcards: 1 if is_rendered(wildcards.domain) else workflow.cores or 1
    params:
        definition=lambda wildcards: fingerprint(BENCHMARK.domain_definition(wildcards.domain)),
    shell:
        "flexseg dataset {wildcards.home:q} {wildcards.domain:q} --workers {threads} > {log:q} 2>&1"


rule train:
    input:
        # Whether one has changed is for the fingerprint to say, which does not see comments.
        method=lambda wildcards: [ancient(path) for path in method_files(wildcards.row) if Path(path).is_file()],
        data=lambda wildcards: training_data(wildcards.row),
    output:
        f"{RUNS}/{{row}}/seed-{{seed}}/trained.json",
    log:
        f"{RUNS}/logs/train-{{row}}-{{seed}}.log",
    threads: 1
    resources:
        gpu=1,
    params:
        fingerprint=run_fingerprint,
    shell:
        f"flexseg train {BENCHMARK.trained_as} {{wildcards.row:q}} {{wildcards.seed:q}} --supersede --threads {{threads}}"
        f" --receipt {{output:q}} {LOGGING} > {{log:q}} 2>&1"


rule evaluate:
    """All seeds of a row in one process: start-up and decoding the targets are paid once."""
    input:
        trained=receipts,
        data=[f"{HOME}/data/{target}/index.parquet" for target in BENCHMARK.targets],
    output:
        f"{HOME}/{{row}}/evaluated.json",
    log:
        f"{HOME}/logs/evaluate-{{row}}.log",
    threads: 1
    resources:
        gpu=1,
    params:
        protocol=fingerprint(BENCHMARK.evaluation_definition()),
        foreign=foreign_fingerprint,
        seeds=lambda wildcards: ",".join(map(str, BENCHMARK.planned_seeds(wildcards.row))),
    shell:
        f"flexseg evaluate {NAME} {{wildcards.row:q}} --seeds {{params.seeds}}"
        " --threads {threads} --receipt {output:q} > {log:q} 2>&1"


rule tables:
    input:
        EVALUATED + EVIDENCE,
    output:
        report(TABLES[0::3], caption="docs/captions/table.rst", category="Tables"),
        [path for path in TABLES if not path.endswith(".csv")],
        f"{TABLES_IN}/scores_long.csv",
    log:
        f"{HOME}/logs/tables.log",
    params:
        selection=SELECTION,
        library=code_digest(),
        titles=TITLES,
    shell:
        f"flexseg tables {NAME} {SELECTION} > {{log:q}} 2>&1"


rule product:
    """The PDFs, the page, the summary and the single figures (whose receipt is the list of their captions)."""
    input:
        EVALUATED + EVIDENCE,
    output:
        report(
            f"{REPORTS}/{{product}}",
            caption="docs/captions/product.rst",
            category="Reports",
            labels={"product": "{product}"},
        ),
    log:
        f"{HOME}/logs/report-{{product}}.log",
    wildcard_constraints:
        product="|".join(PRODUCTS),
    params:
        kind=lambda wildcards: PRODUCTS[wildcards.product],
        selection=SELECTION,
        library=code_digest(),
        titles=TITLES,
    shell:
        f"flexseg report {NAME} {{params.kind:q}} {{output:q}} {SELECTION} > {{log:q}} 2>&1"


rule status:
    """Last: whether the reference results were reproduced, then what failed and why; fails if anything did."""
    input:
        [f"{REPORTS}/{product}" for product in PRODUCTS],
        TABLES,
    output:
        STATUS,
    localrule: True
    params:
        selection=SELECTION,
    shell:
        f"( flexseg verify {NAME} {SELECTION} || true; flexseg status {NAME} {SELECTION} ) | tee {{output:q}}"
