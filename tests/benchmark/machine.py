"""What Linux tells about processes and the machine: CPU seconds, memory, descriptions; from /proc."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
RESET_PEAK = "5"  # proc(5), /proc/pid/clear_refs: the peak becomes what is resident now


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of memory of a server's processes."""

    total: int  # of all processes
    largest: int  # of the one that has most
    processes: int


def processes_below(root: int) -> list[int]:
    """The process `root` and all its descendants that live."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat_of(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_of(pids: list[int]) -> float:
    """CPU seconds that the processes used so far, with those of children that ended."""
    used = 0
    for pid in pids:
        if fields := _stat_of(pid):
            used += sum(int(each) for each in fields[11:15])  # utime, stime, cutime, cstime
    return used / TICKS_PER_S


def idle_memory_of(pids: list[int]) -> Memory:
    """Memory now, where what processes share counts once (Pss)."""
    return _memory([_kilobytes(pid, "smaps_rollup", "Pss") for pid in pids])


def peak_memory_of(pids: list[int]) -> Memory:
    """The most that was resident since `reset_peaks`; what processes share counts for each (VmHWM)."""
    return _memory([_kilobytes(pid, "status", "VmHWM") for pid in pids])


def resident_memory_of(pids: list[int]) -> Memory:
    """What is resident now; what processes share counts for each (VmRSS)."""
    return _memory([_kilobytes(pid, "status", "VmRSS") for pid in pids])


def reset_peaks(pids: list[int]) -> None:
    """Let the peak of each process begin at what it has now."""
    for pid in pids:
        try:
            (PROC / str(pid) / "clear_refs").write_text(RESET_PEAK, encoding="ascii")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended


def machine_cpu() -> float:
    """CPU seconds that everything on this machine used since it was started."""
    fields = (PROC / "stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(each) for each in fields[:8])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


def own_cpu() -> float:
    """CPU seconds of this process and of the load generators that ended."""
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)


def describe_machine(folder: Path) -> dict[str, str]:
    """What a reader of the figures wants to know about this machine and the disk under `folder`."""
    model = next((line.split(":", 1)[1].strip() for line in _lines("cpuinfo") if line.startswith("model name")), "")
    memory_kb = int(next(line.split()[1] for line in _lines("meminfo") if line.startswith("MemTotal")))
    return {
        "processors": f"{os.cpu_count()} x {model or platform.machine()}",
        "memory": f"{memory_kb / 2**20:.0f} GiB",
        "system": f"{platform.freedesktop_os_release().get('PRETTY_NAME', '')}, Linux {platform.release()}",
        "file system": _file_system_of(folder),
        "Python": platform.python_version(),
    }


def find_program(name: str) -> str | None:
    """The path of a program, also of one that only root has in its path."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def first_line_of(*command: str) -> str:
    """The first line that a command prints, wherever it prints it; "" when there is none."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return next(iter((done.stdout.strip() or done.stderr.strip()).splitlines()), "")


def _file_system_of(folder: Path) -> str:
    line = first_line_of("stat", "--file-system", "--format=%T", str(folder))
    return {"ext2/ext3": "ext4"}.get(line, line)


def _lines(name: str) -> list[str]:
    return (PROC / name).read_text(encoding="utf-8", errors="replace").splitlines()


def _stat_of(pid: int) -> list[str]:
    """The fields of /proc/pid/stat from the state on; none when the process has ended."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()  # the name before it may hold spaces


def _kilobytes(pid: int, file: str, field: str) -> int:
    try:
        lines = _lines(f"{pid}/{file}")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)


def _memory(kilobytes: list[int]) -> Memory:
    there = [each * 1024 for each in kilobytes if each]
    return Memory(sum(there), max(there, default=0), len(there))
