"""A real Slurm over loopback: a cancelled job and a killed driver cost nothing but time.

Needs root, munge and slurm-wlm (Debian's), and a machine that belongs to no cluster: it starts daemons of its own whose
configuration lies in ``/etc/slurm`` while they run. Another place would have to be named in ``SLURM_CONF``, but
Snakemake's executor takes all variables of Slurm's from its jobs.
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

HOME = Path("/etc/slurm")
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons are started as root"),
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason="needs munge and slurm-wlm"),
    pytest.mark.skipif((HOME / "slurm.conf").exists(), reason="this machine belongs to a cluster"),
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


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster of this machine alone, with two cards that are none."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    stand_ins = "".join(f"NodeName=localhost Name=gpu File=/dev/{name}\n" for name in ("zero", "null"))
    files = {"slurm.conf": CONFIGURATION.format(folder=folder, cores=os.cpu_count()), "gres.conf": stand_ins}
    HOME.mkdir(exist_ok=True)
    daemons = []
    try:
        for name, text in files.items():
            (HOME / name).write_text(text)
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge", "munge")
        subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=False)  # may be running already
        for command in (["slurmctld", "-D"], ["slurmd", "-D", "-N", "localhost"]):
            daemons.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for _ in range(60):
            shown = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True)
            if shown.stdout.strip() in ("idle", "mixed"):
                break
            time.sleep(1)
        else:
            pytest.fail(f"the node does not come up: {shown.stdout}{shown.stderr}")
        yield
    finally:
        for daemon in daemons:
            daemon.terminate()
        for name in files:
            (HOME / name).unlink(missing_ok=True)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    made = Work.make(tmp_path / "work")
    (made.folder / "profile").mkdir()
    (made.folder / "profile" / "config.yaml").write_text(PROFILE)
    return made


SNAKEMAKE = ("snakemake", "--profile", "profile", "--config", "benchmark=smoke")


def jobs() -> list[str]:
    """The ids of all running or waiting jobs."""
    return subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, text=True, check=True).stdout.split()


def wait_for(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.2)


def start_and_wait_for_training(work: Work) -> subprocess.Popen[str]:
    driver = work.start(*SNAKEMAKE)
    wait_for(lambda: any(work.results.glob("*/seed-0/train.jsonl")) or driver.poll() is not None)
    assert driver.poll() is None, driver.communicate()
    return driver


def finish(work: Work, undisturbed: Work) -> None:
    code, output = work.run(*SNAKEMAKE)
    assert code == 0, output
    assert work.digests() == undisturbed.digests()


def test_a_cancelled_job_is_made_up_for(work: Work, undisturbed: Work) -> None:
    driver = start_and_wait_for_training(work)
    subprocess.run(["scancel", *jobs()], check=True)
    driver.communicate()
    finish(work, undisturbed)


@pytest.mark.parametrize("cancelled", [True, False], ids=["jobs cancelled", "jobs live on"])
def test_a_killed_driver(cancelled: bool, work: Work, undisturbed: Work) -> None:
    driver = start_and_wait_for_training(work)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    if cancelled and (living := jobs()):
        subprocess.run(["scancel", *living], check=True)
    wait_for(lambda: not jobs())
    code, output = work.run(*SNAKEMAKE)
    assert code != 0
    assert "--unlock" in output, "Snakemake says what to do where it happens"
    assert work.run(*SNAKEMAKE, "--unlock")[0] == 0
    finish(work, undisturbed)
