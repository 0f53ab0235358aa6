"""The command line of mpirun for deeper-run: hosts and their slots, cores, network interface."""
import contextlib
import fcntl
import functools
import ipaddress
import os
import pathlib
import re
import shlex
import shutil
import socket
import struct
import subprocess
import time
from typing import NamedTuple

USAGE, COMMUNICATION = 2, 5  # deeper's exit codes: kernels/base/exit_code.h
# A rank tells mpirun when it leaves MPI. The mpirun of Open MPI 4 sometimes notices the end of the process first. Without this parameter, it
# then ends with exit code 1, although all ranks ended with 0 (https://github.com/open-mpi/ompi/issues/7833). With it, mpirun accepts every
# rank that ends with 0. The watchdog of a training still reports a rank that ends too early.
EXIT_WITHOUT_SYNC = "orte_allowed_exit_without_sync"


class Refusal(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Host(NamedTuple):
    name: str
    slots: int


def flag(arguments, name, inside=()):
    """The value of a flag, with flag files, as deeper parses it; None without one. inside: the flag files that hold the arguments."""
    value, arguments = None, list(arguments)
    while arguments:
        word = arguments.pop(0).strip()
        given, equals, text = word.lstrip("-").partition("=")
        if not word.startswith("-") or given not in (name, "flagfile"):
            continue
        text = text if equals else arguments.pop(0) if arguments else ""
        path = pathlib.Path(text)
        if given == name:
            value = text
        elif os.path.exists(path) and not os.path.isfile(path):
            raise Refusal(USAGE, f"--flagfile={text} is not a regular file; write the flags to a file that every rank can read")
        elif path not in inside:
            with contextlib.suppress(OSError):  # deeper reports a file that includes itself, is missing or cannot be read
                lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
                of_file = flag(lines, name, (*inside, path))
                value = value if of_file is None else of_file
    return value


# This machine.

def program(path, what_to_do):
    found = shutil.which(path)
    if found is None:
        raise Refusal(USAGE, f"there is no program {path}; {what_to_do}")
    return os.path.abspath(found)


def output(*command):
    """The output of a command; empty if it is missing or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def gpus():
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        devices = [device.strip() for device in visible.split(",") if device]
        return devices.index("-1") if "-1" in devices else len(devices)  # CUDA uses those before an invalid one
    return len(re.findall(r"(?m)^GPU ", output("nvidia-smi", "-L")))


def cores():
    """Number of physical cores that this process may run on."""
    found = set()
    for cpu in os.sched_getaffinity(0):
        topology = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        found.add(tuple((topology / name).read_text() for name in ("physical_package_id", "core_id")) if topology.is_dir() else cpu)
    return len(found)


@functools.lru_cache
def addresses(host):
    """IPv4 addresses; empty if only the rsh agent knows the name."""
    try:
        return [entry[4][0] for entry in socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_DGRAM)]
    except (OSError, UnicodeError):  # not a name that DNS can have
        return []


def is_here(host):
    """Whether a host is this machine: a machine can only bind to its own addresses."""
    if host in ("localhost", socket.gethostname(), socket.gethostname().split(".")[0]):
        return True
    for address in addresses(host):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
            return True
    return False


# Hosts.

def describe(hosts):
    return ",".join(f"{host.name}:{host.slots}" for host in hosts)


def slots_of(hosts):
    return sum(host.slots for host in hosts)


def listed_hosts(text, each):
    """a:2,b:2"""
    hosts = []
    for entry in text.split(","):
        name, _, slots = entry.partition(":")
        if not re.fullmatch(r"[^:]+(:[1-9]\d*)?", entry):
            raise Refusal(USAGE, f"--hosts: '{entry}' is not a host; write a:2 or a")
        hosts.append(Host(name, int(slots or each)))
    return hosts


def text_of(path, what):
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError as error:
        raise Refusal(USAGE, f"{what} {path}: {error.strerror}") from error


def hostfile_hosts(path, each):
    hosts = []
    for number, line in enumerate(text_of(path, "hostfile").splitlines(), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        slots = dict(word.partition("=")[::2] for word in words[1:]).get("slots", str(each))
        if not re.fullmatch(r"[1-9]\d*", slots):
            raise Refusal(USAGE, f"hostfile {path}, line {number}: slots={slots} is not a number of ranks")
        hosts.append(Host(words[0], int(slots)))
    if not hosts:
        raise Refusal(USAGE, f"hostfile {path} names no host: write lines `name slots=2`")
    return hosts


def slurm_hosts(each):
    names = output("scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]).split()
    if not names:
        raise Refusal(USAGE, f"scontrol cannot list the hosts of SLURM_JOB_NODELIST={os.environ['SLURM_JOB_NODELIST']}")
    if "SLURM_NTASKS" not in os.environ:  # no tasks were requested, so Slurm's one task per node has no meaning
        os.environ["SLURM_TASKS_PER_NODE"] = f"{each}(x{len(names)})"  # Open MPI takes its slots from there
        return [Host(name, each) for name in names]
    slots = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ["SLURM_TASKS_PER_NODE"]):  # 8(x3),4
        slots += [int(count)] * int(times or 1)
    return [Host(*pair) for pair in zip(names, slots)]


def find_hosts(options):
    """-> hosts without those of --exclude, and the source of the list."""
    hosts, source = all_hosts(options)
    excluded = [name for name in (options.exclude or "").split(",") if name]
    if unknown := set(excluded) - {host.name for host in hosts}:
        raise Refusal(USAGE, f"--exclude={options.exclude}: {', '.join(sorted(unknown))} not among {describe(hosts)} ({source})")
    left = [host for host in hosts if host.name not in excluded]
    if not left:
        raise Refusal(USAGE, f"--exclude={options.exclude} leaves none of {describe(hosts)} ({source})")
    return left, source


def all_hosts(options):
    devices = gpus()
    each = max(1, devices)
    default_hostfile = os.environ.get("OMPI_MCA_orte_default_hostfile")  # Kubernetes' MPI operator sets it
    if options.hosts:
        return listed_hosts(options.hosts, each), "--hosts"
    if options.hostfile:
        return hostfile_hosts(options.hostfile, each), options.hostfile
    if "SLURM_JOB_NODELIST" in os.environ:
        os.environ.setdefault("SLURM_OVERLAP", "1")  # in `srun --pty bash`, the shell holds what mpirun's daemons wait for
        return slurm_hosts(each), f"Slurm job {os.environ.get('SLURM_JOB_ID')}"
    if "PBS_NODEFILE" in os.environ:
        path = os.environ["PBS_NODEFILE"]
        names = text_of(path, "PBS_NODEFILE").split()  # one line per slot
        if not names:
            raise Refusal(USAGE, f"PBS_NODEFILE {path}: names no host")
        return [Host(name, names.count(name)) for name in dict.fromkeys(names)], f"PBS job {os.environ.get('PBS_JOBID')}"
    if default_hostfile:
        return hostfile_hosts(default_hostfile, each), default_hostfile
    slots = devices or (cores() if options.n else 1)
    return [Host("localhost", slots)], f"this machine, {devices} GPUs" if devices else f"this machine, {cores()} cores"


def count_ranks(options, hosts, source):
    slots = slots_of(hosts)
    if (options.n or 0) > slots and not options.oversubscribe:
        raise Refusal(USAGE, f"-n {options.n} needs more than the {slots} slots of {describe(hosts)} ({source}); use fewer ranks, more slots, "
                      "or --oversubscribe")
    return options.n or slots


def rsh_agent(options):
    """The command that reaches a host, before the name of the host and a command for it."""
    if "SLURM_JOB_NODELIST" in os.environ and not (options.hosts or options.hostfile):
        agent = ["srun", "--overlap", "--nodes=1", "--ntasks=1", "--nodelist"]
    else:
        try:
            agent = shlex.split(options.rsh_agent)
        except ValueError as error:
            raise Refusal(USAGE, f"--rsh_agent={options.rsh_agent}: {error}") from error
        if not agent:
            raise Refusal(USAGE, "--rsh_agent must not be empty")
    if agent == ["ssh"]:
        agent += ["-o", "BatchMode=yes"]  # nobody can type a password
    return [program(agent[0], "deeper-run reaches other hosts with it; see --rsh_agent"), *agent[1:]]


# mpirun's options.

def binding(options, hosts, ranks):
    """-> options, and their effect."""
    if flag(options.command, "device") == "cuda":
        return ["--bind-to", "none"], "each rank binds to its GPU and the cores near it"
    if not any(is_here(host.name) for host in hosts):
        return ["--bind-to", "none"], "none, because the numbers of cores of the hosts are not known"
    fullest = min(ranks, max(host.slots for host in hosts))
    each = cores() // fullest
    if ranks > slots_of(hosts) or each == 0:
        return ["--bind-to", "none"], "none, because ranks share cores"
    return ["--map-by", f"slot:PE={each}", "--bind-to", "core"], f"{each} of {cores()} cores per rank"


def interfaces():
    """{name: its IPv4 address; None without one}"""
    found = {name: None for _, name in socket.if_nameindex()}
    for name in found:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            answer = fcntl.ioctl(any_socket, 0x8915, struct.pack("256s", name.encode()[:15]))  # SIOCGIFADDR
            found[name] = socket.inet_ntoa(answer[20:24])
    return found


def route(host):
    """The interface of the route to a host; None: unknown."""
    for address in addresses(host):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # sends nothing
            mine = probe.getsockname()[0]
            if names := [name for name, here in interfaces().items() if here == mine]:
                return names[0]
    return None


def check_interface(names, others):
    here = interfaces()
    for name in names.split(","):
        if here.get(name) is None:
            raise Refusal(USAGE, f"--interface={name}: this machine has {'no IPv4 address there' if name in here else 'no such interface'}; "
                          f"it has {', '.join(f'{other} ({address})' for other, address in here.items() if address)}")
        if others and here[name].startswith("127."):
            raise Refusal(USAGE, f"--interface={name} does not lead to {others[0]}")


def choose_interface(options, others):
    """-> names, separated by commas (None: Open MPI chooses), and the reason."""
    if options.interface:
        check_interface(options.interface, others)
        return options.interface, "from --interface"
    if not others:
        return None, "all ranks are on this machine"
    if (given := os.environ.get("OMPI_MCA_btl_tcp_if_include")) is not None:
        return given, "from OMPI_MCA_btl_tcp_if_include"
    ways = {host: route(host) for host in others}
    for host, way in ways.items():
        if way is None:
            return None, f"no route to {host} is known; see --interface"
    first = others[0]
    return ",".join(dict.fromkeys(ways.values())), f"the route to {first} ({addresses(first)[0]}) uses {ways[first]}"


def subnet(name):
    """10.0.0.0/24 of an interface, which may have another name on other hosts; its name if there is no address."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("256s", name.encode()[:15])
        address, mask = (fcntl.ioctl(any_socket, call, request)[20:24] for call in (0x8915, 0x891B))  # SIOCGIFADDR, SIOCGIFNETMASK
        return str(ipaddress.ip_network((address, ipaddress.ip_address(mask).exploded), strict=False))
    return name


def network(interface):
    if interface is None:
        return []
    subnets = ",".join(map(subnet, interface.split(",")))
    return ["--mca", "btl_tcp_if_include", subnets, "--mca", "oob_tcp_if_include", subnets]  # deeper gives NCCL and UCX the same network


def to_other_hosts(options):
    """Options for other hosts: the rsh agent, and variables that mpirun does not forward."""
    line = [] if options.rsh_agent == "ssh" else ["--mca", "plm_rsh_agent", options.rsh_agent]
    for name in sorted(os.environ):
        if name in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES") or name.startswith(("NCCL_", "UCX_", "OMP_")):
            line += ["-x", name]
    return line


def find_mpirun(options):
    mpirun = program(options.mpirun, "install Open MPI (Debian: openmpi-bin), load its module, or pass --mpirun=PATH")
    asked = subprocess.run([mpirun, "--version"], capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        raise Refusal(USAGE, f"{mpirun} --version fails with exit code {asked.returncode}: {asked.stderr.strip() or asked.stdout.strip()}")
    version = re.search(r"(?:Open MPI\)|OpenRTE\)) (\d+)", asked.stdout)  # mpiexec of 4.1 prints the name of its runtime
    if version is None:
        raise Refusal(USAGE, f"{mpirun} is not Open MPI, whose options deeper-run uses; start deeper with it directly")
    return mpirun, int(version[1])


def logs(options, version):
    """-> options, and sentences about them."""
    if options.log_dir is None:
        return [], []
    directory = os.path.join(os.path.abspath(options.log_dir), time.strftime("%Y%m%d-%H%M%S"))  # a restart keeps the logs before it
    if version < 5:
        return ["--output-filename", directory], [f"output: here, and of each rank in {directory} of its host"]
    return ["--output", f"dir={directory}"], [f"output: not here, but of each rank in {directory} of its host, as Open MPI 5 writes it"]


def mpirun_line(options, hosts, ranks):
    """-> the command, and lines with the reasons for it."""
    bound, cores_of_rank = binding(options, hosts, ranks)
    others = [host.name for host in hosts if not is_here(host.name)]
    interface, reason = choose_interface(options, others)
    mpirun, version = find_mpirun(options)
    line = [mpirun, "--host", describe(hosts), "-n", str(ranks), *bound, *network(interface)]
    line += ["--allow-run-as-root"] if os.geteuid() == 0 else []
    line += ["--mca", EXIT_WITHOUT_SYNC, "1"] if version < 5 and f"OMPI_MCA_{EXIT_WITHOUT_SYNC}" not in os.environ else []
    log_options, log_lines = logs(options, version)
    line += log_options
    line += ["--oversubscribe"] if options.oversubscribe else []
    line += to_other_hosts(options) if others else []
    deeper = program(options.deeper, "build it, put it on the PATH, or pass --deeper=PATH")
    return ([*line, deeper, *options.command],
            [f"binding: {cores_of_rank}", f"network: {interface or 'chosen by Open MPI'}: {reason}", *log_lines])
