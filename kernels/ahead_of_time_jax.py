"""Compiles JAX programs for H100s on a machine without one: XLA's own compiler for GPUs, without a device.

`h100s` gives devices to compile for. They hold nothing and run nothing, but what was compiled for them can be asked for
its code, its memory and the bytes that it moves. XLA chooses by rules there, where it would measure on a GPU, so other
choices are possible on a real one. Needs jax-cuda13-pjrt and jax-cuda13-plugin of jax's own version (the extra
`jax-ahead-of-time`), and neither CUDA nor a driver.
"""

import importlib.util
import os

import jax
from jax.experimental import topologies
from jaxlib import _jax

# An H100 SXM, in XLA's words: CUDA C++ programming guide (compute capability 9.0), and the data sheet.
H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 10 patch: 0 }
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  runtime_version: "13.0.0"
  driver_version: "13.0.0"
  core_count: 132
  fpus_per_core: 128
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  l2_cache_size: 52428800
  device_memory_size: 85899345920
  memory_bandwidth: 3350000000000
  clock_rate_ghz: 1.98
}
"""


def why_not() -> str | None:
    """Why nothing can be compiled for an H100 here, or None."""
    if importlib.util.find_spec("jax_plugins") and importlib.util.find_spec("jax_plugins.xla_cuda13"):
        return None
    return "jax-cuda13-pjrt and jax-cuda13-plugin are not installed (the extra `jax-ahead-of-time`)"


def h100s(count: int) -> list[jax.Device]:
    """That many H100s of one machine. To be called first: JAX then leaves this machine's own GPUs alone."""
    os.environ.update(JAX_SKIP_CUDA_CONSTRAINTS_CHECK="1", CUDA_VISIBLE_DEVICES="-1")
    jax.config.update("jax_platforms", "cpu")
    machine = topologies.get_topology_desc(platform="cuda", target_config=H100, topology=f"1x1x{count}")
    return list(machine.devices)


def bytes_accessed(compiled: jax.stages.Compiled) -> float:
    """Read and written by all operations of a compiled program, caches left out of account.

    XLA's count for the program as compiled, by the rules of the CPU's client: the one without a device counts nothing.
    """
    executable = compiled.runtime_executable()
    if executable is None:
        raise ValueError("the program was compiled for another process's devices: compile it in this one")
    (module,) = executable.hlo_modules()
    properties = _jax.hlo_module_cost_analysis(jax.local_devices()[0].client, module)
    return float(properties["bytes accessed"])
