"""A real Slurm on this host, on loopback only and apart from any other: two nodes, no accounting, its own munge."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

PROGRAMS = ("slurmctld", "slurmd", "munged", "mungekey", "sbatch")
NODES = ("n1", "n2")
# After a requeue, a job waits as long as credentials live.
CREDENTIAL_SECONDS = 5
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={here}/munge.socket,cred_expire={expire}
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={here}/state
SlurmdSpoolDir={here}/spool.%n
SlurmctldPidFile={here}/slurmctld.pid
SlurmdPidFile={here}/slurmd.%n.pid
SlurmctldLogFile={here}/slurmctld.log
SlurmdLogFile={here}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={here}/ended.txt
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmdParameters=config_overrides
KillWait=20
MinJobAge=600
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=1000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 RealMemory=1000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Why there can be no Slurm here; nothing if there can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{absent[0]} is not installed; Debian's packages are slurmctld slurmd slurm-client munge"
    return "" if os.getuid() == 0 else "slurmd starts as root only"


def free_ports(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Slurm:
    """Within it, $SLURM_CONF makes sbatch, srun and the others speak to it."""

    def __init__(self, here):
        self.here = pathlib.Path(here)

    def __enter__(self):
        here, host = self.here, socket.gethostname().partition(".")[0]
        (here / "state").mkdir()
        settings = {"here": here, "host": host, "ports": free_ports(3), "expire": CREDENTIAL_SECONDS}
        (here / "slurm.conf").write_text(CONF.format(**settings))
        os.environ["SLURM_CONF"] = str(here / "slurm.conf")
        key = here / "munge.key"
        subprocess.run(["mungekey", "--create", "--keyfile", key], check=True)
        munge = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={here}/munge.socket"]
        munge += [f"--pid-file={here}/munged.pid", f"--seed-file={here}/seed", f"--log-file={here}/munged.log"]
        daemons = [munge, ["slurmctld", "-D", "-i"], *(["slurmd", "-D", "-N", node] for node in NODES)]
        self._processes = []
        for daemon in daemons:
            self._processes.append(self._start(*daemon))
            if daemon is munge:
                self.wait_for(lambda: (here / "munge.socket").exists(), 10)
        self.wait_for(lambda: self.ask("sinfo", "-h", "-o", "%t %D") == "idle 2", 30)
        return self

    def _start(self, *daemon):
        with open(self.here / "daemons.log", "a") as log:
            return subprocess.Popen(daemon, stdout=log, stderr=log)

    def __exit__(self, *exception):
        for process in self.processes():  # of a test that failed
            os.kill(process, signal.SIGKILL)
        for process in self._processes[::-1]:
            process.terminate()
            process.wait(30)
        del os.environ["SLURM_CONF"]

    def ask(self, *command):
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    def wait_for(self, condition, seconds):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                logs = "\n".join(path.read_text()[-3000:] for path in self.here.glob("*.log"))
                raise TimeoutError(f"{self.ask('squeue', '-a')}\n{self.ask('scontrol', 'show', 'job')}\n{logs}")
            time.sleep(0.1)

    def lose(self, node, job):
        """Ends a node as a power cut does, with all that the job has there, and lets Slurm notice."""
        number = [*NODES].index(node) + 2  # after munged and slurmctld
        self._processes[number].kill()
        for process in self.processes(job):
            os.kill(process, signal.SIGKILL)
        self.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")

    def bring_back(self, node):
        number = [*NODES].index(node) + 2
        self._processes[number].wait()
        self._processes[number] = self._start("slurmd", "-D", "-N", node)
        self.ask("scontrol", "update", f"NodeName={node}", "State=RESUME")
        self.wait_for(lambda: self.ask("sinfo", "-h", "-n", node, "-o", "%t") == "idle", 30)

    def processes(self, job=""):
        """All that a job, or any, has started, and Slurm's own processes for it."""
        found = []
        for place in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                environment, command = (place / "environ").read_bytes(), (place / "cmdline").read_bytes()
            except OSError:  # It has ended.
                continue
            ours = f"SLURM_CONF={self.here}/slurm.conf".encode() in environment.split(b"\0")
            of_job = any(part.startswith(b"SLURM_JOB_ID=") for part in environment.split(b"\0"))
            if job:
                of_job = f"SLURM_JOB_ID={job}".encode() in environment.split(b"\0")
            if ours and (of_job or command.startswith(f"slurmstepd: [{job}{'.' if job else ''}".encode())):
                found.append(int(place.name))
        return found

    def state(self, job):
        """Of a job or a task of an array, as PENDING, RUNNING, COMPLETED, FAILED."""
        for word in self.ask("scontrol", "show", "job", job).split():
            if word.startswith("JobState="):
                return word.removeprefix("JobState=")
        return "UNKNOWN"
