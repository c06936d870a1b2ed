"""Where a result comes from: the machine, the versions, the source."""

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any


def hardware() -> dict[str, Any]:
    """Processor, memory and GPUs, without a framework."""
    return {
        "cpu": _cpu_name(),
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpu_names(),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


def gpu_names() -> list[str]:
    """NVIDIA GPUs that a child process will see, by their driver; none where there is no driver."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or shutil.which("nvidia-smi") is None:
        return []
    answer = subprocess.run(
        ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    names = answer.stdout.strip().splitlines() if answer.returncode == 0 else []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names if visible is None else names[: len(visible.split(","))]


def source_hash(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of all Python and JSON files at and below `paths`."""
    digest = hashlib.sha256()
    for path in paths:
        files = (
            [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in (".py", ".json"))
        )
        for file in files:
            name = file.name if path.is_file() else file.relative_to(path).as_posix()
            digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Ours; the racer adds its framework's."""
    return {"timetrial": metadata.version("timetrial"), "numpy": metadata.version("numpy")}


def git_state(folder: Path) -> dict[str, str]:
    """Branch and commit of the checkout that `folder` lies in; empty outside one."""
    if shutil.which("git") is None:
        return {}
    answers = {}
    for name, arguments in {"git_branch": ["--abbrev-ref", "HEAD"], "git_commit_hash": ["HEAD"]}.items():
        answer = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", *arguments], capture_output=True, text=True, check=False
        )
        if answer.returncode == 0:
            answers[name] = answer.stdout.strip()
    return answers


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def framework_version(framework: str) -> str:
    """The installed version of torch or jax, without importing it."""
    try:
        return metadata.version(framework)
    except metadata.PackageNotFoundError:
        return "absent"
