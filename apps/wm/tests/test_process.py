"""What glibc does with freed memory shows in page faults: memory that was returned is faulted in again."""

import platform
import subprocess
import sys

import pytest

ASK_TWICE = """
import resource, sys
from wm.process import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step = [bytes([1]) * (24 << 20) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(4):
    last = faults()
print(last)
"""


def faults_of_a_step(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", ASK_TWICE, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
def test_freed_memory_is_used_again() -> None:
    pages = 4 * 24 * 2**20 // 4096
    assert faults_of_a_step("give back") > pages / 2
    assert faults_of_a_step("keep") < pages / 50
