"""Compiles every kernel for real GPUs on a machine without one, and reads what came out.

What may go wrong unseen is in the machine code: registers that spill to memory, more shared memory than the chip has,
loads of 4 bytes where 16 are due, a matrix product without matrix instructions. `inspect` compiles one `Launch` and
counts; `faults` says what is wrong. Triton's own tools are used, and no driver is needed.
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import driver
from triton.compiler import ASTSource

from timetrial.kernels.kernel import Launch

TARGETS = {"sm_80": 80, "sm_90": 90}
# The most that one block may have: 163 and 227 KiB (CUDA C++ programming guide, compute capabilities).
SHARED_BYTES = {"sm_80": 166_912, "sm_90": 232_448}
_TOOLS = Path(driver.__file__).parent / "bin"
_RESOURCES = (_TOOLS / "cuobjdump", "--dump-resource-usage")
# What `cuobjdump -sass` calls, without hexadecimal code and without following branches: in half the time.
_CODE = (_TOOLS / "nvdisasm", "--print-code", "--no-dataflow")


@dataclass(frozen=True, kw_only=True)
class Report:
    """One specialisation on one target."""

    target: str
    registers: int  # of a thread
    spills: int  # instructions that store a register to memory
    shared_bytes: int
    wide_loads: int  # instructions that load 16 bytes
    loads: int  # all from global memory
    matrix_instructions: int
    instructions: int  # all, but for what fills the end


def inspect(launch: Launch, target: str) -> Report:
    """Compile for `target`, a key of TARGETS."""
    function = launch.function
    names = list(launch.signature)
    places = {name: function.arg_names.index(name) for name in (*names, *launch.constants)}
    source = ASTSource(
        function,
        {name: launch.signature.get(name, "constexpr") for name in function.arg_names},
        {(places[name],): value for name, value in launch.constants.items()},
        {(places[name],): [["tt.divisibility", 16]] for name in launch.divisible if name in places},
    )
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", TARGETS[target], 32),
        options={
            "num_warps": launch.num_warps,
            "num_stages": launch.num_stages,
            "maxnreg": launch.most_registers,
            "enable_fp_fusion": True,
        },
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.run([*command, file.name], check=True, capture_output=True, text=True).stdout
            for command in (_RESOURCES, _CODE)
        )
    registers = re.search(r"REG:(\d+)", usage)
    return Report(
        target=target,
        registers=int(registers[1]) if registers else 0,
        spills=len(re.findall(r"\bSTL\b", code)),
        shared_bytes=compiled.metadata.shared,
        wide_loads=len(re.findall(r"\bLDG(?:STS)?\.E[\w.]*\.128", code)),
        loads=len(re.findall(r"\bLDG", code)),
        matrix_instructions=len(re.findall(r"\b(?:HMMA|HGMMA|WGMMA|IMMA)\b", code)),
        instructions=len(re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?!NOP)", code, re.MULTILINE)),
    )


def faults(launch: Launch, report: Report) -> list[str]:
    """What is wrong with what was compiled; nothing if it is as the launch says."""
    found = []
    if report.spills:
        found.append(f"{report.spills} stores of spilled registers")
    if report.shared_bytes > SHARED_BYTES[report.target]:
        found.append(f"{report.shared_bytes} bytes of shared memory, of {SHARED_BYTES[report.target]}")
    if launch.is_vectorised and not report.wide_loads:
        found.append(f"none of {report.loads} loads is of 16 bytes")
    if launch.is_matrix and not report.matrix_instructions:
        found.append("no matrix instruction")
    return found
