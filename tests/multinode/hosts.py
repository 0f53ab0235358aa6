"""Two hosts on one machine: network and UTS namespaces, connected by a bridge in a third one.

A sleeping process holds each namespace. It is killed when this process ends for any reason. The kernel then removes the namespaces,
their interfaces and the bridge.
"""
import os
import pathlib
import shutil
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "faults"))
from jobs import Job  # noqa: E402

SWITCH, NAMES = "switch", ("host-a", "host-b")
ADDRESSES = {name: f"10.77.0.{number}" for number, name in enumerate(NAMES, 1)}
NOT_RUN = 77  # exit code, for ctest


def obstacle():
    """Returns why hosts are impossible here; None if they are possible."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in "ip", "tc", "nsenter", "unshare", "setpriv":
        if shutil.which(tool) is None:
            return f"needs {tool}: install iproute2 and util-linux"
    for link in "bridge", "veth":
        made = subprocess.run(["unshare", "--net", "--uts", "ip", "link", "add", "probe", "type", link], capture_output=True, text=True)
        if made.returncode != 0:
            return f"no namespaces, or no {link} in them: {made.stderr.strip()}"
    return None


class Hosts:
    """With `own_mounts`, hosts do not see what is mounted on others. Their processes then start in the root directory."""

    def __init__(self, names=NAMES, own_mounts=False):
        self.addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
        self.namespaces = ["--net", "--uts", *(["--mount"] if own_mounts else [])]

    def __enter__(self):
        self.holders = {}
        try:
            for name in (SWITCH, *self.addresses):
                self.hold(name)
            self.inside(SWITCH, "ip link add bridge type bridge && ip link set bridge up")
            for name, address in self.addresses.items():
                self.plug_in(name, address + "/24")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for holder in self.holders.values():
            with holder:  # waits for it
                holder.kill()

    def hold(self, name):
        holder = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", *self.namespaces, "sh", "-c",
                                   f"hostname {name} && ip link set lo up && echo ready && exec sleep infinity"], stdout=subprocess.PIPE)
        self.holders[name] = holder
        if holder.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{name} did not start")

    def plug_in(self, name, address):
        """Connects cable `name` of the switch to eth0 of the host `name`. Ends a connection after 6 s without acknowledgement instead of
        a quarter of an hour, since mpirun and its daemons wait for that when a cable is cut."""
        pid = self.holders[name].pid
        self.inside(SWITCH, f"ip link add {name} type veth peer name eth0 netns {pid} && ip link set {name} master bridge up")
        self.inside(name, f"ip addr add {address} dev eth0 && ip link set eth0 up && echo 4 > /proc/sys/net/ipv4/tcp_retries2")

    def inside(self, name, command):
        run = subprocess.run(self.enter(name) + ["sh", "-c", command], capture_output=True, text=True)
        if run.returncode != 0:
            raise RuntimeError(f"{name}: {command}: {run.stderr}")
        return run.stdout

    def enter(self, name):
        return ["nsenter", "--target", str(self.holders[name].pid), *self.namespaces]

    def cut(self, name):
        self.inside(SWITCH, f"ip link set {name} down")

    def mend(self, name):
        self.inside(SWITCH, f"ip link set {name} up")

    def lose(self, name):
        """Simulates a power failure of the host, once."""
        if self.holders[name].poll() is not None:
            return
        self.cut(name)
        there = os.readlink(f"/proc/{self.holders[name].pid}/ns/net")
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "ns/net") == there:
                    os.kill(int(process.name), signal.SIGKILL)
            except OSError:
                pass  # has ended meanwhile

    def limit(self, rate):
        """Limits each cable in both directions, in tc's units, such as 100mbit; None removes the limit."""
        for name in self.addresses:
            for host, end in (SWITCH, name), (name, "eth0"):
                self.inside(host, f"tc qdisc del dev {end} root 2>/dev/null || true")
                if rate is not None:
                    self.inside(host, f"tc qdisc add dev {end} root tbf rate {rate} burst 256kb latency 50ms")

    def received_bytes(self, name):
        return int(self.inside(name, "cat /proc/net/dev").split("eth0:")[1].split()[0])

    def launch(self, mpirun, hosts, timeout=120):
        """The command of mpirun with a rank on each of `hosts`, started on the first; ends after `timeout` seconds."""
        os.environ["DEEPER_TEST_HOSTS"] = " ".join(f"{name}={holder.pid}" for name, holder in self.holders.items())
        return [*self.enter(hosts[0]), mpirun, "--allow-run-as-root", "--bind-to", "none", "--timeout", str(timeout), "--mca", "plm_rsh_agent",
                str(HERE / "enter_host"), "--host", ",".join(f"{name}:{hosts.count(name)}" for name in dict.fromkeys(hosts)),
                "-n", str(len(hosts))]

    def job(self, mpirun, hosts, program, output):
        return self.job_of(self.launch(mpirun, hosts) + list(map(str, program)), output)

    def job_of(self, command, output):
        """Prepares the environment for a command that reaches other hosts with enter_host."""
        pids = {name: self.holders[name].pid for name in self.addresses}
        pids |= {self.addresses[name]: pid for name, pid in pids.items()}
        os.environ["DEEPER_TEST_HOSTS"] = " ".join(f"{name}={pid}" for name, pid in pids.items())
        os.environ["DEEPER_TEST_NAMESPACES"] = " ".join(self.namespaces)
        return Job(command, output)
