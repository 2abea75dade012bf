"""A real Slurm over loopback: a cancelled job and a killed driver cost nothing but time.

Needs root, munge and slurm-wlm (Debian's), and starts daemons of its own with a configuration of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from work import Work

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons are started as root"),
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason="needs munge and slurm-wlm"),
]
CONFIGURATION = """
ClusterName=campaign
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
SlurmctldPort=36817
SlurmdPort=36818
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
NodeName=localhost CPUs={cores} RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=debug Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""
PROFILE = """
executor: slurm
jobs: 4
rerun-incomplete: true
retries: 3
latency-wait: 20
slurm-requeue: true
slurm-no-account: true
slurm-status-command: squeue
default-resources: {mem_mb: 500, runtime: 20, slurm_partition: debug}
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment variables by which commands find the cluster of one machine."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, cores=os.cpu_count()))
    stand_ins = "".join(f"NodeName=localhost Name=gpu File=/dev/{name}\n" for name in ("zero", "null"))
    (folder / "gres.conf").write_text(stand_ins)
    variables = {"SLURM_CONF": str(folder / "slurm.conf")}
    Path("/run/munge").mkdir(exist_ok=True)
    shutil.chown("/run/munge", "munge", "munge")
    subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=False)  # may be running already
    daemons = [
        subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in (["slurmctld", "-D"], ["slurmd", "-D", "-N", "localhost"])
    ]
    try:
        for _ in range(60):
            shown = subprocess.run(
                ["sinfo", "-h", "-o", "%T"], env=os.environ | variables, capture_output=True, text=True
            )
            if shown.stdout.strip() in ("idle", "mixed"):
                break
            time.sleep(1)
        else:
            pytest.fail(f"the node does not come up: {shown.stdout}{shown.stderr}")
        yield variables
    finally:
        for daemon in daemons:
            daemon.terminate()


@pytest.fixture
def work(tmp_path: Path) -> Work:
    made = Work.make(tmp_path / "work")
    (made.folder / "profile").mkdir()
    (made.folder / "profile" / "config.yaml").write_text(PROFILE)
    return made


SNAKEMAKE = ("snakemake", "--profile", "profile", "--config", "benchmark=smoke")


def jobs(slurm: dict[str, str]) -> list[str]:
    """The ids of all running or waiting jobs."""
    command = ["squeue", "-h", "-o", "%i"]
    return subprocess.run(command, env=os.environ | slurm, capture_output=True, text=True, check=True).stdout.split()


def wait_for(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.2)


def is_training(work: Work) -> bool:
    return any(work.results.glob("*/seed-0/train.jsonl"))


def same(work: Work, undisturbed: Work) -> bool:
    return work.digests() == undisturbed.digests()


def test_a_cancelled_job_is_made_up_for(slurm: dict[str, str], work: Work, undisturbed: Work) -> None:
    driver = work.start(*SNAKEMAKE, **slurm)
    wait_for(lambda: is_training(work) or driver.poll() is not None)
    subprocess.run(["scancel", *jobs(slurm)], env=os.environ | slurm, check=True)
    driver.communicate()
    again = work.start(*SNAKEMAKE, **slurm)
    out, error = again.communicate()
    assert again.returncode == 0, out + error
    assert same(work, undisturbed)


@pytest.mark.parametrize("cancelled", [True, False], ids=["jobs cancelled", "jobs live on"])
def test_a_killed_driver(cancelled: bool, slurm: dict[str, str], work: Work, undisturbed: Work) -> None:
    driver = work.start(*SNAKEMAKE, **slurm)
    wait_for(lambda: is_training(work) or driver.poll() is not None)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    if cancelled and (living := jobs(slurm)):
        subprocess.run(["scancel", *living], env=os.environ | slurm, check=True)
    wait_for(lambda: not jobs(slurm))
    code, output = work.run(*SNAKEMAKE)
    assert code != 0
    assert "--unlock" in output, "Snakemake says what to do where it happens"
    assert work.run(*SNAKEMAKE, "--unlock")[0] == 0
    again = work.start(*SNAKEMAKE, **slurm)
    out, error = again.communicate()
    assert again.returncode == 0, out + error
    assert same(work, undisturbed)
